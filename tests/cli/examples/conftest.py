"""Where the examples of the help are run: a folder with files, and a registry with all that they name."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import BaseModel

import prefectlite
from prefectlite import cli, courier_processes
from prefectlite.deployment_records import WorkQueue
from prefectlite.names import new_id
from prefectlite.notification_records import NotificationRule
from prefectlite.records import Pause
from prefectlite.registry import open_registry
from prefectlite.run_inputs import schema_of
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Crashed, Failed, Paused

DEADLINE_SECONDS = 60
SOURCES = str(Path(prefectlite.__file__).parents[1])
#: The rest of an id of which an example has the start.
_REST = "-4a3e-4a53-a0c5-1f6b9a1c2d3e"
_FLOWS = """
from prefectlite import flow, task

@task
def load(day):
    return day

@flow(log_prints=True)
def etl(day: str = "today"):
    print("loading", load(day))
"""
_TOML = """
name = "{name}"
flow_name = "etl"
entrypoint = "my_flows.py:etl"
"""
_PROFILES = """
[profiles.default]
PREFECTLITE_LOGGING_LEVEL = "INFO"

[profiles.ci]
PREFECTLITE_LOGGING_LEVEL = "DEBUG"
"""
_PACKAGED_BLOCK = """
from prefectlite.blocks import Block

class Packaged(Block):
    name: str = ""
"""
#: What makes the blocks that examples name.
_BLOCKS = (
    "block register -f my_blocks.py",
    "block create warehouse prod host=db.example.org",
    "block create warehouse spare host=db.example.org other=warehouse/prod",
    "block create secret api-key --from-env value=API_KEY",
    "block create slack-webhook default --from-env url=SLACK_URL",
    "block create email-server me host=mail.example.org sender=me@example.org recipients='[\"a@b.c\"]'",
    "block create process big-box working_directory=/srv",
    "deployment apply nightly-deployment.toml",
)
#: What is about the folder of one test.
_HERE = ("block register -f my_blocks.py", "deployment apply nightly-deployment.toml")
_kept = {}


class Approval(BaseModel):
    """What a paused run asks for."""

    approved: bool
    comment: str = ""


class Place:
    """A folder and a registry in which an example can be run.

    Attributes:
        registry: What its commands read and write.
    """

    def __init__(self, seeds, monkeypatch):
        self.registry = open_registry(PREFECTLITE_REGISTRY.value())
        self.monkeypatch = monkeypatch
        self._seeds = seeds

    def add_runs(self, *, is_ended=True):
        """Put flow runs on record that are Running, or have ended; one has a subflow run."""
        runs = [
            self._seeds.flow_run(name, end=False, id=id_)
            for name, id_ in [
                ("gigantic-cockatoo", new_id()),
                ("swift-otter", f"3f2a9c1e{_REST}"),
                ("nimble-hare", f"77b0d4aa{_REST}"),
            ]
        ]
        self._seeds.flow_run("sad-newt", end=Failed("It is sad."))
        self._seeds.flow_run("little-hare", flow_name="inner", parent_flow_run_id=runs[2].id)
        for flow_run, name in zip(runs, ("my_task-0", "my_task-1", "my_task-2"), strict=True):
            id_ = f"3f2a9c1e{_REST}" if name == "my_task-1" else None
            task_run = self._seeds.task_run(flow_run, name, id_=id_)
            self._seeds.log(flow_run, "hello")
            self._seeds.log(flow_run, "careful", task_run=task_run, level=30)
        return [self._seeds.end(flow_run) for flow_run in runs] if is_ended else runs

    def add_paused_runs(self):
        """Put flow runs on record that are paused; all but the first wait for an answer."""
        first, *rest = self.add_runs(is_ended=False)
        self.registry.pauses.pause_flow_run(first, Paused("It waits."), Pause())
        pause = Pause(key="release", input_schema=schema_of(Approval))
        for flow_run in rest:
            self.registry.pauses.pause_flow_run(flow_run, Paused("It waits."), pause)

    def rule(self, block):
        """Return a rule of which the examples have the start of the id; not on record."""
        return NotificationRule(id=f"3f2a9c1e{_REST}", states=("Crashed",), block=block)

    def crash(self):
        """Have something to tell, which nobody tells."""
        self._seeds.flow_run("dead-newt", end=Crashed())

    def run(self, line):
        """Run a command line of the preparation, which must end well."""
        assert cli.main(shlex.split(line)) == 0, line


@pytest.fixture
def place(blocks_folder, home, profiles_path, seeds, monkeypatch, tmp_path_factory):
    """A folder and a registry, as they were made by the first test that asked; without flow runs."""
    _write_files(blocks_folder)
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    monkeypatch.setenv("API_KEY", "hush")
    monkeypatch.setenv("SLACK_URL", "https://hooks.slack.com/services/T00000000/B00000000/hush")
    monkeypatch.setattr(courier_processes, "start_courier", lambda url: None)  # it would send
    profiles_path.write_text(_PROFILES)
    sqlite = sys.modules["prefectlite.registry.sqlite"]
    if not _kept:
        here = Place(seeds, monkeypatch)
        _make(here)
        sqlite._close_all()
        _kept["home"] = tmp_path_factory.mktemp("prepared") / "home"
        shutil.copytree(home, _kept["home"])
    else:
        sqlite._close_all()
        shutil.rmtree(home)
        shutil.copytree(_kept["home"], home)
    seeds.registry = open_registry(PREFECTLITE_REGISTRY.value())
    here = Place(seeds, monkeypatch)
    for line in _HERE:
        here.run(line)
    return here


def _write_files(folder):
    (folder / "my_flows.py").write_text(_FLOWS)
    (folder / "etl.json").write_text(json.dumps({"day": "2024-02-29"}))
    (folder / "nightly-deployment.toml").write_text(_TOML.format(name="nightly"))
    (folder / "deployments").mkdir()
    for name in ("one", "two"):
        (folder / "deployments" / f"{name}.toml").write_text(_TOML.format(name=name))
    (folder / "my_package").mkdir()
    (folder / "my_package" / "blocks.py").write_text(_PACKAGED_BLOCK)


def _make(here):
    for line in _BLOCKS:
        here.run(line)
    tables = here.registry
    tables.deployments.create_work_queue(WorkQueue(id=new_id(), name="slow"))
    tables.notifications.create_rule(here.rule("slack-webhook/default"))


@pytest.fixture
def in_shell(tmp_path):
    """Run a line in a shell that finds ``prefectlite``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "prefectlite"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m prefectlite "$@"\n')
    program.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"

    def run_line(line):
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    return run_line


@pytest.fixture
def inbox():
    """The address of a web server that takes what it is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join(DEADLINE_SECONDS)


@pytest.fixture
def agent(start_python):
    """Start an agent, which is ended after the test."""

    def start():
        program = "import sys; from prefectlite.cli import main; sys.exit(main(['agent', 'start']))"
        return start_python(program)

    return start
