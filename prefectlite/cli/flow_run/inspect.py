"""All about one flow run: ``prefectlite flow-run inspect``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from prefectlite import console, terminals
from prefectlite.commands import Option
from prefectlite.errors import UsageError
from prefectlite.flow_run_tables import print_runs
from prefectlite.listings import FlowRunReference, JsonOption, settled_registry
from prefectlite.records import FlowRun, Pause
from prefectlite.references import find_one
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter

# More are no picture any more.
_MOST_ROWS = 50


def inspect(
    id: FlowRunReference,  # noqa: A002 - the name of the argument
    *,
    timeline: Annotated[
        bool,
        Option("--timeline", description="Show when its task runs and subflow runs ran."),
    ] = False,
    svg: Annotated[
        Path | None,
        Option("--svg", description="Write that as a picture, an SVG file, or to stdout for -."),
    ] = None,
    limit: Annotated[
        int | None,
        Option(
            "--limit",
            "-n",
            description="With --timeline and --svg: at most N runs, the longest ones;"
            f" {_MOST_ROWS} if not given.",
            metavar="N",
            minimum=1,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a flow run: its states, task runs and subflow runs.

    Examples:
        prefectlite flow-run inspect gigantic-cockatoo
        prefectlite flow-run inspect gigantic-cockatoo --timeline
        prefectlite flow-run inspect gigantic-cockatoo --svg run.svg
        prefectlite flow-run inspect gigantic-cockatoo --json
    """
    registry = settled_registry()
    flow_run = find_one(id, registry.find_flow_run)
    if timeline or svg:
        if as_json:
            raise UsageError("a timeline is not shown as JSON", hint="leave out --json")
        _show_timeline(registry, flow_run, svg, limit=limit or _MOST_ROWS, is_shown=timeline)
        return
    if limit is not None:
        raise UsageError("--limit is for --timeline and --svg")
    history = registry.state_history(flow_run)
    counts = registry.count_task_runs(flow_run.id)
    subflow_runs = registry.list_flow_runs(
        FlowRunFilter(parent_flow_run_id=flow_run.id), limit=None
    )
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
        print_runs(subflow_runs)


def _show_timeline(
    registry: Registry, flow_run: FlowRun, svg: Path | None, *, limit: int, is_shown: bool
) -> None:
    """Print a timeline, or write it to a file, or both."""
    from prefectlite.timelines import read_timeline  # few who inspect a run want it

    found = read_timeline(registry, flow_run, limit=limit)
    if svg is not None:
        from prefectlite.output_files import output_path, write_file
        from prefectlite.timeline_pictures import timeline_svg

        if str(svg) == "-":
            console.out(timeline_svg(found).removesuffix("\n"))
        else:
            write_file(output_path(svg), [timeline_svg(found)])
            console.say(f"Wrote {console.escaped(str(svg))}")
    if is_shown:
        from prefectlite.timeline_texts import timeline_lines

        lines = timeline_lines(
            found,
            columns=terminals.columns(sys.stdout),
            is_unicode=console.shows_unicode(sys.stdout),
        )
        for line in lines:
            console.out_line(line)
    if found.missing:
        console.note(f"{found.missing} runs that were shorter are not shown; --limit N shows more")


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


COMMANDS = (inspect,)
