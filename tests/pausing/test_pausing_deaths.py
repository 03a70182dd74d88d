"""Paused flows whose process is stopped, killed, forked or launched elsewhere, and who is first."""

import json
import os
import signal
from dataclasses import replace

import pytest

from prefectlite import flow, liveness, pause_flow_run, resume_flow_run
from prefectlite.clock import now
from prefectlite.errors import (
    FlowPauseTimeout,
    NotPausedError,
    RegistryReadOnlyError,
    RegistryUnavailableError,
)
from prefectlite.names import new_id
from prefectlite.records import FlowRun, Pause
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settling import settle, unrecorded_text
from prefectlite.states import Paused, Running
from prefectlite.upkeep_records import Deleted

#: Much longer than any test may take: nothing here waits for the end of it.
LONG_SECONDS = 50
UNRESUMED = "The flow was paused and never resumed."


def listed(run_command, run):
    """The state of a run, as a command in another process shows it."""
    (found,) = [
        one for one in json.loads(run_command("flow-run", "ls", "--json")) if one["id"] == run.id
    ]
    return found["state"]


# Processes that cannot


def test_a_stopped_process_has_failed_at_the_deadline_for_a_reader(
    registry, begin, run_command, stop_process, until
):
    program, run = begin("run('called', {'timeout': 1})")
    stop_process(program.pid)
    deadline = registry.pauses.find_pause(run.id).resume_by
    until(lambda: now() > deadline)
    assert registry.find_flow_run(run.id).state.is_paused()
    seen = listed(run_command, run)
    assert (seen["name"], seen["message"]) == ("Failed", UNRESUMED)
    assert seen["timestamp"] == deadline.isoformat(timespec="microseconds")
    os.kill(program.pid, signal.SIGCONT)
    assert program.end() == "finally\n"
    assert registry.find_flow_run(run.id).state.timestamp == deadline


def test_who_may_not_write_is_told_that_a_pause_is_over(registry, begin, stop_process, until):
    program, run = begin("run('called', {'timeout': 1})")
    stop_process(program.pid)
    deadline = registry.pauses.find_pause(run.id).resume_by
    until(lambda: now() > deadline)

    def refuse():
        raise RegistryReadOnlyError("read-only")

    (unrecorded,) = settle(registry, refuse)
    assert unrecorded.id == run.id
    assert "is Paused on record, but it was not resumed in time" in unrecorded_text(unrecorded)
    program.kill()
    (unrecorded,) = settle(registry, refuse)
    assert "is Paused on record, but its process is dead" in unrecorded_text(unrecorded)
    assert settle(registry, lambda: registry) == []
    assert registry.find_flow_run(run.id).state.message == UNRESUMED


def test_a_stopped_process_that_was_resumed_goes_on_after_its_deadline(
    registry, begin, stop_process, until
):
    program, run = begin("run('called', {'timeout': 1})")
    stop_process(program.pid)
    resume_flow_run(run.id)
    deadline = registry.pauses.find_pause(run.id).resume_by
    until(lambda: now() > deadline)
    settle(registry, lambda: registry)
    os.kill(program.pid, signal.SIGCONT)
    assert program.end() == "went on\nfinally\n"
    assert registry.find_flow_run(run.id).state.name == "Completed"


@pytest.mark.parametrize("name", ["called", "awaited", "submitted"])
def test_a_paused_process_that_was_killed_is_crashed_for_the_next_reader(begin, run_command, name):
    program, run = begin(f"run({name!r}, UNTOLD)", name)
    program.kill()
    assert listed(run_command, run)["name"] == "Crashed"
    assert "is Crashed, not Paused" in resumed_in_vain(run)


def resumed_in_vain(run):
    with pytest.raises(NotPausedError) as caught:
        resume_flow_run(run.id)
    return str(caught.value)


def test_who_resumes_a_run_whose_process_was_killed_learns_that_it_has_crashed(begin):
    program, run = begin("run('called', UNTOLD)")
    program.kill()
    assert "is Crashed, not Paused" in resumed_in_vain(run)


def test_a_paused_run_of_a_machine_that_was_restarted_is_crashed(registry, monkeypatch):
    monkeypatch.setattr(liveness, "machine_id", lambda: "this")
    process = replace(liveness.own_identity(), machine_id="this", boot_id="an earlier one")
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running(), process=process)
    registry.create_flow_run(run)
    pause_flow_run(run.id, timeout=None)
    settle(registry, lambda: registry)
    state = registry.find_flow_run(run.id).state
    assert state.name == "Crashed"
    assert "was restarted" in state.message
    assert "is Crashed, not Paused" in resumed_in_vain(run)


def test_the_child_that_a_flow_forks_may_pause_it_and_goes_on_with_it(registry, begin):
    program, run = begin(
        """
@flow
def forks():
    pid = os.fork()
    if not pid:
        signal.alarm(50)
        pause_flow_run(**UNTOLD)
        say("the child went on")
        os._exit(7)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

say(forks(return_state=True).name)
""",
        "forks",
    )
    resume_flow_run(run.id)
    assert program.end() == "the child went on\n7\nCompleted\n"


def test_a_child_that_is_forked_while_its_flow_is_paused_ends_by_itself(registry, begin):
    program, run = begin(
        """
@task
def forks():
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    (run,) = registry.list_flow_runs()
    # Not while the other thread writes that line: the lock of its stream would stay held.
    while not any("Paused." in line.message for line in registry.read_logs(run.id)):
        pass
    pid = os.fork()
    if not pid:
        signal.alarm(50)
    else:
        say("the child exits with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

@flow
def waits():
    forks.submit()
    pause_flow_run(**UNTOLD)
    say("went on")

waits()
""",
        "waits",
    )
    assert program.line() == "the child exits with 0"
    resume_flow_run(run.id)
    assert program.end() == "went on\n"


@pytest.mark.parametrize("name", ["called", "awaited", "submitted", "held"])
def test_a_flow_whose_registry_is_deleted_while_it_is_paused_ends(registry, home, begin, name):
    code = f"""
from prefectlite import holds
holds.hold.__kwdefaults__["look_seconds"] = 0.05  # as often, where it is paused from outside
try:
    run({name!r}, {{"timeout": None, "poll_interval": 0.05}})
except Exception as error:
    say(type(error).__name__)
os._exit(0)
"""
    program, _ = begin(code, name)
    registry.close()
    for path in home.glob("registry.*"):
        path.unlink()
    said = program.end()
    assert "went on" not in said
    assert said.endswith(f"{RegistryUnavailableError.__name__}\n")


@pytest.mark.parametrize("name", ["called", "awaited"])
def test_a_flow_whose_run_is_deleted_while_it_is_paused_ends(begin, registry, name):
    code = f"""
try:
    run({name!r}, {{"timeout": None, "poll_interval": 0.05}})
except Exception as error:
    say(type(error).__name__)
"""
    program, run = begin(code, name)
    registry.upkeep.delete_flow_runs([run.id], Deleted())  # not by the command, which ends it first
    assert program.end() == "finally\nNotFoundError\n"


# Commands


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """A file with a flow that pauses, to be run by a command."""
    path = tmp_path / "asks.py"
    path.write_text(
        "import signal\n"
        "from prefectlite import flow, pause_flow_run\n"
        "signal.alarm(50)\n"
        "@flow(log_prints=True)\n"
        "def runs(timeout: float | None = None):\n"
        "    try:\n"
        "        pause_flow_run(timeout=timeout, poll_interval=3600)\n"
        "        print('went on')\n"
        "    finally:\n"
        "        print('finally')\n"
    )
    monkeypatch.chdir(tmp_path)
    return str(path)


def test_a_command_that_runs_a_flow_which_is_not_resumed_exits_with_1(run_command, launched):
    shown = run_command("run", launched, "-p", "timeout=0.1", "--json", exit_code=1)
    assert json.loads(shown)["state"]["message"] == UNRESUMED


def test_a_launched_run_is_paused_and_resumed(registry, run_command, launched, paused):
    run_command("run", launched, "--detach")
    run = paused("runs")
    run_command("flow-run", "resume", run.id[:8])
    run_command("flow-run", "wait", run.id)
    logged = [line.message for line in registry.read_logs(run.id)]
    assert logged.index("Resumed") < logged.index("went on") < logged.index("finally")


def test_a_launched_run_is_cancelled_while_it_is_paused(registry, run_command, launched, paused):
    run_command("run", launched, "--detach")
    run = paused("runs")
    run_command("flow-run", "cancel", run.id, "--wait")
    assert registry.find_flow_run(run.id).state.name == "Cancelled"
    logged = [line.message for line in registry.read_logs(run.id)]
    assert "finally" in logged
    assert "went on" not in logged


def test_a_launched_run_that_is_not_resumed_fails(registry, run_command, launched, paused):
    run_command("run", launched, "--detach", "-p", "timeout=1")
    run = paused("runs")
    run_command("flow-run", "wait", run.id, exit_code=1)
    assert registry.find_flow_run(run.id).state.message == UNRESUMED


def test_a_launched_run_that_is_paused_by_a_command_stops_at_its_next_task(
    registry, run_command, tmp_path, until
):
    (tmp_path / "steps.py").write_text(
        "import pathlib, signal, time\n"
        "from prefectlite import flow, task\n"
        "signal.alarm(50)\n"
        "@task\n"
        "def step(): ...\n"
        "@flow\n"
        "def runs():\n"
        f"    while not pathlib.Path({str(tmp_path / 'go')!r}).exists():\n"
        "        time.sleep(0.005)\n"
        "    step()\n"
    )
    run_command("run", str(tmp_path / "steps.py"), "--detach")
    run = until(
        lambda: next(iter(registry.list_flow_runs(FlowRunFilter(states=["running"]))), None)
    )
    run_command("flow-run", "pause", run.id)
    (tmp_path / "go").touch()
    until(lambda: "To resume: prefectlite" in run_command("flow-run", "logs", run.id))
    assert registry.list_task_runs() == []
    run_command("flow-run", "resume", run.id)
    run_command("flow-run", "wait", run.id)
    assert [task_run.state.name for task_run in registry.list_task_runs()] == ["Completed"]


# Who is first

ROUNDS = 60
RESUMER = """
import sys
from prefectlite import resume_flow_run
from prefectlite.errors import FlowPauseTimeout, NotPausedError

print("ready", flush=True)
for line in sys.stdin:
    run_id, number = line.split()
    try:
        resume_flow_run(run_id, {"number": int(number)})
    except NotPausedError:
        print("lost", flush=True)
    else:
        print("won", flush=True)
"""


def test_of_two_who_resume_at_once_exactly_one_wins(registry, start_python):
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running())
    registry.create_flow_run(run)
    resumers = [start_python(RESUMER), start_python(RESUMER)]
    assert [resumer.line() for resumer in resumers] == ["ready", "ready"]
    for number in range(ROUNDS):
        schema = {"type": "object", "properties": {"number": {"type": "integer"}}}
        run = registry.find_flow_run(run.id)
        run = registry.pauses.pause_flow_run(run, Paused(), Pause(input_schema=schema))
        for which, resumer in enumerate(resumers):
            resumer.tell(f"{run.id} {2 * number + which}")
        outcomes = [resumer.line() for resumer in resumers]
        assert sorted(outcomes) == ["lost", "won"]
        given = registry.pauses.find_pause(run.id).run_input
        assert given == {"number": 2 * number + outcomes.index("won")}
        assert registry.find_flow_run(run.id).state_version == run.state_version + 1


READER = """
import sys
from prefectlite.registry import open_registry
from prefectlite.settling import settle
from prefectlite.settings import PREFECTLITE_REGISTRY

registry = open_registry(PREFECTLITE_REGISTRY.value())
print("ready", flush=True)
while True:
    settle(registry, lambda: registry)
"""
LATE_RESUMER = """
import sys
from datetime import timedelta
from prefectlite import resume_flow_run
from prefectlite.clock import now
from prefectlite.errors import FlowPauseTimeout
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

registry, seen = open_registry(PREFECTLITE_REGISTRY.value()), set()
print("ready", flush=True)
for line in sys.stdin:
    early = timedelta(microseconds=int(line))
    pause = None
    while pause is None:  # it may be over before it is seen
        for run in registry.list_flow_runs(limit=1):
            pause = registry.pauses.find_pause(run.id) if run.id not in seen else None
    seen.add(run.id)
    at = pause.resume_by - early
    while now() < at:
        pass
    try:
        resume_flow_run(run.id)
    except FlowPauseTimeout:
        print("late", flush=True)
    else:
        print("resumed", flush=True)
"""


def test_at_the_deadline_who_resumes_the_engine_and_a_reader_agree(registry, start_python):
    resumer, reader = start_python(LATE_RESUMER), start_python(READER)
    assert [resumer.line(), reader.line()] == ["ready", "ready"]

    @flow
    def runs():
        pause_flow_run(timeout=0.03)
        return "resumed"

    for number in range(ROUNDS):
        resumer.tell(str(number % 20 * 50))
        try:
            found = runs()
        except FlowPauseTimeout:
            found = "late"
        assert resumer.line() == found
        (run,) = registry.list_flow_runs(limit=1)
        names = [change.state.name for change in registry.state_history(run)]
        went_on = ["Running", "Completed"] if found == "resumed" else ["Failed"]
        assert names == ["Running", "Paused", *went_on]
        if found == "late":
            assert run.state.timestamp == registry.pauses.find_pause(run.id).resume_by
