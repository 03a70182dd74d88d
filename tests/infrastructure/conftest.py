"""How the tests of infrastructure launch runs, for real, and see what is left of them."""

import json
import os
import signal
import textwrap
from pathlib import Path

import pytest

import prefectlite
from prefectlite.infrastructure import load_infrastructure, process
from prefectlite.launching import launch
from prefectlite.liveness import own_identity, start_ticks
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.run_folders import run_folders
from prefectlite.states import Pending

SOURCES = str(Path(prefectlite.__file__).parents[1])
#: What every flow here begins with; the alarm bounds its life.
PRELUDE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from prefectlite import flow, get_run_logger

signal.alarm(50)
HERE = Path(__file__).parent

def tell(value, name="told"):
    (HERE / f"{name}.tmp").write_text(json.dumps(value))
    (HERE / f"{name}.tmp").rename(HERE / name)

def wait_for(name):
    while not (HERE / name).exists():  # for as long as the alarm allows
        time.sleep(0.005)

@flow
def runs():
"""


class Launches:
    """Launches flows, each in a file of its own, as an agent would."""

    def __init__(self, registry, folder, until, with_token):
        self.registry, self.folder = registry, folder
        self.until, self.with_token = until, with_token
        self.tokens = set()

    def add(self, body="pass", **infrastructure):
        """Put a run of a flow on record that this process has taken."""
        folder = self.folder / new_id()
        folder.mkdir(parents=True)
        text = PRELUDE + textwrap.indent(textwrap.dedent(body), "    ")
        (folder / "flows.py").write_text(text)
        run = FlowRun(
            id=new_id(),
            name="calm-otter",
            flow_name="runs",
            state=Pending(),
            entrypoint=f"{folder / 'flows.py'}:runs",
            launcher=own_identity(),
            infrastructure={"type": "process", **infrastructure},
        )
        self.registry.create_flow_run(run)
        return run

    def launch(self, body="pass", **infrastructure):
        """Launch a flow; return its run, with its supervisor."""
        run = launch(self.registry, self.add(body, **infrastructure))
        self.tokens.add(run.supervisor.token)
        return run

    def path(self, run, name):
        """A file that a run's flow and its test share."""
        return Path(run.entrypoint.rpartition(":")[0]).with_name(name)

    def told(self, run, name="told"):
        """Wait for what the flow tells, and return it."""
        path = self.path(run, name)
        self.until(path.exists, f"{name} by {self.find(run)}")
        return json.loads(path.read_text())

    def tell(self, run, name="go"):
        """Make a file that the flow waits for."""
        self.path(run, name).touch()

    def find(self, run):
        """The run as it is on record."""
        return self.registry.find_flow_run(run.id)

    def ended(self, run):
        """Wait until nothing of a run is left, and return it as its supervisor had it recorded."""
        self.until(lambda: not [*run_folders(run.id)], f"the end of {self.find(run)}")
        ended = self.find(run)
        if ended.supervisor is not None:
            pid = ended.supervisor.pid
            self.until(lambda: start_ticks(pid) is None, "the supervisor's end")
        return ended

    def messages(self, run):
        """What the run's log says."""
        return [line.message for line in self.registry.read_logs(run.id)]

    def kill(self, run, grace_seconds, *, by=None):
        """Have a run ended, by what its record says alone unless its supervisor is given."""
        infrastructure = load_infrastructure(run.infrastructure)
        infrastructure.kill(run.infrastructure_pid, grace_seconds, supervisor=by)


@pytest.fixture
def launches(registry, tmp_path, monkeypatch, until, with_token):
    """Launch runs; at the end of the test nothing of them is left."""
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    several = Launches(registry, tmp_path / "code", until, with_token)
    yield several
    tokens = several.tokens | {folder.token() for folder in run_folders()}
    for token in filter(None, tokens):  # a token is one launch's alone
        for pid in with_token(token):
            os.kill(pid, signal.SIGKILL)
    for pid in [*process._started]:
        os.waitpid(pid, 0)
        process._started.discard(pid)
