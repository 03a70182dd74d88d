"""Pause and resume flow runs on record: for themselves, from outside, and at their deadlines.

The one place for each of these, for the engine, programs and commands. A run that is paused and not
resumed in time is Failed: the engine does that for its own run when the time comes, and whoever reads
runs for all, since a process that is stopped, or dead, cannot. Which of them is first makes no
difference: the state bears the time of the deadline.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from prefectlite.clock import now
from prefectlite.errors import (
    FlowPauseTimeout,
    InfrastructureNotAvailable,
    NotPausedError,
    StateConflictError,
    UsageError,
)
from prefectlite.process_trees import send
from prefectlite.records import FlowRun, Pause
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import Failed, Paused, Running, State

#: The message of a run that nobody has resumed in time; that of Prefect 2.8.
UNRESUMED = "The flow was paused and never resumed."
# An answer stands in the history of the run as far as a person reads it there.
_TOLD_CHARACTERS = 500
#: How the message of a run begins that has not taken what it was told.
REFUSED = "The answer was refused:"


def fail_overdue(registry: Registry) -> None:
    """Put on record that the runs which are paused for too long have Failed.

    Safe from several processes at once, and again.
    """
    for flow_run, pause in registry.pauses.list_overdue_flow_runs(now()):
        state = Failed(UNRESUMED)
        if pause.resume_by is not None:
            state = replace(state, timestamp=max(pause.resume_by, flow_run.state.timestamp))
        with suppress(StateConflictError):  # it was resumed or cancelled just in time, or is failed
            registry.change_state(flow_run, state)


def pause(
    registry: Registry,
    flow_run: FlowRun,
    told: str,
    *,
    timeout_seconds: float | None,
    pause: Pause,
    instead_of: Pause | None = None,
) -> FlowRun:
    """Move a running flow run to Paused, and return it as it then is.

    Args:
        told: The beginning of the state's message; it may be empty.
        timeout_seconds: How long it may stay so; None for ever, or as ``pause`` says.
        pause: What it waits for.
        instead_of: A pause of the run that has come to nothing: it gives up its key.

    Raises:
        StateConflictError: It is in another state, or has just changed.
        ConflictError: A pause with this key has been in the run.
    """
    state = Paused(told)
    if timeout_seconds is not None:
        pause = replace(pause, resume_by=_later(state.timestamp, timeout_seconds))
    until = f" by {pause.resume_by:%Y-%m-%d %H:%M:%S} UTC" if pause.resume_by else ""
    asks = ""
    if pause.input_schema is not None:
        from prefectlite.run_inputs import usage  # few pauses need it

        options = usage(pause.input_schema)
        asks = f", with: {options}" if options else ""
    state = replace(state, message=f"{told} It waits to be resumed{until}{asks}.".lstrip())
    return registry.pauses.pause_flow_run(flow_run, state, pause, instead_of=instead_of)


def resume(
    registry: Registry, flow_run: FlowRun, run_input: Mapping[str, object] | None = None
) -> FlowRun:
    """Let a paused flow run go on, wake its process, and return it as it then is.

    Args:
        flow_run: The run as the person saw it: an answer to one pause is none to a later one.
        run_input: What it is told, if it wants to be told something.

    Raises:
        NotPausedError: It is in another state.
        FlowPauseTimeout: It is too late.
        UsageError: The input is not what the run asks for.
    """
    run_input, seen_version = _as_json(run_input), flow_run.state_version
    while True:
        fail_overdue(registry)
        flow_run = registry.find_flow_run(flow_run.id)
        if flow_run.state.is_paused() and flow_run.state_version != seen_version:
            raise NotPausedError(
                f"flow run {flow_run.name!r} was resumed by another, and is paused again",
                hint=f"see what it waits for now: prefectlite flow-run inspect {flow_run.id}",
            )
        found = registry.pauses.find_pause(flow_run.id, state_version=flow_run.state_version)
        _check_paused(registry, flow_run)
        if found is not None and found.input_schema is not None:
            from prefectlite.run_inputs import check  # it imports pydantic

            check(found.input_schema, run_input or {})
        elif run_input:
            raise _unasked(flow_run)
        told = f"Resumed with {json.dumps(run_input)}" if run_input else "Resumed"
        state = Running(f"{told[:_TOLD_CHARACTERS]}.")
        if found is not None and found.resume_by is not None and state.timestamp >= found.resume_by:
            continue
        try:
            resumed = registry.pauses.resume_flow_run(flow_run, state, run_input=run_input)
        except StateConflictError:  # another one was quicker, or it is being cancelled
            continue
        _wake(resumed)
        return resumed


def _as_json(run_input: Mapping[str, object] | None) -> dict[str, object] | None:
    """Return an answer as JSON gives it back.

    Raises:
        UsageError: JSON cannot hold it.
    """
    try:
        answer: dict[str, object] = json.loads(json.dumps({**(run_input or {})}, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the answer cannot be kept on record: {error}",
            hint="give what JSON can say: texts, numbers, lists, dicts",
        ) from error
    return answer or None


def is_unresumed(state: State) -> bool:
    """Return whether a run with this state has Failed because nobody has resumed it in time."""
    return state.is_failed() and state.message == UNRESUMED


def is_refusal(state: State) -> bool:
    """Return whether a run is paused because it has not taken what it was told."""
    return state.is_paused() and (state.message or "").startswith(REFUSED)


def _check_paused(registry: Registry, flow_run: FlowRun) -> None:
    state = flow_run.state
    if is_unresumed(state):
        raise FlowPauseTimeout(
            f"flow run {flow_run.name!r} should have been resumed by"
            f" {state.timestamp:%Y-%m-%d %H:%M:%S} UTC, and has Failed",
            hint="run it again, with a longer timeout of its pause",
        )
    if not state.is_paused():
        raise NotPausedError(
            f"flow run {flow_run.name!r} is {state.name}, not Paused; it cannot be resumed",
            hint=_paused_inside(registry, flow_run),
        )


def _paused_inside(registry: Registry, flow_run: FlowRun) -> str | None:
    """Return a hint at the subflow runs that are paused."""
    found = registry.list_flow_runs(
        FlowRunFilter(parent_flow_run_id=flow_run.id, states=["paused"]), limit=None
    )
    commands = [f"prefectlite flow-run resume {child.id}" for child in found]
    return f"its subflow run is: {'; '.join(commands)}" if commands else None


def _unasked(flow_run: FlowRun) -> UsageError:
    return UsageError(
        f"flow run {flow_run.name!r} asks for nothing",
        hint=f"prefectlite flow-run resume {flow_run.id[:8]}",
    )


def _later(moment: datetime, seconds: float) -> datetime | None:
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:  # for ever, to all that live
        return None


def _wake(flow_run: FlowRun) -> None:
    """Have the run's process look at its record now, where it can be reached from here."""
    if flow_run.process is not None:
        # It does nothing to a process that does not listen for it.
        with suppress(InfrastructureNotAvailable, OSError):  # it looks by itself from time to time
            send(flow_run.process, signal.SIGURG)
