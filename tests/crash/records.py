"""What the registry says, read by SQL alone: prefectlite's own reading may be what is wrong."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.processes import Process

_FLOW_RUNS = """
    SELECT seq, id, name, flow_name, state_type, state_name, state_version,
        run_count, parent_flow_run_id, process, supervisor, launcher, infrastructure_pid
    FROM flow_run
"""
_TASK_RUNS = """
    SELECT task_run.seq, task_run.id, flow_run.id, task_run.state_type, task_run.state_name,
        task_run.state_version, task_run.run_count
    FROM task_run JOIN flow_run ON flow_run.seq = flow_run_seq
"""
_UNFINISHED = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process on a run's record."""

    pid: int
    start_ticks: int
    token: str


@dataclass(frozen=True, slots=True)
class Change:
    """A state that a run has had: its version, type and name."""

    version: int
    type: str
    name: str


@dataclass(frozen=True, slots=True)
class Run:
    """A flow run or task run on record.

    Attributes:
        flow_run_id: A task run's flow run; a flow run's own id.
        flow_name: Empty for a task run.
        history: Every state, the present one last.
        owners: Who runs, supervises or launches it, in that order; None where there is nobody.
    """

    id: str
    name: str
    flow_run_id: str
    flow_name: str
    run_count: int
    history: tuple[Change, ...]
    parent_id: str | None = None
    is_launched: bool = False
    owners: tuple[Owner | None, Owner | None, Owner | None] = (None, None, None)

    @property
    def type(self) -> str:
        """The type of its state."""
        return self.history[-1].type

    @property
    def is_final(self) -> bool:
        """Whether nothing may follow."""
        return self.type not in _UNFINISHED

    @property
    def tokens(self) -> frozenset[str]:
        """Those of its processes, which what it starts inherits."""
        return frozenset(owner.token for owner in self.owners[:2] if owner is not None)

    def has(self, process: Process) -> bool:
        """Return whether a process is of this flow run, or descends from it."""
        return process.flow_run_id == self.id or not self.tokens.isdisjoint(process.tokens)

    def __str__(self) -> str:
        states = " > ".join(change.name for change in self.history)
        return f"{self.flow_name or 'task'} run {self.name or self.id} ({self.id[:8]}: {states})"


@dataclass(slots=True)
class Records:
    """What is on record.

    Attributes:
        flow_runs: By id.
        task_runs: By id.
        logged: Ids of the task runs that have a log line.
        damage: What SQLite itself finds wrong.
    """

    flow_runs: dict[str, Run] = field(default_factory=dict)
    task_runs: dict[str, Run] = field(default_factory=dict)
    logged: set[str] = field(default_factory=set)
    damage: list[str] = field(default_factory=list)


def read(home: Path) -> Records:
    """Return all that a registry holds."""
    records = Records()
    if not (home / "registry.db").exists():
        return records
    with _opened(home) as connection:
        records.damage = _damage(connection)
        histories = _histories(connection, "flow_run")
        for row in connection.execute(_FLOW_RUNS):
            run = _flow_run(row, histories[row["seq"]])
            records.flow_runs[run.id] = run
        histories = _histories(connection, "task_run")
        for row in connection.execute(_TASK_RUNS):
            seq, id_, flow_run_id, type_, name, version, run_count = row
            history = (*histories[seq], Change(version, type_, name))
            records.task_runs[id_] = Run(id_, "", flow_run_id, "", run_count, history)
        rows = connection.execute("SELECT DISTINCT task_run_id FROM log WHERE task_run_id NOTNULL")
        records.logged = {id_ for (id_,) in rows}
    return records


def is_any(home: Path, state_type: str) -> bool:
    """Return whether a flow run is in a state of this type."""
    if not (home / "registry.db").exists():
        return False
    sql = "SELECT 1 FROM flow_run WHERE state_type = ? LIMIT 1"
    try:
        with _opened(home) as connection:
            return bool(connection.execute(sql, [state_type]).fetchall())
    except sqlite3.OperationalError:  # its tables are about to be made
        return False


def tree_of(home: Path, name: str) -> Run:
    """Return a flow run by its name."""
    with _opened(home) as connection:
        (row,) = connection.execute(f"{_FLOW_RUNS} WHERE name = ?", [name]).fetchall()
        return _flow_run(row, ())


@contextmanager
def _opened(home: Path) -> Iterator[sqlite3.Connection]:
    path = home / "registry.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")  # all of it as of one moment
        yield connection


def _damage(connection: sqlite3.Connection) -> list[str]:
    found = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    rows = connection.execute("PRAGMA foreign_key_check")
    found += [f"a row of {row[0]} refers to none" for row in rows]
    return found


def _histories(connection: sqlite3.Connection, table: str) -> dict[int, list[Change]]:
    found = defaultdict[int, list[Change]](list)
    sql = f"SELECT {table}_seq, version, type, name FROM {table}_state ORDER BY 1, 2"
    for seq, version, type_, name in connection.execute(sql):
        found[seq].append(Change(version, type_, name))
    return found


def _flow_run(row: sqlite3.Row, before: list[Change] | tuple[()]) -> Run:
    return Run(
        id=row["id"],
        name=row["name"],
        flow_run_id=row["id"],
        flow_name=row["flow_name"],
        run_count=row["run_count"],
        history=(*before, Change(row["state_version"], row["state_type"], row["state_name"])),
        parent_id=row["parent_flow_run_id"],
        is_launched=row["infrastructure_pid"] is not None,
        owners=(_owner(row["process"]), _owner(row["supervisor"]), _owner(row["launcher"])),
    )


def _owner(text: str | None) -> Owner | None:
    if text is None:
        return None
    fields: dict[str, Any] = json.loads(text)
    return Owner(fields["pid"], fields["start_ticks"], fields["token"])
