"""The short form of the sweeps: some rounds of each kind, in a process of their own."""

import os
import subprocess

import pytest

DEADLINE_SECONDS = 280


@pytest.mark.long
@pytest.mark.needs("strace")
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can mount a small disk")
@pytest.mark.parametrize(
    ("sweep", "every"), [("full-disk", 100), ("short-writes", 100), ("injected", 400)]
)
def test_no_fault_of_a_disk_makes_a_command_lie_hang_or_lose_what_was_on_record(
    bench, sweep, every
):
    mount = "mount -t tmpfs none /mnt && strace -o /dev/null true"
    probe = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount], check=False, capture_output=True, timeout=20
    )
    if probe.returncode:
        pytest.skip(f"NOT TESTED: no disk can be mounted here, or nobody traced: {probe.stderr!r}")
    done = bench("tests.faults", sweep, "--every", every, seconds=DEADLINE_SECONDS)
    assert done.returncode == 0
    assert done.stdout.endswith("\n0 of them with something wrong\n")


def test_a_sweep_that_does_not_exist_is_a_usage_error(bench):
    done = bench("tests.faults", "no-such")
    assert done.returncode == 2
    assert "no such sweep: no-such" in done.stderr
