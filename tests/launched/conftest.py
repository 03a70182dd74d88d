"""How the tests of launched runs start one, for real, and see what is left of it.

Every process that they start is bound to end by itself (alarm(2), or a watchdog in the engine), and at
the end of a test none is left: whatever has the test's own home folder in its environment is killed.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import prefectlite
from prefectlite.infrastructure import process
from prefectlite.infrastructure.process import Process
from prefectlite.launching import launch
from prefectlite.liveness import own_identity
from prefectlite.names import new_id, random_run_name
from prefectlite.process_trees import end_cgroup
from prefectlite.records import FlowRun
from prefectlite.run_folders import run_folders
from prefectlite.states import Pending

SOURCES = str(Path(prefectlite.__file__).parents[1])
DEADLINE_SECONDS = 40
#: What every flow file here begins with; ``tell`` and ``hear`` are how it and its test get on.
PRELUDE = """
import faulthandler, os, signal, subprocess, sys, threading, time
from pathlib import Path
from prefectlite import flow, task

HERE = Path(__file__).parent
faulthandler.dump_traceback_later(100, exit=True)

def tell(name):
    (HERE / name).touch()

def hear(name):
    while not (HERE / name).exists():  # for as long as the watchdog allows
        time.sleep(0.005)

def stay():
    tell("ready")
    threading.Event().wait()

"""


def stat(pid):
    """Return a process's state letter and start time; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


class Launched:
    """A flow run that was put on record and launched; ``folder`` is where its flow is."""

    def __init__(self, registry, flow_run_id, folder):
        self.registry, self.id, self.folder = registry, flow_run_id, folder

    @property
    def run(self):
        """The run as it is on record now, seen without settling anything."""
        return self.registry.find_flow_run(self.id)

    def has(self, name="ready"):
        """Wait until the flow has told of this."""
        self.until((self.folder / name).exists, f"{name}, of {self.run.state}")
        return self

    def tell(self, name):
        """Tell the flow to go on, where it waits for this."""
        (self.folder / name).touch()
        return self

    def tree(self):
        """Return the PIDs, of those that the run's tree wrote down, that still are alive."""
        path = self.folder / "pids"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        noted = [line.split() for line in lines]
        return {int(pid) for pid, ticks in noted if is_same(pid, ticks)}

    def left(self, *, but_supervisor=False):
        """Return the PIDs of what is left of the run."""
        supervisor = self.run.supervisor
        found = self.tree() | {*self.with_token(supervisor.token)}
        return found - {supervisor.pid} if but_supervisor else found

    def ended(self):
        """Wait for a final state; return it, and what of the run was left when it was first seen."""
        state = self.until(lambda: self.run.state.is_final() and self.run.state, "a final state")
        return state, self.left(but_supervisor=True)

    def gone(self):
        """Wait until nothing is left of the run, and return it."""
        self.until(lambda: not self.left(), f"{self.run.state}, and nothing left")
        return self.run

    def is_cancelling(self):
        """Return whether its end was asked for, and has not come."""
        return self.run.state.is_cancelling()

    def kill(self, identity, number=signal.SIGKILL):
        """Send a signal to one of its processes."""
        assert stat(identity.pid)[1] == str(identity.start_ticks)
        os.kill(identity.pid, number)
        return self

    def stop(self, identity):
        """Stop one of its processes, and wait until it is."""
        assert stat(identity.pid)[1] == str(identity.start_ticks)
        self.stop_process(identity.pid)


def write(folder, code):
    """Make the flow file, at once: another run may just be reading it."""
    path = folder / "flows.py.new"
    path.write_text(PRELUDE + code, encoding="utf-8")
    path.replace(folder / "flows.py")


def is_same(pid, ticks):
    """Return whether a process that was there at that time is alive."""
    found = stat(pid)
    return found is not None and found[1] == ticks and found[0] not in "ZX"


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path, monkeypatch, home, until, with_token, stop_process):
    """Let what is launched find the package; at the end of the test, end what is left of it."""
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    Launched.until, Launched.with_token = staticmethod(until), staticmethod(with_token)
    Launched.stop_process = staticmethod(stop_process)
    yield
    while found := {*with_token(str(home))}:  # a folder is one test's alone
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        until(
            lambda pids=found: pids.isdisjoint(with_token(str(home))), "the end of what was killed"
        )
    for pid in Launched(None, "", tmp_path).tree():  # what had dropped its environment
        os.kill(pid, signal.SIGKILL)
    for folder in run_folders():
        if folder.cgroup() is not None:
            end_cgroup(folder.cgroup())
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:  # supervisors that this process has started
            pass
    except ChildProcessError:
        pass
    process._started.clear()


class Command:
    """A command of prefectlite in a process of its own."""

    def __init__(self, arguments, prefix, options):
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        program = options.pop("program", ["-m", "prefectlite"])
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-W", "error", *program, *arguments],
            **{"stdin": subprocess.DEVNULL, "text": True, **pipes, **options},
        )

    def end(self, exit_code=0):
        """Wait until it ends with this exit code; return its stdout and stderr."""
        out, error = self.process.communicate(timeout=DEADLINE_SECONDS)
        assert self.process.returncode == exit_code, error
        return out, error


@pytest.fixture
def command(until):
    """Start a command; keyword arguments are subprocess.Popen's."""
    commands = []

    def start(*arguments, prefix=(), **options):
        commands.append(Command(arguments, prefix, options))
        return commands[-1]

    start.until = until  # what a test needs besides
    yield start
    for one in commands:
        if one.process.returncode is None:
            one.process.kill()
            one.process.communicate(timeout=DEADLINE_SECONDS)


@pytest.fixture
def launched(registry, tmp_path):
    """Put a run of ``runs``, a flow of this code, on record, and launch it by its infrastructure."""

    def start(code, *, parameters=None, **options):
        write(tmp_path, code)
        infrastructure = Process(working_directory=str(tmp_path), **options)
        flow_run = FlowRun(
            id=new_id(),
            name=random_run_name(),
            flow_name="runs",
            state=Pending(),
            entrypoint="flows.py:runs",
            parameters=parameters or {},
            launcher=own_identity(),
            infrastructure=infrastructure.fields(),
        )
        registry.create_flow_run(flow_run)
        launch(registry, flow_run)
        return Launched(registry, flow_run.id, tmp_path)

    return start


def hurried(folder):
    """Return what to start instead of prefectlite, for supervisors that sweep in less time."""
    text = process._SUPERVISOR.read_text(encoding="utf-8")
    path = folder / "supervisor.py"
    path.write_text(text.replace("\nSWEEP_SECONDS = 2.0", "\nSWEEP_SECONDS = 0.3"), "utf-8")
    assert path.read_text(encoding="utf-8") != text
    code = f"process._SUPERVISOR = {str(path)!r}; sys.exit(main())"
    modules = "import sys; from prefectlite.infrastructure import process"
    return ["-c", f"{modules}; from prefectlite.__main__ import main; {code}"]


@pytest.fixture
def detached(registry, tmp_path, command, without_cgroups):
    """Launch a run of ``runs`` by ``prefectlite run --detach``, with control groups or without."""

    def start(code, *options, has_cgroups=True, is_hurried=False):
        write(tmp_path, code)
        started = command(
            *["run", "flows.py:runs", "--detach", *options],
            prefix=[] if has_cgroups else without_cgroups,
            cwd=tmp_path,
            program=hurried(tmp_path) if is_hurried else ["-m", "prefectlite"],
        )
        return Launched(registry, started.end()[0].strip(), tmp_path)

    return start
