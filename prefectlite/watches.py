"""One thread a process that wakes up for signals, and a few times a second while flows run.

CPython notes a signal at once and runs its handler when the main thread is back in bytecode. Where
it is just about to begin a blocking system call, and most of all where it is giving the GIL to another
thread for that, the call begins all the same and may last an hour. But the note is also written to a
pipe (``signal.set_wakeup_fd``), and who reads it can poke the main thread.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from prefectlite.daemon_threads import start_daemon_thread

#: The signals that end a flow.
ENDING = (signal.SIGINT, signal.SIGTERM)
#: How often to look for what no signal tells of, such as a cancellation by another user.
TICK_SECONDS = 0.2
# For so many ticks it goes on in vain: programs that run many short flows need not wake it for each.
_IDLE_TICKS = 25


class Watch:
    """The thread, and the pipe that feeds it.

    Attributes:
        on_ending_signal: Called on the thread for each signal of ``ENDING``.
        on_tick: Called on the thread after every signal, and again after as many seconds as it
            returns; None is for never. It must not raise.
    """

    def __init__(self, on_ending_signal: Callable[[], object]) -> None:
        self.on_ending_signal = on_ending_signal
        self.on_tick: Callable[[], float | None] = lambda: None
        self._pipe: tuple[int, int] | None = None
        self._is_set = False
        self._idle_ticks = 0
        self._starting = _thread.allocate_lock()

    def start(self) -> None:
        """Have it tick; from any thread."""
        with self._starting:
            self._start()

    def _start(self) -> None:
        if self._pipe is None:
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            self._idle_ticks = 0
            try:
                start_daemon_thread(lambda: self._run(reading))
            except RuntimeError:  # no thread is to be had; the next flow tries again
                os.close(reading)
                os.close(writing)
                return
            self._pipe = reading, writing
        elif self._idle_ticks:  # it may be about to sleep until it is woken
            self.stir()

    def stir(self) -> None:
        """Have it tick now; from any thread, and from a signal handler."""
        if self._pipe is not None:
            with suppress(BlockingIOError):  # the pipe is full: it is awake
                os.write(self._pipe[1], b"\0")

    def begin(self) -> None:
        """Listen to signals; in the main thread only."""
        self.start()
        if self._pipe is None:
            return
        previous = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._is_set = previous == -1
        if not self._is_set:  # an event loop's, which wakes up by it
            signal.set_wakeup_fd(previous)

    def end(self) -> None:
        """Listen no more."""
        if self._is_set and self._pipe is not None:
            present = signal.set_wakeup_fd(-1)
            if present != self._pipe[1]:  # the loop of an async flow has put its own there
                signal.set_wakeup_fd(present)
        self._is_set = False

    def forget(self) -> None:
        """Let go of what is the parent's, in a forked child."""
        self.end()
        for descriptor in self._pipe or ():
            os.close(descriptor)
        self._pipe = None
        self._starting = _thread.allocate_lock()  # another thread of the parent may have held it

    def _run(self, reading: int) -> None:
        pipe = select.poll()
        pipe.register(reading, select.POLLIN)
        seconds: float | None = TICK_SECONDS
        while True:
            is_idle = self._idle_ticks > _IDLE_TICKS
            if pipe.poll(None if is_idle else (seconds or TICK_SECONDS) * 1000):
                numbers = os.read(reading, 512)
                if any(number in ENDING for number in numbers):
                    self.on_ending_signal()
                self._idle_ticks = 0
            seconds = self.on_tick()
            self._idle_ticks = self._idle_ticks + 1 if seconds is None else 0
