"""Forks in user code in the midst of use: both processes write, one outlives the other, many at once.

How each way to fork and to end a child goes is shown by ``test_forks``; here is what it does to the
registry, to who is alive on record, and to a run that has a supervisor.
"""

import json
import os
import select
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest

from prefectlite.registry import open_registry
from prefectlite.run_filters import TaskRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY

DEADLINE_SECONDS = 60


def integrity():
    path = PREFECTLITE_REGISTRY.value().removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


@pytest.fixture
def reading():
    """The registry, as somebody else sees it who changes nothing."""
    registry = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)
    yield registry
    registry.close()


@pytest.fixture
def listed(run_command):
    """Return the flow runs as a command shows them, which finds the dead ones."""

    def ls():
        runs = json.loads(run_command("flow-run", "ls", "--json"))
        return {run["name"]: run["state"]["name"] for run in runs}

    return ls


# Both write


TOGETHER = """
import os, sys, threading
from prefectlite import flow, get_run_logger, task

@task
def step(who, number):
    get_run_logger().info(f"{who} {number}")

def work(who):
    for number in range(int(sys.argv[1])):
        step.with_options(name=who)(who, number)

@flow(flow_run_name="victim")
def together():
    children = []
    # It writes while the others are forked.
    thread = threading.Thread(target=work, args=("thread",))
    thread.start()
    for name in ("one", "two", "three"):
        pid = os.fork()
        if not pid:
            work(name)
            sys.exit(7)
        children.append(pid)
    work("parent")
    thread.join()
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]

print(together())
"""
WRITERS = ("one", "parent", "thread", "three", "two")


@pytest.mark.parametrize("count", [5, pytest.param(60, marks=pytest.mark.long)])
def test_children_and_their_parent_write_at_once_and_all_of_it_is_there_once(start_python, count):
    program = start_python(TOGETHER, count)
    assert program.end() == "[7, 7, 7]\n"
    with closing(open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)) as registry:
        (run,) = registry.list_flow_runs()
        assert run.state.is_completed()
        done = registry.list_task_runs(TaskRunFilter(states=["Completed"]), limit=None)
        assert sorted(each.task_name for each in done) == sorted(WRITERS * count)
        assert registry.count_task_runs(run.id) == {"Completed": len(WRITERS) * count}
        messages = [line.message for line in registry.read_logs(run.id)]
    for who in WRITERS:
        expected = [f"{who} {number}" for number in range(count)]
        assert [each for each in messages if each in expected] == expected
    assert messages.count("Finished in state Completed()") == len(WRITERS) * count + 1
    assert integrity() == [("ok",)]


POOL = """
import multiprocessing
from prefectlite import flow, get_run_logger, task
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

@task
def step(number):
    return number + 1

@flow
def inner(number):
    return step(number)

def work(number):
    get_run_logger().info(f"work {number}")
    found = open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs(limit=None)
    assert any(run.name == "victim" for run in found)
    return step(number) + inner(number)

@flow(flow_run_name="victim")
def pooled():
    with multiprocessing.get_context("fork").Pool(3) as pool:
        return sum(pool.map(work, range(12), chunksize=1))

print(pooled())
"""


@pytest.mark.long
def test_the_processes_of_a_pool_call_tasks_and_flows_and_read(start_python, reading):
    program = start_python(POOL)
    assert program.end() == f"{2 * sum(range(1, 13))}\n"
    runs = reading.list_flow_runs(limit=None)
    assert len(runs) == 13
    assert all(run.state.is_completed() for run in runs)
    victim = reading.find_flow_run("victim")
    assert {run.parent_flow_run_id for run in runs} == {None, victim.id}
    assert reading.count_task_runs(victim.id) == {"Completed": 12}
    messages = [line.message for line in reading.read_logs(victim.id)]
    assert sorted(each for each in messages if each.startswith("work")) == sorted(
        f"work {number}" for number in range(12)
    )
    assert integrity() == [("ok",)]


# Who is alive


ENDS = {
    "os._exit": "os._exit(3)",
    "sys.exit": "sys.exit(3)",
    "an exception": "raise ValueError",
    "closing all files": "os.closerange(3, 1000) or os._exit(3)",
    "a flow of its own": "flow(name='own')(lambda: None)() or sys.exit(3)",
}

# The child ends; the parent then waits to be told.
ALIVE = """
import os, sys
from prefectlite import flow
from prefectlite.liveness import own_identity

@flow(flow_run_name="victim")
def forks():
    pid = os.fork()
    if not pid:
        {}
    os.waitpid(pid, 0)
    print("reaped", flush=True)
    sys.stdin.readline()

forks()
"""


@pytest.mark.long
@pytest.mark.parametrize("how", ENDS)
def test_a_child_that_ends_takes_nothing_from_its_parent_that_says_it_lives(
    start_python, listed, how
):
    parent = start_python(ALIVE.format(ENDS[how]))
    parent.line()
    assert listed()["victim"] == "Running"
    parent.kill()
    assert listed()["victim"] == "Crashed"


OUTLIVES = """
import os, sys
from prefectlite import flow, get_run_logger, task

go, told = map(int, sys.argv[1:])  # two ends of pipes to the test

@task
def step(): ...

@flow(flow_run_name="victim")
def forks():
    if not os.fork():
        try:
            os.read(go, 1)
            step()
        except BaseException as error:
            os.write(told, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(told)
    print("forked", flush=True)
    sys.stdin.readline()

forks()
"""


@pytest.mark.long
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_child_that_outlives_its_parent_does_not_keep_the_run_alive_nor_goes_on_with_it(
    start_python, listed, reading, is_killed
):
    (waiting, go), (told, telling) = os.pipe(), os.pipe()
    pipes = [waiting, telling]
    parent = start_python(OUTLIVES, *pipes, pass_fds=pipes, stderr=subprocess.DEVNULL)
    for descriptor in pipes:
        os.close(descriptor)
    assert parent.line() == "forked"
    if is_killed:
        parent.process.kill()
    else:
        parent.tell()
    parent.process.wait(DEADLINE_SECONDS)
    assert listed()["victim"] == ("Crashed" if is_killed else "Completed")
    os.write(go, b"!")
    os.close(go)
    readable, _, _ = select.select([told], [], [], DEADLINE_SECONDS)
    assert readable, "the child said nothing"
    with open(told) as error:  # noqa: PTH123 - a descriptor; to its end, which is the child's
        assert error.read() == "FlowRunNotRunningError"
    assert reading.list_task_runs() == []


SUPERVISED = """
import os, sys, time
from prefectlite import flow, get_run_logger, task

@task
def step(): ...

@flow
def forks():
    if not os.fork():
        get_run_logger().info("child logs")
        step()
        sys.exit(0)
    os.wait()
    reading, writing = os.pipe()
    if not os.fork():
        os.setsid()
        os.write(writing, str(os.getpid()).encode())
        time.sleep(600)
    open("stays", "w").write(os.read(reading, 10).decode())
    step()
"""


@pytest.mark.long
def test_the_children_of_a_supervised_run_are_of_the_run_and_end_with_it(
    tmp_path, monkeypatch, reading, run_command
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(SUPERVISED)
    run_command("run", "flows.py:forks", "--detach", "--name", "victim")
    run_command("flow-run", "wait", "victim")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "stays").read_text()), signal.SIG_DFL)
    victim = reading.find_flow_run("victim")
    assert reading.count_task_runs(victim.id) == {"Completed": 2}
    messages = [line.message for line in reading.read_logs(victim.id)]
    assert messages.count("child logs") == 1
    assert any("left running was ended: 1 process" in each for each in messages)
