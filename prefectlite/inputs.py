"""What may stand in a task's arguments for a value: futures, states, and three wrappers.

The engine finds the runs that a call rests on, waits for them, and puts their results in their
places, however deep they stand in lists, tuples, sets, dicts and dataclasses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from prefectlite.errors import (
    MappingLengthMismatch,
    MappingMissingIterable,
    UpstreamTaskError,
    UsageError,
)
from prefectlite.futures import TaskFuture
from prefectlite.states import State

T = TypeVar("T")

# What cannot hold a future; a quick look at the type saves a call for nearly every argument.
_PLAIN = frozenset({int, str, float, bool, bytes, complex, type(None)})
_SEQUENCES = frozenset({list, tuple, set, frozenset})


class _Wrapper(Generic[T]):
    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(_Wrapper[T]):  # noqa: N801 - Prefect 2.8's name
    """Give the whole value to every run that ``map`` makes, though it could be iterated."""

    __slots__ = ()


class allow_failure(_Wrapper[T]):  # noqa: N801 - Prefect 2.8's name
    """Run the task even if this upstream run fails; it then gets the exception as its argument."""

    __slots__ = ()


class quote(_Wrapper[T]):  # noqa: N801 - Prefect 2.8's name
    """Pass a value without looking for futures in it; for large collections of plain data."""

    __slots__ = ()

    def unquote(self) -> T:
        """Return the value."""
        return self.value


def listed(wait_for: object) -> list[object]:
    """Return the runs that a ``wait_for`` means: those of any iterable, or the one it is."""
    if wait_for is None:
        return []
    return list(wait_for) if isinstance(wait_for, Iterable) else [wait_for]


def may_hold_runs(args: Iterable[object], kwargs: Mapping[str, object]) -> bool:
    """Return whether arguments need a closer look; False for nearly every call."""
    return not _PLAIN.issuperset(map(type, (*args, *kwargs.values())))


def find_futures(*values: object) -> list[TaskFuture[Any]]:
    """Return the futures in ``values``, in order of appearance.

    Raises:
        UsageError: A value contains itself, or is nested too deep to look through.
    """
    found: list[TaskFuture[Any]] = []

    def note(run: TaskFuture[Any] | State, _: bool) -> object:  # noqa: FBT001 - see _Leaf
        if isinstance(run, TaskFuture):
            found.append(run)
        return run

    for value in values:
        _walk(value, note)
    return found


def resolve(value: T) -> T:
    """Return ``value`` with the result of each settled future and state in its place.

    Raises:
        UpstreamTaskError: One of them did not complete, outside of ``allow_failure``.
        UsageError: The value contains itself, or is nested too deep to look through.
    """
    resolved: T = _walk(value, _result_of)
    return resolved


def _result_of(run: TaskFuture[Any] | State, forgiving: bool) -> object:  # noqa: FBT001 - see _Leaf
    state = run.get_state() if isinstance(run, TaskFuture) else run
    if state.is_completed() or forgiving:
        return state.result(raise_on_failure=False)
    name = f" {run.name!r}" if isinstance(run, TaskFuture) else ""
    raise UpstreamTaskError(f"Upstream task run{name} did not reach a 'COMPLETED' state.")


# Called for each run that is found, and whether it stands inside ``allow_failure``.
_Leaf = Callable[[TaskFuture[Any] | State, bool], object]


def _walk(value: Any, leaf: _Leaf) -> Any:  # noqa: ANN401 - shaped like the value
    try:
        return _visit(value, leaf)
    except RecursionError:
        raise UsageError(
            "an argument contains itself, or is nested too deep to look for futures in it",
            hint="pass it as quote(...), which is not looked through",
        ) from None


def _visit(value: Any, leaf: _Leaf, *, forgiving: bool = False) -> Any:  # noqa: ANN401 - shaped like the value
    """Return ``value`` with ``leaf`` applied to its futures and states, and without wrappers.

    A collection in which nothing changes is returned itself, not a copy.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, TaskFuture | State):
        return leaf(value, forgiving)
    if isinstance(value, quote):
        return value.value
    if isinstance(value, _Wrapper):
        return _visit(value.value, leaf, forgiving=forgiving or kind is allow_failure)
    return _visit_inside(value, leaf, forgiving=forgiving)


def _visit_inside(value: Any, leaf: _Leaf, *, forgiving: bool) -> Any:  # noqa: ANN401 - shaped like the user's values
    kind = type(value)
    if kind in _SEQUENCES:
        items = [_visit(item, leaf, forgiving=forgiving) for item in value]
        unchanged = all(new is old for new, old in zip(items, value, strict=True))
        return value if unchanged else kind(items)
    if kind is dict:
        changed = {key: _visit(item, leaf, forgiving=forgiving) for key, item in value.items()}
        return value if all(changed[key] is value[key] for key in value) else changed
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _visit_dataclass(value, leaf, forgiving=forgiving)
    return value


def _visit_dataclass(value: Any, leaf: _Leaf, *, forgiving: bool) -> Any:  # noqa: ANN401 - any dataclass
    changes = {}
    for field in dataclasses.fields(value):
        old = getattr(value, field.name, None)
        new = _visit(old, leaf, forgiving=forgiving)
        if new is not old and field.init:
            changes[field.name] = new
    return dataclasses.replace(value, **changes) if changes else value


def split_for_map(
    args: Sequence[object], kwargs: Mapping[str, object]
) -> list[tuple[tuple[object, ...], dict[str, object]]]:
    """Return the arguments of each call that ``map`` makes.

    Iterables are walked in step; ``unmapped`` values, texts and everything that cannot be iterated
    go whole to every call.

    Raises:
        MappingMissingIterable: There is nothing to walk.
        MappingLengthMismatch: The iterables have different lengths.
    """
    whole: dict[int | str, object] = dict(enumerate(args))
    whole.update(kwargs)
    columns = {key: _column(value) for key, value in whole.items()}
    lengths = {key: len(column) for key, column in columns.items() if column is not None}
    if not lengths:
        raise MappingMissingIterable(
            "map was given nothing to iterate over", hint="call submit instead, or pass a list"
        )
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key}: {length}" for key, length in lengths.items())
        raise MappingLengthMismatch(
            f"map was given iterables of different lengths ({told})",
            hint="wrap what every call shall get whole in unmapped(...)",
        )

    def pick(key: int | str, index: int) -> object:
        column = columns[key]
        return whole[key] if column is None else column[index]

    return [
        (
            tuple(pick(position, index) for position in range(len(args))),
            {name: pick(name, index) for name in kwargs},
        )
        for index in range(next(iter(lengths.values())))
    ]


def _column(value: object) -> Sequence[object] | None:
    """Return the items that ``map`` walks; None for a value that goes whole to every call."""
    if isinstance(value, allow_failure):
        inner = _column(value.value)
        return None if inner is None else [allow_failure(item) for item in inner]
    if isinstance(value, unmapped | quote | str | bytes | bytearray | TaskFuture):
        return None
    if isinstance(value, list | tuple | range):
        return value
    return list(value) if isinstance(value, Iterable) else None
