"""What the registry holds of notifications, as frozen values; see ``records``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from prefectlite.clock import now
from prefectlite.records import FlowRun, ProcessIdentity, iso_text


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRule:
    """Which changes of flow runs are told, and by which block.

    Attributes:
        states: Names of states; one that is a type, too, means that. Empty for all.
        tags: A run must have one of them; empty for any run.
        flow_names: A run must be of one of these flows; empty for any.
        block: As ``type/name``.
        template: The text, with fields of ``notification_texts``; None for the usual one.
        is_active: Whether changes are noted now; what was noted before is delivered all the same.
        delivered_count: How many notifications were delivered.
        delivered_at: When the last of them was; None before the first.
        waiting_count: How many are still to be delivered.
        failed_count: How many were given up.
        problem: What was last in the way of one that was not delivered; None where nothing was.
    """

    id: str
    states: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    flow_names: tuple[str, ...] = ()
    block: str
    template: str | None = None
    is_active: bool = True
    created_at: datetime = field(default_factory=now)
    delivered_count: int = 0
    delivered_at: datetime | None = None
    waiting_count: int = 0
    failed_count: int = 0
    problem: str | None = None

    def dict(self) -> dict[str, object]:
        """Return the rule as JSON can hold it; times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "states": [*self.states],
            "tags": [*self.tags],
            "flow_names": [*self.flow_names],
            "block": self.block,
            "template": self.template,
            "is_active": self.is_active,
            "created_at": iso_text(self.created_at),
            "delivered_count": self.delivered_count,
            "delivered_at": iso_text(self.delivered_at),
            "waiting_count": self.waiting_count,
            "failed_count": self.failed_count,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """A change of a flow run that is not told yet.

    Attributes:
        position: Orders the notifications of the registry; no two have the same.
        rule_id: The rule that it was noted for.
        block: The rule's.
        template: The rule's.
        flow_run: The run with the state that it then took; all else is as it is now.
        attempts: How often a courier has taken it to deliver it.
        due_at: When that is next, or when whoever has taken it is late; None where it was given up.
        courier: The process that has taken it; None where none has.
        problem: What was in the way the last time; None where nothing was.
    """

    position: int
    rule_id: str
    block: str
    template: str | None
    flow_run: FlowRun
    attempts: int
    due_at: datetime | None
    courier: ProcessIdentity | None
    problem: str | None

    def dict(self) -> dict[str, object]:
        """Return the notification as JSON can hold it."""
        run = self.flow_run.dict()
        return {
            "flow_run_id": self.flow_run.id,
            "flow_run_name": self.flow_run.name,
            "flow_name": self.flow_run.flow_name,
            "state": run["state"],
            "attempts": self.attempts,
            "due_at": iso_text(self.due_at),
            "is_being_sent": self.courier is not None,
            "problem": self.problem,
        }
