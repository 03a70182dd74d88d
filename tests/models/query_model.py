"""What a listing shows: filters, orders and references, as plain Python says them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime

from prefectlite.records import FlowRun, TaskRun
from prefectlite.run_filters import FlowRunFilter, Order, TaskRunFilter

_LEAST_ID_CHARACTERS = 4


def is_in_state(run: FlowRun | TaskRun, words: Collection[str]) -> bool:
    """Return whether a run is in one of these states, by name or type, in any case; none means all."""
    wanted = {word.lower() for word in words}
    return not wanted or not wanted.isdisjoint({run.state.name.lower(), run.state.type.lower()})


def matches(run: FlowRun, where: FlowRunFilter) -> bool:
    """Return whether a flow run is what a filter describes."""
    began_at = run.started_at or run.scheduled_at or run.created_at
    texts = (
        run.name,
        run.flow_name,
        run.state.message,
        json.dumps(dict(run.parameters), ensure_ascii=False),
    )
    return all(
        (
            is_in_state(run, where.states),
            _is_any(run.flow_name, where.flow_names),
            _is_any(run.work_queue, where.work_queues),
            _is_any(run.deployment_id, where.deployment_ids),
            where.parent_flow_run_id in {None, run.parent_flow_run_id},
            not where.tags or not set(where.tags).isdisjoint(run.tags),
            _is_between(began_at, where.since, where.until),
            _has(texts, where.text),
        )
    )


def task_matches(run: TaskRun, flow_run: FlowRun, where: TaskRunFilter) -> bool:
    """Return whether a task run is what a filter describes."""
    return all(
        (
            is_in_state(run, where.states),
            _is_any(run.flow_run_id, where.flow_run_ids),
            _is_any(flow_run.flow_name, where.flow_names),
            _is_any(run.task_name, where.task_names),
            not where.tags or not set(where.tags).isdisjoint(run.tags),
            _is_between(run.started_at or run.created_at, where.since, where.until),
            _has((run.name, run.task_name, run.state.message), where.text),
        )
    )


def _is_any(value: str | None, wanted: Collection[str]) -> bool:
    return not wanted or value in wanted


def _is_between(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)


def _has(texts: Sequence[str | None], text: str | None) -> bool:
    return text is None or any(text.lower() in (one or "").lower() for one in texts)


def ordered(
    runs: Sequence[FlowRun | TaskRun], order: Order, at: datetime
) -> list[FlowRun | TaskRun]:
    """Return runs, given in the order of their creation, in another; of equal ones the newest first."""
    values = {
        "created": runs.index,
        "started": lambda run: run.started_at,
        "ended": lambda run: run.ended_at,
        "duration": lambda run: run.started_at and (run.ended_at or at) - run.started_at,
        "name": lambda run: run.name,
        "flow": lambda run: run.flow_name,
        "task": lambda run: run.task_name,
        "state": lambda run: run.state.name,
    }
    value = values[order.by]
    newest_first = runs[::-1]
    with_value = [run for run in newest_first if value(run) is not None]
    # Stable also where it is reversed.
    with_value.sort(key=value, reverse=order.is_descending)
    return with_value + [run for run in newest_first if value(run) is None]


def meant(runs: Sequence[FlowRun | TaskRun], reference: str) -> list[FlowRun | TaskRun]:
    """Return the runs that an id, the start of one, or a name means; the newest first."""
    word = reference.lower()
    whole = [run for run in runs if run.id == word]
    if whole or not reference:
        return whole
    is_start = len(reference) >= _LEAST_ID_CHARACTERS
    return [
        run
        for run in reversed(runs)
        if run.name == reference or (is_start and run.id.startswith(word))
    ]
