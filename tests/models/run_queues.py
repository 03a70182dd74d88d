"""The rules for work queues: what is due in them, and who takes it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as some

from prefectlite.deployment_records import Agent, WorkQueue
from prefectlite.names import new_id
from prefectlite.states import Pending
from tests.models import queue_model
from tests.models import run_strategies as draws
from tests.models.run_queries import QueryRules
from tests.models.run_store import WRITERS, step

#: What each rule can come to; see ``Counts``.
OUTCOMES = {
    "set_work_queue": ["made", "changed", "deleted"],
    "claim": ["some", "none", "held back"],
    "look_ahead": ["some", "none"],
}
_NAMES = some.just(["slow", "fast", "odd"]) | some.lists(draws.QUEUES, max_size=3)
_CHANGES = some.fixed_dictionaries(
    {},
    optional={
        "priority": some.sampled_from([1, 2, 200]),
        "concurrency_limit": some.sampled_from([None, 0, 1, 3]),
        "is_paused": some.booleans(),
    },
)


class QueueRules(QueryRules):
    """Queues with priorities and limits, and agents that take runs from them."""

    def __init__(self) -> None:
        super().__init__()
        self.queues: dict[str, WorkQueue] = {}

    @step(
        writer=WRITERS, name=draws.QUEUES, changes=_CHANGES, is_kept=some.integers(0, 4).map(bool)
    )
    def set_work_queue(
        self, writer: int, *, name: str, changes: dict[str, object], is_kept: bool
    ) -> None:
        tables = self.turn(writer).deployments
        queue = self.queues.get(name)
        if queue is None:
            self.queues[name] = queue = WorkQueue(id=new_id(), name=name, **changes)
            tables.create_work_queue(queue)
            self.counts.reached("set_work_queue", "made")
        elif not is_kept:
            tables.delete_work_queue(self.queues.pop(name).id)
            self.counts.reached("set_work_queue", "deleted")
        else:
            self.queues[name] = replace(queue, **changes)
            assert tables.change_work_queue(queue.id, **changes) == self.queues[name]
            self.counts.reached("set_work_queue", "changed")
        by_priority = sorted(self.queues.values(), key=lambda one: (one.priority, one.name))
        assert tables.list_work_queues() == by_priority

    @step(
        writer=WRITERS,
        names=_NAMES,
        limit=some.sampled_from([1, 2, 5]),
        agent_name=some.sampled_from([None, "one", "two"]),
        agent_limit=some.sampled_from([None, 0, 1, 2]),
        is_alive=some.booleans(),
    )
    def claim(
        self,
        writer: int,
        *,
        names: list[str],
        limit: int,
        agent_name: str | None,
        agent_limit: int | None,
        is_alive: bool,
    ) -> None:
        tables = self.turn(writer).deployments
        agent = agent_name and Agent(
            id=new_id(),
            name=agent_name,
            work_queues=tuple(names),
            concurrency_limit=agent_limit,
            process=self.living if is_alive else self.dead,
        )
        runs, queues, at = self.flow_runs(), [*self.queues.values()], self.clock.moment
        due = queue_model.due(runs, queues, names, at)
        active = queue_model.going_on(runs)
        expected = queue_model.taken(due, active, queues, agent=agent, limit=limit)
        found = tables.claim_due_flow_runs(names, limit=limit, at=at, agent=agent)
        who = {"launcher": agent.process, "agent_name": agent.name} if agent else {}
        assert found == [self.model.change(run, Pending(), **who) for run in expected]
        outcome = "some" if found else "held back" if due else "none"
        self.counts.reached("claim", outcome)

    @step(writer=WRITERS, names=_NAMES, seconds=draws.SECONDS)
    def look_ahead(self, writer: int, names: list[str], seconds: int) -> None:
        tables, at = self.turn(writer).deployments, self.at(seconds)
        queued = [run for run in self.flow_runs() if run.work_queue in names]
        waiting = [run for run in queued if run.state.is_scheduled() and run.scheduled_at]
        later = [run.scheduled_at for run in waiting if run.scheduled_at > at]
        assert tables.next_due_at(names, after=at) == min(later, default=None)
        late = [run for run in waiting if run.scheduled_at <= at and run.state.name == "Scheduled"]
        overdue = tables.list_overdue_flow_runs(names, before=at)
        assert {run.id for run in overdue} == {run.id for run in late}
        counts: dict[str, dict[str, int]] = {}
        for run in self.flow_runs():
            if run.work_queue is not None and not run.state.is_final():
                of_queue = counts.setdefault(run.work_queue, {})
                of_queue[run.state.name] = of_queue.get(run.state.name, 0) + 1
        assert tables.count_queued_flow_runs() == counts
        self.counts.reached("look_ahead", "some" if later or late else "none")
