"""What is true of every registry: what it says of itself, backups, and what is no longer needed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite.clock import now
from prefectlite.errors import OutputError
from prefectlite.names import new_id
from prefectlite.records import CachedResult
from prefectlite.registry import open_registry, open_upkeep, registry_path
from prefectlite.states import Completed, Failed, Paused, Running, Scheduled
from prefectlite.upkeep_records import Deleted, Prunable

DAY = timedelta(days=1)
_COMPLETED = Completed()


def names(folder):
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def upkeep(store):
    return store.registry.upkeep


@pytest.fixture
def ended(store, flow_run):
    """Put a flow run on record that ended so many days ago."""

    def add(days, state=_COMPLETED, **fields):
        at = now() - days * DAY
        run = flow_run(replace(Running(), timestamp=at), created_at=at, **fields)
        store.registry.create_flow_run(run)
        return store.registry.change_state(run, replace(state, timestamp=at))

    return add


def ids(runs):
    return [run.id for run in runs]


def delete(upkeep, flow_run_ids):
    """Delete flow runs in as many steps as it takes; return all that is gone, and how many steps."""
    gone, steps = Deleted(), 0
    while flow_run_ids:
        deleted = Deleted()
        flow_run_ids = flow_run_ids[upkeep.delete_flow_runs(flow_run_ids, deleted) :]
        gone.flow_run_ids += deleted.flow_run_ids
        gone.task_run_ids += deleted.task_run_ids
        steps += 1
    return gone, steps


# What it says of itself


def test_it_says_how_much_of_what_is_on_record(store, upkeep, ended, task_run, line):
    first = ended(2)
    ended(1, Failed())
    last = store.add_flow_run()
    store.add_task_run(last)
    store.registry.add_log_line(line(last, "hello"))
    store.registry.flush_logs()
    contents = upkeep.contents()
    assert contents.flow_runs == {"Completed": 1, "Failed": 1, "Running": 1}
    assert {name: count for name, count in contents.rows.items() if count} == {
        "task_runs": 1,
        "log_lines": 1,
    }
    assert (contents.oldest_at, contents.newest_at) == (first.created_at, last.created_at)


def test_an_empty_one_holds_nothing(upkeep):
    contents = upkeep.contents()
    assert (contents.flow_runs, {*contents.rows.values()}) == ({}, {0})
    assert (contents.oldest_at, contents.newest_at) == (None, None)


def test_it_says_where_it_is_and_how_it_is_kept(store, upkeep):
    storage = upkeep.storage()
    assert storage.exists
    assert storage.schema_version == storage.newest_schema_version > 0
    assert storage.path == registry_path(store.url)
    assert storage.file_bytes == storage.path.stat().st_size


def test_it_has_no_faults_whatever_becomes_of_runs(store, upkeep, ended):
    ended(1)
    run = store.add_flow_run()
    task = store.add_task_run(run)
    store.registry.change_state(task, Failed())
    run = store.registry.change_state(run, Completed())
    store.add_flow_run()
    assert upkeep.faults(is_quick=False) == upkeep.faults(is_quick=True) == []


def test_it_knows_the_ids_of_flow_runs_and_task_runs(store, upkeep):
    run = store.add_flow_run()
    task = store.add_task_run(run)
    assert upkeep.known_runs([run.id, task.id, new_id(), "'", ""]) == {run.id, task.id}
    assert upkeep.known_runs([]) == set()


def test_to_look_at_one_that_is_not_there_does_not_make_it(kind, tmp_path, store):
    path = registry_path(store.url).with_name("other.db")
    upkeep = open_upkeep(f"{kind}:///{path}")
    assert not upkeep.storage().exists
    assert upkeep.faults(is_quick=False) == []
    upkeep.close()
    assert not path.exists()


# Backups


def test_a_backup_is_a_registry_of_the_same_that_only_its_owner_can_read(
    store, upkeep, tmp_path, kind
):
    run = store.add_flow_run()
    told = []
    upkeep.back_up(tmp_path / "backup", told=lambda done, total: told.append((done, total)))
    assert names(tmp_path / "home").count("backup") == 0
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    assert told[-1][0] == told[-1][1] > 0
    backup = open_registry(f"{kind}:///{tmp_path / 'backup'}", read_only=True)
    assert backup.find_flow_run(run.id) == run
    assert backup.upkeep.faults(is_quick=False) == []
    backup.close()
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup"]


def test_a_backup_has_what_was_there_when_it_began(start, store, line, tmp_path, kind, until):
    run = store.add_flow_run()
    for _ in range(1_500):  # or all of it would be written at once
        store.registry.add_log_line(line(run, "x" * 2_000))
    store.registry.flush_logs()
    writer = start(
        """
        registry = open_registry(sys.argv[1])
        ready()
        while True:
            registry.create_flow_run(flow_run())
        """,
        store.url,
    )
    writer.line()
    told = []

    def tell(done, total):
        told.append(total)
        if len(told) == 1:  # from here on the other one writes
            writer.tell()
            until(lambda: len(store.registry.list_flow_runs(limit=30)) == 30)

    mark = len(store.registry.list_flow_runs())
    # It reads through a connection of its own, as a command does.
    other = open_upkeep(store.url)
    other.back_up(tmp_path / "backup", told=tell)
    other.close()
    writer.kill()
    assert len(told) > 2
    backup = open_registry(f"{kind}:///{tmp_path / 'backup'}", read_only=True)
    assert len(backup.list_flow_runs()) == mark == 1
    assert {*told} == {told[0]}
    backup.close()


def test_a_backup_that_cannot_be_written_is_an_error_of_the_output(upkeep, tmp_path):
    with pytest.raises(OutputError, match="missing"):
        upkeep.back_up(tmp_path / "missing" / "backup", told=lambda *_: None)
    (tmp_path / "there").touch()
    with pytest.raises(OutputError):
        upkeep.back_up(tmp_path / "there", told=lambda *_: None)


def test_who_interrupts_a_backup_can_go_on_to_use_the_registry(store, upkeep, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upkeep.back_up(tmp_path / "backup", told=interrupt)
    run = store.add_flow_run()
    assert store.registry.find_flow_run(run.id) == run


# What is not needed


def test_only_what_ended_before_a_time_is_not_needed_oldest_first(store, upkeep, ended):
    older, old, _new = ended(5), ended(3), ended(1)
    store.add_flow_run()
    found = upkeep.list_prunable_flow_runs(Prunable(before=now() - 2 * DAY))
    assert ids(found) == [older.id, old.id]
    assert (found[0].flow_name, found[0].ended_at) == ("my-flow", older.ended_at)


def test_what_has_not_ended_is_always_needed(store, upkeep):
    store.add_flow_run(Running())
    store.add_flow_run(Scheduled())
    store.add_flow_run(Paused())
    assert upkeep.list_prunable_flow_runs(Prunable()) == []


def test_states_and_flows_say_which_runs_are_not_needed(upkeep, ended):
    good, bad, other = ended(3), ended(3, Failed()), ended(3, flow_name="other")
    assert ids(upkeep.list_prunable_flow_runs(Prunable(states=["failed"]))) == [bad.id]
    assert ids(upkeep.list_prunable_flow_runs(Prunable(flow_names=["other"]))) == [other.id]
    both = Prunable(states=["completed"], flow_names=["my-flow"])
    assert ids(upkeep.list_prunable_flow_runs(both)) == [good.id]


def test_the_newest_runs_of_each_flow_are_needed_whatever_their_state(store, upkeep, ended):
    oldest, _newer = ended(5), ended(4)
    store.add_flow_run()
    ended(5, flow_name="other")
    assert ids(upkeep.list_prunable_flow_runs(Prunable(keep=2))) == [oldest.id]


def test_subflow_runs_go_with_the_run_that_called_them_and_before_it(upkeep, ended):
    parent = ended(5)
    child = ended(5, flow_name="sub", parent_flow_run_id=parent.id)
    grandchild = ended(5, flow_name="sub", parent_flow_run_id=child.id)
    ended(5, flow_name="sub", parent_flow_run_id=ended(1).id)
    found = upkeep.list_prunable_flow_runs(Prunable(before=now() - 2 * DAY))
    assert ids(found) == [grandchild.id, child.id, parent.id]
    # The conditions are those of the run on top.
    assert upkeep.list_prunable_flow_runs(Prunable(flow_names=["sub"])) == []
    found = upkeep.list_prunable_flow_runs(Prunable(flow_names=["my-flow"], keep=1))
    assert ids(found) == [grandchild.id, child.id, parent.id]


def test_a_run_with_a_subflow_run_that_goes_on_is_needed(store, upkeep, ended):
    parent = ended(5)
    store.add_flow_run(parent_flow_run_id=parent.id)
    assert upkeep.list_prunable_flow_runs(Prunable()) == []


def test_a_subflow_run_whose_parent_is_deleted_stands_for_itself(store, upkeep, ended):
    parent = ended(5)
    child = ended(5, parent_flow_run_id=parent.id)
    store.registry.upkeep.delete_flow_runs([parent.id], Deleted())
    assert ids(upkeep.list_prunable_flow_runs(Prunable())) == [child.id]


# Deleting


def test_what_belongs_to_a_run_is_deleted_with_it_and_nothing_else(store, upkeep, ended, line):
    runs, tasks = [store.add_flow_run(), store.add_flow_run()], []
    for run in runs:
        tasks.append(store.registry.change_state(store.add_task_run(run), Completed()))
        store.registry.add_log_line(line(run, "hello", task_run=tasks[-1]))
    store.registry.flush_logs()
    deleted = Deleted()
    assert upkeep.delete_flow_runs([runs[0].id], deleted) == 1
    assert (deleted.flow_run_ids, deleted.task_run_ids) == ([runs[0].id], [tasks[0].id])
    registry = store.open_again()
    assert registry.list_flow_runs() == [runs[1]]
    assert registry.list_task_runs() == [tasks[1]]
    assert store.messages(runs[0]) == []
    assert store.messages(runs[1]) == ["hello"]
    assert len(registry.state_history(tasks[1])) == 2
    assert registry.upkeep.faults(is_quick=False) == []


def test_what_is_not_there_is_passed_over(store, upkeep):
    run, deleted = store.add_flow_run(), Deleted()
    assert upkeep.delete_flow_runs([new_id(), run.id, new_id()], deleted) == 3
    assert deleted.flow_run_ids == [run.id]
    assert upkeep.delete_flow_runs([], deleted) == 0


def test_a_run_with_many_task_runs_is_deleted_in_several_steps(store, upkeep, task_run):
    large, small = store.add_flow_run(), store.add_flow_run()
    tasks = [task_run(large) for _ in range(1_200)]
    store.registry.create_task_runs(tasks)
    gone, steps = delete(upkeep, [large.id, small.id])
    assert gone.flow_run_ids == [large.id, small.id]
    assert {*gone.task_run_ids} == {task.id for task in tasks}
    assert steps >= 3
    assert store.registry.list_task_runs() == []


def test_many_runs_are_deleted_in_several_short_steps(store, upkeep, monkeypatch):
    # Without a look at a clock: no time at all is allowed for a step.
    monkeypatch.setattr("prefectlite.upkeep_tables._DELETE_SECONDS", 0.0)
    runs = [store.add_flow_run() for _ in range(3)]
    gone, steps = delete(upkeep, ids(runs))
    assert (gone.flow_run_ids, steps) == (ids(runs), 3)


def test_a_cache_key_whose_result_is_lost_is_forgotten(store, upkeep):
    run = store.add_flow_run()
    kept, lost = store.add_task_run(run), new_id()
    for number in range(3):
        store.registry.save_cached_result(CachedResult(f"lost {number}", lost, None))
    store.registry.save_cached_result(CachedResult("kept", kept.id, now() + DAY))
    store.registry.save_cached_result(CachedResult("expired", kept.id, now() - DAY))
    upkeep.forget_lost_results()
    assert upkeep.contents().rows["cached_results"] == 1
    assert store.registry.find_cached_result("kept", at=now()) is not None


def test_space_that_is_given_back_is_free_no_more(store, upkeep, line):
    run = store.add_flow_run()
    for _ in range(50):
        store.registry.add_log_line(line(run, "x" * 4_000))
    store.registry.flush_logs()
    other = store.add_flow_run()
    delete(upkeep, [run.id])
    before = upkeep.storage()
    assert before.free_bytes > 100_000
    upkeep.give_back_space()
    after = upkeep.storage()
    assert after.free_bytes == 0
    assert after.file_bytes <= before.file_bytes - before.free_bytes
    assert store.open_again().list_flow_runs() == [replace(other)]
