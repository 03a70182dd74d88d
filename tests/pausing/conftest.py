"""What the tests of pauses share: someone who does something while a flow is paused."""

import contextvars
import threading

import pytest

from prefectlite import resume_flow_run, stops
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import Failed

#: How long a thread of a test may take to end; nothing here waits for the end of it.
LONG_SECONDS = 50

#: What every program begins with; the alarm bounds its life.
PRELUDE = """
import asyncio, os, signal, sys, threading
from prefectlite import flow, pause_flow_run, task, watches
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

signal.alarm(50)
say = lambda *words: print(*words, flush=True)
#: Only a wake-up ends such a pause in time.
UNTOLD = {"timeout": None, "poll_interval": 3600}

@flow
def called(**pause):
    try:
        pause_flow_run(**pause)
        say("went on")
    finally:
        say("finally")

@flow
async def awaited(**pause):
    try:
        await pause_flow_run(**pause)
        say("went on")
    finally:
        say("finally")

@flow
def generated(**pause):
    try:
        yield 1
        pause_flow_run(**pause)
        yield say("went on")
    finally:
        say("finally")

@task
def asks(pause):
    try:
        pause_flow_run(**pause)
        say("went on")
    finally:
        say("finally")

@flow
def submitted(**pause):
    asks.submit(pause).result()

@flow
def nested(**pause):
    asks(pause)

@flow
def parent(**pause):
    called(**pause)

@task
def works():
    say("went on")

@flow
def held(**pause):
    pause_flow_run(open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs()[0].name)
    try:
        works()
    finally:
        say("finally")

def run(name, pause):
    made = globals()[name]
    if name == "awaited":
        state = asyncio.run(made(return_state=True, **pause))
    elif name == "generated":
        state = None
        list(made(**pause))
    else:
        state = made(return_state=True, **pause)
    return state

"""


@pytest.fixture
def meanwhile(registry):
    """Do something in a thread that belongs to no run; at the end it must have gone well."""
    threads, errors = [], []

    def begin(function, *arguments):
        def run():
            try:
                function(*arguments)
            except BaseException as error:
                errors.append(error)
                for run in registry.list_flow_runs(
                    FlowRunFilter(states=["PAUSED"])
                ):  # else it is waited for
                    registry.change_state(run, Failed("the test has failed"))

        threads.append(threading.Thread(target=run, daemon=True))
        contextvars.Context().run(threads[-1].start)
        return threads[-1]

    yield begin
    for thread in threads:
        thread.join(LONG_SECONDS)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def paused(registry, until):
    """Wait until the run of a flow is Paused, or in another state of that type; return it."""

    def find(flow_name="runs", but=()):
        found = registry.list_flow_runs(FlowRunFilter(flow_names=[flow_name], states=["PAUSED"]))
        return next((run for run in found if run.state_version not in but), None)

    def wait(flow_name="runs", *, but=()):
        return until(lambda: find(flow_name, but), f"{flow_name} is Paused", told=told)

    def told():
        return [(run.flow_name, str(run.state)) for run in registry.list_flow_runs()]

    return wait


@pytest.fixture
def held(registry, until):
    """Wait until so many threads or coroutines of a flow's run have stopped; return the run.

    Args of what it gives: ``but`` are the versions of earlier pauses.
    """

    def wait(times=1, *, name="runs", but=()):
        def holds():
            contexts = [watched.context for watched in [*stops._watched]]
            return [
                hold
                for context in contexts
                if context.flow_run.flow_name == name
                for hold in context.holds.copy()
                if hold.state_version not in but
            ]

        until(lambda: len(holds()) == times, f"{name} is held", told=registry.list_flow_runs)
        (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=[name]))
        return run

    return wait


@pytest.fixture
def resumes(meanwhile, paused):
    """From another thread, resume the run of a flow each time that it is paused, with each input."""

    def begin(*inputs, flow_name="runs"):
        def resume():
            seen = []
            for run_input in inputs or [None]:
                run = paused(flow_name, but=seen)
                seen.append(run.state_version)
                resume_flow_run(run.id, run_input)

        meanwhile(resume)

    return begin


@pytest.fixture
def start_program(start_script):
    """Start a program that begins with ``PRELUDE``, from a file."""

    def start(code, *arguments, **options):
        return start_script(PRELUDE + code, *arguments, **options)

    return start


@pytest.fixture
def begin(start_program, paused):
    """Start a program; return it and the run of its flow once that is Paused."""

    def start(code, name="called", **options):
        return start_program(code, **options), paused(name)

    return start
