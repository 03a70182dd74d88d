"""Agents that end runs whose cancellation was asked for by somebody who is gone."""

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest

from prefectlite.agent import Service, new_agent
from prefectlite.cancellation import request_cancellation
from prefectlite.clock import now
from prefectlite.launching import launch
from prefectlite.names import new_id
from prefectlite.process_trees import end_cgroup
from prefectlite.run_folders import RunFolder
from prefectlite.states import Running
from prefectlite.upkeep_records import Deleted


def begun(site, flow="stubborn", **fields):
    """Have a run launched by an agent that then ends, and return it once its flow has begun."""
    flow_run = site.add(flow, **fields)
    site.agent_once("-q", flow_run.work_queue)
    site.until_begun(flow_run)
    return site.find(flow_run)


def test_a_run_that_does_not_end_is_killed_with_all_that_it_started(site, stop_process):
    run = begun(site)
    stop_process(run.process.pid)  # it does not see the request by itself
    site.ask(run)
    agent = site.agent()
    ended = site.until_state("Cancelled", run)
    assert "it did not end within" in ended.state.message
    agent.says(f"Flow run {run.name!r} is Cancelled").ends(by=signal.SIGTERM)
    site.until_empty()


def test_a_run_that_heeds_ends_by_itself(site):
    run = begun(site, "wait")
    site.ask(run, grace_seconds=60)
    site.agent()
    ended = site.until_state("Cancelled", run)
    assert ended.state.message == "It ended by itself, as it was asked to."


def test_agents_that_are_killed_meanwhile_keep_to_the_same_deadline(site):
    run = begun(site)
    site.ask(run, grace_seconds=600)
    kill_at = site.find(run).kill_at
    told = RunFolder.of(run.supervisor).path / "stop.json"
    site.until(told.exists, "told to end by the run itself, which does it once")
    for _ in range(2):
        left = kill_at - now()
        told.unlink()
        agent = site.agent().says("takes runs from")
        site.until(told.exists, "told to end")
        agent.ends(-signal.SIGKILL, by=signal.SIGKILL)
        assert json.loads(told.read_text())["grace_seconds"] < left.total_seconds()
    asked = site.find(run)
    assert (asked.state.name, asked.kill_at) == ("Cancelling", kill_at)
    site.registry.launches.set_kill_at(run.id, now())  # by who would wait no longer
    agent = site.agent()
    ended = site.until_state("Cancelled", run)
    assert ended.kill_at <= ended.ended_at < kill_at
    agent.ends(by=signal.SIGTERM)
    site.until_empty()


def test_a_round_tells_a_run_to_end_and_leaves_the_rest_to_its_supervisor(site, stop_process):
    run = begun(site)
    stop_process(run.process.pid)
    site.ask(run)
    site.agent_once()
    site.until_state("Cancelled", run)
    site.until_empty()


def test_a_run_of_a_queue_that_it_does_not_serve_is_left_and_one_of_none_is_not(site, stop_process):
    other, own, of_none = begun(site, queue="other"), begun(site), begun(site, queue="x")
    of_none = site.alter(of_none, work_queue=None)  # as `run --detach` makes them
    for run in (other, own, of_none):
        stop_process(run.process.pid)
        site.ask(run)
    agent = site.agent()
    site.until_state("Cancelled", own, of_none)
    assert site.state(other) == "Cancelling"
    assert other.name not in agent.ends(by=signal.SIGTERM).text()
    site.agent_once("-q", "other")
    site.until_state("Cancelled", other)


def test_a_run_of_another_host_is_left_to_that(site):
    run = begun(site, "wait")
    away = {"hostname": "elsewhere", "boot_id": "elsewhere", "machine_id": "elsewhere"}
    elsewhere = replace(
        run,
        id=f"{run.id[:-4]}0000",
        infrastructure_pid=f"elsewhere:{run.supervisor.pid}",
        supervisor=replace(run.supervisor, token="t", **away),
        process=replace(run.process, token="t", **away),
    )
    site.registry.create_flow_run(elsewhere)
    site.ask(elsewhere, grace_seconds=-20)  # long over
    agent = site.agent()
    ended = site.add()  # the agent goes on with others
    site.until_state("Completed", ended)
    assert site.agent_once() == ""
    assert site.state(elsewhere) == "Cancelling"
    assert site.state(run) == "Running"
    assert elsewhere.id not in agent.text()
    site.go()
    site.until_state("Completed", run)


@pytest.mark.parametrize(
    "infrastructure", [{"type": "nonsense"}, {"nonsense": 1}], ids=["type", "field"]
)
def test_where_the_infrastructure_cannot_be_built_a_run_stays_cancelling_and_is_told_once(
    site, infrastructure, stop_process, monkeypatch
):
    run = begun(site, "wait")
    stop_process(run.process.pid)  # it would see the request by itself
    run = site.alter(run, infrastructure=json.dumps(infrastructure))
    site.ask(run, grace_seconds=60)
    agent = site.agent().says(f"cannot cancel flow run {run.id}: ").ends(by=signal.SIGTERM)
    assert "nonsense" in agent.text()
    monkeypatch.setattr("prefectlite.agent._TRY_AGAIN_SECONDS", 0.0)
    told = []
    service = Service(site.registry, new_agent("a", ["default"], None), told.append)
    for _ in range(3):
        service._round()
    assert [text.partition(" flow run ")[0] for text in told] == ["cannot cancel"]
    assert site.state(run) == "Cancelling"
    # One to whom the infrastructure means something ends it.
    site.alter(run, infrastructure=json.dumps({"type": "process"}))
    site.agent_once()
    site.until_state("Cancelled", run)


def test_a_run_that_nothing_was_recorded_of_is_cancelled_and_says_so(site):
    run = site.add(state=Running())
    site.ask(run)
    site.agent_once()
    assert "its process was never recorded" in site.until_state("Cancelled", run).state.message


def test_a_run_that_was_taken_and_is_cancelled_before_it_is_launched_does_not_begin(site):
    run = site.add()
    taker = new_agent("a", ["default"], None)
    (taken,) = site.tables.claim_due_flow_runs(["default"], limit=1, at=now(), agent=taker)
    request_cancellation(site.registry, taken)
    launch(site.registry, taken)
    site.agent()
    site.until_state("Cancelled", run)
    assert site.begun() == []


def test_what_is_not_proven_to_be_the_run_is_not_signalled(site, start_python):
    stranger = start_python("print('ready', flush=True); input()")
    assert stranger.line() == "ready"
    run = begun(site, "wait")
    site.go()
    site.until_state("Completed", run)
    # As when the stranger was given the PID that the run had.
    id_ = new_id()
    folder = site.home / "runs" / f"{id_}.t"
    claims = {"pid": stranger.pid, "token": "t", "lock_path": str(folder / "supervisor.lock")}
    claimed = replace(
        run,
        id=id_,
        state=Running(),
        supervisor=replace(run.supervisor, **claims),
        process=replace(run.process, **claims),
        infrastructure_pid=f"{run.supervisor.hostname}:{stranger.pid}",
    )
    site.registry.create_flow_run(claimed)
    site.ask(claimed, grace_seconds=0)
    site.agent_once()
    site.until_final(claimed)
    assert stranger.process.poll() is None
    stranger.tell()
    stranger.end()


def test_a_run_whose_processes_died_is_crashed_by_the_next_round(site):
    run, lost = begun(site, "wait"), begun(site, "wait")
    os.kill(lost.supervisor.pid, signal.SIGKILL)  # its engine dies with it
    site.agent_once()
    assert "supervisor was killed" in site.find(lost).state.message
    assert [site.state(each) for each in (run, lost)] == ["Running", "Crashed"]


def test_a_run_that_is_deleted_while_it_is_being_cancelled_is_forgotten(site):
    run = begun(site)
    site.ask(run, grace_seconds=60)
    agent = site.agent().says("takes runs from")
    site.registry.upkeep.delete_flow_runs([run.id], Deleted())
    site.until_state("Completed", site.add())
    assert "cannot cancel" not in agent.ends(by=signal.SIGTERM).text()


@pytest.mark.parametrize("name", ["Crashed", "Cancelled"])
def test_a_run_whose_supervisor_died_and_whose_folder_is_lost_is_not_shown_as_going_on(
    site, name, stop_process
):
    run = begun(site, "wait")
    if name == "Cancelled":
        stop_process(run.process.pid)
        site.ask(run)
    group = RunFolder.of(run.supervisor).cgroup()
    os.kill(run.supervisor.pid, signal.SIGKILL)
    shutil.rmtree(site.home / "runs")
    site.agent_once()
    site.until_state(name, run)
    site.until_empty()
    if group is not None:  # nobody else knows of it any more
        end_cgroup(group)
