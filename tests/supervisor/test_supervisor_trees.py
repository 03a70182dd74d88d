"""A supervisor leaves nothing of a run: trees of real processes, bounded by construction.

No tree here has more than 60 processes, and each process of one ends by itself (alarm(2)).
"""

import os
import signal
import subprocess
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

# 50 processes in all, deaf: each forks one for each byte that it gets from the pipe they share.
STORM = """
left, right = os.pipe()
os.write(right, b"." * 48)
os.close(right)
def storm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    {leave}
    here()
    while os.read(left, 1):
        fork(storm)
        time.sleep(0.02)
    stay()
fork(storm)
wait_for(4)
"""


@pytest.mark.parametrize("how", ["stopped", "timed_out", "ended"])
@pytest.mark.parametrize("tree", TREES)
def test_nothing_of_a_tree_is_left(supervise, tree, how):
    last = "tell('ready')" + ("" if how == "ended" else "\nstay()")
    options = {"program": supervise.hurried()} if "ignores" in tree else {}
    seconds = 0.75
    while True:  # a tree that has not grown in time proves nothing
        timeout_seconds = seconds if how == "timed_out" else None
        run = supervise(f"{TREES[tree]}\n{last}", options.copy(), timeout_seconds=timeout_seconds)
        if how != "timed_out":
            run.has("ready")
            break
        run.process.wait(30)
        if (run.folder / "ready").exists():
            break
        seconds *= 2
    if how == "stopped":
        run.stop()
    report, code = run.end()
    reasons = {"stopped": "terminated", "timed_out": "timed_out", "ended": "ended"}
    assert run.left() == set()
    assert (report["reason"], report["survivors"]) == (reasons[how], [])
    assert report["swept"] >= 1
    assert code == (0 if how == "ended" else 128 + signal.SIGTERM)


def test_a_chain_that_forks_and_ends_is_caught(supervise):
    run = supervise(CHAIN, {"program": supervise.hurried()})
    report, _ = run.end()
    assert run.left() == set()
    assert report["survivors"] == []
    assert len(run.pids()) < 51


@pytest.mark.parametrize("options", [{}, {"process_group": 0}], ids=["session", "job"])
@pytest.mark.parametrize("leave", ["", "os.setpgid(0, 0)", "os.setsid()"])
def test_a_storm_is_killed_without_a_cgroup(supervise, without_cgroups, leave, options):
    program = f"{STORM.format(leave=leave or 'pass')}\n{DEAF}"
    run = supervise(program, {"prefix": without_cgroups, **options}).has("ready")
    report, code = run.stop(grace_seconds=0).end()
    assert run.left() == set()
    assert (report["reason"], report["survivors"], code) == ("killed", [], 137)


def test_a_child_that_joins_the_group_of_the_supervisor_does_not_take_it_along(supervise):
    child = "fork(lambda: (os.setpgid(0, os.getsid(0)), here(), stay())); wait_for(2)"
    run = supervise(f"{child}\n{DEAF}").has("ready")
    report, _ = run.stop(grace_seconds=0).end()
    assert run.left() == set()
    assert (report["reason"], report["swept"], report["survivors"]) == ("killed", 1, [])


def test_a_child_that_joins_the_group_of_a_stranger_does_not_take_it_along(supervise):
    with subprocess.Popen(["sleep", "25"], process_group=0) as stranger:
        # A supervisor that leads a group already stays in our session, as a shell's job would.
        child = f"fork(lambda: (os.setpgid(0, {stranger.pid}), here(), stay())); wait_for(2)"
        run = supervise(f"{child}\n{DEAF}", {"process_group": 0}).has("ready")
        report, _ = run.stop(grace_seconds=0).end()
        stranger.terminate()
    assert stranger.returncode == -signal.SIGTERM  # and not SIGKILL
    assert run.left() == set()
    assert report["swept"] == 1


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
