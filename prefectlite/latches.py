"""What a thread or an event loop can wait for: something that is settled once, with a state.

``futures`` are latches of task runs; a ``Hold`` is one of a flow run that is paused. Waiting costs a
thread next to nothing and can be interrupted. Nothing here reads or writes the registry.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Self

from prefectlite.interruptions import acquire
from prefectlite.states import Paused, State


class _Blocking(threading.local):
    """How this thread tells its pool what it is about to do; None where it has no pool.

    Attributes:
        enter: It waits for something, such as a run that needs a thread itself.
        aside: It does what may take long.
        is_aside: Whether it has said so.
        aside_since: When, by ``clock.monotonic``.
        wake: It has settled something, and here is what wakes who waits for that; perhaps a moment later.
    """

    enter: Callable[[Latch], AbstractContextManager[object]] | None = None
    aside: Callable[[], AbstractContextManager[object]] | None = None
    is_aside = False
    aside_since = 0.0
    wake: Callable[[Callable[[], None]], None] | None = None


blocking = _Blocking()


def aside() -> AbstractContextManager[object]:
    """Return what to call user code in that is not a task's own: it may take long."""
    return nullcontext() if blocking.aside is None else blocking.aside()


# Guards every future's callbacks; it is held for an instant, so that one is enough for all.
_callbacks_lock = threading.Lock()


class Latch:
    """Something that comes to a state once; whoever brings it there settles it."""

    __slots__ = ("__weakref__", "_callbacks", "_lock", "_state")

    def __init__(self) -> None:
        self._state: State | None = None
        self._callbacks: list[Callable[[Any], object]] | None = None
        # A lock that is held until the end weighs a tenth of a threading.Event.
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    @property
    def is_done(self) -> bool:
        """Whether it is settled."""
        return self._state is not None

    def block(self, timeout: float | None = None) -> State | None:
        """Wait in this thread until it is settled; return its state, None if the time ran out first.

        Args:
            timeout: At most this many seconds; None is for ever.
        """
        if self._state is None:
            if blocking.enter is None:
                self._block(timeout)
            else:
                with blocking.enter(self):
                    self._block(timeout)
        return self._state

    def settle(self, state: State) -> None:
        """Give it its state and wake who waits. The engine's part; only the first call counts."""
        with _callbacks_lock:
            if self._state is not None:
                return
            self._state = state
            callbacks, self._callbacks = self._callbacks, None
        try:
            if blocking.wake is None:
                self._open()
            else:
                blocking.wake(self._open)
        finally:  # a signal handler of the user's own may raise anywhere
            for callback in callbacks or ():
                callback(self)

    def add_done_callback(self, callback: Callable[[Self], object]) -> None:
        """Call ``callback(self)`` when it is settled, in that thread; now, if it is already."""
        with _callbacks_lock:
            if self._state is None:
                self._callbacks = [*(self._callbacks or ()), callback]
                return
        callback(self)

    def _block(self, timeout: float | None) -> None:
        try:
            self._acquire(self._lock, timeout)
        finally:
            # Whatever interrupts the line above, perhaps just after it got the lock: once it has
            # been settled, everyone who comes by opens it for those that come after.
            if self._state is not None:
                self._open()

    def _acquire(self, lock: _thread.LockType, timeout: float | None) -> bool:
        return acquire(lock, timeout)

    def _open(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # another one was quicker
            return


class Hold(Latch):
    """The end of a pause, for one who waits for it; settled as soon as the run's state is another.

    Attributes:
        state_version: The version of the Paused state.
        look_seconds: How often to look for what nobody tells of.
    """

    __slots__ = ("look_seconds", "state_version")

    def __init__(self, state_version: int, look_seconds: float) -> None:
        super().__init__()
        self.state_version = state_version
        self.look_seconds = look_seconds

    def _acquire(self, lock: _thread.LockType, timeout: float | None) -> bool:
        # Many runs may be paused for long on one machine: what ends a pause, but for its time and that
        # of the run, settles the hold, so that there is no need to look up often.
        ident = threading.get_ident()
        _waited_for[ident] = self
        try:
            return acquire(lock, timeout, slice_seconds=_SLICE_SECONDS)
        finally:
            del _waited_for[ident]


# The main thread is poked until it answers, and others are woken by ``wake``.
_SLICE_SECONDS = 10.0
# By thread.
_waited_for: dict[int, Hold] = {}


def wake(ident: int) -> None:
    """Have a thread that waits for a hold look up at once: it was interrupted."""
    hold = _waited_for.get(ident)
    if hold is not None:
        hold.settle(Paused("as before"))


def settled(latch: Latch) -> Awaitable[None]:
    """Return something to await on the running loop until a latch of any thread is settled."""
    import asyncio

    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def tell(_: Latch) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(wake)

    latch.add_done_callback(tell)
    return waiter


def when_all_settled(latches: Collection[Latch], callback: Callable[[], object]) -> None:
    """Call ``callback()`` once, when the last of the latches is settled; now, if all are."""
    remaining = len(latches)
    if not remaining:
        callback()

    def note(_: Latch) -> None:
        nonlocal remaining
        with _callbacks_lock:
            remaining -= 1
            is_last = remaining == 0
        if is_last:
            callback()

    for latch in latches:
        latch.add_done_callback(note)
