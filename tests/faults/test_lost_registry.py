"""The registry's files are deleted, replaced, emptied or moved while they are in use.

Who has them open must not go on in what nobody else will ever read, nor harm what has their place.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from prefectlite import database, flow
from prefectlite.errors import RegistryLockTimeoutError, RegistryUnavailableError
from prefectlite.locks import gate_holder
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

DEADLINE_SECONDS = 60


def url():
    return PREFECTLITE_REGISTRY.value()


def make_registry():
    """Have a registry with one run, that nobody has open; return its file."""
    flow(name="first")(lambda: None)()
    open_registry(url()).close()
    return Path(url().removeprefix("sqlite:///"))


def names():
    with closing(open_registry(url(), read_only=True)) as registry:
        return sorted(run.flow_name for run in registry.list_flow_runs(limit=None))


def integrity(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


def empty(path):
    os.truncate(path, 0)


def replace(path):
    new = path.with_name("new")
    shutil.copy(path, new)
    new.rename(path)


def fill_with_garbage(path):
    path.unlink()
    path.write_bytes(os.urandom(100_000))


def delete_log(path):
    path.with_name(path.name + "-wal").unlink()


def delete_index(path):
    path.with_name(path.name + "-shm").unlink()


def move_home(path):
    path.parent.rename(path.parent.with_name("moved"))


LOSSES = {
    "deleted": Path.unlink,
    "emptied": empty,
    "replaced": replace,
    "replaced by garbage": fill_with_garbage,
    "-wal, was deleted": delete_log,
    "-shm, was deleted": delete_index,
    "deleted with its home": lambda path: shutil.rmtree(path.parent),
    "deleted by a move": move_home,
}
IDS = [loss.replace(",", "").replace(" ", "-") for loss in LOSSES]


def told_of(loss):
    return loss if loss.startswith("-") else loss.split()[0]


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_what_was_lost_is_not_written_to_as_if_it_were_there(loss):
    path = make_registry()
    registry = open_registry(url())
    (run,) = registry.list_flow_runs()
    LOSSES[loss](path)
    for _ in range(2):
        with pytest.raises(RegistryUnavailableError, match=told_of(loss)) as caught:
            registry.create_flow_run(run)
        assert caught.value.exit_code == 5
        assert caught.value.hint


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_who_only_looks_for_changes_learns_of_the_loss(loss):
    path = make_registry()
    registry = open_registry(url(), read_only=True)
    registry.change_mark()
    LOSSES[loss](path)
    for _ in range(2):
        with pytest.raises(RegistryUnavailableError, match=told_of(loss)):
            registry.change_mark()


def test_after_closing_the_registry_in_the_place_of_the_lost_one_is_opened():
    path = make_registry()
    registry = open_registry(url())
    replace(path)
    with pytest.raises(RegistryUnavailableError, match="replaced"):
        flow(name="second")(lambda: None)()
    registry.close()
    flow(name="third")(lambda: None)()
    assert names() == ["first", "third"]
    assert integrity(path) == [("ok",)]


# It has the registry open, has written to it, and ends when it is told to.
HOLDER = """
import os, sys
from prefectlite import flow
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
flow(name="holder")(lambda: None)()
open_registry(PREFECTLITE_REGISTRY.value()).flush_logs()  # or a thread would, at any time
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[1:] == ["kill"]:
    os._exit(0)
open_registry(PREFECTLITE_REGISTRY.value()).close()
"""


def both_logs(path):
    delete_log(path)
    delete_index(path)


@pytest.mark.parametrize("lose", [delete_index, both_logs, replace])
def test_who_lost_its_files_takes_nothing_of_others_with_it_when_it_ends(lose, start_python):
    path = make_registry()
    holder = start_python(HOLDER)
    holder.line()
    lose(path)
    flow(name="other")(lambda: None)()
    open_registry(url()).close()
    before = names()
    assert "other" in before
    holder.tell()
    holder.end()
    assert names() == before
    assert integrity(path) == [("ok",)]


def test_a_new_registry_takes_over_nothing_of_a_deleted_one_that_is_still_open(start_python):
    path = make_registry()
    holder = start_python(HOLDER, "kill")
    holder.line()
    index = path.with_name(path.name + "-shm").stat().st_ino
    path.unlink()
    flow(name="new")(lambda: None)()
    assert path.with_name(path.name + "-shm").stat().st_ino != index
    assert names() == ["new"]
    holder.tell()
    holder.end()
    assert names() == ["new"]
    assert integrity(path) == [("ok",)]


# It is in a write until it is told to go on, and then in another.
IN_THE_GATE = """
import sys
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
registry = open_registry(PREFECTLITE_REGISTRY.value())
def hold(_):
    print("in", flush=True)
    sys.stdin.readline()
for _ in range(2):
    registry._database.write(hold, durable=True)
"""


def test_where_the_gate_is_deleted_there_are_never_two_writers_and_one_gate_again_soon(
    start_python, monkeypatch
):
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 50)
    path = make_registry()
    holder = start_python(IN_THE_GATE)
    holder.line()
    gate = path.with_suffix(".lock")
    gate.unlink()
    with pytest.raises(RegistryLockTimeoutError):
        flow(name="second")(lambda: None)()
    assert gate_holder(gate, patience_seconds=0) is None
    holder.tell()
    holder.line()
    assert gate_holder(gate, patience_seconds=0) == holder.pid
    holder.tell()
    holder.end()
    flow(name="third")(lambda: None)()
    assert names() == ["first", "third"]


def test_a_home_that_is_a_dangling_link_is_made_where_it_points(tmp_path, home):
    home.symlink_to(tmp_path / "elsewhere" / "home")
    assert names() == []
    assert not (tmp_path / "elsewhere").exists()
    flow(name="first")(lambda: None)()
    assert (tmp_path / "elsewhere" / "home" / "registry.db").is_file()
    assert names() == ["first"]


# Commands, and runs in other processes


def ended(process):
    """Wait for the end of a process; return its exit code and what it said on stderr."""
    _, error = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, error


def has_open(process, path):
    try:
        opened = [each.readlink() for each in Path(f"/proc/{process.pid}/fd").iterdir()]
    except OSError:
        return False
    return Path(path) in opened


STEPS = """
import sys
from prefectlite import flow, task

@task
def step():
    print("in a task", flush=True)
    sys.stdin.readline()

@flow(name="steps", flow_run_name="victim")
def steps():
    while True:
        try:
            step()
        except Exception as error:
            print(type(error).__name__, flush=True)
            sys.stdin.readline()
            raise

steps()
"""
FOLLOWING = [("wait", "victim"), ("logs", "victim", "--follow"), ("watch", "victim")]


@pytest.mark.long
@pytest.mark.parametrize(
    "loss", ["deleted", "emptied", "replaced", pytest.param("-shm, was deleted", id="-shm")]
)
def test_a_run_and_all_who_follow_it_end_with_an_error(loss, start_python, start_command, until):
    path = make_registry()
    run = start_python(STEPS)
    run.line()
    following = [start_command("flow-run", *arguments) for arguments in FOLLOWING]
    for process in following:
        until(lambda process=process: has_open(process, f"{path}-shm"))
    LOSSES[loss](path)
    for process in following:
        code, error = ended(process)
        assert code == 5, error
        assert f"error: {'a part of ' if loss[0] == '-' else ''}the registry" in error
        # Of an empty file, who was just reading it says that it is damaged.
        assert told_of(loss) in error or (loss == "emptied" and "is damaged" in error)
        assert "Traceback" not in error
    run.tell()
    assert run.line() in ("RegistryReplacedError", "RegistryUnavailableError")
    run.tell()
    run.end(1)  # as a program that lets its error go


@pytest.mark.long
def test_who_waits_for_a_cancellation_ends_with_an_error(start_python, start_command, until, home):
    path = make_registry()
    run = start_python(
        """
        import signal, time
        from prefectlite import flow
        @flow(flow_run_name="victim")
        def stubborn():
            print("ready", flush=True)
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
        stubborn()
        """
    )
    run.line()
    cancelling = start_command("flow-run", "cancel", "victim", "--wait", "--grace", "600")
    until(
        lambda: any(
            run.state.is_cancelling()
            for run in open_registry(url(), read_only=True).list_flow_runs()
        )
    )
    open_registry(url(), read_only=True).close()
    move_home(path)
    code, error = ended(cancelling)
    assert code == 5, error
    assert "was deleted while it was in use" in error
    assert not home.exists()


@pytest.mark.long
def test_an_agent_waits_for_a_registry_that_is_put_back_and_ends_at_another_one(
    start_command, tmp_path
):
    path = make_registry()
    agent = start_command("agent", "start")
    assert "takes runs from" in agent.stderr.readline()
    path.rename(path.with_name("away"))
    while "was deleted" not in agent.stderr.readline():
        assert agent.poll() is None
    path.with_name("away").rename(path)
    (tmp_path / "flows.py").write_text("from prefectlite import flow\n@flow\ndef hello(): ...\n")
    built = start_command(
        *("deployment", "build", f"{tmp_path / 'flows.py'}:hello", "-n", "it"),
        *("-o", str(tmp_path / "it.toml"), "--apply"),
    )
    assert ended(built)[0] == 0
    assert ended(start_command("deployment", "run", "hello/it"))[0] == 0
    while "Launched" not in agent.stderr.readline():
        assert agent.poll() is None
    replace(path)
    code, error = ended(agent)
    assert code == 5
    assert "was replaced while it was in use" in error
    assert "Traceback" not in error


@pytest.mark.long
def test_a_detached_run_whose_home_is_removed_ends_with_its_supervisor_and_makes_no_new_one(
    tmp_path, start_command, until, home, with_token, monkeypatch
):
    monkeypatch.setenv("MARK_OF_THIS_TEST", mark := f"mark-{os.urandom(8).hex()}")
    (tmp_path / "slow.py").write_text(
        "import time\nfrom prefectlite import flow, task\n@task\ndef step(): time.sleep(0.2)\n"
        "@flow\ndef slow():\n    for _ in range(300): step()\n"
    )
    code, error = ended(start_command("run", str(tmp_path / "slow.py"), "--detach"))
    assert code == 0, error
    running = open_registry(url(), read_only=True)
    until(lambda: any(run.process for run in running.list_flow_runs()))
    running.close()
    shutil.rmtree(home)
    until(lambda: not with_token(mark), "what was started is still there")
    assert not (home / "registry.db").exists()
