"""Which flow runs there are: ``prefectlite flow-run ls``."""

from __future__ import annotations

from prefectlite.flow_run_tables import FLOW_RUNS
from prefectlite.listings import settled_registry
from prefectlite.record_tables import Listing, first, note_cut, show
from prefectlite.run_filters import FLOW_RUN_ORDERS, NEWEST_FIRST
from prefectlite.selections import FlowRunFilters, note_unknown_states


def ls(filters: FlowRunFilters, listing: Listing) -> None:
    """List flow runs, newest first.

    Columns: id, flow, name, state, started, duration, created, ended, scheduled, type, message,
    parameters, tags, attempts, version, entrypoint, deployment, queue, agent, pid, parent. They can be
    sorted by created, started, ended, duration, name, flow and state.

    Examples:
        prefectlite flow-run ls --state failed --state crashed --since 1d
        prefectlite flow-run ls --flow my-flow --limit 1 --json
        prefectlite flow-run ls --sort -duration --columns name,duration,parameters --format csv
        prefectlite flow-run ls --state failed --quiet | prefectlite flow-run delete -
    """
    order = listing.order(FLOW_RUN_ORDERS) or NEWEST_FIRST
    registry = settled_registry()
    where = filters.filter_by(registry)
    flow_runs, is_cut = first(
        lambda most: registry.list_flow_runs(where, order=order, limit=most), listing.limit
    )
    show(flow_runs, FLOW_RUNS, listing)
    if is_cut:
        note_cut()
    if not flow_runs:
        note_unknown_states(where.states)


COMMANDS = (ls,)
