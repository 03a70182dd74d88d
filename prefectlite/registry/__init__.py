"""The registry: every flow run, task run, state and log line, on record.

``Registry`` is the interface; each other file of this package is one implementation, named by the
URL's scheme (``sqlite:////home/me/registry.db``). Nothing that is only true of one implementation
may pass through here: no SQL, no cursor, no driver's error.

A registry is shared by every thread of its process and by every process of the machine. Writes
are atomic: after ``kill -9`` a write is there whole or not at all.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypedDict, Unpack

from prefectlite.clock import monotonic
from prefectlite.errors import SettingError
from prefectlite.plugins import load
from prefectlite.records import (
    CachedResult,
    FlowRun,
    LogLine,
    ProcessIdentity,
    Run,
    StateChange,
    TaskRun,
)
from prefectlite.states import State

if TYPE_CHECKING:
    from prefectlite.deployment_records import Agent, Deployment, WorkQueue

# To look takes SQLite 3 microseconds, and the process that wakes up for it a hundred: a thousandth.
_LOOK_SECONDS = 0.2
#: How many runs a listing gives where the caller names no number.
DEFAULT_LIMIT = 200


class WorkQueueChanges(TypedDict, total=False):
    """What can be changed of a work queue; what is left out stays."""

    description: str | None
    priority: int
    concurrency_limit: int | None
    is_paused: bool


class DeploymentRegistry(ABC):
    """The deployments and work queues of a registry, and the runs that wait in the queues.

    What is said of ``Registry`` holds here too; every write is durable.
    """

    @abstractmethod
    def save_deployment(self, deployment: Deployment) -> Deployment:
        """Record a deployment, or replace the one of the same flow and name.

        Returns:
            It, as it is on record: one that was replaced keeps its id and ``created_at``.
        """

    @abstractmethod
    def find_deployment(self, reference: str) -> Deployment:
        """Return what an id, a unique id prefix, ``flow-name/name``, or a unique name means.

        Raises:
            NotFoundError: No deployment has it.
            AmbiguousReferenceError: Several have it, and none has it as its whole id or name.
        """

    @abstractmethod
    def list_deployments(
        self, *, flow_names: Collection[str] = (), work_queue: str | None = None
    ) -> list[Deployment]:
        """Return deployments by flow and name.

        Args:
            flow_names: Only those of the flows of these names; empty for all.
            work_queue: Only those of the queue of this name; None for all.
        """

    @abstractmethod
    def delete_deployment(self, deployment_id: str) -> None:
        """Delete a deployment; its runs stay as they are, also those that are still to begin.

        Raises:
            NotFoundError: There is no such deployment.
        """

    @abstractmethod
    def create_work_queue(self, queue: WorkQueue) -> None:
        """Record a new work queue.

        Raises:
            ConflictError: There is one of that name.
        """

    @abstractmethod
    def change_work_queue(self, queue_id: str, **changes: Unpack[WorkQueueChanges]) -> WorkQueue:
        """Change some of a work queue, leaving the rest to whoever else changes it; return it.

        Raises:
            NotFoundError: There is no such queue.
        """

    @abstractmethod
    def find_work_queue(self, reference: str) -> WorkQueue:
        """Return the work queue that a name, an id or a unique id prefix means.

        Raises:
            NotFoundError: No queue has it.
            AmbiguousReferenceError: It begins several ids, and is no name.
        """

    @abstractmethod
    def list_work_queues(self) -> list[WorkQueue]:
        """Return the work queues, those that are served first before the others."""

    @abstractmethod
    def delete_work_queue(self, queue_id: str) -> None:
        """Delete a work queue; runs that wait in it stay, and can be claimed by its name.

        Raises:
            NotFoundError: There is no such queue.
        """

    @abstractmethod
    def count_queued_flow_runs(self) -> dict[str, dict[str, int]]:
        """Return, by queue name, how many runs that are not final there are by state name."""

    @abstractmethod
    def claim_due_flow_runs(
        self, queues: Collection[str], *, limit: int, at: datetime, agent: Agent | None = None
    ) -> list[FlowRun]:
        """Take runs that are due, and move each to Pending: no other caller gets them too.

        A run is due when it is Scheduled, ``scheduled_at`` has come, its queue is not paused, and
        fewer of the queue's runs than its limit are going on: Pending, Running, Paused,
        Cancelling, or awaiting a retry in their process. Queues with the smallest priority number come
        first, then the runs that are due for longest. A queue that is not on record has the
        default priority and no limit.

        Args:
            queues: Names of work queues.
            limit: At most this many.
            at: The present time.
            agent: Who takes them: its process becomes their launcher, and its own limit holds too,
                for all runs that agents of its name have taken.

        Returns:
            The runs, now Pending, in the order in which they are to begin.
        """

    @abstractmethod
    def list_overdue_flow_runs(self, queues: Collection[str], *, before: datetime) -> list[FlowRun]:
        """Return the runs of these queues that were due by then and are still only Scheduled."""

    @abstractmethod
    def next_due_at(self, queues: Collection[str], *, after: datetime) -> datetime | None:
        """Return when, after a moment, a run of these queues is due next; None for never."""

    @abstractmethod
    def save_agent(self, agent: Agent) -> None:
        """Record an agent that begins."""

    @abstractmethod
    def list_agents(self) -> list[Agent]:
        """Return the agents on record, oldest first; some may be dead."""

    @abstractmethod
    def delete_agent(self, agent_id: str) -> None:
        """Delete an agent, if it is on record."""


class LaunchRegistry(ABC):
    """What a registry knows of runs that are started in a process of their own."""

    @abstractmethod
    def record_launch(
        self, flow_run: FlowRun, *, infrastructure_pid: str, supervisor: ProcessIdentity | None
    ) -> bool:
        """Say what a run that its launcher has taken runs in, durably.

        Args:
            flow_run: The run, with its ``launcher``.
            infrastructure_pid: As ``scope:id``.
            supervisor: The process that owns those of the run, where there is one.

        Returns:
            False where the run is no longer this launcher's, or says already what it runs in.
        """

    @abstractmethod
    def release_flow_run(self, flow_run: FlowRun, state: State) -> FlowRun:
        """Move a run that was taken and not launched to ``state``; nobody has it any more.

        As ``change_state``. What the run had of a launch is forgotten.
        """

    @abstractmethod
    def set_kill_at(self, flow_run_id: str, at: datetime) -> None:
        """Say when what has not ended of a run is killed; an earlier time that is set stays."""

    @abstractmethod
    def add_output(
        self, lines: Sequence[LogLine], *, flow_run_id: str, start: int, end: int
    ) -> bool:
        """Add captured output to the log of a run, once, whoever else does it too.

        Args:
            lines: The lines between two places of the file that holds the output.
            flow_run_id: The whole id.
            start: The first place, in bytes; where others have not come from there, nothing is added.
            end: The second.

        Returns:
            Whether they were added.
        """

    @abstractmethod
    def output_bytes(self, flow_run_id: str) -> int:
        """Return how much of the file of a run's output is in its log.

        Raises:
            NotFoundError: There is no such run.
        """


class Registry(ABC):
    """What the engine and the commands ask of a store.

    Every method may raise ``RegistryError``, and every write ``RegistryReadOnlyError`` and
    ``RegistryFullError``. A method is safe to call from any thread.
    """

    url: str

    @property
    @abstractmethod
    def deployments(self) -> DeploymentRegistry:
        """The part of it that knows deployments and work queues."""

    @property
    @abstractmethod
    def launches(self) -> LaunchRegistry:
        """The part of it that knows runs which are started in processes of their own."""

    @abstractmethod
    def change_mark(self) -> object:
        """Return what is different after another process has changed something, and not before."""

    def wait_for_change(
        self, mark: object, *, timeout_seconds: float, pause: Callable[[float], object] = time.sleep
    ) -> bool:
        """Block until another process has changed something since ``mark``, or the time is over.

        Args:
            mark: What ``change_mark`` gave.
            timeout_seconds: How long to wait at most.
            pause: Called with how many seconds to sleep; it may raise to end the waiting.

        Returns:
            Whether something was changed.
        """
        deadline = monotonic() + timeout_seconds
        while (left := deadline - monotonic()) > 0:
            pause(min(left, _LOOK_SECONDS))
            if self.change_mark() != mark:
                return True
        return False

    @abstractmethod
    def create_flow_run(self, flow_run: FlowRun) -> None:
        """Record a new flow run in its first state, durably: it survives a power cut."""

    @abstractmethod
    def create_task_runs(self, task_runs: Sequence[TaskRun]) -> None:
        """Record new task runs of one flow run, all or none.

        Raises:
            FlowRunNotRunningError: The flow run is not Running, so no task may start in it.
            NotFoundError: There is no such flow run.
        """

    @abstractmethod
    def change_state(self, run: Run, state: State) -> Run:
        """Move a run to another state; the only way that a state changes.

        The change of a flow run is durable on return; that of a task run becomes so with the
        next change of a flow run. Log lines of the run that were added before are on record no
        later than its change; with a flow run, those of its task runs too.

        Args:
            run: The run as the caller last saw it. If it has changed since, the caller lost.
            state: The state to take.

        Returns:
            The run after the change.

        Raises:
            StateConflictError: Another writer was first, or the table forbids the change.
            FlowRunNotRunningError: A task run was to start, or start again, in a flow run that is
                over or being cancelled.
            NotFoundError: The run is not on record.
        """

    @abstractmethod
    def begin_flow_run(self, flow_run: FlowRun, state: State, process: ProcessIdentity) -> FlowRun:
        """Move a flow run that was put on record elsewhere to ``state``, and say who runs it.

        As ``change_state``. The run's ``supervisor`` and ``infrastructure_pid`` are those of
        ``flow_run``; where that has no infrastructure_pid, it becomes that of the process.
        """

    @abstractmethod
    def find_flow_run(self, reference: str) -> FlowRun:
        """Return the flow run that an id, a unique id prefix or a name means.

        Raises:
            NotFoundError: No run has it.
            AmbiguousReferenceError: Several have it, and none has it as its whole id.
        """

    @abstractmethod
    def find_task_run(self, reference: str) -> TaskRun:
        """Return the task run that an id, a unique id prefix or a name means.

        Raises:
            NotFoundError: No run has it.
            AmbiguousReferenceError: Several have it, and none has it as its whole id.
        """

    @abstractmethod
    def list_flow_runs(
        self,
        *,
        states: Collection[str] = (),
        flow_names: Collection[str] = (),
        parent_flow_run_id: str | None = None,
        limit: int | None = DEFAULT_LIMIT,
    ) -> list[FlowRun]:
        """Return flow runs, newest first.

        Args:
            states: Names or types of states, in any case; empty for all. A word that is both means
                the type: ``running`` finds Retrying too.
            flow_names: Names of flows; empty for all.
            parent_flow_run_id: Only the subflow runs of this one.
            limit: At most this many; None for all.
        """

    @abstractmethod
    def list_begun_flow_runs(self) -> list[FlowRun]:
        """Return the flow runs that are not in a final state and that a process has begun or taken."""

    @abstractmethod
    def list_task_runs(
        self,
        *,
        flow_run_id: str | None = None,
        states: Collection[str] = (),
        limit: int | None = DEFAULT_LIMIT,
    ) -> list[TaskRun]:
        """Return task runs, newest first; the arguments are as for ``list_flow_runs``."""

    @abstractmethod
    def count_task_runs(self, flow_run_id: str) -> dict[str, int]:
        """Return how many task runs of a flow run there are by state name."""

    @abstractmethod
    def state_history(self, run: FlowRun | TaskRun) -> list[StateChange]:
        """Return every state that a run has had, oldest first."""

    @abstractmethod
    def delete_flow_run(self, flow_run_id: str) -> None:
        """Delete a flow run with its task runs, states and log lines. Its subflow runs stay.

        Raises:
            NotFoundError: There is no such flow run.
        """

    @abstractmethod
    def add_log_line(self, line: LogLine) -> None:
        """Add a line to those that ``flush_logs`` or the next change of its run records.

        It neither blocks nor writes, unless some hundreds of lines wait already. Lines are recorded in the
        order in which they were added.
        """

    @abstractmethod
    def unrecorded_seconds(self) -> float | None:
        """Return how long the oldest line that was added and is not on record has waited.

        None where all are on record. It neither blocks nor writes.
        """

    @abstractmethod
    def flush_logs(self) -> None:
        """Record the lines that were added and are not yet on record; nothing if there are none."""

    @abstractmethod
    def read_logs(
        self,
        flow_run_id: str,
        *,
        task_run_id: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[LogLine]:
        """Return the lines of a flow run and its task runs, in the order they were added.

        Args:
            flow_run_id: The whole id.
            task_run_id: Only the lines of this task run.
            after: Only lines with a greater ``position``.
            limit: At most this many; None for all.
        """

    @abstractmethod
    def save_cached_result(self, cached: CachedResult) -> None:
        """Record, or replace, where the result for a cache key is stored."""

    @abstractmethod
    def find_cached_result(self, cache_key: str, *, at: datetime) -> CachedResult | None:
        """Return where the result for a cache key is stored, unless it had expired by ``at``."""

    @abstractmethod
    def close(self) -> None:
        """Record what was added and let go of the store. Safe to call twice."""


def open_registry(url: str, *, read_only: bool = False) -> Registry:
    """Return the registry at a URL, creating and migrating it unless ``read_only``.

    In one process, every call with the same arguments gives the same object until it is closed.

    Raises:
        RegistryError: It cannot be opened; the subclass and the hint say why.
        SettingError: No implementation has the URL's scheme.
    """
    scheme, separator, _ = url.partition(":")
    if not separator:
        raise SettingError(
            f"the registry's address {url!r} is not a URL",
            hint="it looks like sqlite:////home/me/registry.db",
        )
    registry: Registry = load("registry", scheme).open_registry(url, read_only=read_only)
    return registry
