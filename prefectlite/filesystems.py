"""Which filesystem a path is on, whether a registry is safe there, and what makes a path durable.

Locks and write-ahead logs are broken on network filesystems in ways that a probe does not see: data
is lost later. So the type decides, by an allow-list, from the longest mount point that is a prefix
of the path (proc_pid_mountinfo(5)).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

#: Local filesystems on which POSIX locks and fsync mean what they say.
SAFE_TYPES = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "overlay"}
    | {"apfs", "hfs", "ufs", "ntfs", "ntfs3"}
)
MOUNTS = Path("/proc/self/mountinfo")
# A folder cannot be synced there at all, as on some filesystems of a network (fsync(2)). Any other error,
# EIO and ENOSPC above all, means that a name may be lost.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_OPEN_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")


def filesystem_type(path: Path, *, mounts: Path | None = None) -> str | None:
    """Return the type of the filesystem that holds ``path``, such as ``ext4`` or ``nfs4``.

    Args:
        path: An absolute path, free of symbolic links; it need not exist.
        mounts: The table to read; None for the kernel's.

    Returns:
        None where there is no such table (other systems than Linux) or no entry.
    """
    try:
        table = (mounts or MOUNTS).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    best: tuple[str, str | None] = ("", None)
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        point = _unescape(before.split(" ")[4])
        # A later mount on the same point hides the earlier one, hence >=.
        if _holds(point, str(path)) and len(point) >= len(best[0]):
            best = (point, after.split(" ")[0])
    return best[1]


def is_open_already(path: str) -> bool:
    """Return whether a path names a file by the process that has it open, such as ``/dev/stdout``.

    There may be more in it than what this process writes: it is not to be replaced or emptied.
    """
    return path.startswith(_OPEN_FILES)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a power cut: those that were given, and those that were removed.

    What fsync(2) makes durable of a file is its content, and not its name.

    Raises:
        OSError: They may not; its ``filename`` is the folder. Where a filesystem cannot sync folders
            there is none, because nobody can do better there.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            error.filename = str(folder)
            raise
    finally:
        os.close(descriptor)


def sync_folders(path: Path) -> None:
    """Have the name of a file or a folder, and those of all folders above it, outlive a power cut.

    It ends where its filesystem does, and at a folder that this user may not read: nobody has just
    made these. It does not end at a folder that was there before: another process may have made that
    a moment ago, or died before it could sync its name.

    Raises:
        OSError: As ``sync_folder``.
    """
    for folder in path.parents:
        try:
            sync_folder(folder)
        except PermissionError:
            return
        if os.path.ismount(folder):
            return


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _unescape(text: str) -> str:
    # Space, tab, newline and backslash stand as octal in the table.
    for mark in " \t\n\\":
        text = text.replace(f"\\{ord(mark):03o}", mark)
    return text
