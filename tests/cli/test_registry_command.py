"""prefectlite registry: path, info, check, backup, prune."""

import json
import os
import sqlite3
from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite import upkeep_tables
from prefectlite.cli import registry as command
from prefectlite.clock import now
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.results import results_folder, store_result
from prefectlite.secret_files import secrets_folder
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Completed, Failed, Running

DAY = timedelta(days=1)


def names(folder):
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def ended(seeds):
    """Put a flow run on record that ended so many days ago, with a task run and stored results."""

    def add(days, state=None, *, flow_name="my-flow", **fields):
        at = now() - days * DAY
        run = FlowRun(
            id=new_id(),
            name="old",
            flow_name=flow_name,
            state=replace(Running(), timestamp=at),
            created_at=at,
            **fields,
        )
        seeds.registry.create_flow_run(run)
        task_run = seeds.task_run(run)
        run = seeds.registry.change_state(run, replace(state or Completed(), timestamp=at))
        for id_ in (run.id, task_run.id):
            store_result(id_, "value")
        return run

    return add


def sql(home, statement):
    connection = sqlite3.connect(home / "registry.db")
    with connection:
        connection.execute(statement)
    connection.close()


# path


def test_path_is_the_file_alone_for_scripts(run, home, monkeypatch):
    ended = run("registry path")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, f"{home / 'registry.db'}\n", "")
    monkeypatch.setenv("PREFECTLITE_REGISTRY", "sqlite:////elsewhere/other.db")
    assert run("registry path").stdout == "/elsewhere/other.db\n"
    assert not home.exists()


def test_path_of_what_is_no_address_is_wrong_usage(run, monkeypatch):
    monkeypatch.setenv("PREFECTLITE_REGISTRY", "sqlite://")
    assert run("registry path").exit_code == 2


# info


def test_info_says_where_it_is_how_large_it_is_and_what_is_in_it(run, home, ended):
    ended(1)
    ended(2, Failed())
    shown = dict(line.split("  ", 1) for line in run("registry info").stdout.splitlines())
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown["File"] == str(home / "registry.db")
    assert shown["Flow runs"] == "2: 1 Completed, 1 Failed"
    assert shown["Task runs"] == "2"
    assert shown["Stored results"].startswith("4, ")
    assert shown["Schema"].isdigit()
    assert "Deployments" not in shown


def test_info_as_json_says_all_of_it(run, home, ended):
    ended(1)
    shown = json.loads(run("registry info --json").stdout)
    assert shown["flow_runs"] == {"Completed": 1}
    assert (shown["task_runs"], shown["deployments"], shown["results"]) == (1, 0, 2)
    assert shown["path"] == str(home / "registry.db")
    assert shown["file_bytes"] == (home / "registry.db").stat().st_size
    assert shown["oldest_at"] == shown["newest_at"] is not None


def test_info_of_a_registry_that_is_not_there_makes_none(run, home):
    ended = run("registry info")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "not there yet" in ended.stdout
    assert json.loads(run("registry info --json").stdout)["exists"] is False
    assert not home.exists()


# check


def test_a_registry_that_is_whole_is_said_to_be(run, ended):
    ended(1)
    for line in ("registry check", "registry check --quick"):
        found = run(line)
        assert (found.exit_code, found.stdout) == (0, "")
        assert found.stderr == "The registry is whole.\n"


def test_what_is_wrong_is_said_with_what_to_do_and_exits_5(run, home, ended):
    flow_run = ended(1)
    sql(home, "UPDATE flow_run SET ended_at = NULL")
    found = run("registry check")
    assert (found.exit_code, found.stdout) == (5, "")
    error, hint = found.stderr.splitlines()
    assert error.startswith("error: 1 flow runs have ended and do not say when")
    assert error.endswith(flow_run.id)
    assert hint.startswith("hint: ")
    shown = json.loads(run("registry check --json").stdout)
    assert [*shown["faults"][0]] == ["message", "hint"]
    assert run("registry check --quick").exit_code == 0


def test_a_file_that_is_no_registry_exits_5(run, home):
    home.mkdir()
    (home / "registry.db").write_bytes(os.urandom(8_192))
    assert run("registry check").exit_code == 5


def test_where_there_is_none_nothing_is_wrong_and_none_is_made(run, home):
    found = run("registry check")
    assert (found.exit_code, found.stderr) == (
        0,
        f"note: there is no registry yet: {home / 'registry.db'}\n",
    )
    assert not home.exists()


def test_leftovers_are_told_and_stay(run, seeds, ended):
    ended(2)
    store_result(new_id(), "value")
    left = leave_secrets(seeds.registry)
    found = run("registry check")
    assert found.exit_code == 0
    assert "note: files of secrets that no block needs: 1; prune removes them" in found.stderr
    assert "note: stored results of no run of this registry: 1, " in found.stderr
    assert "they may be of another one" in found.stderr
    shown = json.loads(run("registry check --json").stdout)
    assert (shown["other_results"], shown["leftover_secrets"], shown["faults"]) == (1, 1, [])
    assert len(names(results_folder())) == 3
    assert left.exists()


def leave_secrets(registry):
    """Leave a file of secrets behind, of a block that was deleted."""
    left = secrets_folder() / new_id()
    registry.blocks.list_secrets_file(left.name)
    left.parent.mkdir(exist_ok=True)
    left.write_text("[]")
    return left


def test_check_works_while_another_process_writes(run, home, seeds):
    flow_run = seeds.flow_run(end=False)
    writer = sqlite3.connect(home / "registry.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE flow_run SET name = 'other'")
    assert run("registry check").exit_code == 0
    writer.execute("ROLLBACK")
    writer.close()
    assert seeds.registry.find_flow_run(flow_run.id) == flow_run


def test_an_older_registry_stays_as_it_is(run, home, seeds, tmp_path):
    seeds.registry.close()
    sql(home, "PRAGMA user_version = 4")
    assert run("registry check").exit_code == 0
    assert run(f"registry backup {tmp_path / 'backup'}").exit_code == 0
    connection = sqlite3.connect(home / "registry.db")
    assert connection.execute("PRAGMA user_version").fetchall() == [(4,)]
    connection.close()


# backup


def test_a_backup_holds_the_runs_and_what_it_lacks_is_said(run, ended, tmp_path):
    flow_run = ended(1)
    path = tmp_path / "backup"
    done = run(f"registry backup {path} --json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"path": str(path), "bytes": path.stat().st_size}
    first, note = done.stderr.splitlines()
    assert first.startswith(f"Backed up the registry to {path} (")
    assert note.startswith("note: stored results are not in it")
    assert str(results_folder()) in note
    backup = open_registry(f"sqlite:///{path}", read_only=True)
    assert backup.find_flow_run(flow_run.id) == flow_run
    backup.close()


def test_a_backup_that_is_put_in_place_is_the_registry(run, home, ended, tmp_path):
    flow_run = ended(1)
    run(f"registry backup {tmp_path / 'backup'}")
    run(f"flow-run delete {flow_run.id}")
    open_registry(f"sqlite:///{home / 'registry.db'}").close()
    for path in home.glob("registry.db*"):
        path.unlink()
    (tmp_path / "backup").rename(home / "registry.db")
    assert flow_run.id in run("flow-run ls").stdout
    assert run("registry check").exit_code == 0


def test_a_file_that_is_there_is_a_conflict_unless_forced(run, ended, tmp_path):
    ended(1)
    path = tmp_path / "backup"
    path.write_text("precious")
    refused = run(f"registry backup {path}")
    assert (refused.exit_code, path.read_text()) == (4, "precious")
    assert refused.stderr.endswith("hint: replace it with --force\n")
    assert run(f"registry backup {path} --force").exit_code == 0


@pytest.mark.parametrize(
    ("line", "exit_code"),
    [
        ("registry backup", 2),
        ("registry backup -", 2),
        ("registry backup .", 2),
        ("registry backup {home}/registry.db --force", 2),
        ("registry backup {home}/missing/backup", 5),
    ],
)
def test_a_backup_that_cannot_be_made_has_its_exit_code(run, home, seeds, line, exit_code):
    assert run(line.format(home=home)).exit_code == exit_code


def test_where_there_is_no_registry_there_is_nothing_to_back_up(run, home, tmp_path):
    assert run(f"registry backup {tmp_path / 'backup'}").exit_code == 3
    assert not home.exists()


# prune


def test_runs_that_ended_long_ago_go_with_what_they_stored(run, seeds, ended):
    old, new, going = ended(40), ended(20), seeds.flow_run(end=False)
    done = run("registry prune --older-than 30d")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "Deleted flow runs: 1, task runs: 1\n"
    assert {one.id for one in seeds.registry.list_flow_runs()} == {new.id, going.id}
    assert old.id not in names(results_folder())
    assert len(names(results_folder())) == 2


def test_a_dry_run_deletes_nothing_and_counts_by_flow(run, seeds, ended):
    ended(40), ended(50), ended(40, flow_name="other")
    lines = run("registry prune --older-than 30d --dry-run").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["my-flow", "2"], ["other", "1"]]
    shown = json.loads(run("registry prune --older-than 30d --dry-run --json").stdout)
    assert shown == {"flow_runs": 3, "task_runs": None, "leftover_secrets": 0, "is_dry_run": True}
    assert len(seeds.registry.list_flow_runs()) == 3


def test_conditions_narrow_what_goes(run, seeds, ended):
    failed, kept, other = ended(40, Failed()), ended(41), ended(42, flow_name="other")
    line = "registry prune --older-than 30d --state failed --flow my-flow --json"
    assert json.loads(run(line).stdout)["flow_runs"] == 1
    assert {one.id for one in seeds.registry.list_flow_runs()} == {kept.id, other.id}
    assert failed.id not in names(results_folder())


def test_the_newest_of_each_flow_can_be_kept(run, seeds, ended):
    ended(50)
    newest, other = ended(40), ended(60, flow_name="other")
    assert run("registry prune --keep 1").exit_code == 0
    assert {one.id for one in seeds.registry.list_flow_runs()} == {newest.id, other.id}


def test_a_time_can_be_given_as_a_date(run, seeds, ended):
    ended(40)
    day = f"{now() - 30 * DAY:%Y-%m-%d}"
    assert json.loads(run(f"registry prune --older-than {day} --json").stdout)["flow_runs"] == 1


@pytest.mark.parametrize(
    "line",
    [
        "registry prune",
        "registry prune --keep 0",
        "registry prune --older-than soon",
        "registry prune --keep -1",
    ],
)
def test_without_saying_which_nothing_is_deleted(run, seeds, ended, line):
    ended(40)
    assert run(line).exit_code == 2
    assert len(seeds.registry.list_flow_runs()) == 1


def test_leftovers_are_removed_and_counted(run, seeds, ended):
    ended(1)
    left = leave_secrets(seeds.registry)
    told = run("registry prune --older-than 30d --dry-run").stderr
    assert "files of secrets that no block needs: 1; they would be removed" in told
    done = run("registry prune --older-than 30d --json")
    assert "Removed files of secrets that no block needed: 1\n" in done.stderr
    assert json.loads(done.stdout)["leftover_secrets"] == 1
    assert not left.exists()


def test_results_of_another_registry_in_the_same_home_stay(run, home, ended, monkeypatch):
    ended(40)
    stored = names(results_folder())
    for name in stored:  # long ago
        os.utime(results_folder() / name, (0, 0))
    monkeypatch.setenv("PREFECTLITE_REGISTRY", f"sqlite:///{home / 'other.db'}")
    open_registry(PREFECTLITE_REGISTRY.value())
    assert run("registry prune --keep 1").exit_code == 0
    assert names(results_folder()) == stored


def test_a_state_that_there_is_not_is_pointed_out(run, seeds):
    assert "'faild' is no state" in run("registry prune --keep 1 --state faild --dry-run").stderr


def test_where_there_is_no_registry_none_is_made(run, home):
    done = run("registry prune --older-than 30d --vacuum")
    assert (done.exit_code, done.stderr) == (0, "Deleted flow runs: 0, task runs: 0\n")
    assert not home.exists()


def test_space_is_given_back_where_that_is_asked_for(run, seeds, ended, monkeypatch):
    monkeypatch.setattr(command, "_MENTIONED_BYTES", 10_000)
    for _ in range(2):
        old = ended(40)
        seeds.log(old, "x" * 100_000)
        done = run("registry prune --older-than 30d")
    assert "of the registry's file are free, and used again; see --vacuum" in done.stderr
    assert "free" not in run("registry prune --older-than 30d --vacuum").stderr
    assert seeds.registry.upkeep.storage().free_bytes == 0


def test_runs_that_go_on_are_not_kept_from_writing_for_long(run, seeds, ended, monkeypatch):
    ended(40)
    seeds.flow_run(end=False)
    assert run("registry prune --older-than 50d --vacuum").exit_code == 0
    monkeypatch.setattr(command, "_VACUUM_BYTES_A_SECOND", 1)
    refused = run("registry prune --older-than 30d --vacuum")
    assert refused.exit_code == 4
    assert refused.stderr.startswith("error: 1 flow runs are going on")
    assert len(seeds.registry.list_flow_runs()) == 2


def test_an_interruption_says_what_is_deleted_and_exits_130(run, seeds, ended, monkeypatch, capsys):
    ended(40), ended(41), ended(42)
    upkeep = type(seeds.registry.upkeep)
    delete = upkeep.delete_flow_runs

    def interrupted(self, ids, deleted):
        delete(self, ids[:2], deleted)
        raise KeyboardInterrupt

    monkeypatch.setattr(upkeep, "delete_flow_runs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("registry prune --older-than 30d")
    assert capsys.readouterr().err == "Deleted flow runs: 2 of 3, task runs: 2\n"
    assert len(seeds.registry.list_flow_runs()) == 1
    assert len(names(results_folder())) == 2


@pytest.mark.parametrize("line", ["registry prune --older-than 30d", "flow-run delete old"])
def test_an_interruption_says_which_run_is_half_deleted(
    run, seeds, ended, monkeypatch, capsys, line
):
    monkeypatch.setattr(upkeep_tables, "_TASK_RUNS_AT_ONCE", 1)
    monkeypatch.setattr(
        upkeep_tables, "_DELETE_TASK_RUNS", upkeep_tables._DELETE_TASK_RUNS.replace("500", "1")
    )
    flow_run = ended(40)
    upkeep = type(seeds.registry.upkeep)
    delete = upkeep.delete_flow_runs
    calls = []

    def interrupted(self, ids, deleted):
        calls.append(ids)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return delete(self, ids, deleted)

    monkeypatch.setattr(upkeep, "delete_flow_runs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(line)
    told = f"note: only a part of {flow_run.id} is deleted; repeat it for the rest\n"
    assert capsys.readouterr().err.endswith(told)
    assert "part" not in run(line).stderr
    assert seeds.registry.list_flow_runs() == []
