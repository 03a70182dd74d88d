"""What is true of every registry: blocks by type and name, the files of their secrets, their types."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite.block_records import BlockDocument, BlockType, NestedBlock, SecretPlace
from prefectlite.clock import now
from prefectlite.errors import ConflictError, NotFoundError, RegistryReadOnlyError
from prefectlite.names import new_id
from prefectlite.registry import open_registry

_HOSTILE = ["Grüße, 世界", "'; DROP TABLE block_document; --", "a\0b", "\ud800", " "]


def new_block(name="prod", type_="warehouse", **fields):
    return BlockDocument(id=new_id(), type=type_, name=name, **{"fields": {}, **fields})


@pytest.fixture
def blocks(store):
    return store.registry.blocks


def test_a_block_comes_back_as_it_was(store, blocks):
    blocks.list_secrets_file("a-file")
    block = new_block(
        fields={"a": [1, None, {"b": "ä\0"}], "c": float("inf")},
        secrets=(SecretPlace(("a", 0), "SecretStr"), SecretPlace(("c",))),
        blocks=(NestedBlock(("a", 2, "b"), "secret", "key"), NestedBlock(("a",), "json")),
        secrets_file="a-file",
    )
    assert blocks.save_block(block, overwrite=False) == block
    assert blocks.find_block("warehouse", "prod") == block
    assert store.open_again().blocks.list_blocks() == [block]


@pytest.mark.parametrize("text", _HOSTILE)
def test_a_text_of_any_kind_is_kept(blocks, text):
    block = new_block(text, fields={text: text})
    saved = blocks.save_block(block, overwrite=False)
    assert blocks.find_block("warehouse", text) == saved
    assert saved.fields == {text: text}
    blocks.delete_block("warehouse", text)
    assert blocks.list_blocks() == []


def test_a_name_is_taken_once_in_a_type(blocks):
    first = blocks.save_block(new_block(fields={"a": 1}), overwrite=False)
    blocks.save_block(new_block(type_="other"), overwrite=False)
    with pytest.raises(ConflictError, match="a block 'warehouse/prod' already"):
        blocks.save_block(new_block(), overwrite=False)
    assert blocks.find_block("warehouse", "prod") == first


def test_a_block_that_is_replaced_keeps_its_id_and_when_it_was_made(blocks):
    first = blocks.save_block(new_block(fields={"a": 1}), overwrite=True)
    later = first.created_at + timedelta(seconds=5)
    second = blocks.save_block(
        new_block(fields={"b": 2}, created_at=later, updated_at=later), overwrite=True
    )
    assert second == replace(first, fields={"b": 2}, updated_at=later)
    assert blocks.list_blocks() == [second]


def test_blocks_are_listed_by_type_and_name(blocks):
    for type_, name in [("b", "x"), ("a", "z"), ("b", "a"), ("a", "y")]:
        blocks.save_block(new_block(name, type_), overwrite=False)
    assert [one.full_name for one in blocks.list_blocks()] == ["a/y", "a/z", "b/a", "b/x"]
    assert [one.full_name for one in blocks.list_blocks("b")] == ["b/a", "b/x"]
    assert blocks.list_blocks("nonesuch") == []


def test_a_block_that_is_not_there_is_not_found(blocks):
    for act in (blocks.find_block, blocks.delete_block):
        with pytest.raises(NotFoundError, match="no block 'warehouse/prod'"):
            act("warehouse", "prod")


def test_a_file_is_unused_from_before_it_is_named_until_it_is_forgotten(blocks):
    for name in ("one", "two"):
        blocks.list_secrets_file(name)
    assert blocks.unused_secrets_files() == ["one", "two"]
    blocks.save_block(new_block(secrets_file="one"), overwrite=True)
    assert blocks.unused_secrets_files() == ["two"]
    blocks.save_block(new_block(secrets_file="two"), overwrite=True)
    assert blocks.unused_secrets_files() == ["one"]
    blocks.unlist_secrets_file("one")
    blocks.delete_block("warehouse", "prod")
    assert blocks.unused_secrets_files() == ["two"]


def test_of_many_who_save_one_name_at_once_one_wins(blocks):
    outcomes = []

    def save(number):
        try:
            outcomes.append(blocks.save_block(new_block(fields={"n": number}), overwrite=False))
        except ConflictError:
            outcomes.append(None)

    threads = [threading.Thread(target=save, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = filter(None, outcomes)
    assert len(outcomes) == 8
    assert blocks.list_blocks() == [winner]


def test_a_type_is_kept_with_where_it_is(store, blocks):
    moment = now()
    blocks.save_block_types([BlockType("b", "b.py", moment), BlockType("a", "pkg.a", moment)])
    blocks.save_block_types([BlockType("b", "/new/b.py", moment)])
    expected = [BlockType("a", "pkg.a", moment), BlockType("b", "/new/b.py", moment)]
    assert store.open_again().blocks.list_block_types() == expected


def test_a_registry_that_is_only_read_gives_blocks_and_takes_none(store, blocks):
    saved = blocks.save_block(new_block(), overwrite=False)
    reader = open_registry(store.url, read_only=True).blocks
    assert reader.list_blocks() == [saved]
    for act in (
        lambda: reader.save_block(new_block(), overwrite=True),
        lambda: reader.delete_block("warehouse", "prod"),
        lambda: reader.list_secrets_file("a"),
        lambda: reader.save_block_types([BlockType("a", "b")]),
    ):
        with pytest.raises(RegistryReadOnlyError):
            act()
