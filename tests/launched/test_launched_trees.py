"""Nothing is left of a launched run, and its record is right, however it ends.

No tree here has more than 50 processes, and each process of one ends by itself (alarm(2)). Most of the
runs find no control groups: the kernel's way to kill all that is in one would hide faults of the rest.
"""

import re
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a subreaper")

TREE = r"""
import os, signal, sys, time

FOLDER, KIND = sys.argv[1:]

def here():
    signal.alarm(60)
    ticks = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
    descriptor = os.open(f"{FOLDER}/pids", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{os.getpid()} {ticks}\n".encode())
    os.close(descriptor)

def stay():
    here()
    while True:
        signal.pause()

def fork(body):
    if os.fork() == 0:
        try:
            body()
        finally:
            os._exit(0)

def wait_for(count):
    path, deadline = f"{FOLDER}/pids", time.monotonic() + 30
    while not os.path.exists(path) or len(open(path).readlines()) < count:
        if time.monotonic() > deadline:
            sys.exit("the tree did not grow")
        time.sleep(0.005)

def grown(count):
    wait_for(count)
    open(f"{FOLDER}/grown", "w").close()

def plain():
    fork(lambda: (fork(stay), stay()))
    here()
    grown(3)
    stay()

def session():
    fork(lambda: (os.setsid(), stay()))
    here()
    grown(2)
    stay()

def daemon():
    fork(lambda: (os.setsid(), fork(stay)))
    grown(1)

def nameless():
    def drop():
        here()
        os.execve("/bin/sleep", ["sleep", "60"], {})
    fork(lambda: (os.setsid(), fork(drop)))
    grown(1)

def deaf():
    fork(lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), stay()))
    here()
    grown(2)
    stay()

# Each process forks one for each byte that it gets from the pipe that they share.
left, right = os.pipe()
def storm():
    os.write(right, b"." * 45)
    os.close(right)
    fork(stormy)
    grown(5)

def stormy():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    here()
    while os.read(left, 1):
        fork(lambda: (os.setsid(), stormy()))
        time.sleep(0.05)
    while True:
        signal.pause()

signal.alarm(60)
globals()[KIND]()
"""
#: How many processes of each tree are left for others to end: at least, and at most.
TREES = {
    "plain": (3, 3),
    "session": (2, 2),
    "daemon": (1, 1),
    "deaf": (2, 2),
    "storm": (5, 46),
}
FLOW = """
@flow(log_prints=False)
def runs(tree: str, stays: bool = True):
    program = subprocess.Popen([sys.executable, "-I", "-S", str(HERE / "tree.py"), str(HERE), tree])
    hear("grown")
    if tree in {"daemon", "nameless", "storm"}:
        program.wait()
    stay() if stays else tell("ready")
"""
WAYS = [
    pytest.param(False, id="without control groups"),
    pytest.param(True, id="with control groups", marks=pytest.mark.long),
]

each_tree = pytest.mark.parametrize("tree", TREES)
each_way = pytest.mark.parametrize("has_cgroups", WAYS)


@pytest.fixture
def grow(detached, tmp_path):
    """Launch a run that grows a tree; it then stays or ends."""

    def start(tree, *options, has_cgroups):
        (tmp_path / "tree.py").write_text(TREE, encoding="utf-8")
        for name in ("pids", "grown", "ready"):
            (tmp_path / name).unlink(missing_ok=True)
        return detached(
            *[FLOW, "-p", f"tree={tree}", *options],
            has_cgroups=has_cgroups,
            # Those hear SIGTERM and stay: each would take the whole time that it is given.
            is_hurried=not has_cgroups and tree in {"deaf", "storm"},
        )

    return start


@each_way
@pytest.mark.parametrize("tree", [*TREES, "nameless"])
def test_a_run_is_cancelled_on_record_when_nothing_is_left_of_it(grow, command, tree, has_cgroups):
    launched = grow(tree, has_cgroups=has_cgroups).has()
    assert launched.tree()
    cancel = command("flow-run", "cancel", launched.id, "--wait")
    state, left = launched.ended()
    assert (state.name, left) == ("Cancelled", set())
    cancel.end()
    launched.gone()


@each_way
@each_tree
def test_nothing_is_left_of_a_run_that_is_over_its_hard_timeout(grow, tree, has_cgroups):
    seconds = 0.4
    while True:  # a tree that has not grown in time proves nothing
        seconds *= 2
        launched = grow(tree, "--timeout", str(seconds), has_cgroups=has_cgroups)
        state, _ = launched.ended()
        run = launched.gone()
        if (launched.folder / "ready").exists():
            break
    assert state.name == "TimedOut"
    assert run.state.message == f"Flow run exceeded timeout of {seconds} seconds"


@each_way
@pytest.mark.parametrize("tree", [*TREES, "nameless"])
def test_what_a_completed_run_has_left_is_ended_and_counted(grow, command, tree, has_cgroups):
    launched = grow(tree, "-p", "stays=false", has_cgroups=has_cgroups)
    state, _ = launched.ended()
    assert launched.gone().state == state
    assert state.name == "Completed"
    # Who waits for what was printed has it as soon as the supervisor has ended.
    out, _ = command("flow-run", "logs", launched.id).end()
    (count,) = re.findall(r"What it had left running was ended: (\d+) process", out)
    least, most = TREES.get(tree, (1, 1))
    assert least <= int(count) <= most


@each_way
@each_tree
def test_nothing_is_left_of_a_run_whose_engine_is_killed(grow, tree, has_cgroups):
    launched = grow(tree, has_cgroups=has_cgroups).has()
    launched.kill(launched.run.process)
    state, left = launched.ended()
    assert (state.name, left) == ("Crashed", set())
    assert state.message.startswith("Its process ended by SIGKILL")
    launched.gone()


@each_way
@each_tree
def test_the_next_command_ends_what_a_killed_supervisor_has_left(grow, command, tree, has_cgroups):
    launched = grow(tree, has_cgroups=has_cgroups).has()
    launched.kill(launched.run.supervisor)
    out, _ = command("flow-run", "ls", "--json").end()
    assert '"Crashed"' in out
    assert launched.left() == set()
    assert launched.run.state.message == "Its supervisor was killed, and its process with it."
