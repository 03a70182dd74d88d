"""prefectlite notification: create, ls, inspect, pause, resume, delete, deliver, test."""

import json
from dataclasses import replace

import pytest

from prefectlite import console, courier_processes
from prefectlite.blocks import Block
from prefectlite.blocks.system import String
from prefectlite.clock import now
from prefectlite.errors import NotificationError
from prefectlite.liveness import own_identity
from prefectlite.states import STATE_NAMES, Failed, StateType

_KEYS = {"id", "states", "tags", "flow_names", "block", "template", "is_active", "created_at"}
_KEYS |= {"delivered_count", "delivered_at", "waiting_count", "failed_count", "problem"}
TOLD, FAILING = [], set()


class Teller(Block):
    """A block that notes what it is told, and fails while it is told to."""

    def notify(self, body, subject):
        TOLD.append((subject, body))
        if FAILING:
            raise NotificationError("the pigeon is tired", hint="feed it")


@pytest.fixture(autouse=True)
def _block(monkeypatch, registry):
    TOLD.clear()
    FAILING.clear()
    monkeypatch.setattr(courier_processes, "start_courier", lambda url: None)
    Teller().save("here")
    String(value="x").save("here")


@pytest.fixture
def rule_id(run):
    return run("notification create -s failed -s paused --block teller/here").stdout.strip()


def test_create_makes_a_rule_and_prints_its_id(run):
    words = [
        "--state",
        "FAILED",
        "-s",
        "timedout",
        "-s",
        "Failed",
        "-t",
        "a",
        "-t",
        "b",
        "-f",
        "etl",
    ]
    ended = run("notification create --block teller/here", *words, "--template", "{flow_name}")
    assert ended.exit_code == 0
    id_ = ended.stdout.strip()
    assert ended.stderr == (
        f"Created notification rule {id_}: Failed, TimedOut, of flow etl, tagged a or b, by"
        " teller/here\n"
    )
    (rule,) = json.loads(run("notification ls --json").stdout)
    assert set(rule) == _KEYS
    assert (rule["id"], rule["states"], rule["block"]) == (
        id_,
        ["Failed", "TimedOut"],
        "teller/here",
    )
    assert (rule["tags"], rule["flow_names"], rule["template"]) == (
        ["a", "b"],
        ["etl"],
        "{flow_name}",
    )
    assert rule["is_active"]


def test_create_prints_the_rule_as_json(run):
    ended = run("notification create --block teller/here --json")
    assert json.loads(ended.stdout) == json.loads(run("notification ls --json").stdout)[0]


@pytest.mark.parametrize(
    ("words", "exit_code", "hint"),
    [
        (["-b", "teller/here", "-s", "fail"], 2, "hint: did you mean Failed?"),
        (["-b", "teller/here", "-s", "cancled"], 2, "hint: did you mean Cancelled?"),
        (["-b", "teller/here", "-s", "xyz"], 2, "hint: there are: Scheduled, "),
        (["-b", "teller/here", "-s", ""], 2, "hint: there are: Scheduled, "),
        (["-b", "teller/here", "--template", "{run}"], 2, "hint: there are: flow_run_name, "),
        (["-b", "teller/here", "--template", ""], 2, "error: the template is empty"),
        (["-b", "string/here"], 2, "error: the block 'string/here' cannot notify"),
        (
            ["-b", "string/here"],
            2,
            "custom-webhook, email-server, ",
        ),
        (["-b", "teller/nowhere"], 3, "error: there is no block 'teller/nowhere'"),
        (["-b", "tel/here"], 3, "error: there is no block"),
        (["-b", "teller"], 2, "error: "),
        (["-b", "\x1b[2J/\x1b"], 2, "error: "),
        (["-b", ""], 2, "error: "),
        ([], 2, "missing option: --block"),
        (["-b", "teller/here", "more"], 2, "unexpected argument: 'more'"),
    ],
)
def test_a_rule_that_could_never_work_is_refused(run, words, exit_code, hint):
    ended = run("notification create", *words)
    assert (ended.exit_code, ended.stdout) == (exit_code, "")
    assert hint in ended.stderr
    assert "\x1b" not in ended.stderr
    assert json.loads(run("notification ls --json").stdout) == []


def test_every_type_of_state_can_be_named():
    names = [name.upper() for name in STATE_NAMES]
    assert {type_.value for type_ in StateType} <= {*names}


def test_ls_shows_what_was_told_what_waits_and_what_failed(run, seeds, rule_id):
    header, line = run("notification ls").stdout.splitlines()
    names = "ID STATES TAGS FLOWS BLOCK STATUS TOLD WAITING FAILED PROBLEM"
    assert " ".join(header.split()) == names
    assert line.split()[1:] == ["Failed,Paused", "-", "-", "teller/here", "active", *"000", "-"]
    seeds.flow_run(end=Failed())
    seeds.flow_run(end=Failed())
    FAILING.add("teller")
    assert run("notification deliver").exit_code == 5
    found = run("notification ls").stdout.splitlines()[1]
    assert found.split(maxsplit=9)[6:] == ["0", "2", "0", "the pigeon is tired"]
    (rule,) = json.loads(run("notification ls --json").stdout)
    assert (rule["waiting_count"], rule["problem"]) == (2, "the pigeon is tired")


def test_ls_of_nothing_is_a_header_or_an_empty_list(run):
    assert len(run("notification ls").stdout.splitlines()) == 1
    assert json.loads(run("notification ls --json").stdout) == []


def test_inspect_shows_what_is_not_told_yet_and_why(run, seeds, rule_id):
    flow_run = seeds.flow_run("bad-run", end=Failed("oh\x1b[2J no"))
    found = json.loads(run("notification inspect --json", rule_id[:8]).stdout)
    (waiting,) = found.pop("notifications")
    assert set(found) == _KEYS
    assert waiting["flow_run_id"] == flow_run.id
    assert (waiting["flow_run_name"], waiting["state"]["name"]) == ("bad-run", "Failed")
    assert (waiting["attempts"], waiting["problem"], waiting["is_being_sent"]) == (0, None, False)
    assert "at once" in run("notification inspect", rule_id).stdout
    FAILING.add("teller")
    run("notification deliver")
    (waiting,) = json.loads(run("notification inspect --json", rule_id).stdout)["notifications"]
    assert (waiting["attempts"], waiting["problem"]) == (1, "the pigeon is tired")
    assert waiting["due_at"] > waiting["state"]["timestamp"]
    shown = run("notification inspect", rule_id).stdout
    assert "\x1b" not in shown


def test_inspect_shows_a_problem_in_full_and_what_has_it(
    run, seeds, registry, rule_id, monkeypatch
):
    monkeypatch.setattr("prefectlite.console._is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "70")
    told = "the pigeon is tired, and will not fly before the rain is over, or the sun is up"
    tables = registry.notifications
    for number, problem in enumerate((told, told, "no")):
        seeds.flow_run(f"run-{number}", end=Failed())
        taken = tables.take_notification(own_identity(), at=now(), until=now())
        tables.record_problem(taken, problem, due_at=None)
    seeds.flow_run("run-3", end=Failed())
    lines = run("--color=never notification inspect", rule_id).stdout.splitlines()
    start = lines.index("")
    assert [" ".join(line.split()[:2]) for line in lines[start:]] == [
        *("", "FLOW RUN", "run-3 Failed"),
        *("", "Problem no", "FLOW RUN", "run-2 Failed"),
        *("", "Problem the", "FLOW RUN", "run-1 Failed", "run-0 Failed"),
    ]
    assert f"Problem  {told}" in lines


def test_inspect_of_a_rule_with_nothing_to_tell_has_no_table(run, rule_id):
    shown = run("notification inspect", rule_id).stdout
    assert shown.splitlines()[0].split() == ["Rule", rule_id]
    assert "PROBLEM" not in shown


def test_what_was_given_up_is_shown_so(run, seeds, registry, rule_id):
    seeds.flow_run(end=Failed())
    seeds.flow_run(end=Failed())
    tables = registry.notifications
    taken = tables.take_notification(own_identity(), at=now(), until=now())
    assert "being sent" in run("notification inspect", rule_id).stdout
    tables.record_problem(taken, "the pigeon died", due_at=None)
    shown = run("notification inspect", rule_id).stdout
    assert "given up" in shown
    assert "the pigeon died" in shown
    rule = json.loads(run("notification inspect --json", rule_id).stdout)
    assert (rule["failed_count"], rule["waiting_count"]) == (1, 1)


def test_a_paused_rule_notes_nothing_until_it_is_resumed(run, seeds, rule_id):
    assert run("notification pause", rule_id, rule_id[:9]).stderr.startswith("Paused notification")
    seeds.flow_run(end=Failed())
    paused = json.loads(run("notification inspect --json", rule_id).stdout)
    assert (paused["is_active"], paused["waiting_count"]) == (False, 0)
    assert "paused" in run("notification ls").stdout
    (resumed,) = json.loads(run("notification resume --json", rule_id).stdout)
    assert resumed["is_active"]
    seeds.flow_run(end=Failed())
    assert json.loads(run("notification ls --json").stdout)[0]["waiting_count"] == 1


def test_delete_takes_with_it_what_waits(run, seeds, rule_id):
    seeds.flow_run(end=Failed())
    (deleted,) = json.loads(run("notification delete --json", rule_id, rule_id[:9]).stdout)
    assert deleted["id"] == rule_id
    ended = run("notification deliver")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "", "")
    assert TOLD == []


def test_nothing_is_deleted_unless_all_is_there(run, rule_id):
    assert run("notification delete", rule_id, "nothing").exit_code == 3
    assert len(json.loads(run("notification ls --json").stdout)) == 1


@pytest.mark.parametrize("command", ["inspect", "pause", "resume", "delete", "test"])
def test_what_is_not_there_exits_3(run, command):
    ended = run(f"notification {command} nothing")
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert ended.stderr.splitlines() == [
        "error: there is no notification rule 'nothing'",
        "hint: see: prefectlite notification ls",
    ]
    assert run(f"notification {command}").exit_code == 2


def test_deliver_tells_what_is_due(run, seeds, rule_id):
    seeds.flow_run("bad-run", end=Failed("oh no"))
    ended = run("notification deliver")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "", "Delivered 1 notification\n")
    assert [subject for subject, _ in TOLD] == ["bad-run: Failed"]
    assert run("notification deliver").stderr == ""
    (rule,) = json.loads(run("notification ls --json").stdout)
    assert (rule["id"], rule["delivered_count"]) == (rule_id, 1)


def test_deliver_says_what_is_in_the_way(run, seeds, rule_id):
    seeds.flow_run(end=Failed())
    FAILING.add("teller")
    ended = run("notification deliver")
    assert (ended.exit_code, ended.stdout) == (5, "")
    error, hint, note = ended.stderr.splitlines()
    assert error == "error: 1 notification could not be delivered: the pigeon is tired"
    assert hint == "hint: see: prefectlite notification ls"
    assert note.startswith("note: 1 notification waits for the next attempt, the first until ")


def test_deliver_says_what_waits_and_with_all_delivers_it(run, seeds, registry, rule_id):
    seeds.flow_run("run-0", end=Failed())
    seeds.flow_run("run-1", end=Failed())
    FAILING.add("teller")
    run("notification deliver")
    FAILING.clear()
    ended = run("notification deliver")
    due_at = console.moment_text(registry.notifications.waiting()[1])
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == (
        f"note: 2 notifications wait for the next attempt, the first until {due_at}; to try now:"
        " prefectlite notification deliver --all\n"
    )
    assert len(TOLD) == 1
    ended = run("notification deliver --all")
    assert (ended.exit_code, ended.stderr) == (0, "Delivered 2 notifications\n")
    assert run("notification deliver --all").stderr == ""


def test_deliver_all_tries_once_what_fails_and_never_what_was_given_up(
    run, seeds, registry, rule_id
):
    seeds.flow_run("given-up", end=Failed())
    taken = registry.notifications.take_notification(own_identity(), at=now(), until=now())
    registry.notifications.record_problem(taken, "no", due_at=None)
    seeds.flow_run("failing", end=Failed())
    FAILING.add("teller")
    for _ in range(3):
        assert run("notification deliver --all").exit_code == 5
    assert [subject for subject, _ in TOLD] == ["failing: Failed"] * 3


def test_deliver_finds_runs_whose_process_has_died(run, seeds):
    run("notification create -s crashed --block teller/here")
    dead = replace(own_identity(), token="gone", boot_id="an earlier one")
    seeds.flow_run("lost-run", process=dead, end=False)
    assert run("notification deliver").exit_code == 0
    assert [subject for subject, _ in TOLD] == ["lost-run: Crashed"]


def test_test_sends_one_message_with_the_rules_template(run):
    id_ = run(
        "notification create -b teller/here", "--template", "{flow_run_state_name}!"
    ).stdout.strip()
    ended = run("notification test", id_[:8])
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert TOLD == [("Test: no-flow-run: Failed", "Failed!")]


@pytest.mark.parametrize(("state", "word"), [("paused", "resume"), ("timedout", "TimedOut")])
def test_test_shows_the_first_state_of_the_rule(run, state, word):
    id_ = run(f"notification create -s {state} -s failed -b teller/here").stdout.strip()
    assert run("notification test", id_).exit_code == 0
    ((subject, body),) = TOLD
    assert subject.lower() == f"test: no-flow-run: {state}"
    assert word in body
    assert ("resume" in body) is (state == "paused")


def test_test_says_why_a_message_was_not_sent(run, rule_id):
    FAILING.add("teller")
    ended = run("notification test", rule_id)
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert ended.stderr.splitlines() == ["error: the pigeon is tired", "hint: feed it"]


def test_a_rule_whose_block_is_gone_is_still_shown_and_says_so(run, seeds, rule_id):
    Block.delete("teller/here")
    seeds.flow_run(end=Failed())
    assert run("notification deliver").exit_code == 5
    assert "there is no block 'teller/here'" in run("notification ls").stdout
    assert run("notification test", rule_id).exit_code == 5
