"""A backup is there whole, or not at all; and it replaces nothing that it should not."""

import errno
import os
import stat

import pytest

from prefectlite.backups import back_up
from prefectlite.errors import ConflictError, NotFoundError, OutputError, UsageError
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.states import Running


def names(folder):
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    """Where backups are put."""
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder


def no_matter(*_):
    """Be told how far it is, and do nothing."""


def test_a_backup_is_there_under_its_name_alone(registry, folder):
    size = back_up(registry.url, folder / "one", told=no_matter)
    assert names(folder) == ["one"]
    assert (folder / "one").stat().st_size == size > 0


def test_what_is_there_is_replaced_only_where_that_is_asked_for(registry, folder):
    path = folder / "one"
    path.write_text("old")
    with pytest.raises(ConflictError) as caught:
        back_up(registry.url, path, told=no_matter)
    assert "--force" in caught.value.hint
    assert path.read_text() == "old"
    back_up(registry.url, path, told=no_matter, replaces=True)
    assert path.read_bytes().startswith(b"SQLite format 3")
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_comes_to_be_there_meanwhile_is_not_replaced(registry, folder):
    path = folder / "one"
    with pytest.raises(ConflictError):
        back_up(registry.url, path, told=lambda *_: path.write_text("of another"))
    assert path.read_text() == "of another"
    assert names(folder) == ["one"]


@pytest.mark.parametrize(
    "name",
    [f"registry.{ending}" for ending in ("db", "db-wal", "db-shm", "db-journal", "lock")]
    + ["a-link", "hard", "to-the-lock", "../home-link/registry.lock"],
)
def test_the_registry_itself_is_never_replaced(registry, home, name):
    (home / "a-link").symlink_to(home / "registry.db")
    (home / "to-the-lock").symlink_to("registry.lock")
    (home / "hard").hardlink_to(home / "registry.db")
    home.with_name("home-link").symlink_to(home)
    registry.create_flow_run(FlowRun(id=new_id(), name="n", flow_name="f", state=Running()))
    with pytest.raises(UsageError, match="the registry itself"):
        back_up(registry.url, home / name, told=no_matter, replaces=True)
    assert len(registry.list_flow_runs()) == 1


def test_a_folder_is_no_file(registry, folder):
    with pytest.raises(UsageError, match="is a folder"):
        back_up(registry.url, folder, told=no_matter, replaces=True)


def test_what_is_no_file_stays_what_it_is(registry, folder):
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="is no file"):
        back_up(registry.url, pipe, told=lambda *_: None, replaces=True)
    assert pipe.is_fifo()


def test_there_is_nothing_to_back_up_where_there_is_no_registry(home, folder):
    with pytest.raises(NotFoundError):
        back_up(f"sqlite:///{home / 'registry.db'}", folder / "one", told=no_matter)
    assert names(folder) == []
    assert not home.exists()


def test_where_there_is_no_folder_it_cannot_be_written(registry, folder):
    with pytest.raises(OutputError, match="cannot be written"):
        back_up(registry.url, folder / "missing" / "one", told=no_matter)


def test_one_whose_name_may_be_lost_is_there_and_is_told(registry, folder, monkeypatch):
    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(
        OutputError, match="one is written, but may not outlive a power cut: Input/"
    ):
        back_up(registry.url, folder / "one", told=no_matter)
    assert names(folder) == ["one"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_is_left_of_one_that_is_cut_short(registry, folder, error):
    def fail(*_):
        assert len(names(folder)) > 0
        raise error

    (folder / "old").write_text("kept")
    with pytest.raises((KeyboardInterrupt, OutputError)):
        back_up(registry.url, folder / "old", told=fail, replaces=True)
    assert names(folder) == ["old"]
    assert (folder / "old").read_text() == "kept"
