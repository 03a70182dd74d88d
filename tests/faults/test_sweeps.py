"""The short form of the sweeps: some rounds of each kind, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]
DEADLINE_SECONDS = 280


def _sweep(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.faults", *arguments],
        cwd=SOURCES,
        env=dict(os.environ),
        timeout=DEADLINE_SECONDS,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.long
@pytest.mark.needs("strace")
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can mount a small disk")
@pytest.mark.parametrize(
    ("sweep", "every"), [("full-disk", 100), ("short-writes", 100), ("injected", 400)]
)
def test_no_fault_of_a_disk_makes_a_command_lie_hang_or_lose_what_was_on_record(sweep, every):
    mount = "mount -t tmpfs none /mnt && strace -o /dev/null true"
    probe = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount], check=False, capture_output=True, timeout=20
    )
    if probe.returncode:
        pytest.skip(f"NOT TESTED: no disk can be mounted here, or nobody traced: {probe.stderr!r}")
    done = _sweep(sweep, "--every", str(every))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.endswith("\n0 of them with something wrong\n")


def test_a_sweep_that_does_not_exist_is_a_usage_error():
    done = _sweep("no-such")
    assert done.returncode == 2
    assert "no such sweep: no-such" in done.stderr
