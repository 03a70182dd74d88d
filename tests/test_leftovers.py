"""Only what nothing on record can need is left over, and whose files these are is not guessed."""

import os
import time

import pytest
from pydantic import SecretStr

from prefectlite.blocks.system import Secret
from prefectlite.leftovers import find_leftovers, missing_secrets, remove_leftovers, results_size
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.results import results_folder, store_result
from prefectlite.secret_files import secrets_folder
from prefectlite.states import Running


def names(folder):
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def stored():
    """Store a result, so many days ago."""

    def store(id_, *, days=2):
        store_result(id_, "value")
        path = results_folder() / id_
        at = time.time() - days * 86_400
        os.utime(path, (at, at))
        return path

    return store


@pytest.fixture
def run_id(registry):
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running())
    registry.create_flow_run(run)
    return run.id


def find(registry):
    return find_leftovers(registry.upkeep, registry.blocks)


def test_the_result_of_a_run_that_is_not_on_record_is_left_over(registry, run_id, stored):
    stored(run_id)
    path = stored(new_id())
    found = find(registry)
    assert (found.results, found.results_bytes) == ([path], path.stat().st_size)
    assert remove_leftovers(registry, found) == 1
    assert names(results_folder()) == [run_id]
    assert not find(registry)


def test_what_is_younger_than_a_day_may_be_in_use(registry, stored):
    stored(new_id(), days=0.9)
    assert not find(registry)


def test_a_result_that_was_never_finished_is_left_over(registry, run_id, stored):
    path = stored(new_id())
    part = path.rename(path.with_name(f".{run_id}.0123456789abcdef"))
    assert find(registry).results == [part]


def test_files_and_folders_of_others_are_not_touched(registry, stored):
    stored(new_id()).rename(results_folder() / "notes.txt")
    (results_folder() / new_id()).mkdir()
    (results_folder() / new_id()).symlink_to("notes.txt")
    stored("ab" * 32)  # a result under a key of a person's own
    assert not find(registry)


def test_a_registry_that_is_elsewhere_has_no_leftovers_in_the_home_folder(
    registry, tmp_path, stored
):
    stored(new_id())
    other = open_registry(f"sqlite:///{tmp_path / 'other' / 'registry.db'}")
    assert not find(other)
    assert find(registry)


def test_a_file_of_secrets_that_no_block_names_is_left_over(registry):
    Secret(value=SecretStr("x")).save("kept")
    (kept,) = [name for name in names(secrets_folder()) if name != "lock"]
    left = new_id()
    registry.blocks.list_secrets_file(left)
    (secrets_folder() / left).write_text("[]")
    (secrets_folder() / new_id()).write_text("of another registry")
    found = find(registry)
    assert found.secrets == [left]
    assert remove_leftovers(registry, found) == 1
    assert left not in names(secrets_folder())
    assert len(names(secrets_folder())) == 3
    assert Secret.load("kept").get() == "x"
    assert kept in names(secrets_folder())


def test_a_block_whose_secrets_are_gone_is_named(registry):
    Secret(value=SecretStr("x")).save("one")
    assert missing_secrets(registry.blocks) == []
    for name in names(secrets_folder()):
        (secrets_folder() / name).unlink()
    (fault,) = missing_secrets(registry.blocks)
    assert fault.message.startswith("the secrets of the block secret/one are gone")
    assert "prefectlite block set secret/one" in fault.hint


def test_the_size_of_stored_results_is_that_of_all_of_them(registry, stored):
    assert results_size() == (0, 0)
    paths = [stored(new_id()), stored(new_id())]
    assert results_size() == (2, sum(path.stat().st_size for path in paths))
