"""What is offered from the registry, the profiles, and files of flows."""

import json

import pytest

from prefectlite import cli
from prefectlite.block_records import BlockDocument, BlockType
from prefectlite.block_types import list_types
from prefectlite.command_tree import every_command
from prefectlite.commands import Group, parameters
from prefectlite.deployment_records import WorkQueue
from prefectlite.names import new_id
from prefectlite.notification_records import NotificationRule
from prefectlite.states import STATE_NAMES, Cancelling, Failed, Paused

_FLOWS = """
import nowhere

@flow
def etl(day: str = "today", *, size: int, **rest):
    '''Extract and load.

    More.
    '''

@prefectlite.flow(name="other")
async def load(): ...

@task
def no_flow(): ...
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with files of flows; to import them would fail."""
    folder = tmp_path / "flows"
    (folder / "inner").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "__pycache__").mkdir()
    (folder / "two_flows.py").write_text(_FLOWS)
    (folder / "inner" / "one_flow.py").write_text("@flow\ndef only(day): ...\n")
    (folder / "none.py").write_text("x = 1\n")
    (folder / "broken.py").write_text("def (")
    (folder / "etl.json").write_text("{}")
    monkeypatch.chdir(folder)
    return folder


# Flow runs.


@pytest.fixture
def runs(record):
    return {
        "done": record.completed("done-run"),
        "failed": record.flow_run("failed-run", Failed("no")),
        "running": record.flow_run("running-run"),
        "paused": record.flow_run("paused-run", Paused()),
        "cancelling": record.flow_run("cancelling-run", Cancelling()),
    }


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("cancel", ["cancelling", "paused", "running"]),
        ("pause", ["running"]),
        ("resume", ["paused"]),
        ("delete", ["failed", "done", "cancelling", "paused", "running"]),
        ("wait", ["cancelling", "paused", "running", "failed", "done"]),
        ("logs --follow", ["cancelling", "paused", "running", "failed", "done"]),
        ("logs", ["cancelling", "paused", "running", "failed", "done"]),
        ("inspect", ["cancelling", "paused", "running", "failed", "done"]),
        ("ls --parent", ["cancelling", "paused", "running", "failed", "done"]),
    ],
)
def test_a_command_is_offered_what_it_can_be_about(offered, runs, line, names):
    assert [*offered("flow-run", *line.split(), "")] == [f"{name}-run" for name in names]


def test_logs_that_are_followed_are_first_those_of_what_has_not_ended(offered, record):
    record.flow_run("going-on")
    record.completed("ended")
    assert [*offered("flow-run", "logs", "")] == ["ended", "going-on"]
    assert [*offered("flow-run", "logs", "-f", "")] == ["going-on", "ended"]


def test_a_run_is_shown_with_its_state_its_flow_and_its_age(offered, runs):
    told = offered("flow-run", "inspect", "")
    assert told["failed-run"].startswith("Failed, my-flow, ")
    assert told["failed-run"].endswith("s ago")


def test_a_name_that_several_runs_have_is_offered_as_their_ids(offered, record):
    twins = [record.flow_run("twin") for _ in range(2)]
    told = offered("flow-run", "cancel", "")
    assert {*told} == {twin.id for twin in twins}
    assert told[twins[0].id].startswith("twin, Running, my-flow, ")


def test_the_start_of_an_id_is_completed_to_the_id(offered, record):
    flow_run = record.flow_run("swift-otter", id="0123abcd-0000-4000-8000-000000000000")
    record.flow_run("other", id="fedc0000-0000-4000-8000-000000000000")
    for text in ("0", "0123", "0123ABCD-"):
        told = offered("flow-run", "cancel", text)
        assert [*told] == [flow_run.id]
        assert told[flow_run.id].startswith("swift-otter, Running")


def test_a_name_is_completed_however_old_the_run_is(offered, record):
    record.flow_run("old-run")
    for number in range(60):
        record.completed(f"new-{number}")
    assert len(offered("flow-run", "inspect", "")) == 50
    assert [*offered("flow-run", "inspect", "old")] == ["old-run"]


@pytest.mark.parametrize("name", ["new\nline", "\x1b[2J", "", "-rf", "-", "\u202ereversed", "abc"])
def test_a_name_that_nobody_can_type_is_offered_as_the_id(offered, record, name):
    flow_run = record.flow_run(name, id="0123abcd-0000-4000-8000-000000000000")
    told = offered("flow-run", "cancel", "")
    assert [*told] == [flow_run.id]
    assert told[flow_run.id].isprintable()


@pytest.mark.parametrize("name", ["$(touch x)", "a b'c", 'a"b`c`', "back\\slash", "ünï:cödé", "~x"])
def test_a_name_that_a_shell_would_mind_is_offered_as_it_is(offered, record, name):
    record.flow_run(name)
    assert [*offered("flow-run", "cancel", "")] == [name]


def test_a_run_that_is_named_is_not_offered_again(offered, record):
    record.flow_run("one")
    record.flow_run("two")
    assert [*offered("flow-run", "cancel", "two", "")] == ["one"]


def test_what_a_paused_run_asks_for_is_offered_as_keys(offered, record):
    record.paused("release", asks_for={"approved": "boolean", "comment": "string"})
    told = offered("flow-run", "resume", "release", "--input", "")
    assert told == {"approved=": "boolean", "comment=": "string"}


def test_task_runs_are_offered_by_names_that_are_theirs_alone(offered, record):
    flow_run = record.flow_run("swift-otter")
    record.task_run(flow_run, "load-0")
    twins = [record.task_run(flow_run, "add-0") for _ in range(2)]
    told = offered("task-run", "inspect", "")
    assert {*told} == {"load-0", twins[0].id, twins[1].id}
    assert told["load-0"].startswith("Running, swift-otter, ")
    assert [*offered("task-run", "inspect", "lo")] == ["load-0"]
    assert twins[0].id in offered("task-run", "inspect", twins[0].id[:5])


# What describes runs.


def test_flows_tags_and_states_are_offered(offered, record):
    record.completed("one", flow_name="my flow", tags=("prod", "a b"))
    record.completed("two", flow_name="etl", tags=("prod", "\n"))
    record.deployment(flow_name="load", tags=("big",))
    assert [*offered("flow-run", "ls", "--flow", "")] == ["etl", "load", "my flow"]
    assert [*offered("flow-run", "ls", "--flow", "etl", "--flow", "")] == ["load", "my flow"]
    assert [*offered("flow-run", "ls", "--tag", "")] == ["a b", "big", "prod"]
    states = offered("flow-run", "ls", "--state", "")
    assert [*states] == [*STATE_NAMES]
    assert states["TimedOut"] == "of type Failed"


def _every_listing(group=None, words=()):
    for word, one in (group or every_command()).items():
        if isinstance(one, Group):
            yield from _every_listing(one, (*words, word))
        elif "columns" in {parameter.name for parameter in parameters(one)}:
            yield (*words, word)


@pytest.mark.parametrize("words", [*_every_listing()], ids=" ".join)
def test_the_columns_of_a_listing_are_offered_and_are_right(offered, words):
    columns = [*offered(*words, "--columns", "")]
    assert cli.main([*words, "--columns", ",".join(columns)]) == 0
    rest = [*offered(*words, "--columns", f"{columns[0]},+")]
    assert rest == [f"{columns[0]},+{name}" for name in columns[1:]]
    orders = [*offered(*words, "--sort", "")]
    assert orders
    assert [*offered(*words, "--sort", "-")] == [f"-{name}" for name in orders]
    for name in orders:
        assert cli.main([*words, "--sort", name]) == 0


# Everything else on record.


def test_deployments_are_offered_by_flow_and_name_and_by_ids_that_are_begun(offered, record):
    deployment = record.deployment(id="0123abcd-0000-4000-8000-000000000000", work_queue="slow")
    told = offered("deployment", "run", "")
    assert told == {"etl/nightly": "my_flows.py:etl, work queue slow"}
    assert deployment.id in offered("deployment", "inspect", "01")


def test_work_queues_are_offered_to_pause_and_to_resume(offered, record):
    tables = record.registry.deployments
    tables.create_work_queue(WorkQueue(id=new_id(), name="open"))
    tables.create_work_queue(WorkQueue(id=new_id(), name="shut", is_paused=True))
    assert offered("work-queue", "inspect", "") == {"open": "", "shut": "paused"}
    assert [*offered("work-queue", "pause", "")] == ["open"]
    assert [*offered("work-queue", "resume", "")] == ["shut"]
    assert [*offered("agent", "start", "-q", "open", "-q", "")] == ["shut"]


def test_blocks_types_and_rules_are_offered(offered, record):
    tables = record.registry.blocks
    tables.save_block(
        BlockDocument(id=new_id(), type="process", name="big", fields={}), overwrite=False
    )
    tables.save_block(
        BlockDocument(id=new_id(), type="secret", name="key", fields={}), overwrite=False
    )
    tables.save_block_types([BlockType("warehouse", "my_blocks")])
    assert [*offered("block", "inspect", "")] == ["process/big", "secret/key"]
    assert [*offered("deployment", "build", "x", "--infra-block", "")] == ["process/big"]
    assert offered("block", "create", "")["warehouse"] == "my_blocks"
    rule = NotificationRule(id=new_id(), block="secret/key", is_active=False)
    record.registry.notifications.create_rule(rule)
    assert offered("notification", "inspect", "") == {rule.id: "secret/key, paused"}


def test_the_types_that_are_offered_are_those_that_there_are(offered):
    assert sorted(offered("block", "create", "")) == [one.type for one in list_types()]


def test_settings_are_offered_with_the_values_that_are_known(offered, write_profiles):
    told = offered("config", "set", "")
    assert "registry" in told["PREFECTLITE_HOME="]
    assert not any(name.startswith(("NO_COLOR", "PREFECTLITE_PROFILE")) for name in told)
    assert [*offered("config", "set", "PREFECTLITE_DEBUG=")] == [
        "PREFECTLITE_DEBUG=true",
        "PREFECTLITE_DEBUG=false",
    ]
    assert "PREFECTLITE_LOGGING_LEVEL=DEBUG" in offered(
        "config", "set", "PREFECTLITE_LOGGING_LEVEL="
    )
    assert offered("config", "set", "PREFECTLITE_HOME=") == {}
    write_profiles("[profiles.default]\nPREFECTLITE_DEBUG = true\n[profiles.ci]\n")
    assert [*offered("config", "unset", "")] == ["PREFECTLITE_DEBUG"]
    assert [*offered("profile", "use", "")] == ["default", "ci"]
    assert offered("profile", "create", "") == {}
    assert [*offered("profile", "create", "new", "--from", "")] == ["default", "ci"]


# Flows in files.


def test_files_that_have_flows_are_offered_and_folders(offered, folder):
    told = offered("run", "")
    assert told == {"two_flows.py:": "flows etl, load", "inner/": ""}
    assert offered("run", "inner/") == {"inner/one_flow.py": "flow only"}
    assert [*offered("run", ".hi")] == [".hidden/"]


def test_many_files_are_offered_without_a_look_into_them(offered, folder):
    for number in range(30):
        (folder / f"file_{number:02}.py").write_text("")
    assert {"file_07.py", "two_flows.py"} <= offered("run", "").keys()


def test_the_flows_of_a_file_or_a_module_are_offered_after_the_colon(offered, folder):
    told = {"two_flows.py:etl": "Extract and load.", "two_flows.py:load": ""}
    assert offered("run", "two_flows.py:") == told
    assert [*offered("deployment", "build", "two_flows:e")] == ["two_flows:etl", "two_flows:load"]
    for nothing in ("broken.py:", "missing.py:", "none:", "a.b-c:", ":", "inner/:"):
        assert offered("run", nothing) == {}
    assert "prefectlite.examples.etl" in offered("run", "prefectlite.e")


def test_a_home_folder_is_left_to_the_shell(ask, folder):
    assert ask("run", "~/fl") == ["files"]
    assert ask("run", "x.py", "--params", "@~/fl") == ["files"]


def test_the_parameters_of_a_flow_are_offered_until_they_are_given(offered, folder):
    told = offered("run", "two_flows.py:etl", "-p", "")
    assert told == {"day=": "str = 'today'", "size=": "int"}
    assert [*offered("run", "two_flows.py:etl", "-p", "day=1", "-p", "")] == ["size="]
    assert [*offered("run", "inner/one_flow.py", "--param=")] == ["--param=day="]
    assert offered("run", "two_flows.py", "-p", "") == {}, "which of the flows?"
    assert offered("run", "two_flows.py:etl", "-p", "day=") == {}


def test_the_parameters_of_a_deployment_are_those_of_its_flow(offered, folder, record):
    deployment = record.deployment(entrypoint="two_flows.py:etl", parameters={"x": 1})
    for reference in ("etl/nightly", "nightly", deployment.id, deployment.id[:8]):
        assert [*offered("deployment", "run", reference, "-p", "")] == ["day=", "size="]
    record.deployment("far", entrypoint="gone.py:etl", parameters={"day": "x"})
    assert offered("deployment", "run", "far", "-p", "") == {"day=": '"x"'}


def test_a_file_of_parameters_is_offered_after_its_sign(offered, folder):
    assert [*offered("run", "x", "--params", "")] == ["@"]
    assert [*offered("run", "x", "--params", "@e")] == ["@etl.json"]
    assert [*offered("run", "x", "--params", "@in")] == ["@inner/"]
    assert json.loads((folder / "etl.json").read_text()) == {}
