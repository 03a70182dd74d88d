"""prefectlite task-run: ls, inspect."""

import json

from prefectlite.run_filters import DEFAULT_LIMIT
from prefectlite.states import Failed

_RUN_KEYS = {
    "id", "name", "task_name", "flow_run_id", "state", "tags", "parent_task_run_id", "cache_key",
    "run_count", "created_at", "started_at", "ended_at", "duration_seconds",
}  # fmt: skip


def test_ls_shows_the_newest_first_with_the_flow_run(run, seeds):
    flow_run = seeds.flow_run(end=False)
    older, newer = seeds.task_run(flow_run, "a"), seeds.task_run(flow_run, "b")
    header, first, second = run("task-run ls").stdout.splitlines()
    assert header.startswith("ID ")
    assert first.startswith(f"{newer.id}  {flow_run.id}  b     Completed")
    assert second.startswith(f"{older.id}  {flow_run.id}  a     Completed")


def test_ls_shows_only_what_was_asked_for(run, seeds):
    one, two = seeds.flow_run("one", end=False), seeds.flow_run("two", end=False)
    seeds.task_run(one, "a")
    seeds.task_run(two, "b", end=Failed())
    seeds.task_run(two, "c")

    def names(options):
        listed = json.loads(run(f"task-run ls --json {options}").stdout)
        return [task_run["name"] for task_run in listed]

    assert names("") == ["c", "b", "a"]
    assert names("--flow-run two") == ["c", "b"]
    assert names(f"--flow-run {one.id[:8]}") == ["a"]
    assert names("--state failed") == ["b"]
    assert names("--limit 1") == ["c"]
    assert run("task-run ls --flow-run nothing").exit_code == 3


def test_ls_says_when_there_is_more_than_it_shows(run, seeds):
    flow_run = seeds.flow_run(end=False)
    for _ in range(DEFAULT_LIMIT):
        seeds.task_run(flow_run)
    assert run("task-run ls").stderr == ""
    seeds.task_run(flow_run)
    ended = run("task-run ls")
    assert len(ended.stdout.splitlines()) == DEFAULT_LIMIT + 1
    assert "--limit" in ended.stderr


def test_inspect_shows_fields_and_history(run, seeds):
    flow_run = seeds.flow_run(end=False)
    task_run = seeds.task_run(flow_run, end=Failed("no luck"))
    shown = run("task-run inspect my_task-0").stdout
    for text in (task_run.id, flow_run.id, "my_task", "no luck"):
        assert text in shown
    history = [line.split()[2] for line in shown.splitlines() if "@" in line]
    assert history == ["Running", "Failed"]


def test_inspect_as_json_is_one_object(run, seeds):
    task_run = seeds.task_run(seeds.flow_run(end=False))
    shown = json.loads(run("task-run inspect --json", task_run.id[:10]).stdout)
    assert set(shown) == {*_RUN_KEYS, "states"}
    assert [state["name"] for state in shown["states"]] == ["Running", "Completed"]


def test_inspect_of_nothing_exits_3(run):
    ended = run("task-run inspect nothing")
    assert ended.exit_code == 3
    assert "task-run ls" in ended.stderr
