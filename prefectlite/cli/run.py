"""Run a flow here and now, and exit as it ended.

``prefectlite run``. Log lines go to stderr, and stdout is the flow's own; with ``--json`` it is the
document's alone, with ``--events -`` the events', and what the flow prints goes to stderr too. What a
report needs is imported where one is asked for, or where GitHub runs this.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prefectlite import console, logs
from prefectlite.commands import Argument, Option, Seconds
from prefectlite.endings import CANCELLED, exit_code_of, tell_ending
from prefectlite.entrypoints import load_flow
from prefectlite.errors import (
    InfrastructureError,
    OutputClosedError,
    ParameterTypeError,
    PrefectLiteError,
    StateConflictError,
    UsageError,
)
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
from prefectlite.settings import (
    GITHUB_ACTIONS,
    PREFECTLITE_FLOW_RUN_ID,
    PREFECTLITE_REGISTRY,
)
from prefectlite.states import Crashed, State
from prefectlite.terminals import can_redraw

if TYPE_CHECKING:
    from prefectlite.flows import Flow
    from prefectlite.run_events import RunEvents

_INTERRUPTED = 130


def run(
    entrypoint: Annotated[
        str,
        Argument(
            "The flow: 'path.py:flow' or 'module:flow'; the part after the colon may be left"
            " out where there is one flow.",
            metavar="ENTRYPOINT",
            complete="entrypoint",
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
    junit: Annotated[
        Path | None,
        Option(
            "--junit",
            description="Write what became of the task runs to FILE, as JUnit XML for a CI server,"
            " however the run ends.",
            metavar="FILE",
        ),
    ] = None,
    events: Annotated[
        str | None,
        Option(
            "--events",
            description="Write every state that the flow run, its task runs and its subflow runs"
            " take to FILE as it happens, one JSON object a line; - for stdout, and what the flow"
            " prints then goes to stderr.",
            metavar="FILE",
        ),
    ] = None,
    quiet: Annotated[
        bool,
        Option("--quiet", description="Show no progress, and only warnings and errors of the log."),
    ] = False,
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
    143 for Cancelled or SIGTERM. With --detach it is 0 once the run is under way. If the run
    Completed and a report cannot be written it is 5, or 141 where the reader of the events has gone.

    In GitHub Actions, failures are annotated, and the step gets a summary.

    Examples:
        prefectlite run prefectlite.examples.hello -p name=you
        prefectlite run my_flows.py:etl --params @etl.json --timeout 600
        prefectlite run my_flows.py:etl --detach
        prefectlite run my_flows.py:etl --quiet --junit etl.xml --events etl.jsonl
    """
    tags = frozenset(tag or ()) - {""}
    if detach:
        _refuse_reports(junit, events)
        with stdout_to_stderr():
            flow, parameters = _load(entrypoint, params, param or [])
        from prefectlite.launching import new_detached_run

        flow_run = new_detached_run(
            flow,
            entrypoint,
            parameters,
            name=name,
            tags=tuple(sorted(tags)),
            timeout_seconds=timeout,
        )
        return _detached(flow_run, as_json=as_json, is_quiet=quiet)
    if as_json and events == "-":
        raise UsageError("--json and --events - both want stdout", hint="give --events a file")
    with ExitStack() as stack:
        reports = _reports(stack, junit, events)
        if as_json or events == "-":
            stack.enter_context(stdout_to_stderr())
        if quiet:
            stack.callback(logs.show_from, logs.shown_level())
            logs.show_from(logging.WARNING)
        flow, parameters = _load(entrypoint, params, param or [])
        if timeout is not None:
            flow = flow.with_options(timeout_seconds=timeout)
        request = FlowRequest(flow, (), parameters, name=name, tags=tags, entrypoint=entrypoint)
        show_progress = not (no_progress or quiet or events == "-")
        state, exit_code = _run_and_report(flow, request, reports, show_progress=show_progress)
    run_count = request.flow_run.run_count if request.flow_run else 0
    if isinstance(state.data, ParameterTypeError) and not run_count:  # refused before it began
        raise state.data
    if as_json:
        _print_json(request, state)
    return _told(request, state, exit_code) or reports.exit_code


@dataclass(slots=True)
class _Reports:
    """What is written of a run for others to read.

    Attributes:
        junit: Where the JUnit file is to be; None for nowhere.
        events: Where the events go; None for nowhere.
        exit_code: 0, or that of the first of them that could not be written.
    """

    junit: Path | None
    events: RunEvents | None
    exit_code: int = 0


def _refuse_reports(junit: Path | None, events: str | None) -> None:
    """Refuse, with ``--detach``, what is written at the end of a run or on the way there."""
    for option, value in (("--junit", junit), ("--events", events)):
        if value is not None:
            raise UsageError(
                f"{option} needs the end of the run, and --detach does not wait for it",
                hint="leave one of them out, or follow it with: prefectlite flow-run watch",
            )


def _reports(stack: ExitStack, junit: Path | None, events: str | None) -> _Reports:
    """Open what is asked for, before the run begins and while stdout is still its own.

    Raises:
        OutputError: It cannot be written.
    """
    reports = _Reports(junit, None)
    if junit is not None:
        from prefectlite.output_files import output_path

        reports.junit = output_path(junit)
    if events is not None:
        from prefectlite.run_events import open_events

        reports.events = stack.enter_context(open_events(events))
    return reports


def _load(
    entrypoint: str, params: str | None, param: Sequence[str]
) -> tuple[Flow[..., object], dict[str, object]]:
    """Return a flow and the parameters to call it with."""
    flow = load_flow(entrypoint)
    return flow, parameters_of(params) | from_text(flow.fn, pairs("-p", param))


def _detached(flow_run: FlowRun, *, as_json: bool, is_quiet: bool) -> int:
    """Start a flow run in the background, print it or its id, and return the exit code."""
    from prefectlite.launching import launch

    registry = writable_registry()
    registry.create_flow_run(flow_run)
    try:
        flow_run = launch(registry, flow_run)
    except InfrastructureError as error:
        with suppress(StateConflictError):  # its supervisor was able to say so itself
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
    if not is_quiet:
        console.say(f"Flow run '{name}' is under way: prefectlite flow-run wait {flow_run.id[:8]}")
    return 0


def _run_and_report(
    flow: Flow[..., object], request: FlowRequest, reports: _Reports, *, show_progress: bool
) -> tuple[State, int | None]:
    """Do what ``_run`` does, and write the reports, whatever becomes of it."""
    events = reports.events
    try:
        with nullcontext() if events is None else events.following(request):
            try:
                return _run(flow, request, show_progress=show_progress)
            finally:  # before a reader of the events is waited for
                if request.flow_run is not None and (reports.junit or GITHUB_ACTIONS.value()):
                    reports.exit_code = _write(request.flow_run, reports.junit)
    finally:
        error = None if events is None else events.error
        if error is not None:
            reports.exit_code = reports.exit_code or error.exit_code
            if not isinstance(error, OutputClosedError):  # who has gone wants to hear no more
                console.error(error)


def _write(flow_run: FlowRun, junit: Path | None) -> int:
    """Write the reports on a run that is over; return 0, or the exit code of what went wrong."""
    from prefectlite.run_reports import read_reports

    registry = open_registry(PREFECTLITE_REGISTRY.value())
    try:
        registry.flush_logs()
        reports = read_reports(registry, flow_run.id, with_lines=junit is not None)
        if GITHUB_ACTIONS.value():
            from prefectlite.github import tell_github

            tell_github(reports)
        if junit is not None:
            from prefectlite.junit import write_junit

            write_junit(junit, reports)
    except PrefectLiteError as error:
        console.error(error)
        return error.exit_code
    return 0


def _run(
    flow: Flow[..., object], request: FlowRequest, *, show_progress: bool
) -> tuple[State, int | None]:
    """Run the flow to its end, and return its final state and what an interruption exits with.

    Raises:
        BaseException: What interrupted it, where it has no final state on record.
    """
    try:
        if not show_progress or not can_redraw(sys.stderr):
            return flow.run_to_end(request), None
        from prefectlite.run_progress import Progress

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
