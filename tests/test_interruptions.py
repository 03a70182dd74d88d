import asyncio
import logging
import os
import random
import signal
import sqlite3
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

import prefectlite
from prefectlite import flow, interruptions, latches, task
from prefectlite.clock import monotonic
from prefectlite.context import check_open
from prefectlite.futures import TaskFuture
from prefectlite.interruptions import (
    Signals,
    acquire,
    call_at,
    interrupt_thread,
    is_interruptible,
    sleep,
)
from prefectlite.locks import WriteGate
from prefectlite.logs import get_run_logger
from prefectlite.states import Completed

DEADLINE_SECONDS = 20


def looks(registry, monkeypatch, method):
    """Have a method of the registry note whether it could be interrupted; return the notes."""
    seen = []
    original = getattr(type(registry), method)

    def looking(self, *args, **kwargs):
        seen.append(is_interruptible(sys._getframe()))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(registry), method, looking)
    return seen


def test_code_of_a_flow_and_of_its_tasks_can_be_interrupted(registry):
    seen = []

    def helper():
        seen.append(is_interruptible(sys._getframe()))

    @task
    def calls():
        helper()

    @flow
    def runs():
        helper()
        calls()
        calls.submit().wait()

    runs()
    assert seen == [True, True, True]


@pytest.mark.parametrize("method", ["create_flow_run", "create_task_runs", "change_state"])
def test_the_registry_is_never_interrupted(registry, monkeypatch, method):
    seen = looks(registry, monkeypatch, method)

    @task
    def works():
        get_run_logger().info("hello")

    @flow
    def runs():
        works()

    runs()
    assert seen
    assert not any(seen)


def test_a_handler_of_logging_is_never_interrupted(registry):
    seen = []

    class Looking(logging.Handler):
        def emit(self, record):
            seen.append(is_interruptible(sys._getframe()))

    handler = Looking()
    own = logging.getLogger("prefectlite.test_interruptions")
    own.addHandler(handler)
    try:

        @flow
        def logs():
            own.warning("hello")

        logs()
    finally:
        own.removeHandler(handler)
    assert seen == [False]


def test_a_hook_can_be_interrupted(registry):
    seen = []

    def hook(flow_, flow_run, state):
        seen.append(is_interruptible(sys._getframe()))

    @flow(on_completion=[hook])
    def runs():
        return 1

    runs()
    assert seen == [True]


def test_an_event_loop_itself_is_never_interrupted():
    seen = []

    async def looks():
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: seen.append(is_interruptible(sys._getframe().f_back)))
        await asyncio.sleep(0)
        seen.append(is_interruptible(sys._getframe()))

    asyncio.run(looks())
    assert seen == [False, True]


def test_calls_are_made_in_the_order_in_which_they_are_due():
    made, all_made = [], threading.Event()
    moment = monotonic()
    call_at(moment + 0.15, all_made.set)
    call_at(moment + 0.1, lambda: made.append("later"))
    call_at(moment - 1, lambda: made.append("at once"))
    call_at(moment + 0.05, lambda: made.append("cancelled")).cancel()
    call_at(moment + 1e300, lambda: made.append("never"))
    assert all_made.wait(DEADLINE_SECONDS)
    assert made == ["at once", "later"]


def test_a_call_that_raises_does_not_end_those_that_follow(monkeypatch):
    told, made = [], threading.Event()
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: told.append(kind))
    call_at(monotonic(), lambda: 1 / 0)
    call_at(monotonic() + 0.05, made.set)
    assert made.wait(DEADLINE_SECONDS)
    assert told == [ZeroDivisionError]


def test_a_forked_child_has_timers_of_its_own():
    call_at(monotonic(), lambda: None)
    child = os.fork()
    if not child:
        made = threading.Event()
        call_at(monotonic(), made.set)
        os._exit(0 if made.wait(DEADLINE_SECONDS) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class CaughtError(BaseException):
    pass


@pytest.mark.parametrize("wait", [acquire, lambda lock: sleep(DEADLINE_SECONDS)])
def test_a_wait_in_a_thread_can_be_interrupted(wait):
    lock, is_there, caught = threading.Lock(), threading.Event(), []
    lock.acquire()

    def waits():
        is_there.set()
        try:
            wait(lock)
        except CaughtError:
            caught.append(True)

    thread = threading.Thread(target=waits, daemon=True)
    thread.start()
    assert is_there.wait(DEADLINE_SECONDS)
    until = monotonic() + DEADLINE_SECONDS
    while not interrupt_thread(thread.ident, CaughtError):
        assert monotonic() < until
    thread.join(DEADLINE_SECONDS / 2)
    assert caught == [True]


def test_a_thread_that_has_ended_is_not_interrupted():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert interrupt_thread(thread.ident, CaughtError) is False


def test_a_lock_is_acquired_or_not_within_the_time_that_is_given():
    lock = threading.Lock()
    assert acquire(lock, 0)
    assert not acquire(lock, 0)
    assert not acquire(lock, 0.01)
    threading.Timer(0.1, lock.release).start()
    assert acquire(lock, 1e12)


def test_a_wait_that_is_interrupted_just_as_it_ends_does_not_keep_others_waiting(monkeypatch):
    future = TaskFuture(None)
    plain = latches.acquire

    def interrupted(lock, timeout):
        plain(lock, timeout)
        raise CaughtError

    ended = []

    def waits():
        ended.append(future.wait())

    others = [threading.Thread(target=waits) for _ in range(3)]
    for other in others:
        other.start()
    monkeypatch.setattr(latches, "acquire", interrupted)
    threading.Timer(0.05, lambda: future.settle(Completed())).start()
    with pytest.raises(CaughtError):
        TaskFuture.wait(future)
    for other in others:
        other.join(DEADLINE_SECONDS)
    assert len(ended) == 3


def unfinished(registry):
    """The runs on record that have not ended, by name."""
    runs = [*registry.list_flow_runs(limit=None), *registry.list_task_runs(limit=None)]
    return {run.name: run.state.name for run in runs if not run.state.is_final()}


def assert_in_order(registry, home):
    """The registry is whole, nothing in it is left unfinished, and nobody holds its gate."""
    assert unfinished(registry) == {}
    gate = WriteGate(home / "registry.lock", timeout_seconds=1)
    gate.enter()
    gate.close()
    with sqlite3.connect(home / "registry.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert not registry._database._lock.locked()


@task
def logs_a_line(number):
    get_run_logger().info("number %d", number)
    return number


def many_tasks():
    number = 0
    while True:
        number += logs_a_line(number)
        if number % 7 == 0:
            logs_a_line.submit(number).wait()


def place_of(error):
    """Where an interruption struck: ours, if that is code of prefectlite which must not be hit."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    while frames[-1].f_code.co_name in ("on_poke", "on_signal"):  # where it was raised
        frames.pop()
    struck = frames[-1]
    if not struck.f_code.co_filename.startswith(str(Path(prefectlite.__file__).parent)):
        return "elsewhere"
    is_allowed = struck.f_code in interruptions._WAITS or struck.f_code is check_open.__code__
    return "elsewhere" if is_allowed else f"{struck.f_code.co_filename}:{struck.f_lineno}"


def run_many(count, seed):
    """Run flows with a short deadline; return how they ended and where the deadline struck."""
    chance = random.Random(seed)
    ends = set()
    for _ in range(count):
        limited = flow(timeout_seconds=chance.uniform(0.001, 0.02))(many_tasks)
        state = limited(return_state=True)
        ends.add((state.name, place_of(state.data)))
    return ends


def test_deadlines_never_strike_inside_the_registry(registry, home):
    assert run_many(80, seed=1) == {("TimedOut", "elsewhere")}
    assert_in_order(registry, home)


def test_deadlines_in_another_thread_never_strike_inside_the_registry(registry, home):
    ends = []
    thread = threading.Thread(target=lambda: ends.extend(run_many(60, seed=2)))
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert ends == [("TimedOut", "elsewhere")]
    assert_in_order(registry, home)


def test_ctrl_c_in_a_flow_never_strikes_inside_the_registry(registry, home):
    chance = random.Random(3)

    def press_ctrl_c():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    @flow
    def is_interrupted():
        call_at(monotonic() + chance.uniform(0.001, 0.02), press_ctrl_c)
        many_tasks()

    for _ in range(40):
        with pytest.raises(KeyboardInterrupt) as caught:
            is_interrupted()
        assert place_of(caught.value) == "elsewhere"
    assert_in_order(registry, home)
    assert {run.state.name for run in registry.list_flow_runs(limit=None)} == {"Crashed"}


def test_a_deadline_is_met_though_its_signal_was_lost(registry, monkeypatch):
    # As it is where it arrives just before a system call that blocks.
    kill, sent = signal.pthread_kill, []

    def lose_two(ident, number):
        sent.append(number)
        if len(sent) > 2:
            kill(ident, number)

    monkeypatch.setattr(signal, "pthread_kill", lose_two)
    started = monotonic()
    state = flow(timeout_seconds=0.1)(lambda: time.sleep(DEADLINE_SECONDS))(return_state=True)
    assert state.name == "TimedOut"
    assert monotonic() - started < DEADLINE_SECONDS / 2


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]


@pytest.mark.parametrize("ends", ["well", "badly", "late"])
def test_the_handlers_are_put_back_when_a_flow_ends(registry, ends):
    before = handlers()

    @flow(timeout_seconds=0.1 if ends == "late" else None)
    def runs():
        assert handlers() != before
        if ends == "badly":
            raise ValueError
        if ends == "late":
            time.sleep(DEADLINE_SECONDS)

    runs(return_state=True)
    assert handlers() == before


def test_handlers_that_the_program_has_set_are_left_alone(registry):
    def own(*_):
        pass

    before = [signal.signal(number, own) for number in (signal.SIGINT, signal.SIGTERM)]
    try:

        @flow
        def runs():
            assert handlers()[:2] == [own, own]

        runs()
        assert handlers()[:2] == [own, own]
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


def test_a_handler_that_a_flow_sets_stays(registry):
    def own(*_):
        pass

    before = handlers()
    try:

        @flow
        def runs():
            signal.signal(signal.SIGTERM, own)

        runs()
        assert handlers() == [before[0], own, before[2]]
    finally:
        signal.signal(signal.SIGTERM, before[1])


def test_a_signal_that_comes_as_a_flow_ends_is_not_lost(registry, monkeypatch):
    change_state = type(registry).change_state

    def interrupted(self, run, state):
        changed = change_state(self, run, state)
        signal.raise_signal(signal.SIGINT)  # here no user code runs any more
        return changed

    monkeypatch.setattr(type(registry), "change_state", interrupted)

    @flow
    def runs():
        return 1

    with pytest.raises(KeyboardInterrupt):
        runs()
    (run,) = registry.list_flow_runs()
    assert run.state.name == "Completed"


def test_two_flows_on_one_loop_share_the_handlers(registry):
    before = handlers()

    @flow
    async def waits(seconds):
        await asyncio.sleep(seconds)
        assert signal.getsignal(signal.SIGTERM) is not before[1]

    async def both():
        await asyncio.gather(waits(0), waits(0.1), waits(0.05))

    asyncio.run(both())
    assert handlers() == before
    assert interruptions._main.entered == []


def test_outside_of_the_main_thread_signals_are_not_touched():
    before, seen = handlers(), []

    def enters():
        with Signals():
            seen.append(handlers() == before)

    thread = threading.Thread(target=enters)
    thread.start()
    thread.join()
    assert seen == [True]


def test_where_no_thread_can_be_had_for_a_timer_the_next_one_tries_again(monkeypatch):
    def refuses(run):
        raise RuntimeError("can't start new thread")

    timers, fired = interruptions._Timers(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(interruptions, "start_daemon_thread", refuses)
        with pytest.raises(RuntimeError):
            timers.add(interruptions.Timer(0.0, lambda: None))
    timers.add(interruptions.Timer(0.0, fired.set))
    assert fired.wait(DEADLINE_SECONDS)
