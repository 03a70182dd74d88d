"""How the tests of settling launch runs, for real, and see what becomes of them."""

import json
import os
import signal
import textwrap
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import prefectlite
from prefectlite.clock import now, to_microseconds
from prefectlite.infrastructure import process
from prefectlite.launching import launch
from prefectlite.liveness import own_identity, start_ticks
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.run_folders import RunFolder, run_folders
from prefectlite.settling import settle
from prefectlite.states import Pending, Running

SOURCES = str(Path(prefectlite.__file__).parents[1])
DEADLINE_SECONDS = 20
#: What every flow here begins with; alarms bound its life, and that of what it leaves.
PRELUDE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from prefectlite import flow, task

signal.alarm(50)
HERE = Path(__file__).parent
STAYS = [sys.executable, "-c", "import signal; signal.alarm(50); signal.pause()"]
IGNORES = ["sh", "-c", "trap : TERM; for i in 1 2 3 4 5; do sleep 10; done"]

def tell(*pids):
    (HERE / "told.tmp").write_text(json.dumps(pids))
    (HERE / "told.tmp").rename(HERE / "told")

def wait():
    while not (HERE / "go").exists():
        time.sleep(0.005)

@task
def leaves():
    own_session = subprocess.Popen(STAYS, start_new_session=True)
    # A daemon: in a session of its own, and no child of anything but the first process.
    script = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], start_new_session=True,"
    script += " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
    done = subprocess.run([sys.executable, "-c", script, *STAYS], capture_output=True, check=True)
    tell(own_session.pid, int(done.stdout))
    wait()

@flow
def runs():
"""


# Of this process, what tells a dead one from none.
OWN = ("pid", "hostname", "boot_id", "pid_namespace")
#: How a run ended that was killed.
NOTHING = {
    "reason": "ended",
    "exit_code": None,
    "signal": 9,
    "message": None,
    "swept": 0,
    "survivors": [],
    "lost_output_bytes": 0,
}


class Runs:
    """Launches flows in the folder of a test, and sees what becomes of them."""

    nothing = NOTHING

    def __init__(self, registry, folder, until, with_token):
        self.registry, self.folder = registry, folder
        self.until, self.with_token = partial(until, seconds=DEADLINE_SECONDS), with_token
        self.tokens = set()

    def add(self, body="pass", state=None, **fields):
        """Put a run on record that this process has taken."""
        code = PRELUDE + textwrap.indent(textwrap.dedent(body), "    ")
        (self.folder / "flows.py").write_text(code)
        infrastructure = fields.pop("infrastructure", {})
        run = FlowRun(
            id=new_id(),
            name="calm-otter",
            flow_name="runs",
            state=state or Pending(),
            entrypoint="flows.py:runs",
            infrastructure={"working_directory": str(self.folder), **infrastructure},
            **{"launcher": own_identity(), **fields},
        )
        self.registry.create_flow_run(run)
        return run

    def launch(self, body, **infrastructure):
        """Launch a flow, and return its run once that has begun."""
        run = launch(self.registry, self.add(body, infrastructure=infrastructure))
        self.tokens.add(run.supervisor.token)
        self.until(lambda: self.find(run).process, f"its beginning: {self.find(run)}")
        return self.find(run)

    def folder_of(self, run, exit_=None, *, lines=0, token="dead" * 8, machine_id=None):
        """Make the folder of a launch whose supervisor is dead; return it, and the run."""
        folder = RunFolder.make(run.id, token)
        machine_id, url = machine_id or own_identity().machine_id, self.registry.url
        folder.write("spec.json", {"token": token, "machine_id": machine_id, "registry": url})
        dead = {**{name: getattr(own_identity(), name) for name in OWN}, "start_ticks": 1}
        folder.write("supervisor.json", dead)
        if exit_ is not None:
            at = to_microseconds(now())
            folder.write("exit.json", {**NOTHING, "ended_at": at, **exit_})
        with (folder.path / "output.jsonl").open("w") as file:
            for number in range(lines):
                line = {"at": 1, "stream": "stdout", "text": f"line {number}"}
                file.write(json.dumps(line) + "\n")
        begun = replace(run, supervisor=folder.supervisor(), infrastructure_pid="h:1")
        return folder, self.registry.begin_flow_run(begun, Running(), folder.supervisor())

    def told(self):
        """Wait for the PIDs that the flow tells, and return them."""
        self.until((self.folder / "told").exists, f"told: {self.registry.list_flow_runs()}")
        return json.loads((self.folder / "told").read_text())

    def go_on(self):
        """Let the flow go on."""
        (self.folder / "go").touch()

    def find(self, run):
        """The run as it is on record."""
        return self.registry.find_flow_run(run.id)

    def state_name(self, run):
        """The name of the run's state."""
        return self.find(run).state.name

    def settle(self):
        """Have it put on record what became of runs, as every command does first."""
        assert settle(self.registry, lambda: self.registry) == []

    def are_gone(self, *pids):
        """Whether no process of these runs."""
        return all(start_ticks(pid) is None for pid in pids)

    def await_end(self, *pids):
        """Wait until no process of these runs."""
        self.until(lambda: self.are_gone(*pids), f"the end of {pids}")

    def await_removal(self):
        """Wait until no folder of a launch is left."""
        self.until(lambda: not [*run_folders()], f"its end: {self.registry.list_flow_runs()}")

    def messages(self, run):
        """What the run's log says, but for how it ended, which it says once at most."""
        told = [line.message for line in self.registry.read_logs(run.id)]
        ending = [text for text in told if text.startswith("Finished in state")]
        assert len(ending) <= 1
        return [text for text in told if text not in ending]


@pytest.fixture
def runs(registry, tmp_path, monkeypatch, until, with_token):
    """Launch runs; at the end of the test nothing of them is left."""
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    folder = tmp_path / "code"
    folder.mkdir()
    yield (several := Runs(registry, folder, until, with_token))
    tokens = several.tokens | {folder.token() for folder in run_folders()}
    for token in filter(None, tokens):  # a token is one launch's alone
        for pid in with_token(token):
            os.kill(pid, signal.SIGKILL)
    for pid in [*process._started]:
        os.waitpid(pid, 0)
        process._started.discard(pid)
