"""Pause a flow run until a person lets it go on, and let one go on: the functions for programs.

``pauses`` says what is put on record, ``holds`` waits; commands use the former alone.
"""

from __future__ import annotations

import inspect
import logging
import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload
from uuid import UUID

from prefectlite import logs
from prefectlite.context import RunContext, check_open, current
from prefectlite.drivers import Sleep, Steps, adrive, drive, perform_here
from prefectlite.errors import (
    ConflictError,
    FlowPauseTimeout,
    MissingContextError,
    RunFinalError,
    StateConflictError,
    UsageError,
)
from prefectlite.holds import LOOK_SECONDS, hold, hold_while_paused
from prefectlite.interruptions import CancelInterrupt
from prefectlite.pauses import REFUSED, UNRESUMED, is_unresumed, pause, resume
from prefectlite.records import Pause
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import State

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from types import FrameType

    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")

#: How long a run stays paused, where nobody says otherwise; as in Prefect 2.8.
DEFAULT_SECONDS = 300.0
# The interruption of a run that is being cancelled comes within a fifth of a second.
_INTERRUPTION_SECONDS = 5.0


@overload
def pause_flow_run(
    flow_run_id: UUID | str | None = None,
    timeout: float | None = DEFAULT_SECONDS,
    poll_interval: float | None = None,
    key: str | None = None,
    wait_for_input: None = None,
) -> None: ...
@overload
def pause_flow_run(
    flow_run_id: UUID | str | None = None,
    timeout: float | None = DEFAULT_SECONDS,
    poll_interval: float | None = None,
    key: str | None = None,
    *,
    wait_for_input: type[M],
) -> M: ...
def pause_flow_run(
    flow_run_id: UUID | str | None = None,
    timeout: float | None = DEFAULT_SECONDS,
    poll_interval: float | None = None,
    key: str | None = None,
    wait_for_input: type[M] | None = None,
) -> M | None:
    """Pause the flow run that this code is in, and return when it is resumed.

    The run is Paused: submitted tasks finish, no new one starts. In a task it is the task's flow run,
    in a subflow the subflow's run. In the code of a coroutine it is to be awaited, and does not block
    the loop (Prefect 2.8 behaviour). Timeouts of the flow and of the task go on meanwhile.

    Args:
        flow_run_id: Another run, by its id or name: it stops at its next task, and this returns at once.
        timeout: Seconds after which the run has Failed if nobody has resumed it; None for never.
        poll_interval: Seconds between two looks at the record, for a run that cannot be woken because
            it is resumed from another container; None for 10.
        key: A name for this pause. Each time but the first, a pause with a key returns at once with
            what the first one gave, so that a retry of the flow does not ask again.
        wait_for_input: A pydantic model of what the run wants to be told.

    Returns:
        The answer, an instance of ``wait_for_input``; None without one.

    Raises:
        FlowPauseTimeout: It was not resumed in time; the run has Failed.
        MissingContextError: There is no run here, and none is named.
        StateConflictError: The other run is not Running.
        UsageError: An argument is not what it must be.
    """
    request = _Request(
        _checked_seconds("timeout", timeout),
        _checked_seconds("poll_interval", poll_interval) or LOOK_SECONDS,
        _checked_key(key),
        wait_for_input,
    )
    context = current()
    if flow_run_id is not None and (context is None or str(flow_run_id) != context.flow_run.id):
        _pause_other(str(flow_run_id), request)
        return _nothing(sys._getframe(1))  # type: ignore[return-value] # noqa: SLF001 - see below
    if context is None:
        raise MissingContextError(
            "there is no run here: pause_flow_run was called outside of a flow or task",
            hint="name the flow run: pause_flow_run(flow_run_id)",
        )
    steps = _steps(context, request)
    if _is_awaited(sys._getframe(1)):  # noqa: SLF001 - nothing else tells who awaits from who does not
        coroutine: Any = adrive(steps)
        # For the warning of Python, should nobody await it.
        coroutine.__name__ = coroutine.__qualname__ = "pause_flow_run"
        return coroutine  # type: ignore[no-any-return] # to be awaited
    return drive(steps, perform_here)


def resume_flow_run(
    flow_run_id: UUID | str, run_input: Mapping[str, Any] | BaseModel | None = None
) -> None:
    """Let a paused flow run go on.

    Args:
        flow_run_id: The run, by its id, a unique start of it, or its name.
        run_input: What it is told, if it wants to be told something.

    Raises:
        NotPausedError: It is in another state.
        FlowPauseTimeout: It is too late; the run has Failed.
        NotFoundError: There is no such run.
        UsageError: The input is not what the run asks for.
    """
    from prefectlite.settling import settle

    registry = open_registry(PREFECTLITE_REGISTRY.value())
    settle(registry, lambda: registry)
    if run_input is not None and hasattr(run_input, "model_dump"):
        run_input = run_input.model_dump(mode="json")
    resume(registry, registry.find_flow_run(str(flow_run_id)), run_input)
    return _nothing(sys._getframe(1))  # type: ignore[return-value] # noqa: SLF001 - as above


class _Nothing:
    """What a coroutine is given to await, as in Prefect 2.8, where there is nothing to wait for."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def _nothing(caller: FrameType) -> _Nothing | None:
    return _Nothing() if _is_awaited(caller) else None


def _is_awaited(caller: FrameType) -> bool:
    """Return whether the code of a coroutine is what has called."""
    return bool(caller.f_code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR))


@dataclass(frozen=True, slots=True)
class _Request(Generic[M]):
    """What a call of ``pause_flow_run`` asks for; its arguments, checked."""

    timeout_seconds: float | None
    look_seconds: float
    key: str | None
    model: type[M] | None

    def pause(self) -> Pause:
        """Return the pause as it is put on record."""
        if self.model is None:
            return Pause(key=self.key)
        from prefectlite.run_inputs import schema_of

        return Pause(key=self.key, input_schema=schema_of(self.model))

    def answer(self, pause: Pause | None) -> M | None:
        """Return what the caller gets for what a pause was told.

        Raises:
            UsageError: The model refuses it.
        """
        if self.model is None:
            return None
        from prefectlite.run_inputs import parsed

        return parsed(self.model, pause.run_input if pause else None)


def _pause_other(reference: str, request: _Request[Any]) -> None:
    if request.model is not None:
        raise UsageError("another flow run cannot be made to wait for an input")
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    pause(
        registry,
        registry.find_flow_run(reference),
        "It stops at its next task.",
        timeout_seconds=request.timeout_seconds,
        pause=request.pause(),
    )


def _steps(context: RunContext, request: _Request[M]) -> Steps[M | None]:
    """Pause the run of a context until it is resumed with what is asked for."""
    check_open(context)  # a thread that was given up on pauses nothing
    flow, wanted = context.flow_run_context, request.pause()
    pauses = flow.registry.pauses
    refused, told, is_begun = None, "", False
    while True:
        found = pauses.find_pause(flow.flow_run.id, key=request.key) if request.key else None
        if found is None or found == refused:
            found = yield from _begun(context, request, wanted, told, refused)
            if found is None:
                continue
            is_begun = True
        yield from _until_resumed(context, found, request.look_seconds)
        if is_begun:
            logs.record(context, logging.INFO, "Resumed")
        found = pauses.find_pause(flow.flow_run.id, state_version=found.state_version)
        try:
            return request.answer(found)
        except UsageError as error:
            refused, told = found, f"{REFUSED} {error}."
            logs.record(context, logging.WARNING, told)


def _begun(
    context: RunContext, request: _Request[M], wanted: Pause, told: str, refused: Pause | None
) -> Steps[Pause | None]:
    """Put a pause on record; return it, or None where another one was to be waited for first."""
    flow = context.flow_run_context
    try:
        flow.flow_run = paused = pause(
            flow.registry,
            flow.flow_run,
            told,
            timeout_seconds=None if refused else request.timeout_seconds,
            pause=replace(wanted, resume_by=refused.resume_by) if refused else wanted,
            instead_of=refused,
        )
    except StateConflictError as conflict:
        current = conflict.current
        if not (current.is_running() or current.is_paused()):
            yield from _end(context, current)
        yield from hold_while_paused(context)
        return None
    except ConflictError:  # another task has just begun a pause with this key
        return None
    command = f"prefectlite flow-run resume {paused.id}"
    if wanted.input_schema is not None:
        from prefectlite.run_inputs import usage

        command = f"{command} {usage(wanted.input_schema)}".rstrip()
    # A person has to act: what shows warnings alone shows this, too.
    logs.record(context, logging.WARNING, f"Paused. To resume: {command}")
    flow.registry.flush_logs()  # here, not by the writer in the background: nothing may follow for hours
    return flow.registry.pauses.find_pause(paused.id, state_version=paused.state_version)


def _until_resumed(context: RunContext, found: Pause, look_seconds: float) -> Steps[None]:
    """Wait for the end of a pause; what comes then must be that the run goes on."""
    flow_run = yield from hold(context, found, look_seconds=look_seconds)
    # It went on, and may since have been paused by another task, or failed and be tried again.
    if flow_run.state.is_final() or flow_run.state.is_cancelling():
        yield from _end(context, flow_run.state)


def _end(context: RunContext, state: State) -> Steps[None]:
    """Raise what says that the run does not go on."""
    name = context.flow_run.name
    if state.is_cancelling():
        yield Sleep(_INTERRUPTION_SECONDS, context)  # it is raised there
        raise CancelInterrupt
    if is_unresumed(state):
        raise FlowPauseTimeout(UNRESUMED)
    raise RunFinalError(f"flow run {name!r} is {state.name}; it cannot go on")


def _checked_seconds(option: str, seconds: object) -> float | None:
    if seconds is None or seconds == math.inf:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise UsageError(f"{option}={seconds!r} is not a number of seconds of at least 0")
    return float(seconds)


def _checked_key(key: object) -> str | None:
    if key is not None and (not isinstance(key, str) or not key):
        raise UsageError(f"key={key!r} is not a text")
    return key
