"""Who waits for the end of a supervisor is told of it by the kernel, where that can be."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from prefectlite import process_trees
from prefectlite.liveness import is_alive
from prefectlite.settling import wait_for_supervisor
from prefectlite.states import Completed


def looked_at(monkeypatch):
    """Return how often it was slept between two looks."""
    naps, sleep = [], process_trees.time.sleep

    def nap(seconds):
        naps.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(process_trees, "time", SimpleNamespace(sleep=nap))
    return naps


@pytest.mark.parametrize("is_reachable", [True, False], ids=["here", "elsewhere"])
def test_a_supervisor_is_looked_at_again_and_again_only_where_its_pid_says_nothing(
    runs, monkeypatch, is_reachable
):
    run = runs.launch("wait()")
    naps = looked_at(monkeypatch)
    monkeypatch.setattr(process_trees, "is_reachable", lambda _: is_reachable)
    ended = replace(run, state=Completed())
    wait_for_supervisor(ended, seconds=0.05)
    assert is_alive(run.supervisor)
    assert bool(naps) == (not is_reachable)
    runs.go_on()
    wait_for_supervisor(ended, seconds=60)
    assert is_alive(run.supervisor) is False
    assert bool(naps) == (not is_reachable)
