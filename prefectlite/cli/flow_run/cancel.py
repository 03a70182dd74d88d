"""An end to flow runs: ``prefectlite flow-run cancel``."""

from __future__ import annotations

from typing import Annotated

from prefectlite import console
from prefectlite.cancel_orders import DEFAULT_GRACE_SECONDS, Orders
from prefectlite.commands import Argument, Option
from prefectlite.errors import UsageError
from prefectlite.flow_run_tables import print_table
from prefectlite.listings import FlowOption, JsonListOption, StateOption, writable_registry
from prefectlite.records import FlowRun
from prefectlite.registry import Registry
from prefectlite.settling import settle


def cancel(
    ids: Annotated[
        list[str] | None, Argument("Flow runs: ids, starts of ids, or names.", metavar="ID")
    ] = None,
    *,
    flow: FlowOption = None,
    state: StateOption = None,
    every: Annotated[
        bool, Option("--all", description="Cancel every flow run that has not ended.")
    ] = False,
    wait: Annotated[
        bool, Option("--wait", "-w", description="Return when they have ended.")
    ] = False,
    grace: Annotated[
        float,
        Option(
            "--grace",
            description="What they get to end by themselves before they are killed.",
            metavar="SECONDS",
            minimum=0,
        ),
    ] = DEFAULT_GRACE_SECONDS,
    force: Annotated[
        bool,
        Option(
            "--force",
            description="Mark as Cancelled what cannot be reached, though it may still run.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", description="Only show which would be cancelled.")
    ] = False,
    as_json: JsonListOption = False,
) -> int:
    """Cancel flow runs: their code is ended, and what does not end in time is killed.

    Without --wait, it goes on in the background where a run takes longer than a moment.

    Examples:
        prefectlite flow-run cancel gigantic-cockatoo --wait
        prefectlite flow-run cancel --flow my-flow --grace 5
    """
    registry = writable_registry()
    settle(registry, lambda: registry)
    chosen = _chosen(registry, ids or [], flow or [], state or [], every=every)
    if dry_run:
        console.out_json([run.dict() for run in chosen]) if as_json else print_table(chosen)
        return 0
    if not chosen:
        console.note("there is nothing to cancel")
    orders = Orders(registry, grace_seconds=grace, is_forced=force)
    ended = orders.carry_out(chosen, wait=wait)
    if as_json:
        console.out_json([run.dict() for run in ended])
    return orders.exit_code


def _chosen(
    registry: Registry, ids: list[str], flows: list[str], states: list[str], *, every: bool
) -> list[FlowRun]:
    """Return the flow runs to cancel: those named, else those that the options describe."""
    if ids:
        if flows or states or every:
            raise UsageError("name flow runs or describe them, not both")
        found = [registry.find_flow_run(reference) for reference in ids]
        return list({run.id: run for run in found}.values())
    if not (flows or states or every):
        raise UsageError(
            "which flow runs?", hint="name some, or say --flow NAME, --state STATE or --all"
        )
    runs = registry.list_flow_runs(states=states, flow_names=flows, limit=None)
    # A subflow run ends with the run that called it.
    ids_ = {run.id for run in runs}
    return [run for run in runs if not run.state.is_final() and run.parent_flow_run_id not in ids_]


COMMANDS = (cancel,)
