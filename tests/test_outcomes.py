from contextlib import suppress

import pytest

from prefectlite import flow, task
from prefectlite.errors import CancelledRun, CrashedRun, FailedRun, UnfinishedRun, UpstreamTaskError
from prefectlite.registry import open_registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
    StateType,
    TimedOut,
)


@task
def good(value=1):
    return value


@task
def bad(text="bad"):
    raise ValueError(text)


@task
def makes_cancelled():
    return Cancelled("enough")


def final(function):
    """Run a function as a flow and return its state, which must be the one on record."""
    made = flow(function)
    state = made(return_state=True)
    (run,) = open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs(
        FlowRunFilter(flow_names=[made.name]), limit=1
    )
    assert (run.state.type, run.state.name, run.state.message) == (
        state.type,
        state.name,
        state.message,
    )
    return state


@pytest.mark.parametrize(
    "made",
    [
        Completed("well", data=5, name="Skipped"),
        Failed("ill", data=ValueError("x")),
        Cancelled("enough"),
        Crashed("hit"),
        TimedOut("late"),
    ],
    ids=lambda state: state.name,
)
def test_a_final_state_that_is_returned_is_the_state(home, made):
    def returns():
        return made

    state = final(returns)
    assert (state.type, state.name, state.message) == (made.type, made.name, made.message)
    assert state.data is made.data


def test_a_returned_state_counts_from_when_it_was_returned(registry):
    early = Completed("made long ago")

    @flow
    def returns():
        return early

    returns()
    (run,) = registry.list_flow_runs()
    assert run.started_at <= run.ended_at
    assert run.duration_seconds >= 0


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (Failed("ill"), FailedRun),
        (Crashed("hit"), CrashedRun),
        (Cancelled("enough"), CancelledRun),
        (Failed(data=KeyError("k")), KeyError),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_returned_state_that_is_no_success_is_raised(home, made, error):
    @flow
    def returns():
        return made

    with pytest.raises(error):
        returns()


@pytest.mark.parametrize(
    "made", [Pending(), Running(), Scheduled(), Paused()], ids=lambda state: state.name
)
def test_a_returned_state_that_is_not_final_is_a_failure_that_says_so(home, made):
    def returns():
        return made

    state = final(returns)
    assert state.type is StateType.FAILED
    assert made.name in state.message
    assert "not final" in state.message
    with pytest.raises(UnfinishedRun):
        state.result()


def test_a_single_future_gives_the_flow_its_state_and_result(home):
    def succeeds():
        return good.submit(4)

    def fails():
        return bad.submit("ill")

    assert final(succeeds).result() == 4
    state = final(fails)
    assert state.is_failed()
    with pytest.raises(ValueError, match="ill"):
        state.result()


def test_a_returned_future_is_waited_for(home):
    import threading

    may_end = threading.Event()

    @task
    def slow():
        assert may_end.wait(30)
        return "done"

    def returns():
        future = slow.submit()
        threading.Thread(target=may_end.set).start()
        return future

    assert final(returns).result() == "done"


@pytest.mark.parametrize("collect", [list, tuple, set])
def test_a_collection_of_states_and_futures_counts_as_they_ended(home, collect):
    def all_good():
        return collect([good.submit(), good(return_state=True)])

    def one_bad():
        return collect([good.submit(), bad.submit(), good(return_state=True)])

    assert str(final(all_good)) == "Completed('All states completed.')"
    state = final(one_bad)
    assert (state.name, state.message) == ("Failed", "1/3 states failed.")
    with pytest.raises(ValueError, match="bad"):
        state.result()


def test_the_result_of_collected_states_is_the_list_of_them(home):
    def collects():
        return [good.submit(1), good(2, return_state=True)]

    states = final(collects).result()
    assert [state.result() for state in states] == [1, 2]


def test_cancelled_wins_over_failed(home):
    def collects():
        return [good.submit(), bad.submit(), makes_cancelled.submit()]

    state = final(collects)
    assert (state.type, state.message) == (StateType.CANCELLED, "1/3 states cancelled.")


@pytest.mark.parametrize("made", [Crashed("hit"), TimedOut("late"), Failed("ill")], ids=str)
def test_crashed_and_timed_out_states_count_as_failed(home, made):
    def collects():
        return [good.submit(), made]

    state = final(collects)
    assert (state.name, state.message) == ("Failed", "1/2 states failed.")


def test_only_states_that_never_became_final_are_told_as_such(home):
    def collects():
        return [good.submit(), good.submit(bad.submit())]

    state = final(collects)
    assert (state.name, state.message) == ("Failed", "1/2 states are not final.")
    with pytest.raises(UpstreamTaskError):
        state.result()


@pytest.mark.parametrize(
    "value",
    [1, "x", [1, 2], [], (), {}, set(), False, 0, object()],
    ids=lambda value: type(value).__name__,
)
def test_any_other_value_is_completed_whatever_the_tasks_did(home, value):
    def returns():
        bad(return_state=True)
        return value

    state = final(returns)
    assert str(state) == "Completed()"
    assert state.result() is value


def test_a_list_of_states_and_values_is_a_value(home):
    def returns():
        return [bad(return_state=True), 1]

    state = final(returns)
    assert str(state) == "Completed()"
    assert state.result()[1] == 1


def test_a_dict_of_futures_is_a_value(home):
    def returns():
        return {"a": bad.submit()}

    assert final(returns).is_completed()


def test_none_without_tasks_is_completed(home):
    def returns():
        return None

    state = final(returns)
    assert str(state) == "Completed()"
    assert state.result() is None


def test_none_stands_for_all_tasks_and_subflows(home):
    @flow
    def bad_subflow():
        raise ValueError("sub")

    @flow
    def good_subflow():
        return 1

    def all_good():
        good()
        good.submit()
        good_subflow()

    def some_bad():
        good()
        good.submit()
        bad.submit()
        bad_subflow(return_state=True)
        good_subflow()

    state = final(all_good)
    assert str(state) == "Completed('All states completed.')"
    assert state.result() is None
    assert str(final(some_bad)) == "Failed('2/5 states failed.')"


def test_none_counts_a_failure_that_user_code_caught(home):
    def catches():
        good()
        with suppress(ValueError):
            bad()

    assert str(final(catches)) == "Failed('1/2 states failed.')"


def test_none_counts_each_submitted_task_once_even_if_nobody_waits(home):
    def submits():
        good.map(range(30))
        bad.map(["x"] * 3)

    assert str(final(submits)) == "Failed('3/33 states failed.')"


def test_only_the_tasks_of_the_last_attempt_count(registry):
    attempts = []

    @flow(retries=1)
    def improves():
        attempts.append(1)
        (bad if len(attempts) == 1 else good)(return_state=True)
        good()

    state = improves(return_state=True)
    assert str(state) == "Completed('All states completed.')"
    assert len(registry.list_task_runs()) == 4


def test_what_a_task_calls_counts_for_the_task_and_not_for_the_flow(home):
    @task
    def forgives():
        bad(return_state=True)
        return 1

    def calls():
        forgives()

    assert str(final(calls)) == "Completed('All states completed.')"


def test_a_task_that_returns_a_state_ends_in_it(registry):
    @task
    def says_so():
        return Failed("said so")

    def calls():
        assert str(says_so(return_state=True)) == "Failed('said so')"

    assert str(final(calls)) == "Failed('1/1 states failed.')"
    (run,) = registry.list_task_runs()
    assert str(run.state) == "Failed('said so')"


def test_a_task_that_returns_futures_waits_for_them(home):
    import threading

    may_end = threading.Event()

    @task
    def slow():
        assert may_end.wait(30)
        return 7

    @task
    def one():
        return slow.submit()

    @task
    def many():
        return [slow.submit(), slow.submit()]

    def calls():
        futures = [one.submit(), many.submit()]
        may_end.set()
        return futures[0].result(), futures[1].wait().message

    assert final(calls).result() == (7, "All states completed.")


def test_a_flow_that_fails_waits_for_its_tasks_first(registry):
    import threading

    has_started, may_end = threading.Event(), threading.Event()

    @task
    def slow():
        has_started.set()
        assert may_end.wait(30)

    @flow
    def fails():
        slow.submit()
        assert has_started.wait(30)
        threading.Timer(0.05, may_end.set).start()
        raise ValueError("early")

    state = fails(return_state=True)
    assert "ValueError: early" in state.message
    (flow_run,), (task_run,) = registry.list_flow_runs(), registry.list_task_runs()
    assert task_run.state.is_completed()
    assert task_run.ended_at <= flow_run.ended_at
