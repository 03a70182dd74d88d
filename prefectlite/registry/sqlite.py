"""The registry in one SQLite file: the tables of ``migrations/``, read and written by ``database``.

The scheme ``sqlite``; the address is ``sqlite:////absolute/path`` or ``sqlite:///relative/path``.
Changes of flow runs are durable commits, those of task runs and log lines are not: the next durable
one carries them along.
"""

from __future__ import annotations

import atexit
import json
import os
import pwd
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from prefectlite.clock import from_microseconds, to_microseconds
from prefectlite.database import Database, Row
from prefectlite.errors import (
    AmbiguousReferenceError,
    FlowRunNotRunningError,
    NotFoundError,
    SettingError,
    StateConflictError,
)
from prefectlite.records import (
    CachedResult,
    FlowRun,
    LogLine,
    Run,
    StateChange,
    TaskRun,
    after_change,
)
from prefectlite.registry import DEFAULT_LIMIT, Registry
from prefectlite.states import State, StateType, may_follow, recorded_state

T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
#: The number of the last file there.
SCHEMA_VERSION = 1
# What a log line costs in memory is bounded by this: past it, a line that is added is written.
_MAX_PENDING_LINES = 10_000

_FLOW_RUN_COLUMNS = (
    "id, name, flow_name, state_type, state_name, state_message, state_at, state_version,"
    " parameters, tags, version, entrypoint, parent_flow_run_id, parent_task_run_id, run_count,"
    " created_at, started_at, ended_at"
)
_TASK_RUN_COLUMNS = (
    "id, name, task_name, (SELECT id FROM flow_run WHERE seq = flow_run_seq), state_type,"
    " state_name, state_message, state_at, state_version, tags, parent_task_run_id, cache_key,"
    " run_count, created_at, started_at, ended_at"
)
_INSERT_FLOW_RUN = f"""
    INSERT INTO flow_run ({_FLOW_RUN_COLUMNS}, state_actor)
    VALUES ({", ".join("?" * 19)})
"""
_INSERT_TASK_RUN = """
    INSERT INTO task_run (
        id, name, task_name, flow_run_seq, state_type, state_name, state_message, state_at,
        state_version, tags, parent_task_run_id, cache_key, run_count, created_at, started_at,
        ended_at, state_actor)
    SELECT ?, ?, ?, seq, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
    FROM flow_run WHERE id = ? AND state_type = 'RUNNING'
"""
_CHANGE = """
    UPDATE {table} SET state_type = ?, state_name = ?, state_message = ?, state_at = ?,
        state_version = ?, run_count = ?, started_at = ?, ended_at = ?, state_actor = ?
    WHERE id = ? AND state_version = ?
"""
_CHANGE_FLOW_RUN = _CHANGE.format(table="flow_run")
_CHANGE_TASK_RUN = _CHANGE.format(table="task_run")
# Tasks that were submitted before a pause still finish; after an end or a cancel none starts.
_START_TASK_RUN = (
    _CHANGE_TASK_RUN
    + """ AND (SELECT state_type FROM flow_run WHERE seq = flow_run_seq) IN ('RUNNING', 'PAUSED')"""
)
_INSERT_LOG = """
    INSERT INTO log (flow_run_seq, task_run_id, level, logger, message, at)
    SELECT seq, ?, ?, ?, ?, ? FROM flow_run WHERE id = ?
"""


def open_registry(url: str, *, read_only: bool = False) -> SQLiteRegistry:
    """Return this process's registry for a file; see ``registry.open_registry``."""
    path = _path(url)
    with _OPENING:
        registry = _OPEN.get((path, read_only))
        if registry is None:
            registry = SQLiteRegistry(path, read_only=read_only)
            _OPEN[path, read_only] = registry
        return registry


def _path(url: str) -> Path:
    prefix = "sqlite:///"
    if not url.startswith(prefix) or len(url) == len(prefix):
        raise SettingError(
            f"the registry's address {url!r} names no file",
            hint="an absolute path takes four slashes: sqlite:////home/me/registry.db",
        )
    return Path(url.removeprefix(prefix)).absolute()


class SQLiteRegistry(Registry):
    """A registry in one file; the methods are described where ``Registry`` declares them."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.url = f"sqlite:///{path}"
        self._database = Database(
            path, migrations=MIGRATIONS, schema_version=SCHEMA_VERSION, read_only=read_only
        )
        self._read_only = read_only
        self._pending: deque[LogLine] = deque()
        self._process = os.getpid()
        self._actor = _actor()

    def create_flow_run(self, flow_run: FlowRun) -> None:
        row = (
            flow_run.id,
            flow_run.name,
            flow_run.flow_name,
            *_state_values(flow_run.state),
            flow_run.state_version,
            json.dumps(dict(flow_run.parameters)),
            json.dumps(flow_run.tags),
            flow_run.version,
            flow_run.entrypoint,
            flow_run.parent_flow_run_id,
            flow_run.parent_task_run_id,
            flow_run.run_count,
            to_microseconds(flow_run.created_at),
            _microseconds(flow_run.started_at),
            _microseconds(flow_run.ended_at),
            self._actor,
        )
        self._write(lambda connection: connection.execute(_INSERT_FLOW_RUN, row), durable=True)

    def create_task_runs(self, task_runs: Sequence[TaskRun]) -> None:
        rows = [self._task_run_values(task_run) for task_run in task_runs]

        def insert(connection: sqlite3.Connection) -> None:
            if len(rows) == 1:
                created = connection.execute(_INSERT_TASK_RUN, rows[0]).rowcount
            else:
                created = connection.executemany(_INSERT_TASK_RUN, rows).rowcount
            if created < len(rows):
                raise self._flow_run_not_running(connection, task_runs[0].flow_run_id)

        self._write(insert)

    def _task_run_values(self, task_run: TaskRun) -> tuple[object, ...]:
        return (
            task_run.id,
            task_run.name,
            task_run.task_name,
            *_state_values(task_run.state),
            task_run.state_version,
            json.dumps(task_run.tags) if task_run.tags else "[]",
            task_run.parent_task_run_id,
            task_run.cache_key,
            task_run.run_count,
            to_microseconds(task_run.created_at),
            _microseconds(task_run.started_at),
            _microseconds(task_run.ended_at),
            self._actor,
            task_run.flow_run_id,
        )

    def change_state(self, run: Run, state: State) -> Run:
        is_flow_run = isinstance(run, FlowRun)
        changed = after_change(run, state)
        row = (
            *_state_values(state),
            changed.state_version,
            changed.run_count,
            _microseconds(changed.started_at),
            _microseconds(changed.ended_at),
            self._actor,
            run.id,
            run.state_version,
        )
        if is_flow_run:
            statement = _CHANGE_FLOW_RUN
        elif run.state.type is StateType.PENDING and state.type is StateType.RUNNING:
            statement = _START_TASK_RUN
        else:
            statement = _CHANGE_TASK_RUN
        allowed = may_follow(run.state, state)

        def change(connection: sqlite3.Connection) -> None:
            if not allowed or connection.execute(statement, row).rowcount == 0:
                raise self._refusal(connection, run, state)

        self._write(change, durable=is_flow_run)
        return changed

    def _refusal(
        self, connection: sqlite3.Connection, run: FlowRun | TaskRun, state: State
    ) -> Exception:
        """Return the error that says why a state change found no row to change."""
        table = "flow_run" if isinstance(run, FlowRun) else "task_run"
        rows = connection.execute(
            "SELECT state_type, state_name, state_message, state_at, state_version"
            f" FROM {table} WHERE id = ?",  # noqa: S608 - one of two literals
            (run.id,),
        ).fetchall()
        if not rows:
            return NotFoundError(f"{_noun(run)} {run.id} is not on record any more")
        current = _state(rows[0][:4])
        if (
            isinstance(run, TaskRun)
            and rows[0][4] == run.state_version
            and may_follow(current, state)
        ):
            return self._flow_run_not_running(connection, run.flow_run_id)
        return StateConflictError(f"{_noun(run)} {run.name!r}", current=current, proposed=state)

    def _flow_run_not_running(self, connection: sqlite3.Connection, flow_run_id: str) -> Exception:
        rows = connection.execute(
            "SELECT state_type, state_name, state_message, state_at FROM flow_run WHERE id = ?",
            (flow_run_id,),
        ).fetchall()
        if not rows:
            return NotFoundError(f"flow run {flow_run_id} is not on record")
        return FlowRunNotRunningError(flow_run_id, current=_state(rows[0]))

    def find_flow_run(self, reference: str) -> FlowRun:
        row = self._find("flow_run", _FLOW_RUN_COLUMNS, reference)
        return _flow_run(row)

    def find_task_run(self, reference: str) -> TaskRun:
        row = self._find("task_run", _TASK_RUN_COLUMNS, reference)
        return _task_run(row)

    def _find(self, table: str, columns: str, reference: str) -> Row:
        query = f"SELECT {columns} FROM {table} WHERE "  # noqa: S608 - all three are ours
        rows = self._database.read(query + "id = ?", (reference.lower(),))
        if not rows and reference:
            # "g" is the first character after those of an id, so this is its every prefix.
            rows = self._database.read(
                query + "name = ? OR (id >= ? AND id < ?) ORDER BY seq DESC LIMIT 10",
                (reference, reference.lower(), reference.lower() + "g"),
            )
        if not rows:
            raise NotFoundError(
                f"there is no {table.replace('_', ' ')} {reference!r}",
                hint=f"see: prefectlite {table.replace('_', '-')} ls",
            )
        if len(rows) > 1:
            raise AmbiguousReferenceError(reference, [str(row[0]) for row in rows])
        return rows[0]

    def list_flow_runs(
        self,
        *,
        states: Collection[str] = (),
        flow_names: Collection[str] = (),
        parent_flow_run_id: str | None = None,
        limit: int | None = DEFAULT_LIMIT,
    ) -> list[FlowRun]:
        where = _Where()
        where.add_states(states)
        where.add_any("flow_name", flow_names)
        if parent_flow_run_id is not None:
            where.add_any("parent_flow_run_id", [parent_flow_run_id])
        sql = f"SELECT {_FLOW_RUN_COLUMNS} FROM flow_run {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608
        return [_flow_run(row) for row in self._database.read(sql, where.values(limit))]

    def list_task_runs(
        self,
        *,
        flow_run_id: str | None = None,
        states: Collection[str] = (),
        limit: int | None = DEFAULT_LIMIT,
    ) -> list[TaskRun]:
        where = _Where()
        if flow_run_id is not None:
            where.add("flow_run_seq = (SELECT seq FROM flow_run WHERE id = ?)", flow_run_id)
        where.add_states(states)
        sql = f"SELECT {_TASK_RUN_COLUMNS} FROM task_run {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608
        return [_task_run(row) for row in self._database.read(sql, where.values(limit))]

    def count_task_runs(self, flow_run_id: str) -> dict[str, int]:
        rows = self._database.read(
            "SELECT state_name, count(*) FROM task_run"
            " WHERE flow_run_seq = (SELECT seq FROM flow_run WHERE id = ?) GROUP BY state_name",
            (flow_run_id,),
        )
        return {name: count for name, count in rows}

    def state_history(self, run: FlowRun | TaskRun) -> list[StateChange]:
        table = "flow_run" if isinstance(run, FlowRun) else "task_run"
        rows = self._database.read(
            f"SELECT type, name, message, at, version, actor FROM {table}_state"  # noqa: S608
            f" WHERE {table}_seq = (SELECT seq FROM {table} WHERE id = ?) ORDER BY version",
            (run.id,),
        )
        return [StateChange(row[4], _state(row[:4]), row[5]) for row in rows]

    def delete_flow_run(self, flow_run_id: str) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            if connection.execute("DELETE FROM flow_run WHERE id = ?", (flow_run_id,)).rowcount < 1:
                raise NotFoundError(f"there is no flow run {flow_run_id!r}")

        self._write(delete, durable=True)

    def add_log_line(self, line: LogLine) -> None:
        self._own_pending().append(line)
        if len(self._pending) > _MAX_PENDING_LINES:
            self.flush_logs()

    def flush_logs(self) -> None:
        if self._own_pending():
            self._write(lambda _: None)

    def read_logs(
        self,
        flow_run_id: str,
        *,
        task_run_id: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[LogLine]:
        where = _Where()
        where.add("flow_run_seq = (SELECT seq FROM flow_run WHERE id = ?)", flow_run_id)
        where.add("seq > ?", after)
        if task_run_id is not None:
            where.add_any("task_run_id", [task_run_id])
        rows = self._database.read(
            "SELECT task_run_id, level, logger, message, at, seq"  # noqa: S608
            f" FROM log {where} ORDER BY seq LIMIT ?",
            where.values(limit),
        )
        return [
            LogLine(
                flow_run_id, task, level, logger, message, from_microseconds(at), seq
            )
            for task, level, logger, message, at, seq in rows
        ]

    def save_cached_result(self, cached: CachedResult) -> None:
        row = (cached.cache_key, cached.task_run_id, _microseconds(cached.expires_at))
        self._write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO cached_result VALUES (?, ?, ?)", row
            )
        )

    def find_cached_result(self, cache_key: str, *, at: datetime) -> CachedResult | None:
        rows = self._database.read(
            "SELECT task_run_id, expires_at FROM cached_result"
            " WHERE cache_key = ? AND (expires_at IS NULL OR expires_at > ?)",
            (cache_key, to_microseconds(at)),
        )
        for task_run_id, expires_at in rows:
            return CachedResult(cache_key, task_run_id, _moment(expires_at))
        return None

    def close(self) -> None:
        with _OPENING:
            for key, registry in list(_OPEN.items()):
                if registry is self:
                    del _OPEN[key]
        try:
            self.flush_logs()
        finally:
            self._database.close()

    def _write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Do ``work`` in a transaction that also records the log lines added so far."""
        pending = self._own_pending()
        taken: list[LogLine] = []

        def work_and_log(connection: sqlite3.Connection) -> T:
            result = work(connection)
            # Taken inside the lock that all writers of this process share: in order, and once.
            while pending:
                taken.append(pending.popleft())
            if taken:
                connection.executemany(_INSERT_LOG, map(_log_values, taken))
            return result

        try:
            return self._database.write(work_and_log, durable=durable)
        except BaseException:
            pending.extendleft(reversed(taken))
            raise

    def _own_pending(self) -> deque[LogLine]:
        """Return the lines to record; those that a forked parent added are the parent's."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._pending = deque()
            self._actor = _actor()
        return self._pending


class _Where:
    """The WHERE clause of a listing, as its conditions are known."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self._values: list[object] = []

    def add(self, condition: str, *values: object) -> None:
        self._conditions.append(condition)
        self._values += values

    def add_any(self, column: str, values: Collection[str]) -> None:
        if values:
            self.add(f"{column} IN ({', '.join('?' * len(values))})", *values)

    def add_states(self, states: Collection[str]) -> None:
        if states:
            marks = ", ".join("?" * len(states))
            lowered = [state.lower() for state in states]
            self.add(
                f"(lower(state_name) IN ({marks}) OR lower(state_type) IN ({marks}))",
                *lowered,
                *lowered,
            )

    def values(self, limit: int | None) -> list[object]:
        """Return the values to bind, with the limit last; -1 is none to SQLite."""
        return [*self._values, -1 if limit is None else limit]

    def __str__(self) -> str:
        return f"WHERE {' AND '.join(self._conditions)}" if self._conditions else ""


def _actor() -> str:
    """Return who this process is in the history: ``user@host:PID``."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}:{os.getpid()}"


def _noun(run: FlowRun | TaskRun) -> str:
    return "flow run" if isinstance(run, FlowRun) else "task run"


def _state_values(state: State) -> tuple[str, str, str | None, int]:
    return (state.type.value, state.name, state.message, to_microseconds(state.timestamp))


def _log_values(line: LogLine) -> tuple[object, ...]:
    return (
        line.task_run_id,
        line.level,
        line.logger,
        # A lone surrogate (an undecodable file name, say) is no text to SQLite.
        line.message.encode("utf-8", "backslashreplace").decode(),
        to_microseconds(line.timestamp),
        line.flow_run_id,
    )


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else to_microseconds(moment)


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)


def _state(row: Row) -> State:
    type_, name, message, at = row
    return recorded_state(StateType(type_), name, message, from_microseconds(at))


def _flow_run(row: Row) -> FlowRun:
    """Return the record of a row of ``_FLOW_RUN_COLUMNS``."""
    return FlowRun(
        id=row[0],
        name=row[1],
        flow_name=row[2],
        state=_state(row[3:7]),
        state_version=row[7],
        parameters=json.loads(row[8]),
        tags=tuple(json.loads(row[9])),
        version=row[10],
        entrypoint=row[11],
        parent_flow_run_id=row[12],
        parent_task_run_id=row[13],
        run_count=row[14],
        created_at=from_microseconds(row[15]),
        started_at=_moment(row[16]),
        ended_at=_moment(row[17]),
    )


def _task_run(row: Row) -> TaskRun:
    """Return the record of a row of ``_TASK_RUN_COLUMNS``."""
    return TaskRun(
        id=row[0],
        name=row[1],
        task_name=row[2],
        flow_run_id=row[3],
        state=_state(row[4:8]),
        state_version=row[8],
        tags=tuple(json.loads(row[9])),
        parent_task_run_id=row[10],
        cache_key=row[11],
        run_count=row[12],
        created_at=from_microseconds(row[13]),
        started_at=_moment(row[14]),
        ended_at=_moment(row[15]),
    )


_OPENING = threading.RLock()
_OPEN: dict[tuple[Path, bool], SQLiteRegistry] = {}


@atexit.register
def _close_all() -> None:
    for registry in list(_OPEN.values()):
        registry.close()
