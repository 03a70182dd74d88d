"""What is left of a process that nobody supervised: what its cancelled run had started, and its lock."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from prefectlite import process_trees
from prefectlite.agent import living_agents
from prefectlite.cancellation import Enforcement, request_cancellation
from prefectlite.clock import monotonic
from prefectlite.errors import InfrastructureError
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


#: Holds a process that is killed back from its end, as a disk that does not answer does (ptrace(2)).
HOLDER = """
import ctypes, sys
ptrace, seize, trace_exit = ctypes.CDLL(None, use_errno=True).ptrace, 0x4206, 0x40
refused = ptrace(seize, int(sys.argv[1]), None, ctypes.c_void_p(trace_exit))
print(ctypes.get_errno() if refused else "held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def hold(start_python):
    """Have a process outlive its SIGKILL until who holds it is told."""

    def hold(pid):
        holder = start_python(HOLDER, pid)
        if (answer := holder.line()) != "held":
            pytest.skip(f"NOT TESTED: processes may not be traced here: {os.strerror(int(answer))}")
        return holder

    return hold


@pytest.fixture
def waits(monkeypatch):
    """Whether time was given to each process whose end was looked at; to none more than a moment."""
    has_ended, found = process_trees._has_ended, []

    def noted(process, deadline):
        found.append(deadline > monotonic())
        return has_ended(process, deadline)

    monkeypatch.setattr(process_trees, "_DEATH_SECONDS", 0.3)
    monkeypatch.setattr(process_trees, "_undying", set())
    monkeypatch.setattr(process_trees, "_has_ended", noted)
    return found


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
        patch.setattr("prefectlite.settling.end_marked", lambda *_, **__: Swept(0, (child,)))
        assert state_after_settling(registry, run) == "Cancelling"
    assert state_after_settling(registry, run) == "Cancelled"


def test_what_does_not_die_is_waited_for_by_who_kills_it_and_by_nobody_after_that(
    registry, cancelling, hold, waits, runs
):
    run, child = cancelling("leaves")
    holder = hold(child)
    assert state_after_settling(registry, run) == "Cancelling"
    assert any(waits)
    waits.clear()
    process_trees._undying.clear()  # as in another process
    settle(registry, lambda: registry)
    assert not any(waits)
    holder.tell()
    runs.await_end(child)
    assert state_after_settling(registry, run) == "Cancelled"


def test_who_sees_to_the_end_of_a_run_waits_for_what_does_not_die_only_once(
    registry, cancelling, hold, waits
):
    run, child = cancelling("leaves")
    request_cancellation(registry, run, grace_seconds=0)
    hold(child)
    with pytest.raises(InfrastructureError, match=f"were killed and do not end: {child}"):
        Enforcement(registry, run.id).advance()
    assert any(waits)
    waits.clear()
    with suppress(InfrastructureError):  # up to Linux 6.1 it dies of being killed once more
        Enforcement(registry, run.id).advance()
    assert not any(waits)


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
