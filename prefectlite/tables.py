"""What the parts of the SQLite registry are given: how they read, write and change states.

``registry/sqlite.py`` makes the parts, ``deployment_tables`` and ``launch_tables``; each then knows its
own statements and nothing of connections, transactions and log lines.
"""

from __future__ import annotations

import sqlite3  # noqa: TID251 - a part of the SQLite registry
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from prefectlite.records import FlowRun
from prefectlite.states import State

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], None]


class Write(Protocol):
    """A function that does ``work`` in one transaction; see ``Database.write``."""

    def __call__(self, work: Callable[[sqlite3.Connection], T], *, durable: bool) -> T: ...  # noqa: D102 - the class says it


class Read(Protocol):
    """A function that returns the records of the rows that a SELECT finds."""

    def __call__(  # noqa: D102 - the class says it
        self, record: Callable[[Sequence[Any]], T], sql: str, parameters: Sequence[object]
    ) -> list[T]: ...


class Tables:
    """One part of the registry.

    Args:
        read: Returns the records of the rows that a SELECT finds.
        write: Does its work in one transaction.
        change_state: Returns a run after a change, and what makes the change in a transaction.
    """

    def __init__(
        self,
        *,
        read: Read,
        write: Write,
        change_state: Callable[[FlowRun, State], tuple[FlowRun, Change]],
    ) -> None:
        self._read = read
        self._write = write
        self._change_state = change_state
