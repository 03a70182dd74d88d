"""Start flow runs that are on record: ``run --detach`` makes one and launches it, an agent takes one.

The run is Pending, with who launches it on its record, from before anything is started: should that
process die in between, ``settling`` finds out how far it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from prefectlite.deployment_parameters import check_parameters, json_parameters
from prefectlite.errors import InfrastructureError, StateConflictError, UsageError
from prefectlite.infrastructure import DEFAULT_TYPE, load_infrastructure
from prefectlite.liveness import own_identity
from prefectlite.names import new_id, random_run_name
from prefectlite.options import FlowLike
from prefectlite.records import FlowRun
from prefectlite.registry import Registry
from prefectlite.settings import PREFECTLITE_FLOW_TIMEOUT
from prefectlite.states import Crashed, Pending


def launch(registry: Registry, flow_run: FlowRun) -> FlowRun:
    """Start a run that this process has taken, and put on record what it runs in; return it.

    One whose infrastructure is described wrongly is Crashed.

    Raises:
        InfrastructureError: It could not be started; it is Pending still, and nothing is left of it.
    """
    try:
        infrastructure = load_infrastructure(flow_run.infrastructure or {})
    except UsageError as error:
        return _crashed(registry, flow_run, error)
    try:
        launched = infrastructure.run(flow_run)
    except InfrastructureError:
        raise
    except Exception as error:  # noqa: BLE001 - of an infrastructure that is not ours
        return _crashed(registry, flow_run, error)
    # Where it says so itself already, that is as true.
    registry.launches.record_launch(
        flow_run, infrastructure_pid=launched.identifier, supervisor=launched.supervisor
    )
    return registry.find_flow_run(flow_run.id)


def _crashed(registry: Registry, flow_run: FlowRun, error: Exception) -> FlowRun:
    told = str(error) if isinstance(error, UsageError) else repr(error)
    with suppress(StateConflictError):  # it was cancelled just now
        registry.change_state(flow_run, Crashed(f"It could not be started: {told}"))
    return registry.find_flow_run(flow_run.id)


def new_detached_run(
    flow: FlowLike,
    entrypoint: str,
    parameters: Mapping[str, object],
    *,
    name: str | None = None,
    tags: tuple[str, ...] = (),
    timeout_seconds: float | None = None,
) -> FlowRun:
    """Return a run of a flow, to be put on record and launched by this process.

    It begins in the current folder, where its entrypoint is looked for.

    Args:
        flow: What the entrypoint means.
        entrypoint: ``path.py:flow`` or ``module:flow``.
        parameters: What it is called with.
        name: The run's name; None for a random one.
        tags: The run's tags.
        timeout_seconds: What it may take instead of the flow's own timeout; 0 is for any time, None for
            the flow's own.

    Raises:
        ParameterTypeError: The flow's signature or annotations refuse the parameters.
        UsageError: A parameter cannot be kept in the registry.
    """
    check_parameters(flow, parameters)
    infrastructure: dict[str, object] = {"type": DEFAULT_TYPE, "working_directory": str(Path.cwd())}
    if timeout_seconds is not None:
        infrastructure["environment"] = {PREFECTLITE_FLOW_TIMEOUT.name: str(timeout_seconds)}
    return FlowRun(
        id=new_id(),
        name=name or random_run_name(),
        flow_name=flow.options.name,
        state=Pending(),
        parameters=json_parameters(parameters),
        tags=tags,
        version=flow.options.version,
        entrypoint=entrypoint,
        launcher=own_identity(),
        infrastructure=infrastructure,
    )
