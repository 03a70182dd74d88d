"""The loads, with small sizes: what they claim holds, and one that does not is an error."""

import json
from functools import partial
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]
DEADLINE_SECONDS = 280
SEED = 1


@pytest.fixture
def load(bench):
    """Run the loads."""
    return partial(bench, "tests.load", "--seed", SEED, seconds=DEADLINE_SECONDS)


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "bare-writers",
        "writers",
        "mapped",
        "mapped-memory",
        "lines",
        "launched",
        "full",
        "soak",
    ],
)
def test_what_is_promised_holds_under_a_small_load(load, name, tmp_path):
    file = tmp_path / "load.json"
    done = load(name, "--quick", "--json", file)
    assert done.returncode == 0
    assert done.stdout.endswith(f"seed {SEED}: every claim holds\n")
    found = json.loads(file.read_text())
    assert found["seed"] == SEED
    assert found["rows"]
    assert {claim["holds"] for claim in found["claims"]} == {True}


#: Instead of the loads, one that claims two things.
CLAIMS = """
import sys
from tests.load import __main__ as program

def two(trial):
    trial.claim("one thing", True)
    trial.claim_equal("another", number, 2)

number = int(sys.argv.pop())
program._LOADS = {"two": two}
sys.argv += ["--seed", "7"]
sys.exit(program.main())
"""


@pytest.mark.parametrize(
    ("number", "exit_code", "told"),
    [(2, 0, "every claim holds"), (3, 1, "1 of 2 claims do not hold")],
)
def test_a_claim_that_does_not_hold_is_said_with_the_seed_and_is_an_error(
    start_python, number, exit_code, told
):
    out = start_python(CLAIMS, number, cwd=SOURCES).end(exit_code)
    assert out.endswith(f"seed 7: {told}\n")
    assert ("BROKEN  another: 3, not 2" in out) == (number == 3)


GAUGES = """
import json, os, sys
from pathlib import Path
from tests.benchmarks.measuring import Scale
from tests.load.gauges import Gauges
from tests.load.trials import Trial

folder, trial = Path(sys.argv[1]), Trial(Scale(True), 1, 1)
gauges = Gauges(folder, {"own": os.getpid()})
kept = []
for number in range(12):
    if sys.argv[2] == "growing":
        kept.append(open(os.devnull))
        (folder / "registry.db").write_bytes(b"x" * 1_000_000 * number)
    gauges.read()
gauges.claim(trial)
print(json.dumps([claim.name for claim in trial.claims if not claim.holds]))
for one in kept:
    one.close()
"""


def test_what_grows_is_found_and_what_does_not_is_not(start_python, tmp_path):
    assert json.loads(start_python(GAUGES, tmp_path, "flat", cwd=SOURCES).end()) == []
    (descriptors, file) = json.loads(start_python(GAUGES, tmp_path, "growing", cwd=SOURCES).end())
    assert descriptors.startswith("soak: own: descriptors is flat")
    assert file.startswith("soak: registry.db is flat")


def test_a_load_that_does_not_exist_is_a_usage_error(load):
    done = load("no-such")
    assert done.returncode == 2
    assert "no such load: no-such" in done.stderr


def test_help_has_an_example(load):
    done = load("--help")
    assert done.returncode == 0
    assert "example: python -m tests.load" in done.stdout
