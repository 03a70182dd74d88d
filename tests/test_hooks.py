import asyncio

import pytest

from prefectlite import flow, task
from prefectlite.states import Cancelled, Crashed


class Notes:
    """Hooks that note what they are called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, name):
        def hook(owner, run, state):
            self.calls.append((name, owner, run, state))

        return hook

    @property
    def names(self):
        return [call[0] for call in self.calls]


@pytest.fixture
def notes():
    return Notes()


def all_hooks(notes):
    options = ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed")
    return {option: [notes(option)] for option in options}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, "on_completion"), (Cancelled(), "on_cancellation"), (Crashed(), "on_crashed")],
    ids=["value", "cancelled", "crashed"],
)
def test_a_flows_hooks_are_those_of_its_final_state(registry, notes, value, expected):
    @flow(**all_hooks(notes))
    def ends():
        return value

    ends(return_state=True)
    assert notes.names == ["on_running", expected]


def test_a_hook_gets_the_flow_the_run_and_the_state(registry, notes):
    @flow(**all_hooks(notes))
    def fails():
        raise ValueError("x")

    state = fails(return_state=True)
    (_, first, running, running_state), (name, owner, run, final) = notes.calls
    assert first is owner is fails
    assert running_state.name == "Running" == running.state.name
    assert (name, final) == ("on_failure", state)
    assert run.state == state
    assert run == registry.find_flow_run(run.id)


def test_a_tasks_hooks_get_the_task_the_run_and_the_state(registry, notes):
    hooks = {"on_completion": [notes("completion")], "on_failure": [notes("failure")]}

    @task(**hooks)
    def good():
        pass

    @task(**hooks)
    def bad():
        raise ValueError("x")

    @flow
    def calls():
        good()
        good.submit().wait()
        bad.submit().wait()
        bad(return_state=True)

    calls(return_state=True)
    assert notes.names == ["completion", "completion", "failure", "failure"]
    for _, owner, run, state in notes.calls:
        assert owner in (good, bad)
        assert registry.find_task_run(run.id).state == state == run.state


def test_the_state_is_on_record_before_the_hook_is_called(registry):
    seen = []

    def hook(_, run, state):
        find = registry.find_flow_run if hasattr(run, "flow_name") else registry.find_task_run
        seen.append(find(run.id).state == state)

    @task(on_completion=[hook])
    def step():
        pass

    @flow(on_running=[hook], on_completion=[hook])
    def calls():
        step()

    calls()
    assert seen == [True, True, True]


def test_hooks_run_in_order_and_an_error_in_one_is_logged_and_the_rest_run(registry, notes):
    def breaks(*_):
        raise RuntimeError("hook trouble")

    @flow(on_completion=[notes("first"), breaks, notes("last")])
    def calls():
        return 1

    assert calls() == 1
    assert notes.names == ["first", "last"]
    registry.flush_logs()
    (run,) = registry.list_flow_runs()
    told = [line for line in registry.read_logs(run.id) if "hook trouble" in line.message]
    assert len(told) == 1
    assert "breaks" in told[0].message
    assert told[0].level == 40
    assert run.state.is_completed()


def test_a_hook_that_cannot_take_its_arguments_is_an_error_in_a_hook(registry):
    @flow(on_completion=[lambda: None])
    def calls():
        return 1

    assert calls() == 1


def test_failure_hooks_are_called_only_after_the_last_attempt(registry, notes):
    @task(retries=2, on_failure=[notes("task")])
    def bad():
        raise ValueError("x")

    @flow(retries=1, on_failure=[notes("flow")])
    def calls():
        bad()

    calls(return_state=True)
    assert notes.names == ["task", "task", "flow"]
    assert [call[3].name for call in notes.calls] == ["Failed"] * 3


def test_no_failure_hook_is_called_for_a_retry_that_helps(registry, notes):
    attempts = []

    @flow(retries=1, on_failure=[notes("failure")], on_completion=[notes("completion")])
    def improves():
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("x")

    improves()
    assert notes.names == ["completion"]


def test_async_hooks_are_run_to_their_end_for_sync_and_async_flows(registry):
    seen = []

    async def hook(_, run, state):
        await asyncio.sleep(0)
        seen.append(state.name)

    @flow(on_running=[hook], on_completion=[hook])
    def sync_flow():
        pass

    @flow(on_completion=[hook])
    async def async_flow():
        pass

    sync_flow()
    asyncio.run(async_flow())
    assert seen == ["Running", "Completed", "Completed"]


def test_an_error_in_an_async_hook_is_logged_too(registry):
    async def hook(*_):
        raise RuntimeError("async trouble")

    @flow(on_completion=[hook])
    def calls():
        return 1

    assert calls() == 1
    registry.flush_logs()
    (run,) = registry.list_flow_runs()
    assert any("async trouble" in line.message for line in registry.read_logs(run.id))


def test_a_crash_calls_on_crashed_and_nothing_else(registry, notes):
    @flow(**all_hooks(notes))
    def exits():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        exits()
    assert notes.names == ["on_running", "on_crashed"]


def test_a_refused_call_calls_on_failure(registry, notes):
    @flow(**all_hooks(notes))
    def shows(x: int):
        pass

    shows("x", return_state=True)
    assert notes.names == ["on_failure"]


def test_a_cached_task_calls_on_completion_and_one_that_is_not_ready_calls_nothing(registry, notes):
    @task(cache_key_fn=lambda *_: "key", on_completion=[notes("completion")])
    def cached(x=None):
        return 1

    @task(on_completion=[notes("other")], on_failure=[notes("other")])
    def depends(x):
        pass

    @task
    def bad():
        raise ValueError("x")

    @flow
    def calls():
        cached()
        cached()
        depends.submit(bad.submit()).wait()

    calls(return_state=True)
    assert [call[3].name for call in notes.calls] == ["Completed", "Cached"]
