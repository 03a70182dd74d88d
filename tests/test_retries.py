import pytest

from prefectlite import flow, task
from prefectlite.errors import UsageError
from prefectlite.retries import checked_delay, delay_before


@pytest.fixture
def slept(monkeypatch):
    """What the engine slept in the main thread, in seconds; it did not really."""
    seconds = []
    monkeypatch.setattr("prefectlite.drivers.sleep", seconds.append)
    return seconds


def history(registry, run):
    return [change.state.name for change in registry.state_history(run)]


class Flaky:
    """Fails some times, then succeeds."""

    def __init__(self, failures):
        self.failures = failures
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.failures:
            raise ValueError(f"call {self.calls}")
        return self.calls


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_task_that_fails_at_first_completes_and_its_history_tells_how(registry, way):
    flaky = task(retries=3)(Flaky(2))

    @flow
    def calls():
        return flaky() if way == "call" else flaky.submit().result()

    assert calls() == 3
    (run,) = registry.list_task_runs()
    begin = [] if way == "call" else ["Pending"]
    assert history(registry, run) == [
        *begin,
        "Running",
        "AwaitingRetry",
        "Retrying",
        "AwaitingRetry",
        "Retrying",
        "Completed",
    ]
    assert run.run_count == 3


def test_there_are_no_more_attempts_than_retries_and_one_and_the_last_error_counts(registry):
    flaky = Flaky(10)

    @flow
    def calls():
        return task(retries=2)(flaky)()

    with pytest.raises(ValueError, match="call 3"):
        calls()
    assert flaky.calls == 3
    (run,) = registry.list_task_runs()
    assert (run.state.name, run.run_count) == ("Failed", 3)
    states = [change.state for change in registry.state_history(run)]
    assert "call 1" in states[1].message
    assert states[1].type == "SCHEDULED"
    assert states[2].type == "RUNNING"


def test_each_failed_attempt_is_logged(registry):
    @flow
    def calls():
        return task(retries=2)(Flaky(2))()

    calls()
    registry.flush_logs()
    (run,) = registry.list_task_runs()
    lines = registry.read_logs(run.flow_run_id, task_run_id=run.id)
    assert sum("ValueError: call" in line.message for line in lines) >= 2
    assert sum("Attempt" in line.message for line in lines) == 2


def test_a_flow_that_fails_at_first_runs_again_with_all_its_tasks(registry):
    flaky = Flaky(1)

    @task
    def step():
        pass

    @flow(retries=2)
    def calls():
        step()
        return flaky()

    assert calls() == 2
    (run,) = registry.list_flow_runs()
    assert history(registry, run) == ["Running", "AwaitingRetry", "Retrying", "Completed"]
    assert run.run_count == 2
    assert sorted(one.name for one in registry.list_task_runs()) == ["step-0", "step-1"]


def test_a_flow_whose_tasks_failed_is_tried_again(registry):
    flaky = Flaky(2)

    @flow(retries=1)
    def calls():
        task(flaky).submit()

    state = calls(return_state=True)
    assert str(state) == "Failed('1/1 states failed.')"
    assert flaky.calls == 2


def test_a_run_that_completed_or_was_cancelled_is_not_tried_again(registry):
    from prefectlite.states import Cancelled

    calls = []

    @flow(retries=3)
    def once(kind):
        calls.append(1)
        return Cancelled() if kind == "cancelled" else 1

    once("completed")
    once("cancelled", return_state=True)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (0, []),
        (0.5, [0.5, 0.5, 0.5]),
        ([1, 2, 4], [1, 2, 4]),
        ([1, 2], [1, 2, 2]),
        (lambda retries: [10 * n for n in range(1, retries + 1)], [10, 20, 30]),
    ],
    ids=["none", "number", "list", "short list", "function"],
)
@pytest.mark.parametrize("kind", ["task", "flow"])
def test_the_delay_before_each_retry_is_as_the_option_says(registry, slept, kind, delay, expected):
    flaky = Flaky(3)
    options = {"retries": 3, "retry_delay_seconds": delay}

    @flow(**options if kind == "flow" else {})
    def calls():
        return task(**options)(flaky)() if kind == "task" else flaky()

    assert calls() == 4
    assert slept == expected


def test_jitter_stretches_a_delay_by_up_to_its_share():
    delays = [delay_before(1, 10, 0.5) for _ in range(300)]
    assert all(10 <= delay <= 15 for delay in delays)
    assert max(delays) - min(delays) > 2
    assert {delay_before(1, 10, None), delay_before(1, 10, 0)} == {10}


def test_jitter_is_used_between_attempts(registry, slept):
    flaky = task(retries=3, retry_delay_seconds=8, retry_jitter_factor=1)(Flaky(3))

    @flow
    def calls():
        return flaky()

    calls()
    assert len(slept) == len(set(slept)) == 3
    assert all(8 <= seconds <= 16 for seconds in slept)


def test_a_function_for_the_delay_must_give_times():
    with pytest.raises(UsageError, match="retry_delay_seconds"):
        checked_delay(lambda retries: [-1], 1)
    assert checked_delay(lambda retries: [retries], 4) == (4,)
    assert delay_before(1, ()) == 0


def test_a_submitted_task_waits_for_its_retry_without_holding_up_others(registry):
    import threading

    has_failed, may_go_on = threading.Event(), threading.Event()

    @task(retries=1, retry_delay_seconds=0.2)
    def flaky():
        if not has_failed.is_set():
            has_failed.set()
            raise ValueError("first")
        assert may_go_on.wait(30)
        return "second"

    @task
    def other():
        may_go_on.set()

    @flow
    def calls():
        future = flaky.submit()
        assert has_failed.wait(30)
        other.submit().wait()
        return future.result()

    assert calls() == "second"
