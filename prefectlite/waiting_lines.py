"""The log lines of one process that are not on record yet, for a registry in SQLite.

``registry/sqlite.py`` adds lines here and has its next write take them along. What a forked child
finds here is its parent's: it begins anew. The caller serialises ``take`` and ``put_back``.
"""

from __future__ import annotations

import sqlite3  # noqa: TID251 - for the type of a connection
import threading
from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import cast

from prefectlite.clock import monotonic
from prefectlite.forks import here
from prefectlite.records import LogLine
from prefectlite.rows import Values, log_values

# Who adds so many log lines before another thread comes to write them, writes them: two threads
# that take turns at the interpreter for each line would cost more than the writing does.
_MOST = 500
_INSERT = "INSERT INTO log (task_run_id, level, logger, message, at, flow_run_seq) VALUES "
_ROW = "(?, ?, ?, ?, ?, ?)"
# So many lines go with one statement: at each, the thread that logs is in the way of the one that
# writes. SQLite before 3.32 takes 999 values.
_AT_ONCE = 100
_INSERT_ONE = _INSERT + _ROW
_INSERT_MANY = _INSERT + ", ".join([_ROW] * _AT_ONCE)


class WaitingLines:
    """Lines in the order in which they were added, by any thread."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = here.pid
        self._lines: deque[Values] = deque()
        self._since = 0.0
        self._runs: set[str | None] = set()
        self._flushing = threading.Lock()

    def _own(self) -> deque[Values]:
        if self._pid != here.pid:
            self._begin()
        return self._lines

    @property
    def flushing(self) -> threading.Lock:
        """Held by who writes for the lines' sake, so that another need not come for the same."""
        self._own()
        return self._flushing

    def __bool__(self) -> bool:
        return bool(self._own())

    def add(self, line: LogLine) -> bool:
        """Add a line; return whether there are so many that the caller should record them."""
        lines = self._own()
        # Made ready here, so that a line which cannot be is its own caller's error, not that of
        # every later write.
        values = log_values(line)
        if not lines:
            self._since = monotonic()
        lines.append(values)
        self._runs.add(line.task_run_id)
        # Not at each line from then on: the disk may be full.
        return len(lines) % _MOST == 0

    def seconds(self) -> float | None:
        """Return how long the oldest one has waited; None where there is none."""
        return monotonic() - self._since if self._own() else None

    def are_of(self, task_run_id: str) -> bool:
        """Return whether some of them may be of this task run."""
        return self._pid == here.pid and task_run_id in self._runs

    def take(self) -> list[Values]:
        """Take all of them, to be inserted; if that is not committed, they are to be put back."""
        lines = self._own()
        taken: list[Values] = []
        self._runs.clear()
        while lines:
            taken.append(lines.popleft())
        return taken

    def put_back(self, taken: Sequence[Values]) -> None:
        """Let them wait again, before those that were added since."""
        self._own().extendleft(reversed(taken))
        self._runs.update(cast("str | None", line[0]) for line in taken)


def insert_lines(connection: sqlite3.Connection, lines: Sequence[Values]) -> None:
    """Insert lines that were taken; those of a flow run that is gone meanwhile are gone with it."""
    seqs = {
        id_: seq
        for id_ in {line[-1] for line in lines}
        for (seq,) in connection.execute("SELECT seq FROM flow_run WHERE id = ?", (id_,)).fetchall()
    }
    rows = [(*line[:-1], seqs[line[-1]]) for line in lines if line[-1] in seqs]
    whole = len(rows) - len(rows) % _AT_ONCE
    for first in range(0, whole, _AT_ONCE):
        values = [*chain.from_iterable(rows[first : first + _AT_ONCE])]
        connection.execute(_INSERT_MANY, values)
    connection.executemany(_INSERT_ONE, rows[whole:])
