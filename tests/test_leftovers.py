"""Only what nothing on record can need is left over, and whose files these are is not guessed."""

import os
from dataclasses import replace

import pytest
from pydantic import SecretStr

from prefectlite import leftovers
from prefectlite.blocks.system import Secret
from prefectlite.leftovers import (
    leftover_secrets,
    missing_secrets,
    other_results_size,
    remove_files_of_the_dead,
    remove_leftover_secrets,
    results_size,
)
from prefectlite.liveness import is_alive, own_identity, record_dead
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.results import results_folder, store_result
from prefectlite.secret_files import secrets_folder
from prefectlite.settings import PREFECTLITE_HOME
from prefectlite.states import Running


def names(folder):
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def stored():
    """Store a result."""

    def store(id_):
        store_result(id_, "value")
        return results_folder() / id_

    return store


@pytest.fixture
def run_id(registry):
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running())
    registry.create_flow_run(run)
    return run.id


def find(registry):
    return leftover_secrets(registry.upkeep, registry.blocks)


def test_the_results_of_runs_that_are_not_on_record_are_counted(registry, run_id, stored):
    stored(run_id)
    path = stored(new_id())
    part = stored(new_id())
    part = part.rename(part.with_name(f".{part.name}.0123456789abcdef"))
    size = path.stat().st_size + part.stat().st_size
    assert other_results_size(registry.upkeep) == (2, size)


def test_a_result_that_a_run_on_record_is_writing_is_its_own(registry, run_id, stored):
    path = stored(run_id)
    path.rename(path.with_name(f".{run_id}.0123456789abcdef"))
    assert other_results_size(registry.upkeep) == (0, 0)


def test_files_and_folders_of_others_are_not_counted(registry, stored):
    stored(new_id()).rename(results_folder() / "notes.txt")
    (results_folder() / new_id()).mkdir()
    (results_folder() / new_id()).symlink_to("notes.txt")
    stored("ab" * 32)  # a result under a key of a person's own
    assert other_results_size(registry.upkeep) == (0, 0)


def test_a_registry_that_is_elsewhere_has_no_leftovers_in_the_home_folder(
    registry, tmp_path, stored
):
    stored(new_id())
    registry.blocks.list_secrets_file(new_id())
    other = open_registry(f"sqlite:///{tmp_path / 'other' / 'registry.db'}")
    other.blocks.list_secrets_file(new_id())
    assert (find(other), other_results_size(other.upkeep)) == ([], (0, 0))
    assert find(registry)
    assert other_results_size(registry.upkeep)[0] == 1


def test_a_result_that_goes_while_it_is_looked_at_is_none(registry, stored, monkeypatch):
    class Gone:
        """An entry of a file that was deleted right after the folder was listed."""

        name = new_id()

        def is_file(self, *, follow_symlinks):
            return True

        def stat(self):
            raise FileNotFoundError(self.name)

    class Entries(list):
        __enter__ = list.__iter__

        def __exit__(self, *_):
            """As that of scandir."""

    kept = stored(new_id())
    entries = [Gone(), *os.scandir(results_folder())]
    monkeypatch.setattr(leftovers.os, "scandir", lambda _: Entries(entries))
    assert results_size() == other_results_size(registry.upkeep) == (1, kept.stat().st_size)


def test_a_file_of_secrets_that_no_block_names_is_left_over(registry):
    Secret(value=SecretStr("x")).save("kept")
    (kept,) = [name for name in names(secrets_folder()) if name != "lock"]
    left = new_id()
    registry.blocks.list_secrets_file(left)
    (secrets_folder() / left).write_text("[]")
    (secrets_folder() / new_id()).write_text("of another registry")
    found = find(registry)
    assert found == [left]
    assert remove_leftover_secrets(registry, found) == 1
    assert left not in names(secrets_folder())
    assert len(names(secrets_folder())) == 3
    assert Secret.load("kept").get() == "x"
    assert kept in names(secrets_folder())


def test_a_block_whose_secrets_are_gone_is_named(registry):
    Secret(value=SecretStr("x")).save("one")
    assert missing_secrets(registry.blocks) == []
    for name in names(secrets_folder()):
        (secrets_folder() / name).unlink()
    (fault,) = missing_secrets(registry.blocks)
    assert fault.message.startswith("the secrets of the block secret/one are gone")
    assert "prefectlite block set secret/one" in fault.hint


@pytest.fixture
def young_seconds(monkeypatch):
    """From how many seconds on files are old: at once."""
    monkeypatch.setattr(leftovers, "_YOUNG_SECONDS", -1.0)


KILLED = """
import sys
from prefectlite import flow, leftovers, results
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

@flow
def waits():
    print("ready", flush=True)
    sys.stdin.readline()

def writes():
    results.Path.replace = lambda *_: waits()
    results.store_result("ab", 1)

@flow
def prunes():
    leftovers._YOUNG_SECONDS = -1.0
    leftovers.remove_files_of_the_dead(open_registry(PREFECTLITE_REGISTRY.value()))
    print("ready", flush=True)
    sys.stdin.readline()

{call}()
"""


@pytest.fixture
def waiting(start_python):
    """Start a program that waits in a flow, or in the middle of storing a result too."""

    def start(call="waits", **options):
        program = start_python(KILLED.format(call=call), **options)
        assert program.line() == "ready"
        return program

    return start


def locks():
    return {path.stem for path in (PREFECTLITE_HOME.value() / "processes").iterdir()}


def parts():
    return [name for name in names(results_folder()) if name.startswith(".ab.")]


@pytest.mark.usefixtures("young_seconds")
def test_the_lock_of_a_dead_process_is_removed_when_its_run_has_ended_on_record(registry, waiting):
    living, dead, unsettled = (waiting() for _ in range(3))
    runs = {run.process.pid: run for run in registry.list_flow_runs()}
    dead.kill()
    unsettled.kill()
    record_dead(registry, runs[dead.pid])
    assert remove_files_of_the_dead(registry) == 1
    kept = {runs[one.pid].process.token for one in (living, unsettled)}
    assert locks() - {own_identity().token} == kept
    assert is_alive(runs[living.pid].process)
    assert is_alive(runs[unsettled.pid].process) is False
    living.kill()


@pytest.mark.usefixtures("young_seconds")
def test_the_lock_of_another_registry_that_shares_the_home_folder_is_left_to_it(
    registry, tmp_path, waiting
):
    url = f"sqlite:///{tmp_path / 'other' / 'registry.db'}"
    program = waiting(env={"PREFECTLITE_REGISTRY": url})
    program.kill()
    other = open_registry(url)
    (run,) = other.list_flow_runs()
    assert remove_files_of_the_dead(registry) == 0
    assert remove_files_of_the_dead(other) == 0
    assert run.process.token in locks()
    record_dead(other, run)
    assert remove_files_of_the_dead(registry) == 0
    assert remove_files_of_the_dead(other) == 1
    assert run.process.token not in locks()


def test_who_looks_for_the_locks_of_the_dead_keeps_its_own(registry, waiting):
    program = waiting("prunes")
    (run,) = registry.list_flow_runs()
    assert is_alive(replace(run.process, start_ticks=None))  # then only the lock tells
    program.kill()


@pytest.mark.usefixtures("young_seconds")
def test_a_result_whose_writer_was_killed_is_removed_and_one_that_is_being_written_is_not(
    registry, waiting
):
    program = waiting("writes")
    (results_folder() / ".notes.txt").touch()
    assert len(parts()) == 1
    assert remove_files_of_the_dead(registry) == 0
    assert len(parts()) == 1
    program.kill()
    assert remove_files_of_the_dead(registry) == 1
    assert names(results_folder()) == [".notes.txt"]


def test_what_was_made_just_now_is_left(registry, waiting):
    program = waiting("writes")
    program.kill()
    (run,) = registry.list_flow_runs()
    record_dead(registry, run)
    assert remove_files_of_the_dead(registry) == 0
    assert len(parts()) == 1
    assert run.process.token in locks()


@pytest.mark.usefixtures("young_seconds")
def test_a_registry_that_is_elsewhere_removes_nothing_in_the_home_folder(
    registry, tmp_path, waiting
):
    program = waiting("writes")
    program.kill()
    other = open_registry(f"sqlite:///{tmp_path / 'other' / 'registry.db'}")
    assert remove_files_of_the_dead(other) == 0
    assert len(parts()) == 1


def test_the_size_of_stored_results_is_that_of_all_of_them(registry, stored):
    assert results_size() == (0, 0)
    paths = [stored(new_id()), stored(new_id())]
    assert results_size() == (2, sum(path.stat().st_size for path in paths))
