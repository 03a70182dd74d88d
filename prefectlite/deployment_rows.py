"""Records of deployments, queues and agents as rows of a relational registry, and back; see ``rows``."""

from __future__ import annotations

import json

from prefectlite.clock import from_microseconds, to_microseconds
from prefectlite.deployment_records import Agent, Deployment, WorkQueue
from prefectlite.rows import Row, Values, identity_from, identity_text, maybe_storable, storable

#: The columns of ``deployment_values`` and ``deployment_from``.
DEPLOYMENT_COLUMNS = (
    "id, name, flow_name, entrypoint, working_directory, description, version, parameters, tags,"
    " work_queue, infrastructure, created_at, updated_at"
)
#: The columns of ``work_queue_values`` and ``work_queue_from``.
WORK_QUEUE_COLUMNS = "id, name, description, priority, concurrency_limit, is_paused, created_at"
#: The columns of ``agent_values`` and ``agent_from``.
AGENT_COLUMNS = "id, name, work_queues, concurrency_limit, process, started_at"


def deployment_values(deployment: Deployment) -> Values:
    """Return the values for ``DEPLOYMENT_COLUMNS``."""
    return (
        deployment.id,
        storable(deployment.name),
        storable(deployment.flow_name),
        storable(deployment.entrypoint),
        storable(deployment.working_directory),
        maybe_storable(deployment.description),
        maybe_storable(deployment.version),
        json.dumps(dict(deployment.parameters)),
        json.dumps(deployment.tags),
        storable(deployment.work_queue),
        json.dumps(dict(deployment.infrastructure)),
        to_microseconds(deployment.created_at),
        to_microseconds(deployment.updated_at),
    )


def deployment_from(row: Row) -> Deployment:
    """Return the record of a row of ``DEPLOYMENT_COLUMNS``."""
    return Deployment(
        id=row[0],
        name=row[1],
        flow_name=row[2],
        entrypoint=row[3],
        working_directory=row[4],
        description=row[5],
        version=row[6],
        parameters=json.loads(row[7]),
        tags=tuple(json.loads(row[8])),
        work_queue=row[9],
        infrastructure=json.loads(row[10]),
        created_at=from_microseconds(row[11]),
        updated_at=from_microseconds(row[12]),
    )


def work_queue_values(queue: WorkQueue) -> Values:
    """Return the values for ``WORK_QUEUE_COLUMNS``."""
    return (
        queue.id,
        storable(queue.name),
        maybe_storable(queue.description),
        queue.priority,
        queue.concurrency_limit,
        int(queue.is_paused),
        to_microseconds(queue.created_at),
    )


def work_queue_from(row: Row) -> WorkQueue:
    """Return the record of a row of ``WORK_QUEUE_COLUMNS``."""
    return WorkQueue(
        id=row[0],
        name=row[1],
        description=row[2],
        priority=row[3],
        concurrency_limit=row[4],
        is_paused=bool(row[5]),
        created_at=from_microseconds(row[6]),
    )


def agent_values(agent: Agent) -> Values:
    """Return the values for ``AGENT_COLUMNS``."""
    return (
        agent.id,
        storable(agent.name),
        json.dumps(agent.work_queues),
        agent.concurrency_limit,
        identity_text(agent.process),
        to_microseconds(agent.started_at),
    )


def agent_from(row: Row) -> Agent:
    """Return the record of a row of ``AGENT_COLUMNS``."""
    return Agent(
        id=row[0],
        name=row[1],
        work_queues=tuple(json.loads(row[2])),
        concurrency_limit=row[3],
        process=identity_from(row[4]),
        started_at=from_microseconds(row[5]),
    )
