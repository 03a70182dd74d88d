"""Forks in user code: the run stays its parent's, and what the child logs and prints is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import prefectlite
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

SOURCES = str(Path(prefectlite.__file__).parents[1])
# A child that does not end where it should would hang its parent.
DEADLINE_SECONDS = 60

_FLOWS = """
import asyncio, multiprocessing, os, sys, time
from prefectlite import flow, task, get_run_logger

main = os.getpid()

@task
def before(): ...

@task
def in_child(): ...

def fork(how):
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return
    print("child prints")
    get_run_logger().info("child logs")
    in_child() if how == "task" else None
    if how == "_exit":
        sys.stdout.flush()
        os._exit(7)
    if how == "exit":
        sys.exit(8)
    if how == "exit with words":
        sys.exit("goodbye")
    if how == "raise":
        raise ValueError("in the child")

@task
def forks(how):
    fork(how)
    return os.getpid() == main

@flow
def in_the_flow(how: str):
    before()
    fork(how)
    return os.getpid() == main

@flow
def in_a_task(how: str):
    return forks(how)

@flow
def in_a_submitted_task(how: str):
    return forks.submit(how).result()

@flow(timeout_seconds=30)
def under_a_deadline(how: str):
    return forks.with_options(timeout_seconds=20)(how)

@flow
def in_a_generator(how: str):
    yield 1
    fork(how)
    yield 2

@flow
async def in_an_async_flow(how: str):
    fork(how)
    return os.getpid() == main

@flow
def in_except(how: str):
    try:
        raise KeyError("of the parent")
    except KeyError:
        return forks(how)

def square(number):
    print("squaring", number)
    return number * number

@task
def pools():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(square, range(3)))

@flow(log_prints=True)
def pooled(submit: bool):
    return pools.submit().result() if submit else pools()

@flow
def terminated(number: int):
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(9)
    os.kill(pid, number)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])

@flow
def twice():
    first = os.fork()
    if not first:
        fork("exit")
        sys.exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
"""
_ENDS = {"exit": 8, "raise": 1, "fall": 0}
_OTHER_ENDS = {"_exit": 7, "exit with words": 1, "task": 0}
_PLACES = [
    "in_the_flow",
    "in_a_task",
    "in_a_submitted_task",
    "under_a_deadline",
    "in_a_generator",
    "in_an_async_flow",
    "in_except",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "flows.py").write_text(_FLOWS)
    monkeypatch.chdir(tmp_path)


def _run(name, *options):
    """Run a flow; return its document, what it said and the registry."""
    arguments = ["run", f"flows.py:{name}", "--json", *options]
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "prefectlite", *arguments],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    (flow_run,) = registry.list_flow_runs()
    assert flow_run.state.name == "Completed"
    return json.loads(ended.stdout), ended.stderr, registry


@pytest.mark.parametrize(
    ("place", "how", "status"),
    [
        *((place, how, status) for place in _PLACES for how, status in _ENDS.items()),
        *(("in_a_submitted_task", how, status) for how, status in _OTHER_ENDS.items()),
    ],
)
def test_a_forked_child_ends_where_the_code_that_forked_it_ends(place, how, status):
    document, said, registry = _run(place, "-p", f"how={how}")
    if place != "in_a_generator":
        assert document["result"] is True
    assert said.count("child prints\n") == 1
    assert said.count(" - child logs\n") == 1
    assert f"status {status}\n" in said
    # Both processes would have said it.
    assert said.count("' - Finished in state") == 1 + sum(document["task_run_counts"].values())
    assert ("goodbye" in said) is (how == "exit with words")
    assert said.count("ValueError: in the child\n") == (how == "raise")
    assert ("of the parent" in said) is (place == "in_except" and how == "raise")
    logged = [line.message for line in registry.read_logs(document["id"])]
    assert logged.count("child logs") == 1
    tasks = registry.list_task_runs()
    assert {run.state.name for run in tasks} <= {"Completed"}
    assert ("in_child-0" in [run.name for run in tasks]) is (how == "task")


@pytest.mark.parametrize("submit", ["true", "false"])
def test_a_pool_of_forked_processes_works_in_a_task(submit):
    document, said, _ = _run("pooled", "-p", f"submit={submit}")
    assert document["result"] == 5
    for number in range(3):
        assert f"Task run 'pools-0' - squaring {number}\n" in said


def test_sigterm_ends_a_forked_child_at_once_and_by_itself():
    # multiprocessing ends its workers so: a handler in Python can miss a signal before a long wait.
    document, said, _ = _run("terminated", "-p", "number=15")
    assert document["result"] == 15
    assert said.count("Finished in state") == 1


def test_a_child_may_fork_too():
    document, said, _ = _run("twice")
    assert document["result"] == 5
    assert "status 8\n" in said


def test_a_child_ends_though_another_thread_was_writing_when_it_was_forked(start_python):
    # That thread's lock of the stream is held in the child for ever: 30 of 30 children hung on it.
    program = start_python(
        """
        import os, sys, threading
        from prefectlite import flow, task

        @task
        def forks():
            pid = os.fork()
            return pid and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        @flow
        def noisy():
            is_over = threading.Event()
            def write():
                while not is_over.is_set():
                    sys.stderr.write("x" * 5000 + "\\n")
            thread = threading.Thread(target=write)
            thread.start()
            try:
                return forks()
            finally:
                is_over.set()
                thread.join()

        print(noisy())
        """,
        stderr=subprocess.DEVNULL,
    )
    assert program.end() == "0\n"


def test_a_child_logs_though_another_thread_was_logging_when_it_was_forked(start_python):
    program = start_python(
        """
        import os, signal, sys, threading
        from prefectlite import flow, get_run_logger

        class Stream:
            def __init__(self):
                self.lock, self.is_inside = threading.Lock(), threading.Event()
                self.is_forked = threading.Event()

            def write(self, text):
                with self.lock:
                    if "by a thread" in text:
                        self.is_inside.set()
                        self.is_forked.wait(0.3)  # a fork waits for this line, so that it is in vain

            def flush(self): ...

        @flow
        def logs_and_forks():
            logger = get_run_logger()
            thread = threading.Thread(target=logger.info, args=("by a thread",))
            thread.start()
            sys.stderr.is_inside.wait()
            pid = os.fork()
            if not pid:
                signal.alarm(20)
                logger.info("by a child")
                os._exit(7)
            sys.stderr.is_forked.set()
            thread.join()
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        sys.stderr = Stream()
        print(logs_and_forks())
        """
    )
    assert program.end() == "7\n"
