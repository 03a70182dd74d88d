"""That a change is told by a process of its own, whatever becomes of who made it, or of the courier."""

import os
import select
import signal
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prefectlite import courier_processes
from prefectlite.clock import now, to_microseconds
from prefectlite.courier_processes import _couriers
from prefectlite.liveness import own_identity, present_moment
from prefectlite.process_trees import end_children
from prefectlite.states import Completed, Failed, Running

DEADLINE_SECONDS = 40
#: Every process bounds its own life.
FLOWS = """
import signal, time
from pathlib import Path
from prefectlite import flow
from prefectlite.states import Failed

signal.alarm(100)
HERE = Path(__file__).parent

@flow
def fails():
    raise ValueError("mine")

@flow
def has_two():
    fails(return_state=True)
    return Failed("as it was to")

@flow
def waits_for_courier():
    while not (HERE / "held").exists():
        time.sleep(0.01)
    raise ValueError("mine")

@flow
def waits():
    (HERE / "begun").touch()
    while True:
        time.sleep(0.01)
"""
#: Changes a run so that it is to be told, and is killed before it can have that done.
KILLED = """
import os, signal
from prefectlite import courier_processes
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Failed

courier_processes.start_courier = lambda url: os.kill(os.getpid(), signal.SIGKILL)
run = FlowRun(id=new_id(), name="bad", flow_name="f", state=Failed())
open_registry(PREFECTLITE_REGISTRY.value()).create_flow_run(run)
"""
#: A courier that finds nothing; before it can say so to who started it, there is a change.
LATE = """
from prefectlite import courier_processes, couriers
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.states import Failed

def deliver_due(registry):
    couriers.deliver_due = real
    real(registry)
    run = FlowRun(id=new_id(), name="bad", flow_name="f", state=Failed())
    registry.create_flow_run(run)

courier_processes.start_courier = lambda url: None
real, couriers.deliver_due = couriers.deliver_due, deliver_due
couriers.main()
"""
#: Makes a change, forks while another thread is about to start a courier, and makes one in the child.
FORKED = """
import os, threading
from prefectlite import courier_processes
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Failed

def change(name):
    run = FlowRun(id=new_id(), name=name, flow_name="f", state=Failed())
    open_registry(PREFECTLITE_REGISTRY.value()).create_flow_run(run)

change("parent")
threading.Thread(target=courier_processes._couriers.lock.acquire).start()
child = os.fork()
if not child:
    change("child")
    os._exit(0)
os.waitpid(child, 0)
"""


def end_process(pid, number):
    """End a process by a signal, and wait until it is gone.

    Its arguments and its environment go first, its locks later.
    """
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, number)
        assert select.select([descriptor], [], [], DEADLINE_SECONDS)[0]
    finally:
        os.close(descriptor)


@pytest.fixture
def flows(tmp_path):
    (tmp_path / "flows.py").write_text(FLOWS)


@pytest.fixture
def alter(home):
    """Execute a statement as no prefectlite would."""

    def execute(sql, *values):
        connection = sqlite3.connect(home / "registry.db", isolation_level=None, timeout=20)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    return execute


def test_a_change_is_told_in_the_background_by_a_process_of_no_run(site, monkeypatch):
    monkeypatch.setenv("PREFECTLITE_RUN_TOKEN", "of:a-run")
    monkeypatch.setenv("PREFECTLITE_FLOW_RUN_ID", "of-a-run")
    site.add_rule(site.inbox.block())
    site.inbox.open.clear()
    site.add_run(Failed(), name="bad")
    site.until_held()
    (pid,) = site.couriers()
    assert os.getsid(pid) == pid
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"RUN_TOKEN" not in environment
    assert b"of-a-run" not in environment
    standard = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)]
    assert standard == ["/dev/null"] * 3
    site.inbox.open.set()
    site.until_subjects("bad: Failed")
    site.until(lambda: not site.couriers(), "its end")


def test_a_hundred_changes_at_once_start_one_courier(site, monkeypatch):
    site.add_rule(site.inbox.block(), "Failed")
    started = []

    def spawn(*arguments, **options):
        started.append(arguments)
        return posix_spawn(*arguments, **options)

    posix_spawn = os.posix_spawn
    monkeypatch.setattr(os, "posix_spawn", spawn)
    site.inbox.open.clear()
    names = [f"run-{number}" for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: site.add_run(Failed(), name=name), names))
    site.inbox.open.set()
    site.until_subjects(*(f"{name}: Failed" for name in names))
    assert len(started) == 1


def test_no_change_gets_lost_between_a_courier_that_ends_and_the_next(site):
    site.add_rule(site.inbox.block(), "Failed")
    for number in range(12):
        site.add_run(Failed(), name=f"run-{number}")
        site.until(lambda at=number: len(site.inbox.bodies) > at, f"run-{number}")
    assert site.inbox.subjects() == [f"run-{number}: Failed" for number in range(12)]


def test_what_is_changed_while_a_courier_looks_for_the_last_time_is_told(site, monkeypatch):
    # A courier that stays between the end of its looking and its own end.
    (site.folder / "sitecustomize.py").write_text(
        "import atexit, sys, time\n"
        "if 'prefectlite.couriers' in sys.orig_argv:\n"
        "    atexit.register(time.sleep, 100)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{site.folder}:{os.environ['PYTHONPATH']}")
    site.add_rule(site.inbox.block(), "Failed")
    site.add_run(Failed(), name="first")
    site.until_subjects("first: Failed")
    site.until(lambda: site.registry.notifications.next_due_at() is None)
    own = courier_processes._couriers
    site.until(lambda: not own.are_looking(), "the last look")
    assert own.pids
    site.add_run(Failed(), name="second")
    site.until_subjects("first: Failed", "second: Failed")


def test_a_courier_finds_what_was_changed_before_it_said_that_it_looks_no_more(site, start_python):
    site.add_rule(site.inbox.block(), "Failed")
    start_python(LATE).end()
    site.until_subjects("bad: Failed")


@pytest.mark.parametrize("by", ["change", "deliver", "agent"])
def test_what_a_killed_process_has_not_told_is_told_by_the_next(site, by, start_python):
    site.add_rule(site.inbox.block(), "Failed")
    start_python(KILLED).end(-signal.SIGKILL)
    assert site.inbox.bodies == []
    if by == "change":
        site.add_run(Running())
    elif by == "deliver":
        _, told = site.ends("notification", "deliver")
        assert told == "Delivered 1 notification\n"
    else:
        site.ends("agent", "start", "--run-once")
    site.until_subjects("bad: Failed")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_courier_that_is_killed_in_the_middle_of_a_message_is_followed_by_another(site, number):
    rule = site.add_rule(site.inbox.block(), "Failed")
    site.inbox.open.clear()
    site.add_run(Failed(), name="bad")
    site.until_held()
    (pid,) = site.couriers()
    end_process(pid, number)
    site.inbox.open.set()
    site.ends("notification", "deliver")
    assert {*site.inbox.subjects()} == {"bad: Failed"}
    found = site.tables.find_rule(rule.id)
    assert (found.delivered_count, found.waiting_count) == (1, 0)


def test_two_couriers_at_once_tell_each_change_once(site, monkeypatch):
    rule = site.add_rule(site.inbox.block(), "Failed")
    monkeypatch.setattr(courier_processes, "start_courier", lambda url: None)
    for number in range(30):
        site.add_run(Failed(), name=f"run-{number}")
    both = [site.command("notification", "deliver") for _ in range(2)]
    for process in both:
        process.communicate(timeout=DEADLINE_SECONDS)
    assert sorted(site.inbox.subjects()) == sorted(f"run-{number}: Failed" for number in range(30))
    assert site.tables.find_rule(rule.id).delivered_count == 30


def test_an_agent_tries_again_when_it_is_time(site, alter):
    rule = site.add_rule(site.inbox.block(), "Failed")
    site.inbox.stop()
    agent = site.command("agent", "start", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    site.add_run(Failed(), name="bad")
    site.until(lambda: site.tables.find_rule(rule.id).problem, "a problem")
    (kept,) = site.tables.list_notifications(rule.id, limit=9)
    assert 20 < (kept.due_at - now()).total_seconds() <= 30
    site.inbox.start()
    site.inbox.open.clear()
    alter("UPDATE notification SET due_at = ?", to_microseconds(now()) + 1_000_000)
    site.until_held()
    (pid,) = site.couriers()
    status = Path(f"/proc/{pid}/status").read_text()
    assert "SigBlk:\t0000000000000000" in status  # an agent blocks what ends it
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(DEADLINE_SECONDS) == 0
    site.inbox.open.set()
    site.until_subjects("bad: Failed")


@pytest.mark.usefixtures("flows")
def test_the_end_of_a_flow_does_not_wait_for_a_server_that_hangs(site):
    site.add_rule(site.inbox.block(), "Failed")
    site.inbox.open.clear()
    process = site.command("run", "flows.py:fails", "--name", "bad")
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    site.until_held()
    assert site.inbox.bodies == []
    assert site.registry.find_flow_run("bad").state.is_final()
    site.inbox.open.set()
    site.until_subjects("bad: Failed")


def _detached(site, flow):
    """Run a flow under a supervisor; return what its log says, once nothing of it is left."""
    out, error = site.ends("run", f"flows.py:{flow}", "--detach")
    flow_run_id = out.strip()
    assert flow_run_id, error
    folders = Path(os.environ["PREFECTLITE_HOME"], "runs")
    site.until(lambda: not any(folders.iterdir()), "its settling")
    assert site.registry.find_flow_run(flow_run_id).state.is_failed()
    return "\n".join(line.message for line in site.registry.read_logs(flow_run_id))


@pytest.mark.usefixtures("flows")
@pytest.mark.parametrize("flow", ["fails", "has_two"])
def test_a_supervised_run_that_fails_at_once_is_told_although_all_it_started_is_ended(site, flow):
    rule = site.add_rule(site.inbox.block(), "Failed")
    assert "left running" not in _detached(site, flow)
    runs = site.registry.list_flow_runs()
    assert len(runs) == (1 if flow == "fails" else 2)
    site.until_told(rule, len(runs))
    assert {*site.inbox.subjects()} == {f"{run.name}: Failed" for run in runs}


@pytest.mark.usefixtures("flows")
def test_what_the_courier_of_a_supervised_run_does_not_get_done_is_told_by_another(site):
    rule = site.add_rule(site.inbox.block(), "Running")
    site.inbox.open.clear()
    site.inbox.on_request = (site.folder / "held").touch
    assert "left running" not in _detached(site, "waits_for_courier")
    site.until_held(2)
    site.inbox.open.set()
    site.until_told(rule, 1)


@pytest.mark.usefixtures("flows")
def test_a_flow_that_is_cancelled_while_a_server_hangs_ends_and_is_told_of(site):
    rule = site.add_rule(site.inbox.block(), "Running", "Cancelled")
    site.inbox.open.clear()
    process = site.command("run", "flows.py:waits", "--name", "endless")
    site.until((site.folder / "begun").exists)
    site.until_held()
    site.ends("flow-run", "cancel", "endless", "--wait")
    process.communicate(timeout=DEADLINE_SECONDS)
    assert site.registry.find_flow_run("endless").state.is_cancelled()
    site.inbox.open.set()
    site.ends("notification", "deliver")
    site.until_told(rule, 2)
    assert {*site.inbox.subjects()} == {"endless: Running", "endless: Cancelled"}


def test_a_forked_child_has_a_courier_of_its_own(site, start_python):
    site.add_rule(site.inbox.block(), "Failed")
    site.inbox.open.clear()
    start_python(FORKED).end()
    site.until_held(2)
    assert len(site.couriers()) == 2
    site.inbox.open.set()
    site.until_subjects("parent: Failed", "child: Failed")


def test_where_no_process_can_be_started_the_change_is_made_and_told_later(site, monkeypatch):
    site.add_rule(site.inbox.block(), "Failed")
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        flow_run = site.add_run(Failed(), name="bad")
    assert site.registry.find_flow_run(flow_run.id).state.is_failed()
    site.registry.change_state(site.add_run(Running()), Completed())
    site.until_subjects("bad: Failed")


def test_the_end_of_a_flow_spares_its_couriers():
    began = present_moment()
    own_identity()  # what is started from here on is marked as this process's
    courier, other = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    _couriers.pids.add(courier.pid)
    try:
        end_children(own_identity(), began)
        assert other.wait(DEADLINE_SECONDS) == -signal.SIGTERM
        assert courier.poll() is None
    finally:
        _couriers.pids.discard(courier.pid)
        for process in (courier, other):
            process.kill()
            process.wait(DEADLINE_SECONDS)
