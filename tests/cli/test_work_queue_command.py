"""prefectlite work-queue: create, ls, inspect, pause, resume, set-limit, delete."""

import json

import pytest

from prefectlite.clock import now
from prefectlite.deployment_records import Deployment
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.states import Pending, Running, Scheduled

_KEYS = {"id", "name", "description", "priority", "concurrency_limit", "is_paused", "created_at"}


def _queue(run, name):
    return json.loads(run("work-queue inspect --json", name).stdout)


@pytest.fixture
def add_run(registry):
    def add(queue, state):
        fields = {"id": new_id(), "name": "n", "flow_name": "f", "scheduled_at": now()}
        registry.create_flow_run(FlowRun(state=state, work_queue=queue, **fields))

    return add


def test_create_makes_a_queue_and_shows_it_as_json(run):
    ended = run(
        "work-queue create slow --priority 3 --limit 2 --json", "--description", "for big ones"
    )
    created = json.loads(ended.stdout)
    assert set(created) == _KEYS
    assert ended.stderr == f"Created work queue 'slow' ({created['id']})\n"
    found = _queue(run, "slow")
    assert found.pop("flow_run_counts") == {}
    assert found == created
    assert (found["priority"], found["concurrency_limit"]) == (3, 2)
    assert (found["description"], found["is_paused"]) == ("for big ones", False)


def test_a_queue_that_says_nothing_has_no_limit(run):
    ended = run("work-queue create usual")
    assert (ended.exit_code, ended.stdout) == (0, "")
    found = _queue(run, "usual")
    assert (found["priority"], found["concurrency_limit"]) == (100, None)


def test_a_second_queue_of_a_name_exits_4(run):
    run("work-queue create slow")
    ended = run("work-queue create slow")
    assert (ended.exit_code, ended.stdout) == (4, "")
    assert ended.stderr.startswith("error: there is a work queue 'slow' already\nhint: ")


@pytest.mark.parametrize("name", ["two words", "a/b", "世界 é", "'q'", "-x", "%_"])
def test_a_name_of_any_kind_goes_all_the_way(run, name):
    assert run("work-queue create", "--", name).exit_code == 0
    assert run("work-queue pause", "--", name).exit_code == 0
    assert json.loads(run("work-queue inspect --json", "--", name).stdout)["is_paused"]
    assert name in run("work-queue ls").stdout
    assert run("work-queue delete", "--", name).exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["create"],
        ["create", ""],
        ["create", " "],
        ["create", "\x1b[2J"],
        ["create", "a\0b"],
        ["create", "q", "--priority", "0"],
        ["create", "q", "--priority", "9" * 30],
        ["create", "q", "--limit", "-1"],
        ["create", "q", "--limit", "9999999999"],
        ["set-limit", "q"],
        ["set-limit", "q", "many"],
        ["set-limit", "q", "-1"],
        ["set-limit", "q", "1.5"],
        ["set-limit", "q", "²"],
        ["set-limit", "q", "9" * 5000],
        ["pause"],
        ["delete"],
    ],
    ids=range(17),
)
def test_what_cannot_be_right_exits_2_and_changes_nothing(run, words):
    ended = run("work-queue", *words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "\x1b" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert json.loads(run("work-queue ls --json").stdout) == []


@pytest.mark.parametrize("command", ["inspect", "pause", "resume", "delete", "set-limit"])
def test_what_is_not_there_exits_3(run, command):
    ended = run(f"work-queue {command} nothing", *(["1"] if command == "set-limit" else []))
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert ended.stderr.splitlines() == [
        "error: there is no work queue 'nothing'",
        "hint: see: prefectlite work-queue ls",
    ]


def test_ls_of_nothing_is_a_header_or_an_empty_list(run):
    assert len(run("work-queue ls").stdout.splitlines()) == 1
    assert json.loads(run("work-queue ls --json").stdout) == []


def test_ls_shows_what_waits_and_what_is_going_on(run, add_run):
    run("work-queue create slow --limit 2")
    run("work-queue create urgent --priority 1")
    run("work-queue pause urgent")
    for state in (Scheduled(), Scheduled(name="Late"), Pending(), Running(), Running()):
        add_run("slow", state)
    header, *lines = run("work-queue ls").stdout.splitlines()
    assert header.split() == ["ID", "NAME", "PRIORITY", "LIMIT", "STATE", "WAITING", "ACTIVE"]
    assert [line.split()[1:] for line in lines] == [
        ["urgent", "1", "-", "paused", "0", "0"],
        ["slow", "100", "2", "open", "2", "3"],
    ]
    urgent, slow = json.loads(run("work-queue ls --json").stdout)
    assert urgent["flow_run_counts"] == {}
    assert slow["flow_run_counts"] == {"Scheduled": 1, "Late": 1, "Pending": 1, "Running": 2}


def test_inspect_shows_a_queue_by_name_and_by_id(run, add_run):
    run("work-queue create slow")
    add_run("slow", Scheduled())
    id_ = _queue(run, "slow")["id"]
    for reference in ("slow", id_, id_[:8]):
        shown = dict(
            line.split(maxsplit=1)
            for line in run("work-queue inspect", reference).stdout.splitlines()[1:]
        )
        assert (shown["ID"], shown["Limit"], shown["State"]) == (id_, "none", "open")
        assert (shown["Waiting"], shown["Active"]) == ("1", "0")


def test_pausing_and_resuming_are_safe_to_repeat_and_take_several(run):
    run("work-queue create a")
    run("work-queue create b")
    for command, is_paused, word in (("pause", True, "Paused"), ("resume", False, "Resumed")):
        for _ in range(2):
            ended = run(f"work-queue {command} a b a --json")
            assert [queue["is_paused"] for queue in json.loads(ended.stdout)] == [is_paused] * 2
            assert ended.stderr.count(f"{word} work queue") == 2


def test_nothing_is_paused_unless_all_can_be(run):
    run("work-queue create a")
    assert run("work-queue pause a nothing").exit_code == 3
    assert not _queue(run, "a")["is_paused"]


def test_the_limit_is_set_and_taken_away(run):
    run("work-queue create a")
    for text, limit in (("5", 5), ("0", 0), ("none", None)):
        ended = run("work-queue set-limit a", text, "--json")
        assert json.loads(ended.stdout)["concurrency_limit"] == limit
        assert f"Set the limit to {text} for work queue 'a'" in ended.stderr
        assert _queue(run, "a")["concurrency_limit"] == limit


def test_a_queue_that_a_deployment_names_is_not_deleted_unless_forced(run, registry):
    run("work-queue create a")
    run("work-queue create b")
    for name in ("x", "y"):
        registry.deployments.save_deployment(
            Deployment(
                id=new_id(),
                name=name,
                flow_name="f",
                entrypoint="f.py",
                working_directory="/",
                work_queue="a",
            )
        )
    ended = run("work-queue delete b a")
    assert ended.exit_code == 4
    assert "named by the deployment 'f/x' and 1 more" in ended.stderr
    assert "--force" in ended.stderr
    assert len(json.loads(run("work-queue ls --json").stdout)) == 2
    ended = run("work-queue delete b a --force --json")
    assert [queue["name"] for queue in json.loads(ended.stdout)] == ["b", "a"]
    assert json.loads(run("work-queue ls --json").stdout) == []
