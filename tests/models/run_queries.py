"""The rules that look: each question is answered from the plain listing, too."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest
from hypothesis import strategies as some

from prefectlite.errors import AmbiguousReferenceError, NotFoundError
from prefectlite.records import CachedResult, FlowRun, TaskRun
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter, Order, TaskRunFilter
from prefectlite.states import FINAL
from tests.models import ending_model, query_model
from tests.models import run_strategies as draws
from tests.models.run_logs import LogRules
from tests.models.run_store import WRITERS, step

#: What each rule can come to; see ``Counts``.
OUTCOMES = {
    "list_flow_runs": ["some", "none"],
    "list_task_runs": ["some", "none"],
    "find": ["one", "none", "several"],
    "look_around": ["done"],
    "find_pause": ["some", "none"],
    "cache": ["found", "expired", "none"],
    "reopen": ["done"],
}


def _maybe(values: some.SearchStrategy[str]) -> some.SearchStrategy[list[str]]:
    """Draw some values to look for; mostly none, since all conditions must hold at once."""
    return some.sampled_from([0, 0, 0, 1, 2]).flatmap(
        lambda size: some.lists(values, min_size=size, max_size=size)
    )


class QueryRules(LogRules):
    """Filters, orders, references, trees and counts."""

    @step(
        data=some.data(),
        writer=WRITERS,
        words=draws.STATE_WORDS,
        text=draws.TEXTS,
        order=draws.FLOW_RUN_ORDER,
        limit=draws.LIMITS,
    )
    def list_flow_runs(
        self,
        data: some.DataObject,
        writer: int,
        *,
        words: list[str],
        text: str | None,
        order: Order,
        limit: int | None,
    ) -> None:
        registry = self.turn(writer)
        since, until = data.draw(draws.times(self.clock.moment))
        parents = [None, *(run.parent_flow_run_id for run in self.flow_runs())]
        where = FlowRunFilter(
            states=words,
            flow_names=data.draw(_maybe(draws.FLOW_NAMES)),
            tags=data.draw(some.sampled_from([(), (), (), ("a",), ("ü", "b")])),
            work_queues=data.draw(some.sampled_from([(), (), ("fast",), ("slow", "odd")])),
            parent_flow_run_id=data.draw(some.sampled_from([None, None, *parents])),
            since=since,
            until=until,
            text=text,
        )
        runs = [run for run in self.flow_runs() if query_model.matches(run, where)]
        expected = query_model.ordered(runs, order, self.clock.moment)[:limit]
        assert registry.list_flow_runs(where, order=order, limit=limit) == expected
        self.counts.reached("list_flow_runs", "some" if expected else "none")

    @step(
        data=some.data(),
        writer=WRITERS,
        words=draws.STATE_WORDS,
        text=draws.TEXTS,
        order=draws.TASK_RUN_ORDER,
        limit=draws.LIMITS,
    )
    def list_task_runs(
        self,
        data: some.DataObject,
        writer: int,
        *,
        words: list[str],
        text: str | None,
        order: Order,
        limit: int | None,
    ) -> None:
        registry = self.turn(writer)
        since, until = data.draw(draws.times(self.clock.moment))
        ids = [run.id for run in self.flow_runs()]
        where = TaskRunFilter(
            flow_run_ids=data.draw(_maybe(some.sampled_from(ids))) if ids else (),
            states=words,
            flow_names=data.draw(_maybe(draws.FLOW_NAMES)),
            task_names=data.draw(_maybe(draws.TASK_NAMES)),
            tags=data.draw(some.sampled_from([(), (), (), ("a",), ("ü", "b")])),
            since=since,
            until=until,
            text=text,
        )
        flow_runs = {run.id: run for run in self.flow_runs()}
        runs = [
            run
            for run in ending_model.task_runs(self.model)
            if query_model.task_matches(run, flow_runs[run.flow_run_id], where)
        ]
        expected = query_model.ordered(runs, order, self.clock.moment)[:limit]
        assert registry.list_task_runs(where, order=order, limit=limit) == expected
        self.counts.reached("list_task_runs", "some" if expected else "none")

    @step(
        data=some.data(), writer=WRITERS, is_flow_run=some.booleans(), length=some.integers(0, 12)
    )
    def find(self, data: some.DataObject, writer: int, *, is_flow_run: bool, length: int) -> None:
        registry = self.turn(writer)
        every = ending_model.flow_runs if is_flow_run else ending_model.task_runs
        runs = every(self.model)
        ids = [run.id for run in runs]
        starts = [id_[:length] for id_ in ids] + [id_[:length].upper() for id_ in ids]
        reference = data.draw(draws.NAMES | some.sampled_from(["", "zzzz", *ids, *starts]))
        expected = query_model.meant(runs, reference)
        find = registry.find_flow_run if is_flow_run else registry.find_task_run
        if len(expected) == 1:
            assert [find(reference)] == expected
        elif expected:
            with pytest.raises(AmbiguousReferenceError) as refused:
                find(reference)
            found = [one.partition(" ")[0] for one in refused.value.candidates]
            assert found == [run.id for run in expected[:10]]
        else:
            with pytest.raises(NotFoundError):
                find(reference)
        self.counts.reached("find", ["none", "one", "several"][min(2, len(expected))])

    @step(needs=lambda self: self.flow_runs(), data=some.data(), writer=WRITERS)
    def look_around(self, data: some.DataObject, writer: int) -> None:
        registry = self.turn(writer)
        self._look_below(registry, data)
        self._list_flows(registry)
        self._find_pause(registry, data)

    def _look_below(self, registry: Registry, data: some.DataObject) -> None:
        top = data.draw(some.sampled_from(self.flow_runs()))
        inside = {run.id for _, run in ending_model.tree(self.model, top.id)}
        below = [run for run in self.flow_runs() if run.id in inside]
        assert registry.list_run_tree(top.id) == below
        counts: Counter[tuple[str, ...]] = Counter()
        for flow_run in below:
            for run in self._tasks_of(flow_run):
                counts[flow_run.id, run.task_name, run.state.type, run.state.name] += 1
        found = registry.count_tasks(top.id)
        assert [(tuple(one[:4]), one[4]) for one in found] == [*counts.items()]
        names = Counter(run.state.name for run in self._tasks_of(top))
        assert registry.count_task_runs(top.id) == names
        self.counts.reached("look_around")

    def _tasks_of(self, flow_run: FlowRun) -> list[TaskRun]:
        tasks = ending_model.task_runs(self.model)
        return [run for run in tasks if run.flow_run_id == flow_run.id]

    def _list_flows(self, registry: Registry) -> None:
        runs = self.flow_runs()
        found = registry.list_flows()
        assert [one.name for one in found] == sorted({run.flow_name for run in runs})
        for one in found:
            own = [run for run in runs if run.flow_name == one.name]
            assert one.run_counts == Counter(run.state.type for run in own)
            assert one.last_run == own[-1]
            spans = [
                run.ended_at - run.started_at
                for run in own
                if run.state.is_completed() and run.started_at and run.ended_at
            ]
            mean = sum(spans, timedelta()).total_seconds() / len(spans) if spans else None
            assert one.mean_seconds == pytest.approx(mean)
        begun = {run.id for run in registry.list_begun_flow_runs()}
        going = (run for run in runs if run.state.type not in FINAL)
        assert begun == {run.id for run in going if run.process or run.launcher}
        ids = {run.id for run in runs[::2]} | {"nothing"}
        assert registry.upkeep.known_runs(ids) == ids - {"nothing"}

    def _find_pause(self, registry: Registry, data: some.DataObject) -> None:
        key, is_of_state = data.draw(some.none() | draws.KEYS), data.draw(some.booleans())
        run = self.flow_run(data, "PAUSED", "RUNNING")
        version = run.state_version if is_of_state else None
        had = self.model.pauses.get(run.id, {}).values()
        found = [one for one in had if version in {None, one.state_version}]
        found = [one for one in found if key in {None, one.key}]
        pause = registry.pauses.find_pause(run.id, key=key, state_version=version)
        assert [pause] == (found[-1:] or [None])
        self.counts.reached("find_pause", "some" if pause else "none")

    @step(
        data=some.data(),
        writer=WRITERS,
        key=some.sampled_from(["one", "öne"]),
        seconds=some.none() | draws.SECONDS,
        is_saved=some.booleans(),
    )
    def cache(
        self, data: some.DataObject, writer: int, *, key: str, seconds: int | None, is_saved: bool
    ) -> None:
        registry = self.turn(writer)
        tasks = ending_model.task_runs(self.model)
        if is_saved and tasks:
            task = data.draw(some.sampled_from(tasks))
            expires_at = None if seconds is None else self.at(seconds)
            self.cached[key] = CachedResult(key, task.id, expires_at)
            registry.save_cached_result(self.cached[key])
        if data.draw(some.booleans()):
            registry.upkeep.forget_lost_results()
            self.cached = {
                key: one
                for key, one in self.cached.items()
                if one.task_run_id in self.model.records and not self._is_over(one)
            }
        one = self.cached.get(key)
        expected = None if one is None or self._is_over(one) else one
        assert registry.find_cached_result(key, at=self.clock.moment) == expected
        self.counts.reached("cache", "found" if expected else "expired" if one else "none")

    def _is_over(self, one: CachedResult) -> bool:
        return one.expires_at is not None and one.expires_at <= self.clock.moment

    @step(writer=WRITERS)
    def reopen(self, writer: int) -> None:
        self.turn(writer)
        self.reopen_registry(writer)
        self.lines_are_recorded(writer)
        self.counts.reached("reopen")

    def at(self, seconds: float) -> datetime:
        """Return when so many seconds will have passed, or had."""
        return self.clock.moment + timedelta(seconds=seconds)

    def history_is_gone(self, registry: Registry, id_: str) -> bool:
        """Return whether nothing is left of a run."""
        run = self.seen[id_][-1]
        assert registry.state_history(run) == []
        assert registry.read_logs(id_) == []
        return registry.pauses.find_pause(id_) is None
