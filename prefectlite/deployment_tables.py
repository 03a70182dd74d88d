"""Deployments, work queues and agents as tables of SQLite, and the claim of the runs that wait in them.

The SQLite registry gives the connection, the transaction and the one way to change a state;
``registry_parts.DeploymentRegistry`` describes the methods. Nothing here commits by itself.
"""

from __future__ import annotations

import sqlite3  # noqa: TID251 - a part of the SQLite registry
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from prefectlite.clock import from_microseconds, to_microseconds
from prefectlite.conditions import Where
from prefectlite.deployment_records import DEFAULT_PRIORITY, Agent, Deployment, WorkQueue
from prefectlite.deployment_rows import (
    AGENT_COLUMNS,
    DEPLOYMENT_COLUMNS,
    WORK_QUEUE_COLUMNS,
    agent_from,
    agent_values,
    deployment_from,
    deployment_values,
    work_queue_from,
    work_queue_values,
)
from prefectlite.errors import ConflictError, NotFoundError
from prefectlite.records import FlowRun
from prefectlite.registry_parts import DeploymentRegistry
from prefectlite.rows import FLOW_RUN_COLUMNS, Row, flow_run_from, identity_text, storable
from prefectlite.states import Pending
from prefectlite.tables import Tables, id_range, only

T = TypeVar("T")

_SELECT_DEPLOYMENT = f"SELECT {DEPLOYMENT_COLUMNS} FROM deployment "  # noqa: S608 - literals only, no value
_SELECT_WORK_QUEUE = f"SELECT {WORK_QUEUE_COLUMNS} FROM work_queue "  # noqa: S608 - literals only, no value
_INSERT_WORK_QUEUE = f"""
    INSERT INTO work_queue ({WORK_QUEUE_COLUMNS}) VALUES ({", ".join("?" * 7)})
    ON CONFLICT (name) DO NOTHING
"""  # noqa: S608 - literals only, no value
_KEPT = ("id", "created_at")
_SAVE_DEPLOYMENT = f"""
    INSERT INTO deployment ({DEPLOYMENT_COLUMNS}) VALUES ({", ".join("?" * 13)})
    ON CONFLICT (flow_name, name) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in DEPLOYMENT_COLUMNS.split(", ") if name not in _KEPT)}
"""  # noqa: S608 - literals only, no value
# With the words of flow_run_by_work_queue, or SQLite would not use that index.
_UNFINISHED = "state_type NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')"
# AwaitingRetry is of type SCHEDULED too, but the run's own process begins it again.
_COUNT_ACTIVE = f"""
    SELECT count(*) FROM flow_run WHERE {{}} = ? AND {_UNFINISHED} AND work_queue IS NOT NULL
    AND (state_type <> 'SCHEDULED' OR state_name = 'AwaitingRetry')
"""  # noqa: S608 - literals only, no value
_CLAIM = "UPDATE flow_run SET launcher = ?, agent_name = ? WHERE id = ?"
_INSERT_AGENT = f"INSERT INTO agent ({AGENT_COLUMNS}) VALUES ({', '.join('?' * 6)})"  # noqa: S608 - literals only, no value
_SELECT_DUE = f"""
    SELECT {FLOW_RUN_COLUMNS}, scheduled_at, seq FROM flow_run
    WHERE work_queue = ? AND {_UNFINISHED}
    AND state_type = 'SCHEDULED' AND scheduled_at <= ? AND state_name <> 'AwaitingRetry'
    ORDER BY scheduled_at, seq LIMIT ?
"""  # noqa: S608 - literals only, no value
_COUNT_QUEUED = f"""
    SELECT work_queue, state_name, count(*) FROM flow_run
    WHERE work_queue IS NOT NULL AND {_UNFINISHED} GROUP BY work_queue, state_name
"""  # noqa: S608 - literals only, no value
_CANDIDATES = 10


class DeploymentTables(Tables, DeploymentRegistry):
    """The tables; the methods are described where ``DeploymentRegistry`` declares them."""

    def save_deployment(self, deployment: Deployment) -> Deployment:  # noqa: D102 - see the interface
        row = deployment_values(deployment)
        names = (storable(deployment.flow_name), storable(deployment.name))

        def save(connection: sqlite3.Connection) -> Deployment:
            connection.execute(_SAVE_DEPLOYMENT, row)
            sql = _SELECT_DEPLOYMENT + "WHERE flow_name = ? AND name = ?"
            return deployment_from(connection.execute(sql, names).fetchall()[0])

        return self._write(save, durable=True)

    def find_deployment(self, reference: str) -> Deployment:  # noqa: D102 - see the interface
        flow_name, _, name = storable(reference).rpartition("/")
        sql = _SELECT_DEPLOYMENT + "WHERE flow_name = ? AND name = ?"
        found = self._read(deployment_from, sql, (flow_name, name))
        if not found:
            found = self._find(deployment_from, _SELECT_DEPLOYMENT, reference)
        return only(
            found,
            "deployment",
            reference,
            lambda one: f"{one.full_name} ({one.id})",
            known=lambda: [
                name for one in self.list_deployments() for name in (one.full_name, one.name)
            ],
        )

    def list_deployments(  # noqa: D102 - see the interface
        self, *, flow_names: Collection[str] = (), work_queue: str | None = None
    ) -> list[Deployment]:
        where = Where()
        where.add_any("flow_name", flow_names)
        if work_queue is not None:
            where.add_any("work_queue", [work_queue])
        sql = f"{_SELECT_DEPLOYMENT} {where} ORDER BY flow_name, name LIMIT ?"
        return self._read(deployment_from, sql, where.values(None))

    def delete_deployment(self, deployment_id: str) -> None:  # noqa: D102 - see the interface
        self._delete("deployment", deployment_id)

    def create_work_queue(self, queue: WorkQueue) -> None:  # noqa: D102 - see the interface
        row = work_queue_values(queue)

        def create(connection: sqlite3.Connection) -> None:
            if connection.execute(_INSERT_WORK_QUEUE, row).rowcount < 1:
                raise ConflictError(
                    f"there is a work queue {queue.name!r} already",
                    hint="change it with: prefectlite work-queue set-limit, pause, resume",
                )

        self._write(create, durable=True)

    def change_work_queue(self, queue_id: str, **changes: Any) -> WorkQueue:  # noqa: ANN401, D102 - the interface names and describes them
        names = ", ".join(f"{name} = ?" for name in changes)
        update = f"UPDATE work_queue SET {names} WHERE id = ?"  # noqa: S608 - names of columns, no value
        values = [
            storable(value) if isinstance(value, str) else value for value in changes.values()
        ]

        def change(connection: sqlite3.Connection) -> WorkQueue:
            if changes:
                connection.execute(update, (*values, queue_id))
            rows = connection.execute(_SELECT_WORK_QUEUE + "WHERE id = ?", (queue_id,)).fetchall()
            if not rows:
                raise NotFoundError(f"there is no work queue {queue_id!r}")
            return work_queue_from(rows[0])

        return self._write(change, durable=True)

    def find_work_queue(self, reference: str) -> WorkQueue:  # noqa: D102 - see the interface
        sql = _SELECT_WORK_QUEUE + "WHERE name = ?"
        found = self._read(work_queue_from, sql, (storable(reference),))
        if not found:
            found = self._find(work_queue_from, _SELECT_WORK_QUEUE, reference)
        return only(
            found,
            "work queue",
            reference,
            lambda one: f"{one.name} ({one.id})",
            known=lambda: [queue.name for queue in self.list_work_queues()],
        )

    def list_work_queues(self) -> list[WorkQueue]:  # noqa: D102 - see the interface
        return self._read(work_queue_from, _SELECT_WORK_QUEUE + "ORDER BY priority, name", ())

    def delete_work_queue(self, queue_id: str) -> None:  # noqa: D102 - see the interface
        self._delete("work_queue", queue_id)

    def count_queued_flow_runs(self) -> dict[str, dict[str, int]]:  # noqa: D102 - see the interface
        counts: dict[str, dict[str, int]] = {}
        for queue, state_name, count in self._read(tuple, _COUNT_QUEUED, ()):
            counts.setdefault(queue, {})[state_name] = count
        return counts

    def claim_due_flow_runs(  # noqa: D102 - see the interface
        self, queues: Collection[str], *, limit: int, at: datetime, agent: Agent | None = None
    ) -> list[FlowRun]:
        names = list(dict.fromkeys(storable(name) for name in queues))
        moment = to_microseconds(at)

        def claim(connection: sqlite3.Connection) -> list[FlowRun]:
            room = max(0, min(limit, _room_of(connection, agent, limit)))
            known = _work_queues(connection, names)
            due: list[tuple[int, int, int, FlowRun]] = []
            for name in names:
                due += _due_in_queue(connection, name, known.get(name), room, moment)
            claimed = []
            for *_, flow_run in sorted(due, key=lambda one: one[:3])[:room]:
                pending, change = self._change_state(flow_run, Pending())
                change(connection)
                if agent is not None:
                    launcher, name = agent.process, agent.name
                    connection.execute(
                        _CLAIM, (identity_text(launcher), storable(name), flow_run.id)
                    )
                    pending = replace(pending, launcher=launcher, agent_name=name)
                claimed.append(pending)
            return claimed

        # A look costs a third of a transaction, and an agent that is idle looks often.
        if not names or not self._read(tuple, *_any_due(names, moment)):
            return []
        return self._write(claim, durable=True)

    def list_overdue_flow_runs(  # noqa: D102 - see the interface
        self, queues: Collection[str], *, before: datetime
    ) -> list[FlowRun]:
        where = _waiting_in(queues)
        where.add("state_name = 'Scheduled' AND scheduled_at <= ?", to_microseconds(before))
        sql = f"SELECT {FLOW_RUN_COLUMNS} FROM flow_run {where} LIMIT ?"  # noqa: S608 - literals only, no value
        return self._read(flow_run_from, sql, where.values(None)) if queues else []

    def next_due_at(  # noqa: D102 - see the interface
        self, queues: Collection[str], *, after: datetime
    ) -> datetime | None:
        where = _waiting_in(queues)
        where.add("scheduled_at > ?", to_microseconds(after))
        sql = f"SELECT scheduled_at FROM flow_run {where} ORDER BY scheduled_at LIMIT ?"  # noqa: S608 - literals only, no value
        found = self._read(tuple, sql, where.values(1)) if queues else []
        return from_microseconds(found[0][0]) if found else None

    def save_agent(self, agent: Agent) -> None:  # noqa: D102 - see the interface
        row = agent_values(agent)
        self._write(lambda connection: connection.execute(_INSERT_AGENT, row), durable=False)

    def list_agents(self) -> list[Agent]:  # noqa: D102 - see the interface
        return self._read(agent_from, f"SELECT {AGENT_COLUMNS} FROM agent ORDER BY seq", ())  # noqa: S608 - literals only, no value

    def delete_agent(self, agent_id: str) -> None:  # noqa: D102 - see the interface
        sql = "DELETE FROM agent WHERE id = ?"
        self._write(lambda connection: connection.execute(sql, (agent_id,)), durable=False)

    def _find(self, record: Callable[[Row], T], select: str, reference: str) -> list[T]:
        """Return what has a reference as its id, else as its name or the start of its id."""
        name = storable(reference)
        id_ = name.lower()
        found = self._read(record, select + "WHERE id = ?", (id_,))
        if found or not name:
            return found
        sql = (
            f"{select}WHERE name = ? OR (id >= ? AND id < ?) ORDER BY seq DESC LIMIT {_CANDIDATES}"
        )
        return self._read(record, sql, (name, *id_range(name)))

    def _delete(self, table: str, id_: str) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            sql = f"DELETE FROM {table} WHERE id = ?"  # noqa: S608 - one of two literals, no value
            if connection.execute(sql, (id_,)).rowcount < 1:
                raise NotFoundError(f"there is no {table.replace('_', ' ')} {id_!r}")

        self._write(delete, durable=True)


def _work_queues(connection: sqlite3.Connection, names: Sequence[str]) -> Mapping[str, WorkQueue]:
    where = Where()
    where.add_any("name", names)
    rows = connection.execute(f"{_SELECT_WORK_QUEUE} {where}", where.values(None)[:-1]).fetchall()
    return {queue.name: queue for queue in map(work_queue_from, rows)}


def _waiting_in(queues: Collection[str]) -> Where:
    """Return the condition that a run waits in one of these queues."""
    where = Where()
    where.add_any("work_queue", queues)
    where.add(_UNFINISHED)
    where.add("state_type = 'SCHEDULED'")
    return where


def _any_due(names: Sequence[str], moment: int) -> tuple[str, list[object]]:
    where = _waiting_in(names)
    where.add("scheduled_at <= ?", moment)
    return f"SELECT 1 FROM flow_run {where} LIMIT ?", where.values(1)  # noqa: S608 - literals only, no value


def _room_of(connection: sqlite3.Connection, agent: Agent | None, limit: int) -> int:
    """Return how many runs an agent may still take."""
    if agent is None or agent.concurrency_limit is None:
        return limit
    return agent.concurrency_limit - _count_active(connection, "agent_name", storable(agent.name))


def _count_active(connection: sqlite3.Connection, column: str, name: str) -> int:
    ((active,),) = connection.execute(_COUNT_ACTIVE.format(column), (name,)).fetchall()
    return int(active)


def _due_in_queue(
    connection: sqlite3.Connection, name: str, queue: WorkQueue | None, limit: int, moment: int
) -> list[tuple[int, int, int, FlowRun]]:
    """Return the runs of one queue that may begin, with what orders them among those of others."""
    priority = DEFAULT_PRIORITY if queue is None else queue.priority
    if queue is not None and queue.is_paused:
        return []
    room = limit
    if queue is not None and queue.concurrency_limit is not None:
        room = min(room, queue.concurrency_limit - _count_active(connection, "work_queue", name))
    if room <= 0:
        return []
    rows = connection.execute(_SELECT_DUE, (name, moment, room)).fetchall()
    return [(priority, row[-2], row[-1], flow_run_from(row)) for row in rows]
