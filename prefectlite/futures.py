"""What ``submit`` and ``map`` give back: a task run that may not have ended.

A future is settled once, by whoever ran the task, with the final state as it is on record.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import Generic, TypeVar, cast

from prefectlite.clock import monotonic
from prefectlite.errors import UsageError
from prefectlite.latches import Latch, settled
from prefectlite.records import TaskRun
from prefectlite.states import State

R = TypeVar("R", covariant=True)


class TaskFuture(Latch, Generic[R]):
    """A task run that was submitted.

    Attributes:
        task_run: The run as it was submitted; its state then is not its state now.
    """

    __slots__ = ("task_run",)

    def __init__(self, task_run: TaskRun) -> None:
        super().__init__()
        self.task_run = task_run

    @property
    def name(self) -> str:
        """The task run's name."""
        return self.task_run.name

    def wait(self, timeout: float | None = None) -> State | None:
        """Wait until the task run has ended.

        Args:
            timeout: At most this many seconds; None is for ever.

        Returns:
            Its final state, or NotReady; None if the time ran out first.
        """
        return self.block(timeout)

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


def block_on(latch: Latch, timeout: float | None = None) -> State | None:
    """Wait in this thread, though it may be for an async task run; see ``Latch.block``.

    Raises:
        UsageError: It is an async one and this thread runs an event loop, which would have to go
            on for it to end.
    """
    if isinstance(latch, AsyncTaskFuture) and not latch.is_done:
        import asyncio

        with suppress(RuntimeError):  # no loop runs here
            asyncio.get_running_loop()
            raise UsageError(
                f"task run {latch.name!r} is async and cannot end while its event loop is blocked",
                hint="await the future first, and pass its result",
            )
    return latch.block(timeout)


def wait_for_all(latches: Iterable[Latch], *, until: float | None = None) -> bool:
    """Wait for latches, blocking; return whether all were settled before ``until`` (monotonic)."""
    for latch in latches:
        timeout = None if until is None else until - monotonic()
        if block_on(latch, timeout) is None:
            return False
    return True
