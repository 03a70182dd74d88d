"""Agents that share queues, killed and disturbed at any step: each run begins once, and none is lost."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from prefectlite import agent as agents
from prefectlite.cancellation import request_cancellation
from prefectlite.deletion import delete_flow_runs
from prefectlite.deployment_records import Agent, Deployment, WorkQueue
from prefectlite.errors import RegistryError, RunFinalError
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.registry.sqlite import SQLiteRegistry
from prefectlite.run_filters import Order
from prefectlite.run_folders import run_folders
from prefectlite.settings import PREFECTLITE_HOME
from prefectlite.states import Scheduled
from tests.models import queue_model
from tests.models.agent_world import Killed, Mishap, Watched, World, fail, kill
from tests.models.clocks import FakeClock
from tests.models.counts import Counts
from tests.models.elsewhere import OtherProcess
from tests.models.processes import identity

#: What each rule can come to; see ``Counts``.
OUTCOMES = {
    "start_agent": ["done"],
    "round": ["done", "killed", "failed", "disturbed"],
    "claim": ["some", "none", "held back"],
    "launch": ["done", "not now", "never"],
    "kill_agent": ["done"],
    "engine": ["began", "ended", "killed"],
    "cancel": ["at once", "asked", "final"],
    "set_work_queue": ["made", "changed", "deleted"],
    "delete": ["run", "deployment"],
    "end": ["Completed", "Cancelled", "Crashed"],
}
_OLDEST_FIRST = Order("created", is_descending=False)
_QUEUES = ["fast", "slow", "odd"]
_NAMES = some.just(tuple(_QUEUES)) | some.lists(some.sampled_from(_QUEUES), min_size=1).map(tuple)
_CHANGES = some.fixed_dictionaries(
    {},
    optional={
        "priority": some.sampled_from([1, 2, 200]),
        "concurrency_limit": some.sampled_from([None, 0, 1, 2]),
        "is_paused": some.booleans(),
    },
)
# Where it matters most what happens.
_PLACES = ["claim_due_flow_runs", "infrastructure.run", "record_launch", "release_flow_run"]
_STEPS = some.tuples(some.sampled_from(_PLACES), some.integers(0, 4)) | some.tuples(
    some.just(""), some.integers(0, 40)
)
# An agent looks for dead processes every five seconds, and waits for half a minute at most.
_MOMENT_SECONDS, _LONG_SECONDS = 6.0, 40.0
_MOST_ROUNDS = 60


@dataclass
class Served:
    """An agent, and the runs that it has claimed and not launched, in their order."""

    agent: Agent
    service: agents.Service
    registry: SQLiteRegistry
    lock: str
    claimed: list[str] = field(default_factory=list)


class AgentMachine(RuleBasedStateMachine):
    """Agents, queues, and people who cancel, pause and delete."""

    counts: ClassVar[Counts]
    other: ClassVar[OtherProcess]
    clock: ClassVar[FakeClock]

    def __init__(self) -> None:
        super().__init__()
        self._left = ExitStack()
        folder = tempfile.TemporaryDirectory(prefix="agents-")
        self._home = Path(self._left.enter_context(folder))
        self._path = self._home / "registry.db"
        environment = {PREFECTLITE_HOME.name: str(self._home)}
        self._left.enter_context(patch.dict("os.environ", environment))
        self._left.enter_context(patch.object(agents, "monotonic", self.clock.monotonic))
        self.clock.restart()
        self.registry = open_registry(f"sqlite:///{self._path}")
        self._left.callback(self.registry.close)
        self.world = World(self.registry, self.clock, self.other)
        self.world.on_launch = self._on_launch
        self.world.install()
        self.agents: list[Served] = []
        self.runs: list[str] = []
        self._number = 0
        self._now_serving: Served | None = None
        # Why a run need not be Completed in the end.
        self.is_cancelled: set[str] = set()
        self.is_crashed: set[str] = set()
        self.is_deleted: set[str] = set()
        self.counts.examples += 1

    def turn(self) -> None:
        """Begin a step."""
        self.clock.advance(1)
        self.counts.steps += 1

    # Runs, queues and deployments

    @initialize(queues=some.lists(some.sampled_from(_QUEUES), min_size=1, max_size=5))
    def begin_with(self, queues: list[str]) -> None:
        self.start_agent("one", tuple(_QUEUES), None)
        for queue in queues:
            self.add_run(queue, 0, has_deployment=False)

    @rule(
        queue=some.sampled_from(_QUEUES),
        seconds=some.sampled_from([-60, -1, 0, 3, 20]),
        has_deployment=some.booleans(),
    )
    def add_run(self, queue: str, seconds: int, *, has_deployment: bool) -> None:
        self.turn()
        deployment_id = None
        if has_deployment:
            deployment = Deployment(
                id=new_id(), name="d", flow_name="f", entrypoint="x.py:f", working_directory="/"
            )
            deployment_id = self.registry.deployments.save_deployment(deployment).id
        self._number += 1
        run = FlowRun(
            id=f"{self._number:08x}-0000-4000-8000-000000000000",
            name=f"run-{self._number}",
            flow_name="f",
            state=Scheduled(),
            work_queue=queue,
            deployment_id=deployment_id,
            infrastructure={"type": "noted"},
            scheduled_at=self.clock.moment + timedelta(seconds=seconds),
        )
        self.registry.create_flow_run(run)
        self.runs.append(run.id)

    @rule(name=some.sampled_from(_QUEUES), changes=_CHANGES, is_kept=some.integers(0, 4).map(bool))
    def set_work_queue(self, name: str, changes: dict[str, object], *, is_kept: bool) -> None:
        self.turn()
        tables = self.registry.deployments
        found = {queue.name: queue for queue in tables.list_work_queues()}.get(name)
        if found is None:
            tables.create_work_queue(WorkQueue(id=new_id(), name=name, **changes))
            self.counts.reached("set_work_queue", "made")
        elif is_kept:
            tables.change_work_queue(found.id, **changes)
            self.counts.reached("set_work_queue", "changed")
        else:
            tables.delete_work_queue(found.id)
            self.counts.reached("set_work_queue", "deleted")

    @precondition(lambda self: self.runs)
    @rule(data=some.data(), grace_seconds=some.sampled_from([0.0, 5.0]))
    def cancel(self, data: some.DataObject, grace_seconds: float) -> None:
        self.turn()
        self._cancel(data.draw(some.sampled_from(self._known())), grace_seconds)

    def _known(self) -> list[str]:
        return [id_ for id_ in self.runs if id_ not in self.is_deleted] or ["none"]

    def _cancel(self, id_: str, grace_seconds: float) -> None:
        if id_ not in self.runs or id_ in self.is_deleted:
            return
        run = self.registry.find_flow_run(id_)
        try:
            asked = request_cancellation(self.registry, run, grace_seconds=grace_seconds)
        except RunFinalError:
            assert run.state.is_final()
            self.counts.reached("cancel", "final")
        else:
            self.is_cancelled.add(id_)
            self.counts.reached("cancel", "at once" if asked.state.is_final() else "asked")

    @rule(data=some.data())
    def delete(self, data: some.DataObject) -> None:
        self.turn()
        tables = self.registry.deployments
        ended = [run.id for run in self._listed() if run.state.is_final()]
        if ended and data.draw(some.booleans()):
            id_ = data.draw(some.sampled_from(ended))
            delete_flow_runs(self.registry, [id_], lambda deleted: None)
            self.is_deleted.add(id_)
            self.counts.reached("delete", "run")
        for deployment in tables.list_deployments():
            tables.delete_deployment(deployment.id)
            self.counts.reached("delete", "deployment")

    # Engines and time

    @precondition(lambda self: self.world.living())
    @rule(data=some.data(), is_killed=some.sampled_from([False] * 4 + [True]))
    def engine(self, data: some.DataObject, *, is_killed: bool) -> None:
        self.turn()
        living = self.world.living()
        if is_killed:
            engine = data.draw(some.sampled_from(living))
            self.is_crashed.add(engine.flow_run_id)
            engine.kill()
            self.counts.reached("engine", "killed")
            return
        for engine in data.draw(some.sampled_from([living, living[:1], living[1:]])):
            engine.go_on()
            self.counts.reached("engine", "began" if engine.is_alive else "ended")

    @rule(seconds=some.sampled_from([_MOMENT_SECONDS, _LONG_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # Agents

    @precondition(lambda self: len(self.agents) < 3)
    @rule(
        name=some.sampled_from(["one", "two"]), queues=_NAMES, limit=some.sampled_from([None, 1, 3])
    )
    def start_agent(self, name: str, queues: tuple[str, ...], limit: int | None) -> None:
        self.turn()
        self._number += 1
        token = f"{self._number:032x}"
        lock = str(self._home / f"agent-{self._number}.lock")
        self.other.hold(lock)
        registry = SQLiteRegistry(self._path)
        agent = Agent(
            id=new_id(),
            name=name,
            work_queues=queues,
            concurrency_limit=limit,
            process=identity(token, Path(lock)),
        )
        registry.deployments.save_agent(agent)
        service = agents.Service(Watched(registry, self._on_call), agent, lambda told: None)
        self.agents.append(Served(agent, service, registry, lock))
        self.counts.reached("start_agent")

    @rule(data=some.data())
    def round(self, data: some.DataObject) -> None:
        self.turn()
        self.counts.reached("round", self._round(self._any_agent(data), None))

    @rule(data=some.data(), step=_STEPS)
    def round_with_a_kill(self, data: some.DataObject, step: tuple[str, int]) -> None:
        self._disturbed_round(data, step, kill)

    @rule(data=some.data(), step=_STEPS)
    def round_with_a_failure(self, data: some.DataObject, step: tuple[str, int]) -> None:
        self._disturbed_round(data, step, fail)

    @rule(data=some.data(), step=_STEPS, what=some.sampled_from(["another", "cancel", "queue"]))
    def round_with_others(self, data: some.DataObject, step: tuple[str, int], what: str) -> None:
        self._disturbed_round(data, step, self._disturbance(data, what))

    def _disturbed_round(
        self, data: some.DataObject, step: tuple[str, int], happens: Callable[[str], None]
    ) -> None:
        """Let an agent do what is due, which is something, and let something happen meanwhile."""
        self.add_run(data.draw(some.sampled_from(_QUEUES)), 0, has_deployment=False)
        served = self._any_agent(data)
        self.counts.reached("round", self._round(served, Mishap(*step, happens)))

    @rule(problem=some.sampled_from(["not now", "never"]))
    def break_infrastructure(self, problem: str) -> None:
        """Let the next launch fail."""
        self.world.problem = problem

    def _any_agent(self, data: some.DataObject) -> Served:
        if not self.agents:
            self.start_agent("two", tuple(_QUEUES), None)
        return data.draw(some.sampled_from(self.agents))

    def _disturbance(self, data: some.DataObject, what: str) -> Callable[[str], None]:
        """Return what somebody else does in the middle of a round."""
        if what == "another":
            other = self._any_agent(data)
            return lambda name: None if other is self._now_serving else self._nested(other)
        if what == "cancel":
            id_ = data.draw(some.sampled_from(self._known()))
            return lambda name: self._cancel(id_, 5.0)
        queue, changes = data.draw(some.sampled_from(_QUEUES)), data.draw(_CHANGES)
        return lambda name: self.set_work_queue(queue, changes, is_kept=True)

    def _nested(self, other: Served) -> None:
        outer = self._now_serving
        self._round(other, None)
        self._now_serving = outer

    def _round(self, served: Served, mishap: Mishap | None) -> str:
        """Let an agent do what is due, and return what became of it."""
        self._now_serving = served
        steps = [] if mishap is None else [mishap]

        def on_step(name: str) -> None:
            if self._now_serving is not served or not steps or steps[0].place not in name:
                return
            if steps[0].left <= 0:
                steps.pop().happens(name)
            else:
                steps[0].left -= 1

        before, self.world.on_step = self.world.on_step, on_step
        try:
            served.service._round()
            served.service._tell_ended()
        except Killed:
            self._gone(served)
            return "killed"
        except RegistryError:
            served.service._back_off()
            return "failed"
        finally:
            self.world.on_step = before
            # What it could not launch now stays taken, over rounds in which it launches nothing.
            served.claimed = [run.id for run in served.service._taken]
        return "disturbed" if mishap is not None and not steps else "done"

    def _on_call(self, path: str, method: Callable, args: tuple, kwargs: dict) -> object:
        """Do what an agent asks of its registry, with a step before and one after it."""
        self.world.on_step(path)
        if path == "deployments.claim_due_flow_runs":
            result = self._checked_claim(method, args, kwargs)
        else:
            result = method(*args, **kwargs)
        self.world.on_step(path)
        return result

    def _checked_claim(self, method: Callable, args: tuple, kwargs: dict) -> list[FlowRun]:
        runs, queues = self._listed(), self.registry.deployments.list_work_queues()
        due = queue_model.due(runs, queues, args[0], kwargs["at"])
        expected = queue_model.taken(
            due, queue_model.going_on(runs), queues, agent=kwargs["agent"], limit=kwargs["limit"]
        )
        found = method(*args, **kwargs)
        assert [run.id for run in found] == [run.id for run in expected]
        if self._now_serving is not None:
            self._now_serving.claimed = [run.id for run in found]
        self.counts.reached("claim", "some" if found else "held back" if due else "none")
        return found

    def _on_launch(self, flow_run: FlowRun) -> None:
        """Check that what is launched is the next of what its agent has claimed."""
        assert self._now_serving is not None
        assert self._now_serving.claimed.pop(0) == flow_run.id
        self.counts.reached("launch", self.world.problem or "done")
        if self.world.problem == "never":
            self.is_crashed.add(flow_run.id)

    @precondition(lambda self: len(self.agents) > 1)
    @rule(data=some.data())
    def kill_agent(self, data: some.DataObject) -> None:
        self.turn()
        self._gone(data.draw(some.sampled_from(self.agents)))
        self.counts.reached("kill_agent")

    def _gone(self, served: Served) -> None:
        self.agents.remove(served)
        self.other.let_go(served.lock)
        served.registry.close()

    def _listed(self) -> list[FlowRun]:
        return self.registry.list_flow_runs(order=_OLDEST_FIRST, limit=None)

    @invariant()
    def each_run_begins_at_most_once(self) -> None:
        assert not [id_ for id_, count in self.world.begun.items() if count > 1]
        living = Counter(engine.flow_run_id for engine in self.world.living())
        assert not [id_ for id_, count in living.items() if count > 1]

    def teardown(self) -> None:
        """Let all agents and engines go on until nothing is left to do, and look what became of it."""
        try:
            if sys.exc_info()[0] is None:
                self._drain()
                self._check_ends()
        finally:
            for served in [*self.agents]:
                self._gone(served)
            for engine in self.world.living():
                engine.kill()
            self._left.close()

    def _drain(self) -> None:
        self.world.problem = None
        for queue in self.registry.deployments.list_work_queues():
            self.registry.deployments.change_work_queue(
                queue.id, is_paused=False, concurrency_limit=queue.concurrency_limit or None
            )
        self.start_agent("last", tuple(_QUEUES), None)
        for _ in range(_MOST_ROUNDS):
            self.clock.advance(_MOMENT_SECONDS)
            for served in self.agents:
                self._round(served, None)
            for engine in self.world.living():
                engine.go_on()
            if all(run.state.is_final() for run in self._listed()) and not self._is_going_on():
                return
        told = [(run.name, str(run.state)) for run in self._listed()]
        raise AssertionError(f"this is left: {told}, {[*run_folders()]}")

    def _is_going_on(self) -> bool:
        return bool(self.world.living() or [*run_folders()])

    def _check_ends(self) -> None:
        for run in self._listed():
            name, begun = run.state.name, self.world.begun[run.id]
            assert name in {"Completed", "Cancelled", "Crashed"}, run.state
            assert name != "Completed" or begun == 1
            assert name != "Cancelled" or run.id in self.is_cancelled, run.state
            assert name != "Crashed" or run.id in self.is_crashed, run.state
            self.counts.reached("end", name)
        assert {run.id for run in self._listed()} == {*self.runs} - self.is_deleted
        living = agents.living_agents(self.registry, lambda: self.registry)
        assert {one.id for one in living} == {served.agent.id for served in self.agents}
