"""A SQLite file that is damaged, foreign, locked or full."""

import json
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from prefectlite import database, filesystems
from prefectlite.errors import (
    NotFoundError,
    RegistryCorruptError,
    RegistryFullError,
    RegistryLockTimeoutError,
    RegistryNewerError,
    RegistryUnavailableError,
)
from prefectlite.registry import open_registry
from prefectlite.registry.sqlite import SCHEMA_VERSION
from prefectlite.run_filters import TaskRunFilter
from prefectlite.states import Completed, Failed

as_root = pytest.mark.skipif(
    os.getuid() != 0, reason="NOT TESTED: only root can become another user or mount a filesystem"
)


@pytest.fixture
def kind():
    return "sqlite"


@pytest.fixture
def path(sqlite_path):
    return sqlite_path


# A file that cannot be used


def test_a_newer_registry_is_refused_and_left_alone(store, path, sql):
    store.registry.close()
    sql(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(RegistryNewerError) as caught:
            open_registry(store.url, read_only=read_only)
        assert caught.value.exit_code == 5
        assert "upgrade" in caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database, and long enough to have a header" * 99, b"notes\n"]
)
@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path, content, read_only):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RegistryCorruptError) as caught:
        open_registry(f"sqlite:///{path}", read_only=read_only)
    assert caught.value.exit_code == 5
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("foreign", ["CREATE TABLE mine (a)", "PRAGMA application_id = 252006673"])
def test_a_database_of_another_program_is_refused_and_left_alone(path, foreign, sql):
    path.parent.mkdir()
    sql(path, foreign, "PRAGMA user_version = 1")
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(RegistryCorruptError, match="another program"):
            open_registry(f"sqlite:///{path}", read_only=read_only)
    assert path.read_bytes() == before


def test_opening_in_vain_again_and_again_leaves_no_descriptor_open(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 99)
    errors = []
    for _ in range(5):
        with pytest.raises(RegistryCorruptError) as caught:
            open_registry(f"sqlite:///{path}")
        errors.append(caught.value)  # with its frames, as a caller that records it would keep it
    opened = [each.resolve() for each in Path("/proc/self/fd").iterdir()]
    assert [each for each in opened if each.is_relative_to(path.parent)] == []


def use(url):
    """Read and write everything that a registry has."""
    registry = open_registry(url)
    try:
        for run in registry.list_flow_runs(limit=None):
            registry.state_history(run)
            registry.read_logs(run.id)
            for task_run in registry.list_task_runs(
                TaskRunFilter(flow_run_ids=[run.id]), limit=None
            ):
                registry.state_history(task_run)
            registry.find_flow_run(run.name)
            registry.change_state(run, Failed())
    finally:
        registry.close()


@pytest.fixture
def filled(store, path, line):
    """The path of a closed registry of some 100 pages."""
    for number in range(40):
        run = store.add_flow_run(name=f"run-{number}", parameters={"x": "y" * 5000})
        store.add_task_run(run)
        store.registry.add_log_line(line(run, "z" * 3000))
    store.registry.close()
    return path


@pytest.mark.parametrize("damage", ["overwrite", "zero", "shift", "truncate"])
def test_damaged_pages_are_said_to_be_and_no_error_of_sqlite_escapes(filled, damage):
    content = filled.read_bytes()
    pages = len(content) // 4096
    seen = set()
    for page in range(1, pages, max(1, pages // 12)):
        start = page * 4096
        if damage == "truncate":
            broken = content[:start]
        else:
            filling = {"overwrite": b"\xff" * 4096, "zero": bytes(4096), "shift": content[7:4103]}
            broken = content[:start] + filling[damage] + content[start + 4096 :]
        filled.write_bytes(broken)
        try:
            use(f"sqlite:///{filled}")
        except (RegistryCorruptError, NotFoundError) as error:
            seen.add(type(error))
        for leftover in ("-wal", "-shm"):
            Path(f"{filled}{leftover}").unlink(missing_ok=True)
    assert RegistryCorruptError in seen


@pytest.mark.parametrize(
    "nonsense",
    [
        "state_type = 'DREAMING'",
        "parameters = 'no JSON'",
        "tags = '7'",
        "created_at = 9223372036854775807",
        "name = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_row_that_makes_no_sense_is_damage_and_no_error_of_python(filled, nonsense, sql):
    sql(filled, f"UPDATE flow_run SET {nonsense} WHERE seq = 5")
    with pytest.raises(RegistryCorruptError):
        use(f"sqlite:///{filled}")


def test_another_program_that_keeps_the_file_locked_is_said_to(store, path, monkeypatch):
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 20)
    registry = store.open_again()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RegistryLockTimeoutError, match="another program") as caught:
        registry.flush_logs() or store.add_flow_run()
    assert caught.value.exit_code == 5
    other.execute("ROLLBACK")
    other.close()
    store.add_flow_run()


def test_a_filesystem_of_the_network_is_refused_unless_it_is_allowed(
    path, tmp_path, monkeypatch, flow_run
):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:20 / / rw - ext4 /dev/sda1 rw\n"
        f"36 22 0:30 / {tmp_path} rw shared:1 - nfs4 server:/export rw\n"
    )
    monkeypatch.setattr(filesystems, "MOUNTS", mounts)
    url = f"sqlite:///{path}"
    with pytest.raises(RegistryUnavailableError, match="nfs4") as caught:
        open_registry(url)
    assert "PREFECTLITE_HOME" in caught.value.hint
    assert not path.parent.exists()
    monkeypatch.setenv("PREFECTLITE_ALLOW_NETWORK_FILESYSTEM", "true")
    open_registry(url).create_flow_run(flow_run())


# A full disk


FILL = """
folder = sys.argv[1]
registry = open_registry(f"sqlite:///{folder}/registry.db")
first = flow_run()
registry.create_flow_run(first)
ballast = open(f"{folder}/ballast", "wb", buffering=0)
try:
    while True:
        ballast.write(b"x" * 4096)
except OSError:
    ballast.close()
known, errors = [first.id], []
for number in range(200):
    run = flow_run(parameters={"x": "y" * 3000})
    registry.add_log_line(line(first, str(number)))
    try:
        registry.create_flow_run(run)
    except RegistryError as error:
        errors.append([type(error).__name__, error.exit_code])
    else:
        known.append(run.id)
os.unlink(f"{folder}/ballast")
registry.flush_logs()
registry.close()
registry = open_registry(f"sqlite:///{folder}/registry.db")
found = [run.id for run in reversed(registry.list_flow_runs(limit=None))]
messages = [line.message for line in registry.read_logs(first.id)]
print(json.dumps([errors, known == found, messages]))
"""


@as_root
def test_on_a_full_disk_a_write_says_so_and_all_that_was_acknowledged_is_intact(
    start, tmp_path, start_python
):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)]
    inside = f'set -e; "$0" "${{@:1:{len(mount) - 1}}}"; shift {len(mount) - 1}; exec "$@"'
    probe = subprocess.run(["unshare", "--mount", *mount], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"NOT TESTED: no filesystem can be mounted here: {probe.stderr!r}")
    errors, is_intact, messages = json.loads(
        start(FILL, folder, prefix=["unshare", "--mount", "bash", "-c", inside, *mount]).end()
    )
    assert errors
    assert all(error == ["RegistryFullError", 5] for error in errors)
    assert is_intact
    assert messages == [str(number) for number in range(200)]


def test_lines_are_kept_in_order_and_once_when_the_commit_itself_fails(store, line):
    run = store.add_flow_run()
    connection = store.registry._database._connection
    ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    store.registry.add_log_line(line(run, "one"))
    store.registry.add_log_line(line(run, "x" * 100_000))
    with pytest.raises(RegistryFullError):
        store.registry.change_state(run, Completed())
    store.registry.add_log_line(line(run, "three"))
    connection.execute("PRAGMA max_page_count = 100000")
    assert store.registry.find_flow_run(run.id) == run
    store.registry.change_state(run, Completed())
    assert [message[:5] for message in store.messages(run)] == ["one", "xxxxx", "three"]


class CommitFails:
    """A connection whose next commit fails, while another thread adds a line."""

    def __init__(self, connection, add_line):
        self.connection, self.add_line = connection, add_line

    def execute(self, statement, *parameters):
        if statement == "COMMIT" and self.add_line:
            add_line, self.add_line = self.add_line, None
            add_line()
            raise sqlite3.OperationalError("disk I/O error")
        return self.connection.execute(statement, *parameters)

    def __getattr__(self, name):
        return getattr(self.connection, name)


def test_a_line_that_is_added_while_a_commit_fails_stays_behind_the_earlier_ones(store, line):
    run = store.add_flow_run()
    registry = store.registry
    registry.add_log_line(line(run, "one"))
    registry._database._connection = CommitFails(
        registry._database._connection, lambda: registry.add_log_line(line(run, "two"))
    )
    with pytest.raises(RegistryUnavailableError):
        registry.flush_logs()
    assert store.messages(run) == []
    registry.flush_logs()
    assert store.messages(run) == ["one", "two"]
