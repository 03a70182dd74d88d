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
from prefectlite.daemon_threads import start_daemon_thread
from prefectlite.watches import ENDING, Watch

F = TypeVar("F", bound=Callable[..., object])

#: Asks the main thread to look for due interruptions. Its default action is to be ignored, and
#: nearly no program uses it, which is why Go's runtime chose it for the same purpose.
_POKE = signal.SIGURG
#: How soon to try again where an interruption would not have hit user code.
RETRY_SECONDS = 0.005
# How soon, at first and at last, the main thread is poked again if it has not answered.
_FIRST_ANSWER_SECONDS = 0.02
_LAST_ANSWER_SECONDS = 1.0
# How often a thread that waits looks up: an exception for it does not wake it.
_SLICE_SECONDS = 0.05
# Nor the main thread, by a signal that came just before it began to wait: its handler runs after it.
_MAIN_SLICE_SECONDS = 0.5
# Locks and queues refuse to wait for centuries.
_LONGEST_WAIT_SECONDS = 1e6
# A flow on an event loop is cancelled; the exception is for code that blocks the loop.
LOOP_GRACE_SECONDS = 0.1

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


def is_interruptible(frame: FrameType | None) -> bool:
    """Return whether an exception raised at ``frame`` would hit user code, or a wait."""
    innermost = frame
    if frame is not None and _module(frame).startswith("asyncio."):
        return False  # the loop could lose a callback that it has just taken from its queue
    while frame is not None:
        module = _module(frame)
        if module == "logging":  # holds locks that logging's own code would not give back
            return False
        if module.startswith("prefectlite.") and not module.startswith("prefectlite.examples"):
            called = frame.f_code in _CALLS and frame is not innermost
            return called or frame.f_code in _WAITS
        frame = frame.f_back
    return True


def _module(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name


class AbandonedError(BaseException):
    """The thread that made a call was given up on: another one goes on in its place."""


class ClosedByCallerError(BaseException):
    """The caller of a generator closed it before its end."""


class WorkerDiedError(BaseException):
    """The process that was making a call died; the message says how."""


class CancelInterrupt(BaseException):
    """The run is being cancelled; on its way through user code."""

    def __init__(self) -> None:
        super().__init__("the flow run is being cancelled")


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
            try:
                start_daemon_thread(self._run)
            except RuntimeError:  # no thread is to be had: the next timer tries again
                self._starting.release()
                raise

    def _run(self) -> None:
        arrivals = self._arrivals
        due: list[Timer] = []
        while True:
            try:
                timeout = min(due[0].at - monotonic(), _LONGEST_WAIT_SECONDS) if due else None
                heapq.heappush(due, arrivals.get(timeout=timeout and max(0.0, timeout)))
            except Empty:
                if due[0].at <= monotonic():
                    _fire(heapq.heappop(due))


def _fire(timer: Timer) -> None:
    try:
        timer.fire()
    except Exception as error:  # noqa: BLE001 - else no other deadline would ever be met
        sys.excepthook(type(error), error, error.__traceback__)


_timers = _Timers()


class TerminationSignal(SystemExit):
    """SIGTERM arrived; on its way through user code. Unhandled, the process exits with 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class _Main:
    """What is to be raised in the main thread, and the handlers that do it."""

    def __init__(self) -> None:
        self.sources: list[Callable[[FrameType | None], BaseException | None]] = []
        self.installed = False
        self.is_poked = False
        self.entered: list[Signals] = []
        # Why the flows are to end; it is pending until it was raised, or was given to the loop.
        self.received: BaseException | None = None
        self.pending: tuple[BaseException, signal.Signals, float] | None = None
        self.is_ending: Callable[[], bool] = lambda: False

    def install(self) -> None:
        # Never taken back: a late poke must find a handler.
        if not self.installed:
            signal.signal(_POKE, self.on_poke)
            self.installed = True

    def on_poke(self, _number: int, frame: FrameType | None) -> None:
        self.is_poked = False
        watch.stir()  # it may be another process, that has changed something on record
        if self.pending is not None:
            error, _, at = self.pending
            if at <= monotonic() and is_interruptible(frame):
                self.pending = None
                raise error
            retry_main_thread()
            return
        for source in self.sources:
            interruption = source(frame)
            if interruption is not None:
                raise interruption

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        which = signal.Signals(number)
        if which is signal.SIGTERM and self.is_ending():
            return  # the code is ending already; its finally must not be interrupted
        error = TerminationSignal() if which is signal.SIGTERM else KeyboardInterrupt()
        cancels = [signals.cancel for signals in self.entered if signals.cancel is not None]
        is_blocking = not cancels or len(cancels) < len(self.entered)
        delay = 0.0 if is_blocking else LOOP_GRACE_SECONDS
        self.received = error
        self.pending = error, which, monotonic() + delay
        for cancel in cancels:
            cancel()
        self.on_poke(number, frame)

    def before_fork(self) -> None:
        """Hold signals back: what reaches the child must find the child's own handlers."""
        if self.entered:
            _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    def after_fork(self) -> None:
        """Let signals through again."""
        mask, _forking.mask = getattr(_forking, "mask", None), None
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def after_fork_in_child(self) -> None:
        """Leave signals to the child as they were before the flows of its parent.

        A handler in Python runs only once the main thread is back from C. A worker of
        multiprocessing that is about to wait for its next item would miss the SIGTERM that its pool
        ends it with, and be waited for in vain.
        """
        entered, self.entered = self.entered, []
        self.pending = self.received = None
        watch.forget()
        for signals in entered:
            signals.put_back()
        self.after_fork()


_forking = threading.local()
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


def can_be_woken() -> bool:
    """Return whether another process's poke makes the watch thread look at once."""
    return _main.installed


def is_terminating() -> bool:
    """Return whether a signal has ended the flow's code, or is about to."""
    return _main.received is not None


def has_terminated() -> bool:
    """Return whether a signal has ended the flow's code: what that does since is to clean up."""
    return _main.received is not None and _main.pending is None


def ignore_termination_while(is_ending: Callable[[], bool]) -> None:
    """Leave SIGTERM without effect while a flow ends because it is being cancelled.

    Args:
        is_ending: Asked when one comes, in its handler; it must not block, lock or raise.
    """
    _main.is_ending = is_ending


def forget_termination() -> None:
    """Take back a SIGTERM that nothing has been interrupted by yet: it was for a flow that has ended.

    Nothing tells a handler in Python who sent a signal. So one that the whole program was sent, by
    systemd, say, is lost where it comes between the last step of a cancelled flow's own code and its end
    on record: a few milliseconds, and the tenth of a second before that of a flow on an event loop. Its
    sender has to send it again. Only where no other flow goes on in the process, and never Ctrl-C.
    """
    if _main.pending is not None and _main.pending[1] is signal.SIGTERM:
        _main.pending = _main.received = None


def poke_main_thread() -> None:
    """Have the main thread look for what is due, now."""
    _main.is_poked = True
    _send_poke(_FIRST_ANSWER_SECONDS)


def _send_poke(delay: float) -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, _POKE)
    call_at(monotonic() + delay, lambda: _poke_again(delay))


def _poke_again(delay: float) -> None:
    # A signal that arrives just before a blocking system call does not interrupt that: CPython
    # notes it, and runs the handler when the call returns, which may be in an hour.
    if _main.is_poked:
        _send_poke(min(delay * 2, _LAST_ANSWER_SECONDS))


def retry_main_thread() -> None:
    """Poke the main thread again in a few milliseconds: it was not in user code."""
    call_at(monotonic() + RETRY_SECONDS, poke_main_thread)


watch = Watch(retry_main_thread)


def in_main_thread() -> bool:
    """Return whether the caller is on the main thread, the only one that signals reach."""
    return threading.current_thread() is threading.main_thread()


class Signals:
    """While it is entered, Ctrl-C and SIGTERM end user code instead of whatever runs.

    Args:
        cancel: For a flow on an event loop: called in the signal handler instead of raising, to
            cancel the flow and then call ``settle``. Without it, and where the loop is blocked,
            the exception is raised in user code.

    Handlers that the program has set itself are left alone. Outside the main thread it does
    nothing. A signal that no flow has taken is handled again as if it had come afterwards.
    """

    def __init__(self, cancel: Callable[[], object] | None = None) -> None:
        self.cancel = cancel
        self._previous: list[tuple[signal.Signals, object]] = []

    @property
    def received(self) -> BaseException | None:
        """What ``cancel`` was called for; None where it was not."""
        return _main.received

    def settle(self) -> None:
        """Note that the loop has the cancellation: nothing need be raised."""
        _main.pending = None

    def __enter__(self) -> Signals:
        if not in_main_thread():
            return self
        _main.install()
        _main.entered.append(self)
        for number in ENDING:
            handler = signal.getsignal(number)
            if _is_default(number, handler):
                self._previous.append((number, handler))
                signal.signal(number, _main.on_signal)
        if self._previous:
            watch.begin()
        return self

    def __exit__(self, *_: object) -> None:
        if self not in _main.entered:
            return
        _main.entered.remove(self)
        if _main.entered:  # another flow on the same loop; the last one out puts things back
            _main.entered[0].inherit(self)
            return
        pending, _main.pending, _main.received = _main.pending, None, None
        self.put_back()
        if pending is not None:
            signal.raise_signal(pending[1])

    def put_back(self) -> None:
        """Set the handlers that were there before, where ours are still set."""
        for number, previous in self._previous:
            if signal.getsignal(number) == _main.on_signal:
                signal.signal(number, previous)  # type: ignore[arg-type] # what getsignal returned
        watch.end()

    def inherit(self, other: Signals) -> None:
        """Put back in time what ``other`` has replaced."""
        self._previous += other._previous


def _is_default(number: signal.Signals, handler: object) -> bool:
    """Return whether a handler is Python's own, or that of ``asyncio.run``."""
    if number is signal.SIGTERM:
        return handler is signal.SIG_DFL
    if handler is signal.default_int_handler:
        return True
    function = getattr(handler, "func", None)  # asyncio.Runner uses a functools.partial
    return getattr(function, "__qualname__", "") == "Runner._on_sigint"


@waits
def acquire(
    lock: _thread.LockType, timeout: float | None = None, *, slice_seconds: float | None = None
) -> bool:
    """Acquire a lock, within ``timeout`` seconds, where any thread can be interrupted.

    Args:
        slice_seconds: How often to look up for an interruption; None for often enough that nobody
            notices.
    """
    until = None if timeout is None else monotonic() + timeout
    longest = slice_seconds or (_MAIN_SLICE_SECONDS if in_main_thread() else _SLICE_SECONDS)
    while True:
        remaining = longest if until is None else max(0.0, until - monotonic())
        if lock.acquire(timeout=min(remaining, longest)):
            return True
        if remaining <= longest and until is not None:
            return False


def sleep(seconds: float) -> None:
    """Sleep, where any thread can be interrupted."""
    lock = _thread.allocate_lock()
    lock.acquire()
    acquire(lock, seconds)


def interrupt_thread(
    ident: int, kind: type[BaseException], is_inside: Callable[[], bool] = lambda: True
) -> bool:
    """Raise ``kind`` in another thread if that hits user code or a wait; return whether it does.

    A thread inside one long C call sees it when that returns.

    Args:
        is_inside: Whether that is the code which the exception is for; asked as late as can be.
    """
    import ctypes  # noqa: F401 - now, for its import would let the other thread run on

    frame = frame_of_thread(ident)
    if frame is None or not is_inside() or not is_interruptible(frame):
        return False
    at = frame.f_lasti
    raise_in_thread(ident, kind)
    # This thread is hardly ever made to give up the GIL in so few steps. Where it was, the other
    # one may be anywhere by now: taken back, and tried again with the next repeat.
    if frame_of_thread(ident) is not frame or frame.f_lasti != at:
        raise_in_thread(ident, None)
    return True


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
    os.register_at_fork(
        before=_main.before_fork,
        after_in_parent=_main.after_fork,
        after_in_child=_main.after_fork_in_child,
    )
