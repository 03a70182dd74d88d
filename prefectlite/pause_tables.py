"""What SQLite keeps of runs that wait, or have waited, for a person.

``registry_parts.PauseRegistry`` describes the methods; see ``deployment_tables``. Nothing here commits by
itself.
"""

from __future__ import annotations

import json
import sqlite3  # noqa: TID251 - a part of the SQLite registry
from collections.abc import Mapping
from datetime import datetime

from prefectlite.clock import to_microseconds
from prefectlite.conditions import Where
from prefectlite.errors import ConflictError
from prefectlite.records import FlowRun, Pause
from prefectlite.registry_parts import PauseRegistry
from prefectlite.rows import (
    FLOW_RUN_COLUMNS,
    PAUSE_COLUMNS,
    flow_run_from,
    pause_from,
    pause_values,
    storable,
)
from prefectlite.states import State
from prefectlite.tables import Tables

_OF_RUN = "flow_run_seq = (SELECT seq FROM flow_run WHERE id = ?)"
_INSERT = f"""
    INSERT INTO pause (flow_run_seq, {PAUSE_COLUMNS}, state_version)
    SELECT seq, ?, ?, ?, ?, ? FROM flow_run WHERE id = ?
    ON CONFLICT (flow_run_seq, key) DO NOTHING
"""  # noqa: S608 - literals only, no value
_KEEP_INPUT = f"UPDATE pause SET input = ? WHERE {_OF_RUN} AND state_version = ?"  # noqa: S608 - literals only, no value
_GIVE_UP_KEY = f"UPDATE pause SET key = NULL WHERE {_OF_RUN} AND state_version = ?"  # noqa: S608 - literals only, no value
_SELECT = f"SELECT {PAUSE_COLUMNS}, state_version FROM pause"  # noqa: S608 - literals only, no value
# With the words of flow_run_unfinished, or SQLite would not use that index.
_SELECT_OVERDUE = f"""
    SELECT {FLOW_RUN_COLUMNS}, {PAUSE_COLUMNS}, pause_version FROM flow_run
    JOIN (SELECT {PAUSE_COLUMNS}, flow_run_seq, state_version AS pause_version FROM pause)
        ON flow_run_seq = seq AND pause_version = state_version
    WHERE state_type = 'PAUSED'
        AND state_type NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
        AND resume_by <= ?
"""  # noqa: S608 - literals only, no value


class PauseTables(Tables, PauseRegistry):
    """The methods of ``registry_parts.PauseRegistry``, which describes them."""

    def pause_flow_run(  # noqa: D102 - see the interface
        self, flow_run: FlowRun, state: State, pause: Pause, *, instead_of: Pause | None = None
    ) -> FlowRun:
        paused, change = self._change_state(flow_run, state)
        row = (*pause_values(pause), paused.state_version, flow_run.id)
        given_up = () if instead_of is None else (instead_of.state_version,)

        def insert(connection: sqlite3.Connection) -> None:
            change(connection)
            for version in given_up:
                connection.execute(_GIVE_UP_KEY, (flow_run.id, version))
            if connection.execute(_INSERT, row).rowcount < 1:
                raise ConflictError(
                    f"flow run {flow_run.name!r} has had the pause {pause.key!r} already"
                )

        self._write(insert, durable=True)
        return paused

    def resume_flow_run(  # noqa: D102 - see the interface
        self, flow_run: FlowRun, state: State, *, run_input: Mapping[str, object] | None = None
    ) -> FlowRun:
        resumed, change = self._change_state(flow_run, state)
        text = None if run_input is None else json.dumps({**run_input})
        row = (text, flow_run.id, flow_run.state_version)

        def resume(connection: sqlite3.Connection) -> None:
            change(connection)
            connection.execute(_KEEP_INPUT, row)

        self._write(resume, durable=True)
        return resumed

    def find_pause(  # noqa: D102 - see the interface
        self, flow_run_id: str, *, key: str | None = None, state_version: int | None = None
    ) -> Pause | None:
        where = Where()
        where.add(_OF_RUN, flow_run_id)
        if key is not None:
            where.add("key = ?", storable(key))
        if state_version is not None:
            where.add("state_version = ?", state_version)
        sql = f"{_SELECT} {where} ORDER BY state_version DESC LIMIT ?"
        found = self._read(pause_from, sql, where.values(1))
        return found[0] if found else None

    def list_overdue_flow_runs(self, at: datetime) -> list[tuple[FlowRun, Pause]]:  # noqa: D102 - see the interface
        columns = FLOW_RUN_COLUMNS.count(",") + 1
        return self._read(
            lambda row: (flow_run_from(row[:columns]), pause_from(row[columns:])),
            _SELECT_OVERDUE,
            (to_microseconds(at),),
        )
