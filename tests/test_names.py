"""Ids and names."""

import re
import uuid

import pytest

from prefectlite.names import near_hint, near_names, new_id, random_run_name


def test_an_id_is_a_random_uuid_in_lower_case():
    for _ in range(100):
        id_ = new_id()
        parsed = uuid.UUID(id_)
        assert str(parsed) == id_
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_ids_do_not_repeat():
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_a_run_name_is_an_adjective_and_an_animal():
    names = {random_run_name() for _ in range(1000)}
    assert all(re.fullmatch(r"[a-z]+-[a-z]+", name) for name in names)
    assert len(names) > 900


FORKED = """
import os
from prefectlite.names import new_id, random_run_name
random_run_name()
read, write = os.pipe()
if not os.fork():
    os.write(write, (new_id() + random_run_name()).encode())
    os._exit(0)
own = new_id() + random_run_name()
os.wait()
print(os.read(read, 200).decode() != own)
"""


def test_a_forked_child_does_not_repeat_its_parents_ids_and_names(start_python):
    assert start_python(FORKED).end() == "True\n"


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("inspct", ["inspect", "install"]),
        ("in", ["inspect", "install"]),
        ("--li", ["--limit", "--list"]),
        ("--", []),
        ("", []),
        ("quite-another", []),
    ],
)
def test_names_that_begin_alike_or_are_spelled_alike_are_near(word, near):
    assert near_names(word, ["inspect", "install", "--limit", "--list", "ls"]) == near


def test_a_hint_names_up_to_three():
    assert near_hint("a", ["ab", "ac", "ad", "ae"]) == "did you mean ab, ac or ad?"
    assert near_hint("a", ["ac", "ab"]) == "did you mean ab or ac?"
    assert near_hint("a", ["ab"]) == "did you mean ab?"
    assert near_hint("a", ["b"]) is None
