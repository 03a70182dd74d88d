"""A flow run of a deployment: ``prefectlite deployment run``."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from prefectlite import console
from prefectlite.clock import now
from prefectlite.commands import Option, Seconds
from prefectlite.deployment_records import Deployment
from prefectlite.endings import exit_code_of, tell_ending
from prefectlite.errors import EntrypointError, NotFoundError, UsageError
from prefectlite.json_values import json_or_text
from prefectlite.listings import DeploymentReference, writable_registry
from prefectlite.parameter_options import (
    ParamOption,
    ParamsOption,
    RunNameOption,
    RunTagOption,
    pairs,
    parameters_of,
    stdout_to_stderr,
)
from prefectlite.records import FlowRun
from prefectlite.references import find_one
from prefectlite.registry import Registry

if TYPE_CHECKING:
    from prefectlite.flows import Flow


def run(
    reference: DeploymentReference,
    *,
    param: ParamOption = None,
    params: ParamsOption = None,
    name: RunNameOption = None,
    tag: RunTagOption = None,
    at: Annotated[
        datetime | None,
        Option(
            "--at",
            description="When it is due, in the local time zone unless it names one, such as"
            " 2024-02-29T21:31; now if not given.",
        ),
    ] = None,
    after: Annotated[
        Seconds | None,
        Option("--in", description="How long from now it is due, such as 45s, 3m12s, 2h or 1d."),
    ] = None,
    watch: Annotated[
        bool, Option("--watch", description="Wait for the run's end, and exit as it ended.")
    ] = False,
    as_json: Annotated[
        bool,
        Option("--json", description="Print the flow run as JSON; with --watch when it has ended."),
    ] = False,
) -> int:
    """Make a flow run of a deployment, in its work queue, and print the run's id.

    The parameters are those of the deployment with these in their places. They are checked if the
    flow can be loaded here. With --watch the exit code is 0 for Completed, 1 for Failed or Crashed,
    124 for TimedOut, 143 for Cancelled.

    Examples:
        prefectlite deployment run etl/nightly -p day=2024-02-29
        prefectlite deployment run nightly --in 10m --name again
        prefectlite deployment run nightly --params @etl.json --watch --json
    """
    from prefectlite.deployments import new_flow_run

    scheduled_at = _due(at, after)
    registry = writable_registry()
    deployment = find_one(reference, registry.deployments.find_deployment)
    flow_run = new_flow_run(
        deployment,
        _parameters(deployment, parameters_of(params), pairs("-p", param or [])),
        name=name,
        tags=tag or (),
        scheduled_at=scheduled_at,
    )
    registry.create_flow_run(flow_run)
    _say_created(registry, deployment, flow_run, is_later=scheduled_at is not None)
    if not as_json:
        console.out(flow_run.id)
    if watch:
        from prefectlite.liveness import is_alive
        from prefectlite.waiting import wait_for_flow_run

        agents = registry.deployments.list_agents()
        queue = deployment.work_queue
        if not any(queue in agent.work_queues and is_alive(agent.process) for agent in agents):
            console.note(
                f"no agent is going that takes runs from {queue!r}, but cron may start one"
            )
        console.flush()
        try:
            flow_run = wait_for_flow_run(registry, flow_run.id)
        except KeyboardInterrupt:
            console.note(
                f"the run goes on; end it with: prefectlite flow-run cancel {flow_run.id[:8]}"
            )
            raise
    if as_json:
        console.out_json(flow_run.dict())
    if not watch:
        return 0
    if not flow_run.state.is_completed():
        tell_ending(flow_run, flow_run.state)
    return exit_code_of(flow_run.state)


def _due(at: datetime | None, after: Seconds | None) -> datetime | None:
    """Return when a run is due by its two options; None for now.

    Raises:
        UsageError: Both are given, or it is never due.
    """
    if at is not None and after is not None:
        raise UsageError("--at and --in cannot be given together")
    if after is None:
        return at
    try:
        return now() + timedelta(seconds=after)
    except OverflowError:
        raise UsageError("--in: a run that is never due cannot be made") from None


def _parameters(
    deployment: Deployment, document: dict[str, object], texts: dict[str, str]
) -> dict[str, object]:
    """Return all parameters of a run, checked if the flow can be loaded here.

    Args:
        deployment: What gives those that are not given.
        document: Values by name.
        texts: Texts by name, which count more.

    Raises:
        UsageError: The flow can be loaded, and refuses them.
    """
    from prefectlite.deployment_parameters import check_parameters, json_parameters
    from prefectlite.parameters import from_text

    flow = _loaded_flow(deployment)
    if flow is None:
        values = {name: json_or_text(text) for name, text in texts.items()}
    else:
        values = from_text(flow.fn, texts)
    parameters = {**deployment.parameters, **json_parameters({**document, **values})}
    if flow is not None:
        check_parameters(flow, parameters)
    return parameters


def _loaded_flow(deployment: Deployment) -> Flow[..., object] | None:
    from prefectlite.deployments import load_deployed_flow

    try:
        with stdout_to_stderr():
            return load_deployed_flow(deployment)
    except EntrypointError as error:
        console.note(f"the parameters are not checked, because {error}")
        return None


def _say_created(
    registry: Registry, deployment: Deployment, flow_run: FlowRun, *, is_later: bool
) -> None:
    when = f"due at {console.moment_text(flow_run.scheduled_at)}" if is_later else "due now"
    console.say(
        f"Created flow run '{console.escaped(flow_run.name)}' of deployment"
        f" '{console.escaped(deployment.full_name)}',"
        f" {when}, in work queue '{console.escaped(deployment.work_queue)}'"
    )
    try:
        queue = registry.deployments.find_work_queue(deployment.work_queue)
    except NotFoundError:  # it was deleted, and stops nothing
        return
    if queue.is_paused:
        console.note(
            f"the work queue {queue.name!r} is paused: prefectlite work-queue resume lets it go on"
        )


COMMANDS = (run,)
