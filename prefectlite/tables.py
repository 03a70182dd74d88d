"""What the parts of the SQLite registry are given: how they read, write and change states.

``registry/sqlite.py`` makes the parts, such as ``deployment_tables``; each then knows its own
statements and nothing of connections, transactions and log lines.
"""

from __future__ import annotations

import os
import pwd
import sqlite3  # noqa: TID251 - a part of the SQLite registry
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

from prefectlite.errors import AmbiguousReferenceError, NotFoundError
from prefectlite.forks import here
from prefectlite.names import near_hint
from prefectlite.records import FlowRun, TaskRun
from prefectlite.states import State

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], None]


_LEAST_ID_CHARACTERS = 4


class Write(Protocol):
    """A function that does ``work`` in one transaction; see ``Database.write``."""

    def __call__(self, work: Callable[[sqlite3.Connection], T], *, durable: bool) -> T: ...  # noqa: D102 - the class says it


class Read(Protocol):
    """A function that returns the records of the rows that a SELECT finds."""

    def __call__(  # noqa: D102 - the class says it
        self, record: Callable[[Sequence[Any]], T], sql: str, parameters: Sequence[object]
    ) -> list[T]: ...


ChangeState = Callable[[FlowRun, State], tuple[FlowRun, Change]]
#: What a part is made of.
Access = tuple[Read, Write, ChangeState]


class Tables:
    """One part of the registry.

    Args:
        read: Returns the records of the rows that a SELECT finds.
        write: Does its work in one transaction.
        change_state: Returns a run after a change, and what makes the change in a transaction.
    """

    def __init__(self, read: Read, write: Write, change_state: ChangeState) -> None:
        self._read = read
        self._write = write
        self._change_state = change_state


@cache
def actor(pid: int) -> str:
    """Return who a process of this user is in the history: ``user@host:PID``."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}:{pid}"


def ends_process(run: FlowRun | TaskRun) -> bool:
    """Return whether this process ends with a run, and a supervisor all that it then has started."""
    if not isinstance(run, FlowRun) or run.supervisor is None or run.process is None:
        return False
    return run.state.is_final() and run.process.pid == here.pid


def id_range(text: str) -> tuple[str, str]:
    """Return between which two texts the ids are that begin with a text: from the first, below the second.

    None are where it has less than four characters, the least that stand for an id, as in git: fewer
    are rather a slip of the finger, and name another thing tomorrow.
    """
    # "g" is the first character after those of an id.
    start = text.lower() if len(text) >= _LEAST_ID_CHARACTERS else "g"
    return start, start + "g"


def only(
    found: Sequence[T],
    noun: str,
    reference: str,
    text: Callable[[T], str],
    *,
    known: Callable[[], Sequence[str]],
) -> T:
    """Return the one that was found for a reference.

    Args:
        found: Those that it means.
        noun: What they are, such as ``flow run``.
        reference: What a person calls it.
        text: Returns how one is called where there are several.
        known: Returns the names that a person may have meant.

    Raises:
        NotFoundError: There is none.
        AmbiguousReferenceError: There are several.
    """
    if not found:
        raise NotFoundError(
            f"there is no {noun} {reference!r}",
            hint=near_hint(reference, known()) or f"see: prefectlite {noun.replace(' ', '-')} ls",
        )
    if len(found) > 1:
        raise AmbiguousReferenceError(reference, [text(one) for one in found], noun=noun)
    return found[0]
