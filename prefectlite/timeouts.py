"""Deadlines, and how they reach the code that is past them.

A deadline that has passed means TimedOut, whatever the code does about it: the clock decides. That
an exception is raised in the code at that moment is only so that it does not go on for nothing. In
the main thread a signal does it; in other threads CPython's asynchronous exceptions do, and
``task_runners`` gives up on a thread that does not listen; on an event loop ``asyncio.timeout`` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from prefectlite.clock import monotonic
from prefectlite.errors import UsageError
from prefectlite.interruptions import (
    Timer,
    add_source,
    call_at,
    calls_user_code,
    is_interruptible,
    poke_main_thread,
    prepare_main_thread,
    retry_main_thread,
)

R = TypeVar("R")

# User code that catches everything is interrupted again; a ``finally`` needs its seconds.
REPEAT_SECONDS = 5.0
# On an event loop, asyncio's own timeout comes first; the signal is for code that blocks the loop.
LOOP_GRACE_SECONDS = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Deadline:
    """A moment by which a run must have ended.

    Attributes:
        noun: Whose it is: ``Flow run`` or ``Task run``.
        seconds: The limit, as it was given.
        at: The moment, by ``clock.monotonic``.
    """

    noun: str
    seconds: float
    at: float

    @classmethod
    def start(cls, noun: str, seconds: float) -> Deadline:
        """Return the deadline of a run that starts now."""
        return cls(noun, seconds, monotonic() + seconds)

    def has_passed(self) -> bool:
        """Return whether the run is over its time."""
        return monotonic() >= self.at

    def remaining(self) -> float:
        """Return the seconds left, at least 0."""
        return max(0.0, self.at - monotonic())

    @property
    def message(self) -> str:
        """What the run's state says once the deadline has passed."""
        return f"{self.noun} exceeded timeout of {self.seconds} seconds"


class TimeoutInterrupt(BaseException):
    """A deadline passed; on its way through user code, which must not take it for an error.

    Attributes:
        deadline: Whose; None where it was raised in a thread, by its type alone.
    """

    def __init__(self, deadline: Deadline | None = None) -> None:
        super().__init__(deadline.message if deadline else "exceeded its timeout")
        self.deadline = deadline

    def __reduce__(self) -> tuple[type[TimeoutInterrupt], tuple[()]]:
        return type(self), ()


def checked_timeout(seconds: float | None) -> float | None:
    """Return a ``timeout_seconds`` as a float; None and 0 are no limit (Prefect 2.8 behaviour).

    Raises:
        UsageError: It is negative or not a number.
    """
    if not seconds:
        return None
    given: object = seconds
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise UsageError(f"timeout_seconds={seconds!r} is not a number of seconds above 0")
    return float(seconds)


class Armed:
    """A deadline that the main thread is to be told of, while the frame that made it is active.

    Args:
        deadline: The deadline; the outermost one that has passed is raised first.
        delay_seconds: How long after the deadline, and after each repeat, to raise.
    """

    __slots__ = ("_owner", "_timer", "deadline", "next_at")

    def __init__(self, deadline: Deadline, *, delay_seconds: float = 0.0) -> None:
        self.deadline = deadline
        self.next_at = deadline.at + delay_seconds
        self._owner: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented in sys
        prepare_main_thread()
        self._timer: Timer = call_at(self.next_at, poke_main_thread)
        _armed.append(self)

    def disarm(self) -> None:
        """Raise no more. To be called by the frame that made it, however it ends."""
        self._timer.cancel()
        if self in _armed:
            _armed.remove(self)
        self._owner = None

    def interruption(self, frame: FrameType | None) -> TimeoutInterrupt | None:
        """Return what to raise at the interrupted ``frame``; None where it is not to be hit."""
        if self._owner is None or not is_interruptible(frame, owner=self._owner):
            retry_main_thread()
            return None
        self.next_at = monotonic() + REPEAT_SECONDS
        self._timer = call_at(self.next_at, poke_main_thread)
        return TimeoutInterrupt(self.deadline)


_armed: list[Armed] = []


def _due_interruption(frame: FrameType | None) -> BaseException | None:
    moment = monotonic()
    for armed in _armed:
        if armed.next_at <= moment:
            return armed.interruption(frame)
    return None


add_source(_due_interruption)


@calls_user_code
def call_in_main_thread(deadline: Deadline, function: Callable[[], R]) -> R:
    """Call user code in the main thread, and raise ``TimeoutInterrupt`` in it at the deadline."""
    armed = Armed(deadline)
    try:
        return function()
    finally:
        armed.disarm()
