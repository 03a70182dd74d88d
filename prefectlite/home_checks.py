"""What ``doctor`` looks at in the home folder and around the registry's file, without opening that.

Each check returns a finding. What it must write to find out is gone when it returns.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import subprocess  # noqa: TID251 - starts what is over in a moment
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefectlite import console
from prefectlite.errors import PrefectLiteError
from prefectlite.filesystems import SAFE_TYPES, filesystem_type
from prefectlite.findings import Finding, error, ok, skipped, warning
from prefectlite.liveness import is_alive
from prefectlite.registry import registry_path
from prefectlite.results import results_folder
from prefectlite.run_folders import RunFolder
from prefectlite.secret_files import secrets_folder
from prefectlite.setting_problems import environment_problems, file_problems
from prefectlite.settings import (
    PREFECTLITE_ALLOW_NETWORK_FILESYSTEM,
    PREFECTLITE_HOME,
    PREFECTLITE_REGISTRY,
)

_GROUP_AND_OTHERS, _THEIR_WRITES = 0o077, 0o022
# SQLite's log alone can grow to tens of megabytes while somebody reads.
_LEAST_BYTES, _FEW_BYTES = 50_000_000, 500_000_000
_SLACK_SECONDS = 5.0
_DEADLINE_SECONDS = 10.0
# What is younger may belong to a run that has just ended.
_LEFT_SECONDS = 3_600
# Says of each kind of lock whether another process can have it, too.
_TRY_LOCKS = """
import fcntl, os, sys
for take in fcntl.flock, fcntl.lockf:
    descriptor = os.open(sys.argv[1], os.O_RDWR)
    try:
        take(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        print("held")
    else:
        print("free")
"""


def check_settings() -> Finding:
    """Look what is wrong in the file of profiles and in the environment."""
    problems = [*file_problems(), *environment_problems()]
    if not problems:
        return ok("all profiles and the environment are right")
    more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
    return error(f"{problems[0]}{more}", "see: prefectlite config validate")


def check_home() -> Finding:
    """Look whether the home folder is there, or can be made, and can be written to."""
    home = PREFECTLITE_HOME.value()
    nearest = _nearest(home)
    if not nearest.is_dir():
        return error(f"{nearest} is no folder", "move it away, or set PREFECTLITE_HOME to another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        fix = f"see to the permissions of {nearest}, or set PREFECTLITE_HOME to another folder"
        return error(f"you may not write to {nearest}", fix)
    return ok(str(home) if nearest == home else f"{home} is made when it is needed")


def check_permissions() -> Finding:
    """Look whether others can read or change what is the user's alone."""
    home = _home()
    if home is None or not os.path.isdir(home):  # noqa: PTH112 - pathlib's raises where it may not look
        return skipped("there is no home folder yet")
    for path in (home, _registry(), results_folder(), secrets_folder()):
        if path is None or not os.path.exists(path):  # noqa: PTH110 - likewise
            continue
        status = path.stat()
        mode = "700" if path.is_dir() else "600"
        if status.st_uid != os.geteuid():
            return warning(
                f"{path} belongs to {_user(status.st_uid)}",
                f"run prefectlite as that user, or: chown -R {_user(os.geteuid())} {home}",
            )
        if status.st_mode & _THEIR_WRITES:
            told = "a stored result is code to whoever loads it"
            return error(f"others can write to {path}: {told}", f"chmod {mode} {path}")
        if status.st_mode & _GROUP_AND_OTHERS:
            return warning(f"others can read {path}", f"chmod {mode} {path}")
    return ok("only you can read and write what is kept")


def check_filesystem() -> Finding:
    """Look whether the registry's filesystem is known to keep its locks and its writes."""
    folder = _registry_folder()
    if folder is None:
        return skipped("no file is known to be that of the registry")
    kind = filesystem_type(folder.resolve())
    if kind is None:
        return skipped("this system does not say what filesystem it is")
    if kind in SAFE_TYPES:
        return ok(f"{kind}, at {folder}")
    told = f"{folder} is on a filesystem of type {kind}, which is not known to keep locks"
    if PREFECTLITE_ALLOW_NETWORK_FILESYSTEM.value():
        return warning(f"{told}: data can be lost", "move the registry to a local disk")
    return error(told, "set PREFECTLITE_HOME to a folder on a local disk")


def check_locks() -> Finding:
    """Look whether a lock that this process has keeps another process out."""
    folder = _registry_folder()
    if folder is None or not os.access(folder, os.W_OK | os.X_OK):
        return skipped("there is no folder to try it in")
    with _file_in(folder) as path, path.open("rb+") as one, path.open("rb+") as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRY_LOCKS, str(path)],
            capture_output=True,
            check=False,
            text=True,
            timeout=_DEADLINE_SECONDS,
        )
    if tried.stdout.split() == ["held", "held"]:
        return ok(f"two processes cannot have one lock in {folder}")
    found = tried.stdout.split() or tried.stderr.split("\n")[-2:-1]
    return error(
        f"locks do not work in {folder}: a second process found them {', '.join(found)}",
        "set PREFECTLITE_HOME to a folder on a local disk",
    )


def check_disk() -> Finding:
    """Look how much room is left."""
    folder = _nearest(_registry_folder() or PREFECTLITE_HOME.value())
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    told = f"{console.bytes_text(free)} are free at {folder}"
    fix = "free some, or delete old runs: prefectlite registry prune --older-than 30d --vacuum"
    if status.f_files and not status.f_favail:
        return error(f"no file can be made at {folder}: it has no inodes left", "delete some files")
    if free < _LEAST_BYTES:
        return error(told, fix)
    return warning(told, fix) if free < _FEW_BYTES else ok(told)


def check_file_times() -> Finding:
    """Look whether the filesystem has the same time as this machine."""
    folder = _registry_folder()
    if folder is None or not os.access(folder, os.W_OK | os.X_OK):
        return skipped("there is no folder to try it in")
    with _file_in(folder) as path:
        ahead = path.stat().st_mtime - time.time()
    if abs(ahead) > _SLACK_SECONDS:
        return warning(
            f"a new file in {folder} is {abs(ahead):.0f} seconds {'ahead' if ahead > 0 else 'old'}",
            "set the clocks of this machine and of the one that keeps the files by NTP",
        )
    return ok("new files have the time of this machine")


def check_run_folders() -> Finding:
    """Look for what supervisors that were killed have left behind."""
    home = _home()
    if home is None:
        return skipped("there is no home folder")
    before = time.time() - _LEFT_SECONDS
    left = []
    with suppress(OSError), os.scandir(home / "runs") as entries:
        for entry in entries:
            supervisor = RunFolder(Path(entry.path)).supervisor()
            is_dead = supervisor is None or is_alive(supervisor) is False
            if is_dead and entry.stat().st_mtime < before:
                left.append(entry.name)
    if left:
        return warning(
            f"runs whose supervisor is gone have left folders in {home / 'runs'}: {len(left)}",
            "see to it with: prefectlite flow-run ls; what stays is of a run that is deleted, or of"
            " another registry, and can be removed",
        )
    return ok("no run has left a folder behind")


def _home() -> Path | None:
    try:
        return PREFECTLITE_HOME.value()
    except PrefectLiteError:
        return None


def _registry() -> Path | None:
    try:
        return registry_path(PREFECTLITE_REGISTRY.value())
    except PrefectLiteError:
        return None


def _registry_folder() -> Path | None:
    """Return the folder of the registry's file; it may not exist yet."""
    path = _registry()
    return None if path is None else path.parent


def _nearest(path: Path) -> Path:
    """Return a path, or the first above it that exists."""
    return next(one for one in (path, *path.parents) if os.path.lexists(one))


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@contextmanager
def _file_in(folder: Path) -> Iterator[Path]:
    """Make a file that is gone afterwards."""
    descriptor, name = tempfile.mkstemp(prefix=".prefectlite-doctor-", dir=folder)
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
