import re
import signal
import threading
import time

import pytest

from prefectlite import flow, task, timeouts
from prefectlite.task_runners import ConcurrentTaskRunner
from prefectlite.timeouts import TimeoutInterrupt

LONG_SECONDS = 20
SHORT_SECONDS = 0.1


@pytest.fixture
def gate():
    """An event that code hangs on as in a C call: no exception reaches it before it is set."""
    gate = threading.Event()
    yield gate
    gate.set()


def ends_early(flow_, *args):
    started = time.monotonic()
    state = flow_(*args, return_state=True)
    assert time.monotonic() - started < LONG_SECONDS - 5
    return state


def recorded(registry):
    runs = [*registry.list_flow_runs(limit=None), *registry.list_task_runs(limit=None)]
    return {run.name: run.state.name for run in runs}


def messages(registry):
    (run,) = registry.list_flow_runs()
    return [line.message for line in registry.read_logs(run.id)]


def loop():
    until = time.monotonic() + LONG_SECONDS
    while time.monotonic() < until:
        pass


def in_thread(function):
    """Call a function in a thread of its own and return what it returns."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(LONG_SECONDS)
    return results[0]


def test_a_loop_in_a_thread_is_interrupted(registry):
    caught = []

    @task(timeout_seconds=SHORT_SECONDS)
    def loops():
        try:
            loop()
        except BaseException as error:
            caught.append(type(error))
            raise

    @flow
    def calls():
        return loops.submit().wait()

    state = ends_early(calls)
    assert (state.name, state.message) == ("TimedOut", "Task run exceeded timeout of 0.1 seconds")
    assert caught == [TimeoutInterrupt]
    assert not [text for text in messages(registry) if "does not stop" in text]


def test_a_thread_that_hangs_is_abandoned_with_a_warning_that_says_where(registry, gate):
    @task(timeout_seconds=SHORT_SECONDS)
    def hangs():
        gate.wait(LONG_SECONDS)

    @flow
    def calls():
        return hangs.submit().wait()

    assert ends_early(calls).name == "TimedOut"
    (warning,) = [text for text in messages(registry) if "does not stop" in text]
    assert re.search(r'It hangs at File ".*threading\.py", line \d+, in wait', warning)


def test_the_warning_names_the_users_own_line_where_the_thread_is_there(registry):
    @task(timeout_seconds=SHORT_SECONDS)
    def sleeps():
        time.sleep(0.6)

    @flow
    def calls():
        return sleeps.submit().wait()

    assert calls(return_state=True).name == "TimedOut"
    (warning,) = [text for text in messages(registry) if "does not stop" in text]
    line = sleeps.fn.__code__.co_firstlineno + 2
    assert f'File "{__file__}", line {line}, in sleeps' in warning


def test_a_retry_goes_on_in_another_thread_and_may_call_tasks(registry, gate):
    threads = []

    @task
    def inner():
        return len(threads)

    @task(timeout_seconds=SHORT_SECONDS, retries=2)
    def hangs_twice():
        threads.append(threading.get_ident())
        if len(threads) < 3:
            gate.wait(LONG_SECONDS)
        return inner()

    @flow
    def calls():
        return hangs_twice.submit().result()

    assert ends_early(calls).result() == 3
    assert len(set(threads)) == 3
    assert recorded(registry)["hangs_twice-0"] == "Completed"


def test_an_abandoned_thread_starts_no_task_and_its_result_does_not_count(registry, gate):
    ended = threading.Event()
    refused = []

    @task
    def inner():
        raise AssertionError("it ran")

    @task(timeout_seconds=SHORT_SECONDS, retries=1)
    def hangs_once():
        if refused:
            return "second"
        refused.append(None)
        try:
            gate.wait(LONG_SECONDS)
        except TimeoutInterrupt:
            try:
                inner()
            except TimeoutInterrupt as error:
                refused.append(error)
        ended.set()
        return "first"

    @flow
    def calls():
        result = hangs_once.submit().result()
        gate.set()
        assert ended.wait(LONG_SECONDS)
        return result

    assert ends_early(calls).result() == "second"
    assert len(refused) == 2
    assert recorded(registry).keys() & {"inner-0"} == set()
    assert recorded(registry)["hangs_once-0"] == "Completed"


def test_other_tasks_and_the_pool_go_on_beside_an_abandoned_thread(registry, gate):
    @task(timeout_seconds=SHORT_SECONDS)
    def hangs():
        gate.wait(LONG_SECONDS)

    @task
    def works(number):
        return number

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def calls():
        hung = [hangs.submit() for _ in range(3)]
        worked = works.map(range(5))
        assert [future.wait().name for future in hung] == ["TimedOut"] * 3
        return [future.result() for future in worked]

    assert ends_early(calls).result() == [0, 1, 2, 3, 4]


def test_a_flow_that_ends_over_its_time_leaves_no_run_unfinished(registry, gate):
    @task
    def inner():
        gate.wait(LONG_SECONDS)

    @flow
    def subflow():
        inner()

    @task
    def outer():
        inner()

    @task
    def calls_subflow():
        subflow()

    @task
    def never(upstream):
        raise AssertionError("it ran")

    @flow(timeout_seconds=0.3)
    def calls():
        hung = [outer.submit(), calls_subflow.submit()]
        never.submit(hung[0])

    assert ends_early(calls).name == "TimedOut"
    states = recorded(registry)
    assert set(states.values()) == {"TimedOut", "Crashed", "NotReady"}
    assert {name: state for name, state in states.items() if state == "NotReady"} == {
        "never-0": "NotReady"
    }


def test_what_an_abandoned_thread_was_calling_is_not_left_running(registry, gate):
    @task
    def inner():
        gate.wait(LONG_SECONDS)

    @task(timeout_seconds=SHORT_SECONDS)
    def outer():
        inner()

    @flow
    def calls():
        outer.submit().wait()
        return "done"

    assert ends_early(calls).result() == "done"
    assert recorded(registry)["inner-0"] == "Crashed"


def test_a_submitted_task_that_tidies_up_is_waited_for(registry):
    tidied = []

    @task
    def tidies():
        try:
            while True:
                time.sleep(0.005)
        finally:
            tidied.append(True)

    @flow(timeout_seconds=SHORT_SECONDS)
    def calls():
        tidies.submit()

    assert ends_early(calls).name == "TimedOut"
    assert tidied == [True]


def test_a_task_called_inside_a_submitted_task_has_a_timeout(registry):
    inner = task(timeout_seconds=SHORT_SECONDS, name="inner")(loop)

    @task
    def outer():
        return inner(return_state=True)

    @flow
    def calls():
        return outer.submit().wait()

    state = ends_early(calls)
    assert state.name == "TimedOut"
    assert recorded(registry)["inner-0"] == "TimedOut"


def test_a_task_that_waits_for_another_in_a_thread_is_interrupted(registry):
    @task
    def loops():
        while True:
            time.sleep(0.005)

    @task(timeout_seconds=SHORT_SECONDS)
    def waits():
        loops.submit().result()

    @flow(timeout_seconds=0.6)
    def calls():
        return waits.submit().wait()

    assert ends_early(calls).name == "TimedOut"
    assert not [text for text in messages(registry) if "does not stop" in text]


def test_a_flow_in_another_thread_is_interrupted(registry):
    caught = []

    @flow(timeout_seconds=SHORT_SECONDS)
    def loops():
        try:
            loop()
        finally:
            caught.append(True)

    state = in_thread(lambda: ends_early(loops))
    assert (state.name, state.message) == ("TimedOut", "Flow run exceeded timeout of 0.1 seconds")
    assert caught == [True]


def test_a_flow_in_another_thread_stops_waiting_for_a_task_at_its_deadline(registry, gate):
    @task
    def hangs():
        gate.wait(LONG_SECONDS)

    @flow(timeout_seconds=SHORT_SECONDS)
    def waits():
        hangs.submit().result()

    assert in_thread(lambda: ends_early(waits)).name == "TimedOut"
    # Cancelled, where the deadline passed before a thread had started it.
    assert recorded(registry)["hangs-0"] in ("Crashed", "Cancelled")


def test_a_flow_in_another_thread_is_interrupted_again_if_it_goes_on(registry, monkeypatch):
    monkeypatch.setattr(timeouts, "REPEAT_SECONDS", 0.2)
    caught = []

    @flow(timeout_seconds=SHORT_SECONDS)
    def stubborn():
        while len(caught) < 3:
            try:
                loop()
            except BaseException:
                caught.append(True)

    assert in_thread(lambda: ends_early(stubborn)).name == "TimedOut"
    assert caught == [True] * 3


def test_a_finally_in_a_thread_is_not_interrupted_while_it_tidies_up(registry):
    tidied = []

    @flow(timeout_seconds=SHORT_SECONDS)
    def tidies():
        try:
            loop()
        finally:
            until = time.monotonic() + 0.4
            while time.monotonic() < until:
                pass
            tidied.append(True)

    assert in_thread(lambda: ends_early(tidies)).name == "TimedOut"
    assert tidied == [True]


def test_flows_in_other_threads_touch_no_signal_handler(registry):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGURG)
    before = [signal.getsignal(number) for number in numbers]
    in_thread(lambda: ends_early(flow(timeout_seconds=SHORT_SECONDS)(loop)))
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_coroutine_in_a_thread_that_blocks_its_loop_is_interrupted(registry):
    @task(timeout_seconds=SHORT_SECONDS)
    async def blocks():
        loop()

    @flow
    def submits():
        return blocks.submit().wait()

    assert ends_early(submits).name == "TimedOut"
    assert not [text for text in messages(registry) if "does not stop" in text]
