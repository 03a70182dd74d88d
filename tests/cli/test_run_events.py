"""prefectlite run --events: every state of every run, once, in order, whoever made it."""

import fcntl
import json
import os
import select
import signal
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest

from prefectlite import run_events
from prefectlite.clock import now
from prefectlite.names import new_id
from prefectlite.pausing import resume_flow_run
from prefectlite.records import TaskRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import AwaitingRetry, Completed, Failed, Paused, Pending, Retrying, Running
from prefectlite.upkeep_records import Deleted

DEADLINE_SECONDS = 60
FULL = Path("/dev/full")
_KEYS = {
    "event", "time", "flow_run_id", "task_run_id", "parent_flow_run_id", "parent_task_run_id",
    "name", "flow_name", "task_name", "version", "state", "actor",
}  # fmt: skip

_FLOWS = """
import os, sys, time
from pathlib import Path
from prefectlite import flow, task, pause_flow_run
from prefectlite.task_runners import ProcessPoolTaskRunner

print("imported", flush=True)

@task
def double(x):
    return 2 * x

@task(retries=1)
def twice(seen=[]):
    seen.append(1)
    if len(seen) == 1:
        raise ValueError("at first")

@task
def nested():
    return double(1)

@flow
def below(n: int):
    double.map(range(n))

@flow
def etl(fail: bool = False):
    print("printed")
    twice()
    below(3)
    nested()
    below(70)
    if fail: raise ValueError("as asked")
    return 5

@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def pooled():
    double.map([1, 2, 3])

@flow
def waits():
    pause_flow_run(timeout=60)
    print("resumed", file=sys.stderr, flush=True)
    double(1)
    time.sleep(60)

@flow
def until_gone():
    double(1)
    while not Path("gone").exists():
        time.sleep(0.01)
    for _ in range(3):
        double(2)
        time.sleep(0.06)

@flow
def bare(): ...
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current folder with flows; what a test imports is forgotten when it ends."""
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "event_flows.py").write_text(_FLOWS)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    sys.modules.pop("event_flows", None)


def _registry():
    return open_registry(PREFECTLITE_REGISTRY.value())


def _read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def _check_complete(events):
    """Check that the events are what is on record: all of it, once, in order."""
    registry = _registry()
    told = defaultdict(list)
    for event in events:
        assert event.keys() == _KEYS
        told[event["task_run_id"] or event["flow_run_id"]].append(event)
    runs = [*registry.list_flow_runs(limit=None), *registry.list_task_runs(limit=None)]
    assert {run.id for run in runs} == told.keys()
    for run in runs:
        history = registry.state_history(run)
        assert [event["version"] for event in told[run.id]] == [one.version for one in history]
        for event, change in zip(told[run.id], history, strict=True):
            state = change.state
            shown = {"type": state.type.value, "name": state.name, "message": state.message}
            assert event["state"] == shown
            assert event["time"] == state.timestamp.isoformat(timespec="microseconds")
            assert (event["name"], event["actor"]) == (run.name, change.actor)


@pytest.mark.parametrize("flow", ["etl", "pooled"])
def test_every_state_of_every_run_comes_once_and_in_order(run, flow):
    assert run(f"run event_flows:{flow} --events out.jsonl").exit_code == 0
    events = _read("out.jsonl")
    _check_complete(events)
    assert events[0]["flow_name"] == events[-1]["flow_name"] == flow
    for flow_run_id in {event["flow_run_id"] for event in events}:
        own = [event for event in events if event["flow_run_id"] == flow_run_id]
        assert own[0]["event"] == own[-1]["event"] == "flow_run.state"
        assert (own[0]["state"]["name"], own[-1]["state"]["name"]) == ("Running", "Completed")


def test_an_event_says_where_its_run_belongs(run):
    run("run event_flows:etl --events out.jsonl")
    events = _read("out.jsonl")
    top = events[0]
    assert (top["flow_name"], top["task_name"], top["task_run_id"]) == ("etl", None, None)
    below = [one for one in events if one["flow_name"] == "below"]
    assert {one["parent_flow_run_id"] for one in below} == {top["flow_run_id"]}
    assert {one["task_name"] for one in below} == {None, "double"}
    outer = next(one for one in events if one["name"] == "nested-0")
    assert outer["event"] == "task_run.state"
    called = [one for one in events if one["parent_task_run_id"] == outer["task_run_id"]]
    assert {one["task_name"] for one in called} == {"double"}


def test_a_pause_a_resumption_and_a_cancellation_from_elsewhere_are_told_as_they_happen(
    start_command, run
):
    process = start_command(
        "run", "event_flows.py:waits", "--events", "-", "--quiet", "--junit", "out.xml"
    )
    events = []

    def read_until(name):
        while not events or events[-1]["state"]["name"] != name:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            events.append(json.loads(line))

    read_until("Paused")
    while "To resume: prefectlite flow-run resume" not in process.stderr.readline():
        assert process.poll() is None
    resume_flow_run(events[0]["flow_run_id"])
    read_until("Running")
    assert events[-1]["actor"].endswith(f":{os.getpid()}")
    read_until("Completed")
    assert events[-1]["task_name"] == "double"
    assert run("flow-run cancel --wait", events[0]["flow_run_id"]).exit_code == 0
    read_until("Cancelled")
    assert process.stdout.read() == ""
    assert process.wait(DEADLINE_SECONDS) == 143
    _check_complete(events)
    names = [one["state"]["name"] for one in events if one["event"] == "flow_run.state"]
    assert names == ["Running", "Paused", "Running", "Cancelling", "Cancelled"]
    assert "Cancelled" in Path("out.xml").read_text()


def test_on_stdout_there_are_only_events_and_prints_go_to_stderr(start):
    ended = start("run", "event_flows.py:etl", "--events", "-")
    assert ended.returncode == 0
    _check_complete([json.loads(line) for line in ended.stdout.splitlines()])
    for word in (b"imported\n", b"printed\n"):
        assert word in ended.stderr


def test_with_a_file_stdout_stays_the_flows_own_or_the_documents(run):
    ended = run("run event_flows:etl --events out.jsonl")
    assert ended.stdout == "imported\nprinted\n"
    document = json.loads(run("run event_flows:etl --events out.jsonl --json").stdout)
    assert document["result"] == 5
    assert {one["flow_run_id"] for one in _read("out.jsonl")} >= {document["id"]}
    assert _read("out.jsonl")[0]["flow_run_id"] == document["id"]


def test_two_documents_on_stdout_are_wrong_usage(run):
    ended = run("run event_flows:etl --events - --json")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        "error: --json and --events - both want stdout",
        "hint: give --events a file",
    ]


def test_a_reader_that_goes_away_does_not_end_the_run(start_command, folder):
    process = start_command("run", "event_flows.py:until_gone", "--events", "-")
    assert json.loads(process.stdout.readline())["state"]["name"] == "Running"
    process.stdout.close()
    process.stdout = None
    (folder / "gone").touch()
    _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 141
    assert "error" not in stderr
    (flow_run,) = _registry().list_flow_runs()
    assert flow_run.state.is_completed()
    assert _registry().count_task_runs(flow_run.id) == {"Completed": 4}


def test_what_became_of_the_run_counts_more_than_who_read_of_it(start):
    reading, writing = os.pipe()
    os.close(reading)
    ended = start("run", "event_flows.py:etl", "-p", "fail=true", "--events", "-", stdout=writing)
    os.close(writing)
    assert ended.returncode == 1


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here to stand for a full disk")
@pytest.mark.parametrize(("flow", "exit_code"), [("bare", 5), ("etl -p fail=true", 1)])
def test_events_that_cannot_be_written_exit_5_unless_the_run_has_a_code(run, flow, exit_code):
    ended = run(f"run event_flows:{flow} --events {FULL}")
    assert ended.exit_code == exit_code
    assert "error: cannot write the events: No space left on device\n" in ended.stderr


@pytest.mark.parametrize("path", ["nowhere/out", ".", "", "a\0b"])
def test_a_file_that_cannot_be_is_an_error_before_the_run_begins(run, path):
    ended = run("run event_flows:bare --events", path)
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert ended.stderr.startswith("error: cannot write '")
    assert _registry().list_flow_runs() == []


def test_an_earlier_file_is_emptied_and_a_device_is_not(start, folder):
    (folder / "out.jsonl").write_text("earlier\n")
    with (folder / "out.jsonl").open("a") as log:
        ended = start("run", "event_flows.py:bare", "--events", "/dev/stdout", stdout=log)
    assert ended.returncode == 0
    first, *lines = (folder / "out.jsonl").read_text().splitlines()
    assert first == "earlier"
    assert len([line for line in lines if line.startswith("{")]) == 2
    assert start("run", "event_flows.py:bare", "--events", "out.jsonl").returncode == 0
    assert len(_read("out.jsonl")) == 2


def test_a_run_that_is_interrupted_is_told_to_its_end(start_command):
    process = start_command("run", "event_flows.py:until_gone", "--events", "out.jsonl", "--quiet")
    assert process.stdout.readline() == "imported\n"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (events := _read("out.jsonl")) or events[-1]["state"]["name"] != "Completed":
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 143
    assert _read("out.jsonl")[-1]["state"]["name"] == "Crashed"
    _check_complete(_read("out.jsonl"))


def test_ctrl_c_ends_the_wait_for_a_reader_that_does_not_read(start_command, until):
    # The states of the 143 task runs are more than a pipe holds.
    process = start_command(
        "run", "event_flows.py:etl", "--events", "-", "--quiet", "--junit", "out.xml"
    )
    until(Path("out.xml").exists)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_SECONDS) == 130
    assert "Traceback" not in process.stderr.read().partition("ValueError")[2]


# What one look after another sees.


class _Followed:
    """A flow run on record, and what is seen of it."""

    def __init__(self, seeds):
        self.registry = seeds.registry
        self.flow_run = seeds.flow_run(end=False)
        self._follower = run_events.EventFollower(self)

    def look(self, *, is_last=False):
        events = self._follower.events(is_last=is_last)
        return [(event["name"], event["state"]["name"]) for event in events]

    def task_run(self, name, *states):
        task_run = TaskRun(
            id=new_id(),
            name=name,
            task_name="t",
            flow_run_id=self.flow_run.id,
            state=states[0],
            created_at=now(),
        )
        self.registry.create_task_runs([task_run])
        return self.take(task_run, *states[1:])

    def take(self, run, *states):
        for state in states:
            run = self.registry.change_state(run, state)
        return run


@pytest.fixture
def followed(seeds):
    return _Followed(seeds)


def test_who_is_interrupted_twice_does_not_wait_for_a_reader(followed, monkeypatch, until):
    monkeypatch.setattr(run_events, "_INTERRUPTED_SECONDS", 0.05)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 1000)
    os.set_blocking(writing, True)
    events = run_events.RunEvents(writing)
    too_late = threading.Timer(20, os.close, [reading])
    too_late.start()
    with pytest.raises(KeyboardInterrupt), events.following(followed):
        raise KeyboardInterrupt
    too_late.cancel()
    assert events.error is None
    events.close()
    os.fstat(writing)  # open, because it is still written to
    os.close(reading)
    until(lambda: events.error is not None)
    os.close(writing)


def test_states_that_came_and_went_between_two_looks_are_told(followed):
    followed.look(is_last=True)
    states = (Pending(), Running(), AwaitingRetry(), Retrying(), Completed())
    followed.task_run("a", *states)
    flow_run = followed.take(followed.flow_run, Paused(), Running(), Completed())
    seen = followed.look(is_last=True)
    assert [name for run, name in seen if run == "a"] == [state.name for state in states]
    assert [name for run, name in seen if run == flow_run.name] == [
        "Paused",
        "Running",
        "Completed",
    ]
    assert followed.look(is_last=True) == []


def test_more_runs_than_one_listing_gives_are_told_once(followed):
    oldest = followed.task_run("oldest", Running())
    for number in range(120):
        followed.task_run(f"a{number}", Running(), Completed())
    assert len(followed.look(is_last=True)) == 2 + 1 + 240
    for number in range(130):
        followed.task_run(f"b{number}", Running(), Failed())
    assert len(followed.look(is_last=True)) == 260
    followed.take(oldest, Completed())
    assert followed.look(is_last=True) == [("oldest", "Completed")]
    followed.task_run("last", Running())
    assert followed.look(is_last=True) == [("last", "Running")]


def test_a_change_that_is_committed_after_a_later_one_still_comes_before_it(followed, until):
    followed.look(is_last=True)
    early = Running()
    followed.task_run("late", Running())
    assert followed.look() == []
    followed.task_run("early", early)
    assert until(followed.look) == [("early", "Running"), ("late", "Running")]


def test_of_one_run_a_later_state_never_comes_first(followed):
    followed.look(is_last=True)
    done = Completed()
    task_run = followed.task_run("a", Running())
    followed.look()
    assert done.timestamp < task_run.state.timestamp
    followed.take(task_run, done)
    assert followed.look(is_last=True) == [("a", "Running"), ("a", "Completed")]


def test_a_flow_run_that_is_deleted_meanwhile_is_followed_no_more(followed):
    assert followed.look(is_last=True) != []
    followed.registry.upkeep.delete_flow_runs([followed.flow_run.id], Deleted())
    assert followed.look(is_last=True) == []


def test_nothing_is_read_while_nothing_is_written(followed, monkeypatch):
    followed.look(is_last=True)
    reading = open_registry(followed.registry.url, read_only=True)
    monkeypatch.setattr(type(reading), "find_flow_run", lambda *_: pytest.fail("it was read"))
    assert followed.look() == followed.look(is_last=True) == []


def test_a_pipe_that_does_not_block_is_waited_for(until):
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, 4096)
    events, lines = (
        run_events.RunEvents(writable),
        [{"event": "x" * 100, "n": n} for n in range(1000)],
    )
    thread = threading.Thread(target=lambda: (events.write(lines), os.close(writable)))
    thread.start()
    until(lambda: events.error or not select.select([], [writable], [], 0)[1])
    with os.fdopen(readable) as reader:
        assert [json.loads(line) for line in reader] == lines
    thread.join(DEADLINE_SECONDS)
    assert events.error is None
