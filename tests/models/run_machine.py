"""The rules that change runs: each does the same with the registry and with the model of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import strategies as some
from hypothesis.stateful import initialize

from prefectlite import deletion, pauses
from prefectlite.cancellation import request_cancellation
from prefectlite.records import FlowRun, Pause, TaskRun
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settling import settle
from prefectlite.states import FINAL, Paused, Pending, Running, Scheduled, State, StateType
from prefectlite.upkeep_records import Prunable
from tests.models import ending_model, launch_model, query_model
from tests.models import run_strategies as draws
from tests.models.run_model import Refused
from tests.models.run_queues import QueueRules
from tests.models.run_store import WRITERS, step

#: What each rule can come to; see ``Counts``.
OUTCOMES = {
    "create_flow_run": ["done"],
    "create_task_runs": ["done", "not running", "gone"],
    "change_flow_run": ["done", "conflict", "gone"],
    "change_task_run": ["done", "conflict", "not running", "gone"],
    "begin": ["done", "conflict", "gone"],
    "pause": ["done", "conflict", "key", "gone"],
    "answer": ["done", "conflict", "gone"],
    "resume": ["done", "not paused", "too late", "gone"],
    "fail_overdue": ["some", "none"],
    "settle": ["some", "none"],
    "cancel": ["done", "final", "gone"],
    "set_kill_at": ["done"],
    "record_launch": ["done", "no"],
    "release": ["done", "conflict", "gone"],
    "delete": ["done"],
    "prune": ["some", "none"],
}
# What an example begins with is paused for so long.
_PAUSED_SECONDS = 60
_DRAWN = ("PAUSED", "RUNNING", "SCHEDULED")
_STATES = {type_: draws.states(some.just(StateType(type_))) for type_ in _DRAWN}
#: Of the runs that an example begins with.
_USUAL = some.sampled_from([StateType.SCHEDULED, StateType.PENDING, *[StateType.RUNNING] * 3])
_FIELDS = {
    "name": draws.NAMES,
    "flow_name": draws.FLOW_NAMES,
    "tags": draws.TAGS,
    "parameters": draws.PARAMETERS,
}


class RunMachine(QueueRules):
    """Three writers that share a registry, and the model of what they do."""

    @initialize(
        data=some.data(),
        flow_states=some.lists(draws.states(_USUAL), min_size=1, max_size=2),
        task_states=some.lists(draws.states(), max_size=3),
    )
    def begin_with(
        self, data: some.DataObject, flow_states: list[State], task_states: list[State]
    ) -> None:
        for state in flow_states:
            self.create_flow_run(data, 0, state)
        self._create(data, 2, Scheduled(), work_queue="fast", scheduled_at=self.at(0))
        taken = {"launcher": self.living, "agent_name": "one", "work_queue": "slow"}
        self._create(data, 2, Pending(), **taken)
        paused = self._create(data, 0, Running(), process=self.living)
        self._pause(
            self.turn(1), paused, Paused(), Pause(key="first", resume_by=self.at(_PAUSED_SECONDS))
        )
        if task_states:
            self.create_task_runs(data, 1, task_states)
        self.add_lines(data, 0, [10, 30])

    @step(data=some.data(), writer=WRITERS, state=draws.states())
    def create_flow_run(self, data: some.DataObject, writer: int, state: State) -> None:
        due_seconds = data.draw(some.none() | draws.SECONDS)
        parents = [None, *(run.id for run in self.flow_runs())]
        self._create(
            data,
            writer,
            state,
            parent_flow_run_id=data.draw(some.none() | some.sampled_from(parents)),
            scheduled_at=None if due_seconds is None else self.at(due_seconds),
            process=self.living if data.draw(some.booleans()) else None,
            ended_at=state.timestamp if state.is_final() else None,
            work_queue=data.draw(draws.MAYBE_QUEUE),
        )

    def _create(
        self, data: some.DataObject, writer: int, state: State, **others: object
    ) -> FlowRun:
        registry = self.turn(writer)
        fields = data.draw(some.fixed_dictionaries(_FIELDS))
        run = FlowRun(id=self.new_id(data), state=state, **fields, **others)
        self.both(
            "create_flow_run",
            lambda: registry.create_flow_run(run),
            lambda: self.model.create(run),
        )
        return run

    @step(
        weight=2,
        needs=lambda self: self.seen,
        data=some.data(),
        writer=WRITERS,
        states=some.lists(draws.states(), min_size=1, max_size=3),
    )
    def create_task_runs(self, data: some.DataObject, writer: int, states: list[State]) -> None:
        registry = self.turn(writer)
        flow_run = self.flow_run(data, "RUNNING")
        new = [
            TaskRun(
                id=self.new_id(data),
                name=data.draw(draws.NAMES),
                task_name=data.draw(draws.TASK_NAMES),
                flow_run_id=flow_run.id,
                state=state,
                tags=data.draw(draws.TAGS),
                created_at=self.clock.moment,
                ended_at=state.timestamp if state.is_final() else None,
            )
            for state in states
        ]
        self.both(
            "create_task_runs",
            lambda: registry.create_task_runs(new),
            lambda: self.model.create(*new),
        )

    @step(
        weight=4,
        needs=lambda self: self.seen,
        data=some.data(),
        writer=WRITERS,
        state=draws.states(),
    )
    def change_flow_run(self, data: some.DataObject, writer: int, state: State) -> None:
        run = self.flow_run(data, "SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
        self._change("change_flow_run", writer, self.snapshot(data, run), state)

    @step(
        weight=3,
        needs=lambda self: self.task_runs_seen(),
        data=some.data(),
        writer=WRITERS,
        state=draws.states(),
    )
    def change_task_run(self, data: some.DataObject, writer: int, state: State) -> None:
        run = data.draw(some.sampled_from(self.task_runs_seen()))
        self._change("change_task_run", writer, self.snapshot(data, run), state)

    def _change(self, rule_name: str, writer: int, seen: FlowRun | TaskRun, state: State) -> None:
        registry = self.turn(writer)
        changed = self.both(
            rule_name,
            lambda: registry.change_state(seen, state),
            lambda: self.model.change(seen, state),
        )
        if changed is not None:
            self.lines_are_recorded(writer, of=seen.id)

    @step(
        needs=lambda self: self.seen,
        data=some.data(),
        writer=WRITERS,
        is_alive=some.booleans(),
        is_launched=some.booleans(),
    )
    def begin(
        self, data: some.DataObject, writer: int, *, is_alive: bool, is_launched: bool
    ) -> None:
        registry = self.turn(writer)
        seen = self.snapshot(data, self.flow_run(data, "SCHEDULED", "PENDING"))
        seen = replace(seen, infrastructure_pid="there:1") if is_launched else seen
        state, process = Running(), self.living if is_alive else self.dead
        self.both(
            "begin",
            lambda: registry.begin_flow_run(seen, state, process),
            lambda: self.model.begin(seen, state, process),
        )

    @step(
        weight=3,
        needs=lambda self: self.seen,
        data=some.data(),
        writer=WRITERS,
        state=_STATES["PAUSED"],
        key=draws.KEYS,
        seconds=some.none() | draws.SECONDS,
    )
    def pause(
        self, data: some.DataObject, writer: int, state: State, key: str | None, seconds: int | None
    ) -> None:
        registry = self.turn(writer)
        seen = self.snapshot(data, self.flow_run(data, "RUNNING"))
        had = [*self.model.pauses.get(seen.id, {}).values()]
        old = data.draw(some.none() | some.sampled_from([None, *had]))
        pause = Pause(key=key, resume_by=None if seconds is None else self.at(seconds))
        self._pause(registry, seen, state, pause, old)

    def _pause(
        self,
        registry: Registry,
        seen: FlowRun,
        state: State,
        pause: Pause,
        old: Pause | None = None,
    ) -> None:
        self.both(
            "pause",
            lambda: registry.pauses.pause_flow_run(seen, state, pause, instead_of=old),
            lambda: self.model.pause(seen, state, pause, old),
        )

    @step(
        needs=lambda self: self.seen,
        data=some.data(),
        writer=WRITERS,
        state=_STATES["RUNNING"],
        answer=some.sampled_from([None, {}, {"is_good": True}]),
    )
    def answer(
        self,
        data: some.DataObject,
        writer: int,
        state: State,
        answer: Mapping[str, object] | None,
    ) -> None:
        registry = self.turn(writer)
        seen = self.snapshot(data, self.flow_run(data, "PAUSED"))
        self.both(
            "answer",
            lambda: registry.pauses.resume_flow_run(seen, state, run_input=answer),
            lambda: self.model.resume(seen, state, answer),
        )

    @step(weight=2, needs=lambda self: self.seen, data=some.data(), writer=WRITERS)
    def resume(self, data: some.DataObject, writer: int) -> None:
        registry = self.turn(writer)
        seen = self.snapshot(data, self.flow_run(data, "PAUSED"))

        def expect() -> FlowRun:
            ending_model.fail_overdue(self.model, self.clock.moment)
            run = self.model.get(seen.id)
            if run.state.message == pauses.UNRESUMED:
                raise Refused("too late")
            if run.state.type != "PAUSED" or run.state_version != seen.state_version:
                raise Refused("not paused")
            return self.model.resume(run, Running("Resumed."), None)

        self.both("resume", lambda: pauses.resume(registry, seen), expect)

    @step(
        weight=2,
        writer=WRITERS,
        seconds=some.sampled_from([0, 10, 100, 10_000]),
        is_settled=some.booleans(),
    )
    def wait(self, writer: int, *, seconds: int, is_settled: bool) -> None:
        """Let time pass, and somebody look who has to say what became of runs meanwhile."""
        self.clock.advance(seconds)
        if is_settled:
            self._settle()
        else:
            self._fail_overdue(writer)

    def _fail_overdue(self, writer: int) -> None:
        registry = self.turn(writer)
        late = ending_model.overdue(self.model, self.clock.moment)
        found = registry.pauses.list_overdue_flow_runs(self.clock.moment)
        assert {run.id for run, _ in found} == {run.id for run in late}
        for run, pause in found:
            assert pause == self.model.pauses[run.id][run.state_version]
        pauses.fail_overdue(registry)
        count = ending_model.fail_overdue(self.model, self.clock.moment)
        self.counts.reached("fail_overdue", "some" if count else "none")

    def _settle(self) -> None:
        registry = self.turn(1)
        if any(run.state.is_paused() for run in registry.list_begun_flow_runs()):
            ending_model.fail_overdue(self.model, self.clock.moment)
        ids = [run.id for run in registry.list_begun_flow_runs()]
        assert settle(registry, lambda: registry, ending_seconds=0.0) == []
        count = ending_model.settle(self.model, ids, lambda process: process == self.dead)
        self.counts.reached("settle", "some" if count else "none")

    @step(
        weight=2,
        needs=lambda self: self.seen,
        data=some.data(),
        writer=WRITERS,
        grace_seconds=draws.GRACES,
    )
    def cancel(self, data: some.DataObject, writer: int, grace_seconds: float) -> None:
        registry = self.turn(writer)
        seen = self.snapshot(data, self.flow_run(data, "SCHEDULED", "RUNNING", "PAUSED"))
        self.both(
            "cancel",
            lambda: request_cancellation(registry, seen, grace_seconds=grace_seconds),
            lambda: ending_model.cancel(self.model, seen.id, grace_seconds),
        )

    @step(needs=lambda self: self.seen, data=some.data(), writer=WRITERS, seconds=draws.SECONDS)
    def set_kill_at(self, data: some.DataObject, writer: int, seconds: int) -> None:
        registry = self.turn(writer)
        run = self.flow_run(data, "CANCELLING")
        self.both(
            "set_kill_at",
            lambda: registry.launches.set_kill_at(run.id, self.at(seconds)),
            lambda: launch_model.set_kill_at(self.model, run.id, self.at(seconds)),
        )

    @step(needs=lambda self: self.seen, data=some.data(), writer=WRITERS)
    def record_launch(self, data: some.DataObject, writer: int) -> None:
        registry = self.turn(writer)
        taken = [run for run in self.flow_runs() if run.launcher and not run.infrastructure_pid]
        run = data.draw(some.sampled_from([*taken, self.flow_run(data, "PENDING")]))
        seen = self.snapshot(data, run)
        expected = launch_model.record_launch(self.model, seen, "here:7")
        got = registry.launches.record_launch(seen, infrastructure_pid="here:7", supervisor=None)
        assert got is expected
        self.counts.reached("record_launch", "done" if got else "no")

    @step(
        needs=lambda self: self.seen, data=some.data(), writer=WRITERS, state=_STATES["SCHEDULED"]
    )
    def release(self, data: some.DataObject, writer: int, state: State) -> None:
        registry = self.turn(writer)
        seen = self.snapshot(data, self.flow_run(data, "PENDING"))
        released = self.both(
            "release",
            lambda: registry.launches.release_flow_run(seen, state),
            lambda: launch_model.release(self.model, seen, state),
        )
        if released is not None:
            self.output_bytes[seen.id] = 0

    @step(needs=lambda self: self.flow_runs(*FINAL), data=some.data(), writer=WRITERS)
    def delete(self, data: some.DataObject, writer: int) -> None:
        registry = self.turn(writer)
        run = data.draw(some.sampled_from(self.flow_runs(*FINAL)))
        self._delete(registry, [run.id])
        self.counts.reached("delete")

    @step(
        writer=WRITERS,
        words=draws.STATE_WORDS,
        seconds=some.none() | draws.SECONDS,
        keep=some.sampled_from([0, 0, 0, 1, 2]),
    )
    def prune(self, writer: int, words: list[str], seconds: int | None, keep: int) -> None:
        registry = self.turn(writer)
        before = self.clock.moment if seconds is None else self.at(seconds)
        where = Prunable(before=before, states=words, keep=keep)
        expected = ending_model.prunable(
            self.model, where, lambda run: query_model.matches(run, FlowRunFilter(states=words))
        )
        found = [run.id for run in registry.upkeep.list_prunable_flow_runs(where)]
        assert found == expected
        self._delete(registry, found)
        self.counts.reached("prune", "some" if found else "none")

    def _delete(self, registry: object, ids: list[str]) -> None:
        told = []
        if registry is self.registries[2]:  # what is filled in another process is not filled here
            registry = self.registries[1]
        deletion.delete_flow_runs(registry, ids, lambda deleted: told.extend(deleted.flow_run_ids))
        assert told == ids
        for id_ in ids:
            self.model.delete(id_)
            assert registry.launches is not None
            assert self.history_is_gone(registry, id_)
