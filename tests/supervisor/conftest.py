"""How the tests of the supervisor start one, for real, and see what is left of its run."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import prefectlite

SUPERVISOR = Path(prefectlite.__file__).with_name("supervisor.py")
DEADLINE_SECONDS = 30
#: What every engine here begins with. ``here`` tells the test of a process, and bounds its life.
PRELUDE = """
import os, signal, sys, time
FOLDER = os.environ["FOLDER"]
def tell(name, text=""):
    descriptor = os.open(f"{FOLDER}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{text}\\n".encode())
    os.close(descriptor)
def here(seconds=25):
    signal.alarm(seconds)
    tell("pids", os.getpid())
def stay():
    while True:
        time.sleep(0.05)  # in pause(2) a signal that came just before it would be noticed never
def fork(body):
    if os.fork() == 0:
        try:
            body()
        finally:
            os._exit(0)
def wait_until_told(name):
    while not os.path.exists(f"{FOLDER}/{name}"):  # for as long as the alarm allows
        time.sleep(0.005)
def wait_for(count):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if os.path.exists(f"{FOLDER}/pids") and len(open(f"{FOLDER}/pids").readlines()) >= count:
            return
        time.sleep(0.01)
    sys.exit("the tree did not grow")
here()
"""


class Run:
    """A run with a supervisor of its own."""

    def __init__(self, folder, program, spec, options):
        self.folder, self.token = folder, uuid.uuid4().hex
        folder.mkdir()
        self.spec = {
            "command": [sys.executable, "-I", "-S", "-c", PRELUDE + program],
            "environment": {**os.environ, "FOLDER": str(folder)},
            "working_directory": None,
            "token": self.token,
            "grace_seconds": 20.0,
            "timeout_seconds": None,
            "settle_command": None,
            "is_streamed": False,
            **spec,
        }
        text = self.spec.pop("text", None) or json.dumps(self.spec)
        (folder / "spec.json").write_text(text, encoding="utf-8")
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        prefix, program = options.pop("prefix", []), options.pop("program", SUPERVISOR)
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-S", str(program), str(folder)],
            **{"stdin": subprocess.DEVNULL, **pipes, **options},
        )

    def has(self, name):
        """Wait until the run has made this file."""
        self.until((self.folder / name).exists, f"{name} in {list(self.folder.iterdir())}")
        return self

    def tell(self, name):
        """Make a file that the engine waits for."""
        (self.folder / name).touch()
        return self

    def send(self, *numbers):
        """Send signals to the supervisor."""
        for number in numbers:
            self.process.send_signal(number)
        return self

    def stop(self, **values):
        """Ask for the run's end."""
        if values:
            (self.folder / "stop.json").write_text(json.dumps(values), encoding="utf-8")
        return self.send(signal.SIGTERM)

    def end(self):
        """Wait until the supervisor ends; return exit.json and how it exited."""
        self.out, self.error = self.process.communicate(timeout=DEADLINE_SECONDS)
        report = json.loads((self.folder / "exit.json").read_text(encoding="utf-8"))
        return report, self.process.returncode

    def remove_cgroup(self):
        """Remove the control group, which a supervisor that was killed leaves behind."""
        path = self.folder / "supervisor.json"
        cgroup = json.loads(path.read_text(encoding="utf-8"))["cgroup"] if path.exists() else None
        if cgroup and Path(cgroup).exists():
            self.until(lambda: not (Path(cgroup) / "cgroup.procs").read_text(), "an empty cgroup")
            Path(cgroup).rmdir()

    def pids(self):
        """Return the PIDs of all processes that said that they are there."""
        return [int(pid) for pid in (self.folder / "pids").read_text().split()]

    def left(self):
        """Return what is left of the run."""
        alive = {pid for pid in self.pids() if Path(f"/proc/{pid}").exists()}
        return alive | set(self.with_token(self.token))

    def lines(self):
        """Return the output, as (stream, text)."""
        text = (self.folder / "output.jsonl").read_text(encoding="utf-8")
        return [(one["stream"], one["text"]) for one in map(json.loads, text.splitlines())]


@pytest.fixture
def supervise(tmp_path, until, with_token):
    """Start a run under a supervisor; at the end of the test nothing of it is left."""
    runs = []

    def start(program="", options=None, **spec):
        run = Run(tmp_path / f"run-{len(runs)}", program, spec, options or {})
        run.until, run.with_token = until, with_token
        runs.append(run)
        return run

    def hurried():
        # For what hears SIGTERM and stays: else each such run takes the whole time it is given.
        path, text = tmp_path / "supervisor.py", SUPERVISOR.read_text(encoding="utf-8")
        path.write_text(text.replace("\nSWEEP_SECONDS = 2.0", "\nSWEEP_SECONDS = 0.3"), "utf-8")
        assert path.read_text(encoding="utf-8") != text
        return path

    # What a test needs besides.
    start.program, start.prelude, start.hurried = SUPERVISOR, PRELUDE, hurried
    start.until, start.with_token = until, with_token
    yield start
    for run in runs:
        if run.process.returncode is None:
            run.process.kill()
            run.process.communicate(timeout=DEADLINE_SECONDS)
        for pid in with_token(run.token):  # a token is one test's alone
            os.kill(pid, signal.SIGKILL)
        run.remove_cgroup()
