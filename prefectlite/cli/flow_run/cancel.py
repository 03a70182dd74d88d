"""An end to flow runs: ``prefectlite flow-run cancel``."""

from __future__ import annotations

import math
from typing import Annotated

from prefectlite import console
from prefectlite.cancel_orders import DEFAULT_GRACE_SECONDS, Orders
from prefectlite.commands import Option, Seconds
from prefectlite.errors import UsageError
from prefectlite.flow_run_tables import print_runs
from prefectlite.listings import JsonListOption, settled_registry
from prefectlite.selections import DryRunOption, FlowRunSelection
from prefectlite.states import UNFINISHED


def cancel(
    selection: FlowRunSelection,
    *,
    wait: Annotated[
        bool, Option("--wait", "-w", description="Return when they have ended.")
    ] = False,
    grace: Annotated[
        Seconds,
        Option(
            "--grace",
            description="What they get to end by themselves before they are killed.",
            minimum=0,
        ),
    ] = Seconds(DEFAULT_GRACE_SECONDS),  # noqa: B008 - a number
    force: Annotated[
        bool,
        Option(
            "--force",
            description="Mark as Cancelled what cannot be reached, though it may still run.",
        ),
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonListOption = False,
) -> int:
    """Cancel flow runs: their code is ended, and what does not end in time is killed.

    Of those that options describe, it is done with each that has not ended. Without --wait, it goes on
    in the background where a run takes longer than a moment.

    Examples:
        prefectlite flow-run cancel gigantic-cockatoo --wait
        prefectlite flow-run cancel --flow my-flow --since 1h --grace 5s
        prefectlite flow-run cancel --all --dry-run
    """
    if not math.isfinite(grace):
        raise UsageError("--grace: what is never killed may never end")
    registry = settled_registry(to_write=not dry_run)
    chosen = selection.choose(registry, UNFINISHED)
    if selection.is_described():
        # A subflow run ends with the run that called it.
        ids = {run.id for run in chosen}
        chosen = [run for run in chosen if run.parent_flow_run_id not in ids]
    if dry_run:
        print_runs(chosen, as_json=as_json)
        return 0
    orders = Orders(registry, grace_seconds=grace, is_forced=force)
    ended = orders.carry_out(chosen, wait=wait)
    if as_json:
        console.out_json([run.dict() for run in ended])
    return orders.exit_code


COMMANDS = (cancel,)
