"""What doctor finds out about the registry: it only looks."""

import os
import sqlite3
from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite import registry_checks
from prefectlite.clock import now, to_microseconds
from prefectlite.deployment_records import WorkQueue
from prefectlite.errors import RegistryCorruptError
from prefectlite.findings import Status
from prefectlite.liveness import own_identity
from prefectlite.locks import WriteGate
from prefectlite.names import new_id
from prefectlite.notification_records import NotificationRule
from prefectlite.records import FlowRun, Pause
from prefectlite.states import Failed, Paused, Pending, Running, Scheduled

HOUR = timedelta(hours=1)
_READING = [
    registry_checks.check_times,
    registry_checks.check_stale_runs,
    registry_checks.check_work_queues,
    registry_checks.check_notifications,
]


@pytest.fixture
def add(registry):
    def add_run(state=None, **fields):
        run = FlowRun(id=new_id(), name="n", flow_name="f", state=state or Running(), **fields)
        registry.create_flow_run(run)
        return run

    return add_run


def execute(home, statement):
    connection = sqlite3.connect(home / "registry.db")
    with connection:
        connection.execute(statement)
    connection.close()


def test_a_registry_that_is_not_there_is_no_fault_and_is_not_made(home):
    found = registry_checks.check_registry()
    assert (found.status, str(home) in found.message) == (Status.OK, True)
    for check in (registry_checks.check_integrity, registry_checks.check_gate, *_READING):
        assert check().status is Status.SKIPPED
    assert not home.exists()


def test_a_registry_that_is_right_is_ok_in_every_way(registry, add):
    add()
    for check in (
        registry_checks.check_registry,
        registry_checks.check_integrity,
        registry_checks.check_gate,
        *_READING,
    ):
        assert check().status is Status.OK


def test_an_older_one_is_told_and_stays_so(registry, home):
    registry.close()
    execute(home, "PRAGMA user_version = 4")
    found = registry_checks.check_registry()
    assert (found.status, "schema 4, older" in found.message) == (Status.OK, True)
    assert {check().status for check in _READING} == {Status.SKIPPED}
    assert "schema 4, older" in registry_checks.check_registry().message


def test_one_that_cannot_be_opened_is_told_by_one_check_alone(home):
    home.mkdir()
    (home / "registry.db").write_bytes(os.urandom(8_192))
    with pytest.raises(RegistryCorruptError):  # of which doctor makes an error
        registry_checks.check_registry()
    assert registry_checks.check_integrity().status is Status.SKIPPED
    assert {check().status for check in _READING} == {Status.SKIPPED}


def test_one_that_cannot_be_written_is_a_warning(registry, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert registry_checks.check_registry().status is Status.WARNING


def test_damage_is_an_error(registry, home, add):
    add()
    registry.close()
    connection = sqlite3.connect(home / "registry.db")
    ((root,),) = connection.execute(
        "SELECT rootpage FROM sqlite_schema WHERE name = 'flow_run'"
    ).fetchall()
    connection.close()
    with (home / "registry.db").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    found = registry_checks.check_integrity()
    assert (found.status, found.message.startswith("the file is damaged")) == (Status.ERROR, True)


def test_a_large_one_is_not_read_through(registry, monkeypatch):
    monkeypatch.setattr(registry_checks, "_QUICK_BYTES", 0)
    found = registry_checks.check_integrity()
    assert (found.status, "registry check --quick" in found.message) == (Status.SKIPPED, True)


def test_who_keeps_others_from_writing_is_named(registry, home, monkeypatch):
    monkeypatch.setattr(registry_checks, "_PATIENCE_SECONDS", 0.0)
    gate = WriteGate(home / "registry.lock", timeout_seconds=1)
    gate.enter()
    found = registry_checks.check_gate()
    gate.close()
    assert found.status is Status.ERROR
    assert found.message.startswith(f"process {os.getpid()} (python")
    assert found.message.endswith(") keeps all others from writing")
    assert registry_checks.check_gate().status is Status.OK


def test_a_record_from_the_future_is_a_warning(registry, add):
    add(replace(Running(), timestamp=now() + timedelta(seconds=30)))
    assert registry_checks.check_times().status is Status.OK
    add(replace(Running(), timestamp=now() + HOUR))
    assert registry_checks.check_times().status is Status.WARNING


def dead():
    """The identity of a process that is dead: this one's, of an earlier start of the machine."""
    return replace(own_identity(), boot_id="another", token="0" * 32)


def test_a_run_whose_process_is_dead_is_a_warning_and_stays_as_it_is(registry, add):
    run = registry.begin_flow_run(add(Pending()), Running(), dead())
    found = registry_checks.check_stale_runs()
    assert (found.status, run.id in found.message) == (Status.WARNING, True)
    assert registry.find_flow_run(run.id).state.is_running()


def test_a_run_whose_process_lives_is_not_stale(registry, add):
    registry.begin_flow_run(add(Pending()), Running(), own_identity())
    assert registry_checks.check_stale_runs().status is Status.OK


def test_a_run_that_was_to_be_resumed_by_now_is_a_warning(registry, add):
    pause = Pause(resume_by=now() - HOUR)
    run = registry.pauses.pause_flow_run(add(), Paused(), pause)
    found = registry_checks.check_stale_runs()
    assert (found.status, run.id in found.message) == (Status.WARNING, True)
    assert registry.find_flow_run(run.id).state.is_paused()


def test_a_run_that_nobody_takes_is_a_warning_that_says_what_is_in_the_way(registry, add):
    add(Scheduled(), work_queue="slow", scheduled_at=now() - timedelta(minutes=5))
    add(Scheduled(), scheduled_at=now() - HOUR)
    assert registry_checks.check_work_queues().status is Status.OK
    add(Scheduled(), work_queue="slow", scheduled_at=now() - HOUR)
    found = registry_checks.check_work_queues()
    assert (found.status, "in work queue 'slow'" in found.message) == (Status.WARNING, True)
    assert found.fix.endswith("prefectlite agent start -q slow")
    registry.deployments.create_work_queue(WorkQueue(id=new_id(), name="slow", is_paused=True))
    assert registry_checks.check_work_queues().fix.endswith("prefectlite work-queue resume slow")


def test_a_queue_that_an_agent_serves_may_be_full(registry, add):
    from prefectlite.agent import new_agent

    registry.deployments.save_agent(new_agent("me", ["slow"], None))
    add(Scheduled(), work_queue="slow", scheduled_at=now() - HOUR)
    assert "has no room" in registry_checks.check_work_queues().fix


def test_notifications_that_were_given_up_are_a_warning(registry, add, home):
    registry.notifications.create_rule(NotificationRule(id=new_id(), block="custom-webhook/x"))
    add(Failed())
    assert registry_checks.check_notifications().status is Status.OK
    execute(home, f"UPDATE notification SET due_at = NULL, state_at = {to_microseconds(now())}")
    found = registry_checks.check_notifications()
    assert (found.status, found.message.endswith(": 1")) == (Status.WARNING, True)
