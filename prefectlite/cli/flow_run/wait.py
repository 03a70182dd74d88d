"""Until flow runs have ended: ``prefectlite flow-run wait``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from prefectlite import console
from prefectlite.clock import duration_text
from prefectlite.commands import Option, Seconds
from prefectlite.endings import TIMED_OUT, exit_code_of, tell_ending
from prefectlite.errors import NotFoundError
from prefectlite.listings import JsonListOption, settled_registry
from prefectlite.names import near_hint
from prefectlite.records import FlowRun
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.selections import FlowRunSelection, check_states, note_unknown_states
from prefectlite.settling import wait_for_supervisor
from prefectlite.states import UNFINISHED, State
from prefectlite.waiting import wait_for_flow_runs


def wait(
    selection: FlowRunSelection,
    *,
    any_of_them: Annotated[
        bool, Option("--any", description="Return when one of them has; else all must.")
    ] = False,
    awaited: Annotated[
        str | None,
        Option(
            "--for",
            description="Wait for this state, by its name or type, instead of a final one.",
            metavar="STATE",
            complete="state",
        ),
    ] = None,
    timeout: Annotated[
        Seconds | None, Option("--timeout", description="Wait no longer than this.", minimum=0)
    ] = None,
    as_json: JsonListOption = False,
) -> int:
    """Wait until flow runs have ended, and exit with the code that says how.

    Of several it is the code of the first in their order that is not 0. It is 124 where the time
    is over first, and 1 where a run has ended and will never be in the state that was asked for. Of
    those that options describe, it is waited for each that has not ended by now.

    Examples:
        prefectlite flow-run wait gigantic-cockatoo && echo done
        prefectlite flow-run wait 3f2a9c1e --for running --timeout 60s
        prefectlite flow-run wait --flow my-flow --any --timeout 10m
    """
    registry = settled_registry()
    if awaited is not None:
        check_states([awaited])
    chosen = selection.choose(registry, UNFINISHED)
    if not chosen:
        _check_flows(registry, selection.flow or ())
        if as_json:
            console.out_json([])
        return 0
    if awaited is not None:
        note_unknown_states([awaited])
    needed = 1 if any_of_them else len(chosen)
    flow_runs = wait_for_flow_runs(
        registry,
        [run.id for run in chosen],
        until=lambda state: _is_in(state, awaited),
        timeout_seconds=timeout,
        needed=needed,
    )
    for flow_run in flow_runs:
        wait_for_supervisor(flow_run)
    if as_json:
        console.out_json([flow_run.dict() for flow_run in flow_runs])
    reached = [run for run in flow_runs if run.state.is_final() or _is_in(run.state, awaited)]
    if len(reached) < needed:
        _tell_unreached(flow_runs, awaited, timeout)
        return TIMED_OUT
    codes = [_code(run, awaited) for run in reached]
    return next(filter(None, codes), 0)


def _check_flows(registry: Registry, names: Collection[str]) -> None:
    """Refuse names of flows that have never run: a script must not take a slip for success."""
    for name in names:
        if not registry.list_flow_runs(FlowRunFilter(flow_names=[name]), limit=1):
            known = [flow.name for flow in registry.list_flows()]
            hint = near_hint(name, known) or "see: prefectlite flow ls"
            raise NotFoundError(f"there is no flow run of a flow {name!r}", hint=hint)


def _tell_unreached(flow_runs: list[FlowRun], awaited: str | None, timeout: float | None) -> None:
    """Say which runs have not come to where they were waited for."""
    for flow_run in flow_runs:
        state = flow_run.state
        if state.is_final() or _is_in(state, awaited):
            continue
        hint = f"prefectlite flow-run resume {flow_run.id[:8]}" if state.is_paused() else None
        still = f"flow run {flow_run.name!r} is still {state.name}"
        console.error(f"{still} after {duration_text(timeout or 0)}", hint=hint)


def _is_in(state: State, word: str | None) -> bool:
    """Return whether a state is the one that a word means, by its name or type."""
    return word is not None and word.upper() in (state.type, state.name.upper())


def _code(flow_run: FlowRun, awaited: str | None) -> int:
    """Return the exit code for a run that was waited for, and say why it is not 0."""
    state = flow_run.state
    if _is_in(state, awaited) or (awaited is None and state.is_completed()):
        return 0
    tell_ending(flow_run, state)
    return exit_code_of(state) or 1


COMMANDS = (wait,)
