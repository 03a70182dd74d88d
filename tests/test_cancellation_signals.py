"""A signal of a cancellation is for the flow, and for nothing that its process does afterwards."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from prefectlite import cancellation, liveness
from prefectlite.cancellation import enforce_cancellation, request_cancellation
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Cancelled, Running


@pytest.mark.parametrize("grace_seconds", [60, 0], ids=["told", "killed"])
def test_a_process_whose_flow_has_just_ended_goes_on(
    registry, start_python, monkeypatch, grace_seconds
):
    program = start_python("print('ready', flush=True); input()")
    assert program.line() == "ready"
    identity = replace(
        liveness.own_identity(),
        token="t",
        pid=program.pid,
        start_ticks=liveness.start_ticks(program.pid),
        lock_path=None,
    )
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running(), process=identity)
    registry.create_flow_run(run)
    asked = request_cancellation(registry, run, grace_seconds=grace_seconds)

    def ends(registry, flow_run):
        registry.change_state(flow_run, Cancelled())
        return False

    monkeypatch.setattr(cancellation, "_HEED_SECONDS", 0.0)
    monkeypatch.setattr(cancellation, "_has_others", ends)  # asked for right before it is signalled
    assert enforce_cancellation(registry, asked).state.name == "Cancelled"
    program.tell()
    program.end()


#: Is cancelled, and told so, when its flow has come to its end and is about to say so on record.
TOO_LATE = """
import os, signal
from prefectlite import flow, lifecycle
from prefectlite.cancellation import request_cancellation

def told_before(context, state):
    lifecycle.take = take
    request_cancellation(context.registry, context.flow_run)
    os.kill(os.getpid(), signal.SIGTERM)
    take(context, state)

@flow
def runs():
    return 1

take, lifecycle.take = lifecycle.take, told_before
print(runs(return_state=True).message)
"""


def test_sigterm_that_comes_in_the_last_step_of_a_cancelled_flow_ends_nothing_after_it(
    start_python,
):
    program = start_python(TOO_LATE)
    assert "before its cancellation reached it" in program.line()
    program.end()


def is_stopped(program):
    """Whether a process was stopped by a signal, and not yet reaped."""
    try:
        return Path(f"/proc/{program.pid}/stat").read_text().rpartition(") ")[2][0] == "T"
    except OSError:
        return False


#: Sees itself to the end of the run that its own process has, and which does not end.
ITSELF = """
import signal
from prefectlite.cancellation import enforce_cancellation, request_cancellation
from prefectlite.errors import ConflictError
from prefectlite.liveness import own_identity
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Running

signal.alarm(50)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
registry = open_registry(PREFECTLITE_REGISTRY.value())
run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running(), process=own_identity())
registry.create_flow_run(run)
try:
    enforce_cancellation(registry, request_cancellation(registry, run, grace_seconds=0))
except ConflictError as error:
    print(error)
"""


def test_a_process_that_cancels_its_own_run_does_not_stop_itself(registry, start_python, until):
    program = start_python(ITSELF)
    until(lambda: program.process.poll() is not None or is_stopped(program), "its end, or a stop")
    assert not is_stopped(program)
    told = "flow run 'n' does not end, and it is this process that would be killed\n"
    assert program.end() == told
    (run,) = registry.list_flow_runs()
    assert run.state.name == "Cancelling"


#: Heeds no cancellation, and is stopped as who has the write gate.
IN_THE_GATE = """
import fcntl, os, signal, sys, threading
from prefectlite import flow

signal.alarm(50)

@flow
def stubborn():
    print("in", flush=True)
    is_told = False
    while not is_told:
        try:
            while not is_told:
                is_told = bool(sys.stdin.readline())
        except BaseException:
            continue
    gate = os.open(sys.argv[1], os.O_RDWR)
    fcntl.flock(gate, fcntl.LOCK_EX)
    while True:
        try:
            os.kill(os.getpid(), signal.SIGSTOP)
        except BaseException:
            continue

stubborn()
"""


def test_a_process_that_is_stopped_in_the_write_gate_is_killed(
    start_python, home, monkeypatch, until
):
    monkeypatch.setenv("PREFECTLITE_REGISTRY_LOCK_SECONDS", "0.3")
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    program = start_python(IN_THE_GATE, home / "registry.lock")
    assert program.line() == "in"
    (run,) = registry.list_flow_runs()
    asked = request_cancellation(registry, run, grace_seconds=0)
    program.tell()
    until(lambda: is_stopped(program), "a stopped process")
    assert enforce_cancellation(registry, asked).state.name == "Cancelled"
    assert program.process.wait(40) == -signal.SIGKILL
