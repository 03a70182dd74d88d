"""Which processes belong to a run's process, where its own cannot tell, and which of them may yet end."""

import os
import subprocess
from contextlib import ExitStack

import psutil
import pytest

from prefectlite import process_trees
from prefectlite.liveness import own_identity, present_moment

ENVIRONMENT = {"PREFECTLITE_RUN_TOKEN": "outer:mark"}
#: The first process of a PID namespace exits, and cannot end: another one there is a zombie whose
#: parent, this one, is outside (pid_namespaces(7)).
EXITING = """
import ctypes, os, signal, sys
libc, newpid = ctypes.CDLL(None, use_errno=True), 0x20000000
if libc.unshare(newpid):
    sys.exit(print(0, os.strerror(ctypes.get_errno()), flush=True))
reading, writing = os.pipe()
first = os.fork()
if not first:
    os.close(writing)
    os.read(reading, 1)
    os._exit(0)
if not os.fork():
    os.close(writing)
    signal.pause()
print(first, "ready", flush=True)
input()
os.close(writing)
input()
"""


class Seen(psutil.Process):
    """A process whose environment and arguments are read as given, and not once more."""

    def __init__(self, pid, *, environments, arguments):
        super().__init__(pid)
        self.environments, self.arguments = environments, arguments

    def environ(self):
        return self.environments.pop(0)

    def cmdline(self):
        return self.arguments.pop(0)


def test_what_has_just_begun_a_program_has_the_mark_that_it_was_given():
    found = []
    with ExitStack() as started:
        for _ in range(100):
            # Popen returns within the execve(2) of the child, before its environment can be read.
            child = subprocess.Popen(["cat"], env=ENVIRONMENT, stdin=subprocess.PIPE)
            found.append(process_trees._has_token(psutil.Process(child.pid), "mark"))
            started.callback(child.communicate)
    assert found == [True] * 100


def test_what_has_begun_it_between_two_looks_has_the_mark():
    process = Seen(os.getpid(), environments=[{}, ENVIRONMENT], arguments=[["cat"]])
    assert process_trees._has_token(process, "mark")


def test_what_has_no_program_as_a_thread_of_the_kernel_is_looked_at_once(until):
    with subprocess.Popen(["true"]) as child:
        zombie = Seen(child.pid, environments=[{}], arguments=[])
        until(lambda: zombie.status() == psutil.STATUS_ZOMBIE, "its end")
        assert not process_trees._has_token(zombie, "mark")


def test_what_exits_and_cannot_end_is_known_to_be_ending(start_python, until):
    started = start_python(EXITING)
    pid, answer = started.line().split(maxsplit=1)
    if answer != "ready":
        pytest.skip(f"NOT TESTED: no PID namespace may be made here: {answer}")
    assert not process_trees._is_ending(int(pid))
    started.tell()
    until(lambda: process_trees._is_ending(int(pid)), "its exit")
    assert psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("is_undying", [False, True])
def test_a_child_that_is_known_not_to_die_is_not_told_to_end_once_more(monkeypatch, is_undying):
    since, told = present_moment(), []
    send = process_trees._signal_member

    def noted(member, number):
        told.append(number.name)
        return send(member, number)

    monkeypatch.setattr(process_trees, "_signal_member", noted)
    with subprocess.Popen(["sleep", "50"]) as child:
        known = {psutil.Process(child.pid)} if is_undying else set()
        monkeypatch.setattr(process_trees, "_undying", known)
        process_trees.end_children(own_identity(), since)
    assert ("SIGTERM" in told) != is_undying
    assert child.returncode < 0
