"""The type of a path's filesystem, from tables of mounts as kernels write them."""

from pathlib import Path

import pytest

from prefectlite.filesystems import SAFE_TYPES, filesystem_type

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
