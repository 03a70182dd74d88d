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

_Identity = tuple[int, int]


class FileIdentities:
    """What the files of a database were when it was opened: its own, its log and the log's index.

    Made before it is opened, or what has its place by then would pass for it. A log that was not there
    is not looked for. While a connection is open nobody removes its log or makes another: SQLite does
    so only where it is alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._own, self._is_filled = _look(self._path)
        self._logs: dict[str, _Identity] = {}

    def note_opened(self) -> None:
        """Remember the log and index that this connection opened; the file was looked at before."""
        self._is_filled = _look(self._path)[1]
        self._logs = {
            log: found
            for log in (f"{self._path}-wal", f"{self._path}-shm")
            if (found := _look(log)[0]) is not None
        }

    def check(self, *, with_log: bool = True) -> None:
        """Refuse files that are not those that were opened.

        Args:
            with_log: Whether a connection is open: only then is the log to be the same.

        Raises:
            RegistryUnavailableError: The file is gone; it may be put back.
            RegistryReplacedError: It is another one or empty, or its log is another or gone.
        """
        found, is_filled = _look(self._path)
        if found is None:
            told = f"the registry {self._path} was deleted while it was in use"
            raise RegistryUnavailableError(told, hint=_HINT)
        if found != self._own or self._is_filled > is_filled:
            what = "emptied" if found == self._own else "replaced"
            told = f"the registry {self._path} was {what} while it was in use"
            raise RegistryReplacedError(told, hint=_HINT)
        self._is_filled = is_filled  # of one that was just being made
        for log, identity in self._logs.items() if with_log else ():
            if _look(log)[0] != identity:
                raise RegistryReplacedError(
                    f"a part of the registry, {log}, was deleted while it was in use",
                    hint="end what uses the registry, then see: prefectlite registry check",
                )

    def may_be_closed(self) -> bool:
        """Return whether to close a connection harms nobody.

        As the last one, it moves its log into the file and removes what has the log's name. Where that
        cannot be known, the answer is no.
        """
        try:
            found, is_filled = _look(self._path)
            if found != self._own or self._is_filled > is_filled:
                return False
            return all(_look(log)[0] in (own, None) for log, own in self._logs.items())
        except OSError:
            return False


def _look(path: str) -> tuple[_Identity | None, bool]:
    """Return what tells a file from every other, None for no file, and whether a database is in it."""
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib takes twice the time, at every durable write
    except FileNotFoundError:
        return None, False
    return (status.st_dev, status.st_ino), status.st_size >= _LEAST_BYTES
