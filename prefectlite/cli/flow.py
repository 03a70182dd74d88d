"""See which flows there are, and how their runs went.

``prefectlite flow``. A flow is on record once it has run or has a deployment; nothing here writes, but
to record which processes died.
"""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

from prefectlite import console
from prefectlite.flow_records import FlowSummary
from prefectlite.listings import settled_registry
from prefectlite.record_tables import Column, Listing, RecordTable, show_all
from prefectlite.states import StateType


def _counts(type_: StateType) -> Column[FlowSummary]:
    return Column(type_.value.lower(), lambda flow: flow.count(type_), is_default=False)


def _rate_text(flow: FlowSummary) -> str:
    ended = flow.run_count - flow.unfinished_count
    # Rounded down, and not by way of a float: 100% is for all of them, and 29 of 100 are 29%.
    return f"{flow.count(StateType.COMPLETED) * 100 // ended}%" if ended else ""


def _last_state_text(flow: FlowSummary) -> str:
    return "" if flow.last_run is None else console.state_text(flow.last_run.state)


def _of_last_run(name: str, attribute: str, *, is_default: bool = True) -> Column[FlowSummary]:
    return Column(
        name,
        lambda flow: None if flow.last_run is None else attrgetter(attribute)(flow.last_run),
        _last_state_text if attribute == "state.name" else None,
        is_default,
        is_id=attribute == "id",
    )


_FLOWS: RecordTable[FlowSummary] = RecordTable(
    columns=(
        Column("flow", attrgetter("name"), is_cut=True),
        Column("runs", attrgetter("run_count")),
        Column("success", attrgetter("success_rate"), _rate_text),
        Column("active", attrgetter("unfinished_count")),
        _of_last_run("last-state", "state.name"),
        _of_last_run("last-run", "created_at"),
        Column("mean", attrgetter("mean_seconds")),
        _of_last_run("last-duration", "duration_seconds", is_default=False),
        _of_last_run("last-id", "id", is_default=False),
        Column("deployments", attrgetter("deployments"), is_cut=True),
        *map(
            _counts, (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
        ),
    ),
    keep=("flow", "last-state", "success", "runs", "active", "mean"),
    document=FlowSummary.dict,
    reference=attrgetter("name"),
)


def ls(listing: Listing) -> None:
    """List flows by name: how often each has run, how that ended, and how long it took.

    Columns: flow, runs, success, active, last-state, last-run, mean, last-duration, last-id,
    deployments, completed, failed, crashed, cancelled. Success is the part of the runs that have ended
    which Completed, active counts those that have not ended, and mean is how long those that Completed
    took. Every flow run on record is counted, which takes a fraction of a second for 100,000 of them.

    Examples:
        prefectlite flow ls
        prefectlite flow ls --sort success --limit 5
        prefectlite flow ls --json
    """
    registry = settled_registry()
    flows = {flow.name: flow for flow in registry.list_flows()}
    for deployment in registry.deployments.list_deployments():
        flow = flows.get(deployment.flow_name) or FlowSummary(name=deployment.flow_name)
        flows[flow.name] = replace(flow, deployments=(*flow.deployments, deployment.name))
    show_all([flows[name] for name in sorted(flows)], _FLOWS, listing)


COMMANDS = (ls,)
