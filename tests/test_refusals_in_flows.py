"""What a flow is told that calls a task or a subflow while it is being cancelled: once, and as it ends."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from prefectlite import flow, interruptions, stops, task
from prefectlite.context import get_run_context
from prefectlite.errors import CancelledRun
from prefectlite.states import Cancelling
from prefectlite.task_runners import SequentialTaskRunner

LONG_SECONDS = 20
#: How long the code of a flow cleans up in which a second interruption would land at once.
CLEAN_UP_SECONDS = 0.3
ENDED = "It ended by itself, as it was asked to."
WITH_FLOW = "Its flow run was cancelled."


@task
def step():
    return 1


@task
def takes(item):
    return item


@task
def calls_step():
    try:
        step()
    except Exception:
        return "swallowed"


@flow
def inner():
    return 1


def cancel():
    """Put on record that the flow run which this code is in is being cancelled."""
    context = get_run_context().flow_run_context
    return context.registry.change_state(context.flow_run, Cancelling("asked by a test"))


def clean_up():
    until = time.monotonic() + CLEAN_UP_SECONDS
    while time.monotonic() < until:
        pass


def name_of(error):
    return type(error).__name__


def call_in_thread(function):
    outcome = []

    def call():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(LONG_SECONDS)
    return outcome[0]


def states(registry):
    flow_runs = {run.flow_name: run.state.name for run in registry.list_flow_runs()}
    return flow_runs | {run.task_name: run.state.name for run in registry.list_task_runs()}


WAYS = {
    "called": step,
    "submitted": lambda: step.submit().result(),
    "mapped": lambda: takes.map([1, 2]),
    "in a task": calls_step,
    "in a task of a thread": lambda: calls_step.submit().result(),
    "in a thread of the user's": lambda: call_in_thread(step),
    "a subflow": inner,
}


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("way", WAYS)
def test_a_flow_whose_call_is_refused_is_interrupted_once(registry, way, where):
    told = []

    @flow(retries=2, retry_delay_seconds=LONG_SECONDS)
    def runs():
        try:
            cancel()
            WAYS[way]()
            told.append("went on")
        except Exception as error:
            told.append(f"an ordinary error: {error!r}")
        finally:
            clean_up()
            told.append("finally")

    def call():
        return runs(return_state=True)

    state = call() if where == "main" else call_in_thread(call)
    assert (state.name, state.message) == ("Cancelled", ENDED)
    assert told == ["finally"]
    assert states(registry).keys() <= {"runs", "calls_step"}


@pytest.mark.parametrize("where", ["main", "thread", "unseen by the watch thread"])
def test_a_flow_that_swallows_it_is_interrupted_again(registry, monkeypatch, where):
    if where not in ("main", "thread"):
        monkeypatch.setattr(stops.Watched, "look", lambda _: LONG_SECONDS)
    monkeypatch.setattr("prefectlite.stops.REPEAT_SECONDS", 0.1)
    monkeypatch.setattr("prefectlite.timeouts.REPEAT_SECONDS", 0.1)
    told = []

    def calls_for_ever():
        until = time.monotonic() + LONG_SECONDS
        while time.monotonic() < until:
            try:
                step()
            except Exception as error:
                told.append(name_of(error))

    @flow
    def runs():
        for turn in range(3):
            try:
                if not turn:
                    cancel()
                calls_for_ever()
            except BaseException as error:
                told.append(name_of(error))
        told.append("went on")

    def call():
        return runs(return_state=True)

    call_in_thread(call) if where == "thread" else call()
    assert told[0] == "CancelInterrupt"
    assert told[-1] == "went on"
    assert told.count("CancelInterrupt") == 3
    assert set(told) == {"CancelInterrupt", "FlowRunNotRunningError", "went on"}


def test_what_cleans_up_gets_an_ordinary_error_at_once(registry):
    told = []

    @flow
    def runs():
        try:
            cancel()
            step()
        finally:
            for call in (step, step.submit, inner):
                try:
                    call()
                except BaseException as error:
                    told.append(name_of(error))

    assert runs(return_state=True).message == ENDED
    assert told == ["FlowRunNotRunningError"] * 3


def test_a_flow_that_ends_by_the_refusal_of_what_cleans_up_is_not_tried_again(registry):
    @flow(retries=2, retry_delay_seconds=LONG_SECONDS)
    def runs():
        try:
            cancel()
            step()
        finally:
            step()

    assert runs(return_state=True).message == ENDED
    assert states(registry) == {"runs": "Cancelled"}


def test_sigterm_does_not_interrupt_what_cleans_up_after_a_refusal(registry):
    told = []

    @flow
    def runs():
        try:
            cancel()
            step()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            clean_up()
            told.append("finally")

    assert runs(return_state=True).message == ENDED
    assert told == ["finally"]


def test_a_flow_that_sigterm_has_ended_already_is_not_interrupted_by_a_refusal(
    registry, monkeypatch
):
    told, poke = [], stops.poke_main_thread

    @flow
    def runs():
        monkeypatch.setattr(stops, "poke_main_thread", lambda: None)  # or that could be first
        try:
            cancel()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(LONG_SECONDS)
        finally:
            monkeypatch.setattr(stops, "poke_main_thread", poke)
            try:
                step()
            except BaseException as error:
                told.append(name_of(error))
            clean_up()
            told.append("finally")

    with pytest.raises(SystemExit):
        runs()
    assert told == ["FlowRunNotRunningError", "finally"]
    assert states(registry) == {"runs": "Cancelled"}


def test_sigterm_just_before_the_interruption_takes_its_place(registry, monkeypatch):
    asked, told = threading.Event(), []

    def poke():
        if not asked.is_set():
            asked.set()  # the main thread is to be interrupted; but a signal comes first

    @flow
    def runs():
        monkeypatch.setattr(stops, "poke_main_thread", poke)
        cancel()
        interruptions.watch.stir()
        assert asked.wait(LONG_SECONDS)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(LONG_SECONDS)
        finally:
            interruptions.poke_main_thread()
            clean_up()
            told.append("finally")

    with pytest.raises(SystemExit):
        runs()
    assert told == ["finally"]


@pytest.mark.parametrize("way", ["called", "submitted"])
def test_the_supervisor_is_told_of_a_refusal_as_of_a_look(registry, monkeypatch, way):
    told = []
    monkeypatch.setattr(
        stops.Watched, "_tell_supervisor", lambda _, run: told.append(run.state.name)
    )

    @flow
    def runs():
        context = get_run_context()
        record = context.registry.find_flow_run

        def supervised(reference):
            run = record(reference)
            return replace(run, supervisor=run.process)

        monkeypatch.setattr(context.registry, "find_flow_run", supervised)
        try:
            cancel()
            step() if way == "called" else step.submit()
        finally:
            monkeypatch.setattr(context.registry, "find_flow_run", record)

    assert runs(return_state=True).message == ENDED
    assert told == ["Cancelling"]


def test_a_task_of_a_cancelled_flow_ends_in_its_thread_where_it_calls_one(registry):
    told = []

    @task
    def works():
        try:
            cancel()
            step()
        except Exception:
            told.append("went on")
        finally:
            told.append("finally")

    @flow
    def runs():
        works.submit().result()

    assert runs(return_state=True).message == ENDED
    assert told == ["finally"]
    assert states(registry) == {"runs": "Cancelled", "works": "Cancelled"}


@pytest.mark.parametrize("kind", ["flow", "task"])
def test_a_generator_whose_call_is_refused_ends(registry, kind):
    told = []

    def items():
        yield 1
        try:
            cancel()
            step()
        finally:
            clean_up()
            told.append("finally")
        yield 2

    generator = flow(items, name="runs") if kind == "flow" else task(items)

    @flow(name="runs")
    def runs():
        told.extend(generator())

    if kind == "task":
        assert runs(return_state=True).message == ENDED
    else:
        with pytest.raises(CancelledRun):
            told.extend(generator())
    assert told == [1, "finally"]


def test_a_task_that_its_flow_runs_where_it_submits_it_interrupts_the_flow_once(registry):
    told = []

    @flow(task_runner=SequentialTaskRunner)
    def runs():
        try:
            calls_and_cancels.submit()
            told.append("went on")
        finally:
            clean_up()
            told.append("finally")

    @task
    def calls_and_cancels():
        cancel()
        step()

    assert runs(return_state=True).message == ENDED
    assert told == ["finally"]


@pytest.mark.parametrize("cancelled", ["outer", "middle", "lowest"])
def test_at_each_level_of_subflows_the_cancelled_one_is_told_once(registry, cancelled):
    told, contexts = [], {}

    @flow
    def lowest():
        return level("lowest", lambda: None)

    @flow
    def middle():
        return level("middle", lowest)

    @flow
    def outer():
        return level("outer", middle)

    def level(name, below):
        contexts[name] = context = get_run_context()
        try:
            below()
            if name == "lowest":
                victim = contexts[cancelled]
                victim.registry.change_state(victim.flow_run, Cancelling())
                until = time.monotonic() + LONG_SECONDS
                while time.monotonic() < until:
                    step()
        except CancelledRun:
            told.append(f"{name} goes on")
        except BaseException as error:
            clean_up()
            told.append(f"{name}: {name_of(error)}")
            raise
        return context.flow_run.name

    outer(return_state=True)
    levels = ["lowest", "middle", "outer"]
    ended = levels[: levels.index(cancelled) + 1]
    goes_on = levels[len(ended) : len(ended) + 1]
    assert told == [
        *(f"{name}: CancelInterrupt" for name in ended),
        *(f"{name} goes on" for name in goes_on),
    ]
    found = states(registry)
    assert {name for name in levels if found[name] == "Cancelled"} == set(ended)


def test_a_subflow_of_a_cancelled_flow_starts_no_task_as_it_cleans_up(registry):
    told = []

    @flow(retries=2, retry_delay_seconds=LONG_SECONDS)
    def sub():
        parent = get_run_context().parent
        try:
            parent.registry.change_state(parent.flow_run, Cancelling())
            time.sleep(LONG_SECONDS)
        finally:
            try:
                step()
            except BaseException as error:
                told.append(name_of(error))
            step()

    @flow
    def runs():
        sub()

    assert runs(return_state=True).name == "Cancelled"
    assert told == ["FlowRunNotRunningError"]
    assert states(registry) == {"runs": "Cancelled", "sub": "Cancelled"}


FORKS = """
import os, time
from prefectlite import flow, task
from prefectlite.context import get_run_context
from prefectlite.states import Cancelling

@task
def step():
    pass

@flow
def forks():
    context = get_run_context()
    child = os.fork()
    if child == 0:
        context.registry.change_state(context.flow_run, Cancelling())
        try:
            step()
        except BaseException as error:
            os.write(1, type(error).__name__.encode() + b"\\n")
        os._exit(0)
    try:
        time.sleep(60)
    finally:
        os.waitpid(child, 0)

print(forks(return_state=True).name)
"""


def test_a_forked_child_whose_call_is_refused_is_told_by_an_ordinary_error(start_python):
    program = start_python(FORKS)
    assert program.line() == "FlowRunNotRunningError"
    assert program.end() == "Cancelled\n"
