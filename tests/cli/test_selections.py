"""What does something with flow runs takes them by name, by options, or from stdin."""

import io
import json
import sys

import pytest

from prefectlite import listings
from prefectlite.registry import open_registry, registry_path
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Completed, Failed, Paused

_DOES = {"cancel", "pause", "resume", "delete", "wait"}


@pytest.fixture
def stdin(monkeypatch):
    """Set what a command reads from stdin."""

    def write(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return write


@pytest.fixture
def runs(seeds):
    """A flow run in each state that a command is about, by name."""
    paused = seeds.flow_run("paused", end=False, tags=("t",))
    return {
        "running": seeds.flow_run("running", end=False, tags=("t",)),
        "paused": seeds.end(paused, Paused("wait")),
        "failed": seeds.flow_run("failed", end=Failed("why"), tags=("t",)),
        "done": seeds.flow_run("done", end=Completed(), flow_name="other"),
    }


def names(ended):
    return sorted(run["name"] for run in json.loads(ended.stdout))


@pytest.mark.parametrize("command", sorted(_DOES))
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "which flow runs?"),
        ("running --all", "name flow runs or describe them, not both"),
        ("running --flow my-flow", "name flow runs or describe them, not both"),
        ("- --since 1h", "name flow runs or describe them, not both"),
    ],
)
def test_runs_are_named_or_described_and_not_both(run, runs, command, words, message):
    ended = run(f"flow-run {command} {words}")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert message in ended.stderr


@pytest.mark.parametrize(
    ("command", "chosen"),
    [
        ("cancel", ["paused", "running"]),
        ("pause", ["running"]),
        ("resume", ["paused"]),
        ("delete", ["done", "failed"]),
        ("delete --force", ["done", "failed", "paused", "running"]),
    ],
)
def test_of_what_is_described_it_is_done_with_those_with_which_it_can_be(
    run, seeds, runs, command, chosen
):
    assert names(run(f"flow-run {command} --all --dry-run --json")) == chosen
    by_flow = run(f"flow-run {command} --flow my-flow --tag t --since 1h --dry-run --json")
    assert names(by_flow) == [name for name in chosen if name != "done"]
    table = run(f"flow-run {command} --all --dry-run").stdout.splitlines()
    assert len(table) == len(chosen) + 1
    assert len(seeds.registry.list_flow_runs()) == len(runs)
    assert {run.name: run for run in seeds.registry.list_flow_runs()} == runs  # nothing was done
    assert names(run(f"flow-run {command} --text {chosen[0]} --json")) == [chosen[0]]


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "delete", "wait"])
def test_where_nothing_is_described_nothing_is_done_and_a_note_says_so(run, runs, command):
    ended = run(f"flow-run {command} --state quite-another --json")
    assert (ended.exit_code, ended.stdout) == (0, "[]\n")
    assert ended.stderr.splitlines() == [
        "note: there is no such flow run with which this can be done",
        "note: 'quite-another' is no state that prefectlite knows",
    ]


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "delete", "wait"])
def test_a_state_that_is_probably_misspelled_is_refused(run, runs, command):
    ended = run(f"flow-run {command} --state fialed --json")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        "error: 'fialed' is no state that prefectlite knows",
        "hint: did you mean failed?",
    ]


def test_to_wait_for_a_flow_that_has_never_run_is_no_success(run, runs):
    ended = run("flow-run wait --flow my-flwo")
    assert (ended.exit_code, ended.stderr.splitlines()[-1]) == (3, "hint: did you mean my-flow?")


def test_what_is_forced_off_the_record_has_ended_before(run, seeds):
    flow_run = seeds.flow_run(end=False)
    ended = run(f"flow-run delete {flow_run.id} --force")
    assert (ended.exit_code, seeds.registry.list_flow_runs()) == (0, [])
    assert ended.stderr.startswith("Cancelled flow run 'gigantic-cockatoo'")


def test_what_is_described_is_waited_for_if_it_has_not_ended(run, seeds, runs):
    assert run("flow-run wait --flow other").exit_code == 0
    assert run("flow-run wait --all --timeout 0.05s").exit_code == 124
    seeds.end(runs["running"])
    assert run("flow-run wait --tag t --timeout 0.05 --any --for paused").exit_code == 0


def test_a_state_that_is_waited_for_and_unknown_is_told(run, runs):
    assert run("flow-run wait running --for fialed --timeout 0").exit_code == 2
    ended = run("flow-run wait running --for quite-another --timeout 0")
    assert ended.exit_code == 124
    assert "'quite-another' is no state that prefectlite knows" in ended.stderr


@pytest.mark.parametrize("command", [*sorted(_DOES), "ls"])
@pytest.mark.parametrize(
    ("option", "exit_code"),
    [
        *(("--parent", 3), ("--deployment", 3), ("--text", 2), ("--since", 2), ("--until", 2)),
        *(("--flow", 0), ("--tag", 0), ("--queue", 0), ("--state", 0)),
    ],
)
def test_an_empty_value_never_means_every_run(run, seeds, runs, command, option, exit_code):
    if (command, option) == ("wait", "--flow"):
        exit_code = 3
    ended = run(f"flow-run {command} --json", option, "")
    assert (ended.exit_code, ended.stdout) == (exit_code, "" if exit_code else "[]\n")
    assert {run.name: run for run in seeds.registry.list_flow_runs()} == runs


@pytest.mark.parametrize("command", sorted(_DOES))
@pytest.mark.parametrize(("word", "exit_code"), [("-", 0), ("", 3)])
def test_an_empty_name_never_means_every_run(run, runs, stdin, command, word, exit_code):
    stdin("\n \r\n\n")
    ended = run(f"flow-run {command} --json", word)
    assert (ended.exit_code, ended.stdout) == (exit_code, "" if exit_code else "[]\n")
    left = {
        one["name"]: one["state"]["name"] for one in json.loads(run("flow-run ls --json").stdout)
    }
    assert left == {name: one.state.name for name, one in runs.items()}


@pytest.mark.parametrize(
    ("line", "option", "exit_code"),
    [
        *(("task-run ls", option, 0) for option in ("--flow", "--task", "--tag", "--state")),
        *(("task-run ls", option, 2) for option in ("--since", "--until", "--text")),
        ("task-run ls", "--flow-run", 3),
        *(("deployment ls", option, 0) for option in ("--flow", "--queue", "--tag")),
        ("block ls", "--type", 0),
    ],
)
def test_an_empty_value_lists_nothing(filled, line, option, exit_code):
    assert json.loads(filled(f"{line} --json").stdout) != []
    ended = filled(f"{line} --json", option, "")
    assert (ended.exit_code, ended.stdout) == (exit_code, "" if exit_code else "[]\n")


@pytest.mark.parametrize("option", ["--flow", "--state", "--older-than"])
def test_an_empty_value_prunes_nothing(run, seeds, option):
    seeds.flow_run()
    before = () if option == "--older-than" else ("--older-than", "0s")
    run("registry prune", *before, option, "")
    assert len(seeds.registry.list_flow_runs()) == 1


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "delete"])
def test_a_dry_run_makes_no_registry(run, command):
    ended = run(f"flow-run {command} --all --dry-run --json")
    assert (ended.exit_code, ended.stdout) == (0, "[]\n")
    assert not registry_path(PREFECTLITE_REGISTRY.value()).parent.exists()


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "delete"])
def test_a_dry_run_opens_the_registry_to_read_it(run, runs, command, monkeypatch):
    opened = []

    def open_it(url, *, read_only=False):
        opened.append(read_only)
        return open_registry(url, read_only=read_only)

    monkeypatch.setattr(listings, "open_registry", open_it)
    assert run(f"flow-run {command} --all --dry-run --json").exit_code == 0
    assert opened == [True]


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "delete", "wait"])
@pytest.mark.parametrize("described", ["--all", "--flow my-flow"])
def test_no_run_is_read_with_which_nothing_can_be_done(
    run, seeds, runs, monkeypatch, command, described
):
    kind, read = type(seeds.registry), []
    list_flow_runs = kind.list_flow_runs

    def listed(registry, *args, **options):
        found = list_flow_runs(registry, *args, **options)
        read.extend(found)
        return found

    monkeypatch.setattr(kind, "list_flow_runs", listed)
    how = "--timeout 0" if command == "wait" else "--dry-run"
    done = names(run(f"flow-run {command} {described} --json {how}"))
    assert sorted({one.name for one in read}) == done


def test_a_state_that_has_the_name_of_another_is_what_its_type_says(run, seeds):
    seeds.end(seeds.flow_run(end=False), Paused("wait", name="Completed"))
    assert names(run("flow-run delete --all --dry-run --json")) == []
    assert names(run("flow-run resume --all --dry-run --json")) == ["gigantic-cockatoo"]


# Names from stdin


def test_a_pipe_takes_what_another_command_lists(run, seeds, runs, stdin):
    listed = run("flow-run ls --state Failed --state completed -q").stdout
    assert sorted(listed.split()) == sorted([runs["failed"].id, runs["done"].id])
    stdin(listed)
    assert names(run("flow-run delete - --json")) == ["done", "failed"]
    assert {run.name for run in seeds.registry.list_flow_runs()} == {"running", "paused"}


def test_stdin_names_what_arguments_can_one_a_line_and_each_once(run, runs, stdin):
    stdin(f"\n  running \r\n\n{runs['running'].id[:10]}\npaused\n")
    assert names(run("flow-run cancel done - --dry-run --json")) == ["done", "paused", "running"]


@pytest.mark.parametrize(
    "line",
    [
        "flow-run cancel -",
        "flow-run pause -",
        "flow-run resume -",
        "flow-run delete -",
        "flow-run wait -",
        "flow-run inspect -",
        "flow-run logs -",
        "task-run inspect -",
        "task-run logs -",
        "deployment inspect -",
        "deployment run -",
        "deployment delete -",
        "work-queue inspect -",
        "work-queue pause -",
        "work-queue resume -",
        "work-queue set-limit - 2",
        "work-queue delete -",
        "block inspect -",
        "block set - x=1",
        "block delete -",
        "notification inspect -",
        "notification pause -",
        "notification resume -",
        "notification delete -",
        "notification test -",
    ],
)
def test_an_empty_stdin_is_nothing_to_do_and_one_that_names_nothing_is_not_found(run, line, stdin):
    stdin("\n \n")
    ended = run(line)
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == "note: stdin names nothing, so that there is nothing to do\n"
    stdin("00000000/x\n")
    ended = run(line)
    assert ended.exit_code == 3, ended.stderr
    assert "00000000" in ended.stderr


def test_a_command_that_takes_one_takes_one_line(run, runs, stdin):
    stdin(runs["done"].id)
    assert json.loads(run("flow-run inspect - --json").stdout)["name"] == "done"
    stdin("done\nfailed\n")
    ended = run("flow-run inspect -")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "this command takes one, and stdin has 2 lines" in ended.stderr


@pytest.mark.parametrize(
    "line",
    [
        "flow-run resume - --input-json -",
        "flow-run cancel - -",
        "block set string/x - --stdin value",
    ],
)
def test_stdin_is_read_once(run, runs, stdin, line):
    stdin("{}")
    ended = run(line)
    assert (ended.exit_code, ended.stdout) == (2, "")


def test_stdin_that_two_ask_for_says_which(run, stdin):
    stdin("{}")
    assert "stdin can be read once, and not for both --input-json and" in (
        run("flow-run resume - --input-json -").stderr
    )


def test_stdin_that_is_no_text_is_wrong_usage(start, seeds):
    environment = {"PYTHONIOENCODING": "utf-8:strict"}
    ended = start("flow-run", "delete", "-", input=b"\xff\xfe", env=environment)
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        b"error: the names of what it is about cannot be read from stdin"
    )


def test_a_closed_stdin_names_nothing(run, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdin", closed)
    assert run("flow-run delete -").exit_code == 2
