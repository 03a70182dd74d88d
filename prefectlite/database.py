"""One SQLite file that many processes and threads share without a server.

``registry/sqlite.py`` keeps its tables here; nothing else talks to SQLite. What keeps it right, each
for a reason that was measured or is documented:

- Every write holds the write gate and begins with ``BEGIN IMMEDIATE``: SQLite's own busy handler
  starves writers, and a transaction that reads before it writes can fail at once.
- Checkpoints happen only inside the gate, by count: SQLite 3.7.0 to 3.51.2 can lose a commit when
  one connection checkpoints while another writes (sqlite.org/wal.html).
- One connection a process, for all threads; and none is open across ``fork``. SQLite remembers in
  memory which locks its process has, and a child inherits the memory without the locks: a new
  connection of the child then believes in locks that it does not hold, and the parent, when it
  closes, removes the log into which the child still writes (sqlite.org/howtocorrupt.html, 2.6).
  So it is closed before, and afterwards the parent and the child each open one when they need it.
- A connection is closed by ``close`` alone, and neither by its destructor nor by the end of the
  process: one that would harm others is dropped.
- Once it exists, the file is opened by nothing but SQLite, for the same reason.
- No cursor outlives a call: an open one would stop checkpoints.
"""

from __future__ import annotations

import os
import sqlite3  # noqa: TID251 - this is where it is talked to
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from prefectlite.clock import monotonic
from prefectlite.errors import (
    RegistryError,
    RegistryReadOnlyError,
    RegistryUnavailableError,
)
from prefectlite.file_identities import FileIdentities
from prefectlite.filesystems import SAFE_TYPES, filesystem_type, sync_folders
from prefectlite.forks import PausedAtForks
from prefectlite.locks import WriteGate
from prefectlite.schemas import Schema
from prefectlite.settings import (
    PREFECTLITE_ALLOW_NETWORK_FILESYSTEM,
    PREFECTLITE_REGISTRY_LOCK_SECONDS,
)
from prefectlite.sqlite_errors import damaged, translated

T = TypeVar("T")
Row = tuple[Any, ...]

# By count and not by size, because a PASSIVE checkpoint does not shrink the log: by size it would
# run at every commit from the first time on. 300 commits are about 5 MB of log.
# More of them save little (the time goes into syncing those bytes) and keep others waiting longer.
_COMMITS_PER_CHECKPOINT = 300
# How soon it is noticed, at the latest, that the file is gone: a look costs as much as a tenth of a
# transaction. Before a durable one it is always taken.
_LOOK_SECONDS = 0.1
# What a process that ends leaves to the next one to checkpoint, at most.
_LARGE_LOG_BYTES = 4_000_000
# How long a fork waits for a write of another thread to end. A write takes far less, unless it waits
# for a process that is stopped.
_FORK_SECONDS = 5.0
# Only readers that recover a log, and other programs, can make SQLite wait: writers hold the gate.
_BUSY_MILLISECONDS = 10_000


class Database:
    """A file of tables, at the newest schema, safe to share between processes.

    Args:
        path: The file, absolute and free of symbolic links, because the gate lies beside it and
            two names for one file must not mean two gates. A folder that is missing is made with mode 0700, the file 0600.
        migrations: The folder of ``0001_*.sql``, ``0002_*.sql`` ...; each is one transaction.
        schema_version: The number of the last migration, so that none need be listed to open.
        read_only: Never write. A file that does not exist is then an empty one, in memory.
        migrates: Whether a reader has an older file brought to the newest schema.

    Raises:
        RegistryError: It cannot be opened; the subclass and the hint say why.
    """

    def __init__(
        self,
        path: Path,
        *,
        migrations: Path,
        schema_version: int,
        read_only: bool = False,
        migrates: bool = True,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.schema = Schema(path, migrations, schema_version)
        self._migrates = migrates
        self._log = path.with_name(path.name + "-wal")
        self._connection: sqlite3.Connection | None = None
        self._gate: WriteGate | None = None
        self._is_stand_in = False
        self._identities: FileIdentities | None = None
        # What a file is like that is read without locks; None where SQLite sees to changes.
        self._unlocked: tuple[int, ...] | None = None
        self._look_at = 0.0
        self._process = 0
        self._lock = threading.Lock()
        self._commits = self._opened = 0
        self._seen: tuple[int, int] | None = None
        _check_filesystem(path)
        _DATABASES.add(self)
        try:
            with self._lock:
                self._connected()
        except BaseException:  # nobody else could close what an interruption leaves open
            self.close()
            raise

    def read(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> list[Row]:
        """Return all rows of one SELECT."""
        return self.use(lambda connection: connection.execute(sql, parameters).fetchall())

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do what only reads and takes more than one SELECT; other threads wait meanwhile.

        Where the file cannot be locked and changes meanwhile, ``work`` is done again.
        """
        try:
            with self._lock:
                while True:
                    try:
                        result = work(self._connected())
                    except sqlite3.Error:
                        if self._is_current():
                            raise
                    else:
                        if self._is_current():
                            return result
        except (sqlite3.Error, OSError) as error:
            raise translated(self.path, error) from error

    def maintain(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do what cannot be in a transaction, such as VACUUM, while nobody else writes."""

        def execute(connection: sqlite3.Connection) -> None:
            gate = self._writable_gate()
            try:
                gate.enter()
                self._look(gate)
                work(connection)
            finally:
                gate.leave()

        self.use(execute)

    def version(self) -> tuple[int, int]:
        """Return what is different once another connection has committed something.

        Who only looks learns here that the file was replaced, or that a newer version has it.
        """
        try:
            with self._lock:
                connection = self._connected()
                self._check_identities()
                ((number,),) = connection.execute("PRAGMA data_version").fetchall()
                seen = self._opened, number  # each connection has a count of its own
                if seen != self._seen:
                    self.schema.version_of(connection)
                    self._seen = seen
                return seen
        except (sqlite3.Error, OSError) as error:
            raise translated(self.path, error) from error

    def write(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        durable: bool = False,
        undo: Callable[[], None] | None = None,
    ) -> T:
        """Do ``work`` in one transaction: all of it is committed, or nothing.

        Args:
            work: Executes statements on the connection; it must not commit or keep a cursor.
            durable: Return only when a power cut cannot undo it.
            undo: Takes back what ``work`` did to the memory of this process; called before the
                next write, and only where nothing was committed.
        """
        if self.read_only:
            raise RegistryReadOnlyError(f"the registry {self.path} was opened for reading only")
        try:
            with self._lock:
                connection = self._connected()
                if durable:
                    connection.execute("PRAGMA synchronous=FULL")
                try:
                    return self._transaction(connection, work, undo, is_due=durable)
                finally:
                    if durable:
                        connection.execute("PRAGMA synchronous=NORMAL")
        except (sqlite3.Error, OSError) as error:
            raise translated(self.path, error) from error

    def close(self) -> None:
        """Move the log into the file and let go of both. A later call opens the same file again."""
        with self._lock:
            if self._process != os.getpid():
                self._abandon()
            connection, gate = self._connection, self._gate
            self._connection = self._gate = None
            try:
                if connection is not None and self._may_be_closed():
                    self._close(connection, gate)
            except (sqlite3.Error, OSError) as error:
                raise translated(self.path, error) from error
            finally:
                if gate is not None:
                    gate.close()

    def pause(self) -> Callable[[], None] | None:
        """Close the connection and keep others from opening one, so that none is open across ``fork``.

        Returns:
            What lets the next of them open one. None where the pause was not to be had: another
            thread waits for the gate, or this one was interrupted in a write by the signal handler
            that forks.
        """
        lock = self._lock  # which a child of that handler, where it goes on here, has another of
        if not lock.acquire(timeout=_FORK_SECONDS):
            return None
        try:
            connection, gate = self._connection, self._gate
            if not self._is_stand_in:
                self._connection = self._gate = None
                if connection is not None and self._may_be_closed():
                    with suppress(sqlite3.Error):
                        connection.close()
                if gate is not None:
                    gate.close()
        except BaseException:  # of a signal handler
            lock.release()
            raise
        return lock.release

    def forget(self) -> None:
        """Begin anew in a forked child, without closing what the parent may have left open."""
        self._lock = threading.Lock()
        self._commits = 0
        self._abandon()

    def _abandon(self) -> None:
        if self._gate is not None:
            self._gate.forget()
        self._connection = self._gate = None

    def _transaction(
        self,
        connection: sqlite3.Connection,
        work: Callable[[sqlite3.Connection], T],
        undo: Callable[[], None] | None,
        *,
        is_due: bool,
    ) -> T:
        gate = self._writable_gate()
        try:
            gate.enter()
            if is_due or monotonic() >= self._look_at:
                self._look(gate)
            if connection.in_transaction:  # an interruption struck the rollback of the last one
                connection.execute("ROLLBACK")
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                # A signal's exception can land right after the commit: nothing to undo then.
                if undo and (connection.in_transaction or isinstance(error, sqlite3.Error)):
                    undo()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            self._commits += 1
            if self._commits % _COMMITS_PER_CHECKPOINT == 0:
                self._checkpoint(connection)
            return result
        finally:
            gate.leave()

    def _writable_gate(self) -> WriteGate:
        if self._gate is None:
            raise RegistryReadOnlyError(f"the registry {self.path} has no write gate")
        return self._gate

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        # It fails where the disk is full, say; but what was committed is safe in the log, and an
        # error here would tell the writer that it was not. The next one tries again.
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _close(self, connection: sqlite3.Connection, gate: WriteGate | None) -> None:
        # The last connection to close checkpoints and removes the log by itself, with the file
        # locked against every other: that needs no gate, so a stopped process that holds it does
        # not keep this one from its end.
        log = self._log
        is_large = self._commits and log.exists() and log.stat().st_size > _LARGE_LOG_BYTES
        # Beside a process that lives long and commits nothing, no other is ever the last, and those
        # that live shortly do not get to the count.
        if gate is not None and is_large and gate.try_enter():
            self._checkpoint(connection)
        connection.close()

    def _may_be_closed(self) -> bool:
        return self._identities is None or self._identities.may_be_closed()

    def _connected(self) -> sqlite3.Connection:
        """Return this process's connection, opening it where there is none."""
        if self._process != os.getpid():
            self._abandon()  # there is one only after a fork that Python did not see
            self._process = os.getpid()
        if (self._is_stand_in and self.path.exists()) or not self._is_current():
            outdated, self._connection = self._connection, None
            if outdated is not None:
                outdated.close()
        if self._connection is None:
            connection = self._open()
            _keep_from_destructor(connection)
            self._connection = connection
            self._opened += 1
        return self._connection

    def _open(self) -> sqlite3.Connection:
        self._unlocked = None
        try:
            if self._identities is not None:  # it was open before
                self._identities.check(with_log=False)
            self._is_stand_in = self.read_only and not self.path.exists()
            if self._is_stand_in:
                connection = sqlite3.connect(
                    ":memory:", isolation_level=None, check_same_thread=False
                )
                self.schema.migrate(connection, 0)
                return connection
            return self._open_reader() if self.read_only else self._open_writer()
        except (sqlite3.Error, OSError) as error:
            raise translated(self.path, error) from error

    def _open_writer(self) -> sqlite3.Connection:
        identities = self._identities
        # What was open before is not made anew, though it may have gone this very moment.
        is_new = identities is None and not self.path.exists()
        if is_new:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        gate = WriteGate(
            self.path.with_suffix(".lock"),
            timeout_seconds=PREFECTLITE_REGISTRY_LOCK_SECONDS.value(),
        )
        try:
            if is_new:
                self._create_file(gate)
            identities = identities or FileIdentities(self.path)
            connection = self._connect("rw")
            try:
                self._prepare(connection, gate)
                identities.note_opened()
            except BaseException:
                connection.close()
                raise
        except BaseException:
            gate.close()
            raise
        self._gate, self._identities = gate, identities
        return connection

    def _create_file(self, gate: WriteGate) -> None:
        try:
            gate.enter()
            if not self.path.exists():  # another process may have been first
                # Of a file that was deleted, whose readers may still have them open: SQLite would
                # take the index for that of the new one.
                for log in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + log).unlink(missing_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with suppress(FileExistsError):  # it was put back this moment, by other means
                    os.close(os.open(self.path, flags, 0o600))
        finally:
            gate.leave()

    def _look(self, gate: WriteGate) -> None:
        """See to it, in the gate, that the gate and the files are those that others find."""
        self._look_at = 0.0
        self._check_identities()
        gate.renew()
        self._look_at = monotonic() + _LOOK_SECONDS

    def _check_identities(self) -> None:
        """Refuse to go on in files that were deleted or replaced; SQLite would, without a word."""
        if self._identities is not None:
            self._identities.check()

    def _open_reader(self) -> sqlite3.Connection:
        if self.path.with_name(f"{self.path.name}-journal").exists():
            # Power was cut while the file was made: only who may write can take that back.
            with suppress(sqlite3.Error), closing(self._connect("rw")) as connection:
                self.schema.version_of(connection)
        identities = self._identities or FileIdentities(self.path)
        connection = self._connect("ro")
        try:
            version = self.schema.version_of(connection)
        except sqlite3.OperationalError:
            connection.close()
            # A reader of a write-ahead log needs to write its index. Where it may not, and there
            # is no log, the file alone is the whole truth, for as long as both stay as they are.
            found = self._files()
            if found[-1]:
                raise
            self._unlocked = found
            connection = self._connect("ro&immutable=1")
            version = self.schema.version_of(connection)
        if version < self.schema.version and self._migrates:
            connection.close()
            Database(
                self.path, migrations=self.schema.migrations, schema_version=self.schema.version
            ).close()
            connection = self._connect("ro")
            self.schema.version_of(connection)  # opens the log
        if self._unlocked is None:
            identities.note_opened()
            self._identities = identities
        return connection

    def _is_current(self) -> bool:
        """Return whether what is read is still all that there is."""
        return self._unlocked is None or self._unlocked == self._files()

    def _files(self) -> tuple[int, ...]:
        """Return what the file is like, and last the size of its log."""
        found: list[int] = []
        with suppress(FileNotFoundError):
            status = self.path.stat()
            found = [status.st_mtime_ns, status.st_size, status.st_ino]
        try:
            return *found, self._log.stat().st_size
        except FileNotFoundError:
            return *found, 0

    def _connect(self, mode: str) -> sqlite3.Connection:
        # "?", "#" and "%" would end or change the path of a URI.
        path = str(self.path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(
            f"file:{path}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _prepare(self, connection: sqlite3.Connection, gate: WriteGate) -> None:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA synchronous=NORMAL")
        ((mode,),) = connection.execute("PRAGMA journal_mode").fetchall()
        if self.schema.version_of(connection) == self.schema.version and mode == "wal":
            return
        try:
            gate.enter()
            # Looked at again inside the gate: another process may have just done it.
            ((mode,),) = connection.execute("PRAGMA journal_mode").fetchall()
            if mode != "wal":
                sync_folders(self.path)  # SQLite sees to what is in them, and not to their names
                connection.execute("PRAGMA journal_mode=WAL").fetchall()
            self.schema.migrate(connection, self.schema.version_of(connection))
        finally:
            gate.leave()

    def damaged(self, error: Exception) -> RegistryError:
        """Return the error for a row that makes no sense."""
        return damaged(self.path, error)


_DATABASES = PausedAtForks()


def _keep_from_destructor(connection: sqlite3.Connection) -> None:
    # SQLite holds this function until it closes the connection, and the function the connection: a
    # cycle of which Python's garbage collector sees but a half. Done when it is opened, because a
    # forked child, where another thread may have had any lock, can neither call SQLite nor import.
    connection.create_function("prefectlite_keeps", 0, lambda: connection.total_changes)


def _check_filesystem(path: Path) -> None:
    kind = filesystem_type(path.parent)
    if kind is None or kind in SAFE_TYPES or PREFECTLITE_ALLOW_NETWORK_FILESYSTEM.value():
        return
    raise RegistryUnavailableError(
        f"the registry {path} would be on a filesystem of type {kind}, which is not known to keep"
        " its locks",
        hint="set PREFECTLITE_HOME to a local disk, or, at your own risk,"
        " PREFECTLITE_ALLOW_NETWORK_FILESYSTEM=1",
    )
