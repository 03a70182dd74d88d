"""What is true of every registry, whatever keeps its records."""

import itertools
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from prefectlite.clock import now
from prefectlite.errors import (
    AmbiguousReferenceError,
    FlowRunNotRunningError,
    NotFoundError,
    RegistryReadOnlyError,
    SettingError,
    StateConflictError,
)
from prefectlite.names import new_id
from prefectlite.records import CachedResult
from prefectlite.registry import open_registry
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
#: Texts that some store somewhere has got wrong.
HOSTILE_TEXTS = ["Grüße, 世界", "👩‍👩‍👧", "a\0b", "'; DROP TABLE flow_run; --", "%_\\", "\r\n\t", " "]


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


def test_an_ambiguous_name_lists_its_candidates_newest_first(store):
    older, newer = store.add_flow_run(name="twin"), store.add_flow_run(name="twin")
    with pytest.raises(AmbiguousReferenceError) as caught:
        store.registry.find_flow_run("twin")
    assert caught.value.candidates == (newer.id, older.id)
    assert older.id in str(caught.value)


def test_an_ambiguous_prefix_of_task_runs_lists_their_own_ids(store):
    flow_run = store.add_flow_run()
    runs = [store.add_task_run(flow_run, id=f"0000000{digit}" + new_id()[8:]) for digit in "12"]
    with pytest.raises(AmbiguousReferenceError) as caught:
        store.registry.find_task_run("0000000")
    assert caught.value.candidates == (runs[1].id, runs[0].id)


def test_at_most_ten_candidates_are_listed(store):
    runs = [store.add_flow_run(name="twin") for _ in range(12)]
    with pytest.raises(AmbiguousReferenceError) as caught:
        store.registry.find_flow_run("twin")
    assert caught.value.candidates == tuple(run.id for run in reversed(runs[2:]))


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


# Log lines


def test_a_line_is_recorded_with_the_next_write(store, line):
    run = store.add_flow_run()
    store.registry.add_log_line(line(run, "hello"))
    store.registry.change_state(run, Completed())
    assert store.messages(run) == ["hello"]


def test_a_line_is_recorded_by_a_flush_and_by_closing(store, line):
    run = store.add_flow_run()
    store.registry.add_log_line(line(run, "flushed"))
    store.registry.flush_logs()
    assert store.messages(run) == ["flushed"]
    store.registry.add_log_line(line(run, "closed"))
    store.open_again()
    assert store.messages(run) == ["flushed", "closed"]


def test_lines_are_kept_if_the_write_that_would_record_them_is_refused(store, line):
    run = store.add_flow_run(Completed())
    for message in ("one", "two"):
        store.registry.add_log_line(line(run, message))
    with pytest.raises(StateConflictError):
        store.registry.change_state(run, Running())
    store.registry.add_log_line(line(run, "three"))
    store.registry.flush_logs()
    store.registry.flush_logs()
    assert store.messages(run) == ["one", "two", "three"]


def test_lines_of_many_threads_are_all_recorded_once_each_threads_in_order(store, line):
    run = store.add_flow_run()

    def write(name):
        for number in range(200):
            store.registry.add_log_line(line(run, f"{name}:{number}"))
            if number % 7 == name:
                store.registry.flush_logs()

    in_threads(write, range(6))
    store.registry.flush_logs()
    messages = store.messages(run)
    for name in range(6):
        own = [message for message in messages if message.startswith(f"{name}:")]
        assert own == [f"{name}:{number}" for number in range(200)]
    assert len(messages) == 6 * 200


@pytest.mark.parametrize("message", [*HOSTILE_TEXTS, "x" * 10_000_000], ids=range(8))
def test_a_message_is_recorded_as_it_is(store, line, message):
    run = store.add_flow_run()
    store.registry.add_log_line(line(run, message))
    store.registry.flush_logs()
    assert store.open_again().read_logs(run.id)[0].message == message


def test_a_lone_surrogate_is_recorded_escaped_wherever_it_stands(store, line, flow_run):
    bad = "caf\udce9"
    run = flow_run(Running(bad, name=bad), name=bad, flow_name=bad, version=bad, entrypoint=bad)
    store.registry.create_flow_run(run)
    task_run = store.add_task_run(run, Running(bad), name=bad, task_name=bad, cache_key=bad)
    store.registry.add_log_line(replace(line(run, bad), logger=bad))
    store.registry.change_state(task_run, Failed(bad))
    ended = store.registry.change_state(run, Failed(f"no such file: {bad}"))
    assert ended.state.is_failed()
    found = store.registry.find_flow_run(bad)
    assert (found.id, found.name) == (run.id, "caf\\udce9")
    assert found.state.message == "no such file: caf\\udce9"
    assert store.messages(run) == ["caf\\udce9"]
    assert store.registry.list_flow_runs(flow_names=[bad], states=[bad]) == []
    assert store.registry.list_flow_runs(flow_names=[bad]) == [found]
    store.registry.save_cached_result(CachedResult(bad, task_run.id, None))
    assert store.registry.find_cached_result(bad, at=now()) is not None


def test_read_logs_gives_what_comes_after_a_position_at_most_so_many(store, line):
    run, other = store.add_flow_run(), store.add_flow_run()
    for number in range(10):
        store.registry.add_log_line(line(run, str(number)))
        store.registry.add_log_line(line(other, "other"))
    store.registry.flush_logs()
    first = store.registry.read_logs(run.id, limit=4)
    assert [line.message for line in first] == ["0", "1", "2", "3"]
    assert store.messages(run, after=first[-1].position) == ["4", "5", "6", "7", "8", "9"]
    assert store.messages(run, after=first[-1].position, limit=1) == ["4"]
    last = store.registry.read_logs(run.id)[-1]
    assert store.messages(run, after=last.position) == []


def test_read_logs_gives_the_lines_of_one_task_run_if_asked(store, line):
    run = store.add_flow_run()
    one, two = store.add_task_run(run), store.add_task_run(run)
    store.registry.add_log_line(line(run, "of the flow"))
    store.registry.add_log_line(line(run, "of one", task_run=one))
    store.registry.add_log_line(line(run, "of two", task_run=two))
    store.registry.flush_logs()
    assert store.messages(run, task_run_id=one.id) == ["of one"]
    assert store.messages(run) == ["of the flow", "of one", "of two"]


def test_a_line_is_read_as_it_was_added(store, line):
    run = store.add_flow_run()
    added = line(run, "hello", task_run=store.add_task_run(run))
    store.registry.add_log_line(added)
    store.registry.flush_logs()
    (found,) = store.registry.read_logs(run.id)
    assert replace(found, position=0) == added
    assert found.position > 0


def test_a_line_of_a_run_that_is_gone_is_dropped_and_holds_up_nothing(store, line, flow_run):
    store.registry.add_log_line(line(flow_run(), "too late"))
    run = store.add_flow_run()
    store.registry.add_log_line(line(run, "hello"))
    store.registry.flush_logs()
    assert store.messages(run) == ["hello"]


def test_a_line_that_cannot_be_recorded_is_its_callers_error_and_nobody_elses(store, line):
    run = store.add_flow_run()
    with pytest.raises(TypeError):
        store.registry.add_log_line(replace(line(run, "x"), timestamp=datetime(2024, 1, 1)))  # noqa: DTZ001 - the fault
    assert store.registry.change_state(run, Completed()).state.is_completed()


# Listing, counting, deleting, caching


def test_a_listing_is_newest_first_and_at_most_so_long(store):
    runs = [store.add_flow_run(name=str(number)) for number in range(5)]
    assert store.registry.list_flow_runs() == runs[::-1]
    assert store.registry.list_flow_runs(limit=2) == runs[:2:-1]
    assert store.registry.list_flow_runs(limit=0) == []
    assert store.registry.list_flow_runs(limit=None) == runs[::-1]


def test_a_listing_has_200_runs_unless_told_otherwise(store, task_run):
    flow_run = store.add_flow_run()
    store.registry.create_task_runs([task_run(flow_run) for _ in range(201)])
    assert len(store.registry.list_task_runs()) == 200
    assert len(store.registry.list_task_runs(limit=None)) == 201


def test_a_listing_filters_by_the_name_or_type_of_states_in_any_case(store):
    running, timed_out = store.add_flow_run(), store.add_flow_run(Failed(name="TimedOut"))
    failed, custom = store.add_flow_run(Failed()), store.add_flow_run(Completed(name="Übrig"))

    def listed(*states):
        return store.registry.list_flow_runs(states=states)

    assert listed("running") == [running]
    assert listed("FAILED") == [failed, timed_out]
    assert listed("timedout") == [timed_out]
    assert listed("Running", "TimedOut") == [timed_out, running]
    assert listed("Übrig") == [custom]
    assert listed("nonsense") == []


def test_a_listing_filters_by_flow_and_by_parent(store):
    parent = store.add_flow_run(flow_name="outer")
    child = store.add_flow_run(flow_name="inner", parent_flow_run_id=parent.id)
    assert store.registry.list_flow_runs(flow_names=["outer"]) == [parent]
    assert store.registry.list_flow_runs(flow_names=["outer", "inner"]) == [child, parent]
    assert store.registry.list_flow_runs(parent_flow_run_id=parent.id) == [child]
    assert store.registry.list_flow_runs(flow_names=["outer"], states=["completed"]) == []


def test_task_runs_are_listed_and_counted_by_flow_run_and_state(store):
    one, two = store.add_flow_run(), store.add_flow_run()
    done = store.add_task_run(one, Completed())
    running = store.add_task_run(one)
    other = store.add_task_run(two)
    assert store.registry.list_task_runs(flow_run_id=one.id) == [running, done]
    assert store.registry.list_task_runs(flow_run_id=one.id, states=["completed"]) == [done]
    assert store.registry.list_task_runs(states=["running"]) == [other, running]
    assert store.registry.list_task_runs(flow_run_id=new_id()) == []
    assert store.registry.count_task_runs(one.id) == {"Completed": 1, "Running": 1}
    assert store.registry.count_task_runs(new_id()) == {}


def test_deleting_a_flow_run_takes_all_that_is_its_own_and_leaves_its_subflow_runs(store, line):
    parent, bystander = store.add_flow_run(), store.add_flow_run()
    child = store.add_flow_run(parent_flow_run_id=parent.id)
    task_run, kept = store.add_task_run(parent), store.add_task_run(child)
    for run in (parent, child, bystander):
        store.registry.add_log_line(line(run, "hello"))
    store.registry.flush_logs()
    store.registry.delete_flow_run(parent.id)
    registry = store.open_again()
    assert registry.list_flow_runs() == [child, bystander]
    assert registry.list_task_runs() == [kept]
    assert registry.state_history(parent) == []
    assert registry.state_history(task_run) == []
    assert registry.read_logs(parent.id) == []
    assert store.messages(child) == ["hello"]


def test_a_run_that_is_created_after_a_deletion_inherits_nothing(store, line):
    run = store.add_flow_run()
    store.add_task_run(run)
    store.registry.add_log_line(line(run, "old"))
    store.registry.flush_logs()
    store.registry.delete_flow_run(run.id)
    new = store.add_flow_run()
    assert store.registry.list_task_runs(flow_run_id=new.id) == []
    assert store.registry.read_logs(new.id) == []
    assert len(store.registry.state_history(new)) == 1


def test_deleting_what_is_not_there_is_not_found(store):
    with pytest.raises(NotFoundError):
        store.registry.delete_flow_run(new_id())


def test_a_cached_result_is_found_until_it_expires(store):
    at = now()
    store.registry.save_cached_result(CachedResult("key", new_id(), at))
    assert store.registry.find_cached_result("key", at=at - timedelta(microseconds=1)) is not None
    assert store.registry.find_cached_result("key", at=at) is None
    assert store.registry.find_cached_result("other", at=at) is None


def test_a_cached_result_is_replaced_by_a_newer_one_and_may_last_for_ever(store):
    newer = CachedResult("Grüße 世界\0", new_id(), None)
    store.registry.save_cached_result(CachedResult(newer.cache_key, new_id(), now()))
    store.registry.save_cached_result(newer)
    far = datetime(9999, 1, 1, tzinfo=UTC)
    assert store.open_again().find_cached_result(newer.cache_key, at=far) == newer


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_every_text_of_a_run_comes_back_as_it_was(store, text):
    flow_run = store.add_flow_run(
        Running(text, name=text),
        name=text,
        flow_name=text,
        parameters={text: text},
        tags=(text,),
        version=text,
        entrypoint=text,
    )
    task_run = store.add_task_run(
        flow_run, Running(text), name=text, task_name=text, tags=(text,), cache_key=text
    )
    registry = store.open_again()
    assert registry.find_flow_run(text) == flow_run
    assert registry.find_task_run(text) == task_run
    assert registry.list_flow_runs(flow_names=[text], states=[text]) == [flow_run]
    assert registry.count_task_runs(flow_run.id) == {"Running": 1}


# Opening and closing, threads and processes


def test_one_address_is_one_object_until_it_is_closed(store):
    assert open_registry(store.url) is store.registry
    closed = store.registry
    assert store.open_again() is not closed


def test_closing_twice_is_nothing_and_a_later_use_opens_again(store):
    run = store.add_flow_run()
    store.registry.close()
    store.registry.close()
    assert store.registry.change_state(run, Completed()).state.is_completed()
    assert store.registry.find_flow_run(run.id).state.is_completed()


def test_a_registry_that_is_opened_for_reading_refuses_every_write(store, flow_run, line):
    run = store.add_flow_run()
    reader = open_registry(store.url, read_only=True)
    try:
        assert reader.find_flow_run(run.id) == run
        for write in (
            lambda: reader.create_flow_run(flow_run()),
            lambda: reader.change_state(run, Completed()),
            lambda: reader.delete_flow_run(run.id),
        ):
            with pytest.raises(RegistryReadOnlyError):
                write()
        # A reader sees what others write afterwards.
        store.registry.change_state(run, Completed())
        assert reader.find_flow_run(run.id).state.is_completed()
    finally:
        reader.close()


@pytest.mark.parametrize("url", ["", "registry.db", "nothing:x", "migrations:x", "__init__:x"])
def test_an_address_that_means_no_registry_is_an_error_of_the_settings(url):
    with pytest.raises(SettingError):
        open_registry(url)


def test_of_threads_that_race_for_one_change_exactly_one_wins(store):
    for _ in range(20):
        run = store.add_flow_run(Scheduled())
        wins, losses = [], []
        barrier = threading.Barrier(4)

        def claim(name, run=run, wins=wins, losses=losses, barrier=barrier):
            barrier.wait()
            try:
                wins.append(store.registry.change_state(run, Pending(name)))
            except StateConflictError as conflict:
                losses.append(conflict.current)

        in_threads(claim, "abcd")
        assert len(wins) == 1
        assert losses == [wins[0].state] * 3


def test_threads_that_hammer_one_registry_lose_nothing(store, line):
    def work(_):
        for _ in range(10):
            flow_run = store.add_flow_run()
            store.registry.add_log_line(line(flow_run, "hello"))
            run = store.registry.change_state(store.add_task_run(flow_run, Pending()), Running())
            store.registry.change_state(run, Completed())
            assert store.registry.list_task_runs(flow_run_id=flow_run.id)[0].state.is_completed()
            store.registry.change_state(flow_run, Completed())

    in_threads(work, range(6))
    runs = store.open_again().list_flow_runs(limit=None)
    assert len(runs) == 60
    assert all(run.state.is_completed() for run in runs)
    assert all(store.messages(run) == ["hello"] for run in runs)


def in_threads(work, items):
    errors = []

    def guarded(item):
        try:
            work(item)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


RACE = """
registry = open_registry(sys.argv[1])
runs = [registry.find_flow_run(id_) for id_ in sys.argv[3:]]
ready()
for run in runs:
    try:
        registry.change_state(run, Pending(sys.argv[2]))
    except StateConflictError as conflict:
        print("lost", conflict.current.message)
    else:
        print("won", sys.argv[2])
"""


def test_of_processes_that_race_for_one_change_exactly_one_wins(store, start):
    runs = [store.add_flow_run(Scheduled()) for _ in range(300)]
    racers = [start(RACE, store.url, name, *(run.id for run in runs)) for name in ("one", "two")]
    for racer in racers:
        racer.line()
    for racer in racers:
        racer.tell()
    results = [racer.end().split("\n")[:-1] for racer in racers]
    for run, one, two in zip(runs, *results, strict=True):
        winner = store.registry.find_flow_run(run.id).state.message
        assert sorted([one, two]) == [f"lost {winner}", f"won {winner}"]
        assert len(store.registry.state_history(run)) == 2
