"""Run the engine's steps: the same steps for sync and async code and for generators.

The engine writes what happens to a run once, as a generator that yields what it needs done: call
the user's function, sleep, wait for futures. A driver does it in the way that the function's kind
asks for and sends the outcome back. This module knows nothing of states or the registry.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from prefectlite import prints
from prefectlite.context import RunContext, enter, leave
from prefectlite.futures import TaskFuture, settled, wait_for_all
from prefectlite.interruptions import (
    AbandonedError,
    ClosedByCallerError,
    calls_user_code,
    in_main_thread,
    waits,
)
from prefectlite.options import Function, Kind
from prefectlite.timeouts import (
    LOOP_GRACE_SECONDS,
    Armed,
    Deadline,
    TimeoutInterrupt,
    call_in_main_thread,
)

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Call:
    """Call the user's function, in the context of its run.

    Attributes:
        kind: How it is to be called. Where the driver cannot hand on what a generator yields, the
            outcome is the list of its items.
    """

    function: Function
    args: Sequence[object]
    kwargs: dict[str, object]
    context: RunContext
    kind: Kind = Kind.SYNC

    @property
    def deadline(self) -> Deadline | None:
        """When the call must have returned; None where there is no limit."""
        return self.context.deadline


@dataclass(slots=True, eq=False)
class Sleep:
    """Let some seconds pass."""

    seconds: float


@dataclass(slots=True, eq=False)
class Wait:
    """Wait until futures are settled; raise ``TimeoutInterrupt`` at the deadline."""

    futures: Sequence[TaskFuture[Any]]
    deadline: Deadline | None = None


Effect = Call | Sleep | Wait
#: Yields effects, is sent what the user's function returned or thrown what it raised; returns T.
Steps = Generator[Effect, object, T]
#: Does one effect and returns its value, or raises.
Perform = Callable[[Effect], object]


def drive(steps: Steps[T], perform: Perform, *, error: BaseException | None = None) -> T:
    """Run steps to their end in this thread, and return what they return.

    Args:
        error: For steps that wait for the outcome of an effect that another thread began: the
            outcome.
    """
    try:
        effect = next(steps) if error is None else steps.throw(error)
        while True:
            try:
                value = perform(effect)
            except AbandonedError:
                raise
            except BaseException as raised:  # noqa: BLE001 - the steps decide what it means
                effect = steps.throw(raised)
            else:
                effect = steps.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result


def perform_here(effect: Effect) -> object:
    """Do one effect in this thread."""
    if type(effect) is Call:
        return call_here(effect)
    return pause_here(effect)


@waits
def pause_here(effect: Effect) -> None:
    """Sleep or wait in this thread."""
    if isinstance(effect, Sleep):
        time.sleep(effect.seconds)
    elif isinstance(effect, Wait):
        deadline = effect.deadline
        if not wait_for_all(effect.futures, until=deadline.at if deadline else None):
            raise TimeoutInterrupt(deadline)


def call_here(call: Call) -> object:
    """Call user code in this thread, with its context and its deadline.

    A coroutine gets an event loop of its own.
    """
    if call.kind in (Kind.ASYNC, Kind.ASYNC_GENERATOR):
        import asyncio

        return asyncio.run(_acall(call))
    context = call.context
    token = enter(context)
    try:
        deadline = context.deadline
        if deadline is not None and in_main_thread():
            return call_in_main_thread(deadline, lambda: call_plainly(call))
        return call_plainly(call)
    finally:
        leave(token)
        if context.partial_lines:
            prints.finish(context)


@calls_user_code
def call_plainly(call: Call) -> object:
    """Call user code, with nothing around it."""
    result: object = call.function(*call.args, **call.kwargs)
    return list(result) if call.kind is Kind.GENERATOR else result  # type: ignore[call-overload] # a generator


async def adrive(steps: Steps[T], *, error: BaseException | None = None) -> T:
    """Run steps to their end on the running event loop; the user's function is ``async``."""
    try:
        effect = next(steps) if error is None else steps.throw(error)
        while True:
            try:
                value = await _aperform(effect)
            except BaseException as raised:  # noqa: BLE001 - the steps decide what it means
                effect = steps.throw(raised)
            else:
                effect = steps.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def _aperform(effect: Effect) -> object:
    if isinstance(effect, Call):
        return await _acall(effect)
    import asyncio

    if isinstance(effect, Sleep):
        await asyncio.sleep(effect.seconds)
    else:
        remaining = effect.deadline.remaining() if effect.deadline else None
        try:
            async with asyncio.timeout(remaining):
                for future in effect.futures:
                    if not future.is_done:
                        await settled(future)
        except TimeoutError:
            raise TimeoutInterrupt(effect.deadline) from None
    return None


async def _acall(call: Call) -> object:
    context = call.context
    token = enter(context)
    try:
        if context.deadline is None:
            return await _acall_plainly(call)
        return await _acall_until(context.deadline, call)
    finally:
        leave(token)
        if context.partial_lines:
            prints.finish(context)


@calls_user_code
async def _acall_plainly(call: Call) -> object:
    if call.kind is Kind.ASYNC_GENERATOR:
        return [item async for item in call.function(*call.args, **call.kwargs)]
    result: object = await call.function(*call.args, **call.kwargs)
    return result


@calls_user_code
async def _acall_until(deadline: Deadline, call: Call) -> object:
    import asyncio

    armed = Armed(deadline, delay_seconds=LOOP_GRACE_SECONDS) if in_main_thread() else None
    scope = asyncio.timeout(deadline.remaining())
    try:
        async with scope:
            return await _acall_plainly(call)
    except TimeoutError as error:
        if scope.expired():
            raise TimeoutInterrupt(deadline) from error
        raise
    finally:
        if armed is not None:
            armed.disarm()


def drive_generator(steps: Steps[T]) -> Generator[Any, Any, T]:
    """Run steps whose user function is a generator, handing on what it yields.

    The run's context is entered only while the function's own code is executing: between two
    items the caller's code is, which belongs to the caller's run.
    """
    try:
        effect = next(steps)
        while True:
            try:
                if isinstance(effect, Call):
                    value = yield from _iterate(effect)
                else:
                    value = perform_here(effect)
            except BaseException as raised:  # noqa: BLE001 - the steps decide what it means
                effect = steps.throw(raised)
            else:
                effect = steps.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _iterate(call: Call) -> Generator[Any, Any, object]:
    generator = call.function(*call.args, **call.kwargs)
    step: Callable[[], object] = generator.__next__
    while True:
        try:
            item = call_here(Call(step, (), {}, call.context))
        except StopIteration as stop:
            return stop.value
        try:
            sent = yield item
        except GeneratorExit:
            call_here(Call(generator.close, (), {}, call.context))
            raise ClosedByCallerError from None
        except BaseException as thrown:  # noqa: BLE001 - the steps decide what it means
            step = _thrower(generator, thrown)
        else:
            step = _sender(generator, sent)


def _sender(generator: Generator[Any, Any, Any], value: object) -> Callable[[], object]:
    return lambda: generator.send(value)


def _thrower(generator: Generator[Any, Any, Any], error: BaseException) -> Callable[[], object]:
    return lambda: generator.throw(error)


async def adrive_generator(steps: Steps[T]) -> AsyncGenerator[Any, Any]:
    """Run steps whose user function is an async generator, handing on what it yields."""
    try:
        effect = next(steps)
        while True:
            try:
                if isinstance(effect, Call):
                    items = _aiterate(effect)
                    async for item in items:
                        try:
                            yield item
                        except GeneratorExit:
                            await items.aclose()
                            raise ClosedByCallerError from None
                    value: object = None
                else:
                    value = await _aperform(effect)
            except BaseException as raised:  # noqa: BLE001 - the steps decide what it means
                effect = steps.throw(raised)
            else:
                effect = steps.send(value)
    except StopIteration:
        return


async def _aiterate(call: Call) -> AsyncGenerator[Any, None]:
    generator = call.function(*call.args, **call.kwargs)
    while True:
        try:
            item = await _acall(Call(generator.__anext__, (), {}, call.context))
        except StopAsyncIteration:
            return
        try:
            yield item
        except GeneratorExit:
            await generator.aclose()
            raise
