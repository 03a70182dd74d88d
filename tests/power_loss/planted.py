"""Faults that this bench must find, or it proves nothing: what SQLite is told to sync.

Every program of the workload comes by here; ``__main__`` says in the environment what to plant.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from typing import Any

#: Names the mode that every ``PRAGMA synchronous`` of prefectlite becomes; empty for its own.
SYNCHRONOUS = "POWER_LOSS_SYNCHRONOUS"
_PRAGMA = "PRAGMA synchronous="


class _Careless(sqlite3.Connection):
    """A connection that syncs as it is told here, and not as prefectlite wants."""

    def execute(self, sql: str, parameters: Iterable[Any] = (), /) -> sqlite3.Cursor:  # type: ignore[override]  # typeshed has a protocol of its own for parameters
        """Execute a statement, or another in its place."""
        if sql.startswith(_PRAGMA):
            sql = _PRAGMA + os.environ[SYNCHRONOUS]
        return super().execute(sql, parameters)  # type: ignore[arg-type]  # as above


def plant() -> None:
    """Have all connections of this process sync as the environment says, if it says so."""
    if not os.environ.get(SYNCHRONOUS):
        return
    connect = sqlite3.connect

    def careless(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **{"factory": _Careless, **options})
        return connection

    sqlite3.connect = careless  # type: ignore[assignment]  # it has overloads
