"""A supervisor leaves nothing of a run: trees of real processes, bounded by construction.

No tree here has more than 60 processes, and each process of one ends by itself (alarm(2)).
"""

import os
import signal
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a subreaper")

#: Hears SIGTERM and stays.
DEAF = "signal.signal(signal.SIGTERM, lambda *_: tell('told'))\ntell('ready')\nstay()"

TREES = {
    "a plain child": "fork(lambda: (here(), stay())); wait_for(2)",
    "a child in its own session": "fork(lambda: (os.setsid(), here(), stay())); wait_for(2)",
    "a daemon": "fork(lambda: (os.setsid(), fork(lambda: (here(), stay())))); wait_for(2)",
    "a child that ignores SIGTERM": """
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    here()
    stay()
fork(deaf)
wait_for(2)
""",
    # 40 processes in all: each forks two, with half of what is left of that budget each.
    "a storm": """
def storm(budget):
    here(5)
    os.setsid() if budget % 2 else None
    for share in ((budget - 1) // 2, (budget - 1) - (budget - 1) // 2):
        if share > 0:
            fork(lambda: storm(share))
    stay()
fork(lambda: storm(40))
wait_for(20)
""",
}
# 50 processes in all, one after another: each forks the next, in a session of its own, and ends.
CHAIN = """
def link(budget):
    here(5)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    time.sleep(0.06)
    if budget > 0:
        fork(lambda: link(budget - 1))
fork(lambda: link(49))
wait_for(3)
"""


@pytest.mark.parametrize("how", ["stopped", "timed_out", "ended"])
@pytest.mark.parametrize("tree", TREES)
def test_nothing_of_a_tree_is_left(supervise, tree, how):
    last = "tell('ready')" + ("" if how == "ended" else "\nstay()")
    timeout_seconds = 1.5 if how == "timed_out" else None
    run = supervise(f"{TREES[tree]}\n{last}", timeout_seconds=timeout_seconds).has("ready")
    if how == "stopped":
        run.stop()
    report, code = run.end()
    reasons = {"stopped": "terminated", "timed_out": "timed_out", "ended": "ended"}
    assert run.left() == set()
    assert (report["reason"], report["survivors"]) == (reasons[how], [])
    assert report["swept"] >= 1
    assert code == (0 if how == "ended" else 128 + signal.SIGTERM)


def test_a_chain_that_forks_and_ends_is_caught(supervise):
    run = supervise(CHAIN)
    report, _ = run.end()
    assert run.left() == set()
    assert report["survivors"] == []
    assert len(run.pids()) < 51


def test_a_child_gets_its_time_to_end_when_its_engine_has_ended(supervise):
    child = """
def tidy():
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), tell("tidied"), os._exit(0)))
    here()
    stay()
fork(tidy)
wait_for(2)
"""
    run = supervise(child)
    assert run.end()[0]["swept"] == 1
    assert (run.folder / "tidied").exists()


def test_a_killed_engine_is_reported_and_its_children_are_swept(supervise):
    run = supervise(f"{TREES['a daemon']}\ntell('ready')\nstay()").has("ready")
    os.kill(run.pids()[0], signal.SIGKILL)
    report, code = run.end()
    assert (report["reason"], report["exit_code"], report["signal"], code) == (
        "ended",
        None,
        9,
        137,
    )
    assert run.left() == set()


def test_an_engine_that_ignores_sigterm_is_killed_at_the_deadline(supervise):
    run = supervise(f"{TREES['a child in its own session']}\n{DEAF}", grace_seconds=0.5)
    report, code = run.has("ready").stop().end()
    assert (run.folder / "told").exists()
    assert (report["reason"], report["signal"], code) == ("killed", 9, 137)
    assert run.left() == set()
