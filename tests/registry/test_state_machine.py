"""Changes of state in any order, by writers who saw any past, against a model of them."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from prefectlite.errors import FlowRunNotRunningError, StateConflictError
from prefectlite.names import new_id
from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import open_registry
from prefectlite.states import FINAL, TRANSITIONS, State, StateType

TYPES = some.sampled_from(StateType)
# Most orders of changes end at once: these are asked for more often than the final ones.
LASTING = some.sampled_from(sorted(set(StateType) - FINAL))


class RunsOfOneFlow(RuleBasedStateMachine):
    """The model: the types that each run has had, and each snapshot's place among them."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.url = f"sqlite:///{Path(self.folder.name)}/registry.db"
        self.registry = open_registry(self.url)
        run = FlowRun(id=new_id(), name="n", flow_name="f", state=State(StateType.PENDING, "x"))
        self.registry.create_flow_run(run)
        self.snapshots = {run.id: [run]}
        self.flow_run_id = run.id

    def type_of(self, id_):
        return self.snapshots[id_][-1].state.type

    @rule()
    def create_task_run(self):
        flow = self.snapshots[self.flow_run_id][-1]
        state = State(StateType.PENDING, "x")
        run = TaskRun(
            id=new_id(),
            name="n",
            task_name="t",
            flow_run_id=flow.id,
            state=state,
            created_at=state.timestamp,
        )
        try:
            self.registry.create_task_runs([run])
        except FlowRunNotRunningError as error:
            assert flow.state.type is not StateType.RUNNING
            assert error.current == flow.state  # noqa: PT017 - either outcome is right, in its place
        else:
            assert flow.state.type is StateType.RUNNING
            self.snapshots[run.id] = [run]

    @rule(data=some.data(), type_=LASTING | LASTING | TYPES, is_stale=some.booleans())
    def change_state(self, data, type_, is_stale):
        snapshots = self.snapshots[data.draw(some.sampled_from(list(self.snapshots)))]
        seen = data.draw(some.sampled_from(snapshots)) if is_stale else snapshots[-1]
        may_start = seen.id == self.flow_run_id or type_ is not StateType.RUNNING
        may_start = may_start or self.type_of(self.flow_run_id) in {"RUNNING", "PAUSED"}
        is_allowed = seen is snapshots[-1] and type_ in TRANSITIONS[seen.state.type]
        try:
            changed = self.registry.change_state(seen, State(type_, type_.title()))
        except StateConflictError as error:
            assert not is_allowed
            assert error.current == snapshots[-1].state  # noqa: PT017 - as above
        except FlowRunNotRunningError as error:
            assert is_allowed
            assert not may_start
            assert error.current.type is self.type_of(self.flow_run_id)  # noqa: PT017 - as above
        else:
            assert is_allowed
            assert may_start
            snapshots.append(changed)

    @rule()
    def open_again(self):
        self.registry.close()
        self.registry = open_registry(self.url)

    @invariant()
    def the_registry_has_the_last_of_each(self):
        for id_, snapshots in self.snapshots.items():
            is_flow_run = id_ == self.flow_run_id
            find = self.registry.find_flow_run if is_flow_run else self.registry.find_task_run
            assert find(id_) == snapshots[-1]
            history = self.registry.state_history(snapshots[-1])
            assert [change.state for change in history] == [each.state for each in snapshots]

    def teardown(self):
        self.registry.close()
        self.folder.cleanup()


RunsOfOneFlow.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_the_registry_agrees_with_the_model = RunsOfOneFlow.TestCase
