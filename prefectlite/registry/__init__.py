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
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Unpack

from prefectlite.clock import monotonic
from prefectlite.errors import SettingError
from prefectlite.plugins import load
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
)
from prefectlite.registry_parts import (
    BlockRegistry,
    DeploymentRegistry,
    LaunchRegistry,
    NotificationRegistry,
    PauseRegistry,
    UpkeepRegistry,
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
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import State

if TYPE_CHECKING:
    from prefectlite.flow_records import FlowSummary

# To look takes SQLite 3 microseconds, and the process that wakes up for it a hundred: a thousandth.
_LOOK_SECONDS = 0.2


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

    @property
    @abstractmethod
    def pauses(self) -> PauseRegistry:
        """The part of it that knows runs which wait, or have waited, for a person."""

    @property
    @abstractmethod
    def blocks(self) -> BlockRegistry:
        """The part of it that knows blocks and their types."""

    @property
    @abstractmethod
    def notifications(self) -> NotificationRegistry:
        """The part of it that knows notification rules, and what is still to be told."""

    @property
    @abstractmethod
    def upkeep(self) -> UpkeepRegistry:
        """The part of it that looks after the store itself: checks, backups, and what is too old."""

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
        where: FlowRunFilter = EVERY_FLOW_RUN,
        *,
        order: Order = NEWEST_FIRST,
        limit: int | None = DEFAULT_LIMIT,
    ) -> list[FlowRun]:
        """Return the flow runs that match a filter, at most so many; None for all of them."""

    @abstractmethod
    def list_flows(self) -> list[FlowSummary]:
        """Return what became of the runs of each flow, by the names of the flows.

        Deployments are not among it. It reads every flow run once, in about a tenth of a second for
        100,000 of them.
        """

    @abstractmethod
    def list_begun_flow_runs(self) -> list[FlowRun]:
        """Return the flow runs that are not in a final state and that a process has begun or taken."""

    @abstractmethod
    def list_task_runs(
        self,
        where: TaskRunFilter = EVERY_TASK_RUN,
        *,
        order: Order = NEWEST_FIRST,
        limit: int | None = DEFAULT_LIMIT,
    ) -> list[TaskRun]:
        """Return the task runs that match a filter, at most so many; None for all of them."""

    @abstractmethod
    def list_run_tree(self, flow_run_id: str) -> list[FlowRun]:
        """Return a flow run and all the subflow runs below it, in the order of their creation."""

    @abstractmethod
    def count_tasks(self, flow_run_id: str) -> list[TaskCount]:
        """Return how many task runs there are in a flow run, and in the subflow runs below it.

        Those of each flow run are in the order of the tasks' first runs.
        """

    @abstractmethod
    def count_task_runs(self, flow_run_id: str) -> dict[str, int]:
        """Return how many task runs of a flow run there are by state name."""

    @abstractmethod
    def state_history(self, run: FlowRun | TaskRun) -> list[StateChange]:
        """Return every state that a run has had, oldest first."""

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
    def read_logs(self, flow_run_id: str, **query: Unpack[LogQuery]) -> list[LogLine]:
        """Return the lines of a flow run and its task runs, in the order they were added.

        Args:
            flow_run_id: The whole id.
            query: Which of them.
        """

    @abstractmethod
    def last_log_position(self, flow_run_id: str, *, with_subflows: bool = False) -> int:
        """Return the position of the last line of a flow run and its task runs; 0 for none."""

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
    registry: Registry = _implementation(url).open_registry(url, read_only=read_only)
    return registry


def open_upkeep(url: str) -> UpkeepRegistry:
    """Return the upkeep of the registry at a URL as it is: nothing is created, migrated or written.

    What is older than this version knows can be looked at, too; close it after use.

    Raises:
        RegistryError: It cannot be opened, or is newer.
        SettingError: No implementation has the URL's scheme.
    """
    upkeep: UpkeepRegistry = _implementation(url).open_upkeep(url)
    return upkeep


def registry_path(url: str) -> Path | None:
    """Return the file that a registry is in, which may not exist; None where it is in none.

    Raises:
        SettingError: The URL is none, or names no file where it should.
    """
    path: Path | None = _implementation(url).registry_path(url)
    return path


def _implementation(url: str) -> ModuleType:
    scheme, separator, _ = url.partition(":")
    if not separator:
        raise SettingError(
            f"the registry's address {PREFECTLITE_REGISTRY.masked(url)!r} is not a URL",
            hint="it looks like sqlite:////home/me/registry.db",
        )
    module: ModuleType = load("registry", scheme)
    return module
