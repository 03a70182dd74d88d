"""The registry in one SQLite file: the tables of ``migrations/``, read and written by ``database``.

The scheme ``sqlite``; the address is ``sqlite:////absolute/path`` or ``sqlite:///relative/path``.
Changes of flow runs are durable commits, those of task runs and log lines are not: the next durable
one carries them along.
"""

from __future__ import annotations

import atexit
import os
import sqlite3  # noqa: TID251 - this is where it is talked to
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Unpack

from prefectlite.clock import now, to_microseconds
from prefectlite.conditions import UNFINISHED_TYPES, Where
from prefectlite.database import Database
from prefectlite.errors import RegistryError, RegistryUnavailableError, SettingError
from prefectlite.forks import here
from prefectlite.records import (
    CachedResult,
    FlowRun,
    LogLine,
    LogQuery,
    ProcessIdentity,
    Run,
    StateChange,
    TaskCount,
    TaskRun,
    after_change,
)
from prefectlite.refusals import flow_run_not_running, refusal
from prefectlite.registry import Registry
from prefectlite.registry_parts import (
    BlockRegistry,
    DeploymentRegistry,
    LaunchRegistry,
    NotificationRegistry,
    PauseRegistry,
    UpkeepRegistry,
)
from prefectlite.rows import (
    FLOW_RUN_COLUMNS,
    TASK_RUN_COLUMNS,
    Row,
    Values,
    cached_result_from,
    cached_result_values,
    change_values,
    flow_run_from,
    flow_run_values,
    identity_text,
    log_line_from,
    maybe_identity_text,
    state_change_from,
    storable,
    task_count_from,
    task_run_from,
    task_run_values,
)
from prefectlite.run_filters import (
    DEFAULT_LIMIT,
    EVERY_FLOW_RUN,
    EVERY_TASK_RUN,
    NEWEST_FIRST,
    FlowRunFilter,
    Order,
    TaskRunFilter,
)
from prefectlite.states import State, StateType, may_follow
from prefectlite.tables import Access, actor, ends_process, id_range, only
from prefectlite.waiting_lines import WaitingLines, insert_lines

if TYPE_CHECKING:
    from prefectlite.flow_records import FlowSummary

T = TypeVar("T")

_PREFIX = "sqlite:///"
MIGRATIONS = Path(__file__).parent / "migrations"
#: The number of the last file there.
SCHEMA_VERSION = 7
_SELECT_FLOW_RUN = f"SELECT {FLOW_RUN_COLUMNS} FROM flow_run "  # noqa: S608 - literals only, no value
_SELECT_TASK_RUN = (
    f"SELECT {TASK_RUN_COLUMNS}, (SELECT id FROM flow_run WHERE seq = flow_run_seq) FROM task_run "  # noqa: S608 - literals only, no value
)
_FIRST_DUE_AT = "SELECT due_at FROM notification WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1"
_INSERT_FLOW_RUN = f"""
    INSERT INTO flow_run ({FLOW_RUN_COLUMNS}, state_actor)
    VALUES ({", ".join("?" * 29)})
"""  # noqa: S608 - literals only, no value
_INSERT_TASK_RUN = f"""
    INSERT INTO task_run ({TASK_RUN_COLUMNS}, state_actor, flow_run_seq)
    SELECT {", ".join("?" * 16)}, seq FROM flow_run WHERE id = ? AND state_type = 'RUNNING'
"""  # noqa: S608 - literals only, no value
_CHANGE = """
    UPDATE {table} SET state_type = ?, state_name = ?, state_message = ?, state_at = ?,
        state_version = ?, run_count = ?, started_at = ?, ended_at = ?, state_actor = ?
    WHERE id = ? AND state_version = ? AND state_type = ?
"""
_BEGIN_FLOW_RUN = """
    UPDATE flow_run SET process = ?, infrastructure_pid = ?, supervisor = ? WHERE id = ?
"""
_CHANGE_FLOW_RUN = _CHANGE.format(table="flow_run")
_CHANGE_TASK_RUN = _CHANGE.format(table="task_run")
# Tasks that were submitted before a pause still finish; after an end or a cancel none starts.
_START_TASK_RUN = (
    _CHANGE_TASK_RUN  # noqa: S608 - literals only, no value
    + """ AND (SELECT state_type FROM flow_run WHERE seq = flow_run_seq) IN ('RUNNING', 'PAUSED')"""
)


def open_registry(url: str, *, read_only: bool = False) -> SQLiteRegistry:
    """Return this process's registry for a file; see ``registry.open_registry``."""
    # Under its address too, where that is absolute: to look for symbolic links takes a while.
    registry = _OPEN.get((url, read_only))
    if registry is not None:
        return registry
    path = registry_path(url)
    with _OPENING:
        registry = _OPEN.get((str(path), read_only))
        if registry is None:
            registry = SQLiteRegistry(path, read_only=read_only)
            _OPEN[str(path), read_only] = registry
        if url.startswith(_PREFIX + "/"):
            _OPEN[url, read_only] = registry
        return registry


def open_upkeep(url: str) -> UpkeepRegistry:
    """Return the upkeep of a file as it is; see ``registry.open_upkeep``."""
    from prefectlite.upkeep_tables import UpkeepTables  # few commands need it

    return UpkeepTables(
        Database(
            registry_path(url),
            migrations=MIGRATIONS,
            schema_version=SCHEMA_VERSION,
            read_only=True,
            migrates=False,
        )
    )


def registry_path(url: str) -> Path:
    """Return the file of an address; see ``registry.registry_path``."""
    path = Path(url.removeprefix(_PREFIX))
    if not url.startswith(_PREFIX) or not path.name or path.suffix == ".lock":
        raise SettingError(
            f"the registry's address {url!r} names no file",
            hint="an absolute path takes four slashes: sqlite:////home/me/registry.db",
        )
    try:
        return path.resolve()
    except RuntimeError as error:  # up to Python 3.12
        raise RegistryUnavailableError(f"{path} is a symbolic link to itself") from error


class SQLiteRegistry(Registry):
    """A registry in one file; the methods are described where ``Registry`` declares them."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.url = f"sqlite:///{path}"
        self._database = Database(
            path, migrations=MIGRATIONS, schema_version=SCHEMA_VERSION, read_only=read_only
        )
        self._lines = WaitingLines()

    @cached_property
    def deployments(self) -> DeploymentRegistry:
        from prefectlite.deployment_tables import DeploymentTables  # few commands need it

        return DeploymentTables(*self._parts)

    @cached_property
    def launches(self) -> LaunchRegistry:
        from prefectlite.launch_tables import LaunchTables  # few commands need it

        return LaunchTables(*self._parts)

    @cached_property
    def pauses(self) -> PauseRegistry:
        from prefectlite.pause_tables import PauseTables  # few commands need it

        return PauseTables(*self._parts)

    @cached_property
    def blocks(self) -> BlockRegistry:
        from prefectlite.block_tables import BlockTables  # few commands need it

        return BlockTables(*self._parts)

    @cached_property
    def notifications(self) -> NotificationRegistry:
        from prefectlite.notification_tables import NotificationTables  # few commands need it

        return NotificationTables(*self._parts)

    @cached_property
    def upkeep(self) -> UpkeepRegistry:
        from prefectlite.upkeep_tables import UpkeepTables  # few commands need it

        return UpkeepTables(self._database)

    @property
    def _parts(self) -> Access:
        return self._read, self._write, self._state_change

    def change_mark(self) -> object:
        return self._database.version()

    def create_flow_run(self, flow_run: FlowRun) -> None:
        row = (*flow_run_values(flow_run), actor(here.pid))
        self._write(lambda connection: connection.execute(_INSERT_FLOW_RUN, row), durable=True)

    def create_task_runs(self, task_runs: Sequence[TaskRun]) -> None:
        by = actor(here.pid)
        rows = [(*task_run_values(run), by, run.flow_run_id) for run in task_runs]

        def insert(connection: sqlite3.Connection) -> None:
            if len(rows) == 1:
                created = connection.execute(_INSERT_TASK_RUN, rows[0]).rowcount
            else:
                created = connection.executemany(_INSERT_TASK_RUN, rows).rowcount
            if created < len(rows):
                raise flow_run_not_running(connection, task_runs[0].flow_run_id)

        self._write(insert)

    def change_state(self, run: Run, state: State) -> Run:
        changed, change = self._state_change(run, state)
        with_lines, tell = self._lines.are_of(run.id), not ends_process(changed)
        self._write(change, durable=isinstance(run, FlowRun), with_lines=with_lines, tell=tell)
        return changed

    def begin_flow_run(self, flow_run: FlowRun, state: State, process: ProcessIdentity) -> FlowRun:
        changed, change = self._state_change(flow_run, state)
        pid = changed.infrastructure_pid or f"{process.hostname}:{process.pid}"
        supervisor = maybe_identity_text(flow_run.supervisor)
        row = (identity_text(process), pid, supervisor, flow_run.id)

        def begin(connection: sqlite3.Connection) -> None:
            change(connection)
            connection.execute(_BEGIN_FLOW_RUN, row)

        self._write(begin, durable=True)
        return replace(changed, process=process, infrastructure_pid=pid)

    def _state_change(
        self, run: Run, state: State
    ) -> tuple[Run, Callable[[sqlite3.Connection], None]]:
        """Return the run after a change, and what makes the change in a transaction."""
        is_flow_run = isinstance(run, FlowRun)
        changed: Run = after_change(run, state)
        by = actor(here.pid)
        row = (*change_values(changed), by, run.id, run.state_version, str(run.state.type))
        if is_flow_run:
            statement = _CHANGE_FLOW_RUN
        elif state.type is StateType.RUNNING:
            statement = _START_TASK_RUN
        else:
            statement = _CHANGE_TASK_RUN
        allowed = may_follow(run.state, state)

        def change(connection: sqlite3.Connection) -> None:
            if not allowed or connection.execute(statement, row).rowcount == 0:
                raise refusal(connection, run, state)

        return changed, change

    def find_flow_run(self, reference: str) -> FlowRun:
        runs = self._find(flow_run_from, _SELECT_FLOW_RUN, reference)
        return only(runs, "flow run", reference, _told_apart, known=self._newest_names)

    def _newest_names(self) -> list[str]:
        sql = "SELECT name FROM flow_run ORDER BY seq DESC LIMIT ?"
        return [name for (name,) in self._database.read(sql, (DEFAULT_LIMIT,))]

    def find_task_run(self, reference: str) -> TaskRun:
        runs = self._find(task_run_from, _SELECT_TASK_RUN, reference)
        return only(runs, "task run", reference, _told_apart, known=list)

    def _find(self, record: Callable[[Row], Run], select: str, reference: str) -> list[Run]:
        name = storable(reference)
        id_ = name.lower()
        runs = self._read(record, select + "WHERE id = ?", (id_,))
        if runs or not name:
            return runs
        sql = select + "WHERE name = ? OR (id >= ? AND id < ?) ORDER BY seq DESC LIMIT 10"
        start, end = id_range(name)
        return self._read(record, sql, (name, start, end))

    def list_flow_runs(
        self,
        where: FlowRunFilter = EVERY_FLOW_RUN,
        *,
        order: Order = NEWEST_FIRST,
        limit: int | None = DEFAULT_LIMIT,
    ) -> list[FlowRun]:
        from prefectlite.run_queries import flow_runs_where, ordered  # no engine lists runs

        condition = flow_runs_where(where)
        sql = f"{_SELECT_FLOW_RUN} {condition} {ordered(order)} LIMIT ?"
        return self._read(flow_run_from, sql, condition.values(limit))

    def list_flows(self) -> list[FlowSummary]:
        from prefectlite.run_queries import COUNT_BY_FLOW, IS_NEWEST_OF_FLOW, summaries

        newest = self._read(flow_run_from, _SELECT_FLOW_RUN + IS_NEWEST_OF_FLOW, ())
        return summaries(self._read(tuple, COUNT_BY_FLOW, ()), newest)

    def list_begun_flow_runs(self) -> list[FlowRun]:
        where = Where()
        where.add_states(UNFINISHED_TYPES)
        where.add("(process IS NOT NULL OR launcher IS NOT NULL)")
        return self._read(flow_run_from, f"{_SELECT_FLOW_RUN} {where}", where.values(None)[:-1])

    def list_task_runs(
        self,
        where: TaskRunFilter = EVERY_TASK_RUN,
        *,
        order: Order = NEWEST_FIRST,
        limit: int | None = DEFAULT_LIMIT,
    ) -> list[TaskRun]:
        from prefectlite.run_queries import ordered, task_runs_where  # no engine lists runs

        condition = task_runs_where(where)
        sql = f"{_SELECT_TASK_RUN} {condition} {ordered(order)} LIMIT ?"
        return self._read(task_run_from, sql, condition.values(limit))

    def list_run_tree(self, flow_run_id: str) -> list[FlowRun]:
        from prefectlite.tree_queries import LIST_RUN_TREE  # few commands need it

        return self._read(flow_run_from, LIST_RUN_TREE, [flow_run_id])

    def count_tasks(self, flow_run_id: str) -> list[TaskCount]:
        from prefectlite.tree_queries import COUNT_TASKS  # few commands need it

        return self._read(task_count_from, COUNT_TASKS, [flow_run_id])

    def count_task_runs(self, flow_run_id: str) -> dict[str, int]:
        rows = self._database.read(
            "SELECT state_name, count(*) FROM task_run"
            " WHERE flow_run_seq = (SELECT seq FROM flow_run WHERE id = ?) GROUP BY state_name",
            (flow_run_id,),
        )
        return dict(rows)

    def state_history(self, run: FlowRun | TaskRun) -> list[StateChange]:
        table = "flow_run" if isinstance(run, FlowRun) else "task_run"
        sql = f"""
            SELECT type, name, message, at, version, actor FROM {table}_state
            WHERE {table}_seq = (SELECT seq FROM {table} WHERE id = ?)
            UNION ALL
            SELECT state_type, state_name, state_message, state_at, state_version, state_actor
            FROM {table} WHERE id = ?
            ORDER BY version
        """  # noqa: S608 - literals only, no value
        return self._read(state_change_from, sql, (run.id, run.id))

    def add_log_line(self, line: LogLine) -> None:
        if self._lines.add(line):
            self.flush_logs()

    def unrecorded_seconds(self) -> float | None:
        return self._lines.seconds()

    def flush_logs(self) -> None:
        with self._lines.flushing:
            if self._lines:
                self._write(lambda _: None, with_lines=True)

    def read_logs(self, flow_run_id: str, **query: Unpack[LogQuery]) -> list[LogLine]:
        from prefectlite.tree_queries import first_rows, log_query  # few commands need it

        sql, values = log_query(flow_run_id, query)
        most = query.get("characters")
        if most is None:
            return self._read(log_line_from, sql, values)
        rows = self._database.use(
            lambda connection: first_rows(connection.execute(sql, values), most)
        )
        return self._records(log_line_from, rows)

    def last_log_position(self, flow_run_id: str, *, with_subflows: bool = False) -> int:
        from prefectlite.tree_queries import newest_line_query  # few commands need it

        sql = newest_line_query(with_subflows=with_subflows)
        ((position,),) = self._database.read(sql, (flow_run_id,))
        return position or 0

    def save_cached_result(self, cached: CachedResult) -> None:
        row = cached_result_values(cached)
        sql = "INSERT OR REPLACE INTO cached_result VALUES (?, ?, ?)"
        self._write(lambda connection: connection.execute(sql, row))

    def find_cached_result(self, cache_key: str, *, at: datetime) -> CachedResult | None:
        found = self._read(
            cached_result_from,
            "SELECT cache_key, task_run_id, expires_at FROM cached_result"
            " WHERE cache_key = ? AND (expires_at IS NULL OR expires_at > ?)",
            (storable(cache_key), to_microseconds(at)),
        )
        return found[0] if found else None

    def close(self) -> None:
        with _OPENING:
            for key, registry in list(_OPEN.items()):
                if registry is self:
                    del _OPEN[key]
        try:
            self.flush_logs()
        finally:
            # Who waits to flush finds nothing left, and does not open it again.
            with self._lines.flushing:
                self._database.close()

    def _write(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        durable: bool = False,
        with_lines: bool = False,
        tell: bool = True,
    ) -> T:
        """Do ``work`` in a transaction.

        Args:
            work: Executes statements.
            durable: Survive a power cut, from the return on.
            with_lines: Also record the log lines added so far; a durable one does it anyway. Not
                every write does, because a line of its own costs as much as half a transaction,
                and one of a hundred next to nothing.
            tell: After a durable one, have notifications delivered that are due.
        """
        if not durable and not with_lines:
            return self._database.write(work)
        taken: list[Values] = []
        due: list[Row] = []

        def work_and_log(connection: sqlite3.Connection) -> T:
            result = work(connection)
            # Taken inside the lock that all writers of this process share: in order, and once.
            taken.extend(self._lines.take())
            if taken:
                insert_lines(connection, taken)
            if durable and tell:
                due.extend(connection.execute(_FIRST_DUE_AT).fetchall())
            return result

        result = self._database.write(
            work_and_log, durable=durable, undo=lambda: self._lines.put_back(taken)
        )
        if due and due[0][0] <= to_microseconds(now()):
            from prefectlite.courier_processes import start_courier  # few changes are told

            start_courier(self.url)
        return result

    def _read(self, record: Callable[[Row], T], sql: str, parameters: Sequence[object]) -> list[T]:
        """Return the records of the rows that a SELECT finds."""
        return self._records(record, self._database.read(sql, parameters))

    def _records(self, record: Callable[[Row], T], rows: Sequence[Row]) -> list[T]:
        try:
            return [record(row) for row in rows]
        except (ValueError, TypeError, OverflowError) as error:
            raise self._database.damaged(error) from error


def _told_apart(run: FlowRun | TaskRun) -> str:
    """Return how a run is called among several of its name."""
    return f"{run.id} ({run.state.name}, {run.created_at:%Y-%m-%d %H:%M:%S} UTC)"


_OPENING = threading.RLock()
_OPEN: dict[tuple[str, bool], SQLiteRegistry] = {}

if hasattr(os, "register_at_fork"):  # or a child could find it held by a thread it does not have
    os.register_at_fork(
        before=_OPENING.acquire, after_in_parent=_OPENING.release, after_in_child=_OPENING.release
    )


@atexit.register
def _close_all() -> None:
    for registry in set(_OPEN.values()):  # each stands there under two addresses
        try:
            registry.close()
        except RegistryError as error:
            sys.stderr.write(f"prefectlite: the last log lines are not on record: {error}\n")
