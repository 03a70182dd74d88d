"""What doctor finds out about the machine: what is as it should be, and what is not."""

import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from prefectlite import machine_checks
from prefectlite.findings import Status


@pytest.mark.parametrize(
    ("version", "is_mended"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 3), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_which_versions_of_sqlite_are_without_the_fault(monkeypatch, version, is_mended):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    found = machine_checks.check_sqlite()
    assert found.status == (Status.OK if is_mended else Status.WARNING)
    assert (found.fix is None) == is_mended
    if not is_mended:
        assert "prefectlite prevents that" in found.message


def test_a_sqlite_that_lacks_what_is_needed_is_an_error(monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    assert machine_checks.check_sqlite().status is Status.ERROR


def test_a_clock_that_was_never_set_is_an_error(monkeypatch):
    assert machine_checks.check_clock().status is Status.OK
    monkeypatch.setattr(machine_checks, "now", lambda: datetime(1970, 1, 1, tzinfo=UTC))
    assert machine_checks.check_clock().status is Status.ERROR


def test_a_start_in_the_future_is_an_error(monkeypatch):
    monkeypatch.setattr(machine_checks, "since_boot", lambda: 0.0)
    assert "starts in the future" in machine_checks.check_clock().message


def test_a_subreaper_is_really_made_in_a_child(monkeypatch):
    assert machine_checks.check_subreaper().status is Status.OK
    monkeypatch.setattr(machine_checks, "_SET_SUBREAPER", "raise SystemExit(1)")
    found = machine_checks.check_subreaper()
    assert (found.status, found.fix is not None) == (Status.WARNING, True)
    own = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(37, ctypes.byref(n)); print(n.value)"
    told = subprocess.run([sys.executable, "-c", own], capture_output=True, check=True, text=True)
    assert told.stdout == "0\n"


def test_a_kernel_that_refuses_to_hold_on_to_a_process_is_a_warning(monkeypatch):
    assert machine_checks.check_pidfd().status is Status.OK

    def refuse(_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    found = machine_checks.check_pidfd()
    assert (found.status, "Function not implemented" in found.message) == (Status.WARNING, True)
    monkeypatch.delattr(os, "pidfd_open")
    assert machine_checks.check_pidfd().status is Status.SKIPPED


def test_control_groups_are_no_matter_of_health():
    assert machine_checks.check_cgroup().status in (Status.OK, Status.SKIPPED)


def test_where_proc_hides_others_it_is_a_warning(monkeypatch):
    assert machine_checks.check_proc().status is Status.OK

    def refuse(_):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(machine_checks.Path, "read_bytes", refuse)
    assert machine_checks.check_proc().status is Status.WARNING


def test_cron_is_told_the_whole_path_where_it_would_not_find_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(machine_checks, "_CRON_PATH", str(tmp_path))
    python = tmp_path / "venv" / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    assert machine_checks.check_cron().message.endswith(f"write: {python} -m prefectlite")
    python.parent.mkdir()
    program = python.with_name("prefectlite")
    program.touch()
    assert machine_checks.check_cron().message.endswith(f"write: {program}")
    program.chmod(0o755)
    program.rename(tmp_path / "prefectlite")
    assert machine_checks.check_cron().message == f"cron finds {tmp_path / 'prefectlite'}"


def test_a_unit_whose_end_ends_its_runs_is_a_warning(monkeypatch):
    assert machine_checks.check_systemd().status is Status.OK
    monkeypatch.setattr(machine_checks, "kill_mode_warning", lambda: "the unit has KillMode=x")
    found = machine_checks.check_systemd()
    assert (found.status, found.message) == (Status.WARNING, "the unit has KillMode=x")


@pytest.mark.parametrize(("encoding", "status"), [("utf-8", Status.OK), ("ascii", Status.WARNING)])
def test_a_stdout_that_takes_only_ascii_is_a_warning(monkeypatch, tmp_path, encoding, status):
    with (tmp_path / "out").open("w", encoding=encoding) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        found = machine_checks.check_terminal()
        monkeypatch.undo()
    assert found.status is status
