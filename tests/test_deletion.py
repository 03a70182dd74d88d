"""Flow runs are deleted with what they stored, a few at a time, and what is gone is always said."""

import pytest

from prefectlite import deletion, upkeep_tables
from prefectlite.clock import now
from prefectlite.deletion import delete_flow_runs
from prefectlite.errors import OutputError
from prefectlite.names import new_id
from prefectlite.records import FlowRun, TaskRun
from prefectlite.results import results_folder, store_result
from prefectlite.states import Running
from prefectlite.upkeep_records import Deleted


@pytest.fixture
def add(registry):
    """Put a flow run with a task run on record; both have stored a result. Returns their ids."""

    def add_run():
        run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running())
        registry.create_flow_run(run)
        task_run = TaskRun(
            id=new_id(),
            name="t",
            task_name="t",
            flow_run_id=run.id,
            state=Running(),
            created_at=now(),
        )
        registry.create_task_runs([task_run])
        for id_ in (run.id, task_run.id):
            store_result(id_, "value")
        return run.id, task_run.id

    return add_run


@pytest.fixture
def stored():
    return lambda: {path.name for path in results_folder().iterdir()}


def delete(registry, ids):
    told = []
    delete_flow_runs(registry, ids, told.append)
    return told


def test_what_a_run_and_its_task_runs_stored_goes_with_them(registry, add, stored):
    gone, kept = add(), add()
    told = delete(registry, [gone[0]])
    assert told == [Deleted([gone[0]], [gone[1]])]
    assert stored() == {*kept}
    assert [run.id for run in registry.list_flow_runs()] == [kept[0]]


def test_what_was_deleted_by_another_is_passed_over(registry, add):
    run = add()
    told = delete(registry, [new_id(), run[0], new_id()])
    assert [id_ for one in told for id_ in one.flow_run_ids] == [run[0]]


def test_nothing_is_told_of_nothing(registry):
    assert delete(registry, []) == []


def test_of_many_runs_each_is_told_once(registry, add, monkeypatch):
    monkeypatch.setattr(deletion, "_RUNS_AT_ONCE", 2)
    runs = [add() for _ in range(5)]
    told = delete(registry, [run[0] for run in runs])
    assert len(told) >= 3
    assert [id_ for one in told for id_ in one.flow_run_ids] == [run[0] for run in runs]


def test_others_get_their_turn_between_two_steps(registry, add, monkeypatch):
    naps = []
    monkeypatch.setattr(deletion, "_RUNS_AT_ONCE", 1)
    monkeypatch.setattr(deletion.time, "sleep", naps.append)
    steps = len(delete(registry, [add()[0] for _ in range(3)]))
    assert naps == [deletion._NAP_SECONDS] * (steps - 1)


def test_who_is_interrupted_right_after_the_write_is_told_what_is_gone(
    registry, add, stored, monkeypatch
):
    first, second = add(), add()
    write = type(registry.upkeep).delete_flow_runs
    told = []

    def interrupted(self, ids, deleted):
        write(self, ids[:1], deleted)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(registry.upkeep), "delete_flow_runs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        delete_flow_runs(registry, [first[0], second[0]], told.append)
    assert told == [Deleted([first[0]], [first[1]])]
    assert stored() == {*second}


def test_a_run_that_takes_several_writes_is_unfinished_until_the_last(registry, add, monkeypatch):
    statement = upkeep_tables._DELETE_TASK_RUNS.replace("LIMIT 500", "LIMIT 1")
    monkeypatch.setattr(upkeep_tables, "_DELETE_TASK_RUNS", statement)
    monkeypatch.setattr(upkeep_tables, "_TASK_RUNS_AT_ONCE", 1)
    run = add()
    write = type(registry.upkeep).delete_flow_runs
    told = []

    def interrupted(self, ids, deleted):
        if len(told) == 1:
            raise KeyboardInterrupt
        return write(self, ids, deleted)

    monkeypatch.setattr(type(registry.upkeep), "delete_flow_runs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        delete_flow_runs(registry, [run[0]], told.append)
    assert told == [Deleted([], [run[1]], run[0]), Deleted([], [], run[0])]
    assert delete(registry, [run[0]]) == [Deleted([run[0]], [])]


def test_a_result_that_cannot_be_deleted_is_said_and_the_others_are_deleted(registry, add, stored):
    run = add()
    path = results_folder() / run[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="cannot be deleted"):
        delete(registry, [run[0]])
    assert stored() == {run[0]}
    assert registry.list_flow_runs() == []
