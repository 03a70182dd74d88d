"""What is left of a process that nobody supervised: what its cancelled run had started, and its lock."""

import os
import signal
from pathlib import Path

import pytest

from prefectlite.agent import living_agents
from prefectlite.cancellation import request_cancellation
from prefectlite.process_trees import Swept
from prefectlite.settling import settle

#: A program that calls two flows, one with a child in a session of its own.
PROGRAM = """
import signal, subprocess, sys, threading, time
from prefectlite import flow

signal.alarm(50)

def starts():
    command = [sys.executable, "-c", "import signal; signal.alarm(50); signal.pause()"]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    print(subprocess.Popen(command, start_new_session=True, **quiet).pid, flush=True)

@flow
def leaves():
    starts()
    time.sleep(50)

@flow
def first(): ...

def early():
    first()  # from here on what it starts has the mark of its process
    starts()
    time.sleep(0.1)  # some ticks of the clock by which processes are told apart
    leaves()

@flow
def other():
    leaves_too = threading.Thread(target=leaves)
    leaves_too.start()
    time.sleep(50)

{call}()
"""
AGENT = """
import time
from prefectlite.agent import new_agent
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

agent = new_agent("one", ["default"], None)
open_registry(PREFECTLITE_REGISTRY.value()).deployments.save_agent(agent)
print(agent.process.lock_path, flush=True)
time.sleep(50)
"""


@pytest.fixture
def cancelling(registry, start_python):
    """Have the run of ``leaves`` Cancelling and its process killed; return it and its child's PID."""

    def begin(call):
        program = start_python(PROGRAM.format(call=call))
        child = int(program.line())
        if call == "early":
            program.line()
        (run,) = [one for one in registry.list_flow_runs() if one.flow_name == "leaves"]
        os.kill(program.pid, signal.SIGSTOP)  # or it would end itself
        request_cancellation(registry, run)
        program.kill()
        return run, child

    return begin


def state_after_settling(registry, run):
    assert settle(registry, lambda: registry) == []
    return registry.find_flow_run(run.id).state.name


def test_a_cancelled_run_whose_process_is_killed_leaves_nothing_that_it_had_started(
    registry, cancelling, runs
):
    run, child = cancelling("leaves")
    assert state_after_settling(registry, run) == "Cancelled"
    assert runs.are_gone(child)


def test_it_is_cancelling_as_long_as_some_of_that_does_not_die(registry, cancelling, monkeypatch):
    run, child = cancelling("leaves")
    with monkeypatch.context() as patch:
        patch.setattr(
            "prefectlite.settling.end_marked", lambda token, since_tick: Swept(0, (child,))
        )
        assert state_after_settling(registry, run) == "Cancelling"
    assert state_after_settling(registry, run) == "Cancelled"


def test_what_another_flow_of_the_process_may_have_started_is_left(registry, cancelling, runs):
    run, child = cancelling("other")
    assert state_after_settling(registry, run) == "Cancelled"
    assert not runs.are_gone(child)
    os.kill(child, signal.SIGKILL)


def test_what_its_program_had_started_before_the_run_began_is_left(registry, cancelling, runs):
    run, child = cancelling("early")
    assert state_after_settling(registry, run) == "Cancelled"
    assert not runs.are_gone(child)
    os.kill(child, signal.SIGKILL)


def test_a_run_whose_processes_cannot_be_seen_from_here_stays_cancelling(
    registry, cancelling, runs, monkeypatch
):
    run, child = cancelling("leaves")
    with monkeypatch.context() as patch:
        patch.setattr("prefectlite.settling.is_reachable", lambda identity: False)
        assert state_after_settling(registry, run) == "Cancelling"
        assert not runs.are_gone(child)
    assert state_after_settling(registry, run) == "Cancelled"


def test_of_a_killed_process_no_lock_is_left_when_its_run_is_settled(runs):
    run = runs.launch("leaves()")
    runs.told()
    os.kill(run.process.pid, signal.SIGKILL)
    runs.await_removal()
    runs.until(lambda: not Path(run.process.lock_path).exists(), "the removal of its lock")


def test_of_a_killed_agent_no_lock_is_left_when_agents_are_listed(registry, start_python):
    program = start_python(AGENT)
    lock = Path(program.line())
    assert [agent.name for agent in living_agents(registry, lambda: registry)] == ["one"]
    assert lock.exists()
    program.kill()
    assert living_agents(registry, lambda: registry) == []
    assert not lock.exists()
