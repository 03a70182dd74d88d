import threading
import time
import weakref

import pytest

from prefectlite import allow_failure, flow, task
from prefectlite.context import get_run_context
from prefectlite.errors import UnfinishedRun, UpstreamTaskError
from prefectlite.futures import TaskFuture
from prefectlite.latches import blocking, when_all_settled
from prefectlite.records import TaskRun
from prefectlite.run_filters import TaskRunFilter
from prefectlite.states import Completed, Pending, StateType
from prefectlite.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

WAIT_SECONDS = 30


@task
def double(x):
    return x * 2


@task
def fails(*_):
    raise ValueError("bad luck")


def new_future():
    state = Pending()
    return TaskFuture(
        TaskRun(
            id="1",
            name="a-0",
            task_name="a",
            flow_run_id="2",
            state=state,
            created_at=state.timestamp,
        )
    )


def test_a_future_knows_its_run_and_gives_state_and_result(registry):
    may_end = threading.Event()

    @task
    def waits():
        assert may_end.wait(WAIT_SECONDS)
        return 5

    @flow
    def calls():
        future = waits.submit()
        assert future.name == "waits-0"
        assert registry.find_task_run(future.task_run.id).name == "waits-0"
        assert not future.is_done
        assert not future.get_state().is_final()
        assert future.wait(0.01) is None
        with pytest.raises(TimeoutError, match="waits-0"):
            future.result(timeout=0)
        may_end.set()
        assert future.wait().is_completed()
        assert future.is_done
        assert future.get_state().is_completed()
        return future.result(), future.result(timeout=0)

    assert calls() == (5, 5)


def test_a_failed_future_raises_or_gives_its_exception(registry):
    @flow
    def calls():
        future = fails.submit()
        with pytest.raises(ValueError, match="bad luck"):
            future.result()
        error = future.result(raise_on_failure=False)
        assert isinstance(error, ValueError)
        assert future.get_state().is_failed()
        return "done"

    assert calls() == "done"


def test_the_state_is_on_record_when_the_future_is_done(registry):
    @flow
    def calls():
        futures = double.map(range(50))
        for future in futures:
            state = future.wait()
            assert registry.find_task_run(future.task_run.id).state == state
        return "done"

    assert calls() == "done"


def test_a_future_is_settled_once():
    future, states = new_future(), []
    future.add_done_callback(lambda one: states.append(one.get_state()))
    first = Completed("first")
    future.settle(first)
    future.settle(Completed("second"))
    future.add_done_callback(lambda one: states.append(one.get_state()))
    assert states == [first, first]
    assert future.wait() is first


def test_a_future_calls_back_though_what_wakes_its_waiters_is_interrupted(monkeypatch):
    class Interruption(BaseException):
        pass

    def interrupt(_):
        raise Interruption  # as a signal handler of the user's own may, anywhere

    future, told = new_future(), []
    future.add_done_callback(told.append)
    monkeypatch.setattr(blocking, "wake", interrupt)
    with pytest.raises(Interruption):
        future.settle(Completed())
    assert told == [future]


def test_a_settled_future_that_nobody_has_taken_out_does_not_keep_its_flow(registry):
    settled = new_future()
    settled.settle(Completed())

    @flow
    def calls():
        get_run_context().unfinished.add(settled)
        return "done"

    ended = []
    # A thread that can be left behind: nothing would end the wait.
    thread = threading.Thread(target=lambda: ended.append(calls()), daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)
    assert ended == ["done"]


def test_every_thread_that_waits_is_woken():
    future, woken = new_future(), []
    threads = [threading.Thread(target=lambda: woken.append(future.wait())) for _ in range(8)]
    for thread in threads:
        thread.start()
    state = Completed()
    future.settle(state)
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert woken == [state] * 8


def test_when_all_settled_calls_once_whatever_the_order_and_the_threads():
    for number in (0, 1, 5):
        futures, calls = [new_future() for _ in range(number)], []
        when_all_settled(futures, lambda calls=calls: calls.append(1))
        assert len(calls) == (number == 0)
        threads = [
            threading.Thread(target=future.settle, args=(Completed(),)) for future in futures
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calls == [1]


def test_submitted_tasks_run_at_the_same_time(registry):
    meeting = threading.Barrier(10, timeout=WAIT_SECONDS)

    @task
    def meet(_):
        meeting.wait()
        return get_run_context().task_run.name

    @flow
    def calls():
        return len({future.result() for future in meet.map(range(10))})

    assert calls() == 10


def test_no_more_tasks_run_at_once_than_the_runner_allows(registry):
    lock, running, most = threading.Lock(), [], []

    @task
    def count(x):
        with lock:
            running.append(x)
            most.append(len(running))
        time.sleep(0.001)  # gives others the chance to be there too
        with lock:
            running.remove(x)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=3))
    def calls():
        count.map(range(60))

    calls()
    assert max(most) <= 3


def test_a_task_that_waits_for_tasks_does_not_keep_them_out(registry):
    @task
    def deep(level):
        if level == 0:
            return 1
        return sum(future.result() for future in deep.map([level - 1] * 2))

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def calls():
        return deep.submit(4).result()

    assert calls() == 16
    assert len(registry.list_task_runs()) == 31


def test_what_waiting_tasks_made_room_for_is_taken_back(registry):
    lock, running, most = threading.Lock(), [], []

    @task
    def waits(x):
        return double.submit(x).result()

    @task
    def count(x):
        with lock:
            running.append(x)
            most.append(len(running))
        time.sleep(0.001)  # gives others the chance to be there too
        with lock:
            running.remove(x)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def calls():
        for future in waits.map(range(20)):
            future.wait()
        for future in double.map(range(50)):  # threads that are spare end with the next task
            future.wait()
        count.map(range(40))

    calls()
    assert max(most) <= 2


def test_a_sequential_runner_runs_each_task_when_it_is_submitted(registry):
    order = []

    @task
    def note(x):
        order.append((x, threading.current_thread()))
        return x

    @flow(task_runner=SequentialTaskRunner)
    def calls():
        future = note.submit(1)
        assert future.is_done
        order.append(("after", threading.current_thread()))
        note.map([2, 3])
        note.submit(4)

    calls()
    assert [what for what, _ in order] == [1, "after", 2, 3, 4]
    assert len({thread for _, thread in order}) == 1


def test_one_runner_object_can_serve_many_flow_runs_at_once(registry):
    runner = ConcurrentTaskRunner(2)

    @flow(task_runner=runner)
    def inner(x):
        return double.submit(x).result()

    @flow(task_runner=runner)
    def outer():
        first = double.submit(1)
        return inner(2), first.result(), double.submit(3).result()

    assert outer() == (4, 2, 6)
    assert outer() == (4, 2, 6)


def test_no_thread_of_a_runner_outlives_its_flow_run(registry):
    seen = []

    @task
    def note():
        seen.append(threading.current_thread())

    @flow
    def calls():
        for _ in range(20):
            note.submit()

    calls()
    for thread in set(seen):
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def test_a_result_is_freed_with_its_future_while_the_flow_goes_on(registry, monkeypatch):
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "ERROR")  # pytest keeps the records it sees

    class Large:
        pass

    @task
    def make(x):
        return Large()

    @task
    def take(_):
        pass

    @flow
    def calls():
        future = make.submit(Large())
        take.submit(future).wait()
        is_freed = threading.Event()
        weakref.finalize(future.result(), is_freed.set)
        del future
        return is_freed.wait(WAIT_SECONDS)

    assert calls() is True


def test_two_thousand_mapped_tasks_are_each_on_record_once(registry):
    @flow
    def calls():
        return sum(future.result() for future in double.map(range(2000)))

    assert calls() == 2 * sum(range(2000))
    (flow_run,) = registry.list_flow_runs()
    runs = registry.list_task_runs(TaskRunFilter(flow_run_ids=[flow_run.id]), limit=None)
    assert sorted(run.name for run in runs) == sorted(f"double-{n}" for n in range(2000))
    assert registry.count_task_runs(flow_run.id) == {"Completed": 2000}
    assert {run.run_count for run in runs} == {1}


def test_wait_for_keeps_a_task_until_others_have_ended(registry):
    may_end, order = threading.Event(), []

    @task
    def first():
        assert may_end.wait(WAIT_SECONDS)
        order.append("first")

    @task
    def second(x):
        order.append(x)

    @flow
    def calls():
        future = first.submit()
        futures = [
            second.submit("one", wait_for=[future]),
            second.submit("two", wait_for=future),
            *second.map(["three"], wait_for=(one for one in [future])),
        ]
        assert not any(one.is_done for one in futures)
        may_end.set()
        second("four", wait_for=futures)

    calls()
    assert order[0] == "first"
    assert order[-1] == "four"
    assert len(order) == 5


def test_an_upstream_failure_leaves_the_dependent_pending_and_not_ready(registry):
    called = []

    @task
    def depends(x=None):
        called.append(x)

    @flow
    def calls():
        bad = fails.submit()
        futures = [
            depends.submit(bad),
            depends.submit({"a": [bad]}),
            depends.submit(wait_for=[bad]),
            *depends.map([bad]),
        ]
        for future in futures:
            with pytest.raises(UpstreamTaskError, match="fails-0"):
                future.result()
        with pytest.raises(UpstreamTaskError, match="did not reach a 'COMPLETED' state"):
            depends(bad)
        state = depends(bad, return_state=True)
        assert (state.type, state.name) == (StateType.PENDING, "NotReady")
        return "done"

    assert calls() == "done"
    runs = [run for run in registry.list_task_runs() if run.task_name == "depends"]
    assert len(runs) == 6
    for run in runs:
        assert (run.state.type, run.state.name) == (StateType.PENDING, "NotReady")
        assert "fails-0" in run.state.message
        assert (run.started_at, run.ended_at, run.run_count) == (None, None, 0)
    assert called == []


def test_a_chain_behind_a_failure_is_not_ready_to_its_end(registry):
    @flow
    def calls():
        last = fails.submit()
        for _ in range(3):
            last = double.submit(last)
        with pytest.raises(UpstreamTaskError, match="double-1"):
            last.result()

    assert str(calls(return_state=True)) == "Failed('1/4 states failed.')"


def test_an_allowed_failure_gives_the_exception_as_the_argument(registry):
    @task
    def kind(value, *_):
        return type(value).__name__

    @flow
    def calls():
        bad = fails.submit()
        not_ready = double.submit(bad)
        return [
            kind.submit(allow_failure(bad)).result(),
            kind(allow_failure(bad)),
            kind.submit([allow_failure(bad)]).result(),
            kind.submit(1, wait_for=[allow_failure(bad)]).result(),
            kind.submit(allow_failure(not_ready)).result(),
            kind.submit(allow_failure(double.submit(2))).result(),
            *[future.result() for future in kind.map(allow_failure([bad, double.submit(1)]))],
        ]

    assert calls() == [
        "ValueError",
        "ValueError",
        "list",
        "int",
        "UpstreamTaskError",
        "int",
        "ValueError",
        "int",
    ]


def test_a_deep_graph_of_tasks_settles_without_a_deep_stack(registry):
    @flow
    def calls():
        future = double.submit(0)
        for _ in range(300):
            future = double.submit(future)
        return future.result()

    assert calls() == 0


def test_a_result_of_a_run_that_has_not_ended_is_an_error():
    with pytest.raises(UnfinishedRun):
        new_future().get_state().result()


def test_where_no_thread_can_be_started_the_error_is_raised_and_nothing_is_left_pending(
    registry, monkeypatch
):
    def fail(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("prefectlite.task_runners._start_thread", fail)

    @flow
    def calls():
        with pytest.raises(RuntimeError, match="new thread"):
            double.submit(1)
        with pytest.raises(RuntimeError, match="new thread"):
            double.map([1, 2])
        return "went on"

    assert calls() == "went on"
    assert [run.state.name for run in registry.list_task_runs()] == ["Cancelled"] * 3
