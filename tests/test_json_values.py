"""Copies of any value that JSON can hold."""

from __future__ import annotations

import json
import math
import uuid
from collections import deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Secret, SecretBytes, SecretStr

from prefectlite.json_values import LIMIT_BYTES, MASK, clean, shown, to_json_value


class Colour(Enum):
    RED = 1


class Word(StrEnum):
    YES = "yes"


class Model(BaseModel):
    at: datetime
    password: SecretStr


class Opaque:
    def __repr__(self):
        return "opaque " * 100


class Broken:
    def __repr__(self):
        raise RuntimeError("broken")


class Unserializable(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: Broken
    password: SecretStr


@dataclass
class Login:
    user: str
    token: SecretStr
    password: str = field(repr=False)


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (5, 5),
        (1.5, 1.5),
        ("text", "text"),
        ("ž" * 10, "ž" * 10),
        ([1, [2, (3,)]], [1, [2, [3]]]),
        (Pair(1, 2), [1, 2]),
        (deque([1]), [1]),
        ({3, 1, 2}, [1, 2, 3]),
        ({"a": {Colour.RED: 5, None: 3, False: 4}}, {"a": {"1": 5, "None": 3, "False": 4}}),
        (Colour.RED, 1),
        (Word.YES, "yes"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00+00:00"),
        (date(2024, 1, 2), "2024-01-02"),
        (time(1, 2), "01:02:00"),
        (timedelta(minutes=1), 60.0),
        (Path("/a/b"), "/a/b"),
        (Decimal("1.10"), "1.10"),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (b"ab", "b'ab'"),
        (int, "<class 'int'>"),
        # pytest would write it out for a name, which Python refuses.
        pytest.param(1 << 9999, "<int of 10000 bits>", id="large"),
        (Broken(), "<Broken without a repr>"),
        ([Broken()], ["<Broken without a repr>"]),
        (os_text := "a\udc80", "a\\udc80"),
        ({os_text: 1}, {"a\\udc80": 1}),
    ],
)
def test_a_copy_is_what_json_can_hold(value, expected):
    copy = to_json_value(value)
    assert copy == expected
    assert type(copy) is type(expected)
    assert json.loads(json.dumps(copy, allow_nan=False)) == copy


def test_models_and_dataclasses_are_dicts_without_their_secrets():
    model = Model(at=datetime(2024, 1, 2, tzinfo=UTC), password="hunter2")
    assert to_json_value(model) == {"at": "2024-01-02T00:00:00Z", "password": MASK}
    login = Login("me", SecretStr("hunter2"), "hunter2")
    assert to_json_value([login]) == [{"user": "me", "token": MASK}]


@pytest.mark.parametrize(
    "secret",
    [
        SecretStr("hunter2"),
        SecretBytes(b"hunter2"),
        Secret[str]("hunter2"),
        {SecretStr("hunter2"): [SecretStr("hunter2")]},
        Unserializable(thing=Broken(), password="hunter2"),
    ],
)
def test_a_secret_never_passes(secret):
    assert "hunter2" not in json.dumps(to_json_value(secret))
    assert "hunter2" not in shown(secret, 1000)


def test_a_repr_is_cut():
    assert len(to_json_value(Opaque())) == 200
    assert len(to_json_value(b"x" * 10_000_000)) == 200
    assert len(shown("x" * 10_000_000, 100)) == 100
    assert len(shown([10**6] * 10_000_000, 100)) == 100


def test_a_value_that_holds_itself_is_copied_once():
    circle: list[object] = [1]
    circle.append({"again": circle})
    assert to_json_value(circle) == [1, {"again": "<itself>"}]
    twice = [1]
    assert to_json_value([twice, twice]) == [[1], [1]]


def test_a_deep_value_is_cut_at_its_depth():
    deep: object = "bottom"
    for _ in range(100_000):
        deep = [deep]
    text = json.dumps(to_json_value(deep))
    assert "too deeply nested" in text
    assert "bottom" not in text


class Endless(list):
    """Says that it is short, and never ends."""

    steps = 0

    def __len__(self):
        return 1

    def __iter__(self):
        while True:
            type(self).steps += 1
            yield "x" * 10


class Raising(dict):
    def items(self):
        raise RuntimeError("broken")


def test_a_value_whose_own_code_fails_is_shown_instead():
    assert to_json_value(Raising(a=1)) == "{'a': 1}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * LIMIT_BYTES, "<str of 65,536 characters: too large to record>"),
        ("\x00" * 11_000, "<str of 11,000 characters: too large to record>"),
        ([1.1] * 1_000_000, "<list of 1,000,000 items: too large to record>"),
        ({"a": ["x" * 1000] * 70}, "<dict of 1 items: too large to record>"),
        (set(range(100_000)), "<set of 100,000 items: too large to record>"),
        (Endless(), "<Endless of 1 items: too large to record>"),
    ],
)
def test_a_value_that_is_too_large_is_said_and_not_copied(value, text):
    assert to_json_value(value) == text
    assert Endless.steps < LIMIT_BYTES


def test_a_large_value_below_the_limit_is_kept():
    value = ["x" * 1000] * 60
    assert to_json_value(value) == value


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda one: (
        st.lists(one)
        | st.frozensets(st.integers() | st.text())
        | st.tuples(one, one)
        | st.dictionaries(st.integers() | st.text() | st.none() | st.dates(), one)
    ),
)


@given(anything)
def test_every_copy_is_strict_json_that_can_be_written(value):
    text = json.dumps(to_json_value(value), allow_nan=False, ensure_ascii=False)
    assert len(text.encode("utf-8")) <= LIMIT_BYTES


def test_clean_text_can_be_written_as_utf_8():
    assert clean("plain ž") == "plain ž"
    assert clean("\ud800").encode("utf-8") == b"\\ud800"
