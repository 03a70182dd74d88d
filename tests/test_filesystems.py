"""The type of a path's filesystem, from tables of mounts as kernels write them; and folders that are synced."""

import errno
import os
from pathlib import Path

import pytest

from prefectlite.filesystems import SAFE_TYPES, filesystem_type, sync_folder, sync_folders

TABLE = r"""22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
36 22 0:30 /export /home rw,relatime shared:5 master:2 - nfs4 server:/export rw,vers=4.2
37 36 0:31 / /home/local rw - xfs /dev/sdb rw
38 22 0:32 / /with\040space rw - cifs //server/share rw
39 22 0:33 / /back\134040slash rw - 9p host rw
40 22 0:34 / /twice rw - nfs server:/old rw
41 40 0:35 / /twice rw - tmpfs tmpfs rw
42 22 0:36 / /optional rw shared:1 - in - fuse.sshfs host: rw
"""


@pytest.fixture
def mounts(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    return table


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srv/prefectlite", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/.local/share/prefectlite", "nfs4"),
        ("/homes/me", "ext4"),
        ("/home/local/prefectlite", "xfs"),
        ("/home/localhost", "nfs4"),
        ("/with space/x", "cifs"),
        ("/back\\040slash/x", "9p"),
        ("/twice/x", "tmpfs"),
    ],
)
def test_the_longest_mount_point_decides_and_of_two_on_one_the_later(mounts, path, kind):
    assert filesystem_type(Path(path), mounts=mounts) == kind


def test_where_there_is_no_table_the_type_is_unknown(tmp_path):
    assert filesystem_type(Path("/x"), mounts=tmp_path / "missing") is None


def test_a_table_without_the_path_says_nothing(tmp_path):
    (tmp_path / "mountinfo").write_text("23 22 0:21 / /proc rw - proc proc rw\n")
    assert filesystem_type(Path("/x"), mounts=tmp_path / "mountinfo") is None


def test_the_kernels_own_table_can_be_read():
    assert filesystem_type(Path("/proc/self")) == "proc"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "virtiofs"])
def test_no_filesystem_of_a_network_is_safe(kind):
    assert kind not in SAFE_TYPES


@pytest.fixture
def refused():
    """What fsync(2) refuses, by folder: an error number."""
    return {}


@pytest.fixture
def synced(monkeypatch, refused):
    """The folders that were synced, in order."""
    done, fsync = [], os.fsync

    def note(descriptor):
        folder = Path(f"/proc/self/fd/{descriptor}").readlink()
        if folder in refused:
            raise OSError(refused[folder], os.strerror(refused[folder]))
        fsync(descriptor)
        done.append(folder)

    monkeypatch.setattr(os, "fsync", note)
    return done


@pytest.fixture
def path(tmp_path):
    """A path two folders below that of the test."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    return folder / "file"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("above", [0, 1])
def test_a_folder_that_cannot_be_synced_does_not_pass_for_durable(
    path, synced, refused, number, above
):
    refused[path.parents[above]] = number
    with pytest.raises(OSError, match=str(path.parents[above])) as caught:
        sync_folders(path)
    assert caught.value.errno == number
    assert synced == [*path.parents][:above]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_where_no_folder_can_be_synced_there_is_no_more_to_do(path, synced, refused, number):
    refused[path.parent] = number
    sync_folder(path.parent)
    assert synced == []


def test_names_are_synced_up_to_where_the_filesystem_ends(path, synced, tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda folder: folder == tmp_path)
    sync_folders(path)
    assert synced == [path.parent, path.parents[1], tmp_path]


def test_names_are_synced_up_to_a_folder_that_may_not_be_read(path, synced, tmp_path, monkeypatch):
    opened = os.open

    def refuse(folder, flags):
        if folder == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return opened(folder, flags)

    monkeypatch.setattr(os, "open", refuse)
    sync_folders(path)
    assert synced == [path.parent, path.parents[1]]


def test_a_folder_that_is_gone_is_an_error(path):
    with pytest.raises(FileNotFoundError):
        sync_folders(path / "missing" / "file")
