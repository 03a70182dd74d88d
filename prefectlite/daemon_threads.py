"""Starts threads that end with the process, and sees to it that each has begun before that ends.

For the threads that watch, time and write beside a flow. CPython 3.11.2, which Debian 12 has, crashes where
the interpreter is taken down while a thread that was started has not come to its first bytecode yet.
``threading`` waits for that at each start: a flow would pay more for it than for its states, and code that
was interrupted may hold the locks that this takes.
"""

from __future__ import annotations

import _thread
import atexit
import os
from collections.abc import Callable

# Longer only where the machine gives this process no time at all.
_BEGIN_SECONDS = 1.0

_beginning: set[_thread.LockType] = set()


def start_daemon_thread(run: Callable[[], object]) -> None:
    """Start a thread; also from a signal handler.

    Raises:
        RuntimeError: No thread is to be had.
    """
    begun = _thread.allocate_lock()
    begun.acquire()

    def begin() -> None:
        _beginning.discard(begun)
        begun.release()
        run()

    _beginning.add(begun)
    try:
        _thread.start_new_thread(begin, ())
    except RuntimeError:
        _beginning.discard(begun)
        raise


def _wait_until_begun() -> None:
    for begun in _beginning.copy():
        begun.acquire(timeout=_BEGIN_SECONDS)


atexit.register(_wait_until_begun)
if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_beginning.clear)
