"""A call of user code in a worker thread, which others may interrupt or give up on.

Threads cannot be killed. At its deadline a call is interrupted, with an exception that the thread
sees at its next bytecode; where it does not come back soon (one long C call, ``time.sleep``), its
thread is abandoned: the owner goes on without it. It can still do harm to what it shares with
others until it returns, but it cannot start a task, and nothing it returns counts.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

from prefectlite.clock import monotonic
from prefectlite.drivers import Call
from prefectlite.interruptions import (
    AbandonedError,
    Timer,
    call_at,
    frame_of_thread,
    is_interruptible,
    raise_in_thread,
)
from prefectlite.logs import logger_of
from prefectlite.timeouts import REPEAT_SECONDS, TimeoutInterrupt

# What a thread that was interrupted may take to unwind before it is given up on.
UNWIND_SECONDS = 0.2
# How soon to look again at a thread that was in the middle of one of our own functions.
_RETRY_SECONDS = 0.005


class ThreadCall:
    """One call; it comes back with an outcome, or it is abandoned, never both.

    Args:
        call: What to call.
        on_abandoned: Called once, on the timer thread, when the call is abandoned.
    """

    def __init__(self, call: Call, on_abandoned: Callable[[], None]) -> None:
        self._call = call
        self._on_abandoned = on_abandoned
        self._ident = threading.get_ident()
        self._lock = _thread.allocate_lock()
        self._is_inside = True
        self._is_interrupted = False
        self._is_abandoned = False
        self._timers: list[Timer] = []

    def run(self, function: Callable[[Call], object]) -> object:
        """Make the call in this thread, the one that made the object.

        Raises:
            AbandonedError: Meanwhile the call was given up on; its outcome must not be used.
        """
        deadline = self._call.deadline
        if deadline is not None:
            self.end_at(deadline.at)
        try:
            return function(self._call)
        finally:
            self._leave()

    def end_at(self, at: float) -> None:
        """Interrupt the call at a time of ``clock.monotonic``, and abandon it soon after."""
        self._timers.append(call_at(at, self._interrupt))
        self._timers.append(call_at(at + UNWIND_SECONDS, self._abandon))

    def _leave(self) -> None:
        with self._lock:
            self._is_inside = False
            is_abandoned = self._is_abandoned
        for timer in self._timers:
            timer.cancel()
        if self._is_interrupted:
            raise_in_thread(self._ident, None)
        if is_abandoned:
            raise AbandonedError

    def _interrupt(self) -> None:
        with self._lock:
            if not self._is_inside:
                return
            # Checked and raised while this thread has the GIL: the other one sees the exception
            # at the next bytecode of the very frame that was looked at.
            if is_interruptible(frame_of_thread(self._ident)):
                self._is_interrupted = True
                raise_in_thread(self._ident, TimeoutInterrupt)
                delay = REPEAT_SECONDS
            else:
                delay = _RETRY_SECONDS
        self._timers.append(call_at(monotonic() + delay, self._interrupt))

    def _abandon(self) -> None:
        with self._lock:
            if not self._is_inside or self._is_abandoned:
                return
            self._is_abandoned = True
        context = self._call.context
        context.has_ended = True
        logger_of(context).warning(
            "The thread did not stop at its timeout; the run goes on without it. It hangs at %s",
            _place(self._ident),
        )
        self._on_abandoned()


def _place(ident: int) -> str:
    """Return where a thread's user code is, as ``file, line N, in function``."""
    frame = frame_of_thread(ident)
    if frame is None:
        return "its end"
    code = frame.f_code
    return f'File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}'
