"""Which flow runs there are: ``prefectlite flow-run ls``."""

from __future__ import annotations

from prefectlite import console
from prefectlite.flow_run_tables import print_table
from prefectlite.listings import (
    FlowOption,
    JsonListOption,
    LimitOption,
    StateOption,
    newest,
    note_cut,
    settled_registry,
)


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
        print_table(flow_runs)
    if is_cut:
        note_cut()


COMMANDS = (ls,)
