"""Connections around a fork, and at the end of a process: none is open across one, none harms others."""

import sqlite3
import subprocess
from contextlib import closing

import pytest

from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

# What is open is a registry; a program that hangs is ended by the alarm.
_BEGIN = """
import os, signal, sys, threading
from prefectlite import database, flow
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
signal.alarm(40)
def write(name):
    flow(name=name)(lambda: None)()
registry = open_registry(PREFECTLITE_REGISTRY.value())
write("first")
"""


@pytest.fixture
def start(start_python):
    """Start a program that has a registry open."""
    return lambda code, **options: start_python(_BEGIN + code, **options)


def names():
    with closing(open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)) as registry:
        return sorted(run.flow_name for run in registry.list_flow_runs(limit=None))


def integrity(home):
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


IN_A_WRITE = """
def work(_):
    inside.set()
    is_over.wait()
database._FORK_SECONDS = 0.05
registry.flush_logs()  # or that would be waited for
inside, is_over = threading.Event(), threading.Event()
thread = threading.Thread(target=registry._database.write, args=(work,))
thread.start()
inside.wait()
for name in ("ctypes", "_ctypes", "weakref", "gc"):
    sys.modules[name] = None  # to import it is an error
child = os.fork()
if not child:
    signal.alarm(40)
    print("child", len(registry.list_flow_runs()), flush=True)
    sys.exit(0)
is_over.set()
status = os.waitpid(child, 0)[1]
thread.join()
write("second")
print(status)
"""


def test_a_child_that_is_forked_in_the_middle_of_a_write_needs_no_import_and_harms_nothing(
    start, home
):
    assert start(IN_A_WRITE).end() == "child 1\n0\n"
    assert names() == ["first", "second"]
    assert integrity(home) == [("ok",)]


CLOSED = """
os.close(registry._database._gate._descriptor)
child = os.fork()
if not child:
    signal.alarm(40)
    write("child")
    os._exit(0)
status = os.waitpid(child, 0)[1]
write("parent")
print(status)
"""


def test_who_has_closed_the_file_of_the_gate_and_forks_goes_on_and_so_does_its_child(start, home):
    told = start(CLOSED, stderr=subprocess.STDOUT).end()
    assert told.endswith("\n0\n")
    assert "Exception" not in told
    assert names() == ["child", "first", "parent"]
    assert integrity(home) == [("ok",)]


TAKEN = """
registry.flush_logs()
number = registry._database._gate._descriptor
os.close(number)
own = os.open(os.devnull, os.O_WRONLY)
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
print(own == number, os.readlink(f"/proc/self/fd/{own}"))
write("parent")
"""


def test_a_file_that_has_got_the_number_of_the_gate_is_not_closed_by_a_fork(start):
    assert start(TAKEN).end() == "True /dev/null\n"
    assert names() == ["first", "parent"]


# Four processes: a handler forks while the connection is closed for a fork, and its child goes on.
NESTED = """
from prefectlite.file_identities import FileIdentities
def fork():
    signal.alarm(15)
    child = os.fork()
    if child:
        print(os.waitpid(child, 0)[1], flush=True)
def may_be_closed(files, real=FileIdentities.may_be_closed):
    FileIdentities.may_be_closed = real
    os.kill(os.getpid(), signal.SIGUSR1)
    return real(files)
registry.flush_logs()
database._FORK_SECONDS = 0.05  # in vain: it would wait for itself
FileIdentities.may_be_closed = may_be_closed
signal.signal(signal.SIGUSR1, lambda *_: fork())
fork()
write("one of four")
registry.flush_logs()
os._exit(0)
"""


def test_a_signal_handler_may_fork_while_a_fork_begins(start, home):
    told = start(NESTED, stderr=subprocess.STDOUT).end()
    assert [line for line in told.splitlines() if line.isdigit()] == ["0"] * 3
    assert "release unlocked lock" not in told  # Python's logging complains of one of another kind
    assert names() == ["first", *["one of four"] * 4]
    assert integrity(home) == [("ok",)]


# Its log and the index are deleted; others write; then it cannot look at its files, and ends.
BLIND = """
registry.flush_logs()  # or a thread would, at any time
print("ready", flush=True)
sys.stdin.readline()
from prefectlite import file_identities
def fail(*_, **__):
    raise OSError(5, "Input/output error")
file_identities._look = fail
{}
"""


@pytest.mark.parametrize("end", ["registry.close()", "os.fork() and os.wait()", "del registry"])
def test_who_cannot_look_at_its_files_takes_nothing_of_others_with_it(start, home, end):
    holder = start(BLIND.format(end))
    holder.line()
    for log in ("-wal", "-shm"):
        (home / f"registry.db{log}").unlink()
    other = start("write('other')")
    other.end()
    before = names()
    assert "other" in before
    holder.tell()
    holder.end()
    assert names() == before
    assert integrity(home) == [("ok",)]


HOOKS = """
import gc
from prefectlite.forks import PausedAtForks
class One:
    events = []
    def __init__(self, number):
        self.number = number
    def pause(self):
        if self.number == {fails}:
            raise ValueError("it cannot be paused")
        One.events.append(f"pause {{self.number}}")
        return None if self.number == 1 else self.resume
    def resume(self):
        One.events.append(f"resume {{self.number}}")
    def forget(self):
        One.events.append(f"forget {{self.number}}")
ones = sorted([One(0), One(0), One(0)], key=id)
paused = PausedAtForks()
for number, one in enumerate(ones):
    one.number = number
    paused.add(one)
one = None
if not {fails}:
    ones.clear()
child = os.fork()
if child:
    os.waitpid(child, 0)
print(*sorted(One.events), sep=", ", flush=True)
os._exit(0)
"""


def test_what_was_paused_before_an_error_is_resumed(start):
    told = start(HOOKS.format(fails=2)).end().splitlines()
    assert told == [
        "forget 0, forget 1, forget 2, pause 0, pause 1",
        "pause 0, pause 1, resume 0",
    ]


INTERRUPTED = """
import _thread, functools
from prefectlite.forks import PausedAtForks
class One:
    def pause(self):
        print("pause", flush=True)
        return lambda: print("resume", flush=True)
    def forget(self): ...
one, paused = One(), PausedAtForks()
paused.add(one)
# Runs right before the other hook does, and has a signal come when that begins.
os.register_at_fork(before=functools.partial(_thread.interrupt_main, signal.SIGUSR1))
def interrupt(*_):
    raise KeyboardInterrupt
for handler in (signal.SIG_IGN, interrupt, signal.SIG_IGN):
    signal.signal(signal.SIGUSR1, handler)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    print("forked", flush=True)
os._exit(0)
"""


def test_an_interruption_before_anything_is_paused_has_nothing_resumed(start):
    forked = ["pause", "resume", "forked"]
    told = start(INTERRUPTED, stderr=subprocess.DEVNULL).end().splitlines()
    assert told == [*forked, "forked", *forked]


def test_what_is_to_be_paused_is_kept_alive_by_nothing(start):
    assert start(HOOKS.format(fails=0)).end() == "\n\n"
