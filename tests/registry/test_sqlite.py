"""What is only true of the registry in one SQLite file: the file, its faults, its processes."""

import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import tempfile
import threading
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
    SettingError,
)
from prefectlite.registry import open_registry
from prefectlite.registry.sqlite import MIGRATIONS, SCHEMA_VERSION
from prefectlite.states import Completed, Failed, Paused, Running

NOBODY = 65534
as_root = pytest.mark.skipif(
    os.getuid() != 0, reason="NOT TESTED: only root can become another user or mount a filesystem"
)


@pytest.fixture
def kind():
    return "sqlite"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "registry.db"


def sql(path, *statements):
    """Do what no prefectlite would, with a connection of the test's own."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return [connection.execute(statement).fetchall() for statement in statements][-1]
    finally:
        connection.close()


def check_integrity(path):
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    assert sql(path, "PRAGMA foreign_key_check") == []


# The file


def test_the_file_is_the_owners_alone_in_a_folder_that_is_too(store, path):
    store.add_flow_run()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    names = ("registry.db", "registry.db-shm", "registry.db-wal", "registry.lock")
    assert modes == dict.fromkeys(names, 0o600)


def test_the_file_says_what_it_is_and_keeps_a_write_ahead_log(store, path):
    assert sql(path, "PRAGMA application_id") == [(int.from_bytes(b"pflt"),)]
    assert sql(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]


def test_the_schema_version_is_the_number_of_the_last_migration():
    numbers = sorted(int(file.name[:4]) for file in MIGRATIONS.glob("*.sql"))
    assert numbers == list(range(1, SCHEMA_VERSION + 1))


def test_every_table_is_strict(store, path):
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
    assert store.registry.list_flow_runs(states=["running", "Paused"]) == [unfinished]
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


# A file that cannot be used


def test_a_newer_registry_is_refused_and_left_alone(store, path):
    store.registry.close()
    sql(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(RegistryNewerError) as caught:
            open_registry(store.url, read_only=read_only)
        assert caught.value.exit_code == 5
        assert "upgrade" in caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database, and long enough to have a header" * 99, b"notes\n"])
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
def test_a_database_of_another_program_is_refused_and_left_alone(path, foreign):
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
    opened = len(os.listdir("/proc/self/fd"))
    errors = []
    for _ in range(5):
        with pytest.raises(RegistryCorruptError) as caught:
            open_registry(f"sqlite:///{path}")
        errors.append(caught.value)  # with its frames, as a caller that records it would keep it
    assert len(os.listdir("/proc/self/fd")) == opened


def use(url):
    """Read and write everything that a registry has."""
    registry = open_registry(url)
    try:
        for run in registry.list_flow_runs(limit=None):
            registry.state_history(run)
            registry.read_logs(run.id)
            for task_run in registry.list_task_runs(flow_run_id=run.id, limit=None):
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
def test_a_row_that_makes_no_sense_is_damage_and_no_error_of_python(filled, nonsense):
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
import prefectlite.registry.sqlite, prefectlite.database
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
    return json.loads(start(AS_NOBODY, url, cwd="/").end())


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
    inside = 'set -e; "$0" "${@:1:%d}"; shift %d; exec "$@"' % (len(mount) - 1, len(mount) - 1)
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


# Processes


FORK = """
registry = open_registry(sys.argv[1])
run = flow_run()
registry.create_flow_run(run)
registry.add_log_line(line(run, "the parent's"))
child = os.fork()
if not child:
    registry.add_log_line(line(run, "the child's"))
    other = flow_run(Running(), name="child")
    registry.create_flow_run(other)
    registry.change_state(other, Completed())
    registry.close()
    if sys.argv[2] == "sys.exit":
        sys.exit(0)
    os._exit(0)
# Both write at the same time.
for _ in range(50):
    registry.create_flow_run(flow_run())
assert os.waitpid(child, 0)[1] == 0
registry.change_state(run, Completed())
actors = [registry.state_history(found)[0].actor for found in registry.list_flow_runs()]
print(json.dumps({
    "runs": len(registry.list_flow_runs()),
    "messages": sorted(line.message for line in registry.read_logs(run.id)),
    "child is its own actor": registry.state_history(registry.find_flow_run("child"))[0].actor
        .endswith(f":{child}"),
}))
"""


@pytest.mark.parametrize("ending", ["os._exit", "sys.exit"])
def test_a_forked_child_and_its_parent_both_go_on_each_with_its_own(store, path, start, ending):
    assert json.loads(start(FORK, store.url, ending).end()) == {
        "runs": 52,
        "messages": ["the child's", "the parent's"],
        "child is its own actor": True,
    }
    store.registry.close()
    check_integrity(path)


FORK_STORM = """
registry = open_registry(sys.argv[1])
acknowledged, is_over = [], threading.Event()
def work():
    while not is_over.is_set():
        run = flow_run(parameters={"x": "y" * 2000})
        registry.create_flow_run(run)
        acknowledged.append(run.id)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for number in range(60):
    child = os.fork()
    if not child:
        run = flow_run(name=f"child-{number}")
        registry.create_flow_run(run)
        os._exit(registry.find_flow_run(run.id) != run)
    assert os.waitpid(child, 0)[1] == 0
is_over.set()
for thread in threads:
    thread.join()
found = {run.id for run in registry.list_flow_runs(limit=None)}
print(len(found) - len(acknowledged), found.issuperset(acknowledged))
"""


def test_forks_in_the_middle_of_other_threads_writes_lose_and_damage_nothing(store, path, start):
    assert start(FORK_STORM, store.url).end() == "60 True\n"
    store.registry.close()
    check_integrity(path)


OUTLIVING = """
registry = open_registry(sys.argv[1])
registry.create_flow_run(flow_run())
child = os.fork()
if child:
    registry.close()  # were it the last to have the file open, it would remove the log
    os._exit(0)
registry.create_flow_run(flow_run())
ready()
registry.create_flow_run(flow_run())
ready()
"""


def test_a_child_that_outlives_its_parent_loses_nothing(store, start):
    store.registry.close()
    child = start(OUTLIVING, store.url)
    child.line()
    child.process.wait(timeout=60)  # the parent's end
    child.tell()
    child.line()
    assert len(store.open_again().list_flow_runs()) == 3
    child.tell()
    child.end()
    assert len(store.open_again().list_flow_runs()) == 3


KILLED = """
registry = open_registry(sys.argv[1])
while True:
    run = flow_run(Pending())
    registry.create_flow_run(run)
    for number in range(3):
        registry.add_log_line(line(run, str(number)))
    task = None
    run = registry.change_state(run, Running())
    task = task_run(run)
    registry.create_task_runs([task])
    registry.change_state(task, Completed())
    print(run.id, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 40, 350])
def test_nothing_acknowledged_is_lost_when_a_writer_is_killed(store, path, start, after):
    victim = start(KILLED, store.url)
    acknowledged = [victim.line() for _ in range(after)]
    acknowledged += [line for line in victim.kill().split("\n") if len(line) == 36]
    registry = store.open_again()
    for id_ in acknowledged:
        run = registry.find_flow_run(id_)
        assert run.state.is_running()
        assert [change.version for change in registry.state_history(run)] == [1, 2]
        assert registry.count_task_runs(id_) == {"Completed": 1}
        assert store.messages(run) == ["0", "1", "2"]
    store.add_flow_run()
    registry.close()
    check_integrity(path)


CROWD = """
url, name = sys.argv[1:]
registry = open_registry(url)
ready()
for number in range(120):
    run = flow_run(Pending(), name=f"{name}-{number}")
    registry.create_flow_run(run)
    run = registry.change_state(run, Running())
    task = task_run(run)
    registry.create_task_runs([task])
    registry.change_state(task, Completed())
    registry.change_state(run, Completed())
    if number % 5 == int(name):
        registry.close()  # and opened again, as the next command would
        registry = open_registry(url)
"""


def test_processes_that_write_and_open_and_close_at_once_never_find_it_locked(store, path, start):
    store.registry.close()
    writers = [start(CROWD, store.url, name) for name in range(4)]
    for writer in writers:
        writer.line()
    for writer in writers:
        writer.tell()
    for writer in writers:
        assert writer.end() == ""
    runs = store.open_again().list_flow_runs(limit=None)
    assert {run.name for run in runs} == {f"{w}-{n}" for w in range(4) for n in range(120)}
    assert all(run.state.is_completed() and run.state_version == 3 for run in runs)
    assert len(store.registry.list_task_runs(states=["Completed"], limit=None)) == 480
    store.registry.close()
    check_integrity(path)


def test_processes_that_create_the_registry_at_once_make_one(path, start):
    url = f"sqlite:///{path}"
    makers = [
        start("ready()\nopen_registry(sys.argv[1]).create_flow_run(flow_run())", url)
        for _ in range(4)
    ]
    for maker in makers:
        maker.line()
    for maker in makers:
        maker.tell()
    for maker in makers:
        maker.end()
    assert len(open_registry(url, read_only=True).list_flow_runs()) == 4


def test_the_log_of_one_writer_stays_small_however_much_it_writes(store, path):
    run = store.add_flow_run()
    for _ in range(700):
        run = store.registry.change_state(run, Paused("x" * 3000))
        run = store.registry.change_state(run, Running("y" * 3000))
    assert Path(f"{path}-wal").stat().st_size < 12_000_000


def test_the_log_of_many_short_writers_stays_small_beside_an_idle_process(store, path, start):
    store.add_flow_run()
    idle = start("registry = open_registry(sys.argv[1])\nready()", store.url)
    idle.line()
    for _ in range(60):
        for _ in range(10):
            store.add_flow_run(parameters={"x": "y" * 3000})
        store.open_again()  # as if each ten were a process of their own
    size = Path(f"{path}-wal").stat().st_size
    idle.tell()
    idle.end()
    assert size < 8_000_000


def test_closing_moves_the_log_into_the_file(store, path):
    run = store.add_flow_run()
    store.registry.close()
    assert not Path(f"{path}-wal").exists()
    assert sql(path, "SELECT id FROM flow_run") == [(run.id,)]


HOLDER = """
registry = open_registry(sys.argv[1])
def hold(connection):
    ready()
registry._database.write(hold)
registry.create_flow_run(flow_run(name="the holder's"))
print("done")
"""


def test_a_stopped_process_in_the_gate_is_named_and_hinders_only_until_it_goes_on(
    store, start, monkeypatch
):
    monkeypatch.setenv("PREFECTLITE_REGISTRY_LOCK_SECONDS", "0.2")
    registry = store.open_again()
    run = store.add_flow_run()
    holder = start(HOLDER, store.url)
    holder.line()
    os.kill(holder.pid, signal.SIGSTOP)
    for _ in range(3):
        with pytest.raises(RegistryLockTimeoutError) as caught:
            registry.change_state(run, Completed())
        assert f"process {holder.pid}" in str(caught.value)
        assert str(holder.pid) in caught.value.hint
        assert caught.value.exit_code == 5
    assert [thread.name for thread in threading.enumerate()].count("prefectlite-gate") == 1
    assert registry.find_flow_run(run.id) == run  # reading goes on
    monkeypatch.setenv("PREFECTLITE_REGISTRY_LOCK_SECONDS", "30")
    os.kill(holder.pid, signal.SIGCONT)
    holder.tell()
    assert holder.end() == "done\n"
    for thread in threading.enumerate():
        if thread.name == "prefectlite-gate":
            thread.join(timeout=30)
    registry = store.open_again()
    assert registry.change_state(run, Completed()).state.is_completed()
    assert registry.find_flow_run("the holder's")


def test_closing_does_not_wait_for_a_stopped_process_in_the_gate(store, start):
    store.add_flow_run()
    holder = start(HOLDER, store.url)
    holder.line()
    store.registry.close()
    holder.tell()
    holder.end()


WATCHED = """
url, path = sys.argv[1:]
open_registry(url).create_flow_run(flow_run())
opened = []
def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith(path):
        opened.append(arguments[0])
sys.addaudithook(watch)
registry = open_registry(url)
run = flow_run()
registry.create_flow_run(run)
registry.close()
registry = open_registry(url)
registry.change_state(run, Completed())
open_registry(url, read_only=True).list_flow_runs()
registry.close()
open(path).close()
print(len(opened))
"""


def test_once_the_file_exists_nothing_but_sqlite_opens_it(path, start):
    # The one that is counted is the test's own, which shows that it counts.
    assert start(WATCHED, f"sqlite:///{path}", path).end() == "1\n"


EXIT_FAILS = """
registry = open_registry(sys.argv[1])
run = flow_run()
registry.create_flow_run(run)
registry._database._connection.execute("PRAGMA max_page_count = 1")
registry.add_log_line(line(run, "x" * 100_000))
"""


def test_lines_that_cannot_be_recorded_at_exit_are_said_in_one_line(store, start):
    process = start(EXIT_FAILS, store.url).process
    out, error = process.communicate(timeout=60)
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith("prefectlite: the last log lines are not on record: ")
