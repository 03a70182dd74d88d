import asyncio
import threading

import pytest

from prefectlite import flow, task
from prefectlite.errors import CancelledRun, CrashedRun, FlowRunNotRunningError, StateConflictError
from prefectlite.interruptions import CancelInterrupt
from prefectlite.run_filters import TaskRunFilter
from prefectlite.states import Cancelled, Cancelling, Completed, Crashed, Failed
from prefectlite.task_runners import SequentialTaskRunner

WAIT_SECONDS = 30


def move_flow_run(registry, *states):
    """Change the only flow run's state as another process would."""
    (run,) = registry.list_flow_runs()
    for state in states:
        run = registry.change_state(run, state)


def flow_state(registry):
    (run,) = registry.list_flow_runs()
    return run.state


INTERRUPTIONS = [KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_an_interruption_in_a_flow_is_raised_again_and_the_run_is_crashed(registry, kind):
    raised = kind()

    @flow(retries=3)
    def stops():
        raise raised

    with pytest.raises(kind) as caught:
        stops()
    assert caught.value is raised
    assert flow_state(registry).name == "Crashed"
    (run,) = registry.list_flow_runs()
    assert run.run_count == 1


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_an_interruption_in_a_task_crashes_the_task_and_its_flow(registry, kind):
    @task(retries=3)
    def stops():
        raise kind

    @flow
    def calls():
        stops()

    with pytest.raises(kind):
        calls()
    (run,) = registry.list_task_runs()
    assert (run.state.name, run.run_count) == ("Crashed", 1)
    assert flow_state(registry).name == "Crashed"


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_an_interruption_in_a_submitted_task_crashes_the_task_and_the_flow_goes_on(registry, kind):
    @task
    def stops():
        raise kind

    @task
    def works(x):
        return x

    @flow
    def calls():
        future = stops.submit()
        with pytest.raises(CrashedRun) as caught:
            future.result()
        assert isinstance(caught.value.__cause__, kind)
        assert [one.result() for one in works.map(range(100))] == list(range(100))

    assert str(calls(return_state=True)) == "Failed('1/101 states failed.')"
    (run,) = registry.list_task_runs(TaskRunFilter(states=["crashed"]))
    assert run.task_name == "stops"


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_in_a_sequential_runner_an_interruption_ends_the_flow_as_in_a_direct_call(registry, kind):
    called = []

    @task
    def stops(x):
        called.append(x)
        raise kind

    @flow(task_runner=SequentialTaskRunner)
    def calls():
        stops.map([1, 2, 3])

    with pytest.raises(kind):
        calls()
    assert called == [1]
    assert flow_state(registry).name == "Crashed"
    names = [run.state.name for run in reversed(registry.list_task_runs())]
    assert names == ["Crashed", "Cancelled", "Cancelled"]


def test_sys_exit_in_async_code_crashes_the_flow_and_ends_the_program(registry):
    @task
    async def stops():
        raise SystemExit(4)

    @flow
    async def calls():
        await stops()

    with pytest.raises(SystemExit) as caught:
        asyncio.run(calls())
    assert caught.value.code == 4
    assert flow_state(registry).name == "Crashed"
    assert {run.state.name for run in registry.list_task_runs()} == {"Crashed"}


def test_a_crash_ends_the_tasks_that_have_not_started(registry):
    has_started, may_end, called = threading.Event(), threading.Event(), []

    @task
    def waits():
        has_started.set()
        assert may_end.wait(WAIT_SECONDS)

    @task
    def depends(x):
        called.append(x)

    @flow
    def calls():
        depends.submit(waits.submit())
        assert has_started.wait(WAIT_SECONDS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calls()
    may_end.set()
    assert flow_state(registry).name == "Crashed"
    states = {run.task_name: run.state.name for run in registry.list_task_runs()}
    assert states["waits"] == "Crashed"
    assert states["depends"] in ("NotReady", "Cancelled")
    assert called == []


@task
def step():
    return 1


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_no_task_starts_in_a_flow_that_is_being_cancelled(registry, way):
    started, told = [], []

    @task
    def late(x):
        started.append(x)

    use = {"call": late, "submit": late.submit, "map": lambda x: late.map([x])}[way]

    @flow(retries=2)
    def calls():
        step()
        move_flow_run(registry, Cancelling("enough"))
        try:
            use(1)
        except BaseException as error:
            told.append(type(error))
        with pytest.raises(FlowRunNotRunningError, match="Cancelling") as caught:
            use(2)
        raise caught.value

    with pytest.raises(CancelledRun, match="as it was asked to"):
        calls()
    assert (started, told) == ([], [CancelInterrupt])
    assert flow_state(registry).name == "Cancelled"
    assert [run.task_name for run in registry.list_task_runs()] == ["step"]


def test_a_task_that_was_submitted_before_the_cancellation_does_not_start_after_it(registry):
    has_started, may_end, started = threading.Event(), threading.Event(), []

    @task
    def first():
        has_started.set()
        assert may_end.wait(WAIT_SECONDS)

    @task
    def second(x):
        started.append(x)

    @flow
    def calls():
        future = second.submit(first.submit())
        assert has_started.wait(WAIT_SECONDS)
        move_flow_run(registry, Cancelling())
        may_end.set()
        future.result()

    with pytest.raises(CancelledRun):
        calls()
    assert started == []
    assert flow_state(registry).name == "Cancelled"
    states = {run.task_name: run.state.name for run in registry.list_task_runs()}
    assert states == {"first": "Completed", "second": "Cancelled"}


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_task_is_not_tried_again_in_a_flow_that_is_being_cancelled(registry, way):
    @task(retries=1)
    def flaky():
        move_flow_run(registry, Cancelling())
        raise ValueError("x")

    @flow
    def calls():
        flaky() if way == "call" else flaky.submit().result()

    calls(return_state=True)
    assert flow_state(registry).name == "Cancelled"
    (run,) = registry.list_task_runs()
    history = [change.state.name for change in registry.state_history(run)]
    assert history[-2:] == ["AwaitingRetry", "Cancelled"]


def test_a_flow_is_not_tried_again_once_it_is_being_cancelled(registry):
    attempts = []

    @flow(retries=3)
    def fails():
        attempts.append(1)
        move_flow_run(registry, Cancelling())
        raise ValueError("x")

    state = fails(return_state=True)
    assert (state.name, len(attempts)) == ("Cancelled", 1)
    assert flow_state(registry) == state


@pytest.mark.parametrize("message", [None, "all well"])
def test_a_flow_that_finished_before_its_cancellation_arrived_is_completed_and_says_so(
    registry, message
):
    @flow
    def finishes():
        step()
        move_flow_run(registry, Cancelling())
        return Completed(message, data=7)

    state = finishes(return_state=True)
    assert (state.name, state.result()) == ("Completed", 7)
    assert "before its cancellation" in state.message
    assert message is None or state.message.startswith(message)
    assert flow_state(registry) == state


@pytest.mark.parametrize(
    "states",
    [(Crashed("swept"),), (Cancelling(), Cancelled("killed")), (Failed("by hand"),)],
    ids=["crashed", "cancelled", "failed"],
)
def test_a_final_state_set_from_outside_wins(registry, states):
    seen = []

    def hook(_, run, state):
        seen.append((run.state, state))

    hooks = {name: [hook] for name in ("on_completion", "on_failure", "on_crashed")}

    @flow(on_cancellation=[hook], **hooks)
    def finishes():
        move_flow_run(registry, *states)
        return 1

    state = finishes(return_state=True)
    assert str(state) == str(states[-1])
    assert flow_state(registry) == state
    assert seen == [(state, state)]


def test_a_final_state_of_a_task_set_from_outside_wins_too(registry):
    @task
    def works():
        (run,) = registry.list_task_runs()
        registry.change_state(run, Cancelled("from outside"))
        return 1

    @flow
    def calls():
        works(return_state=True)

    assert str(calls(return_state=True)) == "Cancelled('1/1 states cancelled.')"
    (run,) = registry.list_task_runs()
    assert str(run.state) == "Cancelled('from outside')"


def test_a_final_state_never_changes_whoever_asks(registry):
    flow(lambda: 1)()
    with pytest.raises(StateConflictError):
        move_flow_run(registry, Cancelling())
    assert flow_state(registry).name == "Completed"
