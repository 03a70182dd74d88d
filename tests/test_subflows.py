import pytest

from prefectlite import flow, tags, task
from prefectlite.errors import UpstreamTaskError
from prefectlite.run_filters import FlowRunFilter


@task
def double(x):
    return x * 2


@flow
def child(x=1):
    return double(x)


def by_flow_name(registry):
    return {run.flow_name: run for run in registry.list_flow_runs()}


def test_a_flow_in_a_flow_is_a_run_with_its_parent(registry):
    @flow
    def parent():
        return child(3)

    assert parent() == 6
    runs = by_flow_name(registry)
    assert runs["child"].parent_flow_run_id == runs["parent"].id
    assert runs["child"].parent_task_run_id is None
    assert runs["parent"].parent_flow_run_id is None
    assert [
        run.id
        for run in registry.list_flow_runs(FlowRunFilter(parent_flow_run_id=runs["parent"].id))
    ] == [runs["child"].id]
    (task_run,) = registry.list_task_runs()
    assert task_run.flow_run_id == runs["child"].id


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_flow_in_a_task_is_a_run_with_both_parents(registry, way):
    @task
    def step():
        return child(3)

    @flow
    def parent():
        return step() if way == "call" else step.submit().result()

    assert parent() == 6
    runs = by_flow_name(registry)
    (step_run,) = [run for run in registry.list_task_runs() if run.task_name == "step"]
    assert runs["child"].parent_flow_run_id == runs["parent"].id
    assert runs["child"].parent_task_run_id == step_run.id


def test_an_error_of_a_subflow_is_raised_in_its_parent_and_can_be_caught(registry):
    error = ValueError("x")

    @flow
    def bad():
        raise error

    @flow
    def parent():
        with pytest.raises(ValueError, match="x") as caught:
            bad()
        assert caught.value is error
        return "went on"

    assert parent() == "went on"
    runs = by_flow_name(registry)
    assert (runs["bad"].state.name, runs["parent"].state.name) == ("Failed", "Completed")


def test_a_subflow_counts_in_its_parents_tally_and_its_tasks_do_not(registry):
    @flow
    def bad():
        double(1)
        double(2)
        raise ValueError("x")

    @flow
    def parent():
        child()
        bad(return_state=True)

    assert str(parent(return_state=True)) == "Failed('1/2 states failed.')"


def test_a_subflow_that_refuses_its_parameters_counts_as_failed(registry):
    @flow
    def typed(x: int):
        pass

    @flow
    def parent():
        typed("three", return_state=True)

    assert str(parent(return_state=True)) == "Failed('1/1 states failed.')"


def test_futures_as_parameters_of_a_subflow_are_waited_for(registry):
    @flow
    def takes(x, more):
        return x, more

    @flow
    def parent():
        return takes(double.submit(1), more=[double.submit(2)])

    assert parent() == (2, [4])
    assert by_flow_name(registry)["takes"].parameters == {"x": 2, "more": [4]}


def test_a_subflow_waits_for_what_it_is_told_to(registry):
    order = []

    @task
    def first():
        order.append("first")

    @flow
    def second():
        order.append("second")

    @flow
    def parent():
        second(wait_for=[first.submit()])
        second(wait_for=first.submit())

    parent()
    assert order == ["first", "second"] * 2


def test_a_subflow_whose_upstream_failed_does_not_start(registry):
    @task
    def fails():
        raise ValueError("x")

    @flow
    def parent():
        with pytest.raises(UpstreamTaskError, match="fails-0"):
            child(fails.submit())
        return "went on"

    assert parent() == "went on"
    assert list(by_flow_name(registry)) == ["parent"]


def test_a_future_of_the_parent_that_a_subflow_returns_is_waited_for(registry):
    import threading

    may_end = threading.Event()
    futures = []

    @task
    def slow():
        assert may_end.wait(30)
        return 5

    @flow
    def returns():
        threading.Timer(0.02, may_end.set).start()
        return futures[0]

    @flow
    def parent():
        futures.append(slow.submit())
        return returns()

    assert parent() == 5


def test_tags_around_the_parent_are_the_subflows_too(registry):
    @flow
    def parent():
        with tags("inner"):
            child()

    with tags("outer"):
        parent()
    runs = by_flow_name(registry)
    assert runs["parent"].tags == ("outer",)
    assert runs["child"].tags == ("inner", "outer")


def test_subflows_can_run_at_the_same_time_in_tasks(registry):
    import threading

    meeting = threading.Barrier(4, timeout=30)

    @flow
    def meets(x):
        meeting.wait()
        return double.submit(x).result()

    @task
    def step(x):
        return meets(x)

    @flow
    def parent():
        return sorted(future.result() for future in step.map(range(4)))

    assert parent() == [0, 2, 4, 6]
    assert {run.state.name for run in registry.list_flow_runs()} == {"Completed"}


def test_a_flow_can_call_itself(registry):
    @flow
    def countdown(n):
        return [n, *countdown(n - 1)] if n else [0]

    assert countdown(5) == [5, 4, 3, 2, 1, 0]
    assert len(registry.list_flow_runs()) == 6


def test_a_failed_subflow_is_tried_again_by_its_own_retries(registry):
    attempts = []

    @flow(retries=1)
    def flaky():
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("x")
        return "second"

    @flow
    def parent():
        return [flaky()]

    assert parent() == ["second"]
    assert by_flow_name(registry)["flaky"].run_count == 2
