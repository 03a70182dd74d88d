"""What a flow run runs in: a process of its own, and later a container or a cluster's job.

``Infrastructure`` is the interface; each other file of this package is one implementation, named by
the ``type`` of a deployment's infrastructure. All that it takes to end a run is on the run's record:
a copy of the infrastructure's fields, and its identifier. So an agent can do it that did not start it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from prefectlite.errors import UsageError
from prefectlite.names import new_id
from prefectlite.plugins import load
from prefectlite.records import FlowRun, ProcessIdentity

#: The type of an infrastructure that names none.
DEFAULT_TYPE = "process"


@dataclass(frozen=True, slots=True)
class Launched:
    """What a run was started in.

    Attributes:
        identifier: The run's ``infrastructure_pid``, as ``scope:id``: what ``kill`` takes.
        supervisor: The process that owns those of the run; None where there is none on this host.
    """

    identifier: str
    supervisor: ProcessIdentity | None = None


class Infrastructure(ABC):
    """Starts flow runs, and ends them. It can be kept on record as a block of its type.

    Attributes:
        type: Its name, as deployments say it.
    """

    type: ClassVar[str]

    @abstractmethod
    def fields(self) -> dict[str, object]:
        """Return what it was made of, with its ``type``: JSON-able, for ``load_infrastructure``."""

    @abstractmethod
    def run(self, flow_run: FlowRun) -> Launched:
        """Start a flow run that is on record, and return as soon as it goes on without us.

        Raises:
            InfrastructureError: It could not be started; nothing of it is left.
        """

    @abstractmethod
    def kill(
        self,
        infrastructure_pid: str,
        grace_seconds: float,
        *,
        supervisor: ProcessIdentity | None = None,
    ) -> None:
        """Have a run ended: told to at once, killed when the grace period is over.

        It does not wait for that. Safe to call again, also from another process.

        Args:
            infrastructure_pid: The identifier that ``run`` gave.
            grace_seconds: What the run gets to end by itself.
            supervisor: As it is on the run's record, where one is and the run is Cancelling.

        Raises:
            InfrastructureNotFound: Nothing of it is there any more.
            InfrastructureNotAvailable: It is of another scope: another host, say.
            InfrastructureError: It cannot be proven to be the run.
        """

    def save(self, name: str, overwrite: bool = False) -> str:  # noqa: FBT001, FBT002 - Prefect 2.8's signature
        """Put it on record as the block ``type/name``, and return the block's id.

        The values of its environment are kept as secrets.

        Raises:
            UsageError: It cannot be the name of a block, or a field is not what it must be.
            ConflictError: The name is taken, and not to be overwritten.
        """
        from prefectlite.block_documents import save_document  # no launch needs it
        from prefectlite.block_records import BlockDocument, SecretPlace

        fields = load_infrastructure(self.fields()).fields()
        environment = fields.get("environment")
        variables = environment if isinstance(environment, Mapping) else {}
        secrets = tuple(SecretPlace(("environment", variable)) for variable in variables)
        type_ = str(fields.pop("type"))
        document = BlockDocument(id=new_id(), type=type_, name=name, fields={}, secrets=secrets)
        return save_document(document, fields, overwrite=overwrite).id

    @classmethod
    def load(cls, name: str) -> Self:
        """Return the one that is on record as the block ``type/name``.

        Raises:
            NotFoundError: There is none.
            BlockNotLoadedError: Its fields are not what they must be, or its secrets are gone.
        """
        from prefectlite.block_types import load_infrastructure_block

        infrastructure: Self = load_infrastructure_block(cls.type, name)
        return infrastructure

    @classmethod
    def delete(cls, name: str) -> None:
        """Delete the block ``type/name``.

        Raises:
            NotFoundError: There is none.
        """
        from prefectlite.block_documents import delete_document

        delete_document(cls.type, name)

    @abstractmethod
    def preview(self, flow_run_id: str) -> str:
        """Return what it would start for a run, as a person reads it; it starts nothing."""


def load_infrastructure(fields: Mapping[str, object]) -> Infrastructure:
    """Return the infrastructure that these fields describe; ``type`` says which it is.

    Raises:
        SettingError: There is no such type.
        UsageError: A field is unknown, or not what it must be.
    """
    type_ = fields.get("type", DEFAULT_TYPE)
    if not isinstance(type_, str):
        raise UsageError(f"infrastructure: type {type_!r} is not a text")
    infrastructure: Infrastructure = load("infrastructure", type_).from_fields(fields)
    return infrastructure
