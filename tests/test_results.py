"""What tasks return, kept in files; and cache keys."""

from __future__ import annotations

import os
import pickle
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from prefectlite import results
from prefectlite.errors import ResultNotStoredError
from prefectlite.results import (
    delete_results,
    hash_objects,
    load_result,
    store_result,
    task_input_hash,
)


def the_file(home: Path) -> Path:
    (file,) = (home / "results").iterdir()
    return file


@dataclass
class Point:
    x: int
    y: list[int] = field(default_factory=list)


class Model(BaseModel):
    values: set[str]


class Colour(Enum):
    RED = 1


class Bomb:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self):
        raise self.error


class Fuse:
    def __reduce__(self):
        return (_explode, ())


def _explode():
    raise RuntimeError("needs what is not here")


@pytest.mark.parametrize(
    "key", ["6f2a-11", "ab" * 32, "my key/../../etc", "", "ž\udc80", "x" * 500]
)
def test_a_stored_result_is_loaded_again(home, key):
    store_result(key, {"a": Point(1)})
    assert load_result(key) == {"a": Point(1)}
    assert the_file(home).parent == home / "results"


def test_a_result_is_replaced_by_the_next_one(home):
    store_result("a", 1)
    store_result("a", 2)
    assert load_result("a") == 2
    assert the_file(home).name == "a"


def test_results_are_for_their_owner_alone(home):
    before = os.umask(0)
    try:
        store_result("a", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "results").stat().st_mode) == 0o700
    assert stat.S_IMODE(the_file(home).stat().st_mode) == 0o600


@pytest.mark.parametrize("value", [lambda: 0, threading.Lock(), Bomb(RuntimeError("no"))])
def test_what_cannot_be_pickled_is_not_stored(home, value):
    with pytest.raises(ResultNotStoredError, match="cannot be pickled") as caught:
        store_result("a", value)
    assert caught.value.hint == "return data, or set persist_result=False on the task or flow"
    assert not home.exists()


def test_an_interruption_while_pickling_is_not_swallowed(home):
    with pytest.raises(KeyboardInterrupt):
        store_result("a", Bomb(KeyboardInterrupt()))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there(home, monkeypatch, error):
    store_result("a", "before")

    def fail(_self, _target):
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    expected = ResultNotStoredError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        store_result("a", "after")
    assert load_result("a") == "before"
    assert the_file(home).name == "a"


def test_a_full_disk_is_an_error_and_leaves_nothing(home, monkeypatch):
    store_result("a", "before")
    full = Path("/dev/full")
    assert full.exists()
    real_open = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda _path, _flags, _mode: real_open(full, os.O_WRONLY))
        with pytest.raises(ResultNotStoredError, match="No space left on device"):
            store_result("a", "x" * 100_000)
    assert load_result("a") == "before"
    assert the_file(home).name == "a"


def test_a_folder_that_cannot_be_made_is_an_error(home):
    home.write_text("a file where the folder should be")
    with pytest.raises(ResultNotStoredError, match=r"cannot be written to .*results: "):
        store_result("a", 1)
    with pytest.raises(ResultNotStoredError):
        load_result("a")


def test_a_missing_result_is_an_error_and_can_be_deleted():
    with pytest.raises(ResultNotStoredError, match="no stored result 'a'"):
        load_result("a")
    delete_results(["a"])
    store_result("a", 1)
    delete_results(["a"])
    with pytest.raises(ResultNotStoredError, match="no stored result 'a'"):
        load_result("a")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:40],
        lambda content: content[:-4000] + b"\0" * 4000,
        lambda content: pickle.dumps("a bare pickle"),
        lambda content: content + b"x",
    ],
)
def test_a_damaged_result_is_never_loaded(home, damage):
    store_result("a", b"data" * 5000)
    file = the_file(home)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ResultNotStoredError, match="is damaged"):
        load_result("a")


def test_a_result_that_others_can_write_to_is_never_loaded(home):
    store_result("a", Fuse())
    the_file(home).chmod(0o620)
    with pytest.raises(ResultNotStoredError, match="others own it or can write to it"):
        load_result("a")


def test_a_result_of_another_user_is_never_loaded(home, monkeypatch):
    store_result("a", Fuse())
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(ResultNotStoredError, match="others own it or can write to it"):
        load_result("a")


def test_a_result_whose_class_cannot_be_made_says_why():
    store_result("a", Fuse())
    with pytest.raises(ResultNotStoredError, match="RuntimeError: needs what is not here"):
        load_result("a")


def test_writers_of_one_key_never_show_a_reader_half_a_result(home, start_python):
    store_result("a", b"0" * 1_000_000)
    script = """
        import sys
        from prefectlite.results import store_result
        print("ready", flush=True)
        for _ in range(60):
            store_result("a", sys.argv[1].encode() * 1_000_000)
    """
    writers = [start_python(script, digit) for digit in "12"]
    assert [writer.line() for writer in writers] == ["ready", "ready"]
    seen = set()
    while any(writer.process.poll() is None for writer in writers):
        value = load_result("a")
        assert len(value) == 1_000_000
        assert len(set(value)) == 1
        seen.add(value[:1])
    for writer in writers:
        writer.end()
    assert seen & {b"1", b"2"}
    assert the_file(home).name == "a"


# Cache keys


SAMPLE = """
    import uuid
    from collections import OrderedDict, deque
    from datetime import UTC, datetime
    from decimal import Decimal
    from fractions import Fraction
    from pathlib import Path
    from prefectlite.results import hash_objects

    def function(x, y=2):
        return {word for word in ("a", "b", "c") if word in {"a", "b", "c"}}

    words = {"alpha", "beta", "gamma", "delta"}
    print(hash_objects(
        words, frozenset(words), {word: words for word in words}, OrderedDict(a=1), deque([1]),
        datetime(2024, 1, 2, tzinfo=UTC), Decimal("1.10"), Fraction(1, 3), Path("/a"),
        uuid.UUID(int=5), function, print, int, 10**100, b"x", 1j, name=Path,
    ))
"""


def test_a_hash_is_the_same_in_every_process(start_python):
    started = [start_python(SAMPLE, env={"PYTHONHASHSEED": seed}) for seed in ("0", "1", "2")]
    keys = {one.end().strip() for one in started}
    assert len(keys) == 1
    assert len(keys.pop()) == 64


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2, 3}, {3, 2, 1}),
        (["ab", "ab"], ["ab", "abc"[:2]]),
        (Point(1, [2]), Point(1, [2])),
        (Model(values={"a", "b", "c"}), Model(values={"c", "b", "a"})),
        (Colour.RED, Colour["RED"]),
    ],
)
def test_equal_values_have_one_hash(one, other):
    assert hash_objects(one) == hash_objects(other) is not None


@pytest.mark.parametrize(
    "values",
    [
        [1, 1.0, True, "1", b"1", Decimal(1), None, [1], (1,), {1}, frozenset({1}), {1: 1}],
        [[], (), {}, set(), "", b"", None, False, 0, 0.0, [[]], [()]],
        [["a", "b"], ["ab"], ["a", "b", ""], ["", "ab"], "ab", [["a"], "b"], ["a", ["b"]]],
        [{"a": "b"}, {"b": "a"}, {"ab": ""}, {"a": 1}, {"a": {"b": 1}}],
        [Point(1), Point(2), Point(1, [1]), Model(values={"a"}), Model(values={"b"})],
        [int, float, Point, len, sorted, Colour.RED, Colour],
        [lambda: 1, lambda: 2, lambda x: 1, lambda x=1: 1, lambda x=2: 1],
        [[].append, [1].append, [].extend],
        [UUID(int=1), UUID(int=2), datetime(2024, 1, 1, tzinfo=UTC), Path("a"), Path("b")],
    ],
)
def test_different_values_have_different_hashes(values):
    hashes = [hash_objects(value) for value in values]
    assert None not in hashes
    assert len(set(hashes)) == len(values)


def test_a_value_that_holds_itself_has_a_hash():
    def circle(*before):
        values = [*before]
        values.append(values)
        return values

    assert hash_objects(circle(1)) == hash_objects(circle(1)) is not None
    assert hash_objects(circle(1)) != hash_objects(circle(2))


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        (one for one in ()),
        Bomb(RuntimeError("no")),
        [{"deep": threading.Lock()}],
    ],
)
def test_what_cannot_be_hashed_has_no_key(value):
    assert hash_objects(value) is None


def test_a_value_too_deep_to_hash_has_no_key():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert hash_objects(deep) is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda one: st.lists(one) | st.dictionaries(st.text(), one) | st.tuples(one, one),
)


@given(values, values)
def test_hashes_are_equal_if_the_values_are(one, other):
    # repr tells 1 from True, and this kind of value fully.
    same = repr(one) == repr(other) or _sorted(one) == _sorted(other)
    assert (hash_objects(one) == hash_objects(other)) == same


def _sorted(value):
    if isinstance(value, dict):
        return repr(sorted((key, _sorted(one)) for key, one in value.items())) + "}"
    if isinstance(value, list | tuple):
        return repr((type(value), [_sorted(one) for one in value]))
    return repr(value)


def context(function: Callable[..., object]) -> results._HasTask:
    return SimpleNamespace(task=SimpleNamespace(fn=function))


def adder(number: int) -> Callable[[int], int]:
    def add(x: int) -> int:
        return x + number

    return add


def test_the_cache_key_is_of_the_code_and_the_parameters():
    def function(x):
        return x + 1

    def same():
        def function(x):
            return x + 1

        function.__qualname__ = outer.__qualname__
        return function

    outer = function
    key = task_input_hash(context(function), {"x": 1})
    assert key == task_input_hash(context(same()), {"x": 1})
    assert key != task_input_hash(context(function), {"x": 2})
    assert len(key) == 64


def test_the_cache_key_changes_with_a_constant_in_the_code():
    def one(x):
        return x + 1

    def other(x):
        return x + 2

    other.__qualname__ = one.__qualname__
    assert task_input_hash(context(one), {"x": 1}) != task_input_hash(context(other), {"x": 1})


def test_the_cache_key_changes_with_what_the_function_closes_over():
    key = task_input_hash(context(adder(1)), {"x": 1})
    assert key == task_input_hash(context(adder(1)), {"x": 1})
    assert key != task_input_hash(context(adder(2)), {"x": 1})


def test_parameters_that_cannot_be_hashed_give_no_cache_key():
    assert task_input_hash(context(adder(1)), {"x": threading.Lock()}) is None


def test_a_script_and_the_same_file_imported_have_one_cache_key(tmp_path, start_python):
    (tmp_path / "myflow.py").write_text(
        "from types import SimpleNamespace\n"
        "from prefectlite.results import task_input_hash\n"
        "def task(x): return x\n"
        "print(task_input_hash(SimpleNamespace(task=SimpleNamespace(fn=task)), {'x': 1}))\n"
    )
    as_script = "import runpy; runpy.run_path('myflow.py', run_name='__main__')"
    keys = {start_python(code, cwd=tmp_path).end() for code in (as_script, "import myflow")}
    assert len(keys) == 1
    assert keys != {"None\n"}
