"""prefectlite run --quiet: what of a run is not shown, and is recorded all the same."""

import sys

import pytest

from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

_FLOWS = """
from prefectlite import flow, task, get_run_logger
from prefectlite.task_runners import ProcessPoolTaskRunner

@task
def speaks(fail=False):
    get_run_logger().info("told")
    get_run_logger().warning("warned")
    print("printed")
    if fail: raise ValueError("as asked")

@flow
def loud():
    speaks()

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def pooled():
    speaks.submit(fail=True)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current folder with flows; what a test imports is forgotten when it ends."""
    (tmp_path / "quiet_flows.py").write_text(_FLOWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("quiet_flows", None)


def _messages():
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    registry.flush_logs()
    (flow_run,) = registry.list_flow_runs()
    return [line.message for line in registry.read_logs(flow_run.id)]


def test_prints_warnings_and_errors_are_shown_and_all_is_recorded(run):
    ended = run("run quiet_flows.py:loud --quiet")
    assert (ended.exit_code, ended.stdout) == (0, "printed\n")
    assert [line.partition(" | ")[2] for line in ended.stderr.splitlines()] == [
        "WARNING | Task run 'speaks-0' - warned"
    ]
    messages = _messages()
    assert messages[0].startswith("Created flow run")
    assert messages[1:3] == ["told", "warned"]
    assert messages[-1].startswith("Finished in state Completed(")


def test_it_is_for_one_run_alone(run):
    run("run quiet_flows:loud --quiet")
    assert "Created flow run" in run("run quiet_flows:loud").stderr


def test_it_reaches_the_processes_of_a_task_runner(start):
    ended = start("run", "quiet_flows.py:pooled", "--quiet")
    assert ended.returncode == 1
    assert b" | INFO " not in ended.stderr
    assert b" - warned\n" in ended.stderr
    assert b"Encountered exception" in ended.stderr
    assert "told" in _messages()


def test_a_run_in_the_background_is_begun_without_a_word(start, run):
    ended = start("run", "quiet_flows.py:loud", "--quiet", "--detach")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert run("flow-run wait", ended.stdout.decode().strip()).exit_code == 0
