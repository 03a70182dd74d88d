"""Deployments whose infrastructure is a block: in Python, in TOML, on the command line, in their runs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import prefectlite
from prefectlite import cli
from prefectlite.blocks.system import Secret
from prefectlite.cancellation import request_cancellation
from prefectlite.deployments import Deployment, new_flow_run, run_deployment
from prefectlite.errors import BlockNotLoadedError, NotFoundError, SettingError, UsageError
from prefectlite.infrastructure import load_infrastructure
from prefectlite.infrastructure.process import Process

pytestmark = pytest.mark.usefixtures("flows_folder")

_PLANTED = "pl4nted-s3cret"


def deployment(infrastructure="process/big-box", **overrides):
    return Deployment(
        name="nightly",
        flow_name="the flow",
        entrypoint="deployed_flows.py:etl",
        infrastructure=infrastructure,
        infra_overrides=overrides,
    )


@pytest.fixture
def box(tmp_path):
    """A block on record."""
    box = Process(
        environment={"A": _PLANTED, "B": "box"},
        working_directory=str(tmp_path),
        grace_seconds=60,
        command=["nice", "python", "-m", "prefectlite.execute"],
    )
    box.save("big-box")
    return box


def run_of(one):
    one.apply()
    return run_deployment("nightly", timeout=0).infrastructure


def test_a_deployment_keeps_the_reference_and_its_run_gets_a_copy(box, registry):
    deployment().apply()
    on_record = registry.deployments.find_deployment("nightly")
    assert on_record.infrastructure == {"block": "process/big-box"}
    first = run_deployment("nightly", timeout=0)
    assert first.infrastructure == box.fields()

    replace(box, grace_seconds=5).save("big-box", overwrite=True)
    second = run_deployment("nightly", timeout=0)
    assert second.infrastructure["grace_seconds"] == 5
    Process.delete("big-box")
    with pytest.raises(NotFoundError, match="there is no block 'process/big-box'"):
        run_deployment("nightly", timeout=0)
    for run in (first, second):
        assert registry.find_flow_run(run.id).infrastructure == run.infrastructure
        assert load_infrastructure(run.infrastructure).environment["A"] == _PLANTED
        request_cancellation(registry, run, grace_seconds=1)
        assert registry.find_flow_run(run.id).state.is_cancelled()


def test_what_the_deployment_says_counts_more_than_the_block(box):
    # A grace period of 30 s is what it would be anyway, but not what the block says.
    overrides = {"grace_seconds": 30, "env.B": "own", "environment.C": "3", "timeout_seconds": 9}
    found = run_of(deployment(**overrides))
    assert found["environment"] == {"A": _PLANTED, "B": "own", "C": "3"}
    assert load_infrastructure(found).grace_seconds == 30
    assert found["timeout_seconds"] == 9
    assert found["command"] == box.command


def test_a_process_is_copied_and_a_deployment_without_either_has_a_plain_one(box, registry):
    found = run_of(deployment(box, **{"env.B": "own"}))
    assert found["environment"] == {"A": _PLANTED, "B": "own"}
    Process.delete("big-box")
    assert run_of(deployment(box))["environment"] == {"A": _PLANTED, "B": "box"}
    assert run_of(deployment(None)) == {"type": "process", "working_directory": str(Path.cwd())}


def test_the_flows_folder_is_still_found_where_the_block_has_another(box, tmp_path, registry):
    deployment().apply()
    run = new_flow_run(registry.deployments.find_deployment("nightly"), {})
    assert run.entrypoint == str(Path.cwd() / "deployed_flows.py:etl")
    assert run.infrastructure["working_directory"] == str(tmp_path)


@pytest.mark.parametrize(
    ("infrastructure", "overrides", "error", "told"),
    [
        ("big-box", {}, UsageError, "is no block"),
        ("process/", {}, UsageError, "is no block"),
        (7, {}, UsageError, "neither a block"),
        (Process, {}, UsageError, "neither a block"),
        ("secret/key", {}, SettingError, "no infrastructure called 'secret'"),
        ("process/big-box", {"cpus": 3}, UsageError, "there is no 'cpus'"),
        ("process/big-box", {"type": "docker"}, UsageError, "of another type"),
        ("process/big-box", {"grace_seconds": "x"}, UsageError, "grace_seconds must be"),
    ],
)
def test_what_is_no_infrastructure_is_refused(infrastructure, overrides, error, told, box):
    with pytest.raises(error, match=told):
        deployment(infrastructure, **overrides).record()


def test_a_block_that_is_not_there_is_refused_when_the_deployment_is_applied(registry):
    one = deployment("process/none")
    one.record()
    with pytest.raises(NotFoundError, match="there is no block 'process/none'"):
        one.apply()
    assert registry.deployments.list_deployments() == []
    assert registry.deployments.list_work_queues() == []


def test_a_block_whose_secrets_are_gone_makes_no_run(box, home, registry):
    deployment().apply()
    for path in (home / "secrets").iterdir():
        path.unlink()
    with pytest.raises(BlockNotLoadedError, match=r"has secrets \(environment.A, environment.B\)"):
        run_deployment("nightly", timeout=0)
    assert registry.list_flow_runs() == []


@pytest.mark.parametrize(
    "text",
    [
        'infrastructure = "process/big-box"',
        '[infrastructure]\nblock = "process/big-box"',
    ],
)
def test_a_file_names_a_block_by_itself_or_in_the_table(text, box, flows_folder):
    path = flows_folder / "d.toml"
    path.write_text(
        f'name = "nightly"\nflow_name = "f"\nentrypoint = "deployed_flows.py:etl"\n{text}\n'
    )
    one = Deployment.from_toml(path)
    assert one.record().infrastructure == {"block": "process/big-box"}
    assert 'block = "process/big-box"' in one.to_toml()
    path.write_text(one.to_toml())
    assert Deployment.from_toml(path).record().infrastructure == {"block": "process/big-box"}
    path.write_text(path.read_text() + "grace_seconds = 5\n")
    assert run_of(Deployment.from_toml(path))["grace_seconds"] == 5


def test_build_names_a_block_and_inspect_shows_it_without_its_environment(box, capsys, home):
    words = "deployment build deployed_flows.py:etl -n nightly --infra-block process/big-box"
    assert cli.main([*words.split(), "--apply", "--override", "grace_seconds=5"]) == 0
    for line in ("inspect nightly", "inspect nightly --json", "ls --json"):
        capsys.readouterr()
        assert cli.main(["deployment", *line.split()]) == 0
        shown = capsys.readouterr().out
        assert _PLANTED not in shown
        assert "process/big-box" in shown
    assert cli.main(["deployment", "run", "nightly", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["infrastructure"]["environment"] == {"A": "**********", "B": "**********"}
    assert document["infrastructure"]["grace_seconds"] == 5

    Process.delete("big-box")
    assert cli.main(["deployment", "inspect", "nightly"]) == 0
    capsys.readouterr()
    assert cli.main(["deployment", "run", "nightly"]) == 3
    assert "there is no block 'process/big-box'" in capsys.readouterr().err
    assert cli.main([*words.split(), "--apply", "--force"]) == 3


def test_a_run_is_launched_with_what_its_block_said_when_it_was_made(registry, flows_folder):
    (flows_folder / "shows.py").write_text(
        "import os\nfrom prefectlite import flow\nfrom prefectlite.blocks.system import Secret\n\n"
        "@flow(log_prints=True)\ndef shows():\n"
        "    print('the variable is', os.environ['FROM_BLOCK'], Secret.load('key'))\n"
    )
    Secret(value=_PLANTED).save("key")
    Process(environment={"FROM_BLOCK": "set"}).save("big-box")
    Deployment(
        name="nightly",
        flow_name="shows",
        entrypoint="shows.py:shows",
        infrastructure="process/big-box",
    ).apply()
    run = run_deployment("nightly", timeout=0)
    Process.delete("big-box")
    sources = str(Path(prefectlite.__file__).parents[1])
    command = [sys.executable, "-m", "prefectlite", "agent", "start", "--run-once"]
    environment = {**os.environ, "PYTHONPATH": sources}
    subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True)
    command[3:] = ["flow-run", "wait", run.id, "--timeout", "60"]
    subprocess.run(command, env=environment, check=True, timeout=90, capture_output=True)
    lines = " ".join(line.message for line in registry.read_logs(run.id))
    assert "the variable is set" in lines
    assert _PLANTED not in lines
