"""One SQLite file that many processes and threads share without a server.

``registry/sqlite.py`` keeps its tables here; nothing else talks to SQLite. What keeps it right, each
for a reason that was measured or is documented:

- Every write holds the write gate and begins with ``BEGIN IMMEDIATE``: SQLite's own busy handler
  starves writers, and a transaction that reads before it writes can fail at once.
- Checkpoints happen only inside the gate, by count: SQLite 3.7.0 to 3.51.2 can lose a commit when
  one connection checkpoints while another writes (sqlite.org/wal.html).
- One connection a process, for all threads. ``fork`` drops it in the child without closing it:
  closing would release the parent's POSIX locks and could write in its name.
- Once it exists, the file is opened by nothing but SQLite, for the same reason.
- No cursor outlives a call: an open one would stop checkpoints.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from prefectlite.errors import (
    RegistryCorruptError,
    RegistryError,
    RegistryFullError,
    RegistryNewerError,
    RegistryReadOnlyError,
    RegistryUnavailableError,
)
from prefectlite.filesystems import SAFE_TYPES, filesystem_type
from prefectlite.locks import WriteGate
from prefectlite.settings import (
    PREFECTLITE_ALLOW_NETWORK_FILESYSTEM,
    PREFECTLITE_REGISTRY_LOCK_SECONDS,
)

T = TypeVar("T")
Row = tuple[Any, ...]

#: Marks the file as ours in its header ("pflt"); see ``PRAGMA application_id``.
APPLICATION_ID = 0x70666C74
# By count and not by size, because a PASSIVE checkpoint does not shrink the log: by size it would
# run at every commit from the first time on. 300 commits are about 5 MB of log.
_COMMITS_PER_CHECKPOINT = 300
# Only readers that recover a log, and other programs, can make SQLite wait: writers hold the gate.
_BUSY_MILLISECONDS = 10_000

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
    sqlite3.SQLITE_READONLY: (
        RegistryReadOnlyError,
        "cannot be written",
        "check who owns the file and its folder, and that the disk is not mounted read-only",
    ),
}
_UNAVAILABLE = (
    RegistryUnavailableError,
    "cannot be used",
    "check the folder's owner and permissions, or set PREFECTLITE_HOME to another folder",
)


class Database:
    """A file of tables, at the newest schema, safe to share between processes.

    Args:
        path: The file, absolute. A folder that is missing is made with mode 0700, the file 0600.
        migrations: The folder of ``0001_*.sql``, ``0002_*.sql`` ...; each is one transaction.
        schema_version: The number of the last migration, so that none need be listed to open.
        read_only: Never write. A file that does not exist is then an empty one, in memory.

    Raises:
        RegistryError: It cannot be opened; the subclass and the hint say why.
    """

    def __init__(
        self, path: Path, *, migrations: Path, schema_version: int, read_only: bool = False
    ) -> None:
        self.path = path
        self.read_only = read_only
        self._migrations = migrations
        self._schema_version = schema_version
        self._connection: sqlite3.Connection | None = None
        self._gate: WriteGate | None = None
        self._process = 0
        self._lock = threading.Lock()
        self._commits = 0
        _check_filesystem(path)
        with self._lock:
            self._connected()
        _DATABASES.add(self)

    def read(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> list[Row]:
        """Return all rows of one SELECT."""
        try:
            with self._lock:
                return self._connected().execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Do ``work`` in one transaction: all of it is committed, or nothing.

        Args:
            work: Executes statements on the connection; it must not commit or keep a cursor.
            durable: Return only when a power cut cannot undo it.
        """
        if self.read_only:
            raise RegistryReadOnlyError(f"the registry {self.path} was opened for reading only")
        try:
            with self._lock:
                connection = self._connected()
                if durable:
                    connection.execute("PRAGMA synchronous=FULL")
                try:
                    return self._transaction(connection, work)
                finally:
                    if durable:
                        connection.execute("PRAGMA synchronous=NORMAL")
        except (sqlite3.Error, OSError) as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """Move the log into the file and let go of both. A later call opens them again."""
        with self._lock:
            connection, gate = self._connection, self._gate
            self._connection = self._gate = None
            if connection is None or self._process != os.getpid():
                return
            try:
                if gate is None:
                    connection.close()
                else:
                    self._close_writer(connection, gate)
            except sqlite3.Error as error:
                raise self._translated(error) from error

    def forget(self) -> None:
        """Drop the connection without closing it; for a child process, right after ``fork``."""
        if self._connection is not None:
            _ABANDONED.append(self._connection)
        if self._gate is not None:
            self._gate.close()
        self._connection = self._gate = None
        self._lock = threading.Lock()
        self._commits = 0

    def _transaction(
        self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]
    ) -> T:
        gate = self._gate
        if gate is None:
            raise RegistryReadOnlyError(f"the registry {self.path} has no write gate")
        try:
            gate.enter()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            self._commits += 1
            if self._commits % _COMMITS_PER_CHECKPOINT == 0:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            return result
        finally:
            gate.leave()

    def _close_writer(self, connection: sqlite3.Connection, gate: WriteGate) -> None:
        # SQLite checkpoints by itself when the last connection closes: inside the gate too.
        try:
            gate.enter()
            connection.close()
        finally:
            gate.leave()
            gate.close()

    def _connected(self) -> sqlite3.Connection:
        """Return this process's connection, opening it where there is none."""
        if self._process != os.getpid():
            if self._connection is not None:  # forked by something else than os.fork
                _ABANDONED.append(self._connection)
            self._connection = self._gate = None
            self._process = os.getpid()
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        try:
            if not self.read_only:
                self._create_files()
                self._gate = WriteGate(
                    self.path.with_suffix(".lock"),
                    timeout_seconds=PREFECTLITE_REGISTRY_LOCK_SECONDS.value(),
                )
                connection = self._connect("rw")
                self._prepare(connection)
            elif self.path.exists():
                connection = self._open_reader()
            else:
                connection = sqlite3.connect(":memory:", **_CONNECT)
                self._migrate(connection, 0)
        except (sqlite3.Error, OSError) as error:
            self._connection = self._gate = None
            raise self._translated(error) from error
        return connection

    def _open_reader(self) -> sqlite3.Connection:
        connection = self._connect("ro")
        try:
            version = self._version(connection)
        except sqlite3.OperationalError:
            # A reader of a write-ahead log needs to write its index. Where it may not, and there
            # is no log, the file alone is the whole truth.
            log = self.path.with_name(self.path.name + "-wal")
            if log.exists() and log.stat().st_size:
                raise
            connection = self._connect("ro&immutable=1")
            version = self._version(connection)
        if version < self._schema_version:
            connection.close()
            Database(
                self.path, migrations=self._migrations, schema_version=self._schema_version
            ).close()
            connection = self._connect("ro")
        return connection

    def _create_files(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            os.close(os.open(self.path, flags, 0o600))
        except FileExistsError:
            return

    def _connect(self, mode: str) -> sqlite3.Connection:
        # "?", "#" and "%" would end or change the path of a URI.
        path = str(self.path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(f"file:{path}?mode={mode}", uri=True, **_CONNECT)
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return the schema version of the file, which must be a registry or empty."""
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ((application,),) = connection.execute("PRAGMA application_id").fetchall()
        if application != APPLICATION_ID:
            ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            if application or tables:
                raise RegistryCorruptError(
                    f"{self.path} is a database of another program",
                    hint="set PREFECTLITE_HOME to another folder",
                )
        if version > self._schema_version:
            raise RegistryNewerError(
                f"the registry {self.path} has schema {version}; this version of prefectlite"
                f" knows {self._schema_version}",
                hint="upgrade it: pip install --upgrade prefectlite",
            )
        return int(version)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA synchronous=NORMAL")
        ((mode,),) = connection.execute("PRAGMA journal_mode").fetchall()
        if self._version(connection) == self._schema_version and mode == "wal":
            return
        gate = self._gate
        if gate is None:
            return
        try:
            gate.enter()
            # Looked at again inside the gate: another process may have just done it.
            ((mode,),) = connection.execute("PRAGMA journal_mode").fetchall()
            if mode != "wal":
                connection.execute("PRAGMA journal_mode=WAL").fetchall()
            self._migrate(connection, self._version(connection))
        finally:
            gate.leave()

    def _migrate(self, connection: sqlite3.Connection, version: int) -> None:
        if version == self._schema_version:
            return
        for script in sorted(self._migrations.glob("*.sql")):
            number = int(script.name[:4])
            if number > version:
                connection.executescript(
                    f"BEGIN IMMEDIATE;\n{script.read_text(encoding='utf-8')}\n"
                    f"PRAGMA application_id={APPLICATION_ID};\n"
                    f"PRAGMA user_version={number};\nCOMMIT;"
                )

    def _translated(self, error: Exception) -> RegistryError:
        if isinstance(error, RegistryError):
            return error
        if isinstance(error, OSError) and error.errno in _ERRNO:
            code = _ERRNO[error.errno]
        else:
            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        kind, what, hint = _ERRORS.get(code, _UNAVAILABLE)
        detail = "" if code in _ERRORS else f": {error}"
        return kind(f"the registry {self.path} {what}{detail}", hint=hint)


_ERRNO = {28: sqlite3.SQLITE_FULL, 30: sqlite3.SQLITE_READONLY}  # ENOSPC, EROFS
_CONNECT = {"isolation_level": None, "check_same_thread": False, "cached_statements": 64}
_DATABASES: WeakSet[Database] = WeakSet()
# Connections of a parent process: kept for ever, because even their destructor would close them.
_ABANDONED: list[sqlite3.Connection] = []


def _forget_after_fork() -> None:
    for database in list(_DATABASES):
        database.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _check_filesystem(path: Path) -> None:
    kind = filesystem_type(path.parent.resolve())
    if kind is None or kind in SAFE_TYPES or PREFECTLITE_ALLOW_NETWORK_FILESYSTEM.value():
        return
    raise RegistryUnavailableError(
        f"the registry {path} would be on a filesystem of type {kind}, which is not known to keep"
        " its locks",
        hint="set PREFECTLITE_HOME to a local disk, or, at your own risk,"
        " PREFECTLITE_ALLOW_NETWORK_FILESYSTEM=1",
    )
