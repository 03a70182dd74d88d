"""What the registry holds of deployments, work queues and agents, as frozen values; see ``records``.

Apart from the records of runs, because only few commands need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from prefectlite.clock import now
from prefectlite.records import ProcessIdentity, iso_text, masked

#: The work queue of a deployment that names none.
DEFAULT_WORK_QUEUE = "default"
#: The priority of a work queue for which none was chosen: room for more urgent ones, and for less.
DEFAULT_PRIORITY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A flow that can be run elsewhere and later: where its code is, with what, and in what.

    Attributes:
        name: Unique among the deployments of its flow.
        entrypoint: ``path.py:flow`` or ``module:flow``, seen from ``working_directory``.
        working_directory: An absolute path.
        parameters: What the flow is called with where a run says nothing else; JSON-able.
        infrastructure: ``type``, such as ``process``, and what differs from that type's defaults:
            ``command``, ``environment``, ``working_directory``, ``stream_output``,
            ``grace_seconds``, ``timeout_seconds``.
    """

    id: str
    name: str
    flow_name: str
    entrypoint: str
    working_directory: str
    description: str | None = None
    version: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    work_queue: str = DEFAULT_WORK_QUEUE
    infrastructure: Mapping[str, object] = field(default_factory=lambda: {"type": "process"})
    created_at: datetime = field(default_factory=now)
    updated_at: datetime = field(default_factory=now)

    @property
    def full_name(self) -> str:
        """The flow's name and its own, ``my-flow/nightly``: unique in a registry."""
        return f"{self.flow_name}/{self.name}"

    def dict(self) -> dict[str, object]:
        """Return the deployment as JSON can hold it; times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "name": self.name,
            "flow_name": self.flow_name,
            "entrypoint": self.entrypoint,
            "working_directory": self.working_directory,
            "description": self.description,
            "version": self.version,
            "parameters": {**self.parameters},
            "tags": [*self.tags],
            "work_queue": self.work_queue,
            "infrastructure": masked(self.infrastructure),
            "created_at": iso_text(self.created_at),
            "updated_at": iso_text(self.updated_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkQueue:
    """Where the flow runs of deployments wait to be taken.

    Attributes:
        name: Unique.
        priority: Queues with a smaller number are served first (Prefect 2.8 behaviour); at least 1.
        concurrency_limit: How many of its runs may be going on at once; None for any number.
        is_paused: Whether no more of its runs are taken.
    """

    id: str
    name: str
    description: str | None = None
    priority: int = DEFAULT_PRIORITY
    concurrency_limit: int | None = None
    is_paused: bool = False
    created_at: datetime = field(default_factory=now)

    def dict(self) -> dict[str, object]:
        """Return the queue as JSON can hold it; times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "priority": self.priority,
            "concurrency_limit": self.concurrency_limit,
            "is_paused": self.is_paused,
            "created_at": iso_text(self.created_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A process that takes runs from work queues and launches them.

    Attributes:
        name: Agents of one name, on one host after each other or at once, share their limit.
        concurrency_limit: How many runs that were taken under this name may be going on at once;
            None for any number.
        process: Who it is; whether it still is there is asked of the system.
    """

    id: str
    name: str
    work_queues: tuple[str, ...]
    concurrency_limit: int | None
    process: ProcessIdentity
    started_at: datetime = field(default_factory=now)

    def dict(self) -> dict[str, object]:
        """Return the agent as JSON can hold it."""
        return {
            "id": self.id,
            "name": self.name,
            "work_queues": [*self.work_queues],
            "concurrency_limit": self.concurrency_limit,
            "hostname": self.process.hostname,
            "pid": self.process.pid,
            "started_at": iso_text(self.started_at),
        }
