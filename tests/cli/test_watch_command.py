"""prefectlite flow-run watch, where stdout is no terminal; ``test_screens`` has the rest."""

import json
import subprocess
import sys

import pytest

from prefectlite import following
from prefectlite.liveness import end_orphans
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry.sqlite import SQLiteRegistry
from prefectlite.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Running,
    Scheduled,
    TimedOut,
)
from prefectlite.upkeep_records import Deleted


@pytest.mark.parametrize(
    ("state", "code"),
    [(Completed(), 0), (Failed("mine"), 1), (TimedOut(), 124), (Cancelled(), 143)],
)
def test_watch_exits_as_the_run_ended_and_says_why(run, seeds, state, code):
    ended = run("flow-run watch", seeds.flow_run(end=state).id)
    assert ended.exit_code == code
    assert ("error: flow run 'gigantic-cockatoo' is " in ended.stderr) == bool(code)


def test_states_of_flow_runs_and_all_log_lines_are_printed_by_time(run, seeds):
    flow_run = seeds.flow_run(end=False)
    child = seeds.flow_run("child", parent_flow_run_id=flow_run.id)
    seeds.log(flow_run, "early")
    seeds.log(child, "inside", task_run=None)
    seeds.end(flow_run)
    shown = run("flow-run watch", flow_run.id).stdout.splitlines()
    assert [line.partition(" | INFO    | ")[2] for line in shown] == [
        "Flow run 'gigantic-cockatoo' - early",
        "Flow run 'child' - inside",
        "Flow run 'gigantic-cockatoo' - State Pending()",
        "Flow run 'gigantic-cockatoo' - State Running()",
        "Flow run 'child' - State Pending()",
        "Flow run 'child' - State Running()",
    ]


def test_a_run_that_never_began_says_how_it_ended(run, seeds):
    flow_run = FlowRun(id=new_id(), name="later", flow_name="f", state=Scheduled())
    seeds.registry.create_flow_run(flow_run)
    seeds.registry.change_state(flow_run, Cancelled("not today"))
    ended = run("flow-run watch later")
    assert ended.exit_code == 143
    assert ended.stdout.splitlines()[-1].endswith("- State Cancelled('not today')")


def test_a_state_that_does_not_last_until_the_next_look_is_printed(run, seeds, monkeypatch):
    flow_run = FlowRun(id=new_id(), name="later", flow_name="f", state=Scheduled())
    seeds.registry.create_flow_run(flow_run)

    def settle(*_):
        if seeds.registry.find_flow_run(flow_run.id).state.is_scheduled():
            seeds.end(seeds.registry.change_state(flow_run, Running()))

    monkeypatch.setattr(following, "_settle", settle)
    shown = run("flow-run watch later").stdout
    assert "State Scheduled()" in shown
    assert "State Running()" in shown


def test_json_is_each_state_of_the_flow_run_its_task_runs_and_its_subflow_runs(run, seeds):
    flow_run = seeds.flow_run(end=False)
    child = seeds.flow_run("child", parent_flow_run_id=flow_run.id, end=False)
    task_run = seeds.task_run(child)
    seeds.end(child)
    seeds.end(flow_run, Failed("mine"))
    ended = run("flow-run watch --json", flow_run.id)
    assert ended.exit_code == 1
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    found = [(event["name"], event["version"], event["state"]["name"]) for event in events]
    for name, states in {
        "gigantic-cockatoo": ["Pending", "Running", "Failed"],
        "child": ["Pending", "Running", "Completed"],
        task_run.name: ["Running", "Completed"],
    }.items():
        expected = [(name, version, state) for version, state in enumerate(states, start=1)]
        assert [event for event in found if event[0] == name] == expected
    assert found[-1] == ("gigantic-cockatoo", 3, "Failed")


def test_watching_what_is_not_on_record_is_not_found(run):
    assert run("flow-run watch nothing").exit_code == 3


@pytest.mark.parametrize("command", ["logs", "inspect"])
def test_who_follows_nothing_imports_nothing_of_following(seeds, command):
    seeds.log(seeds.flow_run(), "hello")
    code = (
        "import sys; from prefectlite import cli\n"
        f"cli.main(['flow-run', {command!r}, 'gigantic-cockatoo']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    modules = done.stdout.splitlines()[-1].split()
    imported = {name.removeprefix("prefectlite.") for name in modules}
    assert f"cli.flow_run.{command}" in imported
    assert not imported & {
        "following",
        "live_views",
        "run_trees",
        "timelines",
        "run_events",
    }


def test_an_end_that_no_log_line_tells_is_printed(run, seeds):
    flow_run = seeds.flow_run(end=False)
    for name in ("killed", "told"):
        seeds.flow_run(name, parent_flow_run_id=flow_run.id, end=False)
    end_orphans(seeds.registry, flow_run.id, "its process died", kind=Crashed)
    seeds.log(seeds.registry.find_flow_run("told"), "Finished in state Crashed('its process died')")
    seeds.end(flow_run, Cancelled("by hand"))
    shown = run("flow-run watch", flow_run.id).stdout
    assert shown.count("Crashed('its process died')") == 2
    assert "Flow run 'killed' - State Crashed('its process died')" in shown
    assert "Flow run 'gigantic-cockatoo' - State Cancelled('by hand')" in shown


def test_a_subflow_run_that_is_deleted_between_two_reads_is_told_no_more(run, seeds, monkeypatch):
    flow_run = seeds.flow_run(end=False)
    child = seeds.flow_run("child", parent_flow_run_id=flow_run.id)
    seeds.end(flow_run)
    list_run_tree = SQLiteRegistry.list_run_tree

    def list_and_delete(registry, id_):
        found = list_run_tree(registry, id_)
        seeds.registry.upkeep.delete_flow_runs([child.id], Deleted())
        return found

    monkeypatch.setattr(SQLiteRegistry, "list_run_tree", list_and_delete)
    ended = run("flow-run watch", flow_run.id)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "child" not in ended.stdout
