"""Flow runs taken off the record: ``prefectlite flow-run delete``."""

from __future__ import annotations

from typing import Annotated

from prefectlite import console
from prefectlite.commands import Option
from prefectlite.errors import RunNotFinalError
from prefectlite.listings import FlowRunReferences, writable_registry
from prefectlite.records import FlowRun
from prefectlite.registry import Registry
from prefectlite.settling import settle


def delete(
    ids: FlowRunReferences,
    *,
    force: Annotated[
        bool, Option("--force", description="Delete also runs that are not in a final state.")
    ] = False,
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list of the deleted runs.")
    ] = False,
) -> None:
    """Delete flow runs with their task runs, states, logs and stored results. Subflow runs stay.

    Nothing is deleted unless all of them can be.

    Examples:
        prefectlite flow-run delete gigantic-cockatoo
        prefectlite flow-run delete 3f2a9c1e 77b0d4aa --force
    """
    registry = writable_registry()
    settle(registry, lambda: registry)
    found = [registry.find_flow_run(reference) for reference in ids]
    flow_runs = {flow_run.id: flow_run for flow_run in found}
    for flow_run in flow_runs.values():
        if not force and not flow_run.state.is_final():
            raise RunNotFinalError(
                f"flow run {flow_run.name!r} is {flow_run.state.name}, which is not final",
                hint="wait for its end, or delete it with --force",
            )
    for flow_run in flow_runs.values():
        _delete_with_results(registry, flow_run)
        console.say(f"Deleted flow run '{console.escaped(flow_run.name)}' ({flow_run.id})")
    if as_json:
        console.out_json([flow_run.dict() for flow_run in flow_runs.values()])


def _delete_with_results(registry: Registry, flow_run: FlowRun) -> None:
    from prefectlite.results import delete_result  # no listing needs what it imports

    task_runs = registry.list_task_runs(flow_run_id=flow_run.id, limit=None)
    # First the record: a result that is left over is harmless, one that is missed is not.
    registry.delete_flow_run(flow_run.id)
    for run_id in (flow_run.id, *(task_run.id for task_run in task_runs)):
        delete_result(run_id)


COMMANDS = (delete,)
