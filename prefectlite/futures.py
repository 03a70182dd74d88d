"""What ``submit`` and ``map`` give back: a task run that may not have ended.

A future is settled once, by whoever ran the task, with the final state as it is on record. Waiting
costs a thread nothing and can be interrupted.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable
from contextlib import AbstractContextManager, suppress
from typing import Generic, TypeVar, cast

from prefectlite.clock import monotonic
from prefectlite.errors import UsageError
from prefectlite.interruptions import acquire
from prefectlite.records import TaskRun
from prefectlite.states import State

R = TypeVar("R", covariant=True)


class _Blocking(threading.local):
    """How this thread tells its pool that it is about to wait; None where it has no pool."""

    enter: Callable[[], AbstractContextManager[object]] | None = None


blocking = _Blocking()
# Guards every future's callbacks; it is held for an instant, so that one is enough for all.
_callbacks_lock = threading.Lock()


class TaskFuture(Generic[R]):
    """A task run that was submitted.

    Attributes:
        task_run: The run as it was submitted; its state then is not its state now.
    """

    __slots__ = ("__weakref__", "_callbacks", "_latch", "_state", "task_run")

    def __init__(self, task_run: TaskRun) -> None:
        self.task_run = task_run
        self._state: State | None = None
        self._callbacks: list[Callable[[TaskFuture[object]], object]] | None = None
        # A lock that is held until the end weighs a tenth of a threading.Event.
        self._latch = _thread.allocate_lock()
        self._latch.acquire()

    @property
    def name(self) -> str:
        """The task run's name."""
        return self.task_run.name

    @property
    def is_done(self) -> bool:
        """Whether the task run has ended, or never will start."""
        return self._state is not None

    def wait(self, timeout: float | None = None) -> State | None:
        """Wait until the task run has ended.

        Args:
            timeout: At most this many seconds; None is for ever.

        Returns:
            Its final state, or NotReady; None if the time ran out first.
        """
        if self._state is None:
            if blocking.enter is None:
                self._block(timeout)
            else:
                with blocking.enter():
                    self._block(timeout)
        return self._state

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:  # noqa: FBT001, FBT002 - Prefect 2.8's signature
        """Wait, and return what the task returned or raise what it raised.

        Raises:
            TimeoutError: It did not end within ``timeout`` seconds.
        """
        state = self.wait(timeout)
        if state is None:
            raise TimeoutError(f"{self!r} did not end within {timeout} seconds")
        return cast(R, state.result(raise_on_failure))

    def get_state(self) -> State:
        """Return the final state, or the state in which it was submitted; never wait."""
        return self._state or self.task_run.state

    def settle(self, state: State) -> None:
        """Give it its state and wake who waits. The engine's part; only the first call counts."""
        with _callbacks_lock:
            if self._state is not None:
                return
            self._state = state
            callbacks, self._callbacks = self._callbacks, None
        self._open_latch()
        for callback in callbacks or ():
            callback(self)

    def add_done_callback(self, callback: Callable[[TaskFuture[object]], object]) -> None:
        """Call ``callback(future)`` when it is settled, in that thread; now, if it is already."""
        with _callbacks_lock:
            if self._state is None:
                self._callbacks = [*(self._callbacks or ()), callback]
                return
        callback(self)

    def _block(self, timeout: float | None) -> None:
        try:
            acquire(self._latch, timeout)
        finally:
            # Whatever interrupts the line above, perhaps just after it got the latch: once it has
            # been settled, everyone who comes by opens it for those that come after.
            if self._state is not None:
                self._open_latch()

    def _open_latch(self) -> None:
        try:
            self._latch.release()
        except RuntimeError:  # another one was quicker
            return

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.get_state().name}>"


class AsyncTaskFuture(TaskFuture[R]):
    """An async task run that was submitted from an event loop; its methods are awaited."""

    __slots__ = ()

    async def wait(self, timeout: float | None = None) -> State | None:  # type: ignore[override] # as in Prefect 2.8
        """Wait without blocking the loop; see ``TaskFuture.wait``."""
        if self._state is None:
            import asyncio

            try:
                await asyncio.wait_for(settled(self), timeout)
            except TimeoutError:
                return None
        return self._state

    async def result(  # type: ignore[override] # as in Prefect 2.8
        self,
        timeout: float | None = None,
        raise_on_failure: bool = True,  # noqa: FBT001, FBT002 - Prefect 2.8's signature
    ) -> R:
        """Wait without blocking the loop; see ``TaskFuture.result``."""
        state = await self.wait(timeout)
        if state is None:
            raise TimeoutError(f"{self!r} did not end within {timeout} seconds")
        return cast(R, state.result(raise_on_failure))

    def __await__(self) -> Generator[object, object, R]:
        return self.result().__await__()


def settled(future: TaskFuture[object]) -> Awaitable[None]:
    """Return something to await on the running loop until a future of any thread is settled."""
    import asyncio

    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def tell(_: TaskFuture[object]) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(tell)
    return waiter


def block_on(future: TaskFuture[object], timeout: float | None = None) -> State | None:
    """Wait for a future in this thread, though it may be an async one; see ``TaskFuture.wait``.

    Raises:
        UsageError: It is an async one and this thread runs an event loop, which would have to go
            on for it to end.
    """
    if isinstance(future, AsyncTaskFuture) and not future.is_done:
        import asyncio

        with suppress(RuntimeError):  # no loop runs here
            asyncio.get_running_loop()
            raise UsageError(
                f"task run {future.name!r} is async and cannot end while its event loop is blocked",
                hint="await the future first, and pass its result",
            )
    return TaskFuture.wait(future, timeout)


def wait_for_all(futures: Iterable[TaskFuture[object]], *, until: float | None = None) -> bool:
    """Wait for futures, blocking; return whether all were settled before ``until`` (monotonic)."""
    for future in futures:
        timeout = None if until is None else until - monotonic()
        if block_on(future, timeout) is None:
            return False
    return True


def when_all_settled(
    futures: Collection[TaskFuture[object]], callback: Callable[[], object]
) -> None:
    """Call ``callback()`` once, when the last of the futures is settled; now, if all are."""
    remaining = len(futures)
    if not remaining:
        callback()

    def note(_: TaskFuture[object]) -> None:
        nonlocal remaining
        with _callbacks_lock:
            remaining -= 1
            is_last = remaining == 0
        if is_last:
            callback()

    for future in futures:
        future.add_done_callback(note)
