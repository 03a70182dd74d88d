"""Runs in other processes that are asked to end, and made to."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import prefectlite
from prefectlite import cancellation, liveness
from prefectlite.cancellation import (
    enforce_cancellation,
    mark_cancelled,
    request_cancellation,
    wake,
)
from prefectlite.errors import ConflictError, InfrastructureNotAvailable, RunFinalError
from prefectlite.names import new_id
from prefectlite.process_trees import end_children, end_tree, send
from prefectlite.records import FlowRun
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import Completed, Running, Scheduled

DEADLINE_SECONDS = 60
SOURCES = str(Path(prefectlite.__file__).parents[1])

#: Heeds the request, and takes its time for it.
HEEDS = """
import sys, threading
from prefectlite import flow

@flow
def runs():
    try:
        print("ready", flush=True)
        threading.Event().wait()
    finally:
        {ending}
        print("cleaned up", flush=True)

print(runs(return_state=True).name)
"""

#: Swallows whatever is raised in it, also between two turns of a loop, and starts what its test names.
STUBBORN = """
import os, signal, subprocess, sys, time
from prefectlite import flow

def endure(word=None):
    try:
        if word:
            print(word, flush=True)
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
    except BaseException:
        endure()

@flow
def runs():
    {begin}
    endure("ready")

runs()
"""

_SLEEP = f"{sys.executable!r}, '-c', 'import time; time.sleep(600)'"
#: What a run can leave behind; each lives on when its parent is killed.
TREES = {
    "nothing": "pass",
    "child": f"subprocess.Popen([{_SLEEP}])",
    "own session": f"subprocess.Popen([{_SLEEP}], start_new_session=True)",
    "daemon": "subprocess.run(['sh', '-c', 'setsid sleep 600 >&- 2>&- <&- & exit'])",
    "ignores SIGTERM": "subprocess.Popen(['sh', '-c', 'trap : TERM; while :; do sleep 600; done'])",
    "grandchildren": "subprocess.Popen(['sh', '-c', 'sleep 600 & sh -c \"sleep 600; :\"; :'])",
}


@pytest.fixture
def begun(registry, start_python):
    """Start a program with a flow, and return it with the flow run once that is ready."""

    def begin(code, **options):
        program = start_python(code, **options)
        assert program.line() == "ready"
        (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=["runs"]))
        return program, run

    return begin


def marked(token):
    """The processes that carry a run's token and live."""
    found = []
    for process in psutil.process_iter():
        try:
            if token in process.environ().get("PREFECTLITE_RUN_TOKEN", "") and (
                process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def cancel(registry, run, grace_seconds=DEADLINE_SECONDS):
    asked = request_cancellation(registry, run, grace_seconds=grace_seconds)
    wake(asked)
    return enforce_cancellation(registry, asked)


def test_a_run_that_heeds_the_request_ends_by_itself(registry, begun):
    program, run = begun(HEEDS.format(ending="pass"))
    ended = cancel(registry, run)
    assert (ended.state.name, ended.state.message) == (
        "Cancelled",
        "It ended by itself, as it was asked to.",
    )
    assert program.end() == "cleaned up\nCancelled\n"


def test_sigterm_does_not_interrupt_a_finally_that_is_under_way(registry, begun, monkeypatch):
    monkeypatch.setattr(cancellation, "_HEED_SECONDS", 0.0)
    program, run = begun(HEEDS.format(ending="print('ending', flush=True); sys.stdin.readline()"))
    wake(request_cancellation(registry, run))
    assert program.line() == "ending"
    for _ in range(3):
        os.kill(program.pid, signal.SIGTERM)
    program.tell()
    assert program.end() == "cleaned up\nCancelled\n"
    assert registry.find_flow_run(run.id).state.name == "Cancelled"


def test_a_run_that_gets_sigterm_first_is_cancelled_and_interrupted_once(registry, begun):
    program, run = begun(HEEDS.format(ending="print('ending', flush=True); sys.stdin.readline()"))
    os.kill(program.pid, signal.SIGTERM)
    assert program.line() == "ending"
    wake(request_cancellation(registry, registry.find_flow_run(run.id)))
    program.tell()
    assert program.end(143).startswith("cleaned up\n")
    assert registry.find_flow_run(run.id).state.name == "Cancelled"


@pytest.mark.parametrize("begin", TREES.values(), ids=TREES)
def test_what_does_not_end_in_time_is_killed_with_all_that_it_started(
    registry, begun, until, begin
):
    program, run = begun(STUBBORN.format(begin=begin))
    token = run.process.token
    # Of a process that is just executing a program, the environment cannot be read.
    until(lambda: bool(marked(token)) == (begin != "pass"), "what it has started")
    ended = cancel(registry, run, grace_seconds=0.3)
    assert ended.state.name == "Cancelled"
    assert "it did not end within 0.3s" in ended.state.message
    assert marked(token) == []
    assert program.process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    assert not Path(run.process.lock_path).exists()


def test_a_stopped_run_is_ended(registry, begun, stop_process):
    program, run = begun(STUBBORN.format(begin="pass"))
    stop_process(program.pid)
    assert cancel(registry, run, grace_seconds=0.3).state.name == "Cancelled"
    assert program.process.wait(DEADLINE_SECONDS) == -signal.SIGKILL


def test_it_is_not_cancelled_on_record_before_everything_is_gone(registry, begun, monkeypatch):
    _, run = begun(STUBBORN.format(begin=TREES["own session"]))
    states = []

    def ends_and_looks(identity):
        states.append(registry.find_flow_run(run.id).state.name)
        swept = end_tree(identity)
        states.append((registry.find_flow_run(run.id).state.name, marked(run.process.token)))
        return swept

    monkeypatch.setattr(cancellation, "end_tree", ends_and_looks)
    cancel(registry, run, grace_seconds=0)
    assert states == ["Cancelling", ("Cancelling", [])]


def test_a_run_that_ended_meanwhile_keeps_its_state(registry, begun):
    program, run = begun(HEEDS.format(ending="pass"))
    registry.change_state(run, Completed("first"))
    with pytest.raises(RunFinalError, match="is Completed already"):
        request_cancellation(registry, run)
    program.kill()


def test_who_saw_a_run_before_it_ended_changes_nothing_of_its_record(registry):
    running = FlowRun(id=new_id(), name="n", flow_name="f", state=Running())
    registry.create_flow_run(running)
    ended = registry.change_state(running, Completed())
    with pytest.raises(RunFinalError, match="is Completed already"):
        request_cancellation(registry, running)
    assert registry.find_flow_run(running.id) == ended


def test_a_run_that_was_never_started_is_cancelled_at_once(registry):
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Scheduled())
    registry.create_flow_run(run)
    asked = request_cancellation(registry, run)
    assert (asked.state.name, asked.state.message) == ("Cancelled", "It had not been started.")


def test_a_run_whose_process_was_never_recorded_is_cancelled_and_says_so(registry):
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running())
    registry.create_flow_run(run)
    ended = cancel(registry, run)
    assert ended.state.name == "Cancelled"
    assert "its process was never recorded" in ended.state.message


@pytest.mark.parametrize("other", [{"boot_id": "o", "hostname": "o"}, {"pid_namespace": "o"}])
def test_the_run_of_another_host_or_container_is_left_to_it(registry, other, begun):
    program, run = begun(HEEDS.format(ending="pass"))
    away = replace(run, id=new_id(), process=replace(run.process, token="away", **other))
    registry.create_flow_run(away)
    asked = request_cancellation(registry, away, grace_seconds=0)
    with pytest.raises(InfrastructureNotAvailable, match="cannot be reached from here"):
        enforce_cancellation(registry, asked)
    assert registry.find_flow_run(away.id).state.name == "Cancelling"
    assert "not known" in mark_cancelled(registry, asked).state.message
    assert program.process.poll() is None
    program.kill()


def test_a_stranger_with_the_same_pid_is_not_signalled(registry, start_python):
    stranger = start_python("print('ready', flush=True); input()")
    assert stranger.line() == "ready"
    ticks = liveness.start_ticks(stranger.pid)
    identity = replace(
        liveness.own_identity(), token="t", pid=stranger.pid, start_ticks=ticks - 1, lock_path=None
    )
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running(), process=identity)
    registry.create_flow_run(run)
    assert send(identity, signal.SIGKILL) is False
    assert cancel(registry, run, grace_seconds=0).state.name == "Cancelled"
    stranger.tell()
    stranger.end()


def test_a_stranger_that_came_while_the_process_was_opened_is_not_signalled(
    start_python, monkeypatch
):
    stranger = start_python("print('ready', flush=True); input()")
    assert stranger.line() == "ready"
    ticks = liveness.start_ticks(stranger.pid)
    identity = replace(
        liveness.own_identity(), token="t", pid=stranger.pid, start_ticks=ticks - 1, lock_path=None
    )
    monkeypatch.setattr("prefectlite.process_trees.is_alive", lambda _: True)
    assert send(identity, signal.SIGKILL) is False
    stranger.tell()
    stranger.end()


SUBFLOW = (
    STUBBORN.replace("runs()\n", "").replace("def runs", "def inner")
    + """
@flow
def runs():
    inner()

runs()
"""
)


def test_a_subflow_that_does_not_heed_is_not_killed_with_its_parent(registry, start_python):
    program = start_python(SUBFLOW.format(begin="pass"))
    assert program.line() == "ready"
    inner, outer = registry.list_flow_runs()
    asked = request_cancellation(registry, inner, grace_seconds=0)
    with pytest.raises(ConflictError, match="shares its process with others"):
        enforce_cancellation(registry, asked)
    assert program.process.poll() is None
    ended = cancel(registry, outer, grace_seconds=0)
    assert ended.state.name == "Cancelled"
    assert registry.find_flow_run(inner.id).state.name == "Cancelled"
    assert program.process.wait(DEADLINE_SECONDS) == -signal.SIGKILL


NESTED = (
    SUBFLOW.replace("def runs", "def middle").replace("\nruns()\n", "")
    + """
@flow
def runs():
    middle()

runs()
"""
)


def test_a_flow_with_subflows_of_subflows_is_killed_with_all_of_them(registry, start_python):
    program = start_python(NESTED.format(begin="pass"))
    assert program.line() == "ready"
    (outer,) = registry.list_flow_runs(FlowRunFilter(flow_names=["runs"]))
    assert cancel(registry, outer, grace_seconds=0).state.name == "Cancelled"
    assert {run.state.name for run in registry.list_flow_runs()} == {"Cancelled"}
    assert program.process.wait(DEADLINE_SECONDS) == -signal.SIGKILL


def test_where_start_times_are_not_known_nothing_is_signalled(start_python, monkeypatch):
    stranger = start_python("print('ready', flush=True); input()")
    assert stranger.line() == "ready"
    identity = replace(
        liveness.own_identity(), token="t", pid=stranger.pid, start_ticks=None, lock_path=None
    )
    monkeypatch.setattr("prefectlite.process_trees.start_ticks", lambda _: None)
    assert send(identity, signal.SIGKILL) is False
    assert end_tree(identity).killed == 0
    stranger.tell()
    stranger.end()


def test_several_who_cancel_at_once_agree(registry, begun):
    _, run = begun(STUBBORN.format(begin=TREES["child"]))
    command = [sys.executable, "-m", "prefectlite", "flow-run", "cancel", run.id]
    several = [
        subprocess.Popen([*command, "--wait", "--grace", "0.2"], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for one in several:
        _, error = one.communicate(timeout=DEADLINE_SECONDS)
        # Who comes when it is over is told so.
        assert one.returncode in (0, 4), error
    assert registry.find_flow_run(run.id).state.name == "Cancelled"
    assert marked(run.process.token) == []


def test_a_cancellation_that_is_not_waited_for_goes_on_in_the_background(registry, begun):
    program, run = begun(STUBBORN.format(begin=TREES["own session"]))
    command = [sys.executable, "-m", "prefectlite", "flow-run", "cancel", run.id, "--grace", "0.5"]
    # The one in the background does not look for the package in the current folder.
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, env=environment
    )
    assert done.stderr.startswith("Cancelling flow run")
    assert program.process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not registry.find_flow_run(run.id).state.is_final() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert registry.find_flow_run(run.id).state.name == "Cancelled"
    assert marked(run.process.token) == []


OWN_CHILDREN = """
import subprocess, sys, time
from prefectlite import flow

def sleeper(**options):
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **options)

before = sleeper()

@flow
def runs():
    sleeper()
    sleeper(start_new_session=True)
    subprocess.run(["sh", "-c", "setsid sleep 600 >&- 2>&- <&- &"])
    print("ready", flush=True)
    time.sleep(600)

print(runs(return_state=True).name, before.poll(), flush=True)
sys.stdin.readline()
before.kill()
before.wait()
"""


def test_what_a_cancelled_flow_has_started_ends_before_it_and_what_was_there_before_does_not(
    registry, begun
):
    program, run = begun(OWN_CHILDREN)
    assert (
        len(marked(run.process.token)) == 3
    )  # those of the flow; the token is newer than the rest
    cancel(registry, run)
    assert marked(run.process.token) == []
    assert program.line() == "Cancelled None"
    program.tell()
    program.end()


@pytest.fixture
def sleeper():
    """Start a process that sleeps; what still does at the end of the test is killed."""
    started = []

    def start():
        started.append(subprocess.Popen(["sleep", "60"]))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait(DEADLINE_SECONDS)


def test_what_was_started_just_before_a_flow_is_told_from_what_was_just_after(sleeper):
    own_identity = liveness.own_identity()
    for _ in range(100):
        before, since, after = sleeper(), liveness.present_moment(), sleeper()
        ticks = {since[0], *(liveness.start_ticks(one.pid) for one in (before, after))}
        end_children(own_identity, since)
        assert after.wait(DEADLINE_SECONDS) == -signal.SIGTERM
        assert before.poll() is None
        if len(ticks) == 1:
            return
        before.kill()
    pytest.fail("NOT TESTED: no two processes were started in the same tick of the system's clock")


#: Without it, what hears SIGTERM and stays would take two seconds.
HURRIED = "from prefectlite import process_trees\nprocess_trees._TOLD_SECONDS = 0.3\n@flow"


def test_a_child_that_does_not_heed_a_cancelled_flow_is_killed(registry, begun):
    program, run = begun(
        OWN_CHILDREN.replace(
            "sleeper(start_new_session=True)",
            "subprocess.Popen(['sh', '-c', 'trap : TERM; while :; do sleep 1; done'])",
        ).replace("@flow", HURRIED)
    )
    cancel(registry, run)
    assert marked(run.process.token) == []
    program.tell()
    program.end()


def test_a_command_that_is_killed_while_it_waits_is_outlived_by_the_cancellation(registry, begun):
    program, run = begun(STUBBORN.format(begin="pass"))
    command = [sys.executable, "-m", "prefectlite", "flow-run", "cancel", run.id]
    asked = subprocess.Popen(
        [*command, "--wait", "--grace", "1.5"],
        env={**os.environ, "PYTHONPATH": SOURCES},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not psutil.Process(asked.pid).children() and time.monotonic() < deadline:
        time.sleep(0.01)
    asked.kill()
    asked.wait()
    assert program.process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    while not registry.find_flow_run(run.id).state.is_final() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert registry.find_flow_run(run.id).state.name == "Cancelled"
