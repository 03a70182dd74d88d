"""See task runs and what became of them.

``prefectlite task-run``. It writes to the registry only to record which processes died.
"""

from __future__ import annotations

from typing import Annotated

from prefectlite import console
from prefectlite.commands import Argument, Option
from prefectlite.listings import (
    JsonListOption,
    JsonOption,
    LimitOption,
    StateOption,
    newest,
    note_cut,
    settled_registry,
)


def ls(
    *,
    flow_run: Annotated[
        str | None,
        Option(
            "--flow-run",
            description="Only those of this flow run: an id, the start of one, or a name.",
            metavar="ID",
        ),
    ] = None,
    state: StateOption = None,
    limit: LimitOption = None,
    as_json: JsonListOption = False,
) -> None:
    """List task runs, newest first.

    Examples:
        prefectlite task-run ls --flow-run gigantic-cockatoo
        prefectlite task-run ls --state failed --json
    """
    registry = settled_registry()
    flow_run_id = registry.find_flow_run(flow_run).id if flow_run else None
    task_runs, is_cut = newest(
        lambda most: registry.list_task_runs(
            flow_run_id=flow_run_id, states=state or (), limit=most
        ),
        limit,
    )
    if as_json:
        console.out_json([task_run.dict() for task_run in task_runs])
    else:
        ids = console.id_texts([task_run.id for task_run in task_runs])
        flow_run_ids = console.id_texts([task_run.flow_run_id for task_run in task_runs])
        console.out_table(
            ["ID", "FLOW RUN", "NAME", "STATE", "STARTED", "DURATION"],
            [
                [
                    id_,
                    flow_run_id,
                    task_run.name,
                    console.state_text(task_run.state),
                    console.moment_text(task_run.started_at),
                    console.seconds_text(task_run.duration_seconds),
                ]
                for id_, flow_run_id, task_run in zip(ids, flow_run_ids, task_runs, strict=True)
            ],
            cut=["NAME"],
        )
    if is_cut:
        note_cut()


def inspect(
    id: Annotated[str, Argument("The task run's id, the start of it, or its name.", metavar="ID")],  # noqa: A002 - the name of the argument
    *,
    as_json: JsonOption = False,
) -> None:
    """Show a task run: its fields and every state that it has had.

    Examples:
        prefectlite task-run inspect 3f2a9c1e
        prefectlite task-run inspect my_task-0 --json
    """
    registry = settled_registry()
    task_run = registry.find_task_run(id)
    history = registry.state_history(task_run)
    if as_json:
        console.out_json({**task_run.dict(), "states": [change.dict() for change in history]})
        return
    console.out_fields(
        {
            "Task run": task_run.name,
            "ID": task_run.id,
            "Task": task_run.task_name,
            "Flow run": task_run.flow_run_id,
            "State": console.state_text(task_run.state),
            "Message": task_run.state.message or "",
            "Tags": ", ".join(task_run.tags),
            "Parent task run": task_run.parent_task_run_id or "",
            "Cache key": task_run.cache_key or "",
            "Attempts": str(task_run.run_count),
            "Created": console.moment_text(task_run.created_at),
            "Started": console.moment_text(task_run.started_at),
            "Ended": console.moment_text(task_run.ended_at),
            "Duration": console.seconds_text(task_run.duration_seconds),
        }
    )
    console.out()
    console.out_history(history)


COMMANDS = (ls, inspect)
