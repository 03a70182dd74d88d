"""What a flow does when its record says that it is being cancelled."""

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from prefectlite import flow, liveness, stops, task
from prefectlite.context import get_run_context
from prefectlite.errors import CancelledRun
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import Cancelling

#: Much longer than any test may take: code that is not interrupted fails by what it did not do.
LONG_SECONDS = 20
ENDED = "It ended by itself, as it was asked to."
WITH_FLOW = "Its flow run was cancelled."


def cancel(registry, name):
    """Ask that the flow run of this flow ends, as another process would; return the record."""
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=[name], states=["running"]))
    return registry.change_state(run, Cancelling("asked by a test"))


def cancels(registry, name="runs"):
    """Cancel from another thread, in a moment, and once."""
    thread = threading.Thread(target=cancel, args=(registry, name), daemon=True)
    contextvars.Context().run(thread.start)


def ended(registry):
    runs = [*registry.list_flow_runs(limit=None), *registry.list_task_runs(limit=None)]
    return {
        getattr(run, "flow_name", run.name): (run.state.name, run.state.message) for run in runs
    }


def loop():
    until = time.monotonic() + LONG_SECONDS
    while time.monotonic() < until:
        pass


def hang():
    time.sleep(LONG_SECONDS)


def wait_for_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=LONG_SECONDS)


def run_program():
    subprocess.run(["sleep", str(LONG_SECONDS)], check=True)


@pytest.mark.parametrize("body", [loop, hang, wait_for_lock, run_program])
def test_a_flow_that_is_being_cancelled_ends_by_itself_and_runs_its_finally(registry, body):
    told = []

    @flow(on_cancellation=[lambda *_: told.append("hook")])
    def runs():
        cancels(registry)
        try:
            body()
            told.append("not interrupted")
        except Exception:
            told.append("an ordinary error")
        finally:
            told.append("finally")

    state = runs(return_state=True)
    assert (state.name, state.message) == ("Cancelled", ENDED)
    assert told == ["finally", "hook"]
    assert ended(registry) == {"runs": ("Cancelled", ENDED)}


def test_the_result_of_a_cancelled_flow_is_an_ordinary_error(registry):
    @flow
    def runs():
        cancels(registry)
        hang()

    with pytest.raises(CancelledRun, match="as it was asked to"):
        runs()


def test_an_async_flow_is_cancelled_where_it_awaits(registry):
    told = []

    @flow
    async def runs():
        cancels(registry)
        try:
            await asyncio.sleep(LONG_SECONDS)
            told.append("not interrupted")
        finally:
            told.append("finally")

    async def main():
        state = await runs(return_state=True)
        await asyncio.sleep(0)  # the loop's task is whole again
        return state

    assert asyncio.run(main()).message == ENDED
    assert told == ["finally"]


def test_an_async_flow_that_blocks_its_loop_is_cancelled_too(registry):
    @flow
    async def runs():
        cancels(registry)
        hang()

    assert asyncio.run(runs(return_state=True)).message == ENDED


def test_the_finally_of_an_async_flow_is_not_interrupted_too(registry):
    told = []

    @flow
    async def runs():
        cancels(registry)
        try:
            await asyncio.sleep(LONG_SECONDS)
        finally:
            time.sleep(0.4)  # longer than code that blocks its loop is given
            told.append("finally")

    assert asyncio.run(runs(return_state=True)).message == ENDED
    assert told == ["finally"]


@pytest.mark.parametrize("ending", ["in time", "blocked"])
def test_nothing_of_the_cancellation_reaches_what_comes_after_the_flow(registry, ending):
    @flow
    async def runs():
        if ending == "in time":
            run = cancel(registry, "runs")
            while not get_run_context().is_cancelled:  # the watch thread has asked the loop
                time.sleep(0.001)
            return run.name
        cancels(registry)
        return hang()

    async def main():
        state = await runs(return_state=True)
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0
        return state.name

    assert asyncio.run(main()) == ("Completed" if ending == "in time" else "Cancelled")


def test_a_flow_that_is_cancelled_before_it_awaits_is_cancelled_when_it_does(registry):
    def while_it_begins(*_):
        cancel(registry, "runs")
        context = stops._watched[-1].context
        while not context.is_cancelled:
            time.sleep(0.001)

    @flow(on_running=[while_it_begins])
    async def runs():
        await asyncio.sleep(LONG_SECONDS)

    assert asyncio.run(runs(return_state=True)).message == ENDED


def test_another_flow_on_the_loop_of_a_thread_is_not_hit(registry):
    states = []

    @flow
    async def runs():
        cancels(registry)
        try:
            await asyncio.sleep(LONG_SECONDS)
        finally:
            await asyncio.sleep(0.3)

    @flow
    async def other():
        await asyncio.sleep(0.6)

    async def both():
        states.extend(await asyncio.gather(runs(return_state=True), other(return_state=True)))

    thread = threading.Thread(target=lambda: asyncio.run(both()))
    thread.start()
    thread.join(LONG_SECONDS)
    assert [state.name for state in states] == ["Cancelled", "Completed"]


def test_a_flow_in_another_thread_is_cancelled(registry):
    states = []

    @flow
    def runs():
        cancels(registry)
        loop()

    thread = threading.Thread(target=lambda: states.append(runs(return_state=True)))
    thread.start()
    thread.join(LONG_SECONDS)
    assert [state.message for state in states] == [ENDED]


@pytest.mark.parametrize("where", ["main", "thread"])
def test_the_hooks_of_a_cancelled_flow_are_not_interrupted(registry, monkeypatch, where):
    monkeypatch.setattr("prefectlite.stops.REPEAT_SECONDS", 0.05)
    monkeypatch.setattr("prefectlite.timeouts.REPEAT_SECONDS", 0.05)
    told = []

    def hook(*_):
        until = time.monotonic() + 0.3  # six interruptions
        while time.monotonic() < until:
            pass
        told.append("hook")

    @flow(on_cancellation=[hook])
    def runs():
        cancels(registry)
        loop()

    def call():
        told.append(runs(return_state=True).message)

    if where == "main":
        call()
    else:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(LONG_SECONDS)
    assert told == ["hook", ENDED]


def test_what_swallows_the_interruption_is_interrupted_again(registry, monkeypatch):
    monkeypatch.setattr("prefectlite.stops.REPEAT_SECONDS", 0.1)
    swallowed = []

    @flow
    def runs():
        cancels(registry)
        while len(swallowed) < 3:
            try:
                loop()
            except BaseException as error:
                swallowed.append(type(error).__name__)
        loop()

    assert runs(return_state=True).message == ENDED
    assert swallowed == ["CancelInterrupt"] * 3


def test_a_flow_that_finished_first_is_completed_and_says_so(registry):
    @flow
    def runs():
        cancel(registry, "runs")
        return 7

    state = runs(return_state=True)
    assert (state.name, state.result()) == ("Completed", 7)
    assert state.message == "It had finished before its cancellation reached it."


def test_subflows_and_tasks_of_a_cancelled_flow_are_cancelled_with_it(registry):
    told, has_begun = [], threading.Event()

    @task
    def called():
        hang()

    @task
    def in_thread():
        has_begun.set()
        loop()

    @flow(on_cancellation=[lambda *_: told.append("inner")])
    def inner():
        assert has_begun.wait(LONG_SECONDS)
        cancels(registry)
        called()

    @flow(on_cancellation=[lambda *_: told.append("runs")])
    def runs():
        in_thread.submit()
        inner()

    assert runs(return_state=True).message == ENDED
    assert told == ["inner", "runs"]
    assert ended(registry) == {
        "runs": ("Cancelled", ENDED),
        "inner": ("Cancelled", WITH_FLOW),
        "called-0": ("Cancelled", WITH_FLOW),
        "in_thread-0": ("Cancelled", WITH_FLOW),
    }


def test_a_cancelled_subflow_is_an_error_to_its_parent_which_goes_on(registry):
    @flow
    def inner():
        cancels(registry, "inner")
        hang()

    @flow
    def runs():
        with pytest.raises(CancelledRun):
            inner()
        return "went on"

    assert runs() == "went on"
    assert ended(registry)["inner"] == ("Cancelled", ENDED)


def test_a_flow_between_two_attempts_is_cancelled(registry):
    @flow(retries=1, retry_delay_seconds=LONG_SECONDS)
    def runs():
        def later():
            while True:
                (run,) = registry.list_flow_runs()
                if run.state.name == "AwaitingRetry":
                    registry.change_state(run, Cancelling())
                    return
                time.sleep(0.005)

        threading.Thread(target=later, daemon=True).start()
        raise ValueError

    assert runs(return_state=True).message == ENDED


def test_no_new_task_starts_in_a_flow_that_is_being_cancelled(registry):
    @task
    def late():
        raise AssertionError

    @flow
    def runs():
        cancel(registry, "runs")
        late()

    assert runs(return_state=True).name == "Cancelled"
    assert ended(registry).keys() == {"runs"}


def test_processes_of_a_cancelled_flow_are_killed(registry, start_script):
    program = start_script("""
        import os, time
        from prefectlite import flow, task
        from prefectlite.task_runners import ProcessPoolTaskRunner

        @task
        def works():
            print(os.getpid(), flush=True)
            time.sleep(60)

        @flow(task_runner=ProcessPoolTaskRunner(1))
        def runs():
            works.submit()

        if __name__ == "__main__":
            print(runs(return_state=True).name)
        """)
    worker = int(program.line())
    cancel(registry, "runs")
    assert program.end() == "Cancelled\n"
    assert liveness.start_ticks(worker) is None


def test_a_poke_from_another_process_is_answered_before_the_next_look(registry, start_script):
    # The watch thread looks every 200 ms; told that it need not before a minute, only a poke helps.
    program = start_script("""
        import threading
        from prefectlite import flow, watches
        watches.TICK_SECONDS = 60

        @flow
        def runs():
            print("ready", flush=True)
            threading.Event().wait()

        print(runs(return_state=True).name)
        """)
    assert program.line() == "ready"
    cancel(registry, "runs")
    os.kill(program.pid, signal.SIGURG)
    assert program.end() == "Cancelled\n"


def test_a_flow_after_a_long_pause_between_flows_is_looked_at_too(registry, start_script):
    program = start_script("""
        import sys, threading, time
        from prefectlite import flow, watches
        watches.TICK_SECONDS, watches._IDLE_TICKS = 0.005, 0

        @flow
        def first():
            pass

        @flow
        def runs():
            print("ready", flush=True)
            threading.Event().wait()

        first()
        time.sleep(0.1)  # longer than the thread looks without a flow
        print(runs(return_state=True).name)
        """)
    assert program.line() == "ready"
    cancel(registry, "runs")
    assert program.end() == "Cancelled\n"


def test_a_flow_begins_while_another_thread_imports_asyncio(registry, monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncio", types.ModuleType("asyncio"))

    @flow
    def runs():
        return "went on"

    assert runs() == "went on"
