"""What becomes of runs whose processes are gone, whichever of them died and whenever."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefectlite import liveness, settling
from prefectlite.errors import RegistryReadOnlyError
from prefectlite.liveness import is_alive, own_identity
from prefectlite.names import new_id
from prefectlite.process_trees import Swept
from prefectlite.run_folders import RunFolder, run_folders
from prefectlite.settling import record_exit, settle
from prefectlite.states import Cancelling, Completed, Running
from prefectlite.upkeep_records import Deleted

DEADLINE_SECONDS = 20


def start_ls():
    """Have another process list the runs."""
    command = [sys.executable, "-m", "prefectlite", "flow-run", "ls", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def listed(reader):
    """Return the state of the only run that was listed."""
    out, _ = reader.communicate(timeout=DEADLINE_SECONDS)
    assert reader.returncode == 0
    (run,) = json.loads(out)
    return run["state"]["name"], run["state"]["message"]


# Which process dies


def test_a_run_whose_process_is_killed_is_crashed_for_whoever_looks_at_once(runs):
    run = runs.launch("leaves()")
    pids = runs.told()
    os.kill(run.process.pid, signal.SIGKILL)
    readers = [start_ls() for _ in range(3)]
    told = "Its process ended by SIGKILL (for want of memory, perhaps, or by someone's kill -9)."
    assert [listed(reader) for reader in readers] == [("Crashed", told)] * 3
    assert runs.are_gone(*pids)
    assert {one.state.name for one in runs.registry.list_task_runs()} == {"Crashed"}
    runs.await_removal()
    left = "What it had left running was ended: 2 processes."
    assert runs.messages(run).count(left) == 1


def test_who_looks_waits_for_a_supervisor_that_is_about_to_say_how_its_run_ended(runs, monkeypatch):
    run = runs.launch("time.sleep(50)")
    os.kill(run.supervisor.pid, signal.SIGSTOP)
    os.kill(run.process.pid, signal.SIGKILL)
    runs.until(lambda: is_alive(run.process) is False, "the engine's end")
    # An agent comes again, and does not wait.
    assert settle(runs.registry, lambda: runs.registry, ending_seconds=0.0) == []
    assert runs.find(run) == run

    def goes_on(seconds):
        os.kill(run.supervisor.pid, signal.SIGCONT)
        time.sleep(seconds)

    monkeypatch.setattr(settling, "time", SimpleNamespace(sleep=goes_on))
    runs.settle()
    assert runs.state_name(run) == "Crashed"


@pytest.mark.parametrize("is_engine_first", [False, True])
def test_what_a_run_leaves_whose_supervisor_is_killed_is_ended_by_the_next_command(
    runs, is_engine_first
):
    run = runs.launch("leaves()")
    pids = runs.told()
    os.kill(run.supervisor.pid, signal.SIGSTOP)
    if is_engine_first:
        os.kill(run.process.pid, signal.SIGKILL)
    os.kill(run.supervisor.pid, signal.SIGKILL)
    runs.await_end(run.process.pid)
    assert not runs.are_gone(pids[0])
    assert not runs.are_gone(pids[1])
    told = "Its supervisor was killed, and its process with it."
    assert listed(start_ls()) == ("Crashed", told)
    assert runs.are_gone(*pids)
    assert {one.state.name for one in runs.registry.list_task_runs()} == {"Crashed"}
    assert [*run_folders()] == []


def test_what_a_run_that_has_ended_leaves_is_ended_though_its_supervisor_is_dead(runs):
    run = runs.launch("tell(subprocess.Popen(IGNORES, start_new_session=True).pid)")
    pids = runs.told()
    runs.until(lambda: runs.state_name(run) == "Completed", "its end")
    os.kill(run.supervisor.pid, signal.SIGKILL)  # before it has swept: that takes two seconds
    runs.await_end(run.supervisor.pid)
    assert not runs.are_gone(*pids)
    before = runs.find(run)
    runs.settle()
    assert runs.are_gone(*pids)
    assert runs.find(run) == before
    assert [*run_folders()] == []


@pytest.mark.parametrize("is_supervised", [True, False])
def test_of_a_run_that_was_deleted_meanwhile_nothing_is_left(runs, is_supervised):
    run = runs.launch("leaves()")
    pids, cgroup = runs.told(), RunFolder.of(run.supervisor).cgroup()
    runs.registry.upkeep.delete_flow_runs([run.id], Deleted())
    os.kill(run.process.pid if is_supervised else run.supervisor.pid, signal.SIGKILL)
    runs.await_end(run.supervisor.pid)
    runs.settle()
    assert runs.are_gone(*pids)
    assert [*run_folders()] == []
    assert cgroup is None or not Path(cgroup).exists()
    assert runs.registry.list_flow_runs() == []


def test_what_a_supervisor_could_not_have_recorded_the_next_reader_records(runs, home):
    run = runs.launch(
        "os.write(1, b'its last words\\n'); tell(); time.sleep(60)",
        environment={"PREFECTLITE_REGISTRY_LOCK_SECONDS": "0.1"},
    )
    runs.told()
    folder = RunFolder.of(run.supervisor)
    runs.until(lambda: "its last words" in runs.messages(run), "its output")
    with (home / "registry.lock").open() as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        os.kill(run.process.pid, signal.SIGKILL)
        runs.await_end(run.supervisor.pid)
        assert folder.exit().signal == signal.SIGKILL
        assert "was held for 0.1 seconds" in (folder.path / "settle.log").read_text()
        assert runs.find(run) == run
        reader = start_ls()  # it waits for the gate
    assert listed(reader)[0] == "Crashed"
    assert not folder.path.exists()
    assert runs.messages(run).count("its last words") == 1


def test_where_nothing_can_be_recorded_it_is_said_which_runs_are_dead(runs):
    folder, run = runs.folder_of(runs.add(), {})

    def refuse():
        raise RegistryReadOnlyError("no")

    assert settle(runs.registry, refuse) == [run]
    assert runs.find(run) == run
    assert folder.path.exists()
    runs.settle()
    assert runs.find(run).state.is_crashed()


# What it wrote

WRITES = """
import ctypes
sys.stdout.write("by Python, without an end ")
print("and its end")
os.write(1, "by os.write: \\u2603\\n".encode())
libc = ctypes.CDLL(None)
libc.puts(b"by C")
libc.fflush(None)
subprocess.run(["sh", "-c", "echo by a child; echo its error >&2"])
tell()
wait()
os.write(2, b"the rest\\n")
os.write(1, b"without an end")
"""


def test_what_the_engine_cannot_see_is_in_the_log_while_the_run_goes_on_and_once(runs):
    run = runs.launch(WRITES)
    runs.told()
    first = ["by Python, without an end and its end", "by os.write: ☃", "by C", "by a child"]
    runs.until(
        lambda: {*first, "its error"} <= {*runs.messages(run)}, f"lines {runs.messages(run)}"
    )
    assert runs.find(run).state.is_running()
    runs.go_on()
    runs.await_removal()
    messages = runs.messages(run)
    for text in (*first, "its error", "the rest", "without an end"):
        assert messages.count(text) == 1
    assert [text for text in messages if text in first] == first
    loggers = {line.message: line.logger for line in runs.registry.read_logs(run.id)}
    assert (loggers["by C"], loggers["the rest"]) == ("stdout", "stderr")


def test_several_who_settle_at_once_give_each_line_once(runs):
    lines = 3_000
    folder, run = runs.folder_of(runs.add(), {"swept": 2, "lost_output_bytes": 7}, lines=lines)
    others = [
        subprocess.Popen([sys.executable, "-m", "prefectlite.settling", str(folder.path)])
        for _ in range(2)
    ]
    exit_ = folder.exit()
    with ThreadPoolExecutor(3) as pool:
        works = [pool.submit(record_exit, runs.registry, run, folder, exit_) for _ in range(3)]
        for work in works:
            work.result(DEADLINE_SECONDS)
    for other in others:
        other.wait(DEADLINE_SECONDS)
    assert runs.messages(run) == [
        *(f"line {number}" for number in range(lines)),
        "What it had left running was ended: 2 processes.",
        "7 bytes of its output are lost: the disk was full.",
    ]
    assert runs.find(run).state.is_crashed()
    assert not folder.path.exists()


# What does not die, and what is not its own


@pytest.mark.parametrize("is_cancelling", [True, False])
def test_as_long_as_some_of_its_processes_do_not_die_a_run_is_not_cancelled(
    runs, monkeypatch, is_cancelling
):
    survivors = [[98, 7], [99, 0]]
    folder, run = runs.folder_of(runs.add(), {"reason": "killed", "survivors": survivors}, lines=2)
    if is_cancelling:
        run = runs.registry.change_state(run, Cancelling())
    monkeypatch.setattr(settling, "end_marked", None)  # who has looked once need not kill again
    before, after = ("Cancelling", "Cancelled") if is_cancelling else ("Crashed", "Crashed")
    there = {98: 7, 99: 12}
    monkeypatch.setattr(settling, "start_ticks", there.get)
    for change in ({98: 7}, {98: 8}, {99: None}):
        assert folder.path.exists()
        runs.settle()
        assert runs.state_name(run) == before
        there.update(change)
    runs.settle()
    assert runs.state_name(run) == after
    assert not folder.path.exists()
    told = "These processes do not die: 98,99 (see: ps -o pid,stat,wchan -p 98,99)"
    assert runs.messages(run) == ["line 0", "line 1", told]


def test_what_a_lost_supervisor_has_left_and_does_not_die_is_looked_at_and_waited_for_once(
    runs, monkeypatch
):
    folder, run = runs.folder_of(runs.add())
    run = runs.registry.change_state(run, Cancelling())
    ends = [Swept(1, (99,))]
    monkeypatch.setattr(settling, "end_marked", lambda _: ends.pop())
    there = {99: 5}
    monkeypatch.setattr(settling, "start_ticks", there.get)
    for _ in range(3):
        runs.settle()
        assert runs.state_name(run) == "Cancelling"
    there.clear()
    runs.settle()
    assert runs.find(run).state.message == "Killed, as its supervisor was."
    assert not folder.path.exists()


def test_what_a_supervisor_of_another_pid_namespace_has_left_is_not_said_to_be_gone(
    runs, monkeypatch
):
    monkeypatch.setattr(settling, "is_reachable", lambda _: False)
    folder, cancelling = runs.folder_of(runs.add())
    runs.registry.change_state(cancelling, Cancelling())
    other, running = runs.folder_of(runs.add())
    runs.settle()
    assert runs.state_name(cancelling) == "Cancelling"
    assert "cannot be seen from here" in runs.find(running).state.message
    assert folder.path.exists()
    assert other.path.exists()


def test_what_was_launched_before_the_machine_was_restarted_has_ended_with_it(runs, monkeypatch):
    monkeypatch.setattr(liveness, "machine_id", lambda: "this")
    folder, cancelling = runs.folder_of(runs.add(), machine_id="this")
    runs.registry.change_state(cancelling, Cancelling())
    other, running = runs.folder_of(runs.add(), machine_id="this")
    survived = {"reason": "killed", "survivors": [[os.getpid(), 0]]}
    left, ended = runs.folder_of(runs.add(), survived, machine_id="this")
    runs.registry.change_state(ended, Cancelling())
    monkeypatch.setattr(liveness, "_boot_id", lambda: "a later one")
    runs.settle()
    told = f"The machine {os.uname().nodename} was restarted before it ended."
    assert (runs.state_name(cancelling), runs.find(cancelling).state.message) == ("Cancelled", told)
    assert (runs.state_name(running), runs.find(running).state.message) == ("Crashed", told)
    assert runs.find(ended).state.message == "Killed."
    assert not any(each.path.exists() for each in (folder, other, left))


def test_the_folder_of_a_run_that_is_in_another_registry_is_left_to_it(runs):
    folder, run = runs.folder_of(runs.add(), {})
    spec = json.loads((folder.path / "spec.json").read_text())
    folder.write("spec.json", {**spec, "registry": "sqlite:////elsewhere/registry.db"})
    runs.registry.upkeep.delete_flow_runs([run.id], Deleted())
    runs.settle()
    assert folder.path.exists()
    folder.write("spec.json", spec)
    runs.settle()
    assert not folder.path.exists()


def test_the_end_of_an_earlier_launch_is_not_that_of_a_run(runs):
    old, _ = runs.folder_of(earlier := runs.add(), {}, token="a" * 32)
    run = replace(earlier, id=new_id())
    runs.registry.create_flow_run(run)
    renamed = RunFolder(old.path.rename(old.path.with_name(f"{run.id}.aaaaaaaa")))
    living = replace(own_identity(), lock_path="/nowhere/supervisor.lock")
    begun = replace(run, supervisor=living, infrastructure_pid="h:1")
    begun = runs.registry.begin_flow_run(begun, Running(), own_identity())
    runs.settle()
    assert runs.find(begun) == begun
    assert not renamed.path.exists()


def test_what_a_supervisor_runs_settles_its_run_and_says_why_it_cannot(runs, capsys):
    folder, run = runs.folder_of(runs.add())
    assert settling.main([str(folder.path)]) == 1  # nobody knows yet how it ended
    assert runs.find(run) == run
    folder.write("exit.json", {**runs.nothing, "ended_at": 1})
    assert settling.main([str(folder.path)]) == 0
    assert runs.find(run).state.is_crashed()
    folder, run = runs.folder_of(runs.add(), {})
    runs.registry.upkeep.delete_flow_runs([run.id], Deleted())
    assert settling.main([str(folder.path)]) == 3
    assert "there is no flow run" in capsys.readouterr().err


def test_a_run_that_ended_by_itself_keeps_its_state(runs):
    folder, run = runs.folder_of(runs.add(), {}, lines=1)
    ended = runs.registry.change_state(run, Completed("mine"))
    runs.settle()
    assert runs.find(run) == ended
    assert runs.messages(run) == ["line 0"]
    assert not folder.path.exists()


def test_of_a_line_that_was_drawn_again_and_again_the_log_has_what_was_seen_last(runs):
    folder, run = runs.folder_of(runs.add(), {})
    bar = {"at": 1, "stream": "stderr", "text": "\r 10%\r 50%\r100% done\r"}
    (folder.path / "output.jsonl").write_text(json.dumps(bar) + "\n")
    runs.settle()
    assert runs.messages(run) == ["100% done"]
