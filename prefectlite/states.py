"""The states of a run, and the table that says which may follow which.

A state is a value: it never changes, and a run moves by taking another one. The table is the only
place that knows the order; the registry asks it before every change. This module must never read
the registry or the settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from prefectlite.clock import now
from prefectlite.errors import CancelledRun, CrashedRun, FailedRun, MissingResult, UnfinishedRun


class StateType(StrEnum):
    """What the engine and the registry decide by; the name of a state refines it for people."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"


#: The names that states have, and what each is to the engine.
STATE_NAMES = {
    **dict.fromkeys(("Scheduled", "Late", "AwaitingRetry", "Resuming"), StateType.SCHEDULED),
    **dict.fromkeys(("Pending", "NotReady"), StateType.PENDING),
    **dict.fromkeys(("Running", "Retrying"), StateType.RUNNING),
    **dict.fromkeys(("Paused", "Suspended"), StateType.PAUSED),
    "Cancelling": StateType.CANCELLING,
    **dict.fromkeys(("Completed", "Cached"), StateType.COMPLETED),
    **dict.fromkeys(("Failed", "TimedOut"), StateType.FAILED),
    "Cancelled": StateType.CANCELLED,
    "Crashed": StateType.CRASHED,
}

#: What nothing may follow.
FINAL = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED},
)
#: What something may still follow.
UNFINISHED = frozenset(StateType) - FINAL

#: What may follow each type. A final one is followed by nothing, whoever asks. RUNNING to
#: CANCELLED is a flow that returned a cancelled state; PENDING to COMPLETED is a cached task; PAUSED to
#: COMPLETED is a flow that was paused from outside and had no task left at which to stop.
TRANSITIONS: dict[StateType, frozenset[StateType]] = {
    StateType.SCHEDULED: frozenset(
        {StateType.PENDING, StateType.RUNNING, StateType.CANCELLED, StateType.CRASHED},
    )
    | {StateType.SCHEDULED, StateType.CANCELLING, StateType.FAILED},
    StateType.PENDING: frozenset(
        {StateType.PENDING, StateType.SCHEDULED, StateType.RUNNING, StateType.CANCELLING},
    )
    | FINAL,
    StateType.RUNNING: frozenset(
        {StateType.SCHEDULED, StateType.PAUSED, StateType.CANCELLING},
    )
    | FINAL,
    StateType.PAUSED: frozenset(
        {StateType.SCHEDULED, StateType.RUNNING, StateType.CANCELLING, StateType.CANCELLED},
    )
    | {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED},
    StateType.CANCELLING: frozenset({StateType.CANCELLED, StateType.COMPLETED}),
    **{final: frozenset() for final in FINAL},
}

_FAILURES = {
    StateType.FAILED: FailedRun,
    StateType.CRASHED: CrashedRun,
    StateType.CANCELLED: CancelledRun,
}


@dataclass(frozen=True, slots=True)
class State:
    """One state of a flow run or task run.

    Attributes:
        type: What it is to the engine.
        name: What it is to a person: ``TimedOut`` and ``Failed`` are both of type FAILED.
        message: Why, in one sentence; None where the name says it all.
        timestamp: When the run took it, aware UTC.
        data: What the run returned or raised, in the process that ran it; never in the registry.
    """

    type: StateType
    name: str
    message: str | None = None
    timestamp: datetime = field(default_factory=now)
    data: object = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name}({self.message!r})" if self.message else f"{self.name}()"

    def is_scheduled(self) -> bool:
        """Return whether it waits for its time: Scheduled, Late, AwaitingRetry, Resuming."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Return whether it waits to be run: Pending, NotReady."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Return whether user code may be executing: Running, Retrying."""
        return self.type is StateType.RUNNING

    def is_paused(self) -> bool:
        """Return whether it waits for a person: Paused, Suspended."""
        return self.type is StateType.PAUSED

    def is_cancelling(self) -> bool:
        """Return whether a cancellation was asked for and is not proven yet."""
        return self.type is StateType.CANCELLING

    def is_completed(self) -> bool:
        """Return whether it ended well: Completed, Cached."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Return whether the user's code failed: Failed, TimedOut."""
        return self.type is StateType.FAILED

    def is_cancelled(self) -> bool:
        """Return whether it was cancelled, and nothing of it runs any more."""
        return self.type is StateType.CANCELLED

    def is_crashed(self) -> bool:
        """Return whether something outside the user's code ended it."""
        return self.type is StateType.CRASHED

    def is_final(self) -> bool:
        """Return whether nothing can follow."""
        return self.type in FINAL

    def result(self, raise_on_failure: bool = True) -> object:  # noqa: FBT001, FBT002 - Prefect 2.8's signature
        """Return what the run returned, or raise what it raised.

        Args:
            raise_on_failure: With False, return the exception of a run that did not complete.

        Raises:
            MissingResult: The run completed elsewhere and its result is not in this process.
            UnfinishedRun: The run is not in a final state.
        """
        if self.type is StateType.COMPLETED:
            if isinstance(self.data, _NotHere):  # by type, since a copy comes from other processes
                raise MissingResult(
                    "the run completed, but its result was not persisted",
                    hint="set persist_result=True on the task or flow",
                )
            return self.data
        error = self._exception()
        if raise_on_failure:
            raise error
        return error

    def _exception(self) -> BaseException:
        if isinstance(self.data, BaseException):
            return self.data
        if isinstance(self.data, State):
            return self.data._exception()  # noqa: SLF001 - the same class
        kind = _FAILURES.get(self.type, UnfinishedRun)
        return kind(self.message or f"the run is {self.name}")


class _NotHere:
    """The data of a state that was read from the registry: there may be a result, elsewhere."""

    def __repr__(self) -> str:
        return "<result not in this process>"


_NOT_HERE = _NotHere()


def recorded_state(type_: StateType, name: str, message: str | None, timestamp: datetime) -> State:
    """Return a state as the registry has it: without the value that the run returned."""
    return State(type_, name, message, timestamp, _NOT_HERE)


def Scheduled(message: str | None = None, *, name: str = "Scheduled") -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run that waits for its time."""
    return State(StateType.SCHEDULED, name, message)


def AwaitingRetry(message: str | None = None) -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run between two attempts."""
    return Scheduled(message, name="AwaitingRetry")


def Pending(message: str | None = None, *, name: str = "Pending") -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run that was accepted and has not started."""
    return State(StateType.PENDING, name, message)


def NotReady(message: str | None = None, *, data: object = None) -> State:  # noqa: N802 - a state's name
    """Return a state for a task run whose upstream did not complete; it never starts."""
    return State(StateType.PENDING, "NotReady", message, data=data)


def Running(message: str | None = None, *, name: str = "Running") -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run whose code may be executing."""
    return State(StateType.RUNNING, name, message)


def Retrying(message: str | None = None) -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a second or later attempt."""
    return Running(message, name="Retrying")


def Paused(message: str | None = None, *, name: str = "Paused") -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run that waits for a person."""
    return State(StateType.PAUSED, name, message)


def Cancelling(message: str | None = None) -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run whose cancellation was asked for."""
    return State(StateType.CANCELLING, "Cancelling", message)


def Completed(message: str | None = None, *, data: object = None, name: str = "Completed") -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run that ended well, with what it returned."""
    return State(StateType.COMPLETED, name, message, data=data)


def Failed(message: str | None = None, *, data: object = None, name: str = "Failed") -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run whose code failed, with the exception."""
    return State(StateType.FAILED, name, message, data=data)


def TimedOut(message: str | None = None, *, data: object = None) -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run that was longer than its ``timeout_seconds``."""
    return Failed(message, data=data, name="TimedOut")


def Cancelled(message: str | None = None, *, data: object = None) -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run that was cancelled."""
    return State(StateType.CANCELLED, "Cancelled", message, data=data)


def Crashed(message: str | None = None, *, data: object = None) -> State:  # noqa: N802 - Prefect 2.8's name
    """Return a state for a run that something outside the user's code ended."""
    return State(StateType.CRASHED, "Crashed", message, data=data)


def may_follow(current: State, proposed: State) -> bool:
    """Return whether a run in ``current`` may take ``proposed``."""
    return proposed.type in TRANSITIONS[current.type]


@dataclass(slots=True)
class Tally:
    """Counts of the states that a flow's final state rests on; its size does not grow with them.

    Attributes:
        total: How many were counted.
        failed: How many Failed or Crashed.
        cancelled: How many were Cancelled.
        unfinished: How many are not final, such as NotReady.
        first_problem: The first that did not complete, which is the one that ``result()`` raises.
    """

    total: int = 0
    failed: int = 0
    cancelled: int = 0
    unfinished: int = 0
    first_problem: State | None = None

    def add(self, state: State) -> None:
        """Count one state."""
        self.total += 1
        if state.type is StateType.COMPLETED:
            return
        if self.first_problem is None:
            self.first_problem = state
        if state.type is StateType.CANCELLED:
            self.cancelled += 1
        elif state.is_final():
            self.failed += 1
        else:
            self.unfinished += 1

    def final_state(self, data: object = None) -> State:
        """Return the final state of a flow that rests on these states (at least one).

        Args:
            data: What the flow returned; where a state did not complete, that state is the data
                instead, so that ``result()`` raises its exception.
        """
        if self.cancelled:
            message = f"{self.cancelled}/{self.total} states cancelled."
            return Cancelled(message, data=self.first_problem)
        if self.failed:
            return Failed(f"{self.failed}/{self.total} states failed.", data=self.first_problem)
        if self.unfinished:
            message = f"{self.unfinished}/{self.total} states are not final."
            return Failed(message, data=self.first_problem)
        return Completed("All states completed.", data=data)
