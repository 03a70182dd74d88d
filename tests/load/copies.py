"""A registry of very many ended runs, made of a few real ones.

prefectlite itself makes some runs; their rows are then copied in the file, with new ids, names and
times. A copy is the very same row, and costs no commit for each of its states.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from prefectlite import flow, get_run_logger, tags, task

#: Over how long the copies are spread, up to now.
DAYS = 90
_MICROSECONDS_A_DAY = 86_400_000_000
_FLOWS = 20
_FAILS = 10
_NEW_ID = """
    lower(
        hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8'
        || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))
    )
"""
_MOMENTS = ("at", "state_at", "created_at", "started_at", "ended_at")
# By column; a copy has the number k, and is so many rows after what it is a copy of.
_EXPRESSIONS = {
    "id": _NEW_ID,
    "flow_run_seq": "flow_run_seq + k * :flow_runs",
    "task_run_seq": "task_run_seq + k * :task_runs",
    "task_run_id": """(
        SELECT id FROM task_run
        WHERE seq = (SELECT seq FROM task_run WHERE id = real.task_run_id) + k * :task_runs
    )""",
    **{name: f"{name} + k * :step" for name in _MOMENTS},
}
# In this order: what a row refers to is there before it.
_TABLES = ("flow_run", "task_run", "flow_run_state", "task_run_state", "log")
# What a run has of its own.
_OWN = {"seq", "id", "name", "state_actor", "actor", *_MOMENTS, *_EXPRESSIONS}


@task
def load(number: int) -> int:
    """Return the number, and say so."""
    get_run_logger().info("row %s", number)
    return number


@flow(log_prints=True)
def etl(day: int, number_of_tasks: int) -> None:
    """Call some tasks; one run of ten fails."""
    print("day", day)
    for number in range(number_of_tasks):
        load(number)
    if day % _FAILS == 1:
        raise ValueError(f"no data for day {day}")


def make_runs(count: int, number_of_tasks: int) -> int:
    """Run flows in this process's registry; return how many."""
    for day in range(count):
        with tags("nightly" if day % 2 else "hourly"):
            etl.with_options(name=f"etl-{day % _FLOWS}")(day, number_of_tasks, return_state=True)  # type: ignore[call-arg] # of ours, beside those of the function
    return count


def copy_runs(path: Path, times: int) -> None:
    """Make of each run in a registry that nobody has open so many, with itself.

    They are spread over the last ``DAYS`` days, the real ones first.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN IMMEDIATE")
        numbers = {
            f"{table}s": connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("flow_run", "task_run", "log")
        }
        values = {**numbers, "times": times, "step": DAYS * _MICROSECONDS_A_DAY // times}
        for table in _TABLES:
            columns = _columns(connection, table)
            moments = [name for name in columns if name in _MOMENTS]
            earlier = ", ".join(
                f"{name} = {name} - {DAYS * _MICROSECONDS_A_DAY}" for name in moments
            )
            connection.execute(f"UPDATE {table} SET {earlier}")
            own = {"seq": f"seq + k * :{table}s", **_EXPRESSIONS}
            if table == "flow_run":
                own["name"] = "name || '-' || k"
            expressions = ", ".join(own.get(name, name) for name in columns)
            connection.execute(
                f"""
                WITH RECURSIVE copy (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM copy WHERE k < :times - 1)
                INSERT INTO {table} ({", ".join(columns)})
                SELECT {expressions} FROM copy CROSS JOIN {table} AS real
                """,
                values,
            )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def differences(path: Path, real: str, copy: str) -> list[str]:
    """Return where two flow runs differ in more than what each run has of its own.

    Args:
        path: The registry's file.
        real: The id of one.
        copy: The id of the other.
    """
    found = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in _TABLES:
            shared = ", ".join(name for name in _columns(connection, table) if name not in _OWN)
            one, other = (
                connection.execute(
                    f"SELECT {shared} FROM {table} WHERE {_BELONGS[table]} ORDER BY {_ORDER[table]}",
                    (id_,),
                ).fetchall()
                for id_ in (real, copy)
            )
            if not one or one != other:
                found.append(f"{table}: {one[:2]} and {other[:2]}")
    return found


_OF_RUN = "flow_run_seq = (SELECT seq FROM flow_run WHERE id = ?)"
_BELONGS = {
    "flow_run": "id = ?",
    "task_run": _OF_RUN,
    "flow_run_state": _OF_RUN,
    "task_run_state": f"task_run_seq IN (SELECT seq FROM task_run WHERE {_OF_RUN})",
    "log": _OF_RUN,
}
_ORDER = {
    "flow_run": "seq",
    "task_run": "seq",
    "flow_run_state": "flow_run_seq, version",
    "task_run_state": "task_run_seq, version",
    "log": "seq",
}


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
