"""What doctor finds out about the home folder; it leaves nothing behind there."""

import errno
import fcntl
import os
import time

import pytest

from prefectlite import home_checks
from prefectlite.findings import Status
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY


def names(folder):
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def made(registry, home):
    """A home folder with a registry in it, which nobody has open."""
    registry.close()
    return home


def test_settings_that_are_wrong_are_an_error_and_counted(monkeypatch, write_profiles):
    assert home_checks.check_settings().status is Status.OK
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "LOUD")
    monkeypatch.setenv("PREFECTLITE_LOGING_LEVEL", "INFO")
    write_profiles("[profiles.default]\nPREFECTLITE_DEBUG = 'perhaps'\n")
    found = home_checks.check_settings()
    assert (found.status, found.fix) == (Status.ERROR, "see: prefectlite config validate")
    assert found.message.endswith("; and 2 more")


def test_a_home_folder_that_can_be_made_is_right(home):
    found = home_checks.check_home()
    assert (found.status, found.message) == (Status.OK, f"{home} is made when it is needed")
    assert not home.exists()


def test_a_home_folder_that_is_a_file_is_an_error(home):
    home.write_text("")
    assert home_checks.check_home().message == f"{home} is no folder"


def test_a_home_folder_that_cannot_be_written_is_an_error(made, monkeypatch):
    assert home_checks.check_home().status is Status.OK
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = home_checks.check_home()
    assert (found.status, found.message) == (Status.ERROR, f"you may not write to {made}")


def test_what_others_can_read_is_a_warning_and_what_they_can_write_an_error(made):
    (made / "results").mkdir(mode=0o700)
    assert home_checks.check_permissions().status is Status.OK
    (made / "registry.db").chmod(0o640)
    found = home_checks.check_permissions()
    assert (found.status, found.fix) == (Status.WARNING, f"chmod 600 {made / 'registry.db'}")
    (made / "registry.db").chmod(0o600)
    (made / "results").chmod(0o770)
    found = home_checks.check_permissions()
    assert (found.status, found.fix) == (Status.ERROR, f"chmod 700 {made / 'results'}")


def test_what_belongs_to_another_user_is_a_warning(made, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    found = home_checks.check_permissions()
    assert (found.status, "54321" in found.fix) == (Status.WARNING, True)


def test_a_home_folder_that_is_not_there_has_no_permissions():
    assert home_checks.check_permissions().status is Status.SKIPPED


@pytest.mark.parametrize(
    ("kind", "allowed", "status"),
    [
        ("ext4", "", Status.OK),
        ("nfs4", "", Status.ERROR),
        ("nfs4", "true", Status.WARNING),
        (None, "", Status.SKIPPED),
    ],
)
def test_a_filesystem_of_a_network_is_an_error_unless_it_was_allowed(
    monkeypatch, kind, allowed, status
):
    monkeypatch.setattr(home_checks, "filesystem_type", lambda _: kind)
    monkeypatch.setenv("PREFECTLITE_ALLOW_NETWORK_FILESYSTEM", allowed)
    assert home_checks.check_filesystem().status is status


def test_locks_are_tried_with_another_process_and_nothing_is_left(made, monkeypatch):
    before = sorted(names(made))
    assert home_checks.check_locks().status is Status.OK
    for kind in ("flock", "lockf"):  # as if this one had got it, and another could, too
        with monkeypatch.context() as context:
            context.setattr(fcntl, kind, lambda *_: None)
            found = home_checks.check_locks()
        assert found.status is Status.ERROR
        assert "free" in found.message
    assert sorted(names(made)) == before


def test_a_filesystem_without_locks_is_named_by_its_error(made, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(OSError, match="No locks available"):  # of which doctor makes an error
        home_checks.check_locks()
    assert not [name for name in names(made) if "doctor" in name]


def test_where_there_is_no_folder_nothing_is_tried(home):
    assert home_checks.check_locks().status is Status.SKIPPED
    assert home_checks.check_file_times().status is Status.SKIPPED
    assert not home.exists()


@pytest.mark.parametrize(
    ("free", "inodes", "status"),
    [
        (10**9, 5, Status.OK),
        (10**8, 5, Status.WARNING),
        (10**6, 5, Status.ERROR),
        (10**9, 0, Status.ERROR),
    ],
)
def test_a_disk_that_is_nearly_full_is_told_in_time(monkeypatch, free, inodes, status):
    class Full:
        f_bavail, f_frsize, f_files, f_favail = free, 1, 10, inodes

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    found = home_checks.check_disk()
    assert (found.status, found.fix is None) == (status, status is Status.OK)


def test_files_of_another_time_are_a_warning(made, monkeypatch):
    assert home_checks.check_file_times().status is Status.OK
    at = time.time()
    monkeypatch.setattr(home_checks.time, "time", lambda: at + 60)
    found = home_checks.check_file_times()
    assert (found.status, "old" in found.message) == (Status.WARNING, True)
    assert not [name for name in names(made) if "doctor" in name]


def test_a_folder_that_a_supervisor_left_behind_is_a_warning_and_stays(made):
    assert home_checks.check_run_folders().status is Status.OK
    folder = made / "runs" / "3f2a9c1e.abc"
    folder.mkdir(parents=True)
    assert home_checks.check_run_folders().status is Status.OK
    os.utime(folder, (0, 0))
    found = home_checks.check_run_folders()
    assert (found.status, found.message.endswith(": 1")) == (Status.WARNING, True)
    assert folder.exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_no_check_but_that_of_locks_and_times_writes(home, is_there):
    if is_there:
        open_registry(PREFECTLITE_REGISTRY.value()).close()
    before = [(path, path.stat().st_mtime_ns) for path in sorted(home.rglob("*"))]
    for check in (
        home_checks.check_settings,
        home_checks.check_home,
        home_checks.check_permissions,
        home_checks.check_filesystem,
        home_checks.check_disk,
        home_checks.check_run_folders,
    ):
        check()
    assert [(path, path.stat().st_mtime_ns) for path in sorted(home.rglob("*"))] == before
    assert home.exists() == is_there
