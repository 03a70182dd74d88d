"""Run the engine's steps: the same steps for sync and async code and for generators.

The engine writes what happens to a run once, as a generator that yields what it needs done: call
the user's function, sleep, wait for latches. A driver does it in the way that the function's kind
asks for and sends the outcome back. This module knows nothing of states, and must write nothing to
the registry but the last log lines of a forked child, which leaves here.
"""

from __future__ import annotations

import _thread
import os
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from prefectlite import prints
from prefectlite.context import FlowRunContext, RunContext, enter, is_under, leave
from prefectlite.errors import RegistryError
from prefectlite.forks import here
from prefectlite.futures import wait_for_all
from prefectlite.interruptions import (
    LOOP_GRACE_SECONDS,
    AbandonedError,
    ClosedByCallerError,
    in_main_thread,
    sleep,
    waits,
    watch,
)
from prefectlite.latches import Latch, settled
from prefectlite.options import Function, Kind
from prefectlite.outcomes import user_traceback
from prefectlite.timeouts import (
    Armed,
    Deadline,
    InterruptibleThread,
    TimeoutInterrupt,
    call_in_main_thread,
    call_in_thread,
    call_on_loop,
)

T = TypeVar("T")

# What the last words of a forked child may take, once they can be written at all.
_LAST_WORDS_SECONDS = 1.0


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
    """Let some seconds pass.

    Attributes:
        context: The run that waits, and may be interrupted while it does.
    """

    seconds: float
    context: RunContext | None = None


@dataclass(slots=True, eq=False)
class Wait:
    """Wait until latches are settled; raise ``TimeoutInterrupt`` at the deadline.

    Attributes:
        context: The run that waits, and may be interrupted while it does; None if it may not.
    """

    latches: Sequence[Latch]
    deadline: Deadline | None = None
    context: RunContext | None = None


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
    if isinstance(effect, Call):
        return call_here(effect)
    if effect.context is None:
        return _pause(effect)
    token = enter(effect.context)
    try:
        return _pause(effect)
    finally:
        leave(token)


@waits
def _pause(effect: Sleep | Wait) -> None:
    if isinstance(effect, Sleep):
        sleep(effect.seconds)
    else:
        deadline = effect.deadline
        if not wait_for_all(effect.latches, until=deadline.at if deadline else None):
            raise TimeoutInterrupt(deadline)


def call_here(call: Call) -> object:
    """Call user code in this thread, with its context and its deadline.

    A coroutine gets an event loop of its own.
    """
    if call.kind in (Kind.ASYNC, Kind.ASYNC_GENERATOR):
        import asyncio

        return asyncio.run(_acall(call, owns_loop=True))
    process = here.pid
    try:
        value = _call_entered(call)
    except BaseException as error:
        if here.pid != process:
            _end_forked_child(call.context, error)
        raise
    if here.pid != process:
        _end_forked_child(call.context, None)
    return value


def _call_entered(call: Call) -> object:
    context = call.context
    token = enter(context)
    try:
        deadline = context.deadline
        if deadline is None:
            return call_plainly(call)
        if in_main_thread():
            return call_in_main_thread(
                deadline, lambda: is_under(deadline), lambda: call_plainly(call)
            )
        return call_in_thread(deadline.at, lambda: call_plainly(call))
    finally:
        leave(token)
        if context.partial_lines:
            prints.finish(context)


@waits
def call_plainly(call: Call) -> object:
    """Call user code, with nothing around it."""
    result: object = call.function(*call.args, **call.kwargs)
    return list(result) if call.kind is Kind.GENERATOR else result  # type: ignore[call-overload] # a generator


def _end_forked_child(context: RunContext, error: BaseException | None) -> NoReturn:
    """End a process that user code has forked, where it comes back from that code.

    The run is its parent's: two processes must not both say how it ended. The exit code is what
    Python would give.
    """
    exit_code, told = 0, ""
    if isinstance(error, SystemExit):
        exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
        told = error.code if isinstance(error.code, str) else ""
    elif error is not None:
        exit_code, told = 1, user_traceback(error)
    try:
        context.registry.flush_logs()
    except RegistryError as fault:
        told += f"\nprefectlite: the last log lines are not on record: {fault}"
    is_written = _thread.allocate_lock()
    is_written.acquire()

    def write() -> None:
        for stream, text in ((sys.stdout, ""), (sys.stderr, told)):
            with suppress(OSError, ValueError, AttributeError):  # closed, full, or None
                stream.write(f"{text}\n" if text else "")
                stream.flush()
        is_written.release()

    # A thread of the parent that was writing at the moment of the fork holds the stream's lock for ever.
    _thread.start_new_thread(write, ())
    is_written.acquire(timeout=_LAST_WORDS_SECONDS)
    os._exit(exit_code & 0xFF)  # not through the frames and atexit functions of the parent


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
    with _on_loop(effect.context, is_engine=True):
        await _apause(effect)
    return None


async def _apause(effect: Sleep | Wait) -> None:
    import asyncio

    if isinstance(effect, Sleep):
        await asyncio.sleep(effect.seconds)
        return
    remaining = effect.deadline.remaining() if effect.deadline else None
    try:
        async with asyncio.timeout(remaining):
            for latch in effect.latches:
                if not latch.is_done:
                    await settled(latch)
    except TimeoutError:
        raise TimeoutInterrupt(effect.deadline) from None


@contextmanager
def _on_loop(context: RunContext | None, *, is_engine: bool = False) -> Iterator[None]:
    """Note where a flow run is awaited, so that it can be cancelled there.

    Args:
        is_engine: Whether it is the engine that awaits, and no code of the user's.
    """
    # One that pauses itself waits inside its own call, perhaps in another task of the loop.
    if not isinstance(context, FlowRunContext) or context.loop_call is not None:
        yield
        return
    import asyncio

    this = asyncio.current_task()
    context.loop_call = None if this is None else (asyncio.get_running_loop(), this)
    if context.is_cancelled and this is not None:  # it was, before there was anything to cancel
        if is_engine:
            this.cancel()
        else:
            watch.stir()
    try:
        yield
    finally:
        context.loop_call = None


async def _acall(call: Call, *, owns_loop: bool = False) -> object:
    process = here.pid
    try:
        value = await _acall_entered(call, owns_loop=owns_loop)
    except BaseException as error:
        if here.pid != process:
            _end_forked_child(call.context, error)
        raise
    if here.pid != process:
        _end_forked_child(call.context, None)
    return value


async def _acall_entered(call: Call, *, owns_loop: bool) -> object:
    context = call.context
    token = enter(context)
    try:
        with _on_loop(context):
            deadline = context.deadline
            if deadline is None:
                return await _acall_plainly(call)
            armed = _armed_for_loop(deadline, owns_loop=owns_loop)
            return await call_on_loop(deadline, armed, lambda: _acall_plainly(call))
    finally:
        leave(token)
        if context.partial_lines:
            prints.finish(context)


@waits
async def _acall_plainly(call: Call) -> object:
    if call.kind is Kind.ASYNC_GENERATOR:
        return [item async for item in call.function(*call.args, **call.kwargs)]
    result: object = await call.function(*call.args, **call.kwargs)
    return result


def _armed_for_loop(deadline: Deadline, *, owns_loop: bool) -> Armed | InterruptibleThread | None:
    """Return what interrupts code that blocks its event loop; None where it could hit others."""
    if in_main_thread():
        return Armed(deadline, lambda: is_under(deadline), delay_seconds=LOOP_GRACE_SECONDS)
    if not owns_loop:
        return None
    thread = InterruptibleThread()
    thread.interrupt_at(deadline.at + LOOP_GRACE_SECONDS)
    return thread


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
            with _suspended(call.context):
                sent = yield item
        except GeneratorExit:
            call_here(Call(generator.close, (), {}, call.context))
            raise ClosedByCallerError from None
        except BaseException as thrown:  # noqa: BLE001 - the steps decide what it means
            step = _thrower(generator, thrown)
        else:
            step = _sender(generator, sent)


@contextmanager
def _suspended(context: RunContext) -> Iterator[None]:
    """Note that the code which runs is not the flow's own, in whose thread it is."""
    if not isinstance(context, FlowRunContext):
        yield
        return
    context.is_suspended = True
    try:
        yield
    finally:
        context.is_suspended = False


def _sender(generator: Generator[Any, Any, Any], value: object) -> Callable[[], object]:
    return waits(lambda: generator.send(value))


def _thrower(generator: Generator[Any, Any, Any], error: BaseException) -> Callable[[], object]:
    return waits(lambda: generator.throw(error))


async def adrive_generator(
    steps: Steps[T], finish: Callable[[T], object]
) -> AsyncGenerator[Any, Any]:
    """Run steps whose user function is an async generator, handing on what it yields.

    Args:
        finish: Called with what the steps return, which an async generator cannot return.
    """
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
    except StopIteration as stop:
        finish(stop.value)


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
            await _acall(Call(generator.aclose, (), {}, call.context, Kind.ASYNC))
            raise
