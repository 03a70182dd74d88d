"""A registry that three writers share, beside the model of it: how a step is made and compared."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest
from hypothesis import note
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from prefectlite.errors import (
    ConflictError,
    FlowPauseTimeout,
    FlowRunNotRunningError,
    NotFoundError,
    NotPausedError,
    RunFinalError,
    StateConflictError,
)
from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import Registry, open_registry
from prefectlite.registry.sqlite import SQLiteRegistry
from prefectlite.run_filters import Order
from prefectlite.tables import actor
from tests.models import ending_model
from tests.models.clocks import FakeClock
from tests.models.counts import Counts
from tests.models.elsewhere import OtherProcess
from tests.models.processes import identity
from tests.models.run_model import MAY_FOLLOW, Refused, Runs
from tests.models.run_strategies import STARTS

T = TypeVar("T")
#: What a registry raises where the model refuses.
_ERRORS = {
    "gone": NotFoundError,
    "conflict": StateConflictError,
    "not running": FlowRunNotRunningError,
    "key": ConflictError,
    "final": RunFinalError,
    "not paused": NotPausedError,
    "too late": FlowPauseTimeout,
}
_OLDEST_FIRST = Order("created", is_descending=False)
#: This process, as two connections, and another one.
WRITERS = some.sampled_from([0, 1, 2])


class _Step(NamedTuple):
    """What can be done, what is drawn for that, and when it makes sense."""

    do: Callable[..., None]
    drawn: Mapping[str, some.SearchStrategy[Any]]
    needs: Callable[[Any], object]


_STEPS: list[_Step] = []


def _always(_: object) -> bool:
    return True


def step(
    *, needs: Callable[[Any], object] = _always, weight: int = 1, **drawn: some.SearchStrategy[Any]
) -> Callable[[T], T]:
    """Make a method one of the steps.

    They are no rules of hypothesis, which would draw a few of these for an example, and leave out the
    others: most of what goes wrong takes several that belong together.

    Args:
        needs: Whether it makes sense now.
        weight: How often it is done, beside others.
        **drawn: What is drawn for it; ``data`` is for what it draws itself.
    """

    def decorate(do: T) -> T:
        _STEPS.extend([_Step(do, drawn, needs)] * weight)
        return do

    return decorate


class SharedRegistry(RuleBasedStateMachine):
    """The registry, its writers, the model, and what is drawn from what is on record."""

    counts: ClassVar[Counts]
    other: ClassVar[OtherProcess]
    clock: ClassVar[FakeClock]

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="models-")
        folder = Path(self._folder.name)
        self._path = folder / "registry.db"
        self._url = f"sqlite:///{self._path}"
        self.registries: list[Any] = [
            open_registry(self._url),
            SQLiteRegistry(self._path),
            self.other.registry(self._url),
        ]
        self._reader = open_registry(self._url, read_only=True)
        self.model = Runs()
        self.seen: dict[str, list[FlowRun | TaskRun]] = {}
        self._ids = 0
        (folder / "dead.lock").touch()
        self._living_lock = str(folder / "alive.lock")
        self.other.hold(self._living_lock)
        self.living = identity("a" * 32, folder / "alive.lock")
        self.dead = identity("d" * 32, folder / "dead.lock")
        self.clock.restart()
        self.counts.examples += 1

    @rule(data=some.data())
    def go_on(self, data: some.DataObject) -> None:
        """Do one of the steps that make sense now."""
        chosen = data.draw(some.sampled_from([one for one in _STEPS if one.needs(self)]))
        given = {name: data.draw(drawn) for name, drawn in chosen.drawn.items() if name != "data"}
        note(f"{chosen.do.__name__}: {given}")
        chosen.do(self, **({"data": data} if "data" in chosen.drawn else {}), **given)

    def turn(self, writer: int) -> Registry:
        """Begin a step: time goes on, and somebody writes; return the registry as they have it."""
        self.clock.advance(1)
        self.counts.steps += 1
        self.model.by = actor(self.other.pid if writer == 2 else os.getpid())
        return self.registries[writer]

    def both(self, rule: str, do: Callable[[], T], expect: Callable[[], object]) -> T | None:
        """Do something with the registry and with the model, and compare what came of it.

        Returns:
            What the registry returned; None where both refused.
        """
        try:
            expected = expect()
        except Refused as refusal:
            self._both_refuse(do, refusal)
            self.counts.reached(rule, refusal.why)
            return None
        got = do()
        self.counts.reached(rule)
        if isinstance(expected, FlowRun | TaskRun):
            names = ("id", "state", "state_version", "run_count", "started_at", "ended_at")
            for name in names:
                assert getattr(got, name) == getattr(expected, name), name
        elif expected is not None:
            assert got == expected
        return got

    def _both_refuse(self, do: Callable[[], object], refusal: Refused) -> None:
        with pytest.raises(_ERRORS[refusal.why]) as refused:
            do()
        assert type(refused.value) is _ERRORS[refusal.why]
        if refusal.current is not None:
            assert refused.value.current == refusal.current

    def new_id(self, data: some.DataObject) -> str:
        """Return a new id, which the same example has the next time, too."""
        self._ids += 1
        return f"{data.draw(STARTS)}{self._ids:04x}-0000-4000-8000-{self._ids:012x}"

    def flow_runs(self, *types: str) -> list[FlowRun]:
        """Return the flow runs as the model has them, all or those in states of these types."""
        found = ending_model.flow_runs(self.model)
        return [run for run in found if not types or run.state.type in types]

    def flow_run(self, data: some.DataObject, *types: str) -> FlowRun:
        """Draw a flow run, mostly one in a state of these types, and now and then a deleted one."""
        ever = [seen[-1] for seen in self.seen.values() if isinstance(seen[-1], FlowRun)]
        gone = [run for run in ever if run.id not in self.model.records]
        preferred = self.flow_runs(*types)
        choices = [preferred] * 5 + [self.flow_runs(), gone, gone]
        chosen = data.draw(some.sampled_from([some_ for some_ in choices if some_] or [ever]))
        return data.draw(some.sampled_from(chosen))

    def snapshot(self, data: some.DataObject, run: FlowRun | TaskRun) -> FlowRun | TaskRun:
        """Draw how somebody has seen a run: mostly as it is."""
        seen = self.seen[run.id]
        is_stale = len(seen) > 1 and data.draw(some.sampled_from([False, False, False, True]))
        return data.draw(some.sampled_from(seen)) if is_stale else seen[-1]

    def task_runs_seen(self) -> list[TaskRun]:
        """Return the task runs that there are and were; those that there are twice."""
        ever = [seen[-1] for seen in self.seen.values() if isinstance(seen[-1], TaskRun)]
        return ever + ending_model.task_runs(self.model)

    @invariant()
    def the_record_is_that_of_the_model(self) -> None:
        """All runs, and the histories of those that have changed; each time another looks."""
        viewer = [*self.registries, self._reader][self.counts.steps % 4]
        found = viewer.list_flow_runs(order=_OLDEST_FIRST, limit=None)
        assert found == ending_model.flow_runs(self.model), _told(found, self.model)
        tasks = viewer.list_task_runs(order=_OLDEST_FIRST, limit=None)
        assert tasks == ending_model.task_runs(self.model), _told(tasks, self.model)
        for id_, run in self.model.records.items():
            seen = self.seen.setdefault(id_, [])
            if not seen or seen[-1] != run:
                seen.append(run)
                self._check_history(viewer, run)

    def _check_history(self, viewer: Registry, run: FlowRun | TaskRun) -> None:
        history = viewer.state_history(run)
        assert history == self.model.history[run.id]
        for before, after in pairwise(history):
            assert after.state.type in MAY_FOLLOW[before.state.type].split()
            assert after.version == before.version + 1
        assert history[-1].state == run.state

    def reopen_registry(self, writer: int) -> None:
        """Let go of a writer's registry, and open it anew."""
        self.registries[writer].close()
        if writer == 0:
            self.registries[0] = open_registry(self._url)
        elif writer == 1:
            self.registries[1] = SQLiteRegistry(self._path)

    def teardown(self) -> None:
        """Look for damage, and close everything."""
        assert self.registries[0].upkeep.faults(is_quick=False) == []
        for run in self.model.records.values():
            self._check_history(self._reader, run)
        for registry in (*self.registries, self._reader):
            registry.close()
        self.other.let_go(self._living_lock)
        self._folder.cleanup()


def _told(found: Sequence[FlowRun | TaskRun], model: Runs) -> str:
    """Return how runs on record differ from those of the model."""
    told = [f"{len(found)} runs are on record"]
    for run in found:
        expected = model.records.get(run.id)
        for field in fields(run):
            here, there = getattr(run, field.name), getattr(expected, field.name, None)
            if here != there:
                told.append(f"{run.id}: {field.name} is {here}, and should be {there}")
    return "\n".join(told)
