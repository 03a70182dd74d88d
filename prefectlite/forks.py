"""Which process is this, and what must not be open while it forks?

The process is known without asking the kernel, which costs as much as half a log line. What belongs to
one process (a connection, a thread, lines that wait) is compared with ``here.pid`` before it is used, so
that a forked child takes nothing for its own that is its parent's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class _Here:
    """This process.

    Attributes:
        pid: Its id, also in a child that ``os.fork`` has just made.
    """

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Ask the kernel again."""
        self.pid = os.getpid()


here = _Here()


class Pausable(Protocol):
    """What can be closed for as long as a fork takes."""

    def pause(self) -> Callable[[], object] | None:
        """Close it and keep others from opening it; return what lets them, None where it cannot be had."""

    def forget(self) -> None:
        """Begin anew in the child, whatever state the other threads of the parent have left it in."""


class PausedAtForks:
    """A set of what is not to be open across a fork; it keeps nothing alive.

    Before any fork, in whichever thread, each is paused; then the parent resumes what it could pause,
    and the child, which has no other thread than the one that forked, has each ``forget``. What could
    not be paused is open across the fork: the parent goes on with it, and the child drops what it has
    of it. The hooks run in the order of their registration, before a fork the other way round. A
    signal handler may fork, or raise, in the middle of one.
    """

    def __init__(self) -> None:
        self._all: WeakSet[Pausable] = WeakSet()
        self._forking = threading.local()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._pause, after_in_parent=self._resume, after_in_child=self._forget
            )

    def add(self, one: Pausable) -> None:
        """Have it paused at each fork from now on."""
        self._all.add(one)

    def _pause(self) -> None:
        resumes: list[Callable[[], object]] = []
        try:
            # In one order, so that two threads that fork at once do not wait for each other.
            for one in sorted(self._found(), key=id):
                if (resume := one.pause()) is not None:
                    resumes.append(resume)  # noqa: PERF401 - one by one, for an error in between
        finally:
            # Python forks all the same where this raises. Not before: a fork in between has its own.
            self._forking.resumes = resumes

    def _resume(self) -> None:
        for resume in self._take_resumes():
            resume()

    def _forget(self) -> None:
        self._take_resumes()
        for one in self._found():
            one.forget()

    def _take_resumes(self) -> list[Callable[[], object]]:
        # There is none where something raised before ``_pause`` had begun.
        resumes: list[Callable[[], object]] = self._forking.__dict__.pop("resumes", [])
        return resumes

    def _found(self) -> list[Pausable]:
        while True:
            with suppress(RuntimeError):  # another thread has just added one
                return list(self._all)
