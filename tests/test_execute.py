"""Runs that were put on record by one process and are begun by another."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import prefectlite
from prefectlite.errors import ConflictError
from prefectlite.execute import execute
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.run_filters import TaskRunFilter
from prefectlite.states import Cancelled, Cancelling, Completed, Pending, Scheduled

DEADLINE_SECONDS = 60
SOURCES = str(Path(prefectlite.__file__).parents[1])

FLOWS = """
import os, sys, threading
from prefectlite import flow, task, get_run_logger

@task
def double(number):
    return 2 * number

@flow
def adds(a: int, b: int = 0):
    get_run_logger().info("in %s", os.getcwd())
    double(a)
    return a + b

@flow
def fails():
    raise ValueError("mine")

@flow(timeout_seconds=0.1)
def slow():
    threading.Event().wait()

@flow
async def waits():
    return 1

@flow
def yields():
    yield 1
    yield 2

@flow
async def ayields():
    yield 1

@flow
def exits():
    sys.exit(0)

@flow
def hangs():
    print("ready", flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def scheduled(registry, tmp_path):
    """Put a run of a flow on record as Scheduled; the code is in ``flows.py``."""
    (tmp_path / "flows.py").write_text(FLOWS)

    def add(flow="adds", state=None, **fields):
        fields = {"parameters": {}, "entrypoint": f"flows.py:{flow}", **fields}
        run = FlowRun(
            id=new_id(), name="n", flow_name=flow, state=state or Scheduled("as asked"), **fields
        )
        registry.create_flow_run(run)
        return run

    return add


@pytest.fixture
def start(tmp_path):
    """Execute a run in a process of its own, in the folder of the code."""
    started = []

    def start(run, **options):
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "prefectlite.execute", run.id],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": SOURCES, **options.pop("env", {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process):
    """The exit code, and what was said."""
    _, error = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, error


def test_a_scheduled_run_is_begun_and_ends_with_its_own_record(
    registry, scheduled, start, tmp_path
):
    run = scheduled(parameters={"a": "3", "b": 4}, tags=("t",))
    process = start(run)
    assert ended(process)[0] == 0
    found = registry.find_flow_run(run.id)
    assert (found.state.name, found.run_count, found.tags) == ("Completed", 1, ("t",))
    assert found.process.pid == process.pid
    assert found.infrastructure_pid == f"{os.uname().nodename}:{process.pid}"
    names = [change.state.name for change in registry.state_history(found)]
    assert names == ["Scheduled", "Running", "Completed"]
    assert len(registry.list_flow_runs()) == 1
    assert [one.name for one in registry.list_task_runs(TaskRunFilter(flow_run_ids=[run.id]))] == [
        "double-0"
    ]
    assert f"in {tmp_path}" in [line.message for line in registry.read_logs(run.id)]


def test_a_run_that_an_agent_has_claimed_keeps_the_identifier_that_it_was_given(
    registry, scheduled, start
):
    run = scheduled(
        state=Pending(), parameters={"a": 1}, infrastructure_pid="host:7", scheduled_at=None
    )
    assert ended(start(run))[0] == 0
    assert registry.find_flow_run(run.id).infrastructure_pid == "host:7"


@pytest.mark.parametrize(
    ("flow", "code", "state"),
    [
        ("fails", 1, "Failed"),
        ("slow", 124, "TimedOut"),
        ("exits", 1, "Crashed"),
        ("waits", 0, "Completed"),
        ("yields", 0, "Completed"),
        ("ayields", 0, "Completed"),
    ],
)
def test_the_exit_code_says_how_it_ended(registry, scheduled, start, flow, code, state):
    run = scheduled(flow)
    assert ended(start(run))[0] == code
    assert registry.find_flow_run(run.id).state.name == state


def test_parameters_that_the_flow_refuses_are_a_failed_run_that_never_began(
    registry, scheduled, start
):
    run = scheduled(parameters={"a": "many"})
    code, error = ended(start(run))
    assert code == 1
    assert "flow run 'n' is Failed" in error
    found = registry.find_flow_run(run.id)
    assert (found.state.name, found.run_count) == ("Failed", 0)


@pytest.mark.parametrize(
    ("entrypoint", "told"),
    [
        ("flows.py:none", "there is no 'none'"),
        ("gone.py:f", "gone.py"),
        ("broken.py:f", "ZeroDivisionError"),
    ],
)
def test_a_flow_that_cannot_be_loaded_is_a_failed_run_and_its_log_says_why(
    registry, scheduled, start, tmp_path, entrypoint, told
):
    (tmp_path / "broken.py").write_text("1 / 0")
    run = scheduled(entrypoint=entrypoint)
    assert ended(start(run))[0] == 1
    found = registry.find_flow_run(run.id)
    assert found.state.name == "Failed"
    assert found.state.message.startswith("Its flow could not be loaded: ")
    assert told in registry.read_logs(run.id)[0].message


@pytest.mark.parametrize("state", [Cancelled(), Cancelling(), Completed()], ids=lambda s: s.name)
def test_a_run_that_is_not_waiting_to_begin_is_left_alone(registry, scheduled, start, state):
    run = scheduled(state=Pending())
    changed = registry.change_state(run, state)
    code, error = ended(start(changed))
    assert code == 4
    assert "cannot be begun" in error
    assert registry.find_flow_run(run.id).state == changed.state


def test_a_run_is_begun_once_by_however_many(registry, scheduled, start):
    run = scheduled(parameters={"a": 1})
    processes = [start(run) for _ in range(4)]
    codes = sorted(ended(process)[0] for process in processes)
    assert codes[0] == 0
    assert {*codes[1:]} == {4}
    assert registry.find_flow_run(run.id).run_count == 1


def test_a_run_that_is_cancelled_while_it_is_loaded_does_not_begin(
    registry, scheduled, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = scheduled(parameters={"a": 1})
    begin = type(registry).begin_flow_run

    def cancelled_first(self, flow_run, state, process):
        registry.change_state(flow_run, Cancelled("first"))
        return begin(self, flow_run, state, process)

    monkeypatch.setattr(type(registry), "begin_flow_run", cancelled_first)
    with pytest.raises(ConflictError):
        execute(registry, run.id)
    assert registry.find_flow_run(run.id).state.message == "first"


def test_sigterm_ends_it_with_143(registry, scheduled, start):
    run = scheduled("hangs")
    process = start(run)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143
    assert registry.find_flow_run(run.id).state.name == "Crashed"


def test_a_supervisor_can_have_its_stacks(scheduled, start, tmp_path):
    process = start(scheduled("hangs"), env={"_PREFECTLITE_RUN_FOLDER": str(tmp_path)})
    assert process.stdout.readline() == "ready\n"
    assert (tmp_path / "stack_ready").exists()
    process.send_signal(signal.SIGRTMIN + 5)
    lines = iter(process.stderr.readline, "")
    assert any("in hangs" in line for line in lines)
    assert process.poll() is None


def test_without_an_id_or_with_a_wrong_one_it_says_so(start, registry):
    command = [sys.executable, "-m", "prefectlite.execute"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    done = subprocess.run([*command, "nobody"], capture_output=True, check=False)
    assert (done.returncode, b"nobody" in done.stderr) == (3, True)
