"""What SQLite's errors, and those of the files it keeps, mean to a person.

``database`` raises what these functions return, in place of what SQLite or the system raised.
"""

from __future__ import annotations

import errno
import sqlite3  # noqa: TID251 - its error codes
from pathlib import Path

from prefectlite.errors import (
    RegistryCorruptError,
    RegistryError,
    RegistryFullError,
    RegistryLockTimeoutError,
    RegistryReadOnlyError,
    RegistryUnavailableError,
)

_ERRORS: dict[int, tuple[type[RegistryError], str, str | None]] = {
    sqlite3.SQLITE_CORRUPT: (
        RegistryCorruptError,
        "is damaged",
        "move it away, or restore a backup; a new one is made at the next run",
    ),
    sqlite3.SQLITE_NOTADB: (
        RegistryCorruptError,
        "is not a registry",
        "move it away, or set PREFECTLITE_HOME to another folder",
    ),
    sqlite3.SQLITE_FULL: (
        RegistryFullError,
        "cannot grow: the disk is full",
        "free some space and run it again; what was on record is intact",
    ),
    sqlite3.SQLITE_BUSY: (
        RegistryLockTimeoutError,
        "is locked by another program",
        "close what else has it open, such as a sqlite3 shell",
    ),
    sqlite3.SQLITE_READONLY: (
        RegistryReadOnlyError,
        "cannot be written",
        "check who owns the file and its folder, and that the disk is not mounted read-only",
    ),
    sqlite3.SQLITE_IOERR: (
        RegistryUnavailableError,
        "cannot be used: disk I/O error",
        "is its disk whole, and within your quota? see dmesg, or set PREFECTLITE_HOME to another folder",
    ),
}
_UNAVAILABLE = (
    RegistryUnavailableError,
    "cannot be used",
    "check the folder's owner and permissions, or set PREFECTLITE_HOME to another folder",
)
_ERRNO = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EIO: sqlite3.SQLITE_IOERR,
}


def damaged(path: Path, error: Exception) -> RegistryError:
    """Return the error for a row of the file that makes no sense."""
    kind, what, hint = _ERRORS[sqlite3.SQLITE_CORRUPT]
    return kind(f"the registry {path} {what}: {error}", hint=hint)


def translated(path: Path, error: Exception) -> RegistryError:
    """Return the error of ours for one of SQLite or of the system."""
    if isinstance(error, OSError) and error.errno in _ERRNO:
        code = _ERRNO[error.errno]
    else:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE":
        code = sqlite3.SQLITE_FULL
    if str(error).startswith("Could not decode to UTF-8"):  # the sqlite3 module's, without code
        code = sqlite3.SQLITE_CORRUPT
    kind, what, hint = _ERRORS.get(code, _UNAVAILABLE)
    detail = "" if code in _ERRORS else f": {error}"
    return kind(f"the registry {path} {what}{detail}", hint=hint)
