"""Flow runs as the commands show them.

``cli`` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from prefectlite import console
from prefectlite.record_tables import Column, RecordTable, show_table
from prefectlite.records import FlowRun

FLOW_RUNS: RecordTable[FlowRun] = RecordTable(
    columns=(
        Column("id", attrgetter("id"), is_id=True),
        Column("flow", attrgetter("flow_name"), is_cut=True),
        Column("name", attrgetter("name"), is_cut=True),
        Column("state", attrgetter("state.name"), lambda run: console.state_text(run.state)),
        Column("started", attrgetter("started_at")),
        Column("duration", attrgetter("duration_seconds")),
        Column("created", attrgetter("created_at"), is_default=False),
        Column("ended", attrgetter("ended_at"), is_default=False),
        Column("scheduled", attrgetter("scheduled_at"), is_default=False),
        Column("type", attrgetter("state.type.value"), is_default=False),
        Column("message", attrgetter("state.message"), is_default=False, is_cut=True),
        Column("parameters", lambda run: {**run.parameters}, is_default=False, is_cut=True),
        Column("tags", attrgetter("tags"), is_default=False, is_cut=True),
        Column("attempts", attrgetter("run_count"), is_default=False),
        Column("version", attrgetter("version"), is_default=False),
        Column("entrypoint", attrgetter("entrypoint"), is_default=False, is_cut=True),
        Column("deployment", attrgetter("deployment_id"), is_default=False, is_id=True),
        Column("queue", attrgetter("work_queue"), is_default=False, is_cut=True),
        Column("agent", attrgetter("agent_name"), is_default=False, is_cut=True),
        Column("pid", attrgetter("infrastructure_pid"), is_default=False),
        Column("parent", attrgetter("parent_flow_run_id"), is_default=False, is_id=True),
    ),
    keep=("id", "state", "name", "flow", "duration"),
    document=FlowRun.dict,
    reference=attrgetter("id"),
)


def print_runs(flow_runs: Sequence[FlowRun], *, as_json: bool = False) -> None:
    """Print flow runs: a table, or a JSON list."""
    if as_json:
        console.out_json_list(flow_run.dict() for flow_run in flow_runs)
    else:
        show_table(flow_runs, FLOW_RUNS)
