"""How the tests of the agent start one, for real, give it runs, and see what is left of them."""

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

import prefectlite
from prefectlite.clock import now
from prefectlite.deployment_records import WorkQueue
from prefectlite.names import new_id
from prefectlite.process_trees import end_cgroup
from prefectlite.records import FlowRun
from prefectlite.run_folders import run_folders
from prefectlite.states import Cancelling, Scheduled

DEADLINE_SECONDS = 60
SOURCES = str(Path(prefectlite.__file__).parents[1])
#: What is launched here. Each process bounds its own life: nothing outlives its test for long.
FLOWS = """
import fcntl, os, signal, subprocess, sys, threading
from pathlib import Path
from prefectlite import flow
from prefectlite.context import get_run_context

signal.alarm(100)
HERE = Path(__file__).parent

def begin():
    descriptor = os.open(HERE / "begun", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{get_run_context().flow_run.id}\\n".encode())
    os.close(descriptor)

@flow
def note():
    begin()

@flow
def wait():
    begin()
    with open(HERE / "gate") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)

@flow
def stubborn():
    # It leaves a process in a session of its own, and swallows all that is raised in it.
    command = "trap : TERM; while :; do sleep 100; done"
    subprocess.Popen(["timeout", "-s", "KILL", "100", "sh", "-c", command], start_new_session=True)
    begin()
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            pass
"""


class StartedAgent:
    """An agent in a process of its own."""

    def __init__(self, words, number, folder, environment, prefix):
        # A tenth of the time between two looks for runs whose process has died.
        code = "import sys; from prefectlite import agent; agent._SETTLE_SECONDS = 0.5\n"
        code += "from prefectlite.__main__ import main; sys.exit(main())"
        program = ["-c", code] if environment.pop("is_hurried", False) else ["-m", "prefectlite"]
        self.told = folder / f"agent-{number}.txt"
        with self.told.open("wb") as told:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, *program, "agent", "start", *words],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": SOURCES, **environment},
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
            )

    def text(self):
        """Return all that it has said."""
        return self.told.read_text(encoding="utf-8")

    def says(self, text):
        """Wait until it has said this."""
        self.until(lambda: text in self.text(), f"{text!r} in", told=self.text)
        return self

    def ends(self, exit_code=0, *, by=None):
        """Wait until it ends, with this exit code, at a signal where one is given."""
        if by is not None:
            self.process.send_signal(by)
        assert self.process.wait(DEADLINE_SECONDS) == exit_code, self.text()
        return self


class Site:
    """A folder with flows, a registry, and the agents that serve it."""

    def __init__(self, folder, home, registry, until, with_token):
        self.folder, self.home, self.registry = folder, home, registry
        self.until, self.with_token = partial(until, seconds=DEADLINE_SECONDS), with_token
        self.tables = registry.deployments
        self.agents = []
        self._gate = os.open(folder / "gate", os.O_RDWR | os.O_CREAT)
        self.hold()

    def agent(self, *words, prefix=(), **environment):
        """Start an agent, with these options."""
        number = len(self.agents)
        agent = StartedAgent(words, number, self.folder, environment, prefix)
        agent.until = self.until
        self.agents.append(agent)
        return agent

    def agent_once(self, *words, exit_code=0, **environment):
        """Let an agent do one round; return what it said."""
        return self.agent("--run-once", *words, **environment).ends(exit_code).text()

    def add(self, flow="note", *, queue="default", seconds=1.0, infrastructure=None, **fields):
        """Put a run on record that has been due for so many seconds."""
        infrastructure = {"type": "process", **(infrastructure or {})}
        fields = {"state": Scheduled(), "name": f"{flow}-{new_id()[:8]}", **fields}
        flow_run = FlowRun(
            id=new_id(),
            flow_name=flow,
            entrypoint=f"work.py:{flow}",
            work_queue=queue,
            infrastructure={"working_directory": str(self.folder), **infrastructure},
            scheduled_at=now() - timedelta(seconds=seconds),
            **fields,
        )
        self.registry.create_flow_run(flow_run)
        return flow_run

    def queue(self, name="default", **fields):
        """Put a work queue on record."""
        queue = WorkQueue(id=new_id(), name=name, **fields)
        self.tables.create_work_queue(queue)
        return queue

    def ask(self, flow_run, grace_seconds=0.3):
        """Put on record that a run is to end, as an asker does who then dies."""
        self.registry.launches.set_kill_at(flow_run.id, now() + timedelta(seconds=grace_seconds))
        return self.registry.change_state(self.find(flow_run), Cancelling())

    def alter(self, flow_run, **columns):
        """Change what is on record of a run as no prefectlite would, and return it."""
        connection = sqlite3.connect(self.home / "registry.db", isolation_level=None)
        try:
            for name, value in columns.items():
                sql = f"UPDATE flow_run SET {name} = ? WHERE id = ?"
                connection.execute(sql, (value, flow_run.id))
        finally:
            connection.close()
        return self.find(flow_run)

    def find(self, flow_run):
        """Return a run as it is now."""
        return self.registry.find_flow_run(flow_run.id)

    def state(self, flow_run):
        """Return the name of a run's state."""
        return self.find(flow_run).state.name

    def history(self, flow_run):
        """Return the names of all states that a run has had."""
        return [change.state.name for change in self.registry.state_history(flow_run)]

    def until_state(self, name, *flow_runs):
        """Wait until runs are in this state, and return the last as it then is."""
        for flow_run in flow_runs:
            self.until(
                lambda run=flow_run: self.state(run) == name, name, told=self._told(flow_run)
            )
        return self.find(flow_runs[-1])

    def until_final(self, *flow_runs):
        """Wait until runs have ended, and return them."""
        for flow_run in flow_runs:
            self.until(
                lambda run=flow_run: self.find(run).state.is_final(), told=self._told(flow_run)
            )
        return [self.find(flow_run) for flow_run in flow_runs]

    def _told(self, flow_run):
        def told():
            said = [agent.text() for agent in self.agents[-3:]]
            return f"{self.find(flow_run).state!r}; {self.history(flow_run)}; agents: {said}"

        return told

    def begun(self):
        """Return the ids of the runs whose flow was begun, once for each time that it was."""
        path = self.folder / "begun"
        return path.read_text(encoding="ascii").split() if path.exists() else []

    def until_begun(self, *flow_runs):
        """Wait until the flows of these runs have begun."""
        for flow_run in flow_runs:
            self.until(
                lambda run=flow_run: run.id in self.begun(), "begin", told=self._told(flow_run)
            )

    def go(self):
        """Let the runs of ``wait`` end."""
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def hold(self):
        """Have the runs of ``wait`` wait, as they do from the beginning."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)

    def check(self):
        """Have SQLite itself look for damage."""
        connection = sqlite3.connect(self.home / "registry.db")
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        finally:
            connection.close()

    def left(self):
        """Return the processes of this site that live: each has its home in the environment."""
        return self.with_token(f"PREFECTLITE_HOME={self.home}\0")

    def until_empty(self):
        """Wait until no process of this site lives."""
        self.until(lambda: not self.left(), "nothing left")

    def close(self):
        """End all that is left; the home is this test's alone, so they are its own."""
        for agent in self.agents:
            agent.process.kill()
            agent.process.wait(DEADLINE_SECONDS)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (pids := self.left()) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for group in filter(None, [folder.cgroup() for folder in run_folders()]):
            end_cgroup(group)
        os.close(self._gate)


@pytest.fixture
def site(tmp_path, home, registry, until, with_token):
    """A folder with flows and an empty registry; what was started is gone when the test ends."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "work.py").write_text(FLOWS, encoding="utf-8")
    site = Site(folder, home, registry, until, with_token)
    site.sources = SOURCES
    yield site
    site.close()
