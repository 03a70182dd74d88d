"""Which runs a listing is of, and in which order: what ``Registry`` takes, whatever it keeps them in.

Commands make them of their options. They are plain tuples, because every process that records a run
imports this. It must never read the registry.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple


class FlowRunFilter(NamedTuple):
    """What flow runs have in common: all of it holds of each; what is empty or None holds of all.

    Attributes:
        states: Names or types of states, in any case. A word that is both means the type:
            ``running`` finds Retrying too.
        flow_names: Names of flows.
        tags: They have one of these, or more.
        deployment_ids: Whole ids of the deployments that they were made of.
        work_queues: Names of the queues that they are taken from.
        parent_flow_run_id: They are subflow runs of this one.
        since: They began at this time or later; what has not begun counts as of when it is due, and
            what is not due at any time as of when it was put on record.
        until: They began before this time, likewise.
        text: It is in their name, their flow's name, their state's message or their parameters, as
            JSON; in any case.
    """

    states: Collection[str] = ()
    flow_names: Collection[str] = ()
    tags: Collection[str] = ()
    deployment_ids: Collection[str] = ()
    work_queues: Collection[str] = ()
    parent_flow_run_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None


class TaskRunFilter(NamedTuple):
    """What task runs have in common; as ``FlowRunFilter``.

    Attributes:
        flow_run_ids: Whole ids of their flow runs.
        flow_names: Names of the flows of these.
        task_names: Names of their tasks.
        text: It is in their name, their task's name or their state's message; in any case.
    """

    flow_run_ids: Collection[str] = ()
    states: Collection[str] = ()
    flow_names: Collection[str] = ()
    task_names: Collection[str] = ()
    tags: Collection[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None


class Order(NamedTuple):
    """By what runs are ordered; of equal ones the newest comes first, and what has no value last.

    Attributes:
        by: One of ``FLOW_RUN_ORDERS`` or ``TASK_RUN_ORDERS``.
        is_descending: Whether the greatest comes first.
    """

    by: str
    is_descending: bool


#: How many runs a listing gives where the caller names no number.
DEFAULT_LIMIT = 200
EVERY_FLOW_RUN = FlowRunFilter()
EVERY_TASK_RUN = TaskRunFilter()
NEWEST_FIRST = Order("created", is_descending=True)
#: What flow runs can be ordered by. The duration of one that has not ended is that up to now.
FLOW_RUN_ORDERS = ("created", "started", "ended", "duration", "name", "flow", "state")
#: What task runs can be ordered by.
TASK_RUN_ORDERS = ("created", "started", "ended", "duration", "name", "task", "state")
