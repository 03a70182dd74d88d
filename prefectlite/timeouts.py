"""Deadlines, and how they reach the code that is past them.

A deadline that has passed means TimedOut, whatever the code does about it: the clock decides. That
an exception is raised in the code at that moment is only so that it does not go on for nothing. In
the main thread a signal does it; in other threads CPython's asynchronous exceptions do, and
``task_runners`` gives up on a thread that does not listen; on an event loop ``asyncio.timeout`` does.
"""

from __future__ import annotations

import _thread
import math
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from prefectlite.clock import monotonic
from prefectlite.errors import UsageError
from prefectlite.interruptions import (
    RETRY_SECONDS,
    Timer,
    add_source,
    call_at,
    calls_user_code,
    interrupt_thread,
    is_interruptible,
    poke_main_thread,
    prepare_main_thread,
    raise_in_thread,
    retry_main_thread,
)
from prefectlite.latches import wake

R = TypeVar("R")

# User code that catches everything is interrupted again; a ``finally`` needs its seconds.
REPEAT_SECONDS = 5.0


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
    """Return a ``timeout_seconds`` as a float; None, 0 and infinity are no limit (0: as Prefect 2.8).

    Raises:
        UsageError: It is negative or not a number.
    """
    given: object = seconds
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0:
        raise UsageError(f"timeout_seconds={given!r} is not a number of seconds of at least 0")
    return float(given) if 0 < given < math.inf else None


class Armed:
    """A deadline that the main thread is to be told of until it is disarmed.

    Args:
        deadline: The deadline; the outermost one that has passed is raised first.
        is_inside: Whether the code that a signal has interrupted belongs to the deadline's run. On
            an event loop it may be another run's.
        delay_seconds: How long after the deadline to raise.
    """

    __slots__ = ("_is_inside", "_timer", "deadline", "next_at")

    def __init__(
        self, deadline: Deadline, is_inside: Callable[[], bool], *, delay_seconds: float = 0.0
    ) -> None:
        self.deadline = deadline
        self.next_at = deadline.at + delay_seconds
        self._is_inside = is_inside
        prepare_main_thread()
        self._timer: Timer = call_at(self.next_at, poke_main_thread)
        _armed.append(self)

    def disarm(self) -> None:
        """Raise no more."""
        self._timer.cancel()
        if self in _armed:
            _armed.remove(self)

    def postpone(self) -> None:
        """Leave the code a repeat's time from now: something else has told it."""
        self._timer.cancel()
        self.next_at = monotonic() + REPEAT_SECONDS
        self._timer = call_at(self.next_at, poke_main_thread)

    def interruption(self, frame: FrameType | None) -> TimeoutInterrupt | None:
        """Return what to raise at the interrupted ``frame``; None where it is not to be hit."""
        if not self._is_inside() or not is_interruptible(frame):
            return None
        self.postpone()
        return TimeoutInterrupt(self.deadline)


_armed: list[Armed] = []


def _due_interruption(frame: FrameType | None) -> BaseException | None:
    moment = monotonic()
    is_due = False
    for armed in _armed:
        if armed.next_at <= moment:
            is_due = True
            interruption = armed.interruption(frame)
            if interruption is not None:
                return interruption
    if is_due:
        retry_main_thread()
    return None


add_source(_due_interruption)


class InterruptibleThread:
    """The thread that makes it, open to an exception from others until it is disarmed.

    Args:
        kind: The exception.
        is_inside: Whether the code that the thread executes is what the exception is for.

    Attributes:
        is_open: Whether it is not disarmed.
    """

    def __init__(
        self,
        kind: type[BaseException] = TimeoutInterrupt,
        is_inside: Callable[[], bool] = lambda: True,
    ) -> None:
        self._kind = kind
        self._is_inside = is_inside
        self._ident = threading.get_ident()
        self._lock = _thread.allocate_lock()
        self.is_open = True
        self._is_interrupted = False
        self._timer: Timer | None = None

    def interrupt(self) -> bool:
        """Interrupt it now; return whether that hits user code, or a wait."""
        with self._lock:
            if not self.is_open:
                return False
            self._is_interrupted |= (
                has_hit := interrupt_thread(self._ident, self._kind, self._is_inside)
            )
        if has_hit:
            wake(self._ident)  # who waits for the end of a pause does not look up by himself
        return has_hit

    def interrupt_at(self, at: float) -> None:
        """Interrupt it at a time of ``clock.monotonic``, and again as long as it goes on."""
        timer, self._timer = self._timer, call_at(at, self._interrupt_again_and_again)
        if timer is not None:
            timer.cancel()

    def postpone(self) -> None:
        """Leave the code a repeat's time from now: something else has told it."""
        self.interrupt_at(monotonic() + REPEAT_SECONDS)

    def disarm(self) -> None:
        """Let nothing more arrive. To be called in the thread itself."""
        with self._lock:
            self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._is_interrupted:
            raise_in_thread(self._ident, None)

    def _interrupt_again_and_again(self) -> None:
        has_hit = self.interrupt()
        if self.is_open:
            self.interrupt_at(monotonic() + (REPEAT_SECONDS if has_hit else RETRY_SECONDS))


@calls_user_code
def call_in_main_thread(
    deadline: Deadline, is_inside: Callable[[], bool], function: Callable[[], R]
) -> R:
    """Call user code in the main thread, and raise ``TimeoutInterrupt`` in it at the deadline."""
    armed = Armed(deadline, is_inside)
    try:
        return function()
    finally:
        armed.disarm()


@calls_user_code
def call_in_thread(at: float, function: Callable[[], R]) -> R:
    """Call user code in another thread, and raise ``TimeoutInterrupt`` in it at a time."""
    thread = InterruptibleThread()
    thread.interrupt_at(at)
    try:
        return function()
    finally:
        thread.disarm()


@calls_user_code
async def call_on_loop(
    deadline: Deadline,
    armed: Armed | InterruptibleThread | None,
    function: Callable[[], Awaitable[R]],
) -> R:
    """Await user code, and cancel it at the deadline, and again as long as it goes on.

    Args:
        armed: What interrupts the code where it does not let the loop cancel it. It is disarmed.

    Raises:
        TimeoutInterrupt: It was cancelled.
    """
    import asyncio

    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    scope = asyncio.timeout(None)
    timer: asyncio.TimerHandle | None = None

    def cancel() -> None:
        nonlocal timer
        if armed is not None:
            armed.postpone()
        if scope.expired() and this is not None:
            this.uncancel()  # the code did not heed it; the scope must find no more than one
            this.cancel()
        else:
            scope.reschedule(loop.time())
        timer = loop.call_later(REPEAT_SECONDS, cancel)

    timer = loop.call_later(deadline.remaining(), cancel)
    try:
        async with scope:
            return await function()
    except TimeoutError as error:
        if scope.expired():
            raise TimeoutInterrupt(deadline) from error
        raise
    finally:
        timer.cancel()
        if armed is not None:
            armed.disarm()
