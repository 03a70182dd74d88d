"""Make, apply and run deployments, and see which there are.

``prefectlite deployment``. A run that is made here waits in its work queue; nothing here starts one.
"""

from __future__ import annotations

import math
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prefectlite import console
from prefectlite.commands import Argument, Option, Seconds
from prefectlite.deployment_records import DEFAULT_WORK_QUEUE, Deployment
from prefectlite.errors import BlockNotLoadedError, NotFoundError, UsageError
from prefectlite.listings import DeploymentReference, JsonOption, writable_registry
from prefectlite.parameter_options import (
    ParamOption,
    ParamsOption,
    pairs,
    parameters_of,
    stdout_to_stderr,
)
from prefectlite.record_tables import Column, Listing, RecordTable, show_all
from prefectlite.records import masked
from prefectlite.references import FROM_STDIN, find_each, find_one
from prefectlite.registry import Registry, open_registry
from prefectlite.selections import FlowOption, QueuesOption, TagOption
from prefectlite.settings import PREFECTLITE_REGISTRY

if TYPE_CHECKING:
    from prefectlite.deployments import Applied

_STDOUT = Path("-")
_DEPLOYMENTS: RecordTable[Deployment] = RecordTable(
    columns=(
        Column("id", attrgetter("id"), is_id=True),
        Column("name", attrgetter("full_name"), is_cut=True),
        Column("entrypoint", attrgetter("entrypoint"), is_cut=True),
        Column("queue", attrgetter("work_queue"), is_cut=True),
        Column("tags", attrgetter("tags"), is_cut=True),
        Column("updated", attrgetter("updated_at")),
        Column("flow", attrgetter("flow_name"), is_default=False, is_cut=True),
        Column("description", attrgetter("description"), is_default=False, is_cut=True),
        Column("version", attrgetter("version"), is_default=False),
        Column("parameters", lambda one: {**one.parameters}, is_default=False, is_cut=True),
        Column("folder", attrgetter("working_directory"), is_default=False, is_cut=True),
        Column("created", attrgetter("created_at"), is_default=False),
    ),
    keep=("id", "name", "queue"),
    document=Deployment.dict,
    reference=attrgetter("id"),
)


def build(
    entrypoint: Annotated[
        str,
        Argument(
            "The flow: 'path.py:flow' or 'module:flow'; the part after the colon may be left"
            " out where there is one flow.",
            metavar="ENTRYPOINT",
            complete="entrypoint",
        ),
    ],
    *,
    name: Annotated[
        str, Option("--name", "-n", description="The deployment's name.", metavar="NAME")
    ],
    queue: Annotated[
        str,
        Option(
            "--queue",
            "-q",
            description="The work queue that its runs wait in.",
            metavar="QUEUE",
            complete="work-queue",
        ),
    ] = DEFAULT_WORK_QUEUE,
    param: ParamOption = None,
    params: ParamsOption = None,
    tag: Annotated[
        list[str] | None,
        Option(
            "--tag",
            "-t",
            description="A tag of its runs; may be repeated.",
            metavar="TAG",
            complete="tag",
        ),
    ] = None,
    timeout: Annotated[
        Seconds | None,
        Option(
            "--timeout",
            description="How long the process of a run may take; 0 for no limit.",
            minimum=0,
        ),
    ] = None,
    infra_block: Annotated[
        str | None,
        Option(
            "--infra-block",
            description="The block that says what a run runs in, as it is when the run is made.",
            metavar="TYPE/NAME",
            complete="block:infrastructure",
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
        infra_overrides=infrastructure | _limit(timeout),
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
    flow: FlowOption = None,
    queue: QueuesOption = None,
    tag: TagOption = None,
    listing: Listing,
) -> None:
    """List deployments by flow and name.

    Columns: id, name, entrypoint, queue, tags, updated, flow, description, version, parameters,
    folder, created.

    Examples:
        prefectlite deployment ls
        prefectlite deployment ls --flow etl --json
        prefectlite deployment ls --sort -updated --limit 5
    """
    queues, tags = {*(queue or ())}, {*(tag or ())}
    deployments = [
        deployment
        for deployment in _readable_registry().deployments.list_deployments(flow_names=flow or ())
        if (not queues or deployment.work_queue in queues)
        and (not tags or not tags.isdisjoint(deployment.tags))
    ]
    show_all(deployments, _DEPLOYMENTS, listing)


def inspect(reference: DeploymentReference, *, as_json: JsonOption = False) -> None:
    """Show a deployment.

    Examples:
        prefectlite deployment inspect etl/nightly
        prefectlite deployment inspect nightly --json
    """
    deployment = find_one(reference, _readable_registry().deployments.find_deployment)
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


def delete(
    references: Annotated[
        list[str],
        Argument(
            f"Deployments: flow-name/name, names or ids{FROM_STDIN}.",
            metavar="DEPLOYMENT",
            complete="deployment",
        ),
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
    deployments = find_each(references, tables.find_deployment)
    for deployment in deployments:
        tables.delete_deployment(deployment.id)
        console.say(f"Deleted deployment {_shown(deployment)}")
    if as_json:
        console.out_json([deployment.dict() for deployment in deployments])


def _limit(timeout: Seconds | None) -> dict[str, float]:
    """Return what an infrastructure is told of the time that a process may take."""
    # As a plain number: it is written to a file.
    return {"timeout_seconds": float(timeout)} if timeout and math.isfinite(timeout) else {}


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


COMMANDS = (build, apply, ls, inspect, "run", delete)
