"""What is true of every registry: finding runs, and changing their states."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from prefectlite.errors import (
    AmbiguousReferenceError,
    FlowRunNotRunningError,
    NotFoundError,
    StateConflictError,
)
from prefectlite.names import new_id
from prefectlite.states import (
    FINAL,
    TRANSITIONS,
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
    State,
    StateType,
)

PAIRS = list(itertools.product(StateType, StateType))


def as_is(name):
    return State(StateType[name], name.title())


# Finding a run


def test_a_run_is_found_by_its_id_a_prefix_of_it_or_its_name(store):
    run = store.add_flow_run(name="gigantic-cockatoo")
    store.add_flow_run(name="calm-otter")
    for reference in (run.id, run.id.upper(), run.id[:13], "gigantic-cockatoo"):
        assert store.registry.find_flow_run(reference) == run


def test_a_task_run_is_found_by_its_id_a_prefix_of_it_or_its_name(store):
    flow_run = store.add_flow_run()
    run = store.add_task_run(flow_run, name="clean-0")
    store.add_task_run(flow_run, name="load-0")
    for reference in (run.id, run.id.upper(), run.id[:13], "clean-0"):
        assert store.registry.find_task_run(reference) == run


def test_a_found_run_is_the_run_that_was_put_on_record_to_the_last_field(store):
    moment = datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)
    flow_run = store.add_flow_run(
        Running("a message"),
        parameters={"text": "ä", "number": 1.5, "none": None, "list": [1, {"a": True}]},
        tags=("one", "zwei ü"),
        version="2.0",
        entrypoint="flows.py:my_flow",
        parent_flow_run_id=new_id(),
        parent_task_run_id=new_id(),
        run_count=3,
        created_at=moment,
        started_at=moment + timedelta(microseconds=1),
        ended_at=moment + timedelta(days=1),
    )
    task_run = store.add_task_run(
        flow_run,
        tags=("x",),
        parent_task_run_id=new_id(),
        cache_key="key",
        run_count=2,
        created_at=moment,
        started_at=moment,
        ended_at=moment,
    )
    registry = store.open_again()
    assert registry.find_flow_run(flow_run.id) == flow_run
    assert registry.find_task_run(task_run.id) == task_run


def ids_of(error):
    return [candidate.partition(" ")[0] for candidate in error.candidates]


def test_an_ambiguous_name_lists_its_candidates_newest_first(store):
    older, newer = store.add_flow_run(name="twin"), store.add_flow_run(name="twin")
    with pytest.raises(AmbiguousReferenceError) as caught:
        store.registry.find_flow_run("twin")
    assert ids_of(caught.value) == [newer.id, older.id]
    assert older.id in str(caught.value)


def test_an_ambiguous_prefix_of_task_runs_lists_their_own_ids(store):
    flow_run = store.add_flow_run()
    runs = [store.add_task_run(flow_run, id=f"0000000{digit}" + new_id()[8:]) for digit in "12"]
    with pytest.raises(AmbiguousReferenceError) as caught:
        store.registry.find_task_run("0000000")
    assert ids_of(caught.value) == [runs[1].id, runs[0].id]


def test_at_most_ten_candidates_are_listed(store):
    runs = [store.add_flow_run(name="twin") for _ in range(12)]
    with pytest.raises(AmbiguousReferenceError) as caught:
        store.registry.find_flow_run("twin")
    assert ids_of(caught.value) == [run.id for run in reversed(runs[2:])]


def test_a_whole_id_wins_over_a_run_that_has_it_as_its_name(store):
    run = store.add_flow_run()
    store.add_flow_run(name=run.id)
    assert store.registry.find_flow_run(run.id) == run


@pytest.mark.parametrize("reference", ["nothing", "", "%", "*", "0' OR '1'='1", "\udce4", "\0"])
def test_what_means_no_run_is_not_found(store, reference):
    store.add_task_run(store.add_flow_run())
    with pytest.raises(NotFoundError) as caught:
        store.registry.find_flow_run(reference)
    assert caught.value.hint
    with pytest.raises(NotFoundError):
        store.registry.find_task_run(reference)


# Changing a state


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_a_flow_run_changes_state_where_the_table_allows_it_and_nowhere_else(store, before, after):
    run = store.add_flow_run(as_is(before))
    check_change(store, run, after, store.registry.find_flow_run)


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_a_task_run_changes_state_where_the_table_allows_it_and_nowhere_else(store, before, after):
    run = store.add_task_run(store.add_flow_run(), as_is(before))
    check_change(store, run, after, store.registry.find_task_run)


def check_change(store, run, after, find):
    if after in TRANSITIONS[run.state.type]:
        changed = store.registry.change_state(run, as_is(after))
        assert changed.state.type is after
        assert find(run.id) == changed
    else:
        with pytest.raises(StateConflictError) as caught:
            store.registry.change_state(run, as_is(after))
        assert caught.value.current == run.state
        assert find(run.id) == run


@pytest.mark.parametrize("final", sorted(FINAL))
def test_a_final_state_never_changes_even_for_one_who_saw_the_run_before_it_ended(store, final):
    run = store.add_flow_run()
    ended = store.registry.change_state(run, as_is(final))
    # A snapshot that never was: the version of the present, the state of the past.
    for snapshot in (run, ended, replace(run, state_version=ended.state_version)):
        for proposed in StateType:
            with pytest.raises(StateConflictError):
                store.registry.change_state(snapshot, as_is(proposed))
    assert store.registry.find_flow_run(run.id) == ended


def test_a_stale_snapshot_loses_and_is_told_what_it_lost_to(store):
    run = store.add_flow_run()
    store.registry.change_state(run, Cancelling("by hand"))
    with pytest.raises(StateConflictError) as caught:
        store.registry.change_state(run, Completed())
    assert str(caught.value.current) == "Cancelling('by hand')"
    assert store.registry.find_flow_run(run.id).state.name == "Cancelling"


def test_a_stale_snapshot_of_a_task_run_loses_too(store):
    run = store.add_task_run(store.add_flow_run())
    store.registry.change_state(run, Crashed())
    with pytest.raises(StateConflictError) as caught:
        store.registry.change_state(run, Completed())
    assert caught.value.current.is_crashed()


def test_a_run_that_came_back_to_the_same_state_is_not_the_one_that_was_seen(store):
    seen = store.add_flow_run()
    paused = store.registry.change_state(seen, Paused())
    store.registry.change_state(paused, Running())
    with pytest.raises(StateConflictError):
        store.registry.change_state(seen, Failed())


def test_a_run_that_is_not_on_record_cannot_change(store, flow_run, task_run):
    with pytest.raises(NotFoundError):
        store.registry.change_state(flow_run(), Completed())
    with pytest.raises(NotFoundError):
        store.registry.change_state(task_run(store.add_flow_run()), Completed())


def test_the_history_has_every_state_with_its_time_message_and_actor_in_order(store):
    run = store.add_flow_run(Scheduled("at noon"))
    states = [run.state]
    for state in (Pending(), Running(), Paused("wait"), Running(), Failed("it broke")):
        run = store.registry.change_state(run, state)
        states.append(state)
    history = store.open_again().state_history(run)
    assert [change.state for change in history] == states
    assert [change.version for change in history] == [1, 2, 3, 4, 5, 6]
    assert all("@" in change.actor and ":" in change.actor for change in history)


def test_a_task_run_has_a_history_too(store):
    run = store.add_task_run(store.add_flow_run(), Pending())
    for state in (Running(), Completed("done")):
        run = store.registry.change_state(run, state)
    names = [change.state.name for change in store.registry.state_history(run)]
    assert names == ["Pending", "Running", "Completed"]


def test_a_refused_change_leaves_no_trace_in_the_history(store):
    run = store.add_flow_run(Completed())
    with pytest.raises(StateConflictError):
        store.registry.change_state(run, Running())
    assert len(store.registry.state_history(run)) == 1


def test_each_attempt_counts_and_the_first_one_is_the_start(store):
    run = store.add_flow_run(Pending())
    attempts = [Running(), AwaitingRetry(), Running(name="Retrying"), Completed()]
    for state in attempts:
        run = store.registry.change_state(run, state)
    found = store.registry.find_flow_run(run.id)
    assert found == run
    assert found.run_count == 2
    assert found.started_at == attempts[0].timestamp
    assert found.ended_at == attempts[-1].timestamp


def test_a_pause_is_no_new_attempt_and_no_end(store):
    run = store.add_flow_run(Pending())
    for state in (Running(), Paused()):
        run = store.registry.change_state(run, state)
    assert store.registry.find_flow_run(run.id).ended_at is None
    run = store.registry.change_state(run, Running())
    assert store.registry.find_flow_run(run.id).run_count == 1


def test_a_run_that_never_started_has_no_start(store):
    run = store.registry.change_state(store.add_flow_run(Scheduled()), Cancelled())
    found = store.registry.find_flow_run(run.id)
    assert found.started_at is None
    assert found.run_count == 0
    assert found.ended_at == run.state.timestamp


# Tasks of a flow run that is not Running


@pytest.mark.parametrize("type_", [type_ for type_ in StateType if type_ != "RUNNING"])
def test_no_task_run_is_created_unless_its_flow_run_is_running(store, task_run, type_):
    flow_run = store.add_flow_run(as_is(type_))
    with pytest.raises(FlowRunNotRunningError) as caught:
        store.registry.create_task_runs([task_run(flow_run)])
    assert caught.value.current == flow_run.state
    assert store.registry.list_task_runs() == []


def test_a_task_run_of_an_unknown_flow_run_is_not_created(store, flow_run, task_run):
    with pytest.raises(NotFoundError):
        store.registry.create_task_runs([task_run(flow_run())])


def test_task_runs_are_created_all_or_none(store, flow_run, task_run):
    known, unknown = store.add_flow_run(), flow_run()
    with pytest.raises((FlowRunNotRunningError, NotFoundError)):
        store.registry.create_task_runs([task_run(known), task_run(known), task_run(unknown)])
    assert store.registry.list_task_runs() == []
    store.registry.create_task_runs([task_run(known, name=str(number)) for number in range(50)])
    assert [run.name for run in store.registry.list_task_runs(limit=2)] == ["49", "48"]
    assert len(store.registry.list_task_runs()) == 50


def test_creating_no_task_runs_is_nothing(store):
    store.registry.create_task_runs([])


def test_a_task_that_was_submitted_before_a_pause_still_starts_and_ends(store):
    flow_run = store.add_flow_run()
    run = store.add_task_run(flow_run, Pending())
    store.registry.change_state(flow_run, Paused())
    run = store.registry.change_state(run, Running())
    assert store.registry.change_state(run, Completed()).state.is_completed()


@pytest.mark.parametrize("waiting", [Pending(), AwaitingRetry()], ids=["first", "retry"])
@pytest.mark.parametrize("end", [Cancelling(), Cancelled(), Completed(), Failed(), Crashed()])
def test_no_task_starts_once_its_flow_run_is_cancelling_or_final(store, end, waiting):
    flow_run = store.add_flow_run()
    run = store.add_task_run(flow_run, waiting)
    store.registry.change_state(flow_run, end)
    with pytest.raises(FlowRunNotRunningError) as caught:
        store.registry.change_state(run, Running())
    assert caught.value.current == end
    assert store.registry.find_task_run(run.id) == run


def test_a_running_task_of_a_flow_run_that_is_over_can_still_end(store):
    flow_run = store.add_flow_run()
    run = store.add_task_run(flow_run)
    store.registry.change_state(flow_run, Cancelling())
    assert store.registry.change_state(run, Cancelled()).state.is_cancelled()
