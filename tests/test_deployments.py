"""Deployments in Python: built, written, read back, applied, run."""

import asyncio
import os
import sys
import textwrap
import threading
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path

import pytest

from prefectlite import flow
from prefectlite.clock import now
from prefectlite.deployments import Deployment, run_deployment
from prefectlite.errors import (
    AmbiguousReferenceError,
    ConflictError,
    NotFoundError,
    ParameterTypeError,
    SettingError,
    UsageError,
)
from prefectlite.states import Completed, Failed, Running

pytestmark = pytest.mark.usefixtures("flows_folder")


@flow
def here(x: int = 0):
    return x


def deployment(**fields):
    fields = {"name": "nightly", "flow_name": "the flow", **fields}
    return Deployment(**{"entrypoint": "deployed_flows.py:etl", **fields})


def loaded(name):
    from prefectlite.entrypoints import load_flow

    return load_flow(f"deployed_flows.py:{name}")


@pytest.fixture
def agent(registry):
    """Take the runs that are due and end each, in another thread, until the test ends."""
    over, taken = threading.Event(), []

    def work():
        while not over.wait(0.01):
            for run in registry.deployments.claim_due_flow_runs(["default"], limit=1, at=now()):
                running = registry.change_state(run, Running())
                taken.append(running)
                ending = Failed("as asked") if run.parameters.get("fail") else Completed()
                registry.change_state(running, ending)

    thread = threading.Thread(target=work)
    thread.start()
    yield taken
    over.set()
    thread.join()


# Building


def test_a_deployment_takes_after_its_flow_where_nothing_is_said(flows_folder):
    built = Deployment.build_from_flow(loaded("etl"), "nightly")
    assert (built.name, built.flow_name, built.version) == ("nightly", "the flow", "7")
    assert built.description == "Extract.\n\nAnd load."
    assert built.entrypoint == "deployed_flows.py:etl"
    assert built.record().working_directory == str(flows_folder)
    assert built.record().infrastructure == {"type": "process"}
    assert built.record().work_queue == "default"


def test_what_is_said_counts_more_than_the_flow(tmp_path):
    built = Deployment.build_from_flow(
        flow=loaded("etl"),
        name="nightly",
        path=str(tmp_path),
        description="d",
        version="8",
        parameters={"n": 2},
        tags=["a", "b", "a", ""],
        work_queue_name="slow",
        infra_overrides={"env": {"A": "1"}, "env.B": "2", "command": "nice -n 5 python"},
    )
    record = built.record()
    assert (record.description, record.version, record.parameters) == ("d", "8", {"n": 2})
    assert (record.tags, record.work_queue) == (("a", "b"), "slow")
    assert record.working_directory == str(tmp_path)
    assert built.entrypoint == "flows/deployed_flows.py:etl"
    assert record.infrastructure == {
        "type": "process",
        "environment": {"A": "1", "B": "2"},
        "command": ["nice", "-n", "5", "python"],
    }


def test_a_flow_of_a_package_is_named_as_a_module():
    from prefectlite.examples.hello import hello

    assert Deployment.build_from_flow(hello, "n").entrypoint == "prefectlite.examples.hello:hello"


def test_a_flow_that_no_other_process_can_load_is_refused():
    @flow
    def local(): ...

    with pytest.raises(UsageError, match="another process"):
        Deployment.build_from_flow(local, "n")


def test_a_flow_of_a_script_is_named_by_its_file(start_script):
    script = """
    from prefectlite import flow
    from prefectlite.deployments import Deployment

    @flow
    def mine(): ...

    if __name__ == "__main__":
        print(Deployment.build_from_flow(mine, "n").entrypoint)
    """
    assert start_script(script).end().strip().endswith("my_flow.py:mine")


@pytest.mark.parametrize("keyword", ["schedule", "work_queue", "parameter"])
def test_an_unknown_keyword_is_refused_by_its_name(keyword):
    with pytest.raises(UsageError, match=keyword):
        Deployment.build_from_flow(loaded("etl"), "n", **{keyword: None})


@pytest.mark.parametrize(
    ("name", "parameters", "error", "match"),
    [
        ("etl", {"m": 1}, ParameterTypeError, "'m'"),
        ("etl", {"n": "many"}, ParameterTypeError, "expected int"),
        ("secret", {"password": "hunter2"}, UsageError, "password.*secret"),
        ("etl", {"day": object()}, UsageError, "'day'.*object"),
        ("etl", ["day"], UsageError, "by name"),
        ("etl", {1: 2}, UsageError, "by name"),
    ],
)
def test_a_parameter_that_cannot_be_right_is_refused(name, parameters, error, match):
    with pytest.raises(error, match=match) as caught:
        Deployment.build_from_flow(loaded(name), "n", parameters=parameters)
    assert "hunter2" not in str(caught.value)


def test_a_parameter_may_be_left_to_the_run():
    assert Deployment.build_from_flow(loaded("strict"), "n").record().parameters == {}


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int


def test_parameters_are_kept_such_that_annotations_make_them_again():
    given = {
        "day": date(2024, 2, 29),
        "at": datetime(2024, 2, 29, tzinfo=UTC),
        "path": Path("/a"),
        "colour": Colour.RED,
        "points": [Point(1), (2, 3)],
        "some": {4},
    }
    assert deployment(parameters=given).record().parameters == {
        "day": "2024-02-29",
        "at": "2024-02-29T00:00:00+00:00",
        "path": "/a",
        "colour": "red",
        "points": [{"x": 1}, [2, 3]],
        "some": [4],
    }


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[2J", "a\0b", "caf\udce9", None, 5])
def test_a_name_that_nobody_could_read_is_refused(name):
    with pytest.raises(UsageError, match="name"):
        deployment(name=name).record()
    with pytest.raises(UsageError, match="name"):
        deployment(work_queue_name=name).record()


def test_a_slash_in_a_name_is_refused_with_the_reason():
    with pytest.raises(UsageError, match="'a/b' contains '/'") as caught:
        deployment(name="a/b").record()
    assert "FLOW-NAME/NAME" in caught.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"entrypoint": ""},
        {"entrypoint": None},
        {"entrypoint": "a\0b.py"},
        {"flow_name": 5},
        {"version": 5},
        {"description": ["d"]},
        {"tags": "abc"},
        {"tags": [1]},
        {"tags": None},
    ],
    ids=str,
)
def test_an_attribute_of_another_type_is_refused(fields):
    with pytest.raises(UsageError):
        deployment(**fields).record()


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ({"comand": "x"}, "'comand'"),
        ({"env.": "x"}, "environment must be a table"),
        ({"env": {"A": 1}}, "A is none"),
        ({"env": {"A=B": "1"}}, "names of variables"),
        ({"env": {"": "1"}}, "names of variables"),
        ({"env.A": "\0"}, "A is none"),
        ({"command": ""}, "command"),
        ({"command": "'"}, "command"),
        ({"command": ["a", 1]}, "command"),
        ({"stream_output": "yes"}, "true or false"),
        ({"grace_seconds": -1}, "at least 0"),
        ({"grace_seconds": float("nan")}, "at least 0"),
        ({"grace_seconds": True}, "at least 0"),
        ({"timeout_seconds": 0}, "above 0"),
        ({"working_dir": ""}, "working_directory"),
        ({"type": 5}, "type"),
    ],
    ids=str,
)
def test_an_override_that_cannot_be_right_is_refused_by_its_name(overrides, match):
    with pytest.raises(UsageError, match=match):
        deployment(infra_overrides=overrides).record()


def test_a_wrong_environment_is_refused_without_showing_it():
    with pytest.raises(UsageError) as caught:
        deployment(infra_overrides={"env": {"PASSWORD": "hunter2", "A": 1}}).record()
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_an_infrastructure_that_there_is_not_is_refused():
    with pytest.raises(SettingError, match="nonsense"):
        deployment(infra_overrides={"type": "nonsense"}).record()


def test_a_link_to_a_folder_stays_a_link(tmp_path, flows_folder):
    link = tmp_path / "current"
    link.symlink_to(flows_folder)
    assert deployment(path=str(link)).record().working_directory == str(link)


def test_where_the_current_folder_is_gone_that_is_said(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="current folder"):
        deployment().record()


# Applying


def test_applying_puts_it_on_record_with_its_queue(registry):
    id_ = deployment(work_queue_name="slow").apply()
    found = registry.deployments.find_deployment("the flow/nightly")
    assert found.id == id_
    assert [queue.name for queue in registry.deployments.list_work_queues()] == ["slow"]


def test_applying_again_replaces_it_and_leaves_the_queue_alone(registry):
    first = deployment().apply()
    queue = registry.deployments.find_work_queue("default")
    registry.deployments.change_work_queue(queue.id, is_paused=True)
    assert deployment(version="2").apply() == first
    assert registry.deployments.find_deployment(first).version == "2"
    assert registry.deployments.find_work_queue("default").is_paused


def test_a_queue_that_another_creates_meanwhile_is_no_error(registry, monkeypatch):
    def conflict(_):
        raise ConflictError("there is one")

    monkeypatch.setattr(registry.deployments, "create_work_queue", conflict)
    assert deployment().apply()


def test_building_can_apply_too(registry):
    Deployment.build_from_flow(loaded("etl"), "n", apply=True)
    assert registry.deployments.find_deployment("n").entrypoint == "deployed_flows.py:etl"


# Running


def test_a_run_is_scheduled_with_all_that_it_needs(registry, flows_folder):
    id_ = deployment(
        parameters={"n": 1, "day": "x"},
        tags=["a"],
        version="3",
        work_queue_name="slow",
        infra_overrides={"env.A": "1"},
    ).apply()
    run = run_deployment("the flow/nightly", parameters={"n": 2}, tags=["b", "a"], timeout=0)
    assert registry.find_flow_run(run.id) == run
    assert run.state.is_scheduled()
    assert (run.flow_name, run.deployment_id, run.version) == ("the flow", id_, "3")
    assert (run.parameters, run.tags) == ({"n": 2, "day": "x"}, ("a", "b"))
    assert (run.work_queue, run.entrypoint) == ("slow", "deployed_flows.py:etl")
    assert run.infrastructure == {
        "type": "process",
        "environment": {"A": "1"},
        "working_directory": str(flows_folder),
    }
    assert abs(run.scheduled_at - now()) < timedelta(minutes=1)
    assert run.parent_flow_run_id is None


def test_a_run_is_not_altered_by_what_becomes_of_the_deployment(registry):
    id_ = deployment().apply()
    run = run_deployment(id_, timeout=0)
    deployment(infra_overrides={"env.A": "2"}, work_queue_name="other").apply()
    assert registry.find_flow_run(run.id) == run
    registry.deployments.delete_deployment(id_)
    assert registry.find_flow_run(run.id) == run


def test_the_flow_is_still_found_where_the_process_begins_in_another_folder(tmp_path, flows_folder):
    deployment(infra_overrides={"working_dir": "../other"}).apply()
    run = run_deployment("nightly", timeout=0)
    assert run.entrypoint == f"{flows_folder}/deployed_flows.py:etl"
    assert os.path.normpath(run.infrastructure["working_directory"]) == str(tmp_path / "other")


def test_a_run_has_the_name_and_the_time_that_were_asked_for():
    deployment().apply()
    at = datetime(2124, 2, 29, 12, tzinfo=UTC)
    run = run_deployment("nightly", flow_run_name="mine", scheduled_time=at, timeout=0)
    assert (run.name, run.scheduled_at) == ("mine", at)
    assert run_deployment("nightly", timeout=0).name not in ("mine", "")


def test_a_time_without_a_zone_is_refused(registry):
    deployment().apply()
    with pytest.raises(UsageError, match="no zone"):
        run_deployment("nightly", scheduled_time=datetime(2124, 1, 1), timeout=0)  # noqa: DTZ001 - the fault
    assert registry.list_flow_runs() == []


def test_a_deployment_that_there_is_not_is_not_found():
    with pytest.raises(NotFoundError, match="'nothing'"):
        run_deployment("nothing")


def test_an_ambiguous_name_is_refused():
    for flow_name in ("one", "two"):
        deployment(flow_name=flow_name).apply()
    with pytest.raises(AmbiguousReferenceError):
        run_deployment("nightly")


@pytest.mark.parametrize(
    ("name", "parameters", "error"),
    [
        ("etl", {"m": 1}, ParameterTypeError),
        ("etl", {"n": "many"}, ParameterTypeError),
        ("strict", {}, ParameterTypeError),
        ("secret", {"password": "hunter2"}, UsageError),
        ("lax", {}, ParameterTypeError),
    ],
)
def test_parameters_are_checked_where_the_flow_can_be_loaded(registry, name, parameters, error):
    deployment(entrypoint=f"deployed_flows.py:{name}").apply()
    path = [*sys.path]
    with pytest.raises(error):
        run_deployment("nightly", parameters=parameters, timeout=0)
    assert registry.list_flow_runs() == []
    assert sys.path == path


def test_a_flow_that_is_not_to_be_validated_is_not():
    deployment(entrypoint="deployed_flows:lax").apply()
    run = run_deployment("nightly", parameters={"number": "many"}, timeout=0)
    assert run.parameters == {"number": "many"}


@pytest.mark.parametrize("entrypoint", ["nothing.py:f", "deployed_flows.py:nothing", "a b:c"])
def test_parameters_are_taken_as_they_are_where_it_cannot(entrypoint):
    deployment(entrypoint=entrypoint, path="/nothing").apply()
    run = run_deployment("nightly", parameters={"m": [1]}, timeout=0)
    assert run.parameters == {"m": [1]}


def test_the_script_that_runs_a_deployment_of_itself_is_not_run_a_second_time(start_script):
    script = """
    from prefectlite import flow
    from prefectlite.deployments import Deployment, run_deployment

    @flow
    def mine(): ...

    Deployment.build_from_flow(mine, "n", apply=True)
    print(run_deployment("n", timeout=0).entrypoint)
    """
    assert len(start_script(script).end().split()) == 1


def test_running_waits_for_the_end_and_returns_the_run(agent):
    deployment().apply()
    assert run_deployment("nightly").state.is_completed()
    deployment(entrypoint="elsewhere:f").apply()
    failed = run_deployment("nightly", parameters={"fail": True}, poll_interval=0.01)
    assert (failed.state.name, failed.state.message) == ("Failed", "as asked")


def test_waiting_ends_with_its_timeout_and_the_run_stays(registry):
    deployment().apply()
    run = run_deployment("nightly", timeout=0.05)
    assert run.state.is_scheduled()
    assert registry.find_flow_run(run.id) == run


def test_a_run_that_a_flow_waits_for_is_its_subflow_run(registry, agent):
    deployment().apply()

    @flow
    def caller(timeout):
        return run_deployment("nightly", timeout=timeout).parent_flow_run_id

    parent = caller(60)
    assert registry.find_flow_run(parent).flow_name == "caller"
    assert caller(0) is None


def test_a_program_for_prefect_can_import_it_from_where_it_was():
    code = textwrap.dedent(
        """
        from prefectlite.deployments import Deployment, run_deployment
        """
    )
    exec(compile(code, "prefect", "exec"), {})


@pytest.mark.parametrize("timeout", [None, 0])
def test_in_a_coroutine_it_is_awaited_and_the_loop_goes_on(agent, timeout):
    deployment().apply()
    turns = []

    async def turn():
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    @flow
    async def outer():
        turning = asyncio.create_task(turn())
        run = await run_deployment("nightly", timeout=timeout)
        turning.cancel()
        return run.state.name, run.parent_flow_run_id is None

    assert asyncio.run(outer()) == (
        ("Completed", False) if timeout is None else ("Scheduled", True)
    )
    assert bool(turns) == (timeout is None)


def test_a_plain_function_that_a_coroutine_calls_gets_the_run_itself():
    deployment().apply()

    async def outer():
        return plain()

    def plain():
        return run_deployment("nightly", timeout=0)

    assert asyncio.run(outer()).state.is_scheduled()
