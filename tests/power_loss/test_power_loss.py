"""That a power cut loses nothing that was promised, and that the bench would see it if one did."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]
DEADLINE_SECONDS = 240
SEED = 6

pytestmark = [pytest.mark.long, pytest.mark.needs("strace")]


def _cut(*arguments, cuts):
    command = [sys.executable, "-m", "tests.power_loss", "--seed", str(SEED), "--cuts", str(cuts)]
    done = subprocess.run(
        [*command, *arguments],
        cwd=SOURCES,
        env=dict(os.environ),
        timeout=DEADLINE_SECONDS,
        check=False,
        capture_output=True,
        text=True,
    )
    told = re.search(r"lost in (\d+) cuts, corrupt in (\d+)", done.stdout)
    assert told, done.stderr
    return done, int(told[1]), int(told[2])


@pytest.mark.parametrize(
    "steps", ["begin-together", "checkpoint-backup-prune", "blocks", "detached", "deployed"]
)
def test_nothing_that_was_promised_is_lost_or_corrupt_after_a_power_cut(steps):
    # What goes wrong with a block, if anything, does so in few moments, and its disks are small.
    cuts = 120 if steps == "blocks" else 60
    done, lost, corrupt = _cut("--discard", "--steps", *steps.split("-"), cuts=cuts)
    assert (done.returncode, lost, corrupt) == (0, 0, 0), done.stdout


def test_the_bench_finds_what_is_lost_where_states_of_flow_runs_are_not_synced():
    done, lost, corrupt = _cut("--synchronous", "normal", "--steps", "together", cuts=40)
    assert (done.returncode, corrupt) == (1, 0), done.stdout
    assert lost > 5


def test_the_bench_finds_what_is_corrupt_where_nothing_is_synced():
    done, _, corrupt = _cut("--synchronous", "off", "--steps", "together", cuts=40)
    assert done.returncode == 1, done.stdout
    assert corrupt > 5
