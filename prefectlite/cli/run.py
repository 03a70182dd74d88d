"""Run a flow here and now, and exit as it ended.

``prefectlite run``. Log lines go to stderr, and stdout is the flow's own; with ``--json`` it is the
document's alone, and what the flow prints goes to stderr too.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

from prefectlite import console
from prefectlite.commands import Argument, Option, Seconds
from prefectlite.endings import CANCELLED, exit_code_of, tell_ending
from prefectlite.entrypoints import load_flow
from prefectlite.errors import InfrastructureError, ParameterTypeError
from prefectlite.flow_engine import FlowRequest
from prefectlite.interruptions import TerminationSignal
from prefectlite.json_values import to_json_value
from prefectlite.listings import writable_registry
from prefectlite.parameter_options import (
    ParamOption,
    ParamsOption,
    RunNameOption,
    RunTagOption,
    pairs,
    parameters_of,
    stdout_to_stderr,
)
from prefectlite.parameters import from_text
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_FLOW_RUN_ID, PREFECTLITE_REGISTRY, TERM
from prefectlite.states import Crashed, State

if TYPE_CHECKING:
    from prefectlite.flows import Flow

_INTERRUPTED = 130


def run(
    entrypoint: Annotated[
        str,
        Argument(
            "The flow: 'path.py:flow' or 'module:flow'; the part after the colon may be left"
            " out where there is one flow.",
            metavar="ENTRYPOINT",
        ),
    ],
    *,
    param: ParamOption = None,
    params: ParamsOption = None,
    name: RunNameOption = None,
    tag: RunTagOption = None,
    timeout: Annotated[
        Seconds | None,
        Option(
            "--timeout",
            description="How long the flow may take, instead of its own timeout; 0 for no limit.",
            minimum=0,
        ),
    ] = None,
    no_progress: Annotated[
        bool, Option("--no-progress", description="Show no progress on a terminal.")
    ] = False,
    detach: Annotated[
        bool,
        Option(
            "--detach",
            "-d",
            description="Leave it running in the background, print its id, and return.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        Option(
            "--json",
            description="Print the flow run, when it has ended, as JSON; what the flow itself prints"
            " then goes to stderr. With --detach, print it as it begins.",
        ),
    ] = False,
) -> int:
    """Run a flow here and now, and exit as it ended.

    The exit code is 0 for Completed, 1 for Failed or Crashed, 124 for TimedOut, 130 for Ctrl-C and
    143 for Cancelled or SIGTERM. With --detach it is 0 once the run is under way.

    Examples:
        prefectlite run prefectlite.examples.hello -p name=you
        prefectlite run my_flows.py:etl --params @etl.json --timeout 600
        prefectlite run my_flows.py:etl --detach
    """
    if detach:
        with stdout_to_stderr():
            flow = load_flow(entrypoint)
    else:
        flow = load_flow(entrypoint)
    parameters = parameters_of(params) | from_text(flow.fn, pairs("-p", param or []))
    if detach:
        from prefectlite.launching import new_detached_run

        tags = tuple(sorted({*(tag or ())} - {""}))
        flow_run = new_detached_run(
            flow, entrypoint, parameters, name=name, tags=tags, timeout_seconds=timeout
        )
        return _detached(flow_run, as_json=as_json)
    if timeout is not None:
        flow = flow.with_options(timeout_seconds=timeout)
    request = FlowRequest(
        flow,
        (),
        parameters,
        name=name,
        tags=frozenset(tag or ()) - {""},
        entrypoint=entrypoint,
    )
    with stdout_to_stderr() if as_json else nullcontext():
        state, exit_code = _run(flow, request, show_progress=not no_progress)
    run_count = request.flow_run.run_count if request.flow_run else 0
    if isinstance(state.data, ParameterTypeError) and not run_count:  # refused before it began
        raise state.data
    if as_json:
        _print_json(request, state)
    return _told(request, state, exit_code)


def _detached(flow_run: FlowRun, *, as_json: bool) -> int:
    """Start a flow run in the background, print it or its id, and return the exit code."""
    from prefectlite.launching import launch

    registry = writable_registry()
    registry.create_flow_run(flow_run)
    try:
        flow_run = launch(registry, flow_run)
    except InfrastructureError as error:
        registry.change_state(flow_run, Crashed(str(error)))
        raise
    if as_json:
        console.out_json(flow_run.dict())
    else:
        console.out(flow_run.id)
    if PREFECTLITE_FLOW_RUN_ID.value():
        console.note("it was started inside another run, and is ended when that has ended")
    if flow_run.state.is_crashed():
        tell_ending(flow_run, flow_run.state)
        return exit_code_of(flow_run.state)
    name = console.escaped(flow_run.name)
    console.say(f"Flow run '{name}' is under way: prefectlite flow-run wait {flow_run.id[:8]}")
    return 0


def _run(
    flow: Flow[..., object], request: FlowRequest, *, show_progress: bool
) -> tuple[State, int | None]:
    """Run the flow to its end, and return its final state and what an interruption exits with.

    Raises:
        BaseException: What interrupted it, where it has no final state on record.
    """
    try:
        if not show_progress or not sys.stderr.isatty() or TERM.value() in {"", "dumb"}:
            return flow.run_to_end(request), None
        from prefectlite.progress import Progress

        with Progress(request):
            return flow.run_to_end(request), None
    except Exception:
        raise
    except BaseException as interruption:
        if request.flow_run is None or not request.flow_run.state.is_final():
            raise
        return request.flow_run.state, _exit_code_of(interruption)


def _exit_code_of(interruption: BaseException) -> int | None:
    """Return the exit code of a signal; None for the rest, such as a flow's own ``sys.exit``."""
    if isinstance(interruption, KeyboardInterrupt):
        return _INTERRUPTED
    return CANCELLED if isinstance(interruption, TerminationSignal) else None


def _print_json(request: FlowRequest, state: State) -> None:
    if request.flow_run is None:
        return
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    flow_run = registry.find_flow_run(request.flow_run.id)
    console.out_json(
        {
            **flow_run.dict(),
            "task_run_counts": registry.count_task_runs(flow_run.id),
            "result": to_json_value(state.result()) if state.is_completed() else None,
        }
    )


def _told(request: FlowRequest, state: State, exit_code: int | None) -> int:
    """Say what became of a run that did not complete, and return the exit code."""
    if state.is_completed() and exit_code is None:
        return 0
    if request.flow_run is not None:
        tell_ending(request.flow_run, state)
    return exit_code_of(state) if exit_code is None else exit_code


COMMANDS = (run,)
