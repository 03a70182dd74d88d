"""PIDs that do not mean what they meant: given again, or counted in another PID namespace.

In namespaces of their own, where a PID can be forced: the run and the stranger are real processes.
Each is forked from the namespace's first process, so that nothing but what a test is about tells
one from the other: they have the same program, environment, user, PID and, where wanted, start tick.
"""

import json
import subprocess
import sys
import time
from functools import cache
from types import SimpleNamespace

import pytest

DEADLINE_SECONDS = 60
_UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
#: No process of a namespace has it by itself.
PID = 300
#: Forced reuses until one is as it is wanted; more than a few, where the machine is busy.
ATTEMPTS = 60
UNTOUCHED = ["sleeping", 0]

#: The first process of a namespace: it evaluates what it is told, and answers in JSON.
FIRST = """
import json, os, signal, subprocess, sys, threading, time
from contextlib import suppress
from dataclasses import asdict
from prefectlite import flow
from prefectlite.liveness import is_alive, is_reachable, own_identity, start_ticks
from prefectlite.names import new_id
from prefectlite.process_trees import end_tree, send
from prefectlite.records import FlowRun, ProcessIdentity
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Cancelling, Running

SECONDS = 60
TICK = 10**9 // os.sysconf("SC_CLK_TCK")  # in nanoseconds
registry = open_registry(PREFECTLITE_REGISTRY.value())
# The first process of a namespace ignores signals that it does not handle.
signal.signal(signal.SIGALRM, lambda *_: os._exit(14))
signal.alarm(SECONDS)

def sleep_until(tick, part=0.0):
    at = int((tick + part) * TICK) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    time.sleep(max(0, at) / 10**9)

def tick():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // TICK

def fork(pid, program):
    '''Have a process with this PID; it runs ``program``, which says a line when it is ready.'''
    reading, writing = os.pipe()
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            program(lambda text: os.write(writing, text.encode() + b"\\n"))
        finally:
            os._exit(0)
    assert child == pid, f"{child}, not {pid}"
    os.close(writing)
    with open(reading) as file:
        return file.readline().strip()

def stranger(pid):
    '''It blocks signals, so that those that are sent to it can be seen; and it heeds none.'''
    others = signal.valid_signals() - {signal.SIGALRM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, others)
    def rests(say):
        say("ready")
        while True:
            signal.pause()
    fork(pid, rests)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return start_ticks(pid)

def look(pid):
    '''What it is doing, and how many signals that it blocks were sent to it.'''
    with open(f"/proc/{pid}/status") as file:
        fields = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    sent = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
    state = fields["State"].partition("(")[2].rstrip(")")
    return ["sleeping" if state == "running" else state, sent.bit_count()]

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def begins_a_run(say):
    '''The process of a run, in whose midst it is killed.'''
    say(json.dumps(asdict(own_identity())))
    signal.pause()

def reuse(pid, attempts, same_tick, state):
    '''Kill a run's process and give its PID to a stranger, in the same tick or in a later one.'''
    urgently(os.SCHED_FIFO, 1)
    for attempt in range(attempts):
        sleep_until(tick() + 1)  # most of a tick is left for it
        process = ProcessIdentity(**json.loads(fork(pid, begins_a_run)))
        kill(pid)
        if not same_tick:
            sleep_until(tick() + 1)
        if (stranger(pid) == process.start_ticks) == same_tick:
            break
        kill(pid)
    else:
        return None
    urgently(os.SCHED_OTHER, 0)
    # Put on record only now: to write to a disk that is busy may take longer than a tick.
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=state, process=process)
    registry.create_flow_run(run)
    return run.id

def urgently(policy, priority):
    '''Have all of it done in one tick on a busy machine, too, where that may be.'''
    with suppress(OSError):
        os.sched_setscheduler(0, policy, os.sched_param(priority))

def begin_at(pid, at_tick, program):
    sleep_until(at_tick, 0.2)
    return program(pid)

def run_flow(pid, heeds=True):
    '''A real flow in a real engine; the answer is its run's id.'''
    def runs(say):
        @flow
        def waits():
            from prefectlite.context import get_run_context
            say(get_run_context().flow_run.id)
            while True:
                try:
                    threading.Event().wait()
                except BaseException:
                    if heeds:
                        raise
        waits()
    return fork(pid, runs)

def process_of(run_id):
    return registry.find_flow_run(run_id).process

def command(*words):
    done = subprocess.run(
        [sys.executable, "-m", "prefectlite", *words],
        capture_output=True, text=True, timeout=SECONDS,
    )
    return [done.returncode, done.stdout, done.stderr]

def answer(line):
    try:
        return eval(line)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(answer(line)), flush=True)
"""


class Namespace:
    """A PID namespace, asked by expressions."""

    def __init__(self, started):
        self.started = started
        assert started.line() == "ready"

    def tell(self, expression):
        self.started.tell(expression)

    def answer(self):
        return json.loads(self.started.line())

    def ask(self, expression):
        self.tell(expression)
        return self.answer()

    def command(self, *words):
        code, out, error = self.ask(f"command(*{words!r})")
        return SimpleNamespace(returncode=code, stdout=out, stderr=error)

    def shown(self, run_id):
        """The state that a command which reads shows a run in."""
        done = self.command("flow-run", "inspect", run_id, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["state"]


@cache
def why_not():
    """Why there is no PID namespace to be had, or none that forces a PID; None where there is."""
    script = "echo 299 >/proc/sys/kernel/ns_last_pid && { : & } && [ $! = 300 ]"
    try:
        done = subprocess.run(
            [*_UNSHARE, "--uts", "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr or "a PID cannot be forced"


@pytest.fixture
def namespace(start_python):
    """Make a PID namespace; what it holds ends with the test."""
    if why_not() is not None:
        pytest.skip(f"NOT TESTED: PID namespaces need Linux and root: {why_not()}")
    return lambda *options: Namespace(start_python(FIRST, prefix=[*_UNSHARE, *options]))


@pytest.fixture(params=[True, False], ids=["same tick", "later tick"])
def reused(request, namespace):
    """A run that died, and a stranger that has its PID: both in a namespace that can be asked."""
    inside = namespace()

    def reuse(state="Running()"):
        run_id = inside.ask(f"reuse({PID}, {ATTEMPTS}, {request.param}, {state})")
        assert run_id is not None, (
            f"NOT TESTED: in {ATTEMPTS} attempts the PID never came up again in"
            f" {'the same' if request.param else 'a later'} tick"
        )
        assert inside.ask(f"process_of({run_id!r}).pid") == PID
        ticks = inside.ask(f"[process_of({run_id!r}).start_ticks, start_ticks({PID})]")
        assert (ticks[0] == ticks[1]) == request.param, ticks
        assert inside.ask(f"look({PID})") == UNTOUCHED
        return inside, run_id

    return reuse


def test_a_stranger_that_has_a_dead_runs_pid_is_not_taken_for_it(reused):
    inside, run_id = reused()
    assert inside.ask(f"is_alive(process_of({run_id!r}))") is False
    assert inside.shown(run_id)["name"] == "Crashed"


@pytest.mark.parametrize("numbers", ["SIGURG", "SIGTERM, signal.SIGCONT", "SIGKILL"])
def test_a_stranger_that_has_a_dead_runs_pid_is_sent_nothing(reused, numbers):
    inside, run_id = reused()
    assert inside.ask(f"send(process_of({run_id!r}), signal.{numbers})") is False
    assert inside.ask(f"look({PID})") == UNTOUCHED


def test_a_stranger_that_has_a_dead_runs_pid_is_not_killed_for_its_tree(reused):
    inside, run_id = reused()
    assert inside.ask(f"end_tree(process_of({run_id!r})).killed") == 0
    assert inside.ask(f"look({PID})") == UNTOUCHED


@pytest.mark.parametrize(
    ("before", "after"), [("Running()", "Crashed"), ("Cancelling()", "Cancelled")]
)
def test_cancelling_a_dead_run_whose_pid_a_stranger_has_is_a_conflict(reused, before, after):
    inside, run_id = reused(before)
    done = inside.command("flow-run", "cancel", run_id, "--wait", "--grace", "0.2")
    assert inside.ask(f"look({PID})") == UNTOUCHED
    assert inside.shown(run_id)["name"] == after
    assert done.returncode == 4, done.stderr
    assert f"is {after} already" in done.stderr


@pytest.fixture(params=[(), ("--uts",)], ids=["one UTS namespace", "one each"])
def neighbours(request, namespace):
    """Two PID namespaces with one hostname: a flow runs in one, a stranger in the other.

    Both have the same PID, and began in the same tick.
    """
    here, there = namespace(*request.param), namespace(*request.param)

    def begin(*, heeds=True):
        for _ in range(ATTEMPTS):
            at = here.ask("tick()") + 2
            here.tell(f"begin_at({PID}, {at}, lambda pid: run_flow(pid, heeds={heeds}))")
            there.tell(f"begin_at({PID}, {at}, stranger)")
            run_id, ticks = here.answer(), there.answer()
            identity = here.ask(f"[process_of({run_id!r}).start_ticks, os.uname().nodename]")
            if identity == [ticks, there.ask("os.uname().nodename")]:
                return here, there, run_id
            here.ask(f"kill({PID})")
            there.ask(f"kill({PID})")
        pytest.fail(f"NOT TESTED: in {ATTEMPTS} attempts no two began in the same tick")

    return begin


def test_a_run_is_alive_for_those_in_another_pid_namespace(neighbours):
    _, there, run_id = neighbours()
    assert there.shown(run_id)["name"] == "Running"
    shown = subprocess.run(  # in the namespace around both
        [sys.executable, "-m", "prefectlite", "flow-run", "ls", "--json"],
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    runs = {run["id"]: run["state"]["name"] for run in json.loads(shown.stdout)}
    assert runs[run_id] == "Running"


def test_a_run_that_died_is_crashed_for_those_where_its_pid_is_a_strangers(neighbours):
    here, there, run_id = neighbours()
    here.ask(f"kill({PID})")
    assert there.shown(run_id)["name"] == "Crashed"
    assert there.ask(f"look({PID})") == UNTOUCHED


def test_nothing_is_signalled_from_another_pid_namespace(neighbours):
    here, there, run_id = neighbours()
    process = f"process_of({run_id!r})"
    assert there.ask(f"is_reachable({process})") is False
    refused = there.ask(f"send({process}, signal.SIGURG, signal.SIGTERM, signal.SIGKILL)")
    assert "InfrastructureNotAvailable" in refused
    assert there.ask(f"end_tree({process}).killed") == 0
    assert there.ask(f"look({PID})") == UNTOUCHED
    assert here.ask(f"look({PID})") == UNTOUCHED


def test_a_run_that_heeds_ends_when_it_is_cancelled_from_another_pid_namespace(neighbours):
    _, there, run_id = neighbours()
    done = there.command("flow-run", "cancel", run_id, "--wait")
    assert done.returncode == 0, done.stderr
    state = there.shown(run_id)
    assert (state["name"], state["message"]) == (
        "Cancelled",
        "It ended by itself, as it was asked to.",
    )
    assert there.ask(f"look({PID})") == UNTOUCHED


def test_a_run_that_does_not_heed_is_not_said_to_be_cancelled_from_another_pid_namespace(
    neighbours,
):
    here, there, run_id = neighbours(heeds=False)
    done = there.command("flow-run", "cancel", run_id, "--wait", "--grace", "0.2")
    assert done.returncode == 5, done.stderr
    assert "cannot be reached from here" in done.stderr
    assert there.shown(run_id)["name"] == "Cancelling"
    assert there.ask(f"look({PID})") == UNTOUCHED
    assert here.ask(f"look({PID})") == UNTOUCHED


def test_a_run_whose_pid_namespace_is_gone_is_crashed_for_those_in_another(neighbours):
    here, there, run_id = neighbours()
    here.started.kill()  # of unshare, and by --kill-child of the first process with all others
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (shown := there.shown(run_id)["name"]) == "Running" and time.monotonic() < deadline:
        pass  # each look is a command, which takes its time
    assert shown == "Crashed"
    assert there.ask(f"look({PID})") == UNTOUCHED
