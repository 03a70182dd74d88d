"""What is true of every registry: lines, listings, deletions, cached results, any text."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from prefectlite.clock import now
from prefectlite.errors import (
    StateConflictError,
)
from prefectlite.liveness import own_identity
from prefectlite.names import new_id
from prefectlite.records import CachedResult
from prefectlite.run_filters import FlowRunFilter, TaskRunFilter
from prefectlite.states import (
    Completed,
    Failed,
    Pending,
    Running,
    Scheduled,
)
from prefectlite.upkeep_records import Deleted

#: Texts that some store somewhere has got wrong.
HOSTILE_TEXTS = [
    "Grüße, 世界",
    "👩‍👩‍👧",
    "a\0b",
    "'; DROP TABLE flow_run; --",
    "%_\\",
    "\r\n\t",
    " ",
]


# Log lines


def test_a_line_is_recorded_with_the_next_write(store, line):
    run = store.add_flow_run()
    store.registry.add_log_line(line(run, "hello"))
    store.registry.change_state(run, Completed())
    assert store.messages(run) == ["hello"]


def test_the_lines_of_a_task_run_are_on_record_no_later_than_its_change(store, line):
    run = store.add_flow_run()
    task_run = store.add_task_run(run)
    store.registry.add_log_line(line(run, "before", task_run=task_run))
    store.registry.change_state(task_run, Completed())
    assert store.messages(run) == ["before"]


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


def test_lines_of_many_threads_are_all_recorded_once_each_threads_in_order(store, line, in_threads):
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
    store.registry.add_log_line(line(run, bad)._replace(logger=bad))
    store.registry.change_state(task_run, Failed(bad))
    ended = store.registry.change_state(run, Failed(f"no such file: {bad}"))
    assert ended.state.is_failed()
    found = store.registry.find_flow_run(bad)
    assert (found.id, found.name) == (run.id, "caf\\udce9")
    assert found.state.message == "no such file: caf\\udce9"
    assert store.messages(run) == ["caf\\udce9"]
    assert store.registry.list_flow_runs(FlowRunFilter(flow_names=[bad], states=[bad])) == []
    assert store.registry.list_flow_runs(FlowRunFilter(flow_names=[bad])) == [found]
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
    assert found._replace(position=0) == added
    assert found.position > 0


def test_lines_that_wait_are_known_until_they_are_on_record(store, line):
    run = store.add_flow_run()
    assert store.registry.unrecorded_seconds() is None
    store.registry.add_log_line(line(run, "one"))
    first = store.registry.unrecorded_seconds()
    store.registry.add_log_line(line(run, "two"))
    assert 0 <= first <= store.registry.unrecorded_seconds()
    store.registry.flush_logs()
    assert store.registry.unrecorded_seconds() is None


def test_very_many_lines_are_recorded_in_the_order_they_were_added(store, line):
    run = store.add_flow_run()
    told = [str(number) for number in range(1_234)]
    for text in told:
        store.registry.add_log_line(line(run, text))
    store.registry.flush_logs()
    assert store.messages(run) == told


def test_a_line_of_a_run_that_is_gone_is_dropped_and_holds_up_nothing(store, line, flow_run):
    store.registry.add_log_line(line(flow_run(), "too late"))
    run = store.add_flow_run()
    store.registry.add_log_line(line(run, "hello"))
    store.registry.flush_logs()
    assert store.messages(run) == ["hello"]


def test_a_line_that_cannot_be_recorded_is_its_callers_error_and_nobody_elses(store, line):
    run = store.add_flow_run()
    with pytest.raises(TypeError):
        store.registry.add_log_line(line(run, "x")._replace(timestamp=datetime(2024, 1, 1)))  # noqa: DTZ001 - the fault
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
        return store.registry.list_flow_runs(FlowRunFilter(states=states))

    assert listed("running") == [running]
    assert listed("FAILED") == [failed, timed_out]
    assert listed("timedout") == [timed_out]
    assert listed("Running", "TimedOut") == [timed_out, running]
    assert listed("Übrig") == [custom]
    assert listed("nonsense") == []


def test_a_listing_filters_by_flow_and_by_parent(store):
    parent = store.add_flow_run(flow_name="outer")
    child = store.add_flow_run(flow_name="inner", parent_flow_run_id=parent.id)
    assert store.registry.list_flow_runs(FlowRunFilter(flow_names=["outer"])) == [parent]
    assert store.registry.list_flow_runs(FlowRunFilter(flow_names=["outer", "inner"])) == [
        child,
        parent,
    ]
    assert store.registry.list_flow_runs(FlowRunFilter(parent_flow_run_id=parent.id)) == [child]
    assert (
        store.registry.list_flow_runs(FlowRunFilter(flow_names=["outer"], states=["completed"]))
        == []
    )


def test_task_runs_are_listed_and_counted_by_flow_run_and_state(store):
    one, two = store.add_flow_run(), store.add_flow_run()
    done = store.add_task_run(one, Completed())
    running = store.add_task_run(one)
    other = store.add_task_run(two)
    assert store.registry.list_task_runs(TaskRunFilter(flow_run_ids=[one.id])) == [running, done]
    assert store.registry.list_task_runs(
        TaskRunFilter(flow_run_ids=[one.id], states=["completed"])
    ) == [done]
    assert store.registry.list_task_runs(TaskRunFilter(states=["running"])) == [other, running]
    assert store.registry.list_task_runs(TaskRunFilter(flow_run_ids=[new_id()])) == []
    assert store.registry.count_task_runs(one.id) == {"Completed": 1, "Running": 1}
    assert store.registry.count_task_runs(new_id()) == {}


def test_deleting_a_flow_run_takes_all_that_is_its_own_and_leaves_its_subflow_runs(store, line):
    parent, bystander = store.add_flow_run(), store.add_flow_run()
    child = store.add_flow_run(parent_flow_run_id=parent.id)
    task_run, kept = store.add_task_run(parent), store.add_task_run(child)
    for run in (parent, child, bystander):
        store.registry.add_log_line(line(run, "hello"))
    store.registry.flush_logs()
    store.registry.upkeep.delete_flow_runs([parent.id], Deleted())
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
    store.registry.upkeep.delete_flow_runs([run.id], Deleted())
    new = store.add_flow_run()
    assert store.registry.list_task_runs(TaskRunFilter(flow_run_ids=[new.id])) == []
    assert store.registry.read_logs(new.id) == []
    assert len(store.registry.state_history(new)) == 1


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
    assert registry.list_flow_runs(FlowRunFilter(flow_names=[text], states=[text])) == [flow_run]
    assert registry.count_task_runs(flow_run.id) == {"Running": 1}


# Who runs a run


def test_to_begin_a_run_says_who_runs_it_and_is_a_change_like_any_other(store, flow_run):
    run = flow_run(Scheduled())
    store.registry.create_flow_run(run)
    begun = store.registry.begin_flow_run(run, Running(), own_identity())
    assert begun.process == own_identity()
    assert begun.infrastructure_pid == f"{os.uname().nodename}:{os.getpid()}"
    assert store.open_again().find_flow_run(run.id) == begun
    with pytest.raises(StateConflictError):  # by who saw it before
        store.registry.begin_flow_run(run, Running(), own_identity())


def test_an_infrastructure_that_is_named_already_stays(store, flow_run):
    run = flow_run(Pending(), infrastructure_pid="host:7")
    store.registry.create_flow_run(run)
    begun = store.registry.begin_flow_run(run, Running(), own_identity())
    assert store.registry.find_flow_run(run.id).infrastructure_pid == "host:7"
    assert begun.infrastructure_pid == "host:7"


def test_the_runs_that_a_process_has_begun_and_not_ended_are_found(store, flow_run):
    waiting, begun, ended = (flow_run(Pending(), name=name) for name in ("w", "b", "e"))
    for run in (waiting, begun, ended):
        store.registry.create_flow_run(run)
    begun = store.registry.begin_flow_run(begun, Running(), own_identity())
    ended = store.registry.begin_flow_run(ended, Running(), own_identity())
    store.registry.change_state(ended, Completed())
    assert store.registry.list_begun_flow_runs() == [begun]
