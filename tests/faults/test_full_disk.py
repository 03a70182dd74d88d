"""A disk that becomes full: what is said, what is kept, and that all goes on when there is room.

The sweep over each write of each command is ``python -m tests.faults``, of which ``test_sweeps.py``
makes some rounds.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import prefectlite
from prefectlite.errors import RegistryFullError
from prefectlite.registry import open_registry, sqlite
from prefectlite.settings import PREFECTLITE_REGISTRY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: needs tmpfs")
SUPERVISOR = Path(prefectlite.__file__).with_name("supervisor.py")


def _registry():
    return open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)


def _states():
    return {run.name: run.state.name for run in _registry().list_flow_runs()}


def test_on_a_full_disk_each_command_says_so_and_what_was_on_record_is_intact(
    small_disk, command, flow_file, record_run, monkeypatch
):
    record_run("before")
    monkeypatch.setenv("A_SECRET", "sesame")
    backup = small_disk.folder / "registry.backup"
    small_disk.fill()
    ended = command("run", flow_file, "--name", "during")
    assert ended.code == 5
    assert "cannot grow: the disk is full" in ended.told[0]
    assert ended.told[1:] == [
        "hint: free some space and run it again; what was on record is intact"
    ]
    secret = ("block", "create", "secret", "new", "--from-env", "value=A_SECRET")
    for words in (secret, ("registry", "backup", backup)):
        refused = command(*words)
        assert (refused.code, len(refused.told)) == (5, 2), refused.error
    assert not backup.exists()
    small_disk.make_room()
    assert _registry().blocks.list_blocks() == []
    assert _states() == {"before": "Completed"}
    assert command("run", flow_file, "--name", "after").code == 0
    assert _states() == {"before": "Completed", "after": "Completed"}
    assert _registry().upkeep.faults(is_quick=False) == []


CATCHES = """
import os, sys
from prefectlite import flow, task, get_run_logger
from prefectlite.errors import RegistryFullError

@task
def double(number):
    get_run_logger().info(f"{number} {'x' * 3000}")
    return 2 * number

@flow(flow_run_name="steady")
def steady():
    done, failures = [], 0
    for number in range(60):
        try:
            done.append(double(number))
        except RegistryFullError:
            failures += 1
            get_run_logger().info(f"no room for {number}")
            os.path.exists(sys.argv[1]) and failures > 2 and os.unlink(sys.argv[1])
    return done, failures

done, failures = steady()
print(len(done), failures)
"""


def test_a_flow_goes_on_as_soon_as_there_is_room_and_each_line_and_outcome_is_on_record(
    small_disk, start_python
):
    open_registry(PREFECTLITE_REGISTRY.value()).close()
    small_disk.fill(but_pages=30)
    out = start_python(CATCHES, small_disk.ballast, stderr=subprocess.DEVNULL).end()
    done, failures = map(int, out.split())
    assert failures > 2
    assert done >= 60 - failures - 1
    registry = _registry()
    run = registry.find_flow_run("steady")
    counts = registry.count_task_runs(run.id)
    assert counts["Completed"] == done
    messages = [line.message for line in registry.read_logs(run.id)]
    assert len([text for text in messages if text.startswith("no room")]) == failures
    numbers = [int(text.split()[0]) for text in messages if text.endswith("xxx")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= done
    assert run.state.is_completed()


@pytest.mark.long
def test_an_agent_says_that_the_disk_is_full_and_goes_on_when_there_is_room(
    small_disk, command, flow_file, start_python, stop_process, until
):
    agent = start_python(
        "import sys; from prefectlite.cli import main; sys.exit(main(['agent', 'start']))",
        env={"PYTHONUNBUFFERED": "1"},
        stderr=subprocess.STDOUT,
    )
    assert "takes runs from" in agent.line()
    stop_process(agent.process.pid)
    command("deployment", "build", flow_file, "-n", "due", "-o", "due.toml", cwd=flow_file.parent)
    command("deployment", "apply", flow_file.with_name("due.toml"))
    assert command("deployment", "run", "total/due", "--name", "due").code == 0
    small_disk.fill()
    agent.process.send_signal(signal.SIGCONT)
    while "trying again in" not in (said := agent.line()):
        assert "Launched" not in said
    small_disk.make_room()
    until(lambda: _states() == {"due": "Completed"}, told=_states)
    agent.process.terminate()
    agent.end()


def test_a_supervisor_that_cannot_even_say_who_it_is_gives_up_at_once(small_disk):
    folder = small_disk.folder / "run"
    folder.mkdir()
    spec = {"command": ["true"], "environment": {}, "token": "t", "grace_seconds": 1}
    (folder / "spec.json").write_text(json.dumps(spec))
    small_disk.fill()
    ended = subprocess.run(
        [sys.executable, "-I", "-S", str(SUPERVISOR), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,  # who launches it waits for longer
    )
    assert ended.returncode == 127
    assert ended.stderr.startswith("cannot write ")
    assert "No space left on device" in ended.stderr


def test_a_write_that_stops_short_is_an_error_and_what_comes_after_it_is_whole(
    command, flow_file, home, record_run
):
    record_run("before")
    # The log cannot hold what a run writes: its last page is cut in the middle.
    ended = command("run", flow_file, "--name", "during", prefix=["prlimit", "--fsize=51250"])
    assert (ended.code, len(ended.told)) == (5, 2), ended.error
    assert "Flow run 'during' - Finished" not in ended.error
    assert command("run", flow_file, "--name", "after").code == 0
    states = _states()
    assert states["before"] == states["after"] == "Completed"
    assert states.get("during") != "Completed"
    assert _registry().upkeep.faults(is_quick=False) == []


def test_that_the_last_log_lines_are_lost_is_told_once(registry, monkeypatch, capsys):
    def close(_):
        raise RegistryFullError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(type(registry), "close", close)
        sqlite._close_all()
    assert capsys.readouterr().err == (
        "prefectlite: the last log lines are not on record: the disk is full\n"
    )
