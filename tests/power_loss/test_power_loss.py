"""That a power cut loses nothing that was promised, and that the bench would see it if one did."""

import re

import pytest

DEADLINE_SECONDS = 240
SEED = 6

pytestmark = [pytest.mark.long, pytest.mark.needs("strace")]


@pytest.fixture
def cut(bench, tmp_path):
    """Cut the power so often, and return the exit code and in how many cuts something was wrong."""

    def run(*words, cuts):
        words = ["--seed", SEED, "--cuts", cuts, "--keep", tmp_path / "kept", *words]
        done = bench("tests.power_loss", *words, seconds=DEADLINE_SECONDS)
        told = re.search(
            r"(\d+) cuts, (\d+) states .* lost in (\d+) .*, corrupt in (\d+)", done.stdout
        )
        assert told
        made, states, lost, corrupt = map(int, told.groups())
        assert made == cuts
        assert states > 0
        if done.returncode == 0 and "NOT TESTED" in done.stderr:
            pytest.skip("NOT TESTED: what runs say after a restart: there is no /etc/machine-id")
        return done.returncode, lost, corrupt

    return run


@pytest.mark.parametrize(
    "steps", ["begin-together", "checkpoint-backup-prune", "blocks", "detached", "deployed"]
)
def test_nothing_that_was_promised_is_lost_or_corrupt_after_a_power_cut(cut, steps):
    # What goes wrong with a block, if anything, does so in few moments, and its disks are small.
    cuts = 120 if steps == "blocks" else 60
    assert cut("--steps", *steps.split("-"), cuts=cuts) == (0, 0, 0)


def test_the_bench_finds_what_is_lost_where_states_of_flow_runs_are_not_synced(cut):
    code, lost, corrupt = cut("--synchronous", "normal", "--steps", "together", cuts=40)
    assert (code, corrupt) == (1, 0)
    assert lost > 5


def test_the_bench_finds_what_is_corrupt_where_nothing_is_synced(cut):
    code, _, corrupt = cut("--synchronous", "off", "--steps", "together", cuts=40)
    assert code == 1
    assert corrupt > 5
