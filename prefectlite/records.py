"""What the registry holds, as frozen values.

A record is a snapshot: it was true when it was read, and ``state_version`` says which state it saw,
so that a write which rests on an old snapshot can be refused. Records carry no connection and no
behaviour beyond being shown. Ids are 36-character UUID texts; times are aware UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple, TypedDict, TypeVar

from prefectlite.clock import now
from prefectlite.json_values import MASK
from prefectlite.states import State, StateType


def iso_text(moment: datetime | None) -> str | None:
    """Return a time as JSON holds it; None for None."""
    return None if moment is None else moment.isoformat(timespec="microseconds")


def masked(infrastructure: Mapping[str, object] | None) -> dict[str, object] | None:
    """Return the fields of an infrastructure with the values of its environment hidden."""
    if infrastructure is None:
        return None
    fields = {**infrastructure}
    environment = fields.get("environment")
    if isinstance(environment, Mapping):
        fields["environment"] = dict.fromkeys(environment, MASK)
    return fields


def _state_fields(state: State) -> dict[str, object]:
    return {
        "type": state.type.value,
        "name": state.name,
        "message": state.message,
        "timestamp": iso_text(state.timestamp),
    }


def _seconds(started_at: datetime | None, until: datetime | None) -> float | None:
    if started_at is None:
        return None
    # A clock that was set back meanwhile must not make it less than nothing.
    return max(0.0, ((until or now()) - started_at).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """What tells one process from every other, on any machine, before and after a restart.

    Attributes:
        token: Random; also in the environment of what the process starts.
        machine_id: From machine-id(5); None where there is none, as in some containers.
        boot_id: Random for each start of the kernel; None where it is not Linux.
        pid_namespace: The namespace that ``pid`` counts in; None where it is not Linux.
        start_ticks: When the process started, in ticks since boot; None where that is not known.
        lock_path: The file that it holds locked; None where it could not.
    """

    token: str
    hostname: str
    machine_id: str | None
    boot_id: str | None
    pid_namespace: str | None
    pid: int
    start_ticks: int | None
    lock_path: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """One run of a flow.

    Attributes:
        state_version: Counts the states it has had; 1 is the first.
        parameters: JSON-able copies of the values it was called with; what JSON cannot say is
            its ``repr``.
        parent_flow_run_id: The flow run that called this one as a subflow; None for a top one.
        parent_task_run_id: The task run that called it, where a task did.
        entrypoint: ``path.py:flow`` or ``module:flow``, where it is known.
        process: The process that runs it; None before one does.
        launcher: The process that has taken it to launch it: an agent, or ``run --detach``.
        supervisor: The process that owns those of the run; None where none does.
        infrastructure_pid: What it runs in, as ``scope:id``; for a process ``hostname:PID``. None
            before that is known.
        deployment_id: The deployment that it was made of; None for one that was called.
        work_queue: The queue that it is taken from; None for one that was called.
        agent_name: The agent that took it; None where none did.
        infrastructure: A copy of the deployment's, as it was then; None for one that was called.
        scheduled_at: When it is due; None for one that was called.
        kill_at: When what has not ended of it is killed; None while nobody has asked for its end.
        run_count: Attempts begun so far.
    """

    id: str
    name: str
    flow_name: str
    state: State
    state_version: int = 1
    parameters: Mapping[str, object] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    version: str | None = None
    entrypoint: str | None = None
    process: ProcessIdentity | None = None
    launcher: ProcessIdentity | None = None
    supervisor: ProcessIdentity | None = None
    infrastructure_pid: str | None = None
    parent_flow_run_id: str | None = None
    parent_task_run_id: str | None = None
    deployment_id: str | None = None
    work_queue: str | None = None
    agent_name: str | None = None
    infrastructure: Mapping[str, object] | None = None
    scheduled_at: datetime | None = None
    kill_at: datetime | None = None
    run_count: int = 0
    created_at: datetime = field(default_factory=now)
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from the first start to the end, or to now; None before it started."""
        return _seconds(self.started_at, self.ended_at)

    def dict(self) -> dict[str, object]:
        """Return the run as JSON can hold it; times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "name": self.name,
            "flow_name": self.flow_name,
            "state": _state_fields(self.state),
            "parameters": {**self.parameters},
            "tags": [*self.tags],
            "version": self.version,
            "entrypoint": self.entrypoint,
            "infrastructure_pid": self.infrastructure_pid,
            "parent_flow_run_id": self.parent_flow_run_id,
            "parent_task_run_id": self.parent_task_run_id,
            "deployment_id": self.deployment_id,
            "work_queue": self.work_queue,
            "agent_name": self.agent_name,
            "infrastructure": masked(self.infrastructure),
            "scheduled_at": iso_text(self.scheduled_at),
            "kill_at": iso_text(self.kill_at),
            "run_count": self.run_count,
            "created_at": iso_text(self.created_at),
            "started_at": iso_text(self.started_at),
            "ended_at": iso_text(self.ended_at),
            "duration_seconds": self.duration_seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """One run of a task, inside a flow run.

    Attributes:
        state_version: Counts the states it has had; 1 is the first.
        parent_task_run_id: The task run that called this one, where a task did.
        cache_key: What ``cache_key_fn`` returned; None where the task has none.
        run_count: Attempts begun so far.
    """

    id: str
    name: str
    task_name: str
    flow_run_id: str
    state: State
    state_version: int = 1
    tags: tuple[str, ...] = ()
    parent_task_run_id: str | None = None
    cache_key: str | None = None
    run_count: int = 0
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from the first start to the end, or to now; None before it started."""
        return _seconds(self.started_at, self.ended_at)

    def dict(self) -> dict[str, object]:
        """Return the run as JSON can hold it; times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "name": self.name,
            "task_name": self.task_name,
            "flow_run_id": self.flow_run_id,
            "state": _state_fields(self.state),
            "tags": [*self.tags],
            "parent_task_run_id": self.parent_task_run_id,
            "cache_key": self.cache_key,
            "run_count": self.run_count,
            "created_at": iso_text(self.created_at),
            "started_at": iso_text(self.started_at),
            "ended_at": iso_text(self.ended_at),
            "duration_seconds": self.duration_seconds,
        }


Run = TypeVar("Run", FlowRun, TaskRun)


@dataclass(frozen=True, slots=True)
class StateChange:
    """One step of a run's history.

    Attributes:
        version: 1 for the run's first state.
        actor: Who made it, ``user@host:PID``.
    """

    version: int
    state: State
    actor: str

    def dict(self) -> dict[str, object]:
        """Return the change as JSON can hold it."""
        return {"version": self.version, **_state_fields(self.state), "actor": self.actor}


class LogLine(NamedTuple):
    """One log record of a run; a tuple, because it is made as often as a flow prints.

    Attributes:
        position: Orders the lines of the whole registry; 0 before it is recorded.
        level: As in ``logging``: 10 debug, 20 info, 30 warning, 40 error, 50 critical.
    """

    flow_run_id: str
    task_run_id: str | None
    level: int
    logger: str
    message: str
    timestamp: datetime
    position: int = 0

    def dict(self) -> dict[str, object]:
        """Return the line as JSON can hold it."""
        return {
            "timestamp": iso_text(self.timestamp),
            "level": self.level,
            "logger": self.logger,
            "message": self.message,
            "flow_run_id": self.flow_run_id,
            "task_run_id": self.task_run_id,
        }


class LogQuery(TypedDict, total=False):
    """Which log lines of a flow run and its task runs are asked for; all of them, if nothing is said.

    Attributes:
        task_run_id: Only those of this task run.
        tasks: Only those of task runs that one of these words means: the name of a task, or the
            name, the id or the start of the id of a task run.
        least_level: Only those of this level and above.
        since: Only those that were logged then or later.
        with_subflows: Those of its subflow runs, and of theirs, too.
        after: Only those with a greater ``position``.
        limit: At most this many; None for all.
        characters: No more once the messages have this many together.
        is_last: Of these, the last ones, where there are more than the limit; else the first.
    """

    task_run_id: str
    tasks: Collection[str]
    least_level: int
    since: datetime
    with_subflows: bool
    after: int
    limit: int | None
    characters: int
    is_last: bool


class TaskCount(NamedTuple):
    """The number of the runs of a task that are in one state, within one flow run."""

    flow_run_id: str
    task_name: str
    state_type: StateType
    state_name: str
    number: int


@dataclass(frozen=True, slots=True)
class CachedResult:
    """Where the result of an earlier task run with the same cache key is stored."""

    cache_key: str
    task_run_id: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """What a paused flow run waits for, and what it was given.

    Attributes:
        state_version: The version of the Paused state; 0 before it is on record.
        key: What the flow calls it; a pause with a key is in a run once. None for one without.
        resume_by: When the run has Failed if nobody has resumed it; None where it waits for ever.
        input_schema: The JSON schema of what it wants to be told; None where it wants nothing.
        run_input: What it was told; None before that, and where it was resumed without a word.
    """

    state_version: int = 0
    key: str | None = None
    resume_by: datetime | None = None
    input_schema: Mapping[str, object] | None = None
    run_input: Mapping[str, object] | None = None

    def dict(self) -> dict[str, object]:
        """Return the pause as JSON can hold it."""
        return {
            "key": self.key,
            "resume_by": iso_text(self.resume_by),
            "input_schema": self.input_schema and {**self.input_schema},
            "run_input": self.run_input and {**self.run_input},
        }


def after_change(run: Run, state: State) -> Run:
    """Return the run as it is once it has taken ``state``: version, attempts, start and end."""
    is_attempt = state.type is StateType.RUNNING and not run.state.is_paused()
    version, run_count = run.state_version + 1, run.run_count + is_attempt
    started_at = run.started_at or (state.timestamp if is_attempt else None)
    ended_at = state.timestamp if state.is_final() else None
    if isinstance(run, FlowRun):
        return replace(
            run,
            state=state,
            state_version=version,
            run_count=run_count,
            started_at=started_at,
            ended_at=ended_at,
        )
    # Written out, because replace() takes twice as long, and tasks are many.
    return TaskRun(
        id=run.id,
        name=run.name,
        task_name=run.task_name,
        flow_run_id=run.flow_run_id,
        state=state,
        state_version=version,
        tags=run.tags,
        parent_task_run_id=run.parent_task_run_id,
        cache_key=run.cache_key,
        run_count=run_count,
        created_at=run.created_at,
        started_at=started_at,
        ended_at=ended_at,
    )
