"""What is only true of the registry in one SQLite file: the file, and reading it."""

import json
import os
import re
import shutil
import sqlite3
import stat
import tempfile
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from prefectlite.clock import now
from prefectlite.errors import (
    NotFoundError,
    RegistryUnavailableError,
    SettingError,
)
from prefectlite.registry import open_registry
from prefectlite.registry.sqlite import MIGRATIONS, SCHEMA_VERSION
from prefectlite.run_filters import FlowRunFilter
from prefectlite.schemas import APPLICATION_ID
from prefectlite.states import Completed, Scheduled

as_root = pytest.mark.skipif(
    os.getuid() != 0, reason="NOT TESTED: only root can become another user or mount a filesystem"
)


@pytest.fixture
def kind():
    return "sqlite"


@pytest.fixture
def path(sqlite_path):
    return sqlite_path


# The file


def test_the_file_is_the_owners_alone_in_a_folder_that_is_too(store, path):
    store.add_flow_run()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    names = ("registry.db", "registry.db-shm", "registry.db-wal", "registry.lock")
    assert modes == dict.fromkeys(names, 0o600)


def test_the_file_says_what_it_is_and_keeps_a_write_ahead_log(store, path, sql):
    assert sql(path, "PRAGMA application_id") == [(int.from_bytes(b"pflt"),)]
    assert sql(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_registry_of_an_earlier_version_keeps_its_runs(tmp_path, version):
    path = tmp_path / "registry.db"
    connection = sqlite3.connect(path)
    for script in sorted(MIGRATIONS.glob("*.sql"))[:version]:
        connection.executescript(script.read_text())
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={version}")
    connection.execute(
        "INSERT INTO flow_run (id, name, flow_name, state_type, state_name, state_at,"
        " state_version, state_actor, parameters, tags, run_count, created_at)"
        " VALUES ('id', 'kept', 'f', 'RUNNING', 'Running', 1, 1, 'me', '{}', '[]', 1, 1)"
    )
    connection.commit()
    connection.close()
    for read_only in (True, False):  # the first migrates it by another connection
        registry = open_registry(f"sqlite:///{path}", read_only=read_only)
        (run,) = registry.list_flow_runs()
        assert (run.name, run.process) == ("kept", None)
        registry.close()


def test_the_schema_version_is_the_number_of_the_last_migration():
    numbers = sorted(int(file.name[:4]) for file in MIGRATIONS.glob("*.sql"))
    assert numbers == list(range(1, SCHEMA_VERSION + 1))


def test_every_table_is_strict(store, path, sql):
    tables = sql(path, "SELECT name, sql FROM sqlite_schema WHERE type = 'table'")
    assert len(tables) >= 6
    for name, text in tables:
        assert re.search(r"\) STRICT\b", text), name


def test_an_index_answers_which_runs_are_unfinished_however_many_are_finished(store):
    unfinished = store.add_flow_run()
    for _ in range(400):
        store.add_flow_run(Completed())
    steps = []
    store.registry._database._connection.set_progress_handler(lambda: steps.append(1), 100)
    assert store.registry.list_flow_runs(FlowRunFilter(states=["running", "Paused"])) == [
        unfinished
    ]
    assert len(steps) < 10


def test_an_index_answers_what_is_due_however_many_runs_there_are(store):
    at = now()
    for number in range(400):
        ended, later = {"work_queue": "q"}, {"work_queue": "q" if number % 2 else "other"}
        store.add_flow_run(Completed(), scheduled_at=at, **ended)
        store.add_flow_run(Scheduled(), scheduled_at=at + timedelta(days=1), **later)
    due = store.add_flow_run(Scheduled(), work_queue="q", scheduled_at=at)
    steps = []
    store.registry._database._connection.set_progress_handler(lambda: steps.append(1), 100)
    for expected in ([due.id], []):
        found = store.registry.deployments.claim_due_flow_runs(["q"], limit=5, at=now())
        assert [run.id for run in found] == expected
    assert len(steps) < 10


def test_two_names_of_one_file_are_one_registry_with_one_gate(store, path, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(path)
    assert open_registry(f"sqlite:///{link}") is store.registry
    linked_folder = tmp_path / "folder"
    linked_folder.symlink_to(path.parent)
    assert open_registry(f"sqlite:///{linked_folder}/registry.db") is store.registry
    assert not (tmp_path / "link.lock").exists()


def test_a_relative_address_is_below_the_present_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry = open_registry("sqlite:///below/registry.db")
    assert registry.url == f"sqlite:///{tmp_path}/below/registry.db"


def test_a_path_may_have_marks_that_mean_something_in_a_url(tmp_path, flow_run):
    folder = tmp_path / "a b?mode=memory#c%20d&é"
    registry = open_registry(f"sqlite:///{folder}/registry.db")
    registry.create_flow_run(flow_run())
    registry.close()
    assert (folder / "registry.db").stat().st_size > 0


@pytest.mark.parametrize("url", ["sqlite:", "sqlite:///", "sqlite:////", "sqlite:///x.lock"])
def test_an_address_that_names_no_file_is_an_error_of_the_settings(url):
    with pytest.raises(SettingError) as caught:
        open_registry(url)
    assert caught.value.hint


def test_a_link_to_itself_and_a_folder_are_no_registry(tmp_path):
    loop = tmp_path / "loop.db"
    loop.symlink_to(loop)
    for path in (loop, tmp_path):
        with pytest.raises(RegistryUnavailableError):
            open_registry(f"sqlite:///{path}")


# Reading only


def test_a_missing_registry_that_is_opened_for_reading_is_empty_and_is_not_made(path):
    registry = open_registry(f"sqlite:///{path}", read_only=True)
    assert registry.list_flow_runs() == []
    assert registry.list_task_runs() == []
    with pytest.raises(NotFoundError):
        registry.find_flow_run("x")
    registry.close()
    assert not path.parent.exists()


def test_a_reader_of_a_missing_registry_sees_it_once_it_is_there(path, flow_run):
    reader = open_registry(f"sqlite:///{path}", read_only=True)
    assert reader.list_flow_runs() == []
    writer = open_registry(f"sqlite:///{path}")
    run = flow_run()
    writer.create_flow_run(run)
    assert reader.list_flow_runs() == [run]


def test_threads_may_read_a_missing_registry(path):
    reader = open_registry(f"sqlite:///{path}", read_only=True)
    found = []
    thread = threading.Thread(target=lambda: found.append(reader.list_flow_runs()))
    thread.start()
    thread.join(timeout=60)
    assert found == [[]]


def test_a_file_that_was_made_and_never_filled_is_an_empty_registry(path, flow_run):
    path.parent.mkdir()
    path.touch()
    assert open_registry(f"sqlite:///{path}", read_only=True).list_flow_runs() == []
    open_registry(f"sqlite:///{path}").create_flow_run(flow_run())


@pytest.fixture
def public_folder():
    """A folder that other users reach; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="prefectlite-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


AS_NOBODY = """
import prefectlite.registry.sqlite, prefectlite.database, prefectlite.run_queries, pathlib
# Where this is checked out or installed, another user may not read it.
prefectlite.registry.sqlite.MIGRATIONS = pathlib.Path(sys.argv[2])
os.setuid(65534)
def attempt(what):
    try:
        return what()
    except RegistryError as error:
        return type(error).__name__, error.exit_code, str(error)
def names(read_only):
    registry = open_registry(sys.argv[1], read_only=read_only)
    return [run.name for run in registry.list_flow_runs()]
def write():
    open_registry(sys.argv[1]).create_flow_run(flow_run())
print(json.dumps([attempt(lambda: names(True)), attempt(write)]))
"""


def as_nobody(start, url):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for script in MIGRATIONS.iterdir():
            shutil.copyfile(script, f"{folder}/{script.name}")
            Path(folder, script.name).chmod(0o644)
        # Nor may it look into the folder of the settings of who started it.
        settings = {"XDG_CONFIG_HOME": folder}
        return json.loads(start(AS_NOBODY, url, folder, cwd="/", env=settings).end())


@pytest.fixture
def shared(public_folder, flow_run):
    """The path of a closed registry with one run, which others may read."""
    path = public_folder / "registry.db"
    registry = open_registry(f"sqlite:///{path}")
    registry.create_flow_run(flow_run(name="seen"))
    registry.close()
    assert not Path(f"{path}-wal").exists()
    path.chmod(0o644)
    return path


@as_root
@pytest.mark.parametrize("gate_mode", [0o600, 0o666])
def test_another_user_reads_a_registry_in_a_folder_closed_for_writing_and_cannot_write_it(
    start, shared, gate_mode
):
    shared.with_suffix(".lock").chmod(gate_mode)
    before = sorted(shared.parent.iterdir())
    read, written = as_nobody(start, f"sqlite:///{shared}")
    assert read == ["seen"]
    assert written[:2] in (["RegistryReadOnlyError", 5], ["RegistryUnavailableError", 5])
    assert str(shared) in written[2]
    assert sorted(shared.parent.iterdir()) == before


@as_root
def test_another_user_reads_a_registry_that_its_owner_is_writing(start, shared, flow_run):
    owner = open_registry(f"sqlite:///{shared}")
    owner.create_flow_run(flow_run(name="in the log"))
    read, written = as_nobody(start, f"sqlite:///{shared}")
    assert read == ["in the log", "seen"]
    assert written[1] == 5
    owner.close()


@as_root
@pytest.mark.parametrize("closed", ["the file", "its folder"])
def test_a_registry_that_another_user_may_not_read_is_unavailable(start, shared, closed):
    if closed == "the file":
        shared.chmod(0o600)
    else:
        shared.parent.chmod(0o700)
    read, written = as_nobody(start, f"sqlite:///{shared}")
    for name, exit_code, message in (read, written):
        assert (name, exit_code) == ("RegistryUnavailableError", 5)
        assert str(shared) in message


@as_root
def test_a_folder_where_none_may_be_made_is_unavailable_for_writing_and_empty_for_reading(
    start, public_folder
):
    read, written = as_nobody(start, f"sqlite:///{public_folder}/new/registry.db")
    assert read == []
    assert written[0] == "RegistryUnavailableError"
    assert list(public_folder.iterdir()) == []


LOOKS_AS_NOBODY = """
import prefectlite.registry.sqlite, prefectlite.database, prefectlite.run_queries
os.setuid(65534)
registry, mark = open_registry(sys.argv[1], read_only=True), None
def say(found):
    print(json.dumps(found), flush=True)
    sys.stdin.readline()
def read(connection):
    say("reading")
    return [name for name, in connection.execute("SELECT name FROM flow_run ORDER BY seq DESC")]
while True:
    try:
        if len(sys.argv) > 2:
            say(registry._database.use(read))
        is_new, mark = registry.change_mark() != mark, registry.change_mark()
        say([is_new, [run.name for run in registry.list_flow_runs()]])
    except RegistryError as error:
        say(type(error).__name__)
"""


@pytest.fixture
def look_as_nobody(start, shared):
    """Start a reader who is another user; it says what it sees, and looks again when it is told."""

    def begin(*words):
        settings = {"XDG_CONFIG_HOME": str(shared.parent)}
        return start(LOOKS_AS_NOBODY, f"sqlite:///{shared}", *words, cwd="/", env=settings)

    return begin


@as_root
def test_another_user_sees_what_its_owner_writes_later(shared, look_as_nobody, flow_run):
    other = look_as_nobody()
    assert json.loads(other.line()) == [True, ["seen"]]
    other.tell()
    assert json.loads(other.line()) == [False, ["seen"]]
    for is_open, names in [(False, ["later", "seen"]), (True, ["in the log", "later", "seen"])]:
        owner = open_registry(f"sqlite:///{shared}")
        owner.create_flow_run(flow_run(name=names[0]))
        if not is_open:
            owner.close()
        other.tell()
        assert json.loads(other.line()) == [True, names]
    owner.close()


@as_root
def test_a_log_that_another_user_may_not_read_makes_the_registry_unavailable_meanwhile(
    shared, look_as_nobody, flow_run
):
    other = look_as_nobody()
    assert json.loads(other.line()) == [True, ["seen"]]
    owner = open_registry(f"sqlite:///{shared}")
    owner.create_flow_run(flow_run(name="later"))
    for end in ("-wal", "-shm"):
        Path(f"{shared}{end}").chmod(0o600)
    other.tell()
    assert json.loads(other.line()) == "RegistryUnavailableError"
    owner.close()
    other.tell()
    assert json.loads(other.line()) == [True, ["later", "seen"]]


@as_root
def test_what_another_user_reads_while_the_file_changes_is_read_again(
    shared, look_as_nobody, flow_run
):
    other = look_as_nobody("slowly")
    assert json.loads(other.line()) == "reading"
    owner = open_registry(f"sqlite:///{shared}")
    owner.create_flow_run(flow_run(name="later"))
    owner.close()
    other.tell()
    assert json.loads(other.line()) == "reading"
    other.tell()
    assert json.loads(other.line()) == ["later", "seen"]
