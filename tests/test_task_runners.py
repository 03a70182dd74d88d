import threading

import pytest

from prefectlite import flow, task, task_runners
from prefectlite.context import get_run_context
from prefectlite.task_runners import DEFAULT_THREADS, ConcurrentTaskRunner

WAIT_SECONDS = 10


@pytest.fixture
def started(monkeypatch):
    """Every thread that a runner starts."""
    targets = []
    start = task_runners._start_thread

    def note(target):
        targets.append(target)
        start(target)

    monkeypatch.setattr(task_runners, "_start_thread", note)
    return targets


def _flow_of(mapped, count, runner=ConcurrentTaskRunner):
    @flow(task_runner=runner)
    def maps():
        return [future.result() for future in mapped.map(range(count))]

    return maps


def test_tasks_that_take_no_time_are_served_by_a_few_threads(home, started):
    @task
    def nothing(number):
        return number

    assert _flow_of(nothing, 500)() == [*range(500)]
    # Two or three; a few more where the machine is slow between two of their steps.
    assert len(started) < DEFAULT_THREADS / 4


def test_tasks_that_wait_run_in_as_many_threads_as_there_may_be(home, started):
    meeting = threading.Barrier(DEFAULT_THREADS)

    @task
    def meets(number):
        meeting.wait(WAIT_SECONDS)
        return number

    count = 2 * DEFAULT_THREADS
    assert _flow_of(meets, count)() == [*range(count)]
    assert len(started) == DEFAULT_THREADS


@pytest.mark.parametrize("where", ["hook", "cache_key_fn"])
def test_user_code_beside_a_task_keeps_no_other_task_waiting(home, where):
    meeting = threading.Barrier(8)

    def meets(*_):
        meeting.wait(WAIT_SECONDS)

    options = {"on_completion": [meets]} if where == "hook" else {"cache_key_fn": meets}

    @task(**options)
    def nothing(number):
        return number

    assert _flow_of(nothing, 8)() == [*range(8)]
    assert not meeting.broken


@pytest.mark.parametrize("max_workers", [1, 2, 3])
def test_no_more_tasks_run_at_once_than_may(home, max_workers):
    running, most = [], []

    @task
    def inner(number):
        running.append(number)
        most.append(len(running))
        running.remove(number)
        return number

    @task
    def outer(number):
        return inner.submit(number).result()

    assert _flow_of(outer, 50, ConcurrentTaskRunner(max_workers))() == [*range(50)]
    assert max(most) <= max_workers


def test_a_thread_that_was_added_while_another_waited_takes_no_more_than_it_was_added_for(
    home, until
):
    has_begun = threading.Event()

    @task
    def inner(number):
        return number

    @task
    def later():
        has_begun.set()

    @task
    def outer():
        inner.submit(0).result()
        runner = get_run_context().flow_run_context.task_runner
        until(lambda: runner._sleeping)
        later.submit()
        assert not has_begun.wait(0.3)

    @flow(task_runner=ConcurrentTaskRunner(1))
    def calls():
        outer.submit().result()

    calls()
    assert has_begun.is_set()


def test_what_is_asked_for_while_an_error_is_told_gets_a_thread(home):
    @task
    def nothing(number):
        return number

    class WaitsError(Exception):
        def __str__(self):
            return f"lucky {nothing.submit(7).result(WAIT_SECONDS)}"

    @task
    def fails():
        raise WaitsError

    @flow(task_runner=ConcurrentTaskRunner(1))
    def calls():
        return fails.submit().wait().message

    assert "lucky 7" in calls()


@pytest.fixture
def only_two_threads(monkeypatch):
    """Let the machine have no more than two threads to give."""
    start, started = task_runners._start_thread, []

    def start_two(target):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(target)
        start(target)

    monkeypatch.setattr(task_runners, "_start_thread", start_two)


def test_where_no_more_threads_are_to_be_had_those_there_are_do_all(home, only_two_threads):
    meeting = threading.Barrier(2)

    @task
    def meets(number):
        meeting.wait(WAIT_SECONDS)
        return number

    assert _flow_of(meets, 20)() == [*range(20)]


def test_where_all_threads_would_wait_for_one_that_is_not_to_be_had_who_asks_fails(
    home, only_two_threads
):
    meeting = threading.Barrier(2)

    @task
    def inner(number):
        return number

    @task
    def outer(number):
        meeting.wait(WAIT_SECONDS)
        return inner.submit(number).result(WAIT_SECONDS)

    @flow
    def calls():
        states = [future.wait() for future in outer.map([0, 1])]
        return sorted((state.name, state.message) for state in states)

    (completed, _), (failed, message) = calls()
    assert (completed, failed) == ("Completed", "Failed")
    assert "each thread of the task runner waits" in message


def test_a_task_whose_subflow_has_the_last_thread_is_waited_for(home, only_two_threads):
    has_begun, may_end = threading.Event(), threading.Event()

    @task
    def inner():
        has_begun.set()
        may_end.wait(WAIT_SECONDS)

    @flow
    def subflow():
        inner.submit().result(WAIT_SECONDS)

    @task
    def outer():
        subflow()

    @task
    def other():
        pass

    @flow
    def calls():
        futures = [outer.submit()]
        has_begun.wait(WAIT_SECONDS)
        futures.append(other.submit())
        may_end.set()
        return [future.wait().name for future in futures]

    assert calls() == ["Completed", "Completed"]


@pytest.mark.parametrize("has_timer", [True, False])
def test_a_call_that_takes_long_after_many_that_did_not_keeps_no_other_waiting(
    home, monkeypatch, has_timer
):
    def no_timer(at, callback):
        raise RuntimeError("can't start new thread")

    if not has_timer:
        monkeypatch.setattr(task_runners, "call_at", no_timer)
    monkeypatch.setattr(task_runners, "_QUICK_SECONDS", WAIT_SECONDS)  # on the slowest machine, too
    meeting = threading.Barrier(8)

    @task
    def meets(number):
        if number >= 100:
            meeting.wait(WAIT_SECONDS)
        return number

    assert _flow_of(meets, 108)() == [*range(108)]


def test_what_is_put_off_while_others_are_woken_is_looked_after_again(monkeypatch):
    runner, is_woken = ConcurrentTaskRunner(), threading.Event()
    ended, wake_all = [is_woken.set], runner._wake_all

    def wake_all_slowly():
        wake_all()
        if ended:
            runner._wake(ended.pop())  # of a task that has ended meanwhile; the next one takes long

    monkeypatch.setattr(runner, "_wake_all", wake_all_slowly)
    runner._quick_calls, runner._free = task_runners._QUICK_IN_A_ROW, 1
    runner._queue.append(lambda: None)
    assert runner._look_later()
    runner._returns += 1
    assert is_woken.wait(WAIT_SECONDS)


def test_who_waits_for_a_task_among_many_short_ones_is_woken_before_the_last(home, monkeypatch):
    monkeypatch.setattr(task_runners, "_QUICK_SECONDS", WAIT_SECONDS)
    futures, are_many, is_woken = [], threading.Event(), threading.Event()

    @task
    def feeds():
        if not is_woken.is_set() and len(futures) < 4_000:
            futures.append(feeds.submit())  # so that the queue is never empty
        if len(futures) > 100:
            are_many.set()

    @flow(task_runner=ConcurrentTaskRunner(1))
    def waits():
        futures.extend([feeds.submit(), feeds.submit()])
        are_many.wait(WAIT_SECONDS)
        futures[-1].wait()
        is_woken.set()

    waits()
    assert len(futures) < 4_000
