"""What the SQLite registry asks for where runs are listed: conditions, order, and counts by flow.

``registry/sqlite.py`` only. Nothing here reads or writes; values go in as parameters, never as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from prefectlite.clock import now, to_microseconds
from prefectlite.conditions import Where
from prefectlite.records import FlowRun
from prefectlite.rows import Row
from prefectlite.run_filters import FlowRunFilter, Order, TaskRunFilter
from prefectlite.states import StateType

if TYPE_CHECKING:
    from prefectlite.flow_records import FlowSummary

#: One row for each flow and type of state: how many runs, and the mean of what those took that ended,
#: in microseconds. It reads every flow run once, in the order of the file: by the index of flows, which
#: SQLite would rather take, that costs twice as much.
COUNT_BY_FLOW = """
    SELECT flow_name, state_type, count(*), avg(max(0, ended_at - started_at))
    FROM flow_run NOT INDEXED GROUP BY flow_name, state_type
"""
#: The condition that a flow run is the newest of its flow; it reads an index alone.
IS_NEWEST_OF_FLOW = "WHERE seq IN (SELECT max(seq) FROM flow_run GROUP BY flow_name)"

_EXPRESSIONS = {
    "created": "seq",
    "started": "started_at",
    "ended": "ended_at",
    "name": "name",
    "flow": "flow_name",
    "task": "task_name",
    "state": "state_name",
}
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def flow_runs_where(filter_: FlowRunFilter) -> Where:
    """Return the condition that a row of flow_run matches a filter."""
    where = Where()
    where.add_states(filter_.states)
    where.add_any("flow_name", filter_.flow_names)
    where.add_any("deployment_id", filter_.deployment_ids)
    where.add_any("work_queue", filter_.work_queues)
    if filter_.parent_flow_run_id is not None:
        where.add_any("parent_flow_run_id", [filter_.parent_flow_run_id])
    _add_tags(where, [*filter_.tags])
    _add_times(
        where, "coalesce(started_at, scheduled_at, created_at)", filter_.since, filter_.until
    )
    if filter_.text is not None:
        needles = _needles(filter_.text)
        found = _contain(["name", "flow_name", "state_message"], needles)
        # In JSON text all but ASCII is escaped, and so are quotes.
        json_needles = dict.fromkeys([*needles, *(json.dumps(one)[1:-1] for one in needles)])
        in_parameters = _contain(["parameters"], [*json_needles])
        where.add(f"({found} OR {in_parameters})", *needles * 3, *json_needles)
    return where


def task_runs_where(filter_: TaskRunFilter) -> Where:
    """Return the condition that a row of task_run matches a filter."""
    where = Where()
    _add_flow_runs(where, "id", [*filter_.flow_run_ids])
    _add_flow_runs(where, "flow_name", [*filter_.flow_names])
    where.add_states(filter_.states)
    where.add_any("task_name", filter_.task_names)
    _add_tags(where, [*filter_.tags])
    _add_times(where, "coalesce(started_at, created_at)", filter_.since, filter_.until)
    if filter_.text is not None:
        needles = _needles(filter_.text)
        columns = ["name", "task_name", "state_message"]
        where.add(f"({_contain(columns, needles)})", *needles * len(columns))
    return where


def ordered(order: Order) -> str:
    """Return the ORDER BY clause; of equal rows the newest comes first."""
    if order.by == "duration":
        expression = f"max(0, coalesce(ended_at, {to_microseconds(now())}) - started_at)"
    else:
        expression = _EXPRESSIONS[order.by]
    direction = "DESC" if order.is_descending else "ASC"
    if expression == "seq":
        return f"ORDER BY seq {direction}"
    return f"ORDER BY {expression} {direction} NULLS LAST, seq DESC"


def summaries(counts: Sequence[Row], newest: Sequence[FlowRun]) -> list[FlowSummary]:
    """Return what became of the runs of each flow, by the names of the flows.

    Args:
        counts: The rows of ``COUNT_BY_FLOW``.
        newest: The newest run of each flow.
    """
    from prefectlite.flow_records import FlowSummary  # few commands need it

    last_runs = {run.flow_name: run for run in newest}
    run_counts: dict[str, dict[StateType, int]] = {}
    means: dict[str, float] = {}
    for name, state_type, count, microseconds in counts:
        run_counts.setdefault(name, {})[StateType(state_type)] = count
        if state_type == StateType.COMPLETED and microseconds is not None:
            means[name] = microseconds / 1e6
    return [
        FlowSummary(
            name=name,
            run_counts=run_counts[name],
            mean_seconds=means.get(name),
            last_run=last_runs.get(name),
        )
        for name in sorted(run_counts)
    ]


def _add_flow_runs(where: Where, column: str, values: Sequence[str]) -> None:
    if values:
        marks = ", ".join("?" * len(values))
        where.add(
            f"flow_run_seq IN (SELECT seq FROM flow_run WHERE {column} IN ({marks}))",  # noqa: S608 - a name of ours
            *values,
        )


def _add_tags(where: Where, tags: Sequence[str]) -> None:
    if tags:
        # First what costs nothing: mostly there are none.
        marks = ", ".join("?" * len(tags))
        has = f"EXISTS (SELECT 1 FROM json_each(tags) WHERE value IN ({marks}))"  # noqa: S608 - marks only
        where.add(f"tags <> '[]' AND {has}", *tags)


def _add_times(
    where: Where, expression: str, since: datetime | None, until: datetime | None
) -> None:
    if since is not None:
        where.add(f"{expression} >= ?", to_microseconds(since))
    if until is not None:
        where.add(f"{expression} < ?", to_microseconds(until))


def _needles(text: str) -> list[str]:
    """Return what to look for in what lower() gives, which knows the case of ASCII only."""
    # By characters: the upper case of a German sharp s is two, and no name has these instead.
    upper = "".join(one.upper() if len(one.upper()) == 1 else one for one in text)
    variants = (text, text.lower(), upper)
    return [*dict.fromkeys(one.translate(_ASCII_LOWER) for one in variants)]


def _contain(columns: Sequence[str], needles: Sequence[str]) -> str:
    """Return that one of some columns contains one of some texts; these are bound column by column."""
    return " OR ".join(f"instr(lower({column}), ?)" for column in columns for _ in needles)
