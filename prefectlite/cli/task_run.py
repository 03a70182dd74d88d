"""See task runs and what became of them.

``prefectlite task-run``. It writes to the registry only to record which processes died.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated

from prefectlite import console
from prefectlite.commands import Argument, Option
from prefectlite.listings import JsonOption, settled_registry
from prefectlite.log_listings import LogOptions, show_logs
from prefectlite.record_tables import Column, Listing, RecordTable, first, note_cut, show
from prefectlite.records import LogQuery, TaskRun
from prefectlite.references import ONE_FROM_STDIN, find_one
from prefectlite.run_filters import NEWEST_FIRST, TASK_RUN_ORDERS, TaskRunFilter
from prefectlite.selections import (
    FlowOption,
    SinceOption,
    StateOption,
    TagOption,
    TextOption,
    UntilOption,
    note_unknown_states,
)

TaskRunReference = Annotated[
    str,
    Argument(
        f"The task run's id, the start of it, or its name{ONE_FROM_STDIN}.",
        metavar="ID",
        complete="task-run",
    ),
]


TASK_RUNS: RecordTable[TaskRun] = RecordTable(
    columns=(
        Column("id", attrgetter("id"), is_id=True),
        Column("flow-run", attrgetter("flow_run_id"), is_id=True),
        Column("name", attrgetter("name"), is_cut=True),
        Column("state", attrgetter("state.name"), lambda run: console.state_text(run.state)),
        Column("started", attrgetter("started_at")),
        Column("duration", attrgetter("duration_seconds")),
        Column("task", attrgetter("task_name"), is_default=False, is_cut=True),
        Column("created", attrgetter("created_at"), is_default=False),
        Column("ended", attrgetter("ended_at"), is_default=False),
        Column("type", attrgetter("state.type.value"), is_default=False),
        Column("message", attrgetter("state.message"), is_default=False, is_cut=True),
        Column("tags", attrgetter("tags"), is_default=False, is_cut=True),
        Column("attempts", attrgetter("run_count"), is_default=False),
        Column("cache-key", attrgetter("cache_key"), is_default=False, is_cut=True),
        Column("parent", attrgetter("parent_task_run_id"), is_default=False, is_id=True),
    ),
    keep=("id", "state", "name", "duration"),
    document=TaskRun.dict,
    reference=attrgetter("id"),
)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TaskRunFilters:
    """The options that describe task runs."""

    flow_run: Annotated[
        list[str] | None,
        Option(
            "--flow-run",
            description="Only those of this flow run: its id, the start of it, or its name; may be"
            " repeated.",
            metavar="ID",
            complete="flow-run",
        ),
    ] = None
    state: StateOption = None
    flow: FlowOption = None
    task: Annotated[
        list[str] | None,
        Option(
            "--task",
            description="Only those of the task of this name; may be repeated.",
            metavar="NAME",
        ),
    ] = None
    tag: TagOption = None
    since: SinceOption = None
    until: UntilOption = None
    text: TextOption = None


def ls(filters: TaskRunFilters, listing: Listing) -> None:
    """List task runs, newest first.

    Columns: id, flow-run, name, state, started, duration, task, created, ended, type, message, tags,
    attempts, cache-key, parent. They can be sorted by created, started, ended, duration, name, task and
    state.

    Examples:
        prefectlite task-run ls --flow-run gigantic-cockatoo
        prefectlite task-run ls --state failed --since 1d --json
        prefectlite task-run ls --task my_task --sort -duration --limit 10
    """
    order = listing.order(TASK_RUN_ORDERS) or NEWEST_FIRST
    registry = settled_registry()
    where = TaskRunFilter(
        flow_run_ids=[registry.find_flow_run(one).id for one in filters.flow_run or ()],
        states=filters.state or (),
        flow_names=filters.flow or (),
        task_names=filters.task or (),
        tags=filters.tag or (),
        since=filters.since,
        until=filters.until,
        text=filters.text,
    )
    task_runs, is_cut = first(
        lambda most: registry.list_task_runs(where, order=order, limit=most), listing.limit
    )
    show(task_runs, TASK_RUNS, listing)
    if is_cut:
        note_cut()
    if not task_runs:
        note_unknown_states(where.states)


def inspect(
    id: TaskRunReference,  # noqa: A002 - the name of the argument
    *,
    as_json: JsonOption = False,
) -> None:
    """Show a task run: its fields and every state that it has had.

    Examples:
        prefectlite task-run inspect 3f2a9c1e
        prefectlite task-run inspect my_task-0 --json
    """
    registry = settled_registry()
    task_run = find_one(id, registry.find_task_run)
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


def logs(
    id: TaskRunReference,  # noqa: A002 - the name of the argument
    *,
    options: LogOptions,
) -> int:
    """Print the log lines of a task run.

    With --follow, the exit code is that of the task run, as for a flow run.

    Examples:
        prefectlite task-run logs my_task-0
        prefectlite task-run logs my_task-0 --follow --level warning
    """
    registry = settled_registry()
    task_run = find_one(id, registry.find_task_run)
    flow_run = registry.find_flow_run(task_run.flow_run_id)
    query = LogQuery(task_run_id=task_run.id)
    return show_logs(registry, flow_run, options, query, task_run=task_run)


COMMANDS = (ls, inspect, logs)
