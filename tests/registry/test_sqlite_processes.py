"""Many processes on one SQLite file: forked, killed, stopped, and all at once."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from prefectlite.errors import (
    RegistryLockTimeoutError,
)
from prefectlite.registry import open_registry
from prefectlite.run_filters import TaskRunFilter
from prefectlite.states import Completed, Paused, Running


@pytest.fixture
def kind():
    return "sqlite"


@pytest.fixture
def path(sqlite_path):
    return sqlite_path


# Processes


FORK = """
registry = open_registry(sys.argv[1])
run = flow_run()
registry.create_flow_run(run)
registry.add_log_line(line(run, "the parent's"))
child = os.fork()
if not child:
    registry.add_log_line(line(run, "the child's"))
    other = flow_run(Running(), name="child")
    registry.create_flow_run(other)
    registry.change_state(other, Completed())
    registry.close()
    if sys.argv[2] == "sys.exit":
        sys.exit(0)
    os._exit(0)
# Both write at the same time.
for _ in range(50):
    registry.create_flow_run(flow_run())
assert os.waitpid(child, 0)[1] == 0
registry.change_state(run, Completed())
actors = [registry.state_history(found)[0].actor for found in registry.list_flow_runs()]
print(json.dumps({
    "runs": len(registry.list_flow_runs()),
    "messages": sorted(line.message for line in registry.read_logs(run.id)),
    "child is its own actor": registry.state_history(registry.find_flow_run("child"))[0].actor
        .endswith(f":{child}"),
}))
"""


@pytest.mark.parametrize("ending", ["os._exit", "sys.exit"])
def test_a_forked_child_and_its_parent_both_go_on_each_with_its_own(
    store, path, start, ending, check_integrity
):
    assert json.loads(start(FORK, store.url, ending).end()) == {
        "runs": 52,
        "messages": ["the child's", "the parent's"],
        "child is its own actor": True,
    }
    store.registry.close()
    check_integrity(path)


FORK_STORM = """
registry = open_registry(sys.argv[1])
acknowledged, is_over = [], threading.Event()
def work():
    while not is_over.is_set():
        run = flow_run(parameters={"x": "y" * 2000})
        registry.create_flow_run(run)
        acknowledged.append(run.id)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for number in range(60):
    child = os.fork()
    if not child:
        run = flow_run(name=f"child-{number}")
        registry.create_flow_run(run)
        os._exit(registry.find_flow_run(run.id) != run)
    assert os.waitpid(child, 0)[1] == 0
is_over.set()
for thread in threads:
    thread.join()
found = {run.id for run in registry.list_flow_runs(limit=None)}
print(len(found) - len(acknowledged), found.issuperset(acknowledged))
"""


def test_forks_in_the_middle_of_other_threads_writes_lose_and_damage_nothing(
    store, path, start, check_integrity
):
    assert start(FORK_STORM, store.url).end() == "60 True\n"
    store.registry.close()
    check_integrity(path)


OUTLIVING = """
registry = open_registry(sys.argv[1])
registry.create_flow_run(flow_run())
told, tell = os.pipe()
if os.fork():
    os.read(told, 1)
    registry.close()  # were it the last to have the file open, it would remove the log
    os._exit(0)
registry.create_flow_run(flow_run())
os.write(tell, b"x")
ready()
registry.create_flow_run(flow_run())
ready()
"""


def test_a_child_that_outlives_its_parent_loses_nothing(store, start):
    store.registry.close()
    child = start(OUTLIVING, store.url)
    child.line()
    child.process.wait(timeout=60)  # the parent's end
    child.tell()
    child.line()
    assert len(store.open_again().list_flow_runs()) == 3
    child.tell()
    child.end()
    assert len(store.open_again().list_flow_runs()) == 3


KILLED = """
registry = open_registry(sys.argv[1])
while True:
    run = flow_run(Pending())
    registry.create_flow_run(run)
    for number in range(3):
        registry.add_log_line(line(run, str(number)))
    task = None
    run = registry.change_state(run, Running())
    task = task_run(run)
    registry.create_task_runs([task])
    registry.change_state(task, Completed())
    print(run.id, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 40, 350])
def test_nothing_acknowledged_is_lost_when_a_writer_is_killed(
    store, path, start, after, check_integrity
):
    victim = start(KILLED, store.url)
    acknowledged = [victim.line() for _ in range(after)]
    acknowledged += [line for line in victim.kill().split("\n") if len(line) == 36]
    registry = store.open_again()
    for id_ in acknowledged:
        run = registry.find_flow_run(id_)
        assert run.state.is_running()
        assert [change.version for change in registry.state_history(run)] == [1, 2]
        assert registry.count_task_runs(id_) == {"Completed": 1}
        assert store.messages(run) == ["0", "1", "2"]
    store.add_flow_run()
    registry.close()
    check_integrity(path)


CROWD = """
url, name = sys.argv[1:]
registry = open_registry(url)
ready()
for number in range(120):
    run = flow_run(Pending(), name=f"{name}-{number}")
    registry.create_flow_run(run)
    run = registry.change_state(run, Running())
    task = task_run(run)
    registry.create_task_runs([task])
    registry.change_state(task, Completed())
    registry.change_state(run, Completed())
    if number % 5 == int(name):
        registry.close()  # and opened again, as the next command would
        registry = open_registry(url)
"""


def test_processes_that_write_and_open_and_close_at_once_never_find_it_locked(
    store, path, start, check_integrity
):
    store.registry.close()
    writers = [start(CROWD, store.url, name) for name in range(4)]
    for writer in writers:
        writer.line()
    for writer in writers:
        writer.tell()
    for writer in writers:
        assert writer.end() == ""
    runs = store.open_again().list_flow_runs(limit=None)
    assert {run.name for run in runs} == {f"{w}-{n}" for w in range(4) for n in range(120)}
    assert all(run.state.is_completed() and run.state_version == 3 for run in runs)
    assert (
        len(store.registry.list_task_runs(TaskRunFilter(states=["Completed"]), limit=None)) == 480
    )
    store.registry.close()
    check_integrity(path)


def test_processes_that_create_the_registry_at_once_make_one(path, start):
    url = f"sqlite:///{path}"
    makers = [
        start("ready()\nopen_registry(sys.argv[1]).create_flow_run(flow_run())", url)
        for _ in range(4)
    ]
    for maker in makers:
        maker.line()
    for maker in makers:
        maker.tell()
    for maker in makers:
        maker.end()
    assert len(open_registry(url, read_only=True).list_flow_runs()) == 4


def test_the_log_of_one_writer_stays_small_however_much_it_writes(store, path):
    run = store.add_flow_run()
    for _ in range(700):
        run = store.registry.change_state(run, Paused("x" * 3000))
        run = store.registry.change_state(run, Running("y" * 3000))
    assert Path(f"{path}-wal").stat().st_size < 12_000_000


def test_the_log_of_many_short_writers_stays_small_beside_an_idle_process(store, path, start):
    store.add_flow_run()
    idle = start("registry = open_registry(sys.argv[1])\nready()", store.url)
    idle.line()
    for _ in range(60):
        for _ in range(10):
            store.add_flow_run(parameters={"x": "y" * 3000})
        store.open_again()  # as if each ten were a process of their own
    size = Path(f"{path}-wal").stat().st_size
    idle.tell()
    idle.end()
    assert size < 8_000_000


def test_closing_moves_the_log_into_the_file(store, path, sql):
    run = store.add_flow_run()
    store.registry.close()
    assert not Path(f"{path}-wal").exists()
    assert sql(path, "SELECT id FROM flow_run") == [(run.id,)]


HOLDER = """
registry = open_registry(sys.argv[1])
def hold(connection):
    ready()
registry._database.write(hold)
registry.create_flow_run(flow_run(name="the holder's"))
print("done")
"""


def test_a_stopped_process_in_the_gate_is_named_and_hinders_only_until_it_goes_on(
    store, start, monkeypatch
):
    monkeypatch.setenv("PREFECTLITE_REGISTRY_LOCK_SECONDS", "0.2")
    registry = store.open_again()
    run = store.add_flow_run()
    holder = start(HOLDER, store.url)
    holder.line()
    os.kill(holder.pid, signal.SIGSTOP)
    for _ in range(3):
        with pytest.raises(RegistryLockTimeoutError) as caught:
            registry.change_state(run, Completed())
        assert f"process {holder.pid}" in str(caught.value)
        assert str(holder.pid) in caught.value.hint
        assert caught.value.exit_code == 5
    assert [thread.name for thread in threading.enumerate()].count("prefectlite-gate") == 1
    assert registry.find_flow_run(run.id) == run  # reading goes on
    monkeypatch.setenv("PREFECTLITE_REGISTRY_LOCK_SECONDS", "30")
    os.kill(holder.pid, signal.SIGCONT)
    holder.tell()
    assert holder.end() == "done\n"
    for thread in threading.enumerate():
        if thread.name == "prefectlite-gate":
            thread.join(timeout=30)
    registry = store.open_again()
    assert registry.change_state(run, Completed()).state.is_completed()
    assert registry.find_flow_run("the holder's")


def test_closing_does_not_wait_for_a_stopped_process_in_the_gate(store, start):
    store.add_flow_run()
    holder = start(HOLDER, store.url)
    holder.line()
    store.registry.close()
    holder.tell()
    holder.end()


WATCHED = """
url, path = sys.argv[1:]
open_registry(url).create_flow_run(flow_run())
opened = []
def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith(path):
        opened.append(arguments[0])
sys.addaudithook(watch)
registry = open_registry(url)
run = flow_run()
registry.create_flow_run(run)
registry.close()
registry = open_registry(url)
registry.change_state(run, Completed())
open_registry(url, read_only=True).list_flow_runs()
registry.close()
open(path).close()
print(len(opened))
"""


def test_once_the_file_exists_nothing_but_sqlite_opens_it(path, start):
    # The one that is counted is the test's own, which shows that it counts.
    assert start(WATCHED, f"sqlite:///{path}", path).end() == "1\n"


EXIT_FAILS = """
registry = open_registry(sys.argv[1])
run = flow_run()
registry.create_flow_run(run)
registry._database._connection.execute("PRAGMA max_page_count = 1")
registry.add_log_line(line(run, "x" * 100_000))
"""


def test_lines_that_cannot_be_recorded_at_exit_are_said_in_one_line(store, start):
    process = start(EXIT_FAILS, store.url).process
    out, error = process.communicate(timeout=60)
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith("prefectlite: the last log lines are not on record: ")
