"""What is true of every registry: runs that one process takes, and others start and supervise."""

import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite.clock import now
from prefectlite.deployment_records import Agent
from prefectlite.errors import (
    NotFoundError,
    RegistryReadOnlyError,
    StateConflictError,
)
from prefectlite.names import new_id
from prefectlite.records import ProcessIdentity
from prefectlite.registry import open_registry
from prefectlite.states import (
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Pending,
    Running,
    Scheduled,
)

#: What must not be reached; a test that gets there has failed.
DEADLINE_SECONDS = 60


def an_identity(token):
    return ProcessIdentity(
        token=token,
        hostname="h",
        machine_id=None,
        boot_id="b",
        pid_namespace="p",
        pid=7,
        start_ticks=5,
        lock_path="/l",
    )


LAUNCHER, SUPERVISOR, ENGINE = (an_identity(token) for token in ("one", "two", "three"))


@pytest.fixture
def launches(store):
    return store.registry.launches


@pytest.fixture
def taken(store):
    """Put a run on record that a process has taken to launch it."""

    def add(state=None, **fields):
        return store.add_flow_run(state or Pending(), **{"launcher": LAUNCHER, **fields})

    return add


def found(store, run):
    return store.open_again().find_flow_run(run.id)


# What a run was started in


def test_a_launch_is_put_on_record(store, launches, taken):
    run = taken()
    assert launches.record_launch(run, infrastructure_pid="h:7", supervisor=SUPERVISOR)
    assert found(store, run) == replace(run, infrastructure_pid="h:7", supervisor=SUPERVISOR)


def test_a_launch_needs_no_supervisor(store, launches, taken):
    run = taken()
    assert launches.record_launch(run, infrastructure_pid="url:id", supervisor=None)
    assert found(store, run) == replace(run, infrastructure_pid="url:id")


@pytest.mark.parametrize(
    "pretended",
    [
        {"launcher": None},
        {"launcher": an_identity("other")},
        {"launcher": replace(LAUNCHER, start_ticks=1)},
        {"id": "nothing"},
    ],
    ids=["nobody", "another", "another of the same number", "another run"],
)
def test_only_who_has_taken_a_run_says_what_it_runs_in(store, launches, taken, pretended):
    run = taken()
    stranger = replace(run, **pretended)
    assert not launches.record_launch(stranger, infrastructure_pid="h:8", supervisor=ENGINE)
    assert found(store, run) == run


def test_of_a_run_that_nobody_has_taken_nothing_is_recorded(store, launches):
    run = store.add_flow_run(Pending())
    assert not launches.record_launch(run, infrastructure_pid="h:8", supervisor=SUPERVISOR)
    assert found(store, run) == run


def test_a_launch_is_recorded_once(store, launches, taken):
    run = taken()
    assert launches.record_launch(run, infrastructure_pid="h:7", supervisor=SUPERVISOR)
    assert not launches.record_launch(run, infrastructure_pid="h:8", supervisor=ENGINE)
    assert found(store, run) == replace(run, infrastructure_pid="h:7", supervisor=SUPERVISOR)


def test_a_launch_may_be_recorded_after_the_run_has_moved_on(store, launches, taken):
    run = taken()
    moved = store.registry.change_state(run, Cancelling())
    assert launches.record_launch(run, infrastructure_pid="h:7", supervisor=SUPERVISOR)
    assert found(store, run) == replace(moved, infrastructure_pid="h:7", supervisor=SUPERVISOR)


# Runs that begin


def test_a_run_that_begins_says_who_supervises_it(store, taken):
    run = replace(taken(), supervisor=SUPERVISOR, infrastructure_pid="h:7")
    begun = store.registry.begin_flow_run(run, Running(), ENGINE)
    assert (begun.process, begun.supervisor, begun.launcher) == (ENGINE, SUPERVISOR, LAUNCHER)
    assert begun.infrastructure_pid == "h:7"
    assert found(store, run) == begun


def test_a_launch_that_is_recorded_after_the_run_has_begun_changes_nothing(store, launches, taken):
    run = taken()
    begun = store.registry.begin_flow_run(
        replace(run, supervisor=SUPERVISOR, infrastructure_pid="h:7"), Running(), ENGINE
    )
    assert not launches.record_launch(run, infrastructure_pid="h:9", supervisor=ENGINE)
    assert found(store, run) == begun


def test_a_run_without_a_supervisor_is_known_by_its_own_process(store, taken):
    run = taken()
    begun = store.registry.begin_flow_run(run, Running(), replace(ENGINE, pid=5))
    assert (begun.infrastructure_pid, begun.supervisor) == ("h:5", None)
    assert found(store, run) == begun


def test_a_run_that_cannot_begin_keeps_who_it_had(store, taken):
    run = taken()
    cancelled = store.registry.change_state(run, Cancelled())
    pretended = replace(run, supervisor=SUPERVISOR, infrastructure_pid="h:7")
    with pytest.raises(StateConflictError):
        store.registry.begin_flow_run(pretended, Running(), ENGINE)
    assert found(store, run) == cancelled


# Runs that are given back


def test_a_run_that_is_given_back_is_anybodys_and_has_forgotten_its_launch(store, launches):
    tables, at = store.registry.deployments, now()
    run = store.add_flow_run(Scheduled(), work_queue="q", scheduled_at=at - timedelta(seconds=1))
    agent = Agent(
        id=new_id(), name="a", work_queues=("q",), concurrency_limit=None, process=LAUNCHER
    )
    (claimed,) = tables.claim_due_flow_runs(["q"], limit=1, at=at, agent=agent)
    assert (claimed.launcher, claimed.agent_name) == (LAUNCHER, "a")
    assert launches.record_launch(claimed, infrastructure_pid="h:7", supervisor=SUPERVISOR)
    assert launches.add_output([], flow_run_id=run.id, start=0, end=10)

    released = launches.release_flow_run(claimed, Scheduled("again"))
    assert released == found(store, run)
    assert (released.state.name, released.state.message) == ("Scheduled", "again")
    forgotten = (released.launcher, released.agent_name, released.supervisor)
    assert (*forgotten, released.infrastructure_pid) == (None,) * 4
    assert store.registry.launches.output_bytes(run.id) == 0
    assert not store.registry.launches.record_launch(
        claimed, infrastructure_pid="h:7", supervisor=SUPERVISOR
    )
    (again,) = store.registry.deployments.claim_due_flow_runs(["q"], limit=1, at=now())
    assert again.id == run.id


@pytest.mark.parametrize("state", [Cancelling(), Completed(), Pending()], ids=lambda s: s.name)
def test_a_run_that_has_moved_on_is_not_given_back(store, launches, taken, state):
    run = taken()
    launches.record_launch(run, infrastructure_pid="h:7", supervisor=SUPERVISOR)
    launches.add_output([], flow_run_id=run.id, start=0, end=10)
    store.registry.change_state(run, state)
    kept = found(store, run)
    with pytest.raises(StateConflictError):
        store.registry.launches.release_flow_run(run, Scheduled())
    assert found(store, run) == kept
    assert store.registry.launches.output_bytes(run.id) == 10


def test_a_final_run_is_not_given_back_by_who_knows_its_state_either(store, launches, taken):
    run = store.registry.change_state(taken(), Crashed())
    with pytest.raises(StateConflictError):
        launches.release_flow_run(run, Scheduled())
    assert found(store, run) == run


# The end of a grace period


def test_of_two_ends_of_a_grace_period_the_sooner_holds(store, launches, taken):
    run, at = taken(), now()
    for seconds, expected in ((30, 30), (60, 30), (30, 30), (-1, -1), (0, -1)):
        launches.set_kill_at(run.id, at + timedelta(seconds=seconds))
        assert found(store, run).kill_at == at + timedelta(seconds=expected)
        launches = store.registry.launches


def test_a_run_that_has_ended_gets_no_grace_period(store, launches, taken):
    run = store.registry.change_state(taken(), Crashed())
    launches.set_kill_at(run.id, now())
    assert found(store, run) == run


def test_a_grace_period_is_that_of_one_run(store, launches, taken):
    run, other = taken(), taken()
    launches.set_kill_at(run.id, now())
    launches.set_kill_at("nothing", now())
    assert found(store, other) == other


# What is done while a run is Cancelling


def test_a_run_that_is_cancelling_does_not_end_while_something_is_done_about_it(
    store, launches, taken
):
    run = store.registry.change_state(taken(), Cancelling())
    events, other = [], open_registry(store.url)
    has_ended = threading.Event()

    def end():
        other.change_state(run, Cancelled())
        events.append("ended")
        has_ended.set()

    ending = threading.Thread(target=end)

    def act():
        ending.start()
        has_ended.wait(0.2)
        events.append("done")

    assert launches.while_cancelling(run.id, act)
    ending.join(DEADLINE_SECONDS)
    assert events == ["done", "ended"]
    assert not launches.while_cancelling(run.id, events.clear)
    assert events == ["done", "ended"]


@pytest.mark.parametrize("state", [None, Running(), Completed()], ids=str)
def test_nothing_is_done_about_a_run_that_is_not_cancelling(store, launches, taken, state):
    run = taken()
    if state is not None:
        store.registry.change_state(run, state)
    assert not launches.while_cancelling(run.id, pytest.fail)
    assert not launches.while_cancelling("nothing", pytest.fail)


def test_what_is_done_about_a_run_that_is_cancelling_may_fail(store, launches, taken):
    run = store.registry.change_state(taken(), Cancelling())
    with pytest.raises(ZeroDivisionError):
        launches.while_cancelling(run.id, lambda: 1 / 0)
    assert store.registry.change_state(run, Cancelled()).state.is_cancelled()


# Output


def test_output_is_added_where_the_last_ended(store, launches, taken, line):
    run = taken()
    assert launches.output_bytes(run.id) == 0
    assert launches.add_output([line(run, "a"), line(run, "b")], flow_run_id=run.id, start=0, end=7)
    assert launches.output_bytes(run.id) == 7
    assert launches.add_output([line(run, "c")], flow_run_id=run.id, start=7, end=9)
    store.open_again()
    assert store.messages(run) == ["a", "b", "c"]
    assert store.registry.launches.output_bytes(run.id) == 9


@pytest.mark.parametrize("start", [0, 6, 8])
def test_output_from_anywhere_else_is_not_added(store, launches, taken, line, start):
    run = taken()
    launches.add_output([line(run, "a")], flow_run_id=run.id, start=0, end=7)
    assert not launches.add_output([line(run, "x")], flow_run_id=run.id, start=start, end=20)
    assert launches.output_bytes(run.id) == 7
    assert store.messages(run) == ["a"]


def test_output_of_damaged_lines_alone_moves_the_place(store, launches, taken):
    run = taken()
    assert launches.add_output([], flow_run_id=run.id, start=0, end=7)
    assert launches.output_bytes(run.id) == 7
    assert store.messages(run) == []


def test_output_is_added_to_a_run_that_has_ended(store, launches, taken, line):
    run = taken()
    store.registry.change_state(run, Crashed())
    assert launches.add_output([line(run, "a")], flow_run_id=run.id, start=0, end=7)
    assert store.messages(run) == ["a"]


def test_a_run_that_is_not_on_record_has_no_output(store, launches, flow_run, line):
    run = flow_run()
    assert not launches.add_output([line(run, "a")], flow_run_id=run.id, start=0, end=7)
    with pytest.raises(NotFoundError, match="no flow run"):
        launches.output_bytes(run.id)
    store.add_flow_run(id=run.id)
    assert store.messages(run) == []


PIECES = 150


def test_of_threads_that_add_the_same_output_one_does(store, launches, taken, line, in_threads):
    run, added = taken(), []

    def add(name):
        for place in range(PIECES):
            while launches.output_bytes(run.id) < place:  # until who was first has come so far
                time.sleep(0)
            lines = [line(run, f"{place}")]
            if launches.add_output(lines, flow_run_id=run.id, start=place, end=place + 1):
                added.append(place)

    in_threads(add, "abc")
    assert sorted(added) == [*range(PIECES)]
    assert store.messages(run) == [str(place) for place in range(PIECES)]


ADDS = """
registry = open_registry(sys.argv[1])
run, added = registry.find_flow_run(sys.argv[2]), 0
ready()
for place in range(int(sys.argv[3])):
    while registry.launches.output_bytes(run.id) < place:
        time.sleep(0)
    added += registry.launches.add_output(
        [line(run, str(place))], flow_run_id=run.id, start=place, end=place + 1
    )
print(added)
"""


def test_of_processes_that_add_the_same_output_one_does(store, taken, start):
    run = taken()
    several = [start(ADDS, store.url, run.id, PIECES) for _ in range(2)]
    for one in several:
        one.line()
    for one in several:
        one.tell()
    assert sum(int(one.end()) for one in several) == PIECES
    assert store.messages(run) == [str(place) for place in range(PIECES)]


# Who looks after what


@pytest.mark.parametrize(
    ("fields", "is_listed"),
    [
        ({}, False),
        ({"launcher": LAUNCHER}, True),
        ({"process": ENGINE}, True),
        ({"launcher": LAUNCHER, "process": ENGINE, "supervisor": SUPERVISOR}, True),
    ],
    ids=["neither", "taken", "begun", "both"],
)
def test_runs_that_a_process_has_taken_or_begun_are_those_to_look_after(store, fields, is_listed):
    for state in (Scheduled(), Pending(), Running(), Cancelling(), Completed(), Cancelled()):
        store.add_flow_run(state, **fields)
    names = {run.state.name for run in store.registry.list_begun_flow_runs()}
    assert names == ({"Scheduled", "Pending", "Running", "Cancelling"} if is_listed else set())


def test_a_registry_for_reading_refuses_to_write_these_too(store, launches, taken, line):
    run = taken()
    reader = open_registry(store.url, read_only=True)
    try:
        assert reader.launches.output_bytes(run.id) == 0
        for write in (
            lambda: reader.launches.record_launch(run, infrastructure_pid="h:7", supervisor=None),
            lambda: reader.launches.release_flow_run(run, Scheduled()),
            lambda: reader.launches.set_kill_at(run.id, now()),
            lambda: reader.launches.add_output([], flow_run_id=run.id, start=0, end=7),
        ):
            with pytest.raises(RegistryReadOnlyError):
                write()
    finally:
        reader.close()
    assert found(store, run) == run


# Changes

WRITES = """
registry = open_registry(sys.argv[1])
run = registry.find_flow_run(sys.argv[2])
ready()
for name in ("one", "two"):
    run = registry.change_state(run, Pending(name))
    ready()
"""


def test_what_another_process_changes_is_seen(store, taken, start):
    other = start(WRITES, store.url, taken().id)
    other.line()
    for _ in range(2):
        mark = store.registry.change_mark()
        assert store.registry.change_mark() == mark
        other.tell()
        assert store.registry.wait_for_change(mark, timeout_seconds=DEADLINE_SECONDS)
        assert store.registry.change_mark() != mark
        other.line()
    other.tell()
    other.end()


def test_a_change_that_came_before_the_waiting_ends_it(store, taken, start):
    other = start(WRITES, store.url, taken().id)
    other.line()
    mark = store.registry.change_mark()
    other.tell()
    other.line()
    pauses = []
    assert store.registry.wait_for_change(
        mark, timeout_seconds=DEADLINE_SECONDS, pause=pauses.append
    )
    assert len(pauses) == 1
    other.kill()


def test_what_this_process_changes_wakes_it_not(store, taken, line, in_threads):
    run = taken()
    mark = store.registry.change_mark()
    store.registry.change_state(run, Running())
    in_threads(store.add_flow_run, [None])
    store.registry.add_log_line(line(run, "a"))
    store.registry.flush_logs()
    assert store.registry.change_mark() == mark


def test_waiting_ends_when_its_time_is_over(store):
    mark, pauses = store.registry.change_mark(), []

    def pause(seconds):
        pauses.append(seconds)
        time.sleep(seconds)

    assert not store.registry.wait_for_change(mark, timeout_seconds=0.25, pause=pause)
    assert 0 < sum(pauses) <= 0.25
    assert not store.registry.wait_for_change(mark, timeout_seconds=0, pause=pause)
    assert not store.registry.wait_for_change(mark, timeout_seconds=-1, pause=pause)


class _Enough(BaseException):
    pass


def test_who_waits_can_end_the_waiting(store):
    def pause(seconds):
        raise _Enough

    with pytest.raises(_Enough):
        store.registry.wait_for_change(
            store.registry.change_mark(), timeout_seconds=DEADLINE_SECONDS, pause=pause
        )
