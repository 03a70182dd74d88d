"""Transactions, undoing, checkpoints and interruptions of the file of tables."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from prefectlite import database, file_identities
from prefectlite.conditions import Where
from prefectlite.database import Database
from prefectlite.errors import RegistryCorruptError, RegistryReadOnlyError, RegistryUnavailableError
from prefectlite.file_identities import FileIdentities
from prefectlite.schemas import APPLICATION_ID

DEADLINE_SECONDS = 60


@pytest.fixture
def migrations(tmp_path):
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_first.sql").write_text("CREATE TABLE note (text TEXT NOT NULL) STRICT;")
    return folder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "folder" / "notes.db"


@pytest.fixture
def notes(path, migrations):
    notes = Database(path, migrations=migrations, schema_version=1)
    yield notes
    notes.close()


def add(text):
    return lambda connection: connection.execute("INSERT INTO note VALUES (?)", (text,)).rowcount


def texts(notes):
    return [text for (text,) in notes.read("SELECT text FROM note ORDER BY rowid")]


class Fault:
    """A connection that raises an error after, or instead of, one statement."""

    def __init__(self, notes, statement, error, *, instead=False):
        self.connection = notes._connection
        self.statement, self.error, self.instead = statement, error, instead
        notes._connection = self

    def execute(self, sql, *parameters):
        is_due = self.error is not None and sql.startswith(self.statement)
        cursor = None if is_due and self.instead else self.connection.execute(sql, *parameters)
        if is_due:
            error, self.error = self.error, None
            raise error
        return cursor

    def __getattr__(self, name):
        return getattr(self.connection, name)


def test_a_write_returns_what_its_work_returns_and_is_there(notes):
    assert notes.write(add("one")) == 1
    assert notes.write(add("two"), durable=True) == 1
    assert texts(notes) == ["one", "two"]


def test_work_that_raises_changes_nothing(notes):
    def work(connection):
        add("one")(connection)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        notes.write(work)
    assert texts(notes) == []
    notes.write(add("two"))
    assert texts(notes) == ["two"]


def test_a_durable_write_is_synchronous_and_the_next_one_is_not(notes):
    def synchronous(connection):
        return connection.execute("PRAGMA synchronous").fetchall()[0][0]

    assert notes.write(synchronous, durable=True) == 2  # FULL
    assert notes.write(synchronous) == 1  # NORMAL


def test_what_failed_is_undone_before_another_thread_writes(notes):
    events = []

    def work(connection):
        connection.execute("INSERT INTO note VALUES (NULL)")

    def undo():
        assert notes._lock.locked()
        events.append("undone")

    with pytest.raises(RegistryUnavailableError):
        notes.write(work, undo=undo)
    assert events == ["undone"]


def test_an_interruption_right_after_the_commit_undoes_nothing(notes):
    undone = []
    Fault(notes, "COMMIT", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        notes.write(add("one"), undo=lambda: undone.append(1))
    assert undone == []
    assert texts(notes) == ["one"]
    notes.write(add("two"))
    assert texts(notes) == ["one", "two"]


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT"])
def test_an_interruption_before_the_commit_undoes_all_and_the_next_write_works(notes, statement):
    undone = []
    Fault(notes, statement, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        notes.write(add("one"), undo=lambda: undone.append(1))
    assert undone == [1]
    notes.write(add("two"))
    assert texts(notes) == ["two"]


def test_an_interruption_while_a_file_is_opened_leaves_nothing_open(path, migrations, monkeypatch):
    def interrupted(database):
        real(database)
        raise KeyboardInterrupt

    real = Database._connected
    monkeypatch.setattr(Database, "_connected", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Database(path, migrations=migrations, schema_version=1)
    is_open = [path.parent in link.resolve().parents for link in Path("/proc/self/fd").iterdir()]
    assert not any(is_open)


def test_a_transaction_that_an_interruption_left_open_does_not_stop_the_next_write(notes):
    notes._connection.execute("BEGIN IMMEDIATE")
    notes._connection.execute("INSERT INTO note VALUES ('left over')")
    notes.write(add("one"))
    assert texts(notes) == ["one"]


def test_a_checkpoint_that_fails_does_not_make_a_commit_look_failed(notes, monkeypatch):
    monkeypatch.setattr(database, "_COMMITS_PER_CHECKPOINT", 1)
    fault = Fault(notes, "PRAGMA wal_checkpoint", sqlite3.OperationalError("disk full"))
    notes.write(add("one"))
    assert fault.error is None
    assert texts(notes) == ["one"]


def test_the_gate_is_free_after_every_kind_of_write(notes, path, migrations, monkeypatch):
    monkeypatch.setenv("PREFECTLITE_REGISTRY_LOCK_SECONDS", "1")
    other = Database(path, migrations=migrations, schema_version=1)
    for error in (KeyboardInterrupt(), sqlite3.OperationalError("x"), ValueError("x")):
        for statement in ("BEGIN", "INSERT", "COMMIT"):
            Fault(notes, statement, error)
            with pytest.raises((KeyboardInterrupt, RegistryUnavailableError, ValueError)):
                notes.write(add("one"))
            other.write(add("other"))
    other.close()
    assert texts(notes).count("other") == 9


def test_opening_for_reading_only_never_writes(notes, path, migrations):
    notes.write(add("one"))
    reader = Database(path, migrations=migrations, schema_version=1, read_only=True)
    assert texts(reader) == ["one"]
    with pytest.raises(RegistryReadOnlyError):
        reader.write(add("two"))
    with pytest.raises(RegistryReadOnlyError):  # nor by SQL
        reader.read("DELETE FROM note RETURNING text")
    reader.close()
    assert texts(notes) == ["one"]


@pytest.mark.parametrize("migrates", [True, False])
def test_a_reader_opens_what_a_power_cut_left_of_a_file_that_was_being_made(
    path, migrations, migrates
):
    path.parent.mkdir(parents=True)
    journal = path.with_name(f"{path.name}-journal")
    # SQLite writes to an empty file once the journal, by which it can be undone, is durable.
    script = """if True:
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.executescript("PRAGMA cache_size=1; BEGIN; CREATE TABLE other (text)")
        connection.executemany("INSERT INTO other VALUES (?)", [("-" * 9000,)] * 20)
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=DEADLINE_SECONDS)
    assert journal.stat().st_size > 0
    path.write_bytes(b"torn" + path.read_bytes()[4:])
    reader = Database(path, migrations=migrations, schema_version=1, read_only=True, migrates=migrates)  # fmt: skip
    try:
        ((tables,),) = reader.read("SELECT count(*) FROM sqlite_schema")
    finally:
        reader.close()
    assert tables == migrates
    assert not journal.exists()


def test_the_names_of_a_new_file_and_its_folders_are_durable_before_what_is_in_it(
    path, migrations, monkeypatch
):
    synced, fsync = [], os.fsync

    def noted(descriptor):
        fsync(descriptor)
        synced.append((os.fstat(descriptor).st_ino, path.stat().st_size))

    monkeypatch.setattr(os, "fsync", noted)
    Database(path, migrations=migrations, schema_version=1).close()
    assert synced[:3] == [(folder.stat().st_ino, 0) for folder in [*path.parents][:3]]


def test_a_file_whose_names_cannot_be_synced_is_refused_and_made_when_they_can(
    path, migrations, monkeypatch
):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(RegistryUnavailableError, match="I/O error"):
            Database(path, migrations=migrations, schema_version=1)
    assert path.stat().st_size == 0
    with closing(Database(path, migrations=migrations, schema_version=1)) as notes:
        assert notes.write(add("one")) == 1


def test_an_older_schema_is_migrated_step_by_step_even_by_a_reader(notes, path, migrations):
    notes.write(add("one"))
    notes.close()
    (migrations / "0002_more.sql").write_text("ALTER TABLE note ADD COLUMN at INTEGER;")
    (migrations / "0003_more.sql").write_text("UPDATE note SET at = 7;")
    newer = Database(path, migrations=migrations, schema_version=3, read_only=True)
    assert newer.read("SELECT text, at FROM note") == [("one", 7)]
    assert newer.read("PRAGMA user_version") == [(3,)]
    newer.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(notes, path, migrations):
    notes.write(add("one"))
    notes.close()
    (migrations / "0002_bad.sql").write_text("DELETE FROM note; CREATE TABLE note (again TEXT);")
    with pytest.raises(RegistryUnavailableError):
        Database(path, migrations=migrations, schema_version=2)
    assert texts(notes) == ["one"]
    assert notes.read("PRAGMA user_version") == [(1,)]


def test_a_file_whose_journal_is_of_another_kind_is_set_right_once(path, migrations):
    path.parent.mkdir(parents=True)
    made = sqlite3.connect(path)
    made.executescript((migrations / "0001_first.sql").read_text())
    made.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;")
    made.close()
    notes = Database(path, migrations=migrations, schema_version=1)
    assert notes.read("PRAGMA journal_mode") == [("wal",)]
    notes.close()


def test_many_threads_share_one_connection(notes):
    def write(name):
        for number in range(50):
            notes.write(add(f"{name}-{number}"))
            notes.read("SELECT count(*) FROM note")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(set(texts(notes))) == 200


def test_a_process_that_ends_with_a_large_log_moves_it_into_the_file(notes, path, migrations):
    idle = Database(path, migrations=migrations, schema_version=1)
    for _ in range(60):
        notes.write(add("x" * 100_000))
    log = Path(f"{path}-wal")
    assert path.stat().st_size < log.stat().st_size
    notes.close()
    assert log.exists()  # the idle one has it open
    assert path.stat().st_size > 6_000_000
    idle.close()


@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_a_file_that_is_gone_is_not_written_to_as_if_it_were_there(notes, path, fate):
    notes.write(add("one"))
    path.rename(path.with_name("away.db"))
    if fate == "replaced":
        path.touch()
    for _ in range(2):
        with pytest.raises(RegistryUnavailableError, match=fate):
            notes.write(add("two"), durable=True)
    path.with_name("away.db").rename(path)
    notes.write(add("three"), durable=True)
    assert texts(notes) == ["one", "three"]


def test_a_write_that_is_not_durable_finds_out_within_a_moment_that_the_file_is_gone(notes, path):
    path.unlink()
    deadline = time.monotonic() + DEADLINE_SECONDS

    def write_on():
        while time.monotonic() < deadline:
            notes.write(add("lost"))

    with pytest.raises(RegistryUnavailableError, match="deleted"):
        write_on()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_goes_while_it_is_opened_again_is_not_made_anew(
    notes, path, monkeypatch, is_replaced
):
    notes.write(add("one"))
    resume = notes.pause()  # closes it, as a fork does
    resume()
    check = FileIdentities.check

    def check_and_lose(self, *, with_log=True):
        check(self, with_log=with_log)
        monkeypatch.undo()
        away = path.rename(path.with_name("away.db"))
        if is_replaced:
            shutil.copy(away, path)

    monkeypatch.setattr(FileIdentities, "check", check_and_lose)
    with pytest.raises(RegistryUnavailableError):
        notes.write(add("two"), durable=True)
    assert path.exists() == is_replaced


def test_a_file_that_was_opened_empty_may_grow_and_is_emptied_only_after_that(path, migrations):
    path.parent.mkdir(parents=True)
    path.touch()
    options = {"migrations": migrations, "schema_version": 1}
    reader = Database(path, **options, read_only=True, migrates=False)
    reader.version()
    writer = Database(path, **options)
    writer.write(add("one"))
    for _ in range(2):
        reader.version()
    assert texts(reader) == ["one"]
    os.truncate(path, 0)
    with pytest.raises(RegistryUnavailableError, match="emptied"):
        reader.version()
    with pytest.raises(RegistryUnavailableError, match="emptied"):
        writer.write(add("two"), durable=True)


def test_a_file_that_comes_the_moment_it_is_to_be_made_is_the_one_that_is_opened(
    path, migrations, monkeypatch
):
    opened = os.open

    def first(name, flags, *mode):
        if name == path:
            monkeypatch.undo()
            path.touch()
        return opened(name, flags, *mode)

    monkeypatch.setattr(os, "open", first)
    with closing(Database(path, migrations=migrations, schema_version=1)) as notes:
        assert notes.write(add("one")) == 1


def test_who_cannot_look_at_its_files_does_not_close_its_connection(notes, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def pause_and_resume():
        resume = notes.pause()
        resume()

    for let_go in (notes.close, pause_and_resume):
        notes.write(add("one"))
        connection = notes._connection
        with monkeypatch.context() as patch:
            patch.setattr(file_identities, "_look", fail)
            let_go()
        assert connection.execute("SELECT count(*) FROM note").fetchall()[0][0] > 0
        connection.close()


def test_damage_is_named_with_the_file_and_what_to_do(notes, path):
    error = notes.damaged(ValueError("no number"))
    assert isinstance(error, RegistryCorruptError)
    assert str(path) in str(error)
    assert "backup" in error.hint


def test_a_condition_binds_its_values_and_the_limit_comes_last():
    where = Where()
    assert str(where) == ""
    assert where.values(None) == [-1]
    where.add("a = ?", 1)
    where.add_any("b", ["x", "caf\udce9"])
    where.add_any("c", [])
    assert str(where) == "WHERE a = ? AND b IN (?, ?)"
    assert where.values(5) == [1, "x", "caf\\udce9", 5]
