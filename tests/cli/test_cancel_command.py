"""``flow-run cancel``: which runs it takes, and what it says."""

import json

import pytest

from prefectlite.states import Completed


@pytest.fixture
def unfinished(seeds):
    """Three runs that are not final and that no process has begun, and one that is."""
    runs = [seeds.flow_run(name, end=False) for name in ("one", "two", "three")]
    seeds.flow_run("over", end=Completed())
    return runs


def names(ended):
    return [run["name"] for run in json.loads(ended.stdout)]


def test_a_run_is_cancelled_and_told(run, unfinished):
    ended = run("flow-run cancel one")
    assert ended.exit_code == 0
    assert ended.stdout == ""
    assert ended.stderr.startswith("Cancel")
    assert unfinished[0].id in ended.stderr


def test_as_json_it_prints_the_runs_as_they_are_then(run, unfinished):
    ended = run("flow-run cancel one two --wait --json")
    assert names(ended) == ["one", "two"]
    assert {each["state"]["type"] for each in json.loads(ended.stdout)} == {"CANCELLED"}


def test_a_dry_run_shows_which_and_changes_nothing(run, unfinished):
    assert sorted(names(run("flow-run cancel --all --dry-run --json"))) == ["one", "three", "two"]
    assert "one" in run("flow-run cancel one --dry-run").stdout
    assert run("flow-run ls --state cancelled --json").stdout.strip() == "[]"


def test_all_takes_every_run_that_has_not_ended(run, unfinished):
    assert sorted(names(run("flow-run cancel --all --wait --json"))) == ["one", "three", "two"]
    assert names(run("flow-run cancel --all --json")) == []


def test_runs_are_chosen_by_flow_and_state(run, unfinished):
    assert names(run("flow-run cancel --flow no-such --dry-run --json")) == []
    assert names(run("flow-run cancel --state completed --dry-run --json")) == []
    every = names(run("flow-run cancel --state running --state pending --dry-run --json"))
    assert sorted(every) == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("flow-run cancel", "which flow runs?"),
        ("flow-run cancel one --all", "name flow runs or describe them"),
        ("flow-run cancel one --grace -1", "grace"),
    ],
)
def test_a_request_that_is_not_clear_is_wrong_usage(run, unfinished, line, told):
    ended = run(line)
    assert ended.exit_code == 2
    assert told in ended.stderr


def test_a_run_that_has_ended_is_a_conflict_and_the_others_are_cancelled(run, unfinished):
    ended = run("flow-run cancel over one --wait --json")
    assert ended.exit_code == 4
    assert "flow run 'over' is Completed already" in ended.stderr
    assert names(ended) == ["one"]


def test_a_run_that_does_not_exist_is_not_found_and_nothing_is_cancelled(run, unfinished):
    ended = run("flow-run cancel one nobody")
    assert ended.exit_code == 3
    assert run("flow-run ls --state cancelled --json").stdout.strip() == "[]"


def test_a_subflow_is_left_to_its_parent_where_both_are_chosen(run, seeds):
    parent = seeds.flow_run("parent", end=False)
    seeds.flow_run("child", end=False, parent_flow_run_id=parent.id)
    assert names(run("flow-run cancel --all --dry-run --json")) == ["parent"]
