"""Which runs ``flow-run ls`` and ``task-run ls`` list, and which flows ``flow ls``."""

import json
import time
from datetime import timedelta

import pytest

from prefectlite.cli.flow import _FLOWS
from prefectlite.clock import now
from prefectlite.flow_records import FlowSummary
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.states import Failed, Scheduled, StateType, TimedOut

DAY = timedelta(days=1)


@pytest.fixture
def names(run):
    """The names of what a listing lists."""

    def listed(line, *words):
        group, command, *options = line.split()
        ended = run(f"{group} {command} --json", *options, *words)
        assert ended.exit_code == 0, ended.stderr
        return [one["name"] for one in json.loads(ended.stdout)]

    return listed


@pytest.fixture
def deployed(run, flows_folder):
    """The id of the deployment ``the flow/nightly``."""
    assert run("deployment build deployed_flows.py:etl -n nightly -q slow --apply").exit_code == 0
    return json.loads(run("deployment ls --json").stdout)[0]["id"]


def test_flow_runs_are_listed_by_deployment_queue_tag_and_parent(names, seeds, deployed, run):
    parent = seeds.flow_run("parent", tags=("a",))
    seeds.flow_run("child", parent_flow_run_id=parent.id, tags=("a", "b"))
    seeds.flow_run("made", deployment_id=deployed, work_queue="slow")
    for reference in ("nightly", "the flow/nightly", deployed[:8]):
        assert names("flow-run ls --deployment", reference) == ["made"]
    assert names("flow-run ls --queue slow --queue fast") == ["made"]
    assert names("flow-run ls -t a") == ["child", "parent"]
    assert names("flow-run ls --tag b --tag c") == ["child"]
    assert names("flow-run ls --parent parent") == ["child"]
    assert names("flow-run ls --parent parent --tag c") == []
    assert run("flow-run ls --deployment nothing").exit_code == 3
    assert run("flow-run ls --parent nothing").exit_code == 3


def test_flow_runs_are_listed_by_when_they_began(names, seeds):
    seeds.registry.create_flow_run(
        FlowRun(id=new_id(), name="old", flow_name="f", state=Failed(), created_at=now() - 3 * DAY)
    )
    seeds.registry.create_flow_run(
        FlowRun(id=new_id(), name="due", flow_name="f", state=Scheduled(), scheduled_at=now() + DAY)
    )
    seeds.flow_run("now")
    tomorrow = (now() + 2 * DAY).isoformat()
    assert names("flow-run ls --since 2d") == ["now", "due"]
    assert names("flow-run ls --since 2d --until now") == ["now"]
    assert names("flow-run ls --since now --until", tomorrow) == ["due"]
    assert names("flow-run ls --until 2d") == ["old"]
    assert names("flow-run ls --until 2024-02-29") == []


@pytest.mark.parametrize("when", ["yesterday", "90", "2024-13-01", "", "-2h", "99999999d", "inf"])
def test_what_is_no_time_is_wrong_usage(run, when):
    ended = run("flow-run ls --since", when)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "error: --since: " in ended.stderr


def test_a_time_without_a_zone_is_local(names, seeds, monkeypatch):
    monkeypatch.setenv("TZ", "XXX-14")  # fourteen hours ahead of UTC, so that no test machine is
    time.tzset()
    try:
        seeds.flow_run("now")
        local = now().astimezone().strftime("%Y-%m-%dT%H:%M")
        assert names("flow-run ls --since", local) == ["now"]
        assert names("flow-run ls --since", f"{local}+14:00") == ["now"]
        assert names("flow-run ls --since", f"{local}-10:00") == []
    finally:
        monkeypatch.undo()
        time.tzset()


def test_runs_are_listed_by_text_in_any_case(names, seeds):
    seeds.flow_run("Calm-Otter")
    flow_run = seeds.flow_run("b", parameters={"day": "Today"}, end=False)
    seeds.task_run(flow_run, "load-0", end=Failed("No luck"))
    assert names("flow-run ls --text otter") == ["Calm-Otter"]
    assert names("flow-run ls --text", '"DAY": "today"') == ["b"]
    assert names("task-run ls --text LUCK") == ["load-0"]
    assert names("task-run ls --text %") == []


def test_task_runs_are_listed_by_flow_runs_flow_task_and_tag(names, seeds):
    one, two = seeds.flow_run("one", end=False), seeds.flow_run("two", end=False, flow_name="x")
    seeds.task_run(one, "a")
    seeds.task_run(two, "b")
    assert names("task-run ls --flow-run one --flow-run two") == ["b", "a"]
    assert names("task-run ls --flow x") == ["b"]
    assert names("task-run ls --task my_task --task other --since 1h") == ["b", "a"]
    assert names("task-run ls --task other") == []
    assert names("task-run ls --tag x") == []


def test_a_word_that_is_no_state_is_told_where_nothing_is_found(run, seeds):
    assert run("flow-run ls --state fialed").stderr == (
        "note: 'fialed' is no state that prefectlite knows; did you mean failed?\n"
    )
    assert "'xyz' is no state" in run("task-run ls --state xyz --state failed").stderr
    assert run("flow-run ls --state failed --state PENDING --state awaitingretry").stderr == ""
    seeds.flow_run(end=Failed(name="Fialed"))
    assert run("flow-run ls --state fialed").stderr == ""


def test_flows_are_listed_with_how_their_runs_went(run, seeds, deployed):
    for end in (None, None, Failed(), TimedOut(), False):
        seeds.flow_run(end=end)
    listed = json.loads(run("flow ls --json").stdout)
    assert [one["name"] for one in listed] == ["my-flow", "the flow"]
    mine, theirs = listed
    assert (mine["run_count"], mine["success_rate"]) == (5, 0.5)
    assert mine["run_counts"] == {"COMPLETED": 2, "FAILED": 2, "RUNNING": 1}
    assert mine["last_run"]["state"]["name"] == "Running"
    assert mine["mean_seconds"] > 0
    assert (theirs["run_count"], theirs["deployments"]) == (0, ["nightly"])
    assert (theirs["success_rate"], theirs["mean_seconds"], theirs["last_run"]) == (None,) * 3
    lines = run("flow ls --columns flow,runs,success,active,last-state,deployments,failed").stdout
    assert [line.split() for line in lines.splitlines()[1:]] == [
        ["my-flow", "5", "50%", "1", "Running", "-", "2"],
        ["the", "flow", "0", "-", "0", "-", "nightly", "0"],
    ]


def test_flows_are_sorted_by_what_is_shown_of_them(run, seeds):
    seeds.flow_run(flow_name="good")
    seeds.flow_run(flow_name="bad", end=Failed())
    assert run("flow ls --sort success -q").stdout.split() == ["bad", "good"]
    assert run("flow ls --sort -success -q").stdout.split() == ["good", "bad"]
    assert run("flow ls --sort last-run -q").stdout.split() == ["good", "bad"]


@pytest.mark.parametrize("completed", [29, 57, 58])
def test_what_is_a_whole_percentage_is_shown_as_that(completed):
    counts = {StateType.COMPLETED: completed, StateType.FAILED: 100 - completed}
    success = next(column for column in _FLOWS.columns if column.name == "success")
    assert success.text(FlowSummary(name="f", run_counts=counts)) == f"{completed}%"


def test_only_a_flow_whose_every_run_completed_has_full_success():
    counts = {StateType.COMPLETED: 999, StateType.RUNNING: 5}
    success = next(column for column in _FLOWS.columns if column.name == "success")
    assert success.text(FlowSummary(name="f", run_counts=counts)) == "100%"
    counts[StateType.CRASHED] = 1
    assert success.text(FlowSummary(name="f", run_counts=counts)) == "99%"


def test_deployments_are_listed_by_tag_and_queue(run, deployed):
    assert run("deployment ls --queue slow --queue x -q").stdout.split() == [deployed]
    assert run("deployment ls --queue x -q").stdout == ""
    assert run("deployment ls --tag x -q").stdout == ""
