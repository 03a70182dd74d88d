import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

import prefectlite
from prefectlite.registry import open_registry
from prefectlite.run_filters import FlowRunFilter, TaskRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY

DEADLINE_SECONDS = 60

PRELUDE = """
import ctypes, json, multiprocessing, os, psutil, signal, sys, threading, time
from prefectlite import flow, get_run_logger, process_workers, task
from prefectlite.context import get_run_context
from prefectlite.task_runners import ProcessPoolTaskRunner

def ready(*words):
    os.write(1, (" ".join(["ready", *map(str, words)]) + "\\n").encode())

@task
def wait():
    ready(os.getpid())
    time.sleep(60)
"""

#: Everything that can happen to a task in a process, in one program: to start one is slow.
PROGRAM = (
    PRELUDE
    + """
time.sleep(0.0 if __name__ == "__main__" else 0.4)  # a slow import, in each process
process_workers._KILL_GRACE_SECONDS = 0.5  # a second, else, for each task that is killed

@task
def double(number):
    return number * 2

@task
def pid():
    time.sleep(0.05)
    return os.getpid()

@task(log_prints=True)
def tells():
    print("one")
    get_run_logger().warning("two")
    print("three", end="")

@task(log_prints=False)
def prints_plainly():
    print("plain", flush=True)

@task
def inner(number):
    return number + 1

@flow
def subflow():
    return inner(10)

@task
def nests():
    return [inner(1), inner.submit(2).result(), subflow()]

@task
def knows():
    context = get_run_context()
    return [context.task_run.name, context.flow_run.name]

@task
def fails():
    raise ValueError("mine")

class Unpicklable(Exception):
    def __init__(self):
        super().__init__("has a lock")
        self.lock = threading.Lock()

class Unloadable(Exception):
    def __init__(self, one, two):
        super().__init__("wants two")

@task
def fails_unpicklably():
    raise Unpicklable

@task
def fails_unloadably():
    raise Unloadable(1, 2)

@task
def returns_lock():
    return threading.Lock()

class OnlyThere:
    def __setstate__(self, state):
        if multiprocessing.parent_process() is None:
            raise RuntimeError("not here")

    def __getstate__(self):
        return {"a": 1}

@task
def returns_what_only_loads_there():
    return OnlyThere()

@task
def exits():
    os._exit(7)

@task
def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)

@task
def leaves():
    sys.exit(3)

@task
def dies_with_a_child(folder):
    if not os.fork():  # it keeps the pipe to the parent open
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if os.path.exists(folder + "/let_go"):
                open(folder + "/was_let_go", "w").close()
                break
            time.sleep(0.01)
        os._exit(0)
    os._exit(8)

@task(timeout_seconds=0.3)
def in_time():
    return "in time"

@task(timeout_seconds=0.2)
def tidies(path):
    try:
        while True:
            pass
    finally:
        open(path, "w").close()

@task(timeout_seconds=0.2)
def stubborn():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

@task(timeout_seconds=0.2)
def ignores_all():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    ctypes.PyDLL(None).sleep(60)  # in C, and with the interpreter's lock held

@task(timeout_seconds=0.2, retries=1)
def second_is_quick(path):
    if os.path.exists(path):
        return "second"
    open(path, "w").close()
    ctypes.PyDLL(None).sleep(60)

class Tasks:
    @staticmethod
    @task
    def static(number):
        return number

@flow(task_runner=ProcessPoolTaskRunner(3))
def all_of_it(folder):
    futures = {
        "second_is_quick": second_is_quick.submit(folder + "/second"),
        "stubborn": stubborn.submit(),
        "ignores_all": ignores_all.submit(),
        "tidies": tidies.submit(folder + "/tidied"),
        "double": double.submit(4),
        "chain": double.submit(double.submit(1)),
        "tells": tells.submit(),
        "prints_plainly": prints_plainly.submit(),
        "nests": nests.submit(),
        "knows": knows.submit(),
        "fails": fails.submit(),
        "fails_unpicklably": fails_unpicklably.submit(),
        "fails_unloadably": fails_unloadably.submit(),
        "returns_lock": returns_lock.submit(),
        "returns_what_only_loads_there": returns_what_only_loads_there.submit(),
        "takes_lock": double.submit(threading.Lock()),
        "local": task(lambda: 1).submit(),
        "exits": exits.submit(),
        "is_killed": is_killed.submit(),
        "leaves": leaves.submit(),
        "dies_with_a_child": dies_with_a_child.submit(folder),
        "static": Tasks.static.submit(5),
        "in_time": in_time.submit(),
    }
    pids = [pid.submit() for _ in range(9)]
    outcomes = {name: future.wait() for name, future in futures.items()}
    open(folder + "/let_go", "w").close()
    told = {
        name: [state.name, state.message, state.data if state.is_completed() else None]
        for name, state in outcomes.items()
    }
    told["pids"] = [future.result() for future in pids]
    told["own_pid"] = os.getpid()
    children = psutil.Process().children()
    told["processes"] = [[child.pid, child.create_time()] for child in children]
    told["hints"] = {name: getattr(state.data, "hint", None) for name, state in outcomes.items()}
    return told

if __name__ == "__main__":
    told = all_of_it(sys.argv[1])
    print(json.dumps(told))
"""
)


class Ended:
    """What the program left behind."""

    def __init__(self, folder, completed):
        self.folder = folder
        self.stderr = completed.stderr
        *self.printed, told = completed.stdout.splitlines()
        self.told = json.loads(told)
        self.registry = open_registry(f"sqlite:///{folder / 'home' / 'registry.db'}")
        (self.run,) = self.registry.list_flow_runs(FlowRunFilter(flow_names=["all-of-it"]))

    def lines(self, task_name):
        runs = self.registry.list_task_runs(TaskRunFilter(flow_run_ids=[self.run.id]), limit=None)
        (run,) = [run for run in runs if run.task_name == task_name]
        lines = self.registry.read_logs(self.run.id, task_run_id=run.id)
        return [(line.level, line.message) for line in lines]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Run the program once for all of its tests."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "my_flow.py").write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    source = str(Path(prefectlite.__file__).parents[1])
    environment = {**os.environ, "PREFECTLITE_HOME": str(folder / "home"), "PYTHONPATH": source}
    completed = subprocess.run(
        [sys.executable, str(folder / "my_flow.py"), str(folder)],
        env=environment,
        text=True,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return Ended(folder, completed)


@pytest.mark.parametrize(
    ("name", "value"),
    [("double", 8), ("chain", 4), ("static", 5), ("nests", [2, 3, 11]), ("in_time", "in time")],
)
def test_a_task_in_a_process_returns_its_value(ended, name, value):
    assert ended.told[name] == ["Completed", None, value]


def test_tasks_run_in_other_processes_which_are_used_again(ended):
    assert ended.told["own_pid"] not in ended.told["pids"]
    assert len(set(ended.told["pids"])) <= 3


def test_a_task_in_a_process_knows_its_run(ended):
    assert ended.told["knows"][2] == ["knows-0", ended.run.name]


def test_logs_and_prints_of_a_process_are_on_record_in_order(ended):
    assert ended.lines("tells") == [
        *[(20, "one"), (30, "two"), (20, "three")],
        (20, "Finished in state Completed()"),
    ]
    assert "Task run 'tells-0' - two" in ended.stderr


def test_a_task_that_prints_plainly_prints_to_the_terminal(ended):
    assert ended.printed == ["plain"]
    assert ended.lines("prints_plainly") == [(20, "Finished in state Completed()")]


def test_runs_that_a_process_begins_are_on_record_with_their_parents(ended):
    (nests,) = [run for run in ended.registry.list_task_runs(limit=None) if run.name == "nests-0"]
    inner = [run for run in ended.registry.list_task_runs(limit=None) if run.task_name == "inner"]
    assert [run.state.name for run in inner] == ["Completed"] * 3
    subflow_run, *_ = ended.registry.list_flow_runs(FlowRunFilter(flow_names=["subflow"]))
    assert subflow_run.parent_task_run_id == nests.id
    assert subflow_run.parent_flow_run_id == ended.run.id
    assert [run.parent_task_run_id for run in inner].count(nests.id) == 2


def test_an_error_in_a_process_is_the_tasks_own_with_its_traceback(ended):
    told = "Task run encountered an exception. ValueError: mine"
    assert ended.told["fails"] == ["Failed", told, None]
    traces = [text for _, text in ended.lines("fails") if text.startswith("Encountered")]
    assert 'raise ValueError("mine")' in traces[0]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fails_unpicklably", "RemoteError: Unpicklable: has a lock"),
        ("fails_unloadably", "RemoteError: Unloadable: wants two"),
        ("returns_lock", "RemoteError: the result of task run 'returns_lock-0' cannot be pickled"),
        (
            "returns_what_only_loads_there",
            "RemoteError: the result of task run 'returns_what_only_loads_there-0' cannot be",
        ),
        ("takes_lock", "UsageError: task 'double' cannot be sent to a process"),
        ("local", "UsageError: task '<lambda>' cannot be sent to a process"),
    ],
)
def test_what_cannot_be_pickled_is_a_failure_that_says_so(ended, name, told):
    state, message, _ = ended.told[name]
    assert state == "Failed"
    assert message.startswith(f"Task run encountered an exception. {told}")
    assert name.startswith("fails") or ended.told["hints"][name]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("exits", "exit code 7."),
        ("dies_with_a_child", "exit code 8."),
        ("is_killed", "killed by SIGKILL."),
    ],
)
def test_a_process_that_dies_is_a_crash_that_says_how(ended, name, how):
    state, message, _ = ended.told[name]
    assert state == "Crashed"
    assert message.startswith("The task's process ")
    assert message.endswith(f" died: {how}")


def test_a_process_that_dies_is_missed_though_its_own_child_lives_on(ended):
    assert (ended.folder / "was_let_go").exists()


def test_sys_exit_in_a_process_is_a_crash_with_its_code(ended):
    assert ended.told["leaves"][:2] == ["Crashed", "Execution was aborted by sys.exit(3)."]


@pytest.mark.parametrize("name", ["tidies", "stubborn", "ignores_all"])
def test_a_task_that_is_over_its_time_is_killed_if_need_be(ended, name):
    assert ended.told[name][:2] == ["TimedOut", "Task run exceeded timeout of 0.2 seconds"]
    (run,) = [run for run in ended.registry.list_task_runs(limit=None) if run.task_name == name]
    assert (run.ended_at - run.started_at).total_seconds() < 10


def test_a_finally_in_a_process_gets_its_time(ended):
    assert (ended.folder / "tidied").exists()


def test_a_task_whose_process_was_killed_is_retried_in_another(ended):
    assert ended.told["second_is_quick"] == ["Completed", None, "second"]


def test_no_run_is_left_unfinished(ended):
    runs = [
        *ended.registry.list_flow_runs(limit=None),
        *ended.registry.list_task_runs(limit=None),
    ]
    assert {run.name: run.state.name for run in runs if not run.state.is_final()} == {}


def test_the_processes_end_with_their_flow(ended):
    assert ended.told["processes"]
    assert all(gone(*process) for process in ended.told["processes"])


def gone(pid, start):
    """Wait until a process has ended; it may be a zombie that nobody has asked for yet."""
    until = time.monotonic() + DEADLINE_SECONDS / 2
    try:
        process = psutil.Process(pid)
        while process.create_time() == start and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until, f"{process} lives on"
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(0.02)
    except psutil.NoSuchProcess:
        return True
    return True


def ignores_ctrl_c(pid):
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (ignored,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    return bool(int(ignored, 16) >> (signal.SIGINT - 1) & 1)


def states(registry):
    runs = [("flow", run.state.name) for run in registry.list_flow_runs(limit=None)]
    return runs + [(run.task_name, run.state.name) for run in registry.list_task_runs(limit=None)]


WAITING = (
    PRELUDE
    + """
@task
def calls_wait():
    wait()

@task
def starts():
    return os.getpid()

@flow(task_runner=ProcessPoolTaskRunner(3), timeout_seconds=TIMEOUT)
def runs():
    idle = starts.submit()
    wait.submit()
    calls_wait.submit()
    ready(idle.result())

if __name__ == "__main__":
    runs()
"""
)


@pytest.fixture
def waiting(start_script):
    """Start a program with two processes that wait and an idle one.

    Return it and them, by PID and start time.
    """

    def start(timeout=None, **options):
        program = start_script(WAITING.replace("TIMEOUT", repr(timeout)), **options)
        pids = [int(program.line().split()[1]) for _ in range(3)]
        return program, [(pid, psutil.Process(pid).create_time()) for pid in pids]

    return start


def test_the_processes_end_when_the_program_is_killed(waiting):
    program, processes = waiting()
    os.kill(program.pid, signal.SIGKILL)
    program.end(-signal.SIGKILL)
    assert all(gone(*process) for process in processes)


def test_ctrl_c_at_the_terminal_ends_flow_tasks_and_processes_without_a_word_from_them(waiting):
    program, processes = waiting(start_new_session=True)
    assert all(ignores_ctrl_c(pid) for pid, _ in processes)
    os.killpg(program.pid, signal.SIGINT)
    _, error = program.process.communicate(timeout=DEADLINE_SECONDS)
    assert program.process.returncode == -signal.SIGINT
    assert error.count("Traceback") == 1
    assert all(gone(*process) for process in processes)
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    assert sorted(states(registry)) == [
        *[("calls_wait", "Crashed"), ("flow", "Crashed"), ("starts", "Completed")],
        *[("wait", "Crashed"), ("wait", "Crashed")],
    ]


def test_a_flow_that_is_over_its_time_ends_its_processes(waiting):
    program, processes = waiting(timeout=3)
    program.end(1)
    assert all(gone(*process) for process in processes)
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    assert sorted(states(registry)) == [
        *[("calls_wait", "Crashed"), ("flow", "TimedOut"), ("starts", "Completed")],
        *[("wait", "Crashed"), ("wait", "Crashed")],
    ]


def test_a_program_without_a_guard_gets_the_hint_and_runs_once(start_script):
    program = start_script(
        PRELUDE
        + """
@task
def one():
    return 1

@flow(task_runner=ProcessPoolTaskRunner(1))
def runs():
    return one.submit().result()

runs()
"""
    )
    _, error = program.process.communicate(timeout=DEADLINE_SECONDS)
    assert program.process.returncode == 1
    assert 'if __name__ == "__main__":' in error
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    assert states(registry) == [("flow", "Failed"), ("one", "Crashed")]
    (task_run,) = registry.list_task_runs()
    assert 'if __name__ == "__main__":' in task_run.state.message
