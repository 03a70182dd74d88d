"""All about one flow run: ``prefectlite flow-run inspect``."""

from __future__ import annotations

from prefectlite import console
from prefectlite.flow_run_tables import print_table
from prefectlite.listings import FlowRunReference, JsonOption, settled_registry
from prefectlite.records import FlowRun, Pause


def inspect(
    id: FlowRunReference,  # noqa: A002 - the name of the argument
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
        print_table(subflow_runs)


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
