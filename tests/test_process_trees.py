"""Which processes belong to a run's process, where its own cannot tell."""

import subprocess
from contextlib import ExitStack

import psutil

from prefectlite import process_trees


def test_what_has_just_begun_a_program_has_the_mark_that_it_was_given():
    environment = {"PREFECTLITE_RUN_TOKEN": "outer:mark"}
    found = []
    with ExitStack() as started:
        for _ in range(100):
            # Popen returns within the execve(2) of the child, before its environment can be read.
            child = subprocess.Popen(["cat"], env=environment, stdin=subprocess.PIPE)
            found.append(process_trees._has_token(psutil.Process(child.pid), "mark"))
            started.callback(child.communicate)
    assert found == [True] * 100
