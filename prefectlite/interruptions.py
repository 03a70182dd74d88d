"""End user code from outside, and only user code.

A deadline, Ctrl-C or SIGTERM must reach the code of a flow at once, but never the middle of a
registry write. So an interruption is raised only where the stack shows user code: the innermost
frame of prefectlite must be one that calls user code, or one that waits. Elsewhere it is tried again
a few milliseconds later.

Timers run on one daemon thread that is started at the first use. Nothing here takes a lock that a
signal handler could find held.
"""

from __future__ import annotations

import _thread
import heapq
import os
import signal
import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import CodeType, FrameType
from typing import TypeVar

from prefectlite.clock import monotonic

F = TypeVar("F", bound=Callable[..., object])

#: Asks the main thread to look for due interruptions. Its default action is to be ignored, and
#: nearly no program uses it, which is why Go's runtime chose it for the same purpose.
_POKE = signal.SIGURG
_RETRY_SECONDS = 0.005

_CALLS: set[CodeType] = set()
_WAITS: set[CodeType] = set()


def calls_user_code(function: F) -> F:
    """Mark a function that calls user code: what runs above its frame may be interrupted."""
    _CALLS.add(function.__code__)
    return function


def waits(function: F) -> F:
    """Mark a function that only waits, and may itself be interrupted anywhere."""
    _WAITS.add(function.__code__)
    return function


def is_interruptible(frame: FrameType | None, *, owner: FrameType | None = None) -> bool:
    """Return whether an exception raised at ``frame`` would hit user code, or a wait.

    Args:
        frame: The frame that a signal interrupted.
        owner: Only if this frame is among the callers of ``frame``.
    """
    innermost = frame
    while frame is not None:
        module: str = frame.f_globals.get("__name__", "")
        if module == "logging":  # holds locks that logging's own code would not give back
            return False
        if module.startswith("prefectlite.") and not module.startswith("prefectlite.examples"):
            called = frame.f_code in _CALLS and frame is not innermost
            if not called and frame.f_code not in _WAITS:
                return False
            break
        frame = frame.f_back
    while owner is not None and frame is not owner:
        if frame is None:
            return False
        frame = frame.f_back
    return True


class AbandonedError(BaseException):
    """The thread that made a call was given up on: another one goes on in its place."""


class ClosedByCallerError(BaseException):
    """The caller of a generator closed it before its end."""


class WorkerDiedError(BaseException):
    """The process that was making a call died; the message says how."""


class Timer:
    """A call that is due at a time; made by ``call_at``."""

    __slots__ = ("_callback", "at")

    def __init__(self, at: float, callback: Callable[[], object]) -> None:
        self.at = at
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Forget the call, where it has not begun. Safe to call twice."""
        self._callback = None

    def fire(self) -> None:
        """Make the call, unless it was cancelled."""
        callback = self._callback
        if callback is not None:
            callback()

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at


def call_at(at: float, callback: Callable[[], object]) -> Timer:
    """Call ``callback`` on the timer thread at a time of ``clock.monotonic``.

    The callback must be quick and must not raise. Safe to call from a signal handler.
    """
    timer = Timer(at, callback)
    _timers.add(timer)
    return timer


class _Timers:
    """The timer thread, and the queue that feeds it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        # SimpleQueue.put is reentrant (its documentation says so), hence right in a signal handler.
        self._arrivals: SimpleQueue[Timer] = SimpleQueue()
        self._starting = _thread.allocate_lock()

    def add(self, timer: Timer) -> None:
        self._arrivals.put(timer)
        if self._starting.acquire(blocking=False):
            # threading.Thread.start would take locks that the interrupted code may hold.
            _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        arrivals = self._arrivals
        due: list[Timer] = []
        while True:
            try:
                timeout = max(0.0, due[0].at - monotonic()) if due else None
                heapq.heappush(due, arrivals.get(timeout=timeout))
            except Empty:
                heapq.heappop(due).fire()


_timers = _Timers()


class TerminationSignal(SystemExit):
    """SIGTERM arrived; on its way through user code. Unhandled, the process exits with 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class _Main:
    """What is to be raised in the main thread, and the handlers that do it."""

    def __init__(self) -> None:
        self.sources: list[Callable[[FrameType | None], BaseException | None]] = []
        self.received: BaseException | None = None
        self.cancel: Callable[[], None] | None = None
        self.installed = False

    def install(self) -> None:
        # Never taken back: a late poke must find a handler.
        if not self.installed:
            signal.signal(_POKE, self.on_poke)
            self.installed = True

    def on_poke(self, _number: int, frame: FrameType | None) -> None:
        received = self.received
        if received is not None:
            if not is_interruptible(frame):
                retry_main_thread()
                return
            self.received = None
            raise received
        for source in self.sources:
            error = source(frame)
            if error is not None:
                raise error

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._receive(KeyboardInterrupt(), number, frame)

    def on_terminate(self, number: int, frame: FrameType | None) -> None:
        self._receive(TerminationSignal(), number, frame)

    def _receive(self, error: BaseException, number: int, frame: FrameType | None) -> None:
        self.received = error
        if self.cancel is not None:
            self.cancel()
        else:
            self.on_poke(number, frame)


_main = _Main()


def add_source(source: Callable[[FrameType | None], BaseException | None]) -> None:
    """Ask ``source`` for an exception to raise each time that the main thread is poked.

    It gets the interrupted frame, and returns None where nothing is due or the frame does not
    suit; it must not block, lock or raise.
    """
    _main.sources.append(source)


def prepare_main_thread() -> None:
    """Make the main thread listen; to be called there, before anything is due."""
    _main.install()


def poke_main_thread() -> None:
    """Have the main thread look for what is due, now."""
    signal.pthread_kill(threading.main_thread().ident or 0, _POKE)


def retry_main_thread() -> None:
    """Poke the main thread again in a few milliseconds: it was not in user code."""
    call_at(monotonic() + _RETRY_SECONDS, poke_main_thread)


def in_main_thread() -> bool:
    """Return whether the caller is on the main thread, the only one that signals reach."""
    return threading.current_thread() is threading.main_thread()


class Signals:
    """While it is entered, Ctrl-C and SIGTERM end user code instead of whatever runs.

    Args:
        cancel: For a flow on an event loop: called instead of raising, and ``received`` then says
            why. Without it the exception is raised in user code.

    Handlers that the program has set itself are left alone. Outside the main thread, and inside
    another one of these, it does nothing.
    """

    def __init__(self, cancel: Callable[[], None] | None = None) -> None:
        self._cancel = cancel
        self._previous: list[tuple[signal.Signals, object]] = []

    @property
    def received(self) -> BaseException | None:
        """What ``cancel`` was called for; None where it was not."""
        return _main.received

    def __enter__(self) -> Signals:
        if not in_main_thread():
            return self
        if self._cancel is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._replace(signal.SIGINT, _main.on_interrupt)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._replace(signal.SIGTERM, _main.on_terminate)
            _main.cancel = self._cancel
        if self._previous:
            _main.install()
        return self

    def _replace(self, number: signal.Signals, handler: Callable[..., None]) -> None:
        self._previous.append((number, signal.getsignal(number)))
        signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous:
            signal.signal(number, previous)  # type: ignore[arg-type] # what getsignal returned
        if self._previous:
            _main.received = None
            _main.cancel = None


def raise_in_thread(ident: int, kind: type[BaseException] | None) -> None:
    """Raise ``kind`` in another thread at its next bytecode; None takes back what is pending.

    A thread inside one long C call sees it when that returns.
    """
    import ctypes

    exception = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), exception)


def frame_of_thread(ident: int) -> FrameType | None:
    """Return the frame that a thread is executing; None where it has ended."""
    return sys._current_frames().get(ident)  # noqa: SLF001 - documented in sys, for this purpose


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_timers.reset)
