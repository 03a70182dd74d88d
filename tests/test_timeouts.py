import math
import signal
import socket
import subprocess
import threading
import time

import pytest

from prefectlite import flow, task, timeouts
from prefectlite.errors import UsageError
from prefectlite.timeouts import Deadline, TimeoutInterrupt, checked_timeout

#: Much longer than any test may take: what is not interrupted fails by its run's state.
LONG_SECONDS = 20
SHORT_SECONDS = 0.1


@pytest.fixture
def quick_repeats(monkeypatch):
    """Interrupt code that goes on again after a moment, instead of five seconds."""
    monkeypatch.setattr(timeouts, "REPEAT_SECONDS", 0.2)


def ends_early(flow_, *args):
    """Run a flow and return its state; it must not have taken its whole time."""
    started = time.monotonic()
    state = flow_(*args, return_state=True)
    assert time.monotonic() - started < LONG_SECONDS - 5
    return state


def recorded(registry):
    """The states of all runs on record, by name."""
    runs = [*registry.list_flow_runs(limit=None), *registry.list_task_runs(limit=None)]
    return {run.name: run.state.name for run in runs}


def wait_in_sleep():
    time.sleep(LONG_SECONDS)


def wait_in_loop():
    until = time.monotonic() + LONG_SECONDS
    while time.monotonic() < until:
        pass


def wait_for_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=LONG_SECONDS)


def wait_for_event():
    threading.Event().wait(LONG_SECONDS)


def wait_for_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LONG_SECONDS)
        ours.recv(1)


def wait_for_program():
    subprocess.run(["sleep", str(LONG_SECONDS)], check=True)


@pytest.mark.parametrize(
    "wait",
    [wait_in_sleep, wait_in_loop, wait_for_lock, wait_for_event, wait_for_socket, wait_for_program],
)
def test_a_flow_is_interrupted_in_the_main_thread_whatever_it_waits_for(registry, wait):
    state = ends_early(flow(timeout_seconds=SHORT_SECONDS)(wait))
    assert state.name == "TimedOut"
    assert state.is_failed()


@pytest.mark.parametrize(("given", "shown"), [(0.1, "0.1"), (1, "1.0")])
def test_a_flow_that_is_over_its_time_says_its_limit_in_seconds(registry, given, shown):
    state = ends_early(flow(timeout_seconds=given)(wait_in_sleep))
    message = f"Flow run exceeded timeout of {shown} seconds"
    assert state.message == message
    with pytest.raises(TimeoutError, match=f"^{message}$"):
        state.result()
    (run,) = registry.list_flow_runs()
    assert (run.state.type, run.state.name, run.state.message) == ("FAILED", "TimedOut", message)


def test_calling_a_flow_that_is_over_its_time_raises(registry):
    with pytest.raises(TimeoutError, match=r"^Flow run exceeded timeout of 0\.1 seconds$"):
        flow(timeout_seconds=SHORT_SECONDS)(wait_in_sleep)()


def test_a_task_that_is_over_its_time_is_to_its_flow_any_other_failed_task(registry):
    slow = task(timeout_seconds=SHORT_SECONDS)(wait_in_sleep)

    @flow
    def goes_on():
        with pytest.raises(TimeoutError, match=r"^Task run exceeded timeout of 0\.1 seconds$"):
            slow()
        return slow(return_state=True)

    state = ends_early(goes_on)
    assert (state.name, state.message) == ("TimedOut", "Task run exceeded timeout of 0.1 seconds")
    assert set(recorded(registry).values()) == {"TimedOut"}

    @flow
    def counts():
        slow(return_state=True)

    state = ends_early(counts)
    assert (state.name, state.message) == ("Failed", "1/1 states failed.")
    with pytest.raises(TimeoutError):
        state.result()


def test_what_is_in_time_is_not_touched(registry):
    @task(timeout_seconds=LONG_SECONDS)
    def quick():
        return 1

    @flow(timeout_seconds=LONG_SECONDS)
    def calls():
        return [quick(), quick.submit().result()]

    assert calls() == [1, 1]


def test_timed_out_is_retried_and_each_attempt_has_its_own_clock(registry):
    attempts = []

    @task(timeout_seconds=0.4, retries=2)
    def third_is_quick():
        attempts.append(time.monotonic())
        time.sleep(0.3 if len(attempts) == 3 else LONG_SECONDS)
        return len(attempts)

    @flow
    def calls():
        return third_is_quick()

    assert calls() == 3
    (run,) = registry.list_task_runs()
    assert [change.state.name for change in registry.state_history(run)] == [
        *("Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Completed")
    ]
    assert "TimedOut" in registry.state_history(run)[1].state.message


def test_a_flow_that_timed_out_is_retried(registry):
    attempts = []

    @flow(timeout_seconds=0.3, retries=1)
    def second_is_quick():
        attempts.append(1)
        time.sleep(0.2 if len(attempts) == 2 else LONG_SECONDS)
        return "done"

    assert second_is_quick() == "done"


def test_a_timeout_error_of_the_users_own_is_a_failure(registry):
    @flow(timeout_seconds=LONG_SECONDS)
    def raises():
        raise TimeoutError("mine")

    state = raises(return_state=True)
    assert state.name == "Failed"
    assert state.message == "Flow run encountered an exception. TimeoutError: mine"


def test_except_exception_does_not_swallow_a_timeout(registry):
    seen = []

    @flow(timeout_seconds=SHORT_SECONDS)
    def careful():
        try:
            wait_in_sleep()
        except Exception as error:
            seen.append(error)

    assert ends_early(careful).name == "TimedOut"
    assert seen == []


def test_code_that_swallows_a_timeout_and_returns_has_timed_out_all_the_same(registry):
    @flow(timeout_seconds=SHORT_SECONDS)
    def stubborn():
        try:
            wait_in_sleep()
        except BaseException:
            return 1

    assert ends_early(stubborn).name == "TimedOut"


def test_code_that_swallows_a_timeout_and_goes_on_is_interrupted_again(registry, quick_repeats):
    caught = []

    @flow(timeout_seconds=SHORT_SECONDS)
    def stubborn():
        while len(caught) < 3:
            try:
                wait_in_sleep()
            except BaseException as error:
                caught.append(type(error))

    assert ends_early(stubborn).name == "TimedOut"
    assert caught == [TimeoutInterrupt] * 3


def test_a_finally_gets_its_time(registry):
    ended = []

    @flow(timeout_seconds=SHORT_SECONDS)
    def tidies():
        try:
            wait_in_sleep()
        finally:
            time.sleep(0.5)
            ended.append(True)

    assert ends_early(tidies).name == "TimedOut"
    assert ended == [True]


def test_a_shorter_deadline_of_the_flow_ends_the_task_in_it(registry):
    @task(timeout_seconds=LONG_SECONDS)
    def inner():
        wait_in_sleep()

    @flow(timeout_seconds=SHORT_SECONDS)
    def outer():
        inner(return_state=True)
        raise AssertionError("the flow went on")

    assert ends_early(outer).name == "TimedOut"
    task_run = registry.list_task_runs()[0]
    assert task_run.state.name == "Crashed"
    told = "Execution was interrupted: Flow run exceeded timeout of 0.1 seconds."
    assert task_run.state.message == told


def test_a_shorter_deadline_of_the_task_leaves_the_flow_its_own(registry):
    @task(timeout_seconds=SHORT_SECONDS)
    def inner():
        wait_in_sleep()

    @flow(timeout_seconds=0.5)
    def outer():
        assert inner(return_state=True).name == "TimedOut"
        wait_in_sleep()

    state = ends_early(outer)
    assert (state.name, state.message) == ("TimedOut", "Flow run exceeded timeout of 0.5 seconds")


def test_deadlines_that_pass_together_end_the_outermost_run(registry):
    attempts = []

    @task(timeout_seconds=SHORT_SECONDS, retries=1)
    def inner():
        attempts.append(1)
        # The flow's deadline has passed here, and then the task's, before anything can be raised.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
        time.sleep(SHORT_SECONDS * 2)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGURG])
        wait_in_sleep()

    @flow(timeout_seconds=SHORT_SECONDS)
    def outer():
        inner(return_state=True)
        wait_in_sleep()

    assert ends_early(outer).name == "TimedOut"
    assert recorded(registry)["inner-0"] == "Crashed"
    assert attempts == [1]


def test_a_task_that_swallows_its_flows_timeout_does_not_let_the_flow_go_on(registry, monkeypatch):
    monkeypatch.setattr(timeouts, "REPEAT_SECONDS", LONG_SECONDS)  # the end of the task is enough

    @task
    def stubborn():
        try:
            wait_in_sleep()
        except BaseException:
            return 1

    @flow(timeout_seconds=SHORT_SECONDS)
    def outer():
        stubborn()
        wait_in_sleep()

    assert ends_early(outer).name == "TimedOut"


def test_each_of_four_nested_deadlines_ends_its_own_run(registry):
    ended = []

    def level(depth):
        kind = task if depth % 2 else flow
        wait = wait_in_sleep if depth == 3 else level(depth + 1)

        def run():
            if depth < 3:
                ended.append(wait(return_state=True).name)
            wait_in_sleep()

        return kind(timeout_seconds=0.2 * (4 - depth), name=f"level-{depth}")(run)

    state = ends_early(level(0))
    assert state.message == "Flow run exceeded timeout of 0.8 seconds"
    assert ended == ["TimedOut"] * 3


def test_no_task_starts_in_a_flow_that_is_over_its_time(registry):
    @task
    def late():
        raise AssertionError("it ran")

    @flow(timeout_seconds=SHORT_SECONDS)
    def tidies():
        try:
            wait_in_sleep()
        finally:
            late()

    assert ends_early(tidies).name == "TimedOut"
    assert registry.list_task_runs() == []


def test_a_deadline_that_passes_while_a_submitted_task_is_waited_for_ends_both(registry):
    @task
    def loops():
        while True:
            time.sleep(0.005)

    @flow(timeout_seconds=SHORT_SECONDS)
    def waits():
        loops.submit().result()

    assert ends_early(waits).name == "TimedOut"
    assert sorted(recorded(registry).values()) == ["Crashed", "TimedOut"]


def test_a_deadline_that_passes_after_the_function_returned_ends_what_it_submitted(registry):
    @task
    def loops():
        while True:
            time.sleep(0.005)

    @flow(timeout_seconds=SHORT_SECONDS)
    def submits():
        loops.submit()

    assert ends_early(submits).name == "TimedOut"
    assert sorted(recorded(registry).values()) == ["Crashed", "TimedOut"]


def test_a_deadline_that_passes_after_the_function_raised_ends_what_it_submitted(registry):
    @task
    def loops():
        while True:
            time.sleep(0.005)

    @flow(timeout_seconds=SHORT_SECONDS)
    def fails():
        loops.submit()
        raise ValueError("early")

    assert ends_early(fails).name == "TimedOut"
    assert sorted(recorded(registry).values()) == ["Crashed", "TimedOut"]


def test_a_deadline_ends_the_wait_before_a_retry(registry):
    @task(retries=1, retry_delay_seconds=LONG_SECONDS)
    def fails():
        raise ValueError("x")

    @flow(timeout_seconds=SHORT_SECONDS)
    def calls():
        fails()

    assert ends_early(calls).name == "TimedOut"


def test_a_generator_that_is_over_its_time_is_interrupted(registry):
    @task(timeout_seconds=SHORT_SECONDS)
    def items():
        yield 1
        wait_in_sleep()
        yield 2

    @flow
    def takes():
        taken = []
        with pytest.raises(TimeoutError):
            taken.extend(items())
        return "went on"

    assert ends_early(takes).result() == "went on"
    assert recorded(registry)["items-0"] == "TimedOut"


def test_the_traceback_of_a_timeout_says_where_the_time_went(registry):
    ends_early(flow(timeout_seconds=SHORT_SECONDS)(wait_in_sleep))
    (run,) = registry.list_flow_runs()
    (shown,) = [line.message for line in registry.read_logs(run.id) if "exception" in line.message]
    assert "in wait_in_sleep\n    time.sleep(LONG_SECONDS)" in shown
    assert "prefectlite/" not in shown


def test_a_program_uses_its_own_alarms_beside_a_timeout(registry):
    rung = []
    previous = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    try:
        signal.setitimer(signal.ITIMER_REAL, SHORT_SECONDS / 2)

        @flow(timeout_seconds=SHORT_SECONDS * 2)
        def waits():
            wait_in_sleep()

        assert ends_early(waits).name == "TimedOut"
        assert len(rung) == 1
        signal.alarm(LONG_SECONDS)
        assert ends_early(waits).name == "TimedOut"
        assert signal.alarm(0) > 0
        assert len(rung) == 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def test_a_timeout_that_user_code_makes_with_an_alarm_works_inside_a_flow(registry):
    class TooLateError(Exception):
        pass

    def ring(*_):
        raise TooLateError

    @flow(timeout_seconds=LONG_SECONDS)
    def waits():
        previous = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, SHORT_SECONDS)
        try:
            wait_in_sleep()
        finally:
            signal.signal(signal.SIGALRM, previous)

    with pytest.raises(TooLateError):
        waits()


@pytest.mark.parametrize("given", [None, 0, 0.0, math.inf])
def test_no_number_above_zero_is_no_limit(given):
    assert checked_timeout(given) is None


@pytest.mark.parametrize("given", [-1, -0.5, math.nan, True, False, "5", "", [], [1]])
@pytest.mark.parametrize("decorator", [flow, task])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(given, decorator):
    with pytest.raises(UsageError, match="timeout_seconds="):
        decorator(timeout_seconds=given)(wait_in_sleep)


def test_a_timeout_of_centuries_is_only_a_long_time(registry):
    @task(timeout_seconds=1e12)
    def quick():
        return 1

    @flow(timeout_seconds=1e300)
    def calls():
        return quick.submit().result(timeout=1e12)

    assert calls() == 1
    # The timers still work.
    assert ends_early(flow(timeout_seconds=SHORT_SECONDS)(wait_in_sleep)).name == "TimedOut"


def test_a_deadline_knows_what_is_left_of_it():
    deadline = Deadline.start("Flow run", 1000)
    assert 990 < deadline.remaining() <= 1000
    assert Deadline.start("Flow run", -1).has_passed()
    assert Deadline.start("Flow run", -1).remaining() == 0


def test_the_tests_of_timeouts_run_in_the_main_thread():
    # Signals reach no other: there they would prove nothing.
    assert threading.current_thread() is threading.main_thread()
