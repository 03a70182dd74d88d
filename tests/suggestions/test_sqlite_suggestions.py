"""A look into the SQLite registry that changes nothing and waits for nobody."""

import os
import shutil
import sqlite3

import pytest

from prefectlite.clock import now
from prefectlite.database import Database
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry.sqlite import MIGRATIONS
from prefectlite.schemas import APPLICATION_ID
from prefectlite.states import Pending
from prefectlite.suggestions import Which, open_suggestions, sqlite

_METHODS = ("flow_names", "tags", "deployments", "work_queues", "agent_names", "blocks")
_METHODS += ("block_types", "rules")


@pytest.fixture
def path(home):
    return home / "registry.db"


@pytest.fixture
def suggestions(path):
    return open_suggestions(f"sqlite:///{path}")


def _add(registry, name="swift-otter", **fields):
    flow_run = FlowRun(id=new_id(), name=name, flow_name="etl", state=Pending(), **fields)
    registry.create_flow_run(flow_run)
    return flow_run


def _everything(suggestions):
    found = [suggestions.flow_runs("", [Which.ALL]), suggestions.task_runs("")]
    found += [suggestions.flow_runs("a", [*Which]), suggestions.input_schemas("a")]
    return [*found, *(getattr(suggestions, name)() for name in _METHODS)]


def _tree(folder):
    return {
        file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in sorted(folder.iterdir())
    }


def test_the_file_is_known_by_the_same_mark():
    assert sqlite._APPLICATION_ID == APPLICATION_ID


def test_a_registry_that_is_not_there_has_nothing_and_is_not_created(suggestions, home):
    assert not any(_everything(suggestions))
    assert not home.exists()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_what_is_no_registry_has_nothing(suggestions, path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert not any(_everything(suggestions))
    assert [file.name for file in path.parent.iterdir()] == ["registry.db"]


def test_the_database_of_another_program_has_nothing(suggestions, path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE flow_run (id, name, state_name, state_type, flow_name, seq)")
    connection.close()
    assert not any(_everything(suggestions))


@pytest.mark.parametrize("is_open", [True, False])
def test_a_look_changes_no_file_and_makes_none(registry, suggestions, home, is_open):
    _add(registry)
    if not is_open:
        registry.close()
    before = _tree(home)
    assert any(_everything(suggestions))
    # Of who reads a log beside a writer, the index has the mark; it is memory in all but name.
    after = _tree(home)
    assert after.keys() == before.keys()
    assert {name: one for name, one in after.items() if not name.endswith("-shm")} == {
        name: one for name, one in before.items() if not name.endswith("-shm")
    }


def test_an_older_registry_is_read_and_not_migrated(suggestions, path, tmp_path):
    older = tmp_path / "migrations"
    older.mkdir()
    shutil.copy(MIGRATIONS / "0001_initial.sql", older)
    Database(path, migrations=older, schema_version=1).close()
    connection = sqlite3.connect(path)
    moment = int(now().timestamp() * 1_000_000)
    connection.execute(
        "INSERT INTO flow_run (id, name, flow_name, state_type, state_name, state_at, state_version,"
        " state_actor, parameters, tags, run_count, created_at)"
        " VALUES ('0a', 'old', 'etl', 'RUNNING', 'Running', ?, 1, 'me', '{}', '[]', 1, ?)",
        (moment, moment),
    )
    connection.commit()
    assert [run.name for run in suggestions.flow_runs("", [Which.UNFINISHED])] == ["old"]
    assert suggestions.deployments() == []
    assert connection.execute("PRAGMA user_version").fetchall() == [(1,)]
    connection.close()


def test_a_writer_that_has_the_file_is_not_waited_for(registry, suggestions, path):
    _add(registry)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        assert [run.name for run in suggestions.flow_runs("", [Which.ALL])] == ["swift-otter"]
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@pytest.mark.parametrize(
    "name", ["a'b", 'a"; DROP TABLE flow_run; --', "100%", "ü_ñ", "\U0010ffff"]
)
def test_a_text_means_itself_and_nothing_more(registry, suggestions, name):
    _add(registry, name)
    _add(registry, "other")
    assert [run.name for run in suggestions.flow_runs(name, [Which.ALL])] == [name]
    assert suggestions.flow_runs("%", [Which.ALL]) == []
    assert suggestions.flow_runs("\udcff", [Which.ALL]) == []


def test_a_path_that_a_uri_would_read_otherwise_is_read(registry, tmp_path):
    _add(registry)
    registry.close()
    folder = tmp_path / "a?b#c%41"
    shutil.copytree(registry.url.removeprefix("sqlite:///").rpartition("/")[0], folder)
    found = open_suggestions(f"sqlite:///{folder}/registry.db").flow_runs("", [Which.ALL])
    assert [run.name for run in found] == ["swift-otter"]


@pytest.mark.skipif(os.getuid() == 0, reason="NOT TESTED: root may read anything")
def test_a_file_that_may_not_be_read_has_nothing(registry, suggestions, path):
    _add(registry)
    path.chmod(0)
    assert not any(_everything(suggestions))


@pytest.mark.parametrize("which", [Which.UNFINISHED, Which.RUNNING, Which.PAUSED])
def test_what_has_not_ended_is_found_without_looking_at_all_that_has(registry, path, which):
    _add(registry)
    assert "run USING INDEX flow_run_unfinished" in _plan(path, sqlite._flow_runs_sql(which, ""))


@pytest.mark.parametrize("which", [*Which])
def test_a_name_or_an_id_that_is_begun_is_found_by_an_index(registry, path, which):
    _add(registry)
    assert "SCAN run" not in _plan(path, sqlite._flow_runs_sql(which, "a"))


@pytest.mark.parametrize("which", [Which.ALL, Which.FINAL])
def test_the_newest_are_found_without_sorting_all(registry, path, which):
    _add(registry)
    assert "ORDER BY" not in _plan(path, sqlite._flow_runs_sql(which, ""))


def _plan(path, sql):
    connection = sqlite3.connect(path)
    values = {"text": "a", "id": "a", "most": 50}
    rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    connection.close()
    return "\n".join(row[-1] for row in rows)


def test_behind_a_symbolic_link_the_log_is_read_too(registry, path, tmp_path):
    (link := tmp_path / "link.db").symlink_to(path)
    _add(registry)
    (found,) = open_suggestions(f"sqlite:///{link}").flow_runs("", [Which.UNFINISHED])
    assert found.name == "swift-otter"


def test_a_link_to_itself_has_nothing(tmp_path):
    (loop := tmp_path / "loop.db").symlink_to(loop)
    assert not any(_everything(open_suggestions(f"sqlite:///{loop}")))
