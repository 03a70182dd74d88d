"""See flow runs, read their logs, wait for them, pause, resume, cancel and delete them.

``prefectlite flow-run``. What reads the registry writes to it only to record which processes died.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from itertools import islice
from typing import Annotated

from prefectlite import console
from prefectlite.cancel_orders import DEFAULT_GRACE_SECONDS, Orders
from prefectlite.clock import duration_text
from prefectlite.commands import Argument, Option
from prefectlite.endings import TIMED_OUT, exit_code_of, tell_ending
from prefectlite.errors import RunNotFinalError, UsageError
from prefectlite.listings import (
    FlowOption,
    JsonListOption,
    JsonOption,
    LimitOption,
    StateOption,
    newest,
    note_cut,
    settled_registry,
    writable_registry,
)
from prefectlite.records import FlowRun, LogLine, Pause
from prefectlite.registry import Registry
from prefectlite.settling import settle, wait_for_supervisor
from prefectlite.states import State
from prefectlite.waiting import wait_for_flow_runs

_Reference = Annotated[
    str, Argument("The flow run's id, the start of it, or its name.", metavar="ID")
]
_References = Annotated[
    list[str], Argument("Flow runs: ids, starts of ids, or names.", metavar="ID")
]


class Level(StrEnum):
    """The levels of log lines, by name."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def number(self) -> int:
        """The level as ``logging`` counts: 10 for debug, 10 more for each of the next."""
        return 10 * (1 + [*Level].index(self))


def ls(
    *,
    state: StateOption = None,
    flow: FlowOption = None,
    limit: LimitOption = None,
    as_json: JsonListOption = False,
) -> None:
    """List flow runs, newest first.

    Examples:
        prefectlite flow-run ls --state failed --state crashed
        prefectlite flow-run ls --flow my-flow --limit 1 --json
    """
    registry = settled_registry()
    flow_runs, is_cut = newest(
        lambda most: registry.list_flow_runs(states=state or (), flow_names=flow or (), limit=most),
        limit,
    )
    if as_json:
        console.out_json([flow_run.dict() for flow_run in flow_runs])
    else:
        _print_table(flow_runs)
    if is_cut:
        note_cut()


def inspect(
    id: _Reference,  # noqa: A002 - the name of the argument
    *,
    as_json: JsonOption = False,
) -> None:
    """Show a flow run: its states, task runs and subflow runs.

    Examples:
        prefectlite flow-run inspect gigantic-cockatoo
        prefectlite flow-run inspect 3f2a9c1e --json
    """
    registry = settled_registry()
    flow_run = registry.find_flow_run(id)
    history = registry.state_history(flow_run)
    counts = registry.count_task_runs(flow_run.id)
    subflow_runs = registry.list_flow_runs(parent_flow_run_id=flow_run.id, limit=None)
    waits_for = registry.pauses.find_pause(flow_run.id) if flow_run.state.is_paused() else None
    if as_json:
        console.out_json(
            {
                **flow_run.dict(),
                "pause": waits_for and waits_for.dict(),
                "states": [change.dict() for change in history],
                "task_run_counts": counts,
                "subflow_runs": [subflow_run.dict() for subflow_run in subflow_runs],
            }
        )
        return
    _print_fields(flow_run, waits_for)
    if waits_for is not None and waits_for.input_schema is not None:
        from prefectlite.run_inputs import fields  # few runs need it

        console.out()
        header = ["ASKS FOR", "TYPE", "DEFAULT", "MEANING"]
        console.out_table(header, fields(waits_for.input_schema), cut=["MEANING"])
    console.out()
    console.out_history(history)
    if counts:
        console.out()
        console.out_table(
            ["TASK RUNS", "STATE"], [[str(count), name] for name, count in counts.items()]
        )
    if subflow_runs:
        console.out("\nSubflow runs")
        _print_table(subflow_runs)


def logs(
    id: _Reference,  # noqa: A002 - the name of the argument
    *,
    level: Annotated[
        Level,
        Option(
            "--level", "-l", description="Only lines of this level and above.", ignore_case=True
        ),
    ] = Level.DEBUG,
    limit: Annotated[
        int | None,
        Option("--limit", description="Only the first N lines.", metavar="N", minimum=1),
    ] = None,
    tail: Annotated[
        int | None,
        Option("--tail", "-n", description="Only the last N lines.", metavar="N", minimum=1),
    ] = None,
    as_json: Annotated[bool, Option("--json", description="Print one JSON object a line.")] = False,
) -> None:
    """Print the log lines of a flow run and its task runs.

    They come in the order in which they reached the record, which for the output of child processes
    is a little later than they were written.

    Examples:
        prefectlite flow-run logs gigantic-cockatoo --level warning
        prefectlite flow-run logs 3f2a9c1e --tail 20
    """
    from prefectlite.log_listings import Sources, read_lines

    registry = settled_registry()
    flow_run = registry.find_flow_run(id)
    wait_for_supervisor(flow_run)
    lines = (line for line in read_lines(registry, flow_run.id) if line.level >= level.number)
    chosen: Iterable[LogLine] = islice(lines, limit)
    if tail is not None:
        chosen = deque(chosen, maxlen=tail)
    if as_json:
        for line in chosen:
            console.out_json_line(line.dict())
        return
    sources = Sources(registry, flow_run)
    for line in chosen:
        source = sources.name(line)
        console.out(console.log_text(line.timestamp, line.level, source, line.message))


def delete(
    ids: _References,
    *,
    force: Annotated[
        bool, Option("--force", description="Delete also runs that are not in a final state.")
    ] = False,
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list of the deleted runs.")
    ] = False,
) -> None:
    """Delete flow runs with their task runs, states, logs and stored results. Subflow runs stay.

    Nothing is deleted unless all of them can be.

    Examples:
        prefectlite flow-run delete gigantic-cockatoo
        prefectlite flow-run delete 3f2a9c1e 77b0d4aa --force
    """
    registry = writable_registry()
    settle(registry, lambda: registry)
    found = [registry.find_flow_run(reference) for reference in ids]
    flow_runs = {flow_run.id: flow_run for flow_run in found}
    for flow_run in flow_runs.values():
        if not force and not flow_run.state.is_final():
            raise RunNotFinalError(
                f"flow run {flow_run.name!r} is {flow_run.state.name}, which is not final",
                hint="wait for its end, or delete it with --force",
            )
    for flow_run in flow_runs.values():
        _delete_with_results(registry, flow_run)
        console.say(f"Deleted flow run '{console.escaped(flow_run.name)}' ({flow_run.id})")
    if as_json:
        console.out_json([flow_run.dict() for flow_run in flow_runs.values()])


def wait(
    ids: _References,
    *,
    any_of_them: Annotated[
        bool, Option("--any", description="Return when one of them has; else all must.")
    ] = False,
    until: Annotated[
        str | None,
        Option(
            "--for",
            description="Wait for this state, by its name or type, instead of a final one.",
            metavar="STATE",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        Option("--timeout", description="Wait no longer than this.", metavar="SECONDS", minimum=0),
    ] = None,
    as_json: JsonListOption = False,
) -> int:
    """Wait until flow runs have ended, and exit with the code that says how.

    Of several it is the code of the first in their order that is not 0. It is 124 where the time
    is over first, and 1 where a run has ended and will never be in the state that was asked for.

    Examples:
        prefectlite flow-run wait gigantic-cockatoo && echo done
        prefectlite flow-run wait 3f2a9c1e --for running --timeout 60
    """
    registry = settled_registry()
    asked = [registry.find_flow_run(reference).id for reference in ids]
    needed = 1 if any_of_them else len(asked)
    flow_runs = wait_for_flow_runs(
        registry,
        asked,
        until=lambda state: _is_in(state, until),
        timeout_seconds=timeout,
        needed=needed,
    )
    for flow_run in flow_runs:
        wait_for_supervisor(flow_run)
    if as_json:
        console.out_json([flow_run.dict() for flow_run in flow_runs])
    reached = [run for run in flow_runs if run.state.is_final() or _is_in(run.state, until)]
    if len(reached) < needed:
        _tell_unreached(flow_runs, until, timeout)
        return TIMED_OUT
    codes = [_code(run, until) for run in reached]
    return next(filter(None, codes), 0)


def _tell_unreached(flow_runs: list[FlowRun], until: str | None, timeout: float | None) -> None:
    """Say which runs have not come to where they were waited for."""
    for flow_run in flow_runs:
        state = flow_run.state
        if state.is_final() or _is_in(state, until):
            continue
        hint = f"prefectlite flow-run resume {flow_run.id[:8]}" if state.is_paused() else None
        still = f"flow run {flow_run.name!r} is still {state.name}"
        console.error(f"{still} after {duration_text(timeout or 0)}", hint=hint)


def _is_in(state: State, word: str | None) -> bool:
    """Return whether a state is the one that a word means, by its name or type."""
    return word is not None and word.upper() in (state.type, state.name.upper())


def _code(flow_run: FlowRun, until: str | None) -> int:
    """Return the exit code for a run that was waited for, and say why it is not 0."""
    state = flow_run.state
    if _is_in(state, until) or (until is None and state.is_completed()):
        return 0
    tell_ending(flow_run, state)
    return exit_code_of(state) or 1


def cancel(
    ids: Annotated[
        list[str] | None, Argument("Flow runs: ids, starts of ids, or names.", metavar="ID")
    ] = None,
    *,
    flow: FlowOption = None,
    state: StateOption = None,
    every: Annotated[
        bool, Option("--all", description="Cancel every flow run that has not ended.")
    ] = False,
    wait: Annotated[
        bool, Option("--wait", "-w", description="Return when they have ended.")
    ] = False,
    grace: Annotated[
        float,
        Option(
            "--grace",
            description="What they get to end by themselves before they are killed.",
            metavar="SECONDS",
            minimum=0,
        ),
    ] = DEFAULT_GRACE_SECONDS,
    force: Annotated[
        bool,
        Option(
            "--force",
            description="Mark as Cancelled what cannot be reached, though it may still run.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", description="Only show which would be cancelled.")
    ] = False,
    as_json: JsonListOption = False,
) -> int:
    """Cancel flow runs: their code is ended, and what does not end in time is killed.

    Without --wait, it goes on in the background where a run takes longer than a moment.

    Examples:
        prefectlite flow-run cancel gigantic-cockatoo --wait
        prefectlite flow-run cancel --flow my-flow --grace 5
    """
    registry = writable_registry()
    settle(registry, lambda: registry)
    chosen = _chosen(registry, ids or [], flow or [], state or [], every=every)
    if dry_run:
        console.out_json([run.dict() for run in chosen]) if as_json else _print_table(chosen)
        return 0
    if not chosen:
        console.note("there is nothing to cancel")
    orders = Orders(registry, grace_seconds=grace, is_forced=force)
    ended = orders.carry_out(chosen, wait=wait)
    if as_json:
        console.out_json([run.dict() for run in ended])
    return orders.exit_code


def pause(
    ids: _References,
    *,
    timeout: Annotated[
        float | None,
        Option(
            "--timeout",
            description="Fail a run that is not resumed within this time; never if not given.",
            metavar="SECONDS",
            minimum=0,
        ),
    ] = None,
    as_json: JsonListOption = False,
) -> int:
    """Pause running flow runs: each stops at its next task until it is resumed.

    Tasks that were submitted finish. A run that comes to its end without another task ends.

    Examples:
        prefectlite flow-run pause gigantic-cockatoo
        prefectlite flow-run pause 3f2a9c1e --timeout 3600
    """
    from prefectlite import pauses
    from prefectlite.run_orders import change_each

    def pause_one(registry: Registry, flow_run: FlowRun) -> FlowRun:
        told = "It stops at its next task."
        return pauses.pause(registry, flow_run, told, timeout_seconds=timeout, pause=Pause())

    return change_each(ids, pause_one, done="Paused", as_json=as_json)


def resume(
    ids: _References,
    *,
    run_input: Annotated[
        list[str] | None,
        Option(
            "--input",
            "-i",
            description="An answer to what it asks for: JSON, or else plain text; may be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    input_json: Annotated[
        str | None,
        Option(
            "--input-json",
            description="All answers as a JSON object, or @FILE, or - for stdin.",
            metavar="JSON",
        ),
    ] = None,
    as_json: JsonListOption = False,
) -> int:
    """Let paused flow runs go on, with an answer to what they ask for.

    What a run asks for is shown by inspect. Of several, those that can be are resumed.

    Examples:
        prefectlite flow-run resume gigantic-cockatoo
        prefectlite flow-run resume 3f2a9c1e --input approved=true --input comment="looks good"
    """
    from prefectlite.parameter_options import pairs, parameters_of
    from prefectlite.run_orders import change_each, resume_one

    given = parameters_of(input_json, option="--input-json")
    texts = pairs("--input", run_input or [])
    return change_each(
        ids,
        lambda registry, flow_run: resume_one(registry, flow_run, given, texts),
        done="Resumed",
        as_json=as_json,
    )


def _chosen(
    registry: Registry, ids: list[str], flows: list[str], states: list[str], *, every: bool
) -> list[FlowRun]:
    """Return the flow runs to cancel: those named, else those that the options describe."""
    if ids:
        if flows or states or every:
            raise UsageError("name flow runs or describe them, not both")
        found = [registry.find_flow_run(reference) for reference in ids]
        return list({run.id: run for run in found}.values())
    if not (flows or states or every):
        raise UsageError(
            "which flow runs?", hint="name some, or say --flow NAME, --state STATE or --all"
        )
    runs = registry.list_flow_runs(states=states, flow_names=flows, limit=None)
    # A subflow run ends with the run that called it.
    ids_ = {run.id for run in runs}
    return [run for run in runs if not run.state.is_final() and run.parent_flow_run_id not in ids_]


def _delete_with_results(registry: Registry, flow_run: FlowRun) -> None:
    from prefectlite.results import delete_result  # no listing needs what it imports

    task_runs = registry.list_task_runs(flow_run_id=flow_run.id, limit=None)
    # First the record: a result that is left over is harmless, one that is missed is not.
    registry.delete_flow_run(flow_run.id)
    for run_id in (flow_run.id, *(task_run.id for task_run in task_runs)):
        delete_result(run_id)


def _print_table(flow_runs: list[FlowRun]) -> None:
    ids = console.id_texts([flow_run.id for flow_run in flow_runs])
    console.out_table(
        ["ID", "FLOW", "NAME", "STATE", "STARTED", "DURATION"],
        [
            [
                id_,
                flow_run.flow_name,
                flow_run.name,
                console.state_text(flow_run.state),
                console.moment_text(flow_run.started_at),
                console.seconds_text(flow_run.duration_seconds),
            ]
            for id_, flow_run in zip(ids, flow_runs, strict=True)
        ],
        cut=["FLOW", "NAME"],
    )


def _print_fields(flow_run: FlowRun, waits_for: Pause | None) -> None:
    console.out_fields(
        {
            "Flow run": flow_run.name,
            "ID": flow_run.id,
            "Flow": flow_run.flow_name,
            "State": console.state_text(flow_run.state),
            "Message": flow_run.state.message or "",
            "Waits for": (waits_for and waits_for.key) or "",
            "Resume by": console.moment_text(waits_for.resume_by if waits_for else None),
            "Parameters": console.json_text(flow_run.parameters) if flow_run.parameters else "",
            "Tags": ", ".join(flow_run.tags),
            "Version": flow_run.version or "",
            "Entrypoint": flow_run.entrypoint or "",
            "Deployment": flow_run.deployment_id or "",
            "Work queue": flow_run.work_queue or "",
            "Scheduled": console.moment_text(flow_run.scheduled_at),
            "Infrastructure": flow_run.infrastructure_pid or "",
            "Parent flow run": flow_run.parent_flow_run_id or "",
            "Parent task run": flow_run.parent_task_run_id or "",
            "Attempts": str(flow_run.run_count),
            "Created": console.moment_text(flow_run.created_at),
            "Started": console.moment_text(flow_run.started_at),
            "Ended": console.moment_text(flow_run.ended_at),
            "Duration": console.seconds_text(flow_run.duration_seconds),
        }
    )


COMMANDS = (ls, inspect, logs, wait, cancel, pause, resume, delete)
