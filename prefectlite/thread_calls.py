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

from prefectlite.drivers import Call
from prefectlite.interruptions import AbandonedError, Timer, call_at, frame_of_thread
from prefectlite.timeouts import InterruptibleThread

# What a thread that was interrupted may take to unwind before it is given up on.
UNWIND_SECONDS = 0.2


class ThreadCall:
    """One call; it comes back with an outcome, or it is abandoned, never both.

    Args:
        call: What to call.
        on_abandoned: Called once, on the timer thread, when the call is abandoned, with a text
            that says where its thread hangs. It must be quick.
    """

    def __init__(self, call: Call, on_abandoned: Callable[[str], None]) -> None:
        self._call = call
        self._on_abandoned = on_abandoned
        self._ident = threading.get_ident()
        self._lock = _thread.allocate_lock()
        self._is_inside = True
        self._is_abandoned = False
        self._thread = InterruptibleThread()
        self._timers: list[Timer] = []

    def run(self, function: Callable[[Call], object]) -> object:
        """Make the call in this thread, the one that made the object.

        Raises:
            AbandonedError: Meanwhile the call was given up on; its outcome must not be used.
        """
        deadline = self._call.deadline
        if deadline is not None:  # at which the call interrupts itself
            self._abandon_at(deadline.at + UNWIND_SECONDS)
        try:
            return function(self._call)
        finally:
            self._leave()

    def end_at(self, at: float) -> None:
        """Interrupt the call at a time of ``clock.monotonic``, and abandon it soon after."""
        self._thread.interrupt_at(at)
        self._abandon_at(at + UNWIND_SECONDS)

    def _abandon_at(self, at: float) -> None:
        self._timers.append(call_at(at, self._abandon))

    def _leave(self) -> None:
        self._thread.disarm()
        with self._lock:
            self._is_inside = False
            is_abandoned = self._is_abandoned
        for timer in self._timers:
            timer.cancel()
        if is_abandoned:
            raise AbandonedError

    def _abandon(self) -> None:
        with self._lock:
            if not self._is_inside or self._is_abandoned:
                return
            self._is_abandoned = True
        context = self._call.context
        context.has_ended = True
        context.flow_run_context.may_have_orphans = True
        self._on_abandoned(_place(self._ident))


def _place(ident: int) -> str:
    """Return where a thread's user code is, as ``file, line N, in function``."""
    frame = frame_of_thread(ident)
    if frame is None:
        return "its end"
    code = frame.f_code
    return f'File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}'
