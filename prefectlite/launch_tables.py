"""What SQLite keeps of runs that are started in processes of their own.

``registry_parts.LaunchRegistry`` describes the methods; see ``deployment_tables``. Nothing here commits by
itself.
"""

from __future__ import annotations

import sqlite3  # noqa: TID251 - a part of the SQLite registry
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from prefectlite.clock import to_microseconds
from prefectlite.errors import NotFoundError
from prefectlite.records import FlowRun, LogLine, ProcessIdentity
from prefectlite.registry_parts import LaunchRegistry
from prefectlite.rows import log_values, maybe_identity_text
from prefectlite.states import State
from prefectlite.tables import Tables
from prefectlite.waiting_lines import insert_lines

T = TypeVar("T")

_RECORD = """
    UPDATE flow_run SET infrastructure_pid = ?, supervisor = ?
    WHERE id = ? AND launcher = ? AND infrastructure_pid IS NULL
"""
_RELEASE = """
    UPDATE flow_run SET launcher = NULL, agent_name = NULL, supervisor = NULL,
        infrastructure_pid = NULL, output_bytes = 0
    WHERE id = ?
"""
_SET_KILL_AT = """
    UPDATE flow_run SET kill_at = min(?, ifnull(kill_at, ?))
    WHERE id = ? AND state_type NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
"""
_IS_CANCELLING = "SELECT 1 FROM flow_run WHERE id = ? AND state_type = 'CANCELLING'"
_SET_OUTPUT_BYTES = "UPDATE flow_run SET output_bytes = ? WHERE id = ? AND output_bytes = ?"


class LaunchTables(Tables, LaunchRegistry):
    """The methods of ``registry_parts.LaunchRegistry``, which describes them."""

    def record_launch(  # noqa: D102 - see the interface
        self, flow_run: FlowRun, *, infrastructure_pid: str, supervisor: ProcessIdentity | None
    ) -> bool:
        launcher = maybe_identity_text(flow_run.launcher)
        row = (infrastructure_pid, maybe_identity_text(supervisor), flow_run.id, launcher)
        return self._write(
            lambda connection: connection.execute(_RECORD, row).rowcount > 0, durable=True
        )

    def release_flow_run(self, flow_run: FlowRun, state: State) -> FlowRun:  # noqa: D102 - see the interface
        released, change = self._change_state(flow_run, state)

        def release(connection: sqlite3.Connection) -> None:
            change(connection)
            connection.execute(_RELEASE, (flow_run.id,))

        self._write(release, durable=True)
        return replace(
            released, launcher=None, agent_name=None, supervisor=None, infrastructure_pid=None
        )

    def set_kill_at(self, flow_run_id: str, at: datetime) -> None:  # noqa: D102 - see the interface
        moment = to_microseconds(at)
        row = (moment, moment, flow_run_id)
        self._write(lambda connection: connection.execute(_SET_KILL_AT, row), durable=True)

    def while_cancelling(self, flow_run_id: str, act: Callable[[], object]) -> bool:  # noqa: D102 - see the interface
        def look(connection: sqlite3.Connection) -> bool:
            if not connection.execute(_IS_CANCELLING, (flow_run_id,)).fetchall():
                return False
            act()
            return True

        return self._write(look, durable=False)

    def add_output(  # noqa: D102 - see the interface
        self, lines: Sequence[LogLine], *, flow_run_id: str, start: int, end: int
    ) -> bool:
        values = [log_values(line) for line in lines]

        def add(connection: sqlite3.Connection) -> bool:
            if connection.execute(_SET_OUTPUT_BYTES, (end, flow_run_id, start)).rowcount < 1:
                return False
            insert_lines(connection, values)
            return True

        return self._write(add, durable=False)

    def output_bytes(self, flow_run_id: str) -> int:  # noqa: D102 - see the interface
        sql = "SELECT output_bytes FROM flow_run WHERE id = ?"
        found = self._read(tuple, sql, (flow_run_id,))
        if not found:
            raise NotFoundError(f"there is no flow run {flow_run_id!r}")
        return int(found[0][0])
