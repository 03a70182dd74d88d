"""The upkeep of the SQLite registry: what it holds, whether it is whole, backups, and what is too old.

``registry_parts.UpkeepRegistry`` describes the methods. Unlike the other parts this one has the whole
``Database``: it concerns the file, and not a few tables of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3  # noqa: TID251 - a part of the SQLite registry
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from prefectlite.clock import from_microseconds, monotonic, now, to_microseconds
from prefectlite.conditions import Where
from prefectlite.database import Database
from prefectlite.errors import OutputError, RegistryFullError
from prefectlite.registry_parts import UpkeepRegistry
from prefectlite.rows import Row
from prefectlite.sqlite_faults import found_faults
from prefectlite.upkeep_records import Contents, Deleted, EndedRun, Fault, Prunable, Storage

T = TypeVar("T")
Told = Callable[[], object]

# Others that write wait no longer than this, with a checkpoint of what it changed: a tenth of a second.
_DELETE_SECONDS = 0.03
# A run with fewer is gone at once; to delete these takes about as long.
_TASK_RUNS_AT_ONCE = 500
_LINES_AT_ONCE = 5_000
_KEYS_AT_ONCE = 500
# About a megabyte, a few milliseconds: so often can a person interrupt it.
_PAGES_AT_ONCE = 256
# Of SQLite's virtual machine, some milliseconds: as often.
_STEPS_AT_ONCE = 100_000
# What is wrong with the file that a copy is written to, and not with the registry.
_UNWRITABLE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}
_COUNTED = {
    "task_runs": "task_run",
    "log_lines": "log",
    "cached_results": "cached_result",
    "deployments": "deployment",
    "work_queues": "work_queue",
    "agents": "agent",
    "blocks": "block_document",
    "notification_rules": "notification_rule",
    "notifications": "notification",
}
_GIVEN_UP = "SELECT count(*) FROM notification WHERE due_at IS NULL"
_DELETE_TASK_RUNS = f"""
    DELETE FROM task_run WHERE seq IN (
        SELECT seq FROM task_run
        WHERE flow_run_seq = (SELECT seq FROM flow_run WHERE id = ?) LIMIT {_TASK_RUNS_AT_ONCE}
    ) RETURNING id
"""  # noqa: S608 - literals only, no value
_DELETE_LINES = f"""
    DELETE FROM log WHERE seq IN (
        SELECT seq FROM log
        WHERE flow_run_seq = (SELECT seq FROM flow_run WHERE id = ?) LIMIT {_LINES_AT_ONCE}
    )
"""  # noqa: S608 - literals only, no value
_IS_LOST = "(expires_at <= ? OR task_run_id NOT IN (SELECT id FROM task_run))"
_SELECT_LOST = f"""
    SELECT cache_key FROM cached_result WHERE cache_key > ? AND {_IS_LOST}
    ORDER BY cache_key LIMIT {_KEYS_AT_ONCE}
"""  # noqa: S608 - literals only, no value
_FORGET = f"DELETE FROM cached_result WHERE cache_key = ? AND {_IS_LOST}"  # noqa: S608 - literals only, no value
# A run that no other on record has called, with all the runs below it: it goes with them, or stays.
_SELECT_PRUNABLE = """
    WITH RECURSIVE
    top AS (
        SELECT seq, id, flow_name, state_type, state_name, row_number() OVER (PARTITION BY flow_name ORDER BY seq DESC) AS place
        FROM flow_run AS own
        WHERE parent_flow_run_id IS NULL
        OR NOT EXISTS (SELECT 1 FROM flow_run WHERE id = own.parent_flow_run_id)
    ),
    tree (top_seq, seq, id, depth) AS (
        SELECT seq, seq, id, 0 FROM top {where}
        UNION ALL
        SELECT top_seq, below.seq, below.id, depth + 1
        FROM tree JOIN flow_run AS below ON below.parent_flow_run_id = tree.id
    ),
    whole AS (
        SELECT top_seq FROM tree JOIN flow_run USING (seq) GROUP BY top_seq
        HAVING min(state_type IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED'))
        AND max(coalesce(ended_at, state_at)) < ?
    )
    SELECT flow_run.id, flow_name, coalesce(ended_at, state_at)
    FROM whole JOIN tree USING (top_seq) JOIN flow_run USING (seq)
    ORDER BY top_seq, depth DESC, seq
"""


class UpkeepTables(UpkeepRegistry):
    """The methods of ``registry_parts.UpkeepRegistry``, which describes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def storage(self) -> Storage:  # noqa: D102 - see the interface
        path = self._database.path
        log = path.with_name(path.name + "-wal")
        return Storage(
            path=path,
            exists=path.exists(),
            file_bytes=_size(path),
            log_bytes=_size(log),
            free_bytes=self._pragma("freelist_count") * self._pragma("page_size"),
            schema_version=self._pragma("user_version"),
            newest_schema_version=self._database.schema.version,
            engine=f"SQLite {sqlite3.sqlite_version}",
            journal_mode=str(self._database.read("PRAGMA journal_mode")[0][0]),
        )

    def contents(self) -> Contents:  # noqa: D102 - see the interface
        read = self._database.read
        by_state = read("SELECT state_name, count(*) FROM flow_run GROUP BY state_name ORDER BY 1")
        rows = {
            name: int(read(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - literals only, no value
            for name, table in _COUNTED.items()
        }
        rows["notifications_given_up"] = int(read(_GIVEN_UP)[0][0])
        ends = [
            read(f"SELECT created_at FROM flow_run ORDER BY seq {order} LIMIT 1")  # noqa: S608 - literals only, no value
            for order in ("ASC", "DESC")
        ]
        oldest_at, newest_at = (from_microseconds(one[0][0]) if one else None for one in ends)
        return Contents(
            flow_runs=dict(by_state), rows=rows, oldest_at=oldest_at, newest_at=newest_at
        )

    def faults(self, *, is_quick: bool, told: Told | None = None) -> list[Fault]:  # noqa: D102 - see the interface
        is_newest = self._pragma("user_version") == self._database.schema.version

        def find(connection: sqlite3.Connection) -> list[Fault]:
            return found_faults(connection, is_quick=is_quick, is_newest=is_newest)

        return self._database.use(lambda connection: _interruptible(connection, find, told))

    def known_runs(self, ids: Collection[str]) -> set[str]:  # noqa: D102 - see the interface
        asked = (json.dumps([*ids]),)
        return {
            id_
            for table in ("flow_run", "task_run")
            for (id_,) in self._database.read(
                f"SELECT id FROM {table} WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608 - literals only, no value
                asked,
            )
        }

    def back_up(self, path: Path, *, told: Callable[[int, int], object]) -> None:  # noqa: D102 - see the interface
        self._database.use(lambda connection: _copy(connection, path, told))

    def list_prunable_flow_runs(self, prunable: Prunable) -> list[EndedRun]:  # noqa: D102 - see the interface
        where = Where()
        where.add("place > ?", prunable.keep)
        where.add_states(prunable.states)
        where.add_any("flow_name", prunable.flow_names)
        before = now() if prunable.before is None else prunable.before
        sql = _SELECT_PRUNABLE.format(where=where)
        rows = self._database.read(sql, [*where.values(None)[:-1], to_microseconds(before)])
        return [EndedRun(id_, flow_name, from_microseconds(at)) for id_, flow_name, at in rows]

    def delete_flow_runs(self, flow_run_ids: Sequence[str], deleted: Deleted) -> int:  # noqa: D102 - see the interface
        def delete(connection: sqlite3.Connection) -> int:
            deadline = monotonic() + _DELETE_SECONDS
            for number, flow_run_id in enumerate(flow_run_ids):
                is_late = number > 0 and monotonic() >= deadline
                if is_late or not _delete(connection, flow_run_id, deleted):
                    return number
            return len(flow_run_ids)

        count = self._database.write(delete, durable=True, undo=deleted.clear)
        # Each changes pages all over the file: three hundred of them would make a log of gigabytes.
        self._database.maintain(
            lambda one: one.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        )
        return count

    def forget_lost_results(self) -> None:  # noqa: D102 - see the interface
        at, last = to_microseconds(now()), ""
        while keys := self._database.read(_SELECT_LOST, (last, at)):
            last = keys[-1][0]
            rows = [(key, at) for (key,) in keys]
            self._database.write(_forgetting(rows))

    def give_back_space(self, *, told: Told | None = None) -> None:  # noqa: D102 - see the interface
        storage = self.storage()
        if not storage.exists:
            return
        # All of it goes through the log.
        needed = storage.file_bytes - storage.free_bytes
        free = shutil.disk_usage(self._database.path.parent).free
        if free < needed:
            raise RegistryFullError(
                f"there is no room to compact the registry {self._database.path}: that takes"
                f" {needed:,} bytes of its disk for a while, and {free:,} are free",
                hint="free some space and run it again; what was on record is intact",
            )
        self._database.maintain(lambda connection: _compact(connection, told))

    def close(self) -> None:  # noqa: D102 - see the interface
        self._database.close()

    def _pragma(self, name: str) -> int:
        return int(self._database.read(f"PRAGMA {name}")[0][0])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _delete(connection: sqlite3.Connection, flow_run_id: str, deleted: Deleted) -> bool:
    """Delete a run; return False where it has so much that the rest of it is left to the next call."""
    rows: list[Row] = connection.execute(_DELETE_TASK_RUNS, (flow_run_id,)).fetchall()
    deleted.task_run_ids += [id_ for (id_,) in rows]
    deleted.unfinished_id = flow_run_id
    if len(rows) == _TASK_RUNS_AT_ONCE:
        return False
    if connection.execute(_DELETE_LINES, (flow_run_id,)).rowcount == _LINES_AT_ONCE:
        return False
    deleted.unfinished_id = None
    if connection.execute("DELETE FROM flow_run WHERE id = ?", (flow_run_id,)).rowcount:
        deleted.flow_run_ids.append(flow_run_id)
    return True


def _forgetting(rows: Iterable[tuple[str, int]]) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.executemany(_FORGET, rows)


def _compact(connection: sqlite3.Connection, told: Told | None) -> None:
    _interruptible(connection, lambda one: one.execute("VACUUM").fetchall(), told)
    ((milliseconds,),) = connection.execute("PRAGMA busy_timeout").fetchall()
    # Where somebody reads, the file becomes smaller with a later checkpoint: all who want to write
    # would wait for that reader.
    connection.execute("PRAGMA busy_timeout=0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout={milliseconds}")


def _interruptible(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T], told: Told | None
) -> T:
    """Do what takes long within SQLite, in a way that Ctrl-C ends it."""

    # Whatever it does, Python runs the handlers of signals here, and SQLite stops where one raises.
    def go_on() -> int:
        if told is not None:
            told()
        return 0

    connection.set_progress_handler(go_on, _STEPS_AT_ONCE)
    try:
        return work(connection)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _copy(connection: sqlite3.Connection, path: Path, told: Callable[[int, int], object]) -> None:
    """Write what a connection sees at one moment to a new file, safe from a power cut."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            # Nobody else knows of it, and it may be where locks are not to be had.
            copy.execute("PRAGMA locking_mode=EXCLUSIVE")
            copy.execute("PRAGMA synchronous=OFF")
            _copy_pages(connection, copy, told)
            # One file is easier to keep than one with its log; the registry's mode came with the pages.
            copy.execute("PRAGMA journal_mode=DELETE").fetchall()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    except sqlite3.Error as error:
        if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _UNWRITABLE:
            raise _unwritable(path, str(error)) from error
        raise


def _copy_pages(
    connection: sqlite3.Connection, copy: sqlite3.Connection, told: Callable[[int, int], object]
) -> None:
    # Without a transaction around it, each write of another process would have it begin anew.
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
        connection.backup(
            copy,
            pages=_PAGES_AT_ONCE,
            progress=lambda _, left, total: told(total - left, total),
        )
    finally:
        connection.execute("ROLLBACK")


def _unwritable(path: Path, why: str) -> OutputError:
    return OutputError(
        f"the backup cannot be written to {path.parent}: {why}",
        hint="is there room on the disk, and may you write there?",
    )
