"""prefectlite flow-run: ls, inspect, logs, delete."""

import json

import pytest

from prefectlite.clock import from_microseconds
from prefectlite.names import new_id
from prefectlite.results import load_result, store_result
from prefectlite.run_filters import DEFAULT_LIMIT
from prefectlite.states import Failed, TimedOut

_RUN_KEYS = {
    "id", "name", "flow_name", "state", "parameters", "tags", "version", "entrypoint",
    "infrastructure_pid", "deployment_id", "work_queue", "agent_name", "infrastructure",
    "scheduled_at", "kill_at",
    "parent_flow_run_id", "parent_task_run_id", "run_count", "created_at", "started_at",
    "ended_at", "duration_seconds",
}  # fmt: skip
_TIME = from_microseconds(1_700_000_000_513_000).astimezone().strftime("%Y-%m-%d %H:%M:%S.513")


def _rows(stdout):
    return [line.split("  ") for line in stdout.splitlines()[1:]]


def test_ls_shows_the_newest_first_in_plain_columns_with_full_ids(run, seeds):
    older, newer = seeds.flow_run("older"), seeds.flow_run("newer", end=Failed("why"))
    ended = run("flow-run ls")
    assert ended.stderr == ""
    header, first, second = ended.stdout.splitlines()
    assert header.split() == ["ID", "FLOW", "NAME", "STATE", "STARTED", "DURATION"]
    assert first.startswith(f"{newer.id}  my-flow  newer  Failed     2")
    assert second.startswith(f"{older.id}  my-flow  older  Completed  2")
    assert not any(line.endswith(" ") for line in ended.stdout.splitlines())


def test_ls_of_nothing_is_a_header_or_an_empty_list(run):
    assert len(run("flow-run ls").stdout.splitlines()) == 1
    assert json.loads(run("flow-run ls --json").stdout) == []


def test_ls_cuts_nothing_in_a_pipe(run, seeds):
    name = "long-" * 100
    seeds.flow_run(name)
    assert name in run("flow-run ls").stdout


def test_a_run_that_has_not_started_has_a_dash_for_what_it_lacks(run, seeds):
    from prefectlite.records import FlowRun
    from prefectlite.states import Scheduled

    seeds.registry.create_flow_run(
        FlowRun(id=new_id(), name="later", flow_name="f", state=Scheduled())
    )
    assert run("flow-run ls").stdout.splitlines()[1].split()[-2:] == ["-", "-"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--state failed", {"f", "t"}),
        ("--state TimedOut", {"t"}),
        ("-s timedout -scompleted", {"t", "c", "o"}),
        ("--flow other", {"o"}),
        ("--flow other -f my-flow --state completed", {"o", "c"}),
        ("--limit 1", {"o"}),
        ("-n2", {"o", "t"}),
        ("--state nonsense", set()),
    ],
)
def test_ls_shows_only_what_was_asked_for(run, seeds, options, expected):
    seeds.flow_run("c")
    seeds.flow_run("f", end=Failed())
    seeds.flow_run("t", end=TimedOut())
    seeds.flow_run("o", flow_name="other")
    listed = json.loads(run(f"flow-run ls {options} --json").stdout)
    assert {flow_run["name"] for flow_run in listed} == expected


def test_ls_as_json_has_every_field_of_the_record(run, seeds):
    flow_run = seeds.flow_run(parameters={"x": [1, None]}, tags=("a",))
    (listed,) = json.loads(run("flow-run ls --json").stdout)
    assert listed == json.loads(json.dumps(flow_run.dict()))
    assert set(listed) == _RUN_KEYS


def test_ls_says_when_there_is_more_than_it_shows(run, seeds):
    for _ in range(DEFAULT_LIMIT):
        seeds.flow_run()
    assert run("flow-run ls").stderr == ""
    seeds.flow_run()
    ended = run("flow-run ls")
    assert len(_rows(ended.stdout)) == DEFAULT_LIMIT
    assert "--limit" in ended.stderr
    assert len(json.loads(run("flow-run ls --json").stdout)) == DEFAULT_LIMIT
    assert len(_rows(run(f"flow-run ls --limit {DEFAULT_LIMIT + 1}").stdout)) == DEFAULT_LIMIT + 1


def test_inspect_shows_fields_history_task_runs_and_subflow_runs(run, seeds):
    parent = seeds.flow_run(end=False, parameters={"x": 1}, entrypoint="f.py:my_flow")
    seeds.task_run(parent, "a")
    seeds.task_run(parent, "b")
    seeds.task_run(parent, "c", end=Failed())
    child = seeds.flow_run("child", parent_flow_run_id=parent.id)
    parent = seeds.end(parent, Failed("1/4 states failed."))
    for reference in (parent.id, parent.id[:8], parent.name):
        shown = run("flow-run inspect", reference).stdout
        for text in (parent.id, "f.py:my_flow", '{"x": 1}', "1/4 states failed.", child.id):
            assert text in shown
        history = [line.split()[2] for line in shown.splitlines() if "@" in line]
        assert history == ["Pending", "Running", "Failed"]
        assert ["2", "Completed"] in [line.split() for line in shown.splitlines()]
        assert ["1", "Failed"] in [line.split() for line in shown.splitlines()]


def test_inspect_as_json_is_one_object(run, seeds):
    parent = seeds.flow_run(end=False)
    seeds.task_run(parent)
    child = seeds.flow_run("child", parent_flow_run_id=parent.id)
    parent = seeds.end(parent)
    shown = json.loads(run("flow-run inspect --json", parent.id).stdout)
    assert set(shown) == {*_RUN_KEYS, "pause", "states", "task_run_counts", "subflow_runs"}
    assert [state["name"] for state in shown["states"]] == ["Pending", "Running", "Completed"]
    assert all("@" in state["actor"] for state in shown["states"])
    assert shown["task_run_counts"] == {"Completed": 1}
    assert [subflow_run["id"] for subflow_run in shown["subflow_runs"]] == [child.id]


def test_logs_are_plain_lines_that_say_whose_they_are(run, seeds):
    flow_run = seeds.flow_run(end=False)
    task_run = seeds.task_run(flow_run)
    seeds.log(flow_run, "Created", logger="prefectlite.engine")
    seeds.log(flow_run, "hello")
    seeds.log(flow_run, "oh", task_run=task_run, level=40)
    seeds.log(flow_run, "odd", level=35, logger="mine")
    assert run("flow-run logs", flow_run.name).stdout.splitlines() == [
        f"{_TIME} | INFO    | prefectlite.engine - Created",
        f"{_TIME} | INFO    | Flow run 'gigantic-cockatoo' - hello",
        f"{_TIME} | ERROR   | Task run 'my_task-0' - oh",
        f"{_TIME} | 35      | mine - odd",
    ]


def test_a_log_line_cannot_pass_for_two(run, seeds):
    flow_run = seeds.flow_run()
    seeds.log(flow_run, f"one\n{_TIME} | INFO    | forged\ttab\x1b[0m")
    first, second = run("flow-run logs", flow_run.id).stdout.splitlines()
    assert first.endswith("- one")
    assert second == f"    {_TIME} | INFO    | forged\ttab\\x1b[0m"


def test_logs_of_a_level_are_those_at_or_above_it(run, seeds):
    flow_run = seeds.flow_run()
    for level in (10, 20, 30, 40, 50):
        seeds.log(flow_run, f"at {level}", level=level)
    for level, count in {"debug": 5, "INFO": 4, "Warning": 3, "error": 2, "critical": 1}.items():
        assert run(f"flow-run logs {flow_run.id} -l {level}").stdout.count("at ") == count


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("--limit 2", [0, 1]),
        ("--tail 2", [3, 4]),
        ("-n9", [0, 1, 2, 3, 4]),
        ("--tail 1 --level warning", [4]),
    ],
)
def test_logs_shows_the_first_or_the_last_lines(run, seeds, options, expected):
    flow_run = seeds.flow_run()
    for number in range(5):
        seeds.log(flow_run, str(number), level=30 if number % 2 == 0 else 20)
    lines = run(f"flow-run logs {flow_run.id} {options} --json").stdout.splitlines()
    assert [int(json.loads(line)["message"]) for line in lines] == expected


def test_logs_reads_on_past_the_lines_that_it_reads_at_once(run, seeds, monkeypatch):
    monkeypatch.setattr("prefectlite.log_listings._LINES_AT_ONCE", 2)
    flow_run = seeds.flow_run()
    for number in range(5):
        seeds.log(flow_run, f"number {number}")
    shown = run("flow-run logs", flow_run.id).stdout.splitlines()
    assert [line[-1] for line in shown] == [*"01234"]


def test_logs_as_json_is_one_object_a_line(run, seeds):
    flow_run = seeds.flow_run(end=False)
    task_run = seeds.task_run(flow_run)
    seeds.log(flow_run, "two\nlines", task_run=task_run)
    (line,) = run("flow-run logs --json", flow_run.id).stdout.splitlines()
    assert json.loads(line) == {
        "timestamp": "2023-11-14T22:13:20.513000+00:00",
        "level": 20,
        "logger": "prefectlite.task_runs",
        "message": "two\nlines",
        "flow_run_id": flow_run.id,
        "task_run_id": task_run.id,
    }


def test_logs_of_a_task_run_that_is_not_on_record_show_its_id(run, seeds):
    flow_run = seeds.flow_run(end=False)
    task_run = seeds.task_run(flow_run)
    seeds.registry.flush_logs()
    from dataclasses import replace

    seeds.log(flow_run, "lost", task_run=replace(task_run, id="no-such-id"))
    assert "Task run 'no-such-id' - lost" in run("flow-run logs", flow_run.id).stdout


def test_delete_removes_runs_that_have_ended(run, seeds):
    gone, also, kept = seeds.flow_run("gone"), seeds.flow_run("also"), seeds.flow_run("kept")
    ended = run("flow-run delete gone", also.id[:8], gone.id)
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr.splitlines() == [
        f"Deleted flow run 'gone' ({gone.id})",
        f"Deleted flow run 'also' ({also.id})",
    ]
    assert [flow_run.id for flow_run in seeds.registry.list_flow_runs()] == [kept.id]


def test_delete_as_json_lists_what_was_deleted(run, seeds):
    flow_run = seeds.flow_run()
    (deleted,) = json.loads(run("flow-run delete --json", flow_run.id).stdout)
    assert deleted["id"] == flow_run.id


def test_deleting_a_run_that_has_not_ended_is_a_conflict(run, seeds):
    final, running = seeds.flow_run("final"), seeds.flow_run("going", end=False)
    ended = run("flow-run delete", final.id, running.id)
    assert ended.exit_code == 4
    assert "'going' is Running" in ended.stderr
    assert "--force" in ended.stderr
    assert len(seeds.registry.list_flow_runs()) == 2
    assert run("flow-run delete --force", running.id).exit_code == 0
    assert len(seeds.registry.list_flow_runs()) == 1


def test_delete_deletes_nothing_when_one_is_not_there(run, seeds):
    flow_run = seeds.flow_run()
    assert run("flow-run delete", flow_run.id, "nothing").exit_code == 3
    assert len(seeds.registry.list_flow_runs()) == 1


def test_delete_deletes_the_stored_results_of_the_run_and_its_tasks_and_no_others(run, seeds, home):
    flow_run, kept = seeds.flow_run("gone", end=False), seeds.flow_run("kept")
    task_run = seeds.task_run(flow_run)
    seeds.end(flow_run)
    for one in (flow_run, task_run, kept):
        store_result(one.id, "a result")
    assert run("flow-run delete gone").exit_code == 0
    assert load_result(kept.id) == "a result"
    assert len(list((home / "results").iterdir())) == 1
