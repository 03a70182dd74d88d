"""Waiting for a flow run to come to a state."""

import threading

import pytest

from prefectlite import waiting
from prefectlite.errors import NotFoundError, RegistryReadOnlyError
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.states import Completed, Paused, Running, Scheduled, State
from prefectlite.upkeep_records import Deleted
from prefectlite.waiting import wait_for_flow_run, wait_for_flow_runs


@pytest.fixture
def flow_run(registry):
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Scheduled())
    registry.create_flow_run(run)
    return run


def test_a_run_that_is_there_already_is_returned_at_once(registry, flow_run):
    found = wait_for_flow_run(registry, flow_run.id, until=State.is_scheduled)
    assert found == flow_run


def test_a_final_state_ends_every_waiting(registry, flow_run):
    ended = registry.change_state(registry.change_state(flow_run, Running()), Completed())
    assert wait_for_flow_run(registry, flow_run.id, until=State.is_paused) == ended


def test_waiting_ends_when_another_changes_the_run(registry, flow_run):
    states = [Running(), Paused(), Running(), Completed()]

    def work():
        run = flow_run
        for state in states:
            run = registry.change_state(run, state)

    later = threading.Timer(0.05, work)
    later.start()
    assert wait_for_flow_run(registry, flow_run.id, timeout_seconds=60).state.is_completed()
    later.join()


@pytest.mark.parametrize("timeout", [0, 0.03, -1])
def test_a_timeout_returns_the_run_as_it_is(registry, flow_run, timeout):
    assert wait_for_flow_run(registry, flow_run.id, timeout_seconds=timeout) == flow_run


def test_a_long_pause_between_looks_does_not_outlast_the_timeout(registry, flow_run, monkeypatch):
    pauses, sleep = [], waiting.sleep
    monkeypatch.setattr(waiting, "sleep", lambda seconds: (pauses.append(seconds), sleep(seconds)))
    wait_for_flow_run(registry, flow_run.id, timeout_seconds=0.01, poll_seconds=50)
    assert 0 < max(pauses) <= 0.01


def test_the_pauses_between_looks_grow_to_a_tenth_of_a_second(registry, flow_run, monkeypatch):
    clock, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(waiting, "sleep", sleep)
    monkeypatch.setattr(waiting, "monotonic", lambda: clock[0])
    wait_for_flow_run(registry, flow_run.id, timeout_seconds=10)
    assert pauses[0] == 0.02
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses) == 0.1
    assert sum(pauses) == pytest.approx(10)


def test_a_run_that_is_not_there_is_not_found(registry, flow_run):
    with pytest.raises(NotFoundError):
        wait_for_flow_run(registry, new_id())
    deleting = registry.upkeep.delete_flow_runs, [[flow_run.id], Deleted()]
    threading.Timer(0.05, *deleting).start()
    with pytest.raises(NotFoundError):
        wait_for_flow_run(registry, flow_run.id, timeout_seconds=60)


DYING = """
import sys
from prefectlite.liveness import own_identity
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.states import Running

run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running(), process=own_identity())
open_registry(sys.argv[1]).create_flow_run(run)
print(run.id, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("read_only", [False, True])
def test_waiting_ends_when_the_runs_process_dies(registry, start_python, monkeypatch, read_only):
    monkeypatch.setattr(waiting, "SETTLE_SECONDS", 0.2)
    process = start_python(DYING, registry.url)
    id_ = process.line()
    killer = threading.Timer(0.05, process.kill)
    killer.start()
    waiter = open_registry(registry.url, read_only=read_only)
    found = wait_for_flow_run(waiter, id_, timeout_seconds=60)
    killer.join()
    assert found.state.is_crashed()
    assert registry.find_flow_run(id_).state.is_crashed()
    if read_only:
        waiter.close()


def test_waiting_for_a_dead_run_that_cannot_be_recorded_is_refused(
    registry, start_python, monkeypatch
):
    program = start_python(
        "from prefectlite import flow\n"
        "@flow\n"
        "def runs():\n    print('ready', flush=True); input()\n"
        "runs()"
    )
    assert program.line() == "ready"
    (run,) = registry.list_flow_runs()
    program.kill()

    def refuse(_):
        raise RegistryReadOnlyError("read-only")

    monkeypatch.setattr(waiting, "open_registry", refuse)
    with pytest.raises(RegistryReadOnlyError, match="its process is dead"):
        wait_for_flow_run(registry, run.id)


def test_the_runs_are_read_again_when_there_is_a_change_or_a_second_is_over(
    registry, flow_run, monkeypatch
):
    clock, reads, find = [0.0], [], registry.find_flow_run

    def sleep(seconds):
        clock[0] += seconds

    monkeypatch.setattr(waiting, "sleep", sleep)
    monkeypatch.setattr(waiting, "monotonic", lambda: clock[0])
    monkeypatch.setattr(registry, "find_flow_run", lambda id_: (reads.append(id_), find(id_))[1])
    wait_for_flow_runs(registry, [flow_run.id] * 3, timeout_seconds=10, poll_seconds=0.01)
    assert 0 < len(reads) <= 3 * 11
