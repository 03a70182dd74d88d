"""Processes are killed, and what is on record stays true; a failure names the seed or the plan.

The plans are single rounds that a bug of ``tests/planted/bugs/crash.toml`` breaks for sure; of what chance
finds, the rounds by the seed are a small part of what ``python -m tests.crash`` does by hand.
"""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]
SEED = 7
ROUNDS = 3
DEADLINE_SECONDS = 280

#: By who is killed: what goes on, and when; each in a registry of its own. Nobody is where a program
#: is only cancelled.
PLANS = {
    "supervisor-with-children": {
        "starts": [{"name": "a", "how": "detached", "flow": "brood"}],
        "kills": [{"kind": "supervisor", "when": "child", "linger": 0.2}],
    },
    "program-being-cancelled": {
        "starts": [
            {"name": "a", "how": "foreground", "flow": "stubborn", "then": "cancel", "after": 1.5}
        ],
        "kills": [{"kind": "engine", "when": "CANCELLING"}],
    },
    "agent-launching": {
        "agent": "serving",
        "starts": [{"name": name, "how": "deployed", "flow": "steps"} for name in "abcd"],
        "kills": [{"kind": "agent", "when": "supervisor"}],  # then it launches the others
    },
    "everything": {
        "agent": "serving",
        "starts": [
            {"name": "a", "how": "deployed", "flow": "brood"},
            {"name": "b", "how": "program", "flow": "brood"},
        ],
        "kills": [{"kind": "everything", "when": "child", "linger": 0.5}],
    },
    "engine-paused": {
        "starts": [{"name": "a", "how": "foreground", "flow": "hold"}],
        "kills": [{"kind": "engine", "when": "PAUSED"}],
    },
    "nobody": {
        "starts": [
            {"name": "a", "how": "program", "flow": "brood", "then": "cancel", "after": 1.5}
        ],
        "kills": [],
    },
}


#: A site where a killer cannot look for its victim.
FAILING = """
from types import SimpleNamespace
from tests.crash.plans import Kill
from tests.crash.rounds import Killer, Outcome

class Site:
    home = None

    def guarded(self, act):
        act()

    def processes(self):
        raise ValueError("the bench fails")

plan = SimpleNamespace(kills=[Kill("engine", when="engine")])
killer = Killer(Site(), plan, Outcome())
print(killer.awaits_sign)
killer.start()
killer.join()
print(killer.awaits_sign)
"""


@pytest.fixture
def crash(bench):
    """Run the bench."""
    return partial(bench, "tests.crash", seconds=DEADLINE_SECONDS)


def test_nobody_waits_for_the_sign_of_a_killer_that_has_failed(start_python):
    assert start_python(FAILING, cwd=SOURCES).end() == "True\nFalse\n"


@pytest.mark.long
def test_nothing_acknowledged_is_lost_or_untrue_when_processes_are_killed(crash, tmp_path):
    done = crash("--rounds", ROUNDS, "--seed", SEED, "--keep", tmp_path / "kept")
    assert done.returncode == 0
    assert f"seed {SEED}: " in done.stdout
    assert ": 0 killed" not in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("what", PLANS)
def test_what_is_on_record_is_true_when_there_is_killed(crash, tmp_path, what):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"number": 0, **PLANS[what]}), encoding="utf-8")
    done = crash("--plan", plan, "--keep", tmp_path / "kept")
    assert done.returncode == 0
    assert f"plan {plan}: " in done.stdout
    assert bool(PLANS[what]["kills"]) == (" 0 killed" not in done.stdout)


#: Ends a command in a site, where the bench has killed somebody; it prints what is noted of that.
ENDING = """
import os, sys
from pathlib import Path
from tests.crash.processes import Process
from tests.crash.site import Site

site, code, victim, run = Site(Path(sys.argv[1])), *sys.argv[2:]
site.begin(0)
process = site.start("-c", code)
pid = process.pid if victim == "itself" else 1
words = "python -I -S supervisor.py " + f"{run}.token"  # only what it starts has the run's id
site.about_to_kill(Process(pid, "supervisor", words, 0, (), ""))
site.finish(process)
site.close()
print([fact.fact for fact in site.journal.facts()][1:])
"""
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
NOT_STARTED = (
    "import sys; sys.exit(print('flow run r1 could not be started', file=sys.stderr) or 5)"
)


@pytest.mark.parametrize(
    ("code", "victim", "run", "noted"),
    [
        (KILLED, "itself", "", []),
        (KILLED, "another", "", ["was_killed"]),
        (NOT_STARTED, "another", "r1", []),
        (NOT_STARTED, "another", "r2", ["complained"]),
    ],
    ids=["killed", "killed-by-another", "not-started", "another-not-started"],
)
def test_how_a_command_ends_is_right_only_where_that_was_killed(
    start_python, tmp_path, code, victim, run, noted
):
    told = start_python(ENDING, tmp_path / "site", code, victim, run, cwd=SOURCES).end()
    assert told == f"{noted}\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("start", "kills", "said"),
    [
        ({"how": "program", "flow": "fails"}, [{"kind": "engine", "at": "soon"}], "TypeError("),
        ({"how": "deployed", "flow": "no_such"}, [], "there is nothing to test"),
    ],
    ids=["in-the-thread-that-kills", "in-the-round"],
)
def test_a_fault_of_the_bench_itself_is_told_and_its_folder_kept(
    crash, tmp_path, monkeypatch, start, kills, said
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    plan = tmp_path / "plan.json"
    fields = {"number": 0, "starts": [{"name": "a", **start}], "kills": kills}
    plan.write_text(json.dumps(fields), encoding="utf-8")
    done = crash("--plan", plan)
    assert done.returncode == 1
    assert said in done.stdout + done.stderr
    folder = Path(done.stderr.partition("kept for you to look at: ")[2].splitlines()[0])
    assert (folder / "work.py").exists()


@pytest.mark.long
def test_when_it_is_interrupted_nothing_goes_on(tmp_path, until, with_token):
    folder = tmp_path / "kept"
    bench = subprocess.Popen(
        [sys.executable, "-m", "tests.crash", "--keep", str(folder)],
        cwd=SOURCES,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until((folder / "journal.jsonl").exists, "the first fact")
        bench.send_signal(signal.SIGINT)
        _, told = bench.communicate(timeout=DEADLINE_SECONDS)
    finally:
        bench.kill()
    assert (bench.returncode, b"interrupted; seed" in told) == (130, True)
    assert with_token(f"CRASH_BENCH={(folder / 'mark').read_text()}") == []


def test_a_folder_that_is_there_is_not_taken_for_a_new_one(crash, tmp_path):
    done = crash("--keep", tmp_path)
    assert done.returncode == 2
    assert "already" in done.stderr
