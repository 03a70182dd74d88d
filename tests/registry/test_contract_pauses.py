"""What is true of every registry: runs that wait for a person, and what they were told."""

from datetime import timedelta

import pytest

from prefectlite.clock import now
from prefectlite.errors import ConflictError, NotFoundError, StateConflictError
from prefectlite.records import Pause
from prefectlite.states import (
    TRANSITIONS,
    AwaitingRetry,
    Cancelling,
    Completed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
    State,
    StateType,
)
from prefectlite.upkeep_records import Deleted

SCHEMA = {"type": "object", "properties": {"naïve": {"type": "boolean"}}}


@pytest.fixture
def pauses(store):
    return store.registry.pauses


@pytest.fixture
def paused(store, pauses):
    """Put a flow run on record that is Paused, with these fields of its pause."""

    def add(**fields):
        return pauses.pause_flow_run(store.add_flow_run(), Paused(), Pause(**fields))

    return add


def names(store, run):
    return [change.state.name for change in store.registry.state_history(run)]


# Pausing


def test_a_run_is_paused_with_what_it_waits_for(store, pauses):
    run, at = store.add_flow_run(), now() + timedelta(seconds=5)
    paused = pauses.pause_flow_run(
        run, Paused("why"), Pause(key="schlüssel", resume_by=at, input_schema=SCHEMA)
    )
    assert paused == store.open_again().find_flow_run(run.id)
    assert (str(paused.state), paused.state_version) == ("Paused('why')", 2)
    expected = Pause(state_version=2, key="schlüssel", resume_by=at, input_schema=SCHEMA)
    assert store.registry.pauses.find_pause(run.id) == expected
    assert store.registry.state_history(run)[1].state == paused.state


def test_a_pause_says_nothing_that_it_was_not_told(pauses, paused):
    run = paused()
    assert pauses.find_pause(run.id) == Pause(state_version=2)


@pytest.mark.parametrize(
    "state",
    [Scheduled(), AwaitingRetry(), Pending(), Cancelling(), Completed(), Failed(), Paused()],
    ids=lambda state: state.name,
)
def test_only_a_running_run_is_paused(store, pauses, state):
    run = store.add_flow_run(state)
    with pytest.raises(StateConflictError) as caught:
        pauses.pause_flow_run(run, Paused(), Pause())
    assert caught.value.current == state
    assert pauses.find_pause(run.id) is None
    assert store.registry.find_flow_run(run.id) == run


def test_who_has_not_seen_the_last_state_cannot_pause_or_resume(store, pauses, paused):
    seen = store.add_flow_run()
    first = pauses.pause_flow_run(seen, Paused("first"), Pause(key="a"))
    with pytest.raises(StateConflictError):
        pauses.pause_flow_run(seen, Paused("second"), Pause(key="b"))
    resumed = pauses.resume_flow_run(first, Running(), run_input={"by": 1})
    again = pauses.pause_flow_run(resumed, Paused("third"), Pause())
    with pytest.raises(StateConflictError):  # it is Paused, and of another version
        pauses.resume_flow_run(first, Running(), run_input={"by": 2})
    assert store.registry.find_flow_run(seen.id) == again
    assert pauses.find_pause(seen.id, key="a").run_input == {"by": 1}
    assert pauses.find_pause(seen.id, key="b") is None


def test_a_run_that_is_not_on_record_is_neither_paused_nor_resumed(pauses, flow_run):
    with pytest.raises(NotFoundError):
        pauses.pause_flow_run(flow_run(), Paused(), Pause())
    with pytest.raises(NotFoundError):
        pauses.resume_flow_run(flow_run(Paused()), Running())


def test_the_pauses_of_a_run_are_deleted_with_it(store, pauses, paused):
    run = paused(key="a")
    store.registry.upkeep.delete_flow_runs([run.id], Deleted())
    assert pauses.find_pause(run.id) is None
    store.registry.create_flow_run(run)
    assert pauses.find_pause(run.id, key="a") is None


# Keys


def test_a_key_is_in_a_run_once_and_what_was_refused_leaves_no_trace(store, pauses, paused):
    run = pauses.resume_flow_run(paused(key="a"), Running())
    with pytest.raises(ConflictError, match="has had the pause 'a' already") as caught:
        pauses.pause_flow_run(run, Paused(), Pause(key="a"))
    assert not isinstance(caught.value, StateConflictError)
    assert store.registry.find_flow_run(run.id) == run
    assert names(store, run) == ["Running", "Paused", "Running"]
    pauses.pause_flow_run(run, Paused(), Pause(key="b"))
    assert [pauses.find_pause(run.id, key=key).state_version for key in "ab"] == [2, 4]


def test_another_run_may_use_the_key_and_a_pause_without_a_key_is_never_in_the_way(pauses, paused):
    paused(key="a")
    run = paused(key="a")
    for version in (4, 6):
        run = pauses.resume_flow_run(run, Running())
        run = pauses.pause_flow_run(run, Paused(), Pause())
        assert pauses.find_pause(run.id).state_version == version


def test_a_pause_may_take_the_key_of_an_earlier_one(pauses, paused):
    run = pauses.resume_flow_run(paused(key="a"), Running(), run_input={"n": 1})
    earlier = pauses.find_pause(run.id, key="a")
    run = pauses.pause_flow_run(run, Paused(), Pause(key="a"), instead_of=earlier)
    assert pauses.find_pause(run.id, key="a") == Pause(state_version=4, key="a")
    assert pauses.find_pause(run.id, state_version=2) == Pause(state_version=2, run_input={"n": 1})


def test_where_the_pause_is_refused_the_earlier_one_keeps_its_key(store, pauses, paused):
    first = paused(key="a")
    earlier = pauses.find_pause(first.id)
    with pytest.raises(StateConflictError):
        pauses.pause_flow_run(first, Paused(), Pause(key="a"), instead_of=earlier)
    assert pauses.find_pause(first.id, key="a") == earlier


# Finding


def test_a_pause_is_found_by_its_key_or_its_state_and_else_it_is_the_last(pauses, paused):
    run = pauses.resume_flow_run(paused(key="a"), Running())
    run = pauses.pause_flow_run(run, Paused(), Pause(key="b"))
    assert pauses.find_pause(run.id).key == "b"
    assert pauses.find_pause(run.id, key="a").state_version == 2
    assert pauses.find_pause(run.id, state_version=2).key == "a"
    assert pauses.find_pause(run.id, state_version=3) is None
    assert pauses.find_pause(run.id, key="a", state_version=4) is None
    assert pauses.find_pause(run.id, key="c") is None
    assert pauses.find_pause("nobody") is None


@pytest.mark.parametrize("key", ["a'b\"c", "x" * 10_000, "\ud800", "\x00"])
def test_any_text_is_a_key(pauses, paused, key):
    run = paused(key=key)
    assert pauses.find_pause(run.id, key=key).state_version == 2


# Resuming


@pytest.mark.parametrize("given", [None, {}, {"naïve": True, "deep": [{"x": None}, 1.5, "ü"]}])
def test_what_the_person_gave_is_kept(store, pauses, paused, given):
    run = paused(input_schema=SCHEMA)
    resumed = pauses.resume_flow_run(run, Running("yes"), run_input=given)
    assert resumed == store.open_again().find_flow_run(run.id)
    assert store.registry.pauses.find_pause(run.id).run_input == given
    assert names(store, run) == ["Running", "Paused", "Running"]


def test_a_pause_is_no_new_attempt_and_the_start_stays(store, pauses):
    run = store.add_flow_run(Pending())
    running = store.registry.change_state(run, Running())
    resumed = pauses.resume_flow_run(pauses.pause_flow_run(running, Paused(), Pause()), Running())
    assert (resumed.run_count, resumed.started_at) == (1, running.started_at)
    retried = store.registry.change_state(resumed, AwaitingRetry())
    assert store.registry.change_state(retried, Running()).run_count == 2


def test_from_paused_a_run_may_go_where_the_table_says(store, pauses, paused):
    for type_ in StateType:
        run, state = paused(), State(type_, type_.title())
        if type_ in TRANSITIONS[StateType.PAUSED]:
            assert store.registry.change_state(run, state).state == state
        else:
            with pytest.raises(StateConflictError):
                store.registry.change_state(run, state)


def test_tasks_that_were_created_before_a_pause_start_in_it_and_none_is_created(
    store, pauses, task_run
):
    run = store.add_flow_run()
    waits = store.add_task_run(run, Pending())
    pauses.pause_flow_run(run, Paused(), Pause())
    assert store.registry.change_state(waits, Running()).state.is_running()
    with pytest.raises(ConflictError, match="is Paused"):
        store.registry.create_task_runs([task_run(run)])
    with pytest.raises(ConflictError, match="is Paused"):
        store.registry.create_task_runs([task_run(run), task_run(run, Pending())])
    assert store.registry.list_task_runs() == [store.registry.find_task_run(waits.id)]


# Overdue


def test_runs_are_overdue_from_their_deadline_on(pauses, paused):
    at = now()
    run = paused(resume_by=at)
    paused(resume_by=at + timedelta(microseconds=1))
    paused()
    assert pauses.list_overdue_flow_runs(at - timedelta(microseconds=1)) == []
    assert pauses.list_overdue_flow_runs(at) == [(run, pauses.find_pause(run.id))]
    assert len(pauses.list_overdue_flow_runs(at + timedelta(days=1))) == 2


def test_only_the_pause_that_a_run_is_in_counts(store, pauses, paused):
    at = now()
    resumed = pauses.resume_flow_run(paused(resume_by=at), Running())
    assert pauses.list_overdue_flow_runs(at) == []
    pauses.pause_flow_run(resumed, Paused(), Pause())
    assert pauses.list_overdue_flow_runs(at) == []
    for state in (Failed(), Cancelling()):
        store.registry.change_state(paused(resume_by=at), state)
    assert pauses.list_overdue_flow_runs(at) == []


def test_a_deadline_is_kept_to_the_microsecond(store, pauses, paused):
    at = now().replace(microsecond=123_457)
    run = paused(resume_by=at)
    assert store.open_again().pauses.find_pause(run.id).resume_by == at


# Several processes


def test_of_several_who_resume_one_wins_and_its_word_is_kept(store, start):
    code = """
    registry = open_registry(sys.argv[1])
    ready()
    run = registry.find_flow_run(sys.argv[2])
    try:
        registry.pauses.resume_flow_run(run, Running(), run_input={"by": os.getpid()})
        print("won")
    except StateConflictError:
        print("lost")
    """
    for _ in range(5):
        run = store.add_flow_run()
        store.registry.pauses.pause_flow_run(run, Paused(), Pause())
        racers = [start(code, store.url, run.id) for _ in range(3)]
        for racer in racers:
            assert racer.line() == "ready"
        for racer in racers:
            racer.tell()
        words = [racer.end().strip() for racer in racers]
        assert sorted(words) == ["lost", "lost", "won"]
        winner = racers[words.index("won")].pid
        assert store.registry.pauses.find_pause(run.id).run_input == {"by": winner}


def test_of_several_with_one_key_one_pauses(store, start):
    code = """
    from prefectlite.records import Pause
    registry = open_registry(sys.argv[1])
    ready()
    run = registry.find_flow_run(sys.argv[2])
    try:
        registry.pauses.pause_flow_run(run, Paused(), Pause(key="a"))
        print("won")
    except ConflictError:
        print("lost")
    """
    run = store.add_flow_run()
    racers = [start(code, store.url, run.id) for _ in range(3)]
    for racer in racers:
        assert racer.line() == "ready"
    for racer in racers:
        racer.tell()
    assert sorted(racer.end().strip() for racer in racers) == ["lost", "lost", "won"]
    assert names(store, run) == ["Running", "Paused"]


def test_a_pause_and_a_resume_survive_the_death_of_who_made_them(store, start):
    code = """
    from prefectlite.records import Pause
    registry = open_registry(sys.argv[1])
    run = registry.find_flow_run(sys.argv[2])
    run = registry.pauses.pause_flow_run(run, Paused(), Pause(key="a", resume_by=now()))
    ready()
    registry.pauses.resume_flow_run(run, Running(), run_input={"n": 1})
    ready()
    """
    run = store.add_flow_run()
    dies = start(code, store.url, run.id)
    assert dies.line() == "ready"
    assert store.registry.find_flow_run(run.id).state.is_paused()
    dies.tell()
    assert dies.line() == "ready"
    dies.kill()
    assert store.open_again().find_flow_run(run.id).state.is_running()
    assert store.registry.pauses.find_pause(run.id, key="a").run_input == {"n": 1}
