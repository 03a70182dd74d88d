"""The wall clock is set, by an hour or ten years, while things go on; a laptop that slept does the same.

What holds: how long something may take in one process is measured by the monotonic clock, so that no
jump cuts it short or makes it longer; a moment on record, which other processes judge, is one of the wall
clock; order is that of the record; and no duration is negative.

The processes of these tests are real and get their wall clock from a library that is loaded before libc:
it adds what a file says. The monotonic clock stays as it is.
"""

import errno
import json
import os
import re
import shutil
import struct
import subprocess
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from prefectlite import cancellation
from prefectlite.cancellation import Enforcement, request_cancellation
from prefectlite.clock import now
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

DEADLINE_SECONDS = 60
HOUR = 3_600
YEARS = 10 * 365 * 86_400
JUMPS = {"an-hour-back": -HOUR, "an-hour-on": HOUR, "years-back": -YEARS, "years-on": YEARS}
jumps = pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())

LIBRARY = Path(__file__).with_name("clock.c")
SYSCALLS = {"x86_64": 228, "aarch64": 113}


class Clock:
    """The wall clock of what is started from here on."""

    def __init__(self, path):
        self.path = path
        self.set(0)

    def set(self, seconds):
        """Put it so far from what it really is."""
        with open(self.path, "r+b" if self.path.exists() else "wb") as file:  # noqa: PTH123 - in place
            file.write(struct.pack("q", seconds))


@pytest.fixture
def clock(tmp_path, monkeypatch):
    compiler = shutil.which("tcc") or shutil.which("cc")
    if compiler is None or os.uname().machine not in SYSCALLS:
        pytest.skip("NOT TESTED: there is no C compiler, such as tcc, or none for this machine")
    library = tmp_path / "clock.so"
    number = f"-DCLOCK_GETTIME={SYSCALLS[os.uname().machine]}"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-nostdlib", number, "-o", library, LIBRARY], check=True
    )
    clock = Clock(tmp_path / "clock")
    monkeypatch.setenv("CLOCK_FILE", str(clock.path))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return clock


def victim():
    """Return the run of that name, as it is on record, by a look that settles nothing."""
    with closing(open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)) as registry:
        return next((run for run in registry.list_flow_runs() if run.name == "victim"), None)


def is_in(state):
    return lambda: (found := victim()) is not None and found.state.name == state


# Runs


JUMPING = """
import sys, time
from prefectlite import flow, get_run_logger, task

tried = []

@task(retries=1, retry_delay_seconds=0.2)
def fails_once():
    tried.append(1)
    if len(tried) == 1:
        raise ValueError

@task(timeout_seconds=600)
def has_time(): ...

@task(timeout_seconds=0.4)
def hangs():
    time.sleep(60)

@flow(timeout_seconds=600, flow_run_name="victim")
def jumping():
    has_time()
    get_run_logger().info("before")
    print("in", flush=True)
    sys.stdin.readline()
    get_run_logger().info("after")
    fails_once()
    has_time()
    return hangs(return_state=True).name

print(jumping())
"""


@pytest.mark.long
@jumps
def test_a_run_takes_its_time_by_no_clock_that_can_be_set(clock, start_python, run_command, jump):
    program = start_python(JUMPING)
    program.line()
    clock.set(jump)
    program.tell()
    assert program.end() == "TimedOut\n"
    with closing(open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)) as registry:
        (flow_run,) = registry.list_flow_runs()
        assert flow_run.state.is_completed()
        messages = [line.message for line in registry.read_logs(flow_run.id)]
        assert messages.index("before") < messages.index("after")
        assert messages[-1].startswith("Finished in state")
        for task_run in registry.list_task_runs():
            versions = [change.version for change in registry.state_history(task_run)]
            assert versions == [*range(1, len(versions) + 1)]
    listed = json.loads(run_command("task-run", "ls", "--sort", "-duration", "--json"))
    seconds = [task_run["duration_seconds"] for task_run in listed]
    assert min(seconds) >= 0
    assert seconds == sorted(seconds, reverse=True)
    assert len(run_command("flow-run", "inspect", "victim", "--timeline").splitlines()) > 4
    run_command("flow-run", "inspect", "victim", "--timeline", "--svg", "picture.svg")
    assert not re.search(r'(width|x|x1|x2)="-', Path("picture.svg").read_text())
    assert "after" in run_command("flow-run", "logs", "victim")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


WAITING = """
import sys
from prefectlite import flow

@flow(flow_run_name="victim")
def waits():
    print("in", flush=True)
    sys.stdin.readline()

waits()
"""


@pytest.mark.long
@jumps
def test_who_waits_so_long_waits_so_long(clock, start_python, start_command, until, jump):
    program = start_python(WAITING)
    program.line()
    long = start_command("flow-run", "wait", "victim", "--timeout", "600")
    short = start_command("flow-run", "wait", "victim", "--timeout", "3")
    for process in (long, short):
        until(lambda process=process: has_registry_open(process))
        before = sleeps(process)
        until(lambda process=process, before=before: sleeps(process) >= before + 5)
    clock.set(jump)
    assert short.wait(DEADLINE_SECONDS) == 124
    assert long.poll() is None
    program.tell()
    program.end()
    assert long.wait(DEADLINE_SECONDS) == 0


def has_registry_open(process):
    try:
        opened = [each.readlink() for each in Path(f"/proc/{process.pid}/fd").iterdir()]
    except OSError:
        return False
    return any(path.name == "registry.db-shm" for path in opened)


def sleeps(process):
    """Return how often a process has slept until now, such as between two looks."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


@pytest.mark.long
@jumps
def test_a_process_whose_clock_jumps_is_the_same_and_alive_until_it_dies(
    clock, start_python, run_command, home, jump
):
    program = start_python(WAITING)
    program.line()
    clock.set(jump)
    for lock in (home / "processes").iterdir():
        lock.unlink()  # then it is known by when it started
    (listed,) = json.loads(run_command("flow-run", "ls", "--json"))
    assert listed["state"]["name"] == "Running"
    assert listed["duration_seconds"] >= 0
    clock.set(0)
    program.kill()
    (listed,) = json.loads(run_command("flow-run", "ls", "--json"))
    assert listed["state"]["name"] == "Crashed"


PAUSING = """
import sys
from prefectlite import flow, holds, pause_flow_run
from prefectlite.errors import FlowPauseTimeout

start = holds.Deadline.start

def tell(noun, seconds):
    print("waits", flush=True)
    return start(noun, seconds)

holds.Deadline.start = staticmethod(tell)

@flow(flow_run_name="victim")
def pauses(seconds):
    try:
        pause_flow_run(timeout=seconds)
    except FlowPauseTimeout:
        print("too late", flush=True)
    else:
        print("resumed", flush=True)

pauses(float(sys.argv[1]))
"""


@pytest.mark.long
def test_a_pause_ends_when_the_clock_says_so_for_its_own_process_too(clock, start_python):
    program = start_python(PAUSING, HOUR)
    assert program.line() == "waits"
    clock.set(2 * HOUR)
    assert program.line() == "too late"  # nobody has looked at it
    assert victim().state.name == "Failed"
    program.end(1)


@pytest.mark.long
def test_a_pause_goes_on_for_as_long_as_the_clock_says_so(clock, start_python, run_command):
    program = start_python(PAUSING, 1)
    assert program.line() == "waits"
    clock.set(-HOUR)
    run_command("flow-run", "wait", "victim", "--timeout", "2", exit_code=124)
    run_command("flow-run", "resume", "victim")
    assert program.end().endswith("resumed\n")


STUBBORN = """
import os
from prefectlite import flow

@flow(flow_run_name="victim")
def stubborn():
    is_over = False
    while not is_over:
        try:
            print("in", flush=True)
            while not is_over:  # hardly a bytecode is outside of it
                os.read(0, 1)
                is_over = True
        except BaseException:
            continue

stubborn()
"""


@pytest.mark.long
@pytest.mark.parametrize("who", ["who asked", "who asks again", "an agent"])
def test_a_grace_period_is_no_longer_because_the_clock_was_set_back(
    clock, start_python, start_command, run_command, until, who
):
    program = start_python(STUBBORN)
    program.line()
    words = ("flow-run", "cancel", "victim", "--wait", "--grace", "2.5")
    cancelling = start_command(*words)
    until(is_in("Cancelling"))
    clock.set(-YEARS)
    if who != "who asked":  # another process, which knows nothing of the time before
        cancelling.kill()
        start_command(*(words if who == "who asks again" else ("agent", "start")))
    run_command("flow-run", "wait", "victim", "--timeout", "30", exit_code=143)
    assert victim().state.name == "Cancelled"
    assert program.process.wait(DEADLINE_SECONDS) == -9


@pytest.mark.parametrize(
    "jump",
    [
        pytest.param(-YEARS, id="years-back"),
        pytest.param(YEARS, id="years-on", marks=pytest.mark.long),
    ],
)
def test_who_has_begun_to_enforce_a_grace_period_needs_no_wall_clock(
    registry, start_python, monkeypatch, tmp_path, jump
):
    monkeypatch.setattr(cancellation, "_HEED_SECONDS", 0.0)  # it has not heeded the request
    program = start_python(STUBBORN)
    program.line()
    run = request_cancellation(registry, victim(), grace_seconds=600)
    enforcement = Enforcement(registry, run.id)
    assert 0 < enforcement.advance() <= 600
    later = now() + timedelta(seconds=jump)
    monkeypatch.setattr(cancellation, "now", lambda: later)
    for _ in range(2):
        assert 0 < enforcement.advance() <= 600
    assert program.process.poll() is None
    program.tell()
    assert program.process.wait(DEADLINE_SECONDS) == 0
    assert victim().state.name == "Completed"  # it was not killed


def let_go():
    """Open the fifo that a flow waits for; return whether there was one."""
    try:
        os.close(os.open("go", os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


@pytest.mark.long
@pytest.mark.parametrize(
    ("jump", "timeout", "end"),
    [(-YEARS, 4, "TimedOut"), (YEARS, HOUR, "Completed")],
    ids=["years-back", "years-on"],
)
def test_a_supervised_run_has_its_timeout_and_no_other(
    clock, run_command, until, jump, timeout, end
):
    os.mkfifo("go")
    Path("flows.py").write_text(
        "from prefectlite import flow\n@flow\ndef slow():\n    open('go').close()\n"
    )
    run_command("run", "flows.py:slow", "--detach", "--timeout", timeout, "--name", "victim")
    until(is_in("Running"))
    clock.set(jump)
    if end == "Completed":
        until(let_go, "a flow that waits for it")
    run_command("flow-run", "wait", "victim", exit_code=124 if end == "TimedOut" else 0)
    assert victim().state.name == end


# Agents


@pytest.mark.long
def test_an_agent_launches_what_is_due_when_the_clock_says_so(
    clock, run_command, start_command, until, tmp_path
):
    (tmp_path / "flows.py").write_text("from prefectlite import flow\n@flow\ndef hello(): ...\n")
    run_command("deployment", "build", "flows.py:hello", "-n", "it", "-o", "it.toml", "--apply")
    run_command("deployment", "run", "hello/it", "--name", "victim", "--in", "1h")
    agent = start_command("agent", "start")
    assert "takes runs from" in agent.stderr.readline()
    clock.set(-YEARS)
    assert victim().state.is_scheduled()
    clock.set(2 * HOUR)
    run_command("flow-run", "wait", "victim", "--timeout", "30")
    assert "Launched" in agent.stderr.readline()
    agent.terminate()
    assert agent.wait(DEADLINE_SECONDS) == 0


# Records of the past, and of the future


@pytest.mark.long
def test_what_the_clock_has_not_come_to_is_found_and_not_pruned(
    clock, start_python, run_command, start_command
):
    clock.set(YEARS)
    flow_of = "from prefectlite import flow\nflow(name={!r})(lambda: None)()\n"
    start_python(flow_of.format("future")).end()
    clock.set(0)
    start_python(flow_of.format("present")).end()
    columns = ("--columns", "flow", "--format", "csv")
    assert run_command("flow-run", "ls", "--since", "1h", *columns).split() == [
        "flow",
        "present",
        "future",
    ]
    run_command("registry", "prune", "--older-than", "0s")
    assert run_command("flow-run", "ls", *columns).split() == ["flow", "future"]
    assert "in the future" in "".join(start_command("doctor").communicate(timeout=DEADLINE_SECONDS))


@pytest.mark.long
def test_a_run_that_goes_on_is_never_pruned_however_old_the_clock_makes_it(
    clock, start_python, run_command
):
    program = start_python(WAITING)
    program.line()
    clock.set(YEARS)
    run_command("registry", "prune", "--older-than", "1d")
    program.tell()
    program.end()
    run_command("flow-run", "wait", "victim")


CACHING = """
import sys
from datetime import timedelta
from prefectlite import flow, task

@task(cache_key_fn=lambda *_: "key", cache_expiration=timedelta(hours=1))
def number():
    return 1

@flow
def cached():
    return number(return_state=True).name

while True:
    print(cached(), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.long
def test_a_cached_result_expires_by_the_clock(clock, start_python):
    program = start_python(CACHING)
    assert program.line() == "Completed"
    for jump, name in ((-HOUR, "Cached"), (HOUR // 2, "Cached"), (2 * HOUR, "Completed")):
        clock.set(jump)
        program.tell()
        assert program.line() == name


EVENTS = """
import sys
from prefectlite import flow, task

@task
def step():
    sys.stdin.readline()

@flow
def steps():
    step()
    sys.stdin.readline()
"""


@pytest.mark.long
@jumps
def test_events_are_written_as_they_happen_though_the_clock_was_set(
    clock, start_command, until, tmp_path, jump
):
    (tmp_path / "flows.py").write_text(EVENTS)
    words = ["run", "flows.py:steps", "--events", "events.jsonl", "--quiet"]
    process = start_command(*words, stdin=subprocess.PIPE)

    def tell():
        process.stdin.write("go\n")
        process.stdin.flush()

    def told():
        path = Path("events.jsonl")
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines]
        return [each["state"]["name"] for each in events if each["event"] == "task_run.state"]

    until(lambda: told() == ["Running"])
    clock.set(jump)
    tell()
    until(lambda: told() == ["Running", "Completed"])
    tell()
    assert process.wait(DEADLINE_SECONDS) == 0
