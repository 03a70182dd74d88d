"""prefectlite deployment: build, apply, ls, inspect, run, delete."""

import json
import signal
import sys
import threading
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prefectlite.clock import now
from prefectlite.states import Cancelled, Completed, Failed, Running, TimedOut

_FLOWS = """
print("imported")
from pydantic import SecretStr
from prefectlite import flow

@flow(name="the flow")
def etl(day: str = "today", n: int = 1):
    '''Extract.'''

@flow
def strict(number: int): ...

@flow
def secret(password: SecretStr): ...
"""
_KEYS = {
    "id", "name", "flow_name", "entrypoint", "working_directory", "description", "version",
    "parameters", "tags", "work_queue", "infrastructure", "created_at", "updated_at",
}  # fmt: skip
_BUILD = "deployment build deployed.py:etl -n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current folder with flows; what a test imports is forgotten when it ends."""
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "deployed.py").write_text(_FLOWS)
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name not in before and file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def deployed(run):
    """Put a deployment on record and return its document."""

    def build(name="nightly", *options, flow="etl"):
        words = ["deployment", "build", f"deployed.py:{flow}", "-n", name, "--apply", *options]
        ended = run("", *words)
        assert ended.exit_code == 0, ended.stderr
        documents = json.loads(run("deployment ls --json").stdout)
        return next(document for document in documents if document["name"] == name)

    return build


def _end_in_background(registry, *states):
    """Take the next run that is due, in another thread, and bring it through these states."""
    over = threading.Event()

    def work():
        while not over.wait(0.01):
            for run in registry.deployments.claim_due_flow_runs(["default"], limit=1, at=now()):
                moved = run
                for state in states:
                    moved = registry.change_state(moved, state)
                return

    threading.Thread(target=work, daemon=True).start()
    return over


# build


def test_build_writes_a_file_and_says_how_to_apply_it(run, folder):
    ended = run(f"{_BUILD} nightly")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "Wrote nightly-deployment.toml" in ended.stderr
    assert "prefectlite deployment apply nightly-deployment.toml" in ended.stderr
    document = tomllib.loads((folder / "nightly-deployment.toml").read_text())
    assert document == {
        "name": "nightly",
        "flow_name": "the flow",
        "entrypoint": "deployed.py:etl",
        "working_directory": ".",
        "description": "Extract.",
        "tags": [],
        "work_queue": "default",
        "parameters": {},
        "infrastructure": {"type": "process"},
    }
    assert json.loads(run("deployment ls --json").stdout) == []


def test_build_writes_all_that_was_asked_for(run, folder):
    (folder / "p.json").write_text('{"day": "x", "n": 5}')
    words = "-q slow -p day=5 --params @p.json --tag a --tag b --timeout 10 -o sub.toml"
    overrides = ["--override", "env.DEBUG=1", "--override", "grace_seconds=2.5"]
    assert run(f"{_BUILD} nightly {words}", *overrides).exit_code == 0
    document = tomllib.loads((folder / "sub.toml").read_text())
    assert document["parameters"] == {"day": "5", "n": 5}
    assert (document["tags"], document["work_queue"]) == (["a", "b"], "slow")
    assert document["infrastructure"] == {
        "type": "process",
        "environment": {"DEBUG": "1"},
        "grace_seconds": 2.5,
        "timeout_seconds": 10,
    }


def test_build_keeps_its_stdout_for_the_file_where_that_is_asked(run, folder):
    ended = run(f"{_BUILD} nightly -o -")
    assert tomllib.loads(ended.stdout)["working_directory"] == str(folder)
    assert "imported" in ended.stderr
    assert [path.name for path in folder.glob("*.toml")] == []


def test_build_does_not_replace_a_file_unless_forced(run, folder):
    path = folder / "nightly-deployment.toml"
    path.write_text("mine")
    ended = run(f"{_BUILD} nightly --apply")
    assert ended.exit_code == 4
    assert "hint: replace it with --force" in ended.stderr
    assert path.read_text() == "mine"
    assert json.loads(run("deployment ls --json").stdout) == []
    assert run(f"{_BUILD} nightly --force").exit_code == 0
    assert path.read_text() != "mine"


def test_build_and_apply_in_one(run):
    ended = run(f"{_BUILD} nightly -q slow --apply")
    assert "Created work queue 'slow'\nCreated deployment 'the flow/nightly' (" in ended.stderr
    assert "Updated deployment" in run(f"{_BUILD} nightly --apply --force").stderr


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (["deployed.py:etl"], 2, "name"),
        (["nothing.py:etl", "-n", "x"], 2, "nothing.py"),
        (["deployed.py:nothing", "-n", "x"], 2, "nothing"),
        (["deployed.py:etl", "-n", "a/b"], 2, "contains '/'"),
        (["deployed.py:etl", "-n", ""], 2, "name"),
        (["deployed.py:etl", "-n", "a\nb"], 2, "name"),
        (["deployed.py:etl", "-n", "x", "-q", ""], 2, "work queue"),
        (["deployed.py:etl", "-n", "x", "-p", "m=1"], 2, "'m'"),
        (["deployed.py:etl", "-n", "x", "-p", "n=many"], 2, "expected int"),
        (["deployed.py:etl", "-n", "x", "-p", "n"], 2, "KEY=VALUE"),
        (["deployed.py:etl", "-n", "x", "--override", "n"], 2, "--override 'n'"),
        (["deployed.py:etl", "-n", "x", "--override", "nonsense=1"], 2, "'nonsense'"),
        (["deployed.py:etl", "-n", "x", "--override", "type=nonsense"], 2, "nonsense"),
        (["deployed.py:etl", "-n", "x", "--params", '{"day": null}'], 2, "expected str"),
        (["deployed.py:secret", "-n", "x", "-p", "password=hunter2"], 2, "secret"),
        (["deployed.py:etl", "-n", "x", "-o", "no/x.toml"], 5, "no/x.toml"),
        (["deployed.py:etl", "-n", "x" * 300], 5, "too long"),
    ],
    ids=range(17),
)
def test_a_build_that_cannot_be_says_why_and_writes_nothing(run, folder, words, exit_code, message):
    ended = run("deployment build", *words)
    assert (ended.exit_code, ended.stdout) == (exit_code, "")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr
    assert [path.name for path in folder.glob("*.toml")] == []


@pytest.mark.parametrize("name", ["two words", "世界 é", "'q' \"r\"", "-x", "..", "%_"])
def test_a_name_of_any_kind_goes_all_the_way(run, name):
    assert run("deployment build deployed.py:etl", f"--name={name}").exit_code == 0
    assert run("deployment apply", "--", f"{name}-deployment.toml").exit_code == 0
    shown = run("deployment inspect --json", "--", f"the flow/{name}")
    assert json.loads(shown.stdout)["name"] == name
    assert run("deployment run", "--", f"the flow/{name}").exit_code == 0
    assert run("deployment delete", "--", f"the flow/{name}").exit_code == 0


# apply


def test_apply_says_what_it_did_and_shows_it_as_json(run):
    run(f"{_BUILD} one")
    run(f"{_BUILD} two -q slow")
    ended = run("deployment apply one-deployment.toml two-deployment.toml --json")
    assert [document["name"] for document in json.loads(ended.stdout)] == ["one", "two"]
    assert [line.partition(" (")[0] for line in ended.stderr.splitlines()] == [
        "Created work queue 'default'",
        "Created deployment 'the flow/one'",
        "Created work queue 'slow'",
        "Created deployment 'the flow/two'",
    ]
    again = run("deployment apply one-deployment.toml")
    assert again.stdout == ""
    assert again.stderr.startswith("Updated deployment 'the flow/one' (")


def test_nothing_is_applied_unless_all_files_are_right(run, folder):
    run(f"{_BUILD} one")
    (folder / "bad.toml").write_text('nme = "x"\n')
    ended = run("deployment apply one-deployment.toml bad.toml")
    assert ended.exit_code == 2
    assert "bad.toml: there is no key 'nme'" in ended.stderr
    assert "did you mean 'name'?" in ended.stderr
    ended = run("deployment apply one-deployment.toml one-deployment.toml")
    assert ended.exit_code == 2
    assert "'the flow/one'" in ended.stderr
    assert json.loads(run("deployment ls --json").stdout) == []


def test_a_file_that_is_not_there_is_said_with_where_files_come_from(run):
    ended = run("deployment apply nothing.toml")
    assert ended.exit_code == 2
    assert "nothing.toml cannot be read: No such file" in ended.stderr
    assert "deployment build" in ended.stderr


# ls, inspect, delete


def test_ls_of_nothing_is_a_header_or_an_empty_list(run):
    assert len(run("deployment ls").stdout.splitlines()) == 1
    assert json.loads(run("deployment ls --json").stdout) == []


def test_ls_shows_a_line_for_each_by_name(run, deployed):
    second = deployed("second", "-q", "slow", "--tag", "a", "--tag", "b")
    first = deployed("first", flow="strict")
    ended = run("deployment ls")
    assert ended.stderr == ""
    header, *lines = ended.stdout.splitlines()
    assert header.split() == ["ID", "NAME", "ENTRYPOINT", "QUEUE", "TAGS", "UPDATED"]
    assert lines[0].startswith(
        f"{first['id']}  strict/first     deployed.py:strict  default  -     "
    )
    assert lines[1].startswith(
        f"{second['id']}  the flow/second  deployed.py:etl     slow     a, b  "
    )


def test_ls_shows_only_what_was_asked_for(run, deployed):
    deployed("one", "-q", "slow")
    deployed("two")
    deployed("three", flow="strict")

    def names(*options):
        return [found["name"] for found in json.loads(run("deployment ls --json", *options).stdout)]

    assert names("--flow", "the flow") == ["one", "two"]
    assert names("-f", "the flow", "-f", "strict", "--queue", "default") == ["three", "two"]
    assert names("--queue", "nothing") == []


def test_inspect_shows_all_by_every_reference(run, deployed):
    document = deployed("nightly", "-p", "n=5", "--override", "env.DEBUG=1")
    for reference in (document["id"], document["id"][:8], "nightly", "the flow/nightly"):
        shown = run("deployment inspect", reference).stdout
        for text in (document["id"], "the flow/nightly", "deployed.py:etl", '{"n": 5}', "DEBUG"):
            assert text in shown
    found = json.loads(run("deployment inspect nightly --json").stdout)
    assert found == document
    assert set(found) == _KEYS


def test_the_values_of_an_environment_are_shown_nowhere(run, deployed):
    deployed("nightly", "--override", "env.PASSWORD=hunter2")
    commands = ("deployment inspect nightly", "deployment run nightly", "flow-run ls")
    for command in (*commands, "flow-run inspect " + run("deployment run nightly").stdout.strip()):
        for option in ("", " --json"):
            shown = run(command + option)
            assert "hunter2" not in shown.stdout + shown.stderr


@pytest.mark.parametrize("command", ["inspect", "run", "delete"])
def test_what_is_not_there_exits_3_and_what_is_ambiguous_4(run, deployed, command):
    ended = run(f"deployment {command} nothing")
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert ended.stderr.splitlines() == [
        "error: there is no deployment 'nothing'",
        "hint: see: prefectlite deployment ls",
    ]
    deployed("twin")
    deployed("twin", "--force", flow="strict")
    ended = run(f"deployment {command} twin")
    assert ended.exit_code == 4
    assert "strict/twin (" in ended.stderr
    assert "the flow/twin (" in ended.stderr


def test_delete_deletes_all_or_nothing_and_leaves_the_runs(run, deployed):
    deployed("one")
    deployed("two")
    id_ = run("deployment run one").stdout.strip()
    assert run("deployment delete one nothing").exit_code == 3
    assert len(json.loads(run("deployment ls --json").stdout)) == 2
    ended = run("deployment delete one two one --json")
    assert [document["name"] for document in json.loads(ended.stdout)] == ["one", "two"]
    assert ended.stderr.count("Deleted deployment 'the flow/") == 2
    assert json.loads(run("deployment ls --json").stdout) == []
    assert json.loads(run("flow-run inspect --json", id_).stdout)["state"]["name"] == "Scheduled"


# run


def test_run_makes_a_scheduled_run_and_prints_its_id(run, deployed, folder):
    document = deployed("nightly", "-p", "n=5", "-p", "day=x", "--tag", "a")
    ended = run("deployment run nightly -p n=6 --tag b --name mine")
    assert ended.exit_code == 0
    assert "imported" in ended.stderr or "deployed" in sys.modules
    assert "Created flow run 'mine' of deployment 'the flow/nightly', due now" in ended.stderr
    flow_run = json.loads(run("flow-run inspect --json", ended.stdout.strip()).stdout)
    assert flow_run["state"]["name"] == "Scheduled"
    assert flow_run["parameters"] == {"n": 6, "day": "x"}
    assert (flow_run["name"], flow_run["tags"]) == ("mine", ["a", "b"])
    assert (flow_run["deployment_id"], flow_run["work_queue"]) == (document["id"], "default")
    assert flow_run["infrastructure"] == {"type": "process", "working_directory": str(folder)}
    shown = run("flow-run inspect mine").stdout
    assert document["id"] in shown
    assert "default" in shown


def test_run_as_json_is_the_run_and_no_code_of_the_person_can_spoil_it(start, run, deployed):
    deployed("nightly")
    ended = start("deployment", "run", "nightly", "--json")
    assert json.loads(ended.stdout)["state"]["type"] == "SCHEDULED"
    assert b"imported" in ended.stderr


def test_texts_mean_what_the_flows_annotations_say(run, deployed):
    deployed("nightly")
    flow_run = json.loads(run("deployment run nightly -p day=5 -p n=5 --json").stdout)
    assert flow_run["parameters"] == {"day": "5", "n": 5}


def test_a_document_counts_more_than_the_deployment_and_an_option_more_than_that(run, deployed):
    deployed("nightly", "-p", "n=1", "-p", "day=a")
    words = ["--params", '{"n": 2, "day": "b"}', "-p", "n=3", "--json"]
    flow_run = json.loads(run("deployment run nightly", *words).stdout)
    assert flow_run["parameters"] == {"n": 3, "day": "b"}


def test_where_the_flow_cannot_be_loaded_parameters_are_taken_as_they_are(run, deployed, folder):
    deployed("nightly")
    (folder / "deployed.py").unlink()
    sys.modules.pop("deployed")
    ended = run("deployment run nightly -p m=[1] -p day=plain --json")
    assert ended.exit_code == 0
    assert "note: the parameters are not checked, because there is no file" in ended.stderr
    assert json.loads(ended.stdout)["parameters"] == {"m": [1], "day": "plain"}


@pytest.mark.parametrize(
    ("flow", "words", "message"),
    [
        ("etl", ["-p", "m=1"], "'m'"),
        ("etl", ["-p", "n=many"], "expected int"),
        ("etl", ["-p", "n"], "KEY=VALUE"),
        ("etl", ["--params", "[]"], "JSON object"),
        ("etl", ["--params", "@nothing"], "nothing"),
        ("strict", [], "number"),
        ("secret", ["-p", "password=hunter2"], "secret"),
        ("etl", ["--at", "tomorrow"], "--at: 'tomorrow' is no time"),
        ("etl", ["--at", "2h"], "--at: '2h' is no time"),
        ("etl", ["--in", "tomorrow"], "--in: 'tomorrow' is no duration"),
        ("etl", ["--in", "9" * 400], "more than a hundred years"),
        ("etl", ["--in", "9999999d"], "more than a hundred years"),
        ("etl", ["--in", "inf"], "never due"),
        ("etl", ["--in", "1h", "--at", "2124-01-01T00:00:00Z"], "together"),
    ],
    ids=range(14),
)
def test_a_run_that_cannot_be_right_is_not_made(run, deployed, flow, words, message):
    deployed("nightly", flow=flow)
    ended = run("deployment run nightly", *words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert "hunter2" not in ended.stderr
    assert json.loads(run("flow-run ls --json").stdout) == []


def test_a_run_is_due_when_it_was_asked_for(run, deployed):
    deployed("nightly")

    def due(*words):
        document = json.loads(run("deployment run nightly --json", *words).stdout)
        return datetime.fromisoformat(document["scheduled_at"])

    assert due("--at", "2124-02-29T12:00:00+01:00") == datetime(2124, 2, 29, 11, tzinfo=UTC)
    assert due("--at", "2124-02-29T12:00:00Z") == datetime(2124, 2, 29, 12, tzinfo=UTC)
    assert abs(due("--in", "1h30m") - now() - timedelta(minutes=90)) < timedelta(minutes=1)
    assert abs(due() - now()) < timedelta(minutes=1)
    assert "due at 2124-" in run("deployment run nightly --at 2124-06-01T00:00:00Z").stderr


def test_a_run_for_a_paused_queue_says_that_it_will_wait(run, deployed):
    deployed("nightly")
    run("work-queue pause default")
    ended = run("deployment run nightly")
    assert ended.exit_code == 0
    assert "note: the work queue 'default' is paused" in ended.stderr
    run("work-queue delete default --force")
    assert run("deployment run nightly").exit_code == 0


@pytest.mark.parametrize(
    ("state", "exit_code"),
    [(Completed(), 0), (Failed("why"), 1), (TimedOut("late"), 124), (Cancelled("no"), 143)],
    ids=lambda one: getattr(one, "name", one),
)
def test_watching_ends_with_the_run_and_exits_as_it_ended(
    run, deployed, registry, state, exit_code
):
    deployed("nightly")
    over = _end_in_background(registry, Running(), state)
    ended = run("deployment run nightly --watch --json")
    over.set()
    assert ended.exit_code == exit_code
    document = json.loads(ended.stdout)
    assert document["state"]["name"] == state.name
    if exit_code:
        assert f"is {state.name}: {state.message}" in ended.stderr
        assert f"prefectlite flow-run logs {document['id'][:8]}" in ended.stderr


def test_watching_prints_the_id_at_once_and_leaves_the_run_when_interrupted(
    run, deployed, registry, start_python
):
    deployed("nightly")
    watcher = start_python(
        """
        import sys
        sys.argv = ["prefectlite", "deployment", "run", "nightly", "--watch"]
        from prefectlite.__main__ import main
        sys.exit(main())
        """
    )
    id_ = watcher.line()
    watcher.process.send_signal(signal.SIGINT)
    watcher.end(exit_code=130)
    assert registry.find_flow_run(id_).state.is_scheduled()
