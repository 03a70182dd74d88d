"""Cancel runs that were launched: whatever state they, and those who look after them, are in."""

import os
import signal
import sys
from contextlib import suppress

import pytest

from prefectlite.cancellation import (
    Enforcement,
    enforce_cancellation,
    request_cancellation,
    wake,
)
from prefectlite.clock import monotonic, now
from prefectlite.errors import RunFinalError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

HEEDS = """
@flow
def runs():
    try:
        stay()
    finally:
        tell("cleaned up")
"""

#: Swallows whatever is raised in it, and says so.
STUBBORN = """
def endure():  # also what comes while another is handled, or between two turns of the loop
    try:
        while True:
            try:
                time.sleep(60)
            except BaseException:
                tell("told")
    except BaseException:
        endure()

@flow
def runs():
    tell("ready")
    endure()
"""

BY_ITSELF = "It ended by itself, as it was asked to."


# What ends a run, and what is said of it.


def test_a_flow_that_heeds_ends_by_itself(launched, command):
    run = launched(HEEDS).has()
    _, error = command("flow-run", "cancel", run.id, "--wait").end()
    assert BY_ITSELF in error
    assert (run.folder / "cleaned up").exists()
    assert run.gone().state.message == BY_ITSELF


def test_an_async_flow_that_heeds_ends_by_itself(launched, command):
    run = launched(
        """
import asyncio

@flow
async def runs():
    try:
        tell("ready")
        await asyncio.sleep(60)
    finally:
        tell("cleaned up")
"""
    ).has()
    command("flow-run", "cancel", run.id, "--wait").end()
    assert (run.folder / "cleaned up").exists()
    assert run.gone().state.message == BY_ITSELF


def test_a_command_that_ends_at_sigterm_was_terminated(launched, command):
    run = launched("", command=["sleep", "60"])
    command("flow-run", "cancel", run.id, "--wait").end()
    state = run.gone().state
    assert (state.name, state.message) == (
        "Cancelled",
        "Terminated: it ended when it was told to.",
    )


def test_a_flow_that_heeds_nothing_is_killed_after_its_grace(launched, command):
    run = launched(STUBBORN).has()
    command("flow-run", "cancel", run.id, "--wait", "--grace", "1.2").end()
    assert (run.folder / "told").exists()
    state = run.gone().state
    assert (state.name, state.message) == ("Cancelled", "Killed: it did not end within 1.2s.")


def test_a_long_call_of_c_code_is_killed_after_its_grace(launched, command):
    code = """
@flow
def runs():
    tell("ready")
    sum(range(2_000_000_000))  # no signal handler runs before it ends, nor another thread
"""
    run = launched(code).has()
    command("flow-run", "cancel", run.id, "--wait", "--grace", "0.5").end()
    state = run.gone().state
    assert (state.name, state.message) == ("Cancelled", "Killed: it did not end within 0.5s.")


def test_on_cancellation_hooks_run(launched, command):
    code = """
def hook(flow, flow_run, state):
    tell(f"hook {state.name}")

@flow(on_cancellation=[hook])
def runs():
    stay()
"""
    run = launched(code).has()
    command("flow-run", "cancel", run.id, "--wait").end()
    assert (run.folder / "hook Cancelled").exists()


@pytest.mark.parametrize("code", [HEEDS, STUBBORN], ids=["heeds", "stubborn"])
@pytest.mark.parametrize("who", [["process"], ["supervisor"], ["supervisor", "process"]])
def test_what_is_stopped_is_ended(launched, command, code, who):
    run = launched(code).has()
    for name in who:
        run.stop(getattr(run.run, name))
    grace = "30" if code is HEEDS else "1.1"
    command("flow-run", "cancel", run.id, "--wait", "--grace", grace).end()
    state = run.gone().state
    assert state.name == "Cancelled"
    assert state.message.startswith("Killed") == (code is STUBBORN)


# Runs that have not begun.

LAUNCHER = """
import sys
from prefectlite.entrypoints import load_flow
from prefectlite.launching import launch, new_detached_run
from prefectlite.registry import open_registry

registry = open_registry(sys.argv[1])
run = new_detached_run(load_flow("flows.py:runs"), "flows.py:runs", {})
registry.create_flow_run(run)
print(run.id, flush=True)
input()
print(launch(registry, run).state.name, flush=True)
"""
BEGINS = """
from prefectlite import flow

@flow
def runs():
    open("begun", "w").close()
"""


@pytest.fixture
def launcher(registry, start_python, tmp_path, stop_process):
    """A process that has put a run on record, is stopped, and is about to launch it; and the run."""
    (tmp_path / "flows.py").write_text(BEGINS, encoding="utf-8")
    program = start_python(LAUNCHER, registry.url, cwd=tmp_path)
    run = registry.find_flow_run(program.line())
    stop_process(program.pid)
    return program, run


def test_a_run_whose_launcher_is_stopped_waits_for_it_and_never_begins(
    launcher, registry, command, tmp_path
):
    program, run = launcher
    request_cancellation(registry, run, grace_seconds=3600)
    cancel = command("flow-run", "cancel", run.id, "--wait", "--grace", "0")
    command.until(lambda: registry.find_flow_run(run.id).kill_at <= now(), "the command's request")
    assert Enforcement(registry, run.id).advance() is not None
    assert registry.find_flow_run(run.id).state.name == "Cancelling"
    program.tell()
    os.kill(program.pid, signal.SIGCONT)
    cancel.end()
    assert program.line() in {"Cancelling", "Cancelled"}
    program.end()
    assert registry.find_flow_run(run.id).state.name == "Cancelled"
    assert not (tmp_path / "begun").exists()


def test_a_run_whose_launcher_dies_is_cancelled(launcher, registry, command):
    program, run = launcher
    cancel = command("flow-run", "cancel", run.id, "--wait")
    command.until(lambda: registry.find_flow_run(run.id).kill_at, "Cancelling")
    program.kill()
    cancel.end()
    state = registry.find_flow_run(run.id).state
    assert (state.name, state.message) == ("Cancelled", "It had not been started.")


def test_a_run_whose_launcher_is_dead_has_crashed_and_cannot_be_cancelled(
    launcher, registry, command
):
    program, run = launcher
    program.kill()
    _, error = command("flow-run", "cancel", run.id, "--wait").end(4)
    assert "is Crashed already" in error
    state = registry.find_flow_run(run.id).state
    assert state.message == "What was to start it died before it did."


@pytest.mark.parametrize("is_deaf", [False, True], ids=["heeds", "deaf"])
def test_a_flow_file_that_blocks_when_it_is_imported_is_ended(launched, command, is_deaf):
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if is_deaf else ""
    run = launched(f"{deaf}stay()").has()
    assert run.run.process is None
    command("flow-run", "cancel", run.id, "--wait", "--grace", "0.5" if is_deaf else "30").end()
    state = run.gone().state
    told = "Killed: it did not end within 0.5s." if is_deaf else "Terminated: it ended when it was"
    assert state.name == "Cancelled"
    assert state.message.startswith(told)


# Runs that end just now, or whose end is asked for twice.

RACES = """
@flow
def runs(number: int):
    tell(f"ready {number}")
    hear(f"end {number}")
"""


#: In what order a run is asked to end, is woken for that, and is told to end by itself.
ORDERS = [("ask", "wake"), ("ask", "wake", "end"), ("ask", "end", "wake"), ("end", "ask", "wake")]
#: Between two of these; a flow that is told looks every 5 ms.
PAUSES = [0.0, 0.002, 0.005]


def race(registry, run, number):
    """Have a run end and be cancelled at nearly the same time."""
    asked = None
    for step in ORDERS[number % 4]:
        if step == "end":
            run.tell(f"end {number}")
        elif step == "ask":
            with suppress(RunFinalError):
                asked = request_cancellation(registry, run.run)
        elif asked is not None:
            wake(asked)
        at = monotonic() + PAUSES[number // 4 % 3]
        while monotonic() < at:
            pass
    if asked is not None:
        enforce_cancellation(registry, asked)


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.long)])
def test_a_run_that_ends_as_it_is_cancelled_is_completed_or_cancelled(
    registry, launched, command, rounds
):
    for first in range(0, rounds * 12, 12):
        numbers = range(first, first + 12)
        runs = {number: launched(RACES, parameters={"number": number}) for number in numbers}
        for number, run in runs.items():
            race(registry, run.has(f"ready {number}"), number)
        told = set()
        for run in runs.values():
            history = registry.state_history(run.gone())
            ended = [change.state.name for change in history if change.state.is_final()]
            assert ended in (["Completed"], ["Cancelled"])
            if ended[0] not in told:  # once for each end
                command("flow-run", "wait", run.id).end(0 if ended == ["Completed"] else 143)
            told.update(ended)


def test_a_stopped_supervisor_is_ended_by_an_agent_too(registry, launched):
    run = launched(STUBBORN).has()
    run.stop(run.run.supervisor)
    asked = request_cancellation(registry, run.run, grace_seconds=1.1)
    enforce_cancellation(registry, asked)
    assert run.gone().state.message == "Killed: it did not end within 1.1s."
