"""Why the SQLite registry refuses a change of state: what it lost to, or what the table forbids.

``registry/sqlite.py`` asks inside the transaction in which a change found no row to change, so what is
said here is what was true then. Nothing here writes.
"""

from __future__ import annotations

import sqlite3  # noqa: TID251 - a part of the SQLite registry

from prefectlite.errors import FlowRunNotRunningError, NotFoundError, StateConflictError
from prefectlite.records import FlowRun, TaskRun
from prefectlite.rows import state_from
from prefectlite.states import State, may_follow


def refusal(connection: sqlite3.Connection, run: FlowRun | TaskRun, state: State) -> Exception:
    """Return the error that says why a state change found no row to change."""
    table = "flow_run" if isinstance(run, FlowRun) else "task_run"
    noun = table.replace("_", " ")
    rows = connection.execute(
        "SELECT state_type, state_name, state_message, state_at, state_version"  # noqa: S608 - literals only, no value
        f" FROM {table} WHERE id = ?",
        (run.id,),
    ).fetchall()
    if not rows:
        return NotFoundError(f"{noun} {run.id} is not on record any more")
    current = state_from(rows[0][:4])
    if isinstance(run, TaskRun) and rows[0][4] == run.state_version and may_follow(current, state):
        return flow_run_not_running(connection, run.flow_run_id)
    return StateConflictError(f"{noun} {run.name!r}", current=current, proposed=state)


def flow_run_not_running(connection: sqlite3.Connection, flow_run_id: str) -> Exception:
    """Return the error that says why no task may start in a flow run."""
    rows = connection.execute(
        "SELECT state_type, state_name, state_message, state_at FROM flow_run WHERE id = ?",
        (flow_run_id,),
    ).fetchall()
    if not rows:
        return NotFoundError(f"flow run {flow_run_id} is not on record")
    return FlowRunNotRunningError(flow_run_id, current=state_from(rows[0]))
