"""Records as rows of a relational registry, and back.

A registry that keeps its records in tables writes the values that these functions return, in the
order of the columns named here, and gives back the rows that it reads. Texts hold what UTF-8 can,
times are microseconds since the Unix epoch, tags and parameters are JSON. Nothing here reads,
writes or knows a database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache
from typing import Any

from prefectlite.clock import from_microseconds, to_microseconds
from prefectlite.records import (
    CachedResult,
    FlowRun,
    LogLine,
    Pause,
    ProcessIdentity,
    StateChange,
    TaskCount,
    TaskRun,
)
from prefectlite.states import State, StateType, recorded_state

Row = Sequence[Any]
Values = tuple[str | int | None, ...]

#: The columns of ``flow_run_values`` and ``flow_run_from``.
FLOW_RUN_COLUMNS = (
    "id, name, flow_name, state_type, state_name, state_message, state_at, state_version,"
    " parameters, tags, version, entrypoint, process, infrastructure_pid, parent_flow_run_id, parent_task_run_id,"
    " deployment_id, work_queue, infrastructure, scheduled_at, run_count,"
    " created_at, started_at, ended_at, launcher, supervisor, agent_name, kill_at"
)
#: The columns of ``task_run_values``, and of ``task_run_from`` before the flow run's id.
TASK_RUN_COLUMNS = (
    "id, name, task_name, state_type, state_name, state_message, state_at, state_version, tags,"
    " parent_task_run_id, cache_key, run_count, created_at, started_at, ended_at"
)

#: The columns of ``pause_values`` and ``pause_from``.
PAUSE_COLUMNS = "key, resume_by, input_schema, input"


def storable(text: str) -> str:
    """Return the text as UTF-8 can hold it: lone surrogates, of an undecodable name, escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def maybe_storable(text: str | None) -> str | None:
    """Return the text as UTF-8 can hold it; None for None."""
    return None if text is None else storable(text)


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else to_microseconds(moment)


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)


def state_values(state: State) -> Values:
    """Return a state's type, name, message and time."""
    return (
        str(state.type),  # at a fifth of the cost of its value
        storable(state.name),
        maybe_storable(state.message),
        to_microseconds(state.timestamp),
    )


def state_from(row: Row) -> State:
    """Return the state of a row of type, name, message and time."""
    type_, name, message, at = row
    return recorded_state(StateType(type_), name, message, from_microseconds(at))


def change_values(changed: FlowRun | TaskRun) -> Values:
    """Return what a change of state alters: the state, its version, attempts, start and end."""
    return (
        *state_values(changed.state),
        changed.state_version,
        changed.run_count,
        _microseconds(changed.started_at),
        _microseconds(changed.ended_at),
    )


def flow_run_values(flow_run: FlowRun) -> Values:
    """Return the values for ``FLOW_RUN_COLUMNS``."""
    return (
        flow_run.id,
        storable(flow_run.name),
        storable(flow_run.flow_name),
        *state_values(flow_run.state),
        flow_run.state_version,
        json.dumps(dict(flow_run.parameters)) if flow_run.parameters else "{}",
        json.dumps(flow_run.tags) if flow_run.tags else "[]",
        maybe_storable(flow_run.version),
        maybe_storable(flow_run.entrypoint),
        maybe_identity_text(flow_run.process),
        flow_run.infrastructure_pid,
        flow_run.parent_flow_run_id,
        flow_run.parent_task_run_id,
        flow_run.deployment_id,
        maybe_storable(flow_run.work_queue),
        _maybe_json(flow_run.infrastructure),
        _microseconds(flow_run.scheduled_at),
        flow_run.run_count,
        to_microseconds(flow_run.created_at),
        _microseconds(flow_run.started_at),
        _microseconds(flow_run.ended_at),
        maybe_identity_text(flow_run.launcher),
        maybe_identity_text(flow_run.supervisor),
        maybe_storable(flow_run.agent_name),
        _microseconds(flow_run.kill_at),
    )


def flow_run_from(row: Row) -> FlowRun:
    """Return the record of a row of ``FLOW_RUN_COLUMNS``."""
    return FlowRun(
        id=row[0],
        name=row[1],
        flow_name=row[2],
        state=state_from(row[3:7]),
        state_version=row[7],
        # Mostly there are none, and a listing reads thousands.
        parameters={} if row[8] == "{}" else json.loads(row[8]),
        tags=() if row[9] == "[]" else tuple(json.loads(row[9])),
        version=row[10],
        entrypoint=row[11],
        process=_maybe_identity(row[12]),
        infrastructure_pid=row[13],
        parent_flow_run_id=row[14],
        parent_task_run_id=row[15],
        deployment_id=row[16],
        work_queue=row[17],
        infrastructure=None if row[18] is None else json.loads(row[18]),
        scheduled_at=_moment(row[19]),
        run_count=row[20],
        created_at=from_microseconds(row[21]),
        started_at=_moment(row[22]),
        ended_at=_moment(row[23]),
        launcher=_maybe_identity(row[24]),
        supervisor=_maybe_identity(row[25]),
        agent_name=row[26],
        kill_at=_moment(row[27]),
    )


# A process is on the record of every flow run that it runs.
@lru_cache(maxsize=64)
def identity_text(identity: ProcessIdentity) -> str:
    """Return the value of a process's identity: JSON."""
    return json.dumps(asdict(identity))


def maybe_identity_text(identity: ProcessIdentity | None) -> str | None:
    """Return the value of a process's identity; None for None."""
    return None if identity is None else identity_text(identity)


@lru_cache(maxsize=64)
def identity_from(text: str) -> ProcessIdentity:
    """Return the identity of a value of ``identity_text``."""
    return ProcessIdentity(**json.loads(text))


def _maybe_identity(text: str | None) -> ProcessIdentity | None:
    return None if text is None else identity_from(text)


def task_run_values(task_run: TaskRun) -> Values:
    """Return the values for ``TASK_RUN_COLUMNS``; the flow run's key is the registry's affair."""
    return (
        task_run.id,
        storable(task_run.name),
        storable(task_run.task_name),
        *state_values(task_run.state),
        task_run.state_version,
        json.dumps(task_run.tags) if task_run.tags else "[]",
        task_run.parent_task_run_id,
        maybe_storable(task_run.cache_key),
        task_run.run_count,
        to_microseconds(task_run.created_at),
        _microseconds(task_run.started_at),
        _microseconds(task_run.ended_at),
    )


def task_run_from(row: Row) -> TaskRun:
    """Return the record of a row of ``TASK_RUN_COLUMNS`` and the flow run's id."""
    return TaskRun(
        id=row[0],
        name=row[1],
        task_name=row[2],
        state=state_from(row[3:7]),
        state_version=row[7],
        tags=() if row[8] == "[]" else tuple(json.loads(row[8])),
        parent_task_run_id=row[9],
        cache_key=row[10],
        run_count=row[11],
        created_at=from_microseconds(row[12]),
        started_at=_moment(row[13]),
        ended_at=_moment(row[14]),
        flow_run_id=row[15],
    )


def state_change_from(row: Row) -> StateChange:
    """Return the record of a row of type, name, message, time, version and actor."""
    return StateChange(row[4], state_from(row[:4]), row[5])


def task_count_from(row: Row) -> TaskCount:
    """Return the record of a row of flow run id, task name, state type, state name and count."""
    flow_run_id, task_name, type_, name, count = row
    return TaskCount(flow_run_id, task_name, StateType(type_), name, count)


def log_values(line: LogLine) -> Values:
    """Return a line's task run id, level, logger, message, time and flow run id."""
    return (
        line.task_run_id,
        line.level,
        storable(line.logger),
        storable(line.message),
        to_microseconds(line.timestamp),
        line.flow_run_id,
    )


def log_line_from(row: Row) -> LogLine:
    """Return the record of a row of ``log_values`` and the position."""
    task_run_id, level, logger, message, at, flow_run_id, position = row
    moment = from_microseconds(at)
    return LogLine(flow_run_id, task_run_id, level, logger, message, moment, position)


def cached_result_values(cached: CachedResult) -> Values:
    """Return a cached result's key, task run id and end."""
    return (storable(cached.cache_key), cached.task_run_id, _microseconds(cached.expires_at))


def cached_result_from(row: Row) -> CachedResult:
    """Return the record of a row of ``cached_result_values``."""
    return CachedResult(row[0], row[1], _moment(row[2]))


def pause_values(pause: Pause) -> Values:
    """Return the values for ``PAUSE_COLUMNS``."""
    return (
        maybe_storable(pause.key),
        _microseconds(pause.resume_by),
        _maybe_json(pause.input_schema),
        _maybe_json(pause.run_input),
    )


def pause_from(row: Row) -> Pause:
    """Return the record of a row of ``PAUSE_COLUMNS`` and the version of the state."""
    key, resume_by, schema, run_input, state_version = row
    return Pause(
        state_version=state_version,
        key=key,
        resume_by=_moment(resume_by),
        input_schema=None if schema is None else json.loads(schema),
        run_input=None if run_input is None else json.loads(run_input),
    )


def _maybe_json(fields: Mapping[str, object] | None) -> str | None:
    return None if fields is None else json.dumps({**fields})
