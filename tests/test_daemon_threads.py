"""That a process does not end before the threads that it started have begun."""

import _thread

import pytest

from prefectlite import daemon_threads
from prefectlite.daemon_threads import start_daemon_thread

#: The thread gets the interpreter when the program gives it away, and not before.
STARTS_AND_ENDS = """
import atexit, sys
begun = []
atexit.register(lambda: print(begun))  # what is registered first is called last
from prefectlite.daemon_threads import start_daemon_thread
sys.setswitchinterval(1000)
start_daemon_thread(lambda: begun.append("a thread"))
"""

FORKS = """
import os, sys
from prefectlite import daemon_threads
sys.setswitchinterval(1000)
daemon_threads._BEGIN_SECONDS = -1  # for ever
daemon_threads.start_daemon_thread(lambda: os.write(1, b"begun "))
pid = os.fork()
if pid:
    print("the child ended with", os.waitpid(pid, 0)[1])
"""


def test_a_process_does_not_end_before_a_thread_that_it_started_has_begun(start_python):
    assert start_python(STARTS_AND_ENDS).end() == "['a thread']\n"


def test_a_forked_child_does_not_wait_for_threads_of_its_parent(start_python):
    assert "the child ended with 0" in start_python(FORKS).end()


def test_a_thread_that_is_not_to_be_had_is_not_waited_for(monkeypatch):
    def refuses(function, arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuses)
    with pytest.raises(RuntimeError):
        start_daemon_thread(print)
    assert not daemon_threads._beginning
