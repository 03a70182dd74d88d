"""Flow runs taken off the record: ``prefectlite flow-run delete``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from prefectlite import console
from prefectlite.commands import Option
from prefectlite.errors import RunNotFinalError
from prefectlite.flow_run_tables import print_runs
from prefectlite.listings import settled_registry
from prefectlite.records import FlowRun
from prefectlite.registry import Registry
from prefectlite.selections import DryRunOption, FlowRunSelection
from prefectlite.states import FINAL, UNFINISHED
from prefectlite.upkeep_records import Deleted

# Of more, nobody reads the names.
_NAMED = 20


def delete(
    selection: FlowRunSelection,
    *,
    force: Annotated[
        bool,
        Option("--force", description="Cancel runs that have not ended, and delete them, too."),
    ] = False,
    dry_run: DryRunOption = False,
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list of the deleted runs.")
    ] = False,
) -> int:
    """Delete flow runs with their task runs, states, logs and stored results. Subflow runs stay.

    Nothing is deleted unless all of them can be. Of those that options describe, it is done with each
    that has ended, with --force with all. A run of many task runs is deleted in parts: who interrupts
    that, and is told so, says it again.

    Examples:
        prefectlite flow-run delete gigantic-cockatoo
        prefectlite flow-run delete --state failed --until 30d --dry-run
        prefectlite flow-run delete 3f2a9c1e 77b0d4aa --force
    """
    registry = settled_registry(to_write=not dry_run)
    flow_runs = selection.choose(registry, FINAL | UNFINISHED if force else FINAL)
    if dry_run:
        print_runs(flow_runs, as_json=as_json)
        return 0
    exit_code = 0
    if force:
        flow_runs, exit_code = _ended(registry, flow_runs)
    for flow_run in flow_runs:
        if not flow_run.state.is_final():
            hint = "wait for its end, or delete it with --force"
            if force:
                hint = f"if it runs no more: prefectlite flow-run cancel --force {flow_run.id[:8]}"
            raise RunNotFinalError(
                f"flow run {flow_run.name!r} is {flow_run.state.name}, which is not final",
                hint=hint,
            )
    deleted = _delete(registry, flow_runs)
    if as_json:
        console.out_json([flow_run.dict() for flow_run in deleted])
    return exit_code


def _ended(registry: Registry, flow_runs: Sequence[FlowRun]) -> tuple[list[FlowRun], int]:
    """Cancel the runs that have not ended, so that no process is left of which nothing is on record.

    Returns:
        The runs as they are then, and the exit code: not 0 where a run could not be ended, be it one
        of a deployment that one of them has waited for.
    """
    from prefectlite.cancel_orders import DEFAULT_GRACE_SECONDS, Orders

    going = [flow_run for flow_run in flow_runs if not flow_run.state.is_final()]
    orders = Orders(registry, grace_seconds=DEFAULT_GRACE_SECONDS, is_forced=False)
    now = {flow_run.id: flow_run for flow_run in orders.carry_out(going, wait=True)}
    return [now.get(flow_run.id, flow_run) for flow_run in flow_runs], orders.exit_code


def _delete(registry: Registry, flow_runs: Sequence[FlowRun]) -> list[FlowRun]:
    """Delete flow runs, say which, also where it is interrupted, and return them."""
    from prefectlite.deletion import delete_flow_runs  # no listing needs what it imports
    from prefectlite.progress_bars import ProgressBar

    ids: set[str] = set()
    unfinished_id = None
    with ProgressBar("Deleting", unit="flow runs") as bar:

        def told(deleted: Deleted) -> None:
            nonlocal unfinished_id
            unfinished_id = deleted.unfinished_id
            ids.update(deleted.flow_run_ids)
            bar.update(len(ids), len(flow_runs))

        try:
            delete_flow_runs(registry, [flow_run.id for flow_run in flow_runs], told)
        finally:
            bar.clear()
            found = [flow_run for flow_run in flow_runs if flow_run.id in ids]
            for flow_run in found[:_NAMED]:
                console.say(f"Deleted flow run '{console.escaped(flow_run.name)}' ({flow_run.id})")
            if len(found) > _NAMED or len(found) < len(flow_runs):
                console.say(f"Deleted flow runs: {len(found)} of {len(flow_runs)}")
            if unfinished_id is not None:
                console.note(f"only a part of {unfinished_id} is deleted; repeat it for the rest")
    return found


COMMANDS = (delete,)
