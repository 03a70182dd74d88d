"""Are the files of an open SQLite database still those that stand under its name?

``database`` asks before it writes, and when it looks for changes. SQLite would go on in files that were
deleted or replaced without a word: what is written is then lost, and two processes of which each has
another ``-shm`` file, where the locks are, write over each other (sqlite.org/howtocorrupt.html, 4.6).
Nothing here opens a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from prefectlite.errors import RegistryReplacedError, RegistryUnavailableError

# SQLite's smallest page: no database is smaller, apart from one that is just being made.
_LEAST_BYTES = 512
_HINT = "put it back, or run it again with a new one"

_Identity = tuple[int, int, bool]


class FileIdentities:
    """What the files of a database were when it was opened: its own, its log and the log's index.

    A log that was not there is not looked for. While a connection is open nobody removes its log or
    makes another: SQLite does so only where it is alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._own = _identity(self._path)
        self._logs = {
            log: found
            for log in (f"{path}-wal", f"{path}-shm")
            if (found := _identity(log)) is not None
        }

    def check(self, *, with_log: bool = True) -> None:
        """Refuse files that are not those that were opened.

        Args:
            with_log: Whether a connection is open: only then is the log to be the same.

        Raises:
            RegistryUnavailableError: The file is gone; it may be put back.
            RegistryReplacedError: It is another one or empty, or its log is another or gone.
        """
        found = _identity(self._path)
        if found is None:
            told = f"the registry {self._path} was deleted while it was in use"
            raise RegistryUnavailableError(told, hint=_HINT)
        if found != self._own:
            is_empty = self._own is not None and found[:2] == self._own[:2]
            what = "emptied" if is_empty else "replaced"
            told = f"the registry {self._path} was {what} while it was in use"
            raise RegistryReplacedError(told, hint=_HINT)
        for log, identity in self._logs.items() if with_log else ():
            if _identity(log) != identity:
                raise RegistryReplacedError(
                    f"a part of the registry, {log}, was deleted while it was in use",
                    hint="end what uses the registry, then see: prefectlite registry check",
                )

    def may_be_closed(self) -> bool:
        """Return whether to close a connection harms nobody.

        As the last one, it moves its log into the file and removes what has the log's name.
        """
        if _identity(self._path) != self._own:
            return False
        return all(_identity(log) in (own, None) for log, own in self._logs.items())


def _identity(path: str) -> _Identity | None:
    """Return what tells one file from another, and an empty database from itself; None for none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib takes twice the time, at every durable write
    except FileNotFoundError:
        return None
    is_emptied = status.st_size < _LEAST_BYTES and not path.endswith(("-wal", "-shm"))
    return status.st_dev, status.st_ino, is_emptied
