"""Make, apply and run deployments, and see which there are.

``prefectlite deployment``. A run that is made here waits in its work queue; nothing here starts one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prefectlite import console
from prefectlite.clock import duration_from_text, now
from prefectlite.commands import Argument, Option
from prefectlite.deployment_records import DEFAULT_WORK_QUEUE, Deployment
from prefectlite.endings import exit_code_of, tell_ending
from prefectlite.errors import (
    BlockNotLoadedError,
    EntrypointError,
    NotFoundError,
    UsageError,
)
from prefectlite.json_values import json_or_text
from prefectlite.listings import JsonListOption, JsonOption, writable_registry
from prefectlite.parameter_options import (
    ParamOption,
    ParamsOption,
    RunNameOption,
    RunTagOption,
    pairs,
    parameters_of,
    stdout_to_stderr,
)
from prefectlite.records import FlowRun, masked
from prefectlite.registry import Registry, open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

if TYPE_CHECKING:
    from prefectlite.deployments import Applied
    from prefectlite.flows import Flow

_Reference = Annotated[
    str,
    Argument(
        "The deployment: flow-name/name, its name alone, its id, or the start of that.",
        metavar="DEPLOYMENT",
    ),
]
_STDOUT = Path("-")


def build(
    entrypoint: Annotated[
        str,
        Argument(
            "The flow: 'path.py:flow' or 'module:flow'; the part after the colon may be left"
            " out where there is one flow.",
            metavar="ENTRYPOINT",
        ),
    ],
    *,
    name: Annotated[
        str, Option("--name", "-n", description="The deployment's name.", metavar="NAME")
    ],
    queue: Annotated[
        str,
        Option(
            "--queue", "-q", description="The work queue that its runs wait in.", metavar="QUEUE"
        ),
    ] = DEFAULT_WORK_QUEUE,
    param: ParamOption = None,
    params: ParamsOption = None,
    tag: Annotated[
        list[str] | None,
        Option("--tag", description="A tag of its runs; may be repeated.", metavar="TAG"),
    ] = None,
    timeout: Annotated[
        float | None,
        Option(
            "--timeout",
            description="Seconds that the process of a run may take; 0 for no limit.",
            metavar="SECONDS",
            minimum=0,
        ),
    ] = None,
    infra_block: Annotated[
        str | None,
        Option(
            "--infra-block",
            description="The block that says what a run runs in, as it is when the run is made.",
            metavar="TYPE/NAME",
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        Option(
            "--override",
            description="Something of the infrastructure, such as grace_seconds=60 or env.DEBUG=1;"
            " may be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            description="The file to write, instead of NAME-deployment.toml; - for stdout.",
            metavar="FILE",
        ),
    ] = None,
    force: Annotated[
        bool, Option("--force", description="Replace the file if there is one.")
    ] = False,
    is_applied: Annotated[bool, Option("--apply", description="Put it on record, too.")] = False,
) -> None:
    """Write a deployment of a flow to a TOML file.

    The flow is loaded, and the parameters are checked against its signature. Its runs begin in the
    current folder.

    Examples:
        prefectlite deployment build my_flows.py:etl -n nightly -p day=today --tag prod --apply
        prefectlite deployment build my_flows:etl -n big -q slow --override grace_seconds=60
        prefectlite deployment build my_flows:etl -n big --infra-block process/big-box
    """
    from prefectlite.deployment_files import toml_text, write_toml
    from prefectlite.deployments import Deployment, apply_deployment
    from prefectlite.entrypoints import load_flow
    from prefectlite.overrides import override_from_text
    from prefectlite.parameters import from_text

    with stdout_to_stderr():
        flow = load_flow(entrypoint)
    overrides = pairs("--override", override or [])
    infrastructure = {key: override_from_text(key, text) for key, text in overrides.items()}
    deployment = Deployment.build_from_flow(
        flow,
        name,
        entrypoint=entrypoint,
        parameters=parameters_of(params) | from_text(flow.fn, pairs("-p", param or [])),
        tags=tag or (),
        work_queue_name=queue,
        infrastructure=infra_block,
        infra_overrides=infrastructure | ({"timeout_seconds": timeout} if timeout else {}),
    ).record()
    path = output or Path(f"{name}-deployment.toml")
    if path == _STDOUT:
        console.out(toml_text(deployment, folder=None).rstrip("\n"))
    else:
        write_toml(path, toml_text(deployment, folder=path.parent), replace=force)
        console.say(f"Wrote {console.escaped(str(path))}")
    if is_applied:
        _say_applied(apply_deployment(deployment))
    elif path != _STDOUT:
        console.say(f"Apply it with: prefectlite deployment apply {console.escaped(str(path))}")


def apply(
    files: Annotated[list[Path], Argument("Files of deployments, in TOML.", metavar="FILE")],
    *,
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list of the deployments.")
    ] = False,
) -> None:
    """Put deployments on record, or replace those of the same flow and name.

    A work queue that one names is created if there is none. Nothing is applied unless all files
    are right. Runs that were made before stay as they are.

    Examples:
        prefectlite deployment apply nightly-deployment.toml
        prefectlite deployment apply deployments/one.toml deployments/two.toml --json
    """
    from prefectlite.deployments import Deployment, apply_deployment

    deployments = [Deployment.from_toml(file).record() for file in files]
    names = [deployment.full_name for deployment in deployments]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"several of these files are of the deployment {name!r}")
    applied = [apply_deployment(deployment) for deployment in deployments]
    for one in applied:
        _say_applied(one)
    if as_json:
        console.out_json([one.deployment.dict() for one in applied])


def ls(
    *,
    flow: Annotated[
        list[str] | None,
        Option(
            "--flow",
            "-f",
            description="Only those of the flow of this name; may be repeated.",
            metavar="NAME",
        ),
    ] = None,
    queue: Annotated[
        str | None,
        Option("--queue", "-q", description="Only those of this work queue.", metavar="QUEUE"),
    ] = None,
    as_json: JsonListOption = False,
) -> None:
    """List deployments by flow and name.

    Examples:
        prefectlite deployment ls
        prefectlite deployment ls --flow etl --json
    """
    deployments = _readable_registry().deployments.list_deployments(
        flow_names=flow or (), work_queue=queue
    )
    if as_json:
        console.out_json([deployment.dict() for deployment in deployments])
        return
    ids = console.id_texts([deployment.id for deployment in deployments])
    console.out_table(
        ["ID", "NAME", "ENTRYPOINT", "QUEUE", "TAGS", "UPDATED"],
        [
            [
                id_,
                deployment.full_name,
                deployment.entrypoint,
                deployment.work_queue,
                ", ".join(deployment.tags),
                console.moment_text(deployment.updated_at),
            ]
            for id_, deployment in zip(ids, deployments, strict=True)
        ],
        cut=["NAME", "ENTRYPOINT", "TAGS"],
    )


def inspect(reference: _Reference, *, as_json: JsonOption = False) -> None:
    """Show a deployment.

    Examples:
        prefectlite deployment inspect etl/nightly
        prefectlite deployment inspect nightly --json
    """
    deployment = _readable_registry().deployments.find_deployment(reference)
    if as_json:
        console.out_json(deployment.dict())
        return
    infrastructure = masked(deployment.infrastructure) or {}
    type_ = str(infrastructure.pop("type", infrastructure.pop("block", "")))
    console.out_fields(
        {
            "Deployment": deployment.full_name,
            "ID": deployment.id,
            "Flow": deployment.flow_name,
            "Description": deployment.description or "",
            "Entrypoint": deployment.entrypoint,
            "Working directory": deployment.working_directory,
            "Version": deployment.version or "",
            "Parameters": console.json_text({**deployment.parameters}),
            "Tags": ", ".join(deployment.tags),
            "Work queue": deployment.work_queue,
            "Infrastructure": type_,
            "Command": _command(deployment),
            "Overrides": console.json_text(infrastructure) if infrastructure else "",
            "Created": console.moment_text(deployment.created_at),
            "Updated": console.moment_text(deployment.updated_at),
        }
    )


def run(
    reference: _Reference,
    *,
    param: ParamOption = None,
    params: ParamsOption = None,
    name: RunNameOption = None,
    tag: RunTagOption = None,
    at: Annotated[
        str | None,
        Option(
            "--at",
            description="When it is due, with its zone: 2024-02-29T21:31:00+01:00; now if not given.",
            metavar="TIME",
        ),
    ] = None,
    after: Annotated[
        str | None,
        Option(
            "--in",
            description="How long from now it is due: 90, 45s, 3m12s, 2h, 1d.",
            metavar="DURATION",
        ),
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
    deployment = registry.deployments.find_deployment(reference)
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


def delete(
    references: Annotated[
        list[str],
        Argument("Deployments: flow-name/name, names or ids.", metavar="DEPLOYMENT"),
    ],
    *,
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list of the deleted deployments.")
    ] = False,
) -> None:
    """Delete deployments. Their runs stay, and those that wait in a queue will still be run.

    Nothing is deleted unless all of them can be.

    Examples:
        prefectlite deployment delete etl/nightly
    """
    tables = writable_registry().deployments
    found = [tables.find_deployment(reference) for reference in references]
    deployments = {deployment.id: deployment for deployment in found}
    for deployment in deployments.values():
        tables.delete_deployment(deployment.id)
        console.say(f"Deleted deployment {_shown(deployment)}")
    if as_json:
        console.out_json([deployment.dict() for deployment in deployments.values()])


def _command(deployment: Deployment) -> str:
    """Return what a run of a deployment is started with, as a shell would take it."""
    from prefectlite.infrastructure import load_infrastructure
    from prefectlite.overrides import resolved_infrastructure

    folder = {"working_directory": deployment.working_directory}
    try:
        fields = resolved_infrastructure(deployment.infrastructure)
        return load_infrastructure(folder | fields).preview("ID")
    except (UsageError, NotFoundError, BlockNotLoadedError):  # as may be elsewhere, or was once
        return ""


def _readable_registry() -> Registry:
    return open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)


def _shown(deployment: Deployment) -> str:
    return f"'{console.escaped(deployment.full_name)}' ({deployment.id})"


def _say_applied(applied: Applied) -> None:
    deployment = applied.deployment
    if applied.is_queue_new:
        console.say(f"Created work queue '{console.escaped(deployment.work_queue)}'")
    verb = "Created" if applied.is_new else "Updated"
    console.say(f"{verb} deployment {_shown(deployment)}")


def _due(at: str | None, after: str | None) -> datetime | None:
    """Return when a run is due by its two options; None for now.

    Raises:
        UsageError: One cannot be understood, or both are given.
    """
    if at is not None and after is not None:
        raise UsageError("--at and --in cannot be given together")
    try:
        if after is not None:
            return now() + timedelta(seconds=duration_from_text(after))
        return None if at is None else datetime.fromisoformat(at)
    except (ValueError, OverflowError) as error:
        option = f"--at {at!r}" if after is None else f"--in {after!r}"
        raise UsageError(
            f"{option} cannot be understood: {error}",
            hint="such as: --at 2024-02-29T21:31:00+01:00, or --in 3m12s",
        ) from None


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


COMMANDS = (build, apply, ls, inspect, run, delete)
