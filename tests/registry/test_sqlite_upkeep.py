"""What can be wrong with a registry in a SQLite file, and how it is said."""

import os
import signal
import sqlite3
from contextlib import nullcontext
from pathlib import Path

import pytest

from prefectlite import upkeep_tables
from prefectlite.errors import (
    RegistryCorruptError,
    RegistryFullError,
    RegistryNewerError,
    RegistryReadOnlyError,
)
from prefectlite.registry import open_registry, open_upkeep
from prefectlite.states import Completed, Failed
from prefectlite.upkeep_records import Deleted


@pytest.fixture
def kind():
    return "sqlite"


@pytest.fixture
def path(store, sqlite_path):
    """The file of a registry with a run that has ended, which nobody has open."""
    run = store.add_flow_run()
    store.registry.change_state(store.add_task_run(run), Failed())
    store.registry.change_state(run, Completed())
    store.registry.close()
    return sqlite_path


def messages(path, *, is_quick=False):
    upkeep = open_upkeep(f"sqlite:///{path}")
    try:
        faults = upkeep.faults(is_quick=is_quick)
    finally:
        upkeep.close()
    assert all(fault.hint for fault in faults)
    return [fault.message for fault in faults]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "UPDATE flow_run SET state_type = 'DONE', ended_at = NULL",
            "in a state that there is not",
        ),
        ("UPDATE flow_run SET ended_at = NULL", "1 flow runs have ended and do not say when"),
        ("UPDATE task_run SET ended_at = NULL", "1 task runs have ended and do not say when"),
        ("UPDATE flow_run SET state_type = 'RUNNING'", "flow runs have ended and do not say when"),
        ("DELETE FROM flow_run_state", "1 flow runs lack a part of their history"),
        ("DELETE FROM task_run_state", "1 task runs lack a part of their history"),
        (
            "UPDATE flow_run_state SET type = 'FAILED'",
            "flow runs had ended before their last state",
        ),
        ("DELETE FROM flow_run", "1 rows of task_run belong to something that is not on record"),
    ],
)
def test_rows_that_contradict_each_other_are_found(path, sql, statement, told):
    assert messages(path) == []
    sql(path, "PRAGMA foreign_keys = OFF", statement)
    assert any(told in message for message in messages(path))
    assert messages(path, is_quick=True) == []


def test_a_fault_names_one_of_the_runs_that_have_it(path, sql, store):
    sql(path, "UPDATE flow_run SET ended_at = NULL")
    run = open_registry(store.url).list_flow_runs()[0]
    assert messages(path)[0].endswith(f"such as {run.id}")


def test_an_index_that_lacks_a_row_is_found_and_can_be_made_anew(path, sql):
    root = sql(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'flow_run_by_name'")[0][0]
    size = sql(path, "PRAGMA page_size")[0][0]
    with path.open("r+b") as file:  # the number of its cells stands at offset 3
        file.seek((root - 1) * size + 3)
        file.write(b"\0\0")
    upkeep = open_upkeep(f"sqlite:///{path}")
    faults = upkeep.faults(is_quick=False)
    upkeep.close()
    assert any("missing from index flow_run_by_name" in fault.message for fault in faults)
    sql(path, "REINDEX")
    assert messages(path) == []


def test_a_page_that_is_overwritten_is_damage_and_nothing_else_is_said(path, sql):
    root = sql(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'flow_run'")[0][0]
    size = sql(path, "PRAGMA page_size")[0][0]
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(os.urandom(size))
    for is_quick in (True, False):
        found = messages(path, is_quick=is_quick)
        assert found
        assert all(message.startswith("the file is damaged: ") for message in found)


def test_what_is_no_registry_is_an_error(path):
    path.write_bytes(os.urandom(8_192))
    with pytest.raises(RegistryCorruptError):
        messages(path)


def test_an_older_registry_is_looked_at_and_backed_up_as_it_is(path, sql, tmp_path):
    sql(path, "DROP TABLE pause", "PRAGMA user_version = 4")
    assert messages(path) == []
    upkeep = open_upkeep(f"sqlite:///{path}")
    assert upkeep.storage().schema_version == 4
    upkeep.back_up(tmp_path / "backup", told=lambda *_: None)
    upkeep.close()
    assert sql(path, "PRAGMA user_version") == sql(tmp_path / "backup", "PRAGMA user_version")
    assert sql(path, "PRAGMA user_version") == [(4,)]


def test_a_newer_registry_is_not_looked_at(path, sql):
    sql(path, "PRAGMA user_version = 1000")
    with pytest.raises(RegistryNewerError):
        messages(path)


def test_who_only_looks_can_delete_nothing_and_change_no_byte(path):
    before = path.read_bytes()
    upkeep = open_upkeep(f"sqlite:///{path}")
    upkeep.storage(), upkeep.contents(), upkeep.faults(is_quick=False)
    with pytest.raises(RegistryReadOnlyError):
        upkeep.delete_flow_runs(["x"], Deleted())
    with pytest.raises(RegistryReadOnlyError):
        upkeep.give_back_space()
    upkeep.close()
    assert path.read_bytes() == before


def test_a_backup_needs_no_log_beside_it_wherever_it_is_put(path, tmp_path):
    upkeep = open_upkeep(f"sqlite:///{path}")
    upkeep.back_up(tmp_path / "backup", told=lambda *_: None)
    upkeep.close()
    # The version of the format, 2 for a write-ahead log (sqlite.org/fileformat.html, 1.3.3).
    assert (tmp_path / "backup").read_bytes()[18:20] == b"\1\1"
    connection = sqlite3.connect(f"file:{tmp_path / 'backup'}?mode=ro", uri=True)
    assert connection.execute("SELECT count(*) FROM flow_run").fetchall() == [(1,)]
    connection.close()


def test_a_deletion_that_fails_says_of_no_run_that_it_is_gone(store, monkeypatch, sql, sqlite_path):
    run = store.add_flow_run()
    sql(
        sqlite_path,
        "CREATE TRIGGER never BEFORE DELETE ON flow_run BEGIN SELECT raise(FAIL, 'no'); END",
    )
    store.add_task_run(run)
    deleted = Deleted()
    with pytest.raises(Exception, match="no"):
        store.registry.upkeep.delete_flow_runs([run.id], deleted)
    assert (deleted.flow_run_ids, deleted.task_run_ids) == ([], [])
    assert len(store.registry.list_task_runs()) == 1


def test_the_log_does_not_grow_with_every_step_of_a_deletion(store, line, monkeypatch):
    monkeypatch.setattr("prefectlite.upkeep_tables._DELETE_SECONDS", 0.0)
    runs = [store.add_flow_run() for _ in range(30)]
    for run in runs:
        for _ in range(20):
            store.registry.add_log_line(line(run, "x" * 2_000))
    store.registry.flush_logs()
    upkeep = store.open_again().upkeep
    left = [run.id for run in runs]
    while left:
        left = left[upkeep.delete_flow_runs(left, Deleted()) :]
    assert 0 < upkeep.storage().log_bytes < 1_000_000


def ticks(pid):
    """The time that a process has computed, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[14 - 3])


def test_a_look_through_the_file_can_be_interrupted(path, start, until):
    process = start(
        """
        import sqlite3
        from prefectlite import sqlite_faults
        from prefectlite.registry import open_upkeep

        # A search that takes for ever, in place of one that takes long.
        sqlite_faults._CONTRADICTIONS["are slow"] = (
            "(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n)"
        )
        try:
            print("ready", flush=True)
            open_upkeep(sys.argv[1]).faults(is_quick=False)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
        f"sqlite:///{path}",
    )
    assert process.line() == "ready"
    busy = ticks(process.pid) + 20
    until(lambda: ticks(process.pid) >= busy)  # nothing but the search takes as much
    process.process.send_signal(signal.SIGINT)
    assert process.end() == "interrupted\n"


def test_to_give_space_back_waits_for_no_reader(path, start):
    process = start(
        """
        import sqlite3
        from prefectlite import database
        from prefectlite.registry import open_registry

        database._BUSY_MILLISECONDS = 3_600_000
        registry = open_registry(sys.argv[1])
        reader = sqlite3.connect(sys.argv[1].removeprefix("sqlite:///"), isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM flow_run").fetchall()
        registry.upkeep.give_back_space()
        print(registry.upkeep._database.read("PRAGMA busy_timeout"), flush=True)
        """,
        f"sqlite:///{path}",
    )
    assert process.line() == "[(3600000,)]"


def test_to_give_space_back_can_be_interrupted(store, line, monkeypatch):
    monkeypatch.setattr(upkeep_tables, "_STEPS_AT_ONCE", 10)
    run = store.add_flow_run()
    store.registry.add_log_line(line(run, "x"))
    store.registry.flush_logs()
    upkeep = store.registry.upkeep
    with pytest.raises(KeyboardInterrupt):
        upkeep.give_back_space(told=lambda: signal.raise_signal(signal.SIGINT))
    assert upkeep.faults(is_quick=False) == []
    assert store.add_flow_run() in store.registry.list_flow_runs()


def test_where_there_is_no_room_to_give_space_back_it_is_not_tried(store, monkeypatch):
    store.add_flow_run()
    upkeep = store.registry.upkeep
    needed = upkeep.storage().file_bytes - upkeep.storage().free_bytes
    usage = upkeep_tables.shutil.disk_usage("/")
    for free, is_refused in ((needed - 1, True), (needed, False)):
        monkeypatch.setattr(
            upkeep_tables.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free)
        )
        with pytest.raises(RegistryFullError, match="no room") if is_refused else nullcontext():
            upkeep.give_back_space()
