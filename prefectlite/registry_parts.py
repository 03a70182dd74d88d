"""The parts of a registry beside its flow runs and task runs, as interfaces.

``Registry`` has one of each, and says what holds for all of them; every write here is durable. A store
implements them in modules of its own, ``deployment_tables`` for SQLite, so that a command imports only
what it uses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from prefectlite.records import FlowRun, LogLine, Pause, ProcessIdentity
from prefectlite.states import State

if TYPE_CHECKING:
    from prefectlite.block_records import BlockDocument, BlockType
    from prefectlite.deployment_records import Agent, Deployment, WorkQueue
    from prefectlite.notification_records import Notification, NotificationRule
    from prefectlite.upkeep_records import Contents, Deleted, EndedRun, Fault, Prunable, Storage


class WorkQueueChanges(TypedDict, total=False):
    """What can be changed of a work queue; what is left out stays."""

    description: str | None
    priority: int
    concurrency_limit: int | None
    is_paused: bool


class DeploymentRegistry(ABC):
    """The deployments and work queues of a registry, and the runs that wait in the queues."""

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
        """Say when what has not ended of a run is killed; an earlier time that is set stays.

        Nothing where the run itself has ended: its record does not change any more.
        """

    @abstractmethod
    def while_cancelling(self, flow_run_id: str, act: Callable[[], object]) -> bool:
        """Call ``act`` if a run is Cancelling, such that nobody changes that before it returns.

        It must be quick, and must not use the registry.

        Returns:
            Whether it was called.
        """

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


class PauseRegistry(ABC):
    """What a registry knows of runs that wait, or have waited, for a person."""

    @abstractmethod
    def pause_flow_run(
        self, flow_run: FlowRun, state: State, pause: Pause, *, instead_of: Pause | None = None
    ) -> FlowRun:
        """Move a run to ``state``, which is a paused one, and say what it waits for.

        As ``change_state``.

        Args:
            instead_of: An earlier pause of the run, which gives up its key.

        Raises:
            ConflictError: A pause with this key has been in the run.
        """

    @abstractmethod
    def resume_flow_run(
        self, flow_run: FlowRun, state: State, *, run_input: Mapping[str, object] | None = None
    ) -> FlowRun:
        """Move a paused run to ``state`` and keep what the person gave it.

        As ``change_state``. Whether that is in time is for the caller to see.
        """

    @abstractmethod
    def find_pause(
        self, flow_run_id: str, *, key: str | None = None, state_version: int | None = None
    ) -> Pause | None:
        """Return a pause of a run: the one with this key, or of this state, and else the last.

        None where there is none.
        """

    @abstractmethod
    def list_overdue_flow_runs(self, at: datetime) -> list[tuple[FlowRun, Pause]]:
        """Return the paused runs that should have been resumed by ``at``, with their pauses."""


class BlockRegistry(ABC):
    """The blocks of a registry, without their secrets, and the types that a person has registered."""

    @abstractmethod
    def save_block(self, document: BlockDocument, *, overwrite: bool) -> BlockDocument:
        """Record a block, or replace the one of the same type and name.

        Returns:
            It, as it is on record: one that was replaced keeps its id and ``created_at``.

        Raises:
            ConflictError: There is one, and it is not to be replaced.
        """

    @abstractmethod
    def find_block(self, type_: str, name: str) -> BlockDocument:
        """Return the block of this type and name.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    def list_blocks(self, type_: str | None = None) -> list[BlockDocument]:
        """Return the blocks by type and name, all or those of one type."""

    @abstractmethod
    def delete_block(self, type_: str, name: str) -> None:
        """Delete the block of this type and name.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    def list_secrets_file(self, name: str) -> None:
        """Put the name of a file on record, before the file is written and a block names it."""

    @abstractmethod
    def unlist_secrets_file(self, name: str) -> None:
        """Take the name of a file that has been removed off the record."""

    @abstractmethod
    def unused_secrets_files(self) -> list[str]:
        """Return the names that are listed, and that no block names."""

    @abstractmethod
    def save_block_types(self, types: Sequence[BlockType]) -> None:
        """Record types of blocks, or where those are from now on that are on record."""

    @abstractmethod
    def list_block_types(self) -> list[BlockType]:
        """Return the types that a person has registered, by name."""


class NotificationRegistry(ABC):
    """The notification rules of a registry, and what is still to be told.

    Whatever changes the state of a flow run also notes the notifications that it calls for, in the
    same transaction. What couriers write is safe from ``kill -9``, but not from a power cut: then it
    is told twice.
    """

    @abstractmethod
    def create_rule(self, rule: NotificationRule) -> None:
        """Record a new rule."""

    @abstractmethod
    def find_rule(self, reference: str) -> NotificationRule:
        """Return the rule that an id or a unique id prefix means.

        Raises:
            NotFoundError: No rule has it.
            AmbiguousReferenceError: Several have it.
        """

    @abstractmethod
    def list_rules(self) -> list[NotificationRule]:
        """Return the rules, oldest first."""

    @abstractmethod
    def set_rule_active(self, rule_id: str, *, is_active: bool) -> NotificationRule:
        """Say whether changes are noted for a rule from now on; return it.

        Raises:
            NotFoundError: There is no such rule.
        """

    @abstractmethod
    def delete_rule(self, rule_id: str) -> None:
        """Delete a rule, with what is still to be told for it.

        Raises:
            NotFoundError: There is no such rule.
        """

    @abstractmethod
    def list_notifications(self, rule_id: str, *, limit: int) -> list[Notification]:
        """Return what is not told yet, or was given up, for a rule; newest first, at most so many."""

    @abstractmethod
    def next_due_at(self) -> datetime | None:
        """Return when a notification is due, or was, before any other; None where there is none."""

    @abstractmethod
    def waiting(self) -> tuple[int, datetime | None]:
        """Return how many wait for their next attempt, and when the first of them is due."""

    @abstractmethod
    def make_due(self, *, at: datetime) -> None:
        """Have all that waits for its next attempt be due; what was given up is not."""

    @abstractmethod
    def take_notification(
        self, courier: ProcessIdentity, *, at: datetime, until: datetime
    ) -> Notification | None:
        """Take one that is due and that nobody has taken: no other caller gets it too.

        Those that were tried least come first, and then the oldest.

        Args:
            courier: Who takes it.
            at: The present time.
            until: When the courier is late.
        """

    @abstractmethod
    def list_taken(self) -> list[Notification]:
        """Return the notifications that couriers have taken; some of these may be dead."""

    @abstractmethod
    def record_delivery(self, notification: Notification, *, at: datetime) -> bool:
        """Count a notification as delivered, and forget it.

        Returns:
            False where it is not the courier's any more.
        """

    @abstractmethod
    def record_problem(
        self, notification: Notification, problem: str, *, due_at: datetime | None
    ) -> bool:
        """Say why a notification was not delivered, and let others have it.

        Args:
            notification: As its courier has it.
            problem: Without any secret.
            due_at: When it is to be tried again; None to give it up.

        Returns:
            False where it is not the courier's any more.
        """

    @abstractmethod
    def put_off(self, rule_id: str, *, until: datetime) -> None:
        """Let what is due for a rule, and what nobody has taken, be due no earlier than that."""


class UpkeepRegistry(ABC):
    """How a registry is kept in order. What only looks here changes nothing, and works while others write."""

    @abstractmethod
    def storage(self) -> Storage:
        """Return where and how the registry is kept."""

    @abstractmethod
    def contents(self) -> Contents:
        """Return how much is on record; with a million task runs it takes a tenth of a second."""

    @abstractmethod
    def faults(self, *, is_quick: bool, told: Callable[[], object] | None = None) -> list[Fault]:
        """Return what is damaged, or contradicts itself; reads everything.

        Args:
            is_quick: Look for damage only, and not at what the indexes say.
            told: Called many times a second, while it goes on.
        """

    @abstractmethod
    def known_runs(self, ids: Collection[str]) -> set[str]:
        """Return which of these are the ids of flow runs or task runs that are on record."""

    @abstractmethod
    def back_up(self, path: Path, *, told: Callable[[int, int], object]) -> None:
        """Write all that is on record at one moment to a new file, which is for its owner alone.

        Args:
            path: A file that does not exist; where this fails or is interrupted, a part may be there.
            told: Called with how much is written and how much there is, many times a second.

        Raises:
            OutputError: It cannot be written.
        """

    @abstractmethod
    def list_prunable_flow_runs(self, prunable: Prunable) -> list[EndedRun]:
        """Return the flow runs that are not needed, oldest first, each after its subflow runs."""

    @abstractmethod
    def delete_flow_runs(self, flow_run_ids: Sequence[str], deleted: Deleted) -> int:
        """Delete flow runs with all that belongs to them, as far as one short write gets.

        It takes some hundredths of a second. A run with so many task runs that it takes more is deleted
        in several calls, itself in the last. Their subflow runs stay.

        Args:
            flow_run_ids: The runs, in this order.
            deleted: Gets what is off the record, also where this is interrupted.

        Returns:
            How many of the ids, from the first on, are on record no more.
        """

    @abstractmethod
    def forget_lost_results(self) -> None:
        """Forget cache keys that have expired, or whose result was that of a run which is deleted."""

    @abstractmethod
    def give_back_space(self, *, told: Callable[[], object] | None = None) -> None:
        """Make the store as small as it can be; nobody else can write meanwhile.

        Where somebody reads at that moment, the space is given back by who writes later.

        Args:
            told: Called many times a second, while it goes on.

        Raises:
            RegistryFullError: There is no room for what it writes on the way.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the store; safe to call twice."""
