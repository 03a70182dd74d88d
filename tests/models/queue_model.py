"""Which runs are taken from work queues next: the specification of a claim."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from prefectlite.deployment_records import Agent, WorkQueue
from prefectlite.records import FlowRun
from tests.models.run_model import FINAL

_DEFAULT_PRIORITY = 100


def is_waiting(run: FlowRun) -> bool:
    """Return whether a run is there to be taken; one that awaits a retry is its process's."""
    return run.state.type == "SCHEDULED" and run.state.name != "AwaitingRetry"


def going_on(runs: Iterable[FlowRun]) -> list[FlowRun]:
    """Return the runs that count for limits."""
    queued = [run for run in runs if run.work_queue is not None]
    return [run for run in queued if run.state.type not in FINAL and not is_waiting(run)]


def due(
    runs: Collection[FlowRun], queues: Collection[WorkQueue], names: Collection[str], at: datetime
) -> list[FlowRun]:
    """Return the runs that may be taken from some queues, in their order, whatever the limits are.

    Args:
        runs: All flow runs, in the order of their creation.
        queues: Those on record; of others the name suffices.
        names: Which to take from.
        at: The present time.
    """
    paused = {queue.name for queue in queues if queue.is_paused}
    priorities = {queue.name: queue.priority for queue in queues}
    found = [
        run
        for run in runs
        if run.work_queue in names
        and run.work_queue not in paused
        and is_waiting(run)
        and run.scheduled_at is not None
        and run.scheduled_at <= at
    ]
    # A sort keeps the order of creation among equals.
    return sorted(
        found,
        key=lambda run: (priorities.get(run.work_queue, _DEFAULT_PRIORITY), run.scheduled_at),
    )


def taken(
    waiting: Iterable[FlowRun],
    active: Collection[FlowRun],
    queues: Collection[WorkQueue],
    *,
    agent: Agent | None,
    limit: int,
) -> list[FlowRun]:
    """Return which of ``due`` are taken: so many that no limit is exceeded, of a call, agent or queue."""
    limits = {queue.name: queue.concurrency_limit for queue in queues}
    found: list[FlowRun] = []
    for run in waiting:
        going = [*active, *found]
        queue_limit = limits.get(run.work_queue)
        of_queue = sum(one.work_queue == run.work_queue for one in going)
        own = len(found) + sum(agent is not None and one.agent_name == agent.name for one in active)
        agent_limit = None if agent is None else agent.concurrency_limit
        has_room = agent_limit is None or own < agent_limit
        if len(found) < limit and has_room and (queue_limit is None or of_queue < queue_limit):
            found.append(run)
    return found
