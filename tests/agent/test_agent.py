"""Agents at work, as processes: which runs they take, when, and what they do when they cannot."""

import fcntl
import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from prefectlite import agent
from prefectlite.agent import Service, new_agent
from prefectlite.clock import now
from prefectlite.errors import InfrastructureError, RegistryLockTimeoutError, RegistryNewerError
from prefectlite.launching import launch
from prefectlite.liveness import is_alive
from prefectlite.settling import settle
from prefectlite.upkeep_records import Deleted

# What is taken, and when


def test_due_runs_begin_in_order_each_when_there_is_room(site):
    site.queue(concurrency_limit=1)
    runs = [site.add(seconds=seconds) for seconds in (10, 30, 20)]
    agent = site.agent()
    site.until_final(*runs)
    assert site.begun() == [runs[1].id, runs[2].id, runs[0].id]
    assert {site.state(run) for run in runs} == {"Completed"}
    times = sorted((site.find(run).started_at, site.find(run).ended_at) for run in runs)
    assert all(end <= start for (_, end), (start, _) in pairwise(times))
    found = site.find(runs[0])
    assert site.history(found) == ["Scheduled", "Pending", "Running", "Completed"]
    assert found.launcher.pid == agent.process.pid
    assert found.infrastructure_pid == f"{found.supervisor.hostname}:{found.supervisor.pid}"


def test_a_future_run_begins_when_its_time_comes(site):
    run = site.add(seconds=-1.5)
    site.agent().says("takes runs from: default")
    assert site.state(run) == "Scheduled"
    ended = site.until_state("Completed", run)
    assert ended.started_at >= run.scheduled_at


def test_an_overdue_run_of_a_paused_queue_is_late_and_begins_when_that_is_resumed(site):
    queue = site.queue(is_paused=True)
    overdue, waiting = site.add(seconds=16), site.add(seconds=1)
    site.agent()
    site.until_state("Late", overdue)
    assert site.state(waiting) == "Scheduled"
    site.tables.change_work_queue(queue.id, is_paused=False)
    site.until_state("Completed", overdue, waiting)
    assert site.history(overdue) == ["Scheduled", "Late", "Pending", "Running", "Completed"]


def test_a_run_begins_when_the_limit_of_its_queue_is_raised(site):
    queue = site.queue(concurrency_limit=1)
    first, second = site.add("wait", seconds=2), site.add("wait")
    site.agent()
    site.until_begun(first)
    assert site.state(second) == "Scheduled"
    site.tables.change_work_queue(queue.id, concurrency_limit=2)
    site.until_begun(second)
    site.go()
    site.until_state("Completed", first, second)


def test_a_limit_counts_what_agents_of_the_name_have_taken_before(site):
    first, second = site.add("wait", seconds=2), site.add()
    site.agent_once("--limit", "1", "--name", "a")
    site.until_begun(first)
    assert site.agent_once("--limit", "1", "--name", "a") == ""
    assert site.state(second) == "Scheduled"
    site.go()
    site.until_state("Completed", first)
    site.agent_once("--limit", "1", "--name", "a")
    assert site.until_state("Completed", second).agent_name == "a"


def test_a_round_with_nothing_to_do_is_silent(site):
    assert site.agent_once() == ""
    site.add(seconds=-3600)
    assert site.agent_once() == ""


@pytest.mark.parametrize(
    "infrastructure",
    [{"type": "nonsense"}, {"nonsense": 1}, {"timeout_seconds": "long"}],
    ids=["type", "field", "value"],
)
def test_a_run_whose_infrastructure_is_wrong_is_crashed_and_the_next_begins(site, infrastructure):
    wrong = site.add(seconds=2, infrastructure=infrastructure)
    right = site.add()
    site.agent_once()
    site.until_state("Completed", right)
    state = site.find(wrong).state
    assert state.name == "Crashed"
    assert next(iter(infrastructure)) in state.message or "nonsense" in state.message
    assert site.begun() == [right.id]


# How it ends


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)],
    ids=lambda one: getattr(one, "name", one),
)
def test_at_a_signal_it_ends_and_its_runs_go_on_to_their_end(site, number, exit_code):
    run, waiting = site.add("wait"), site.add(seconds=-3600)
    agent = site.agent()
    site.until_begun(run)
    agent.says(f"Launched flow run {run.name!r}").ends(exit_code, by=number)
    assert f"{number.name}: no more runs are taken" in agent.text()
    assert site.tables.list_agents() == []
    assert site.state(run) == "Running"
    site.go()
    site.until_state("Completed", run)
    assert site.state(waiting) == "Scheduled"
    site.until_empty()


def test_one_that_was_stopped_as_it_waited_goes_on(site, stop_process):
    agent = site.agent().says("takes runs from: default")
    for _ in range(3):
        stop_process(agent.process.pid)  # as Ctrl-Z does
        run = site.add(
            seconds=-0.5
        )  # its time comes after the end of what the agent waits for at once
        site.until(lambda run=run: now() >= run.scheduled_at, "its time")
        agent.process.send_signal(signal.SIGCONT)
        site.until_state("Completed", run)
    agent.ends(by=signal.SIGTERM)


def test_one_that_is_stopped_when_it_is_told_to_end_does_so_when_it_goes_on(site, stop_process):
    agent = site.agent().says("takes runs from: default")
    stop_process(agent.process.pid)
    agent.process.send_signal(signal.SIGTERM)
    agent.process.send_signal(signal.SIGCONT)
    agent.ends()
    assert "SIGTERM: no more runs are taken" in agent.text()


def test_one_that_was_started_by_nohup_outlives_its_terminal(site):
    agent = site.agent(prefix=["nohup"]).says("takes runs from: default")
    agent.process.send_signal(signal.SIGHUP)
    site.until_state("Completed", site.add())
    agent.ends(by=signal.SIGTERM)


def test_it_tells_how_each_run_that_it_launched_has_ended_and_of_none_twice(site):
    run = site.add("wait")
    agent = site.agent()
    site.until_begun(run)
    site.go()
    agent.says(f"Flow run {run.name!r} is Completed(), after ")
    site.hold()
    cancelled = site.add("wait", name="unwanted")
    site.until_begun(cancelled)
    site.ask(cancelled)
    agent.says("Flow run 'unwanted' is Cancelled(").ends(by=signal.SIGTERM)
    assert [agent.text().count(f"Flow run {name!r} is ") for name in (run.name, "unwanted")] == [
        1,
        1,
    ]


def test_a_supervisor_that_has_ended_is_no_zombie_though_nothing_more_is_launched(site):
    run = site.add()
    site.agent(is_hurried=True)
    pid = site.until_state("Completed", run).supervisor.pid
    site.until(lambda: not Path(f"/proc/{pid}").exists(), "its last remains", seconds=10)


# What is in the way


def test_a_run_that_cannot_be_started_is_scheduled_again_and_begins_later(site):
    folder = site.home / "runs"
    folder.write_text("in the way")
    runs = [site.add(seconds=2), site.add()]
    told = site.agent_once(exit_code=5)
    assert f"flow run {runs[0].name!r} could not be started: " in told
    assert ("; it is left to the next agent" in told, "trying again" in told) == (True, False)
    for run in runs:
        found = site.find(run)
        assert (found.state.name, found.launcher, found.agent_name) == ("Scheduled", None, None)
    assert "could not be started" in site.find(runs[0]).state.message
    folder.unlink()
    site.agent_once()
    site.until_state("Completed", *runs)
    assert sorted(site.begun()) == sorted(run.id for run in runs)


def test_an_agent_that_cannot_start_runs_tries_again_less_and_less_often(site):
    folder = site.home / "runs"
    folder.write_text("in the way")
    run = site.add()
    agent = site.agent()
    agent.says("trying again in 0.5s").says("trying again in 1.0s")
    folder.unlink()
    site.until_state("Completed", run)
    assert set(site.history(run)[:-3]) == {"Scheduled", "Pending"}
    agent.ends(by=signal.SIGTERM)


def test_an_agent_whose_registry_is_away_says_so_and_goes_on_when_it_is_back(site, tmp_path):
    run = site.add(seconds=-1)
    agent = site.agent().says("takes runs from")
    path, away = site.home / "registry.db", tmp_path / "away.db"
    path.rename(away)
    agent.says("was deleted while it was in use; trying again in 0.5s")
    away.rename(path)
    site.until_state("Completed", run)
    agent.ends(by=signal.SIGTERM)


def test_an_agent_that_is_kept_from_writing_says_so_and_goes_on(site):
    agent = site.agent(PREFECTLITE_REGISTRY_LOCK_SECONDS="0.1").says("takes runs from")
    run = site.add()
    site.registry.close()
    with (site.home / "registry.lock").open("rb+") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        agent.says("trying again in 0.5s")
    site.until_state("Completed", run)
    agent.ends(by=signal.SIGTERM)


@pytest.fixture
def service(site):
    """Make an agent of this process, which does a round when it is told to."""
    told = []
    service = Service(site.registry, new_agent("a", ["default"], None), told.append)
    service.told = told
    return service


def test_it_waits_no_longer_than_until_the_next_run_is_due(site, service):
    assert service._round() > 1
    site.add(seconds=-0.5)
    assert 0 < service._round() <= 0.5


@pytest.mark.parametrize("failure", ["launched", "not released", "released"])
def test_what_it_has_taken_is_launched_once_when_the_registry_can_be_used_again(
    site, service, monkeypatch, failure
):
    runs, launched = [site.add() for _ in range(3)], []
    release = site.registry.launches.release_flow_run

    def noted(registry, flow_run):
        launched.append(flow_run.id)
        return launch(registry, flow_run)

    def fails_once(registry, flow_run):
        monkeypatch.setattr(agent, "launch", noted)
        if failure == "launched":
            noted(registry, flow_run)
            raise RegistryLockTimeoutError("held")
        monkeypatch.setattr(site.registry.launches, "release_flow_run", is_held)
        raise InfrastructureError("no room")

    def is_held(flow_run, state):
        monkeypatch.delattr(site.registry.launches, "release_flow_run")
        if failure == "released":
            release(flow_run, state)
        raise RegistryLockTimeoutError("held")

    monkeypatch.setenv("PYTHONPATH", site.sources)
    monkeypatch.setattr(agent, "launch", fails_once)
    with pytest.raises(RegistryLockTimeoutError):
        service._round()
    for _ in range(2):  # what was left of those that were taken, and what was let go
        service._claim_at = service._settle_at = 0.0
        service._round()
    site.until_state("Completed", *runs)
    assert sorted(launched) == sorted(site.begun()) == sorted(run.id for run in runs)
    history = [change.state for run in runs for change in site.registry.state_history(run)]
    assert not any("died" in (state.message or "") for state in history), history  # it lives


def test_a_run_that_is_deleted_just_when_it_was_taken_is_passed_over(site, service, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", site.sources)
    deleted, other = site.add(seconds=3), site.add(seconds=2)

    def launch_deleted(registry, flow_run):
        if flow_run.id == deleted.id:
            registry.upkeep.delete_flow_runs([flow_run.id], Deleted())
        return launch(registry, flow_run)

    monkeypatch.setattr(agent, "launch", launch_deleted)
    service._round()
    site.until_state("Completed", other)
    assert site.begun() == [other.id]


def test_a_run_that_is_deleted_just_when_it_would_be_late_is_passed_over(
    site, service, monkeypatch
):
    site.queue(is_paused=True)
    overdue = [site.add(seconds=20) for _ in range(2)]
    find = site.tables.list_overdue_flow_runs

    def find_and_delete(queues, *, before):
        found = find(queues, before=before)
        site.registry.upkeep.delete_flow_runs([found[0].id], Deleted())
        return found

    monkeypatch.setattr(site.tables, "list_overdue_flow_runs", find_and_delete)
    service._round()
    assert [run.state.name for run in site.registry.list_flow_runs()] == ["Late"]
    assert len(overdue) == 2


def test_a_run_that_is_deleted_just_when_its_death_is_recorded_is_passed_over(site):
    deleted, lost = site.add("wait", seconds=3), site.add("wait")
    site.agent_once()
    site.until_begun(deleted, lost)
    for run in (deleted, lost):
        supervisor = site.find(run).supervisor
        os.kill(supervisor.pid, signal.SIGKILL)
        site.until(lambda one=supervisor: is_alive(one) is False, "its death")

    def registry():
        if site.registry.list_flow_runs(limit=None)[-1].id == deleted.id:
            site.registry.upkeep.delete_flow_runs([deleted.id], Deleted())
        return site.registry

    assert settle(site.registry, registry) == []
    assert site.state(lost) == "Crashed"


def test_a_registry_that_a_newer_prefectlite_has_taken_over_ends_it(site, service, monkeypatch):
    def is_newer():
        raise RegistryNewerError("schema 99")

    monkeypatch.setattr(site.registry, "change_mark", is_newer)
    with pytest.raises(RegistryNewerError):
        service.run()
    assert site.tables.list_agents() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
