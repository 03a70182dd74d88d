"""Deployments: flows that are kept on record to be run elsewhere and later.

The Python API and the command line make, apply and run deployments here. A run that is made here is
only put on record, Scheduled, in its work queue; nothing here starts one.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from prefectlite import deployment_records
from prefectlite.clock import monotonic, now
from prefectlite.deployment_files import read_toml, toml_text, write_toml
from prefectlite.deployment_parameters import check_given, check_parameters, json_parameters
from prefectlite.deployment_records import DEFAULT_WORK_QUEUE, WorkQueue
from prefectlite.entrypoints import absolute, is_running_program, load_flow
from prefectlite.errors import ConflictError, EntrypointError, UsageError
from prefectlite.infrastructure import Infrastructure
from prefectlite.names import new_id, random_run_name
from prefectlite.overrides import checked_infrastructure, resolved_infrastructure
from prefectlite.records import FlowRun
from prefectlite.registry import Registry, open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Scheduled
from prefectlite.waiting import wait_for_flow_run

if TYPE_CHECKING:
    from prefectlite.flows import Flow


# Between two looks at a run that is awaited on an event loop.
_POLL_SECONDS = 0.1


class DeploymentKeywords(TypedDict, total=False):
    """The keywords of ``Deployment.build_from_flow``; ``Deployment`` describes them."""

    entrypoint: str
    path: str | None
    description: str | None
    version: str | None
    parameters: Mapping[str, object]
    tags: Collection[str]
    work_queue_name: str
    infrastructure: Infrastructure | str | None
    infra_overrides: Mapping[str, object]


@dataclass(kw_only=True)
class Deployment:
    """A deployment in the making: it is on record once it is applied.

    Attributes:
        name: Unique among the deployments of its flow; it may not contain ``/``.
        flow_name: The flow's name, as listings show it.
        entrypoint: ``path.py:flow`` or ``module:flow``, seen from ``path``.
        path: The folder that the entrypoint is looked for in, and that a run begins in; None for
            the current one.
        parameters: What the flow is called with where a run says nothing else.
        work_queue_name: Where its runs wait; the queue is created if there is none.
        infrastructure: What its runs run in: a block, such as ``process/big-box``, whose fields each
            run takes as they are when it is made; or an infrastructure, whose fields are copied; None
            for a process.
        infra_overrides: What differs from that. For a process ``command``, ``environment`` (or ``env``), ``working_directory`` (or
            ``working_dir``), ``stream_output``, ``grace_seconds``, ``timeout_seconds``; one
            entry of the environment is also given as ``"env.NAME"``. ``type`` names another
            infrastructure.
    """

    name: str
    flow_name: str
    entrypoint: str
    path: str | None = None
    description: str | None = None
    version: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    tags: Collection[str] = ()
    work_queue_name: str = DEFAULT_WORK_QUEUE
    infrastructure: Infrastructure | str | None = None
    infra_overrides: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def build_from_flow(
        cls,
        flow: Flow[..., Any],
        name: str,
        *,
        output: str | Path | None = None,
        apply: bool = False,
        **keywords: Unpack[DeploymentKeywords],
    ) -> Deployment:
        """Return a deployment of a flow; where nothing is said, it takes after the flow.

        Args:
            flow: A flow at the top of a file or module, so that another process can load it.
            name: The deployment's name.
            output: A TOML file to write it to, replacing what is there.
            apply: Put it on record, too.
            **keywords: The other attributes of a deployment.

        Raises:
            UsageError: An attribute is unknown or not what it must be, or the flow cannot be loaded
                by another process.
            ParameterTypeError: The flow's signature or annotations refuse a parameter.
        """
        for unknown in keywords.keys() - DeploymentKeywords.__annotations__.keys():
            raise UsageError(f"a deployment has no {unknown!r}")
        fields: dict[str, Any] = {
            "flow_name": flow.name,
            "version": flow.options.version,
            "description": flow.options.description and inspect.cleandoc(flow.options.description),
            **keywords,
        }
        if "entrypoint" not in fields:
            fields["entrypoint"] = _entrypoint_of(flow, _folder(fields.get("path")))
        deployment = cls(name=name, **fields)
        record = deployment.record()
        check_given(flow, record.parameters)
        if output is not None:
            path = Path(output)
            write_toml(path, toml_text(record, folder=path.parent), replace=True)
        if apply:
            apply_deployment(record)
        return deployment

    @classmethod
    def from_toml(cls, path: str | Path) -> Deployment:
        """Return the deployment that a file says; it is not on record by that.

        Raises:
            UsageError: The file cannot be read, or something in it is not right.
        """
        document: dict[str, Any] = read_toml(Path(path))
        deployment = cls(
            path=document.pop("working_directory"),
            work_queue_name=document.pop("work_queue", DEFAULT_WORK_QUEUE),
            infra_overrides=document.pop("infrastructure", {}),
            **document,
        )
        try:
            deployment.record()
        except UsageError as error:
            raise UsageError(f"{path}: {error}", hint=error.hint) from error
        return deployment

    def to_toml(self, *, folder: Path | None = None) -> str:
        """Return it as the text of a file, with comments.

        Args:
            folder: Where the file will be; with None it can be anywhere on this machine.

        Raises:
            UsageError: An attribute is not what it must be, or TOML cannot say it.
        """
        return toml_text(self.record(), folder=folder)

    def apply(self) -> str:
        """Put it on record, replacing the one of the same flow and name; return its id.

        Raises:
            UsageError: An attribute is not what it must be.
            NotFoundError: The block that its infrastructure takes after is not on record.
        """
        return apply_deployment(self.record()).deployment.id

    def record(self) -> deployment_records.Deployment:
        """Return it as the registry keeps it, with a new id, checked.

        Raises:
            UsageError: An attribute is not what it must be.
        """
        check_name("deployment", self.name)
        if "/" in self.name:
            raise UsageError(
                f"the deployment name {self.name!r} contains '/'",
                hint="a deployment is written FLOW-NAME/NAME; choose a name without '/'",
            )
        check_name("work queue", self.work_queue_name)
        _check_text("flow name", self.flow_name)
        _check_text("entrypoint", self.entrypoint)
        _check_text("description", self.description, is_optional=True)
        _check_text("version", self.version, is_optional=True)
        made_at = now()
        return deployment_records.Deployment(
            id=new_id(),
            name=self.name,
            flow_name=self.flow_name,
            entrypoint=self.entrypoint,
            working_directory=str(_folder(self.path)),
            description=self.description,
            version=self.version,
            parameters=json_parameters(self.parameters),
            tags=_checked_tags(self.tags),
            work_queue=self.work_queue_name,
            infrastructure=checked_infrastructure(self.infra_overrides, base=self.infrastructure),
            created_at=made_at,
            updated_at=made_at,
        )


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a deployment that was applied.

    Attributes:
        deployment: It, as it is on record.
        is_new: Whether there was none of its flow and name.
        is_queue_new: Whether its work queue was created for it.
    """

    deployment: deployment_records.Deployment
    is_new: bool
    is_queue_new: bool


def apply_deployment(deployment: deployment_records.Deployment) -> Applied:
    """Put a deployment on record, and its work queue if there is none.

    Raises:
        NotFoundError: The block that its infrastructure takes after is not on record.
        BlockNotLoadedError: That block cannot be used.
    """
    resolved_infrastructure(deployment.infrastructure)
    tables = open_registry(PREFECTLITE_REGISTRY.value()).deployments
    is_queue_new = deployment.work_queue not in {queue.name for queue in tables.list_work_queues()}
    if is_queue_new:
        try:
            tables.create_work_queue(WorkQueue(id=new_id(), name=deployment.work_queue))
        except ConflictError:  # by another process, just now
            is_queue_new = False
    saved = tables.save_deployment(deployment)
    return Applied(saved, saved.id == deployment.id, is_queue_new)


def run_deployment(  # noqa: PLR0913 - Prefect 2.8's signature
    name: str,
    *,
    parameters: Mapping[str, object] | None = None,
    scheduled_time: datetime | None = None,
    flow_run_name: str | None = None,
    timeout: float | None = None,
    poll_interval: float | None = None,
    tags: Collection[str] = (),
) -> FlowRun:
    """Make a flow run of a deployment, and wait for its end.

    Called in a flow, it makes a subflow run of that flow, unless ``timeout`` is 0. In the code of a
    coroutine it is to be awaited, and does not block the loop (Prefect 2.8 behaviour).

    Args:
        name: ``flow-name/deployment-name``, the deployment's name alone, or its id.
        parameters: Instead of, or beside, those of the deployment. They are checked if the flow can
            be loaded here.
        scheduled_time: When it is due, aware; None for now.
        flow_run_name: The run's name; None for a random one.
        timeout: Seconds to wait at most; None for ever, 0 for not at all.
        poll_interval: Seconds between two looks; None for as soon as matters.
        tags: Tags of the run, beside those of the deployment.

    Returns:
        The run as it is when the waiting ends, so perhaps not in a final state.

    Raises:
        NotFoundError: There is no such deployment, or the block of its infrastructure is gone.
        AmbiguousReferenceError: The name means several.
        UsageError: A parameter, or the time, is not what it must be.
    """
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    deployment = registry.deployments.find_deployment(name)
    merged = {**deployment.parameters, **json_parameters(parameters or {})}
    try:
        flow = load_deployed_flow(deployment)
    except EntrypointError:
        pass
    else:
        check_parameters(flow, merged)
    flow_run = new_flow_run(
        deployment,
        merged,
        name=flow_run_name,
        tags=tags,
        scheduled_at=scheduled_time,
        parent_flow_run_id=None if timeout == 0 else _calling_flow_run_id(),
    )
    registry.create_flow_run(flow_run)
    caller = sys._getframe(1)  # noqa: SLF001 - nothing else tells who is to await from who is not
    if caller.f_code.co_flags & inspect.CO_COROUTINE:
        return _wait_on_loop(registry, flow_run, timeout, poll_interval)  # type: ignore[return-value] # to be awaited
    if timeout == 0:
        return flow_run
    return wait_for_flow_run(
        registry, flow_run.id, timeout_seconds=timeout, poll_seconds=poll_interval
    )


async def _wait_on_loop(
    registry: Registry, flow_run: FlowRun, timeout: float | None, poll_interval: float | None
) -> FlowRun:
    """Wait as ``wait_for_flow_run`` does, while the loop goes on."""
    import asyncio

    deadline = None if timeout is None else monotonic() + timeout
    while not flow_run.state.is_final():
        left = _POLL_SECONDS if poll_interval is None else poll_interval
        if deadline is not None:
            left = min(left, deadline - monotonic())
        if left <= 0:
            break
        await asyncio.sleep(left)
        flow_run = wait_for_flow_run(registry, flow_run.id, timeout_seconds=0)
    return flow_run


def load_deployed_flow(deployment: deployment_records.Deployment) -> Flow[..., object]:
    """Import the flow of a deployment, as far as that is possible here.

    Raises:
        EntrypointError: It is not; on another machine, or in another environment, it may be.
    """
    folder = Path(deployment.working_directory)
    if is_running_program(deployment.entrypoint, folder):
        raise EntrypointError(f"{deployment.entrypoint} is the program that is running")
    before = [*sys.path]
    try:
        return load_flow(deployment.entrypoint, folder=folder)
    finally:
        sys.path[:] = before


def new_flow_run(
    deployment: deployment_records.Deployment,
    parameters: Mapping[str, object],
    *,
    name: str | None = None,
    tags: Iterable[str] = (),
    scheduled_at: datetime | None = None,
    parent_flow_run_id: str | None = None,
) -> FlowRun:
    """Return a flow run of a deployment, Scheduled; it is not on record by that.

    It has a copy of all that it needs, so that nothing that becomes of the deployment alters it.

    Args:
        deployment: As it is on record.
        parameters: All that the flow is called with, as JSON can hold them.
        name: Its name; None for a random one.
        tags: Beside those of the deployment.
        scheduled_at: When it is due, aware; None for now.
        parent_flow_run_id: The flow run that it is a subflow run of.

    Raises:
        UsageError: The time has no zone, or a tag is no text.
        NotFoundError: The block that its infrastructure takes after is not on record any more.
        BlockNotLoadedError: That block cannot be used.
    """
    if scheduled_at is not None and scheduled_at.utcoffset() is None:
        raise UsageError(
            f"the time {scheduled_at.isoformat()} has no zone",
            hint="such as datetime.now(timezone.utc), or 2024-02-29T21:31:00+01:00",
        )
    folder = Path(deployment.working_directory)
    infrastructure = resolved_infrastructure(deployment.infrastructure)
    entrypoint, own_folder = deployment.entrypoint, infrastructure.get("working_directory")
    if own_folder is not None:  # the flow's code is still where it is
        entrypoint = absolute(entrypoint, folder)
        folder /= str(own_folder)
    return FlowRun(
        id=new_id(),
        name=name or random_run_name(),
        flow_name=deployment.flow_name,
        state=Scheduled(),
        parameters=parameters,
        tags=_checked_tags([*deployment.tags, *_checked_tags(tags)]),
        version=deployment.version,
        entrypoint=entrypoint,
        parent_flow_run_id=parent_flow_run_id,
        deployment_id=deployment.id,
        work_queue=deployment.work_queue,
        infrastructure={**infrastructure, "working_directory": str(folder)},
        scheduled_at=scheduled_at or now(),
    )


def check_name(noun: str, name: str) -> None:
    """Refuse a name that nobody could read or type.

    Raises:
        UsageError: It is empty, or has characters that cannot be printed.
    """
    _check_text(f"name of a {noun}", name)
    if not name.strip() or not name.isprintable():
        raise UsageError(f"{name!r} cannot be the name of a {noun}", hint="such as: nightly")


def _check_text(what: str, text: object, *, is_optional: bool = False) -> None:
    if (text is None or text == "") and is_optional:
        return
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"the {what} must be a text, not {text!r}")


def _checked_tags(tags: object) -> tuple[str, ...]:
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise UsageError(f"tags={tags!r} is not a list of texts")
    found = [*tags]
    if not all(isinstance(tag, str) for tag in found):
        raise UsageError(f"tags={tags!r} is not a list of texts")
    return tuple(dict.fromkeys(tag for tag in found if tag))


def _folder(path: str | Path | None) -> Path:
    try:
        # Not resolved: a link such as "current" is meant to point elsewhere later.
        return Path(os.path.normpath(Path(path or ".").absolute()))
    except FileNotFoundError:
        raise UsageError("the current folder does not exist any more") from None


def _calling_flow_run_id() -> str | None:
    from prefectlite.context import current  # most programs that come here are no flow

    context = current()
    return None if context is None else context.flow_run.id


def _entrypoint_of(flow: Flow[..., Any], folder: Path) -> str:
    """Return how another process finds a flow, seen from a folder.

    Raises:
        UsageError: It cannot: the flow is made inside a function, or in no file.
    """
    function = inspect.unwrap(flow.fn)
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    names = [name for name, value in vars(module).items() if value is flow] if module else []
    file = getattr(module, "__file__", None)
    if module is None or not names or file is None:
        raise UsageError(
            f"the flow {flow.name!r} cannot be loaded by another process",
            hint="define it at the top of a file, not in a function or an interactive session",
        )
    if module.__name__ != "__main__" and module.__package__:
        return f"{module.__name__}:{names[0]}"
    path = Path(file).resolve()
    if path.is_relative_to(folder.resolve()):
        path = path.relative_to(folder.resolve())
    return f"{path}:{names[0]}"
