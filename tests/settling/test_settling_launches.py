"""What becomes of runs whose launcher died, before it had started them or had said so."""

import os
import signal
import sys
from pathlib import Path

import pytest

from prefectlite.run_folders import run_folders
from prefectlite.states import Cancelling

LAUNCHER = """
import sys, time
from dataclasses import replace
from prefectlite.infrastructure import load_infrastructure, process
from prefectlite.liveness import own_identity
from prefectlite.names import new_id
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Pending

registry = open_registry(PREFECTLITE_REGISTRY.value())
made, queue, until = registry.find_flow_run(sys.argv[1]), sys.argv[2] or None, sys.argv[3]
run = replace(made, id=new_id(), launcher=own_identity(), work_queue=queue, state_version=1)
registry.create_flow_run(run)

def stop(*_):
    print(run.id, flush=True)
    sys.stdin.readline()

if until == "its folder":
    process.Process._spawn = stop
if until == "its supervisor":
    process._SUPERVISOR = sys.argv[4]
    process._when_begun = stop
if until != "nothing":
    load_infrastructure(run.infrastructure).run(run)
stop()
"""
# A supervisor that is slow to begin.
SLOW = "import os, signal, sys; signal.alarm(50); open('{}', 'w').close(); signal.pause()"


@pytest.fixture
def killed_launcher(runs, start_python, tmp_path):
    """Launch a run in another process, which is killed when it has come so far; return the run."""

    def come(until_, *, queue="", **infrastructure):
        made = runs.add(infrastructure=infrastructure, launcher=None)
        slow = tmp_path / "slow.py"
        slow.write_text(SLOW.format(tmp_path / "slow began"))
        launcher = start_python(LAUNCHER, made.id, queue, until_, slow)
        run = runs.registry.find_flow_run(launcher.line())
        if until_ == "its supervisor":
            runs.until((tmp_path / "slow began").exists, "the slow supervisor's beginning")
        runs.settle()
        assert runs.find(run) == run  # as long as its launcher lives, it is left to that
        runs.tokens |= {folder.token() for folder in run_folders(run.id)}
        launcher.kill()
        return run

    return come


@pytest.mark.parametrize("until_", ["nothing", "its folder", "its supervisor"])
@pytest.mark.parametrize(
    ("queue", "is_cancelling", "state"),
    [
        ("q", False, "Scheduled('The agent that had taken it did not get it started.')"),
        ("", False, "Crashed('What was to start it died before it did.')"),
        ("q", True, "Cancelled('It had not been started.')"),
    ],
    ids=["of a queue", "detached", "being cancelled"],
)
def test_a_run_whose_launcher_died_before_it_was_started_is_others_or_over(
    runs, killed_launcher, until_, queue, is_cancelling, state
):
    run = killed_launcher(until_, queue=queue)
    if is_cancelling:
        runs.registry.change_state(run, Cancelling())
    runs.settle()
    found = runs.find(run)
    assert str(found.state) == state
    assert found.launcher is None or found.state.is_final()
    assert [*run_folders(run.id)] == []
    assert [pid for token in runs.tokens for pid in runs.with_token(token)] == []


def test_a_run_whose_launcher_died_before_it_said_so_is_adopted(runs, killed_launcher):
    wait = "while [ ! -e go ]; do sleep 0.01; done"
    command = ["sh", "-c", f"{wait}; exec {sys.executable} -m prefectlite.execute"]
    run = killed_launcher("it runs", command=command)
    runs.settle()
    adopted = runs.find(run)
    (folder,) = run_folders(run.id)
    assert adopted.supervisor == folder.supervisor()
    assert adopted.infrastructure_pid == f"{os.uname().nodename}:{adopted.supervisor.pid}"
    assert adopted.state == run.state
    runs.settle()
    assert runs.find(run) == adopted
    runs.go_on()
    runs.await_removal()
    assert runs.state_name(run) == "Completed"


def test_a_run_whose_launcher_and_supervisor_died_leaves_nothing_and_is_others(
    runs, killed_launcher
):
    run = killed_launcher("it runs", queue="q", command=["sleep", "50"])
    (folder,) = run_folders(run.id)
    cgroup = folder.cgroup()
    os.kill(folder.supervisor().pid, signal.SIGKILL)
    runs.await_end(folder.supervisor().pid)
    runs.settle()
    assert runs.state_name(run) == "Scheduled"
    assert [*run_folders(run.id)] == []
    assert cgroup is None or not Path(cgroup).exists()
