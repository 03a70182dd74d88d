"""States, the table of what may follow, and the final state of many."""

import copy
import pickle
from itertools import product

import pytest

from prefectlite import states
from prefectlite.clock import now
from prefectlite.errors import CancelledRun, CrashedRun, FailedRun, MissingResult, UnfinishedRun
from prefectlite.states import (
    FINAL,
    TRANSITIONS,
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    NotReady,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    State,
    StateType,
    Tally,
    TimedOut,
    may_follow,
    recorded_state,
)

MAKERS = {
    "Scheduled": (Scheduled, "SCHEDULED"),
    "AwaitingRetry": (AwaitingRetry, "SCHEDULED"),
    "Pending": (Pending, "PENDING"),
    "NotReady": (NotReady, "PENDING"),
    "Running": (Running, "RUNNING"),
    "Retrying": (Retrying, "RUNNING"),
    "Paused": (Paused, "PAUSED"),
    "Cancelling": (Cancelling, "CANCELLING"),
    "Completed": (Completed, "COMPLETED"),
    "Failed": (Failed, "FAILED"),
    "TimedOut": (TimedOut, "FAILED"),
    "Cancelled": (Cancelled, "CANCELLED"),
    "Crashed": (Crashed, "CRASHED"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_each_state_has_its_name_type_message_and_time(name):
    make, type_ = MAKERS[name]
    before = now()
    state = make("why")
    assert (state.name, state.type, state.message) == (name, type_, "why")
    assert before <= state.timestamp <= now()
    assert str(state) == f"{name}('why')"
    assert str(make()) == f"{name}()"


@pytest.mark.parametrize("type_", StateType)
def test_a_state_is_of_one_type_only(type_):
    state = State(type_, "Any")
    claims = [each for each in StateType if getattr(state, f"is_{each.lower()}")()]
    assert claims == [type_]
    assert state.is_final() is (type_ in FINAL)


def test_the_table_answers_for_every_type():
    assert set(TRANSITIONS) == set(StateType)
    for before, after in product(StateType, StateType):
        allowed = may_follow(State(before, "x"), State(after, "y"))
        assert allowed is (after in TRANSITIONS[before])


def test_nothing_follows_a_final_state_and_every_other_can_end():
    for type_ in StateType:
        if type_ in FINAL:
            assert TRANSITIONS[type_] == frozenset()
        else:
            assert TRANSITIONS[type_] & FINAL


def test_only_a_running_run_may_pause():
    assert [type_ for type_ in StateType if StateType.PAUSED in TRANSITIONS[type_]] == ["RUNNING"]


def test_from_cancelling_only_cancelled_or_completed_follows():
    assert TRANSITIONS[StateType.CANCELLING] == {StateType.CANCELLED, StateType.COMPLETED}


def test_a_paused_run_may_be_cancelled_and_resumed():
    allowed = {StateType.CANCELLING, StateType.CANCELLED, StateType.RUNNING, StateType.SCHEDULED}
    assert allowed <= TRANSITIONS[StateType.PAUSED]


def test_a_run_that_never_started_is_cancelled_at_once():
    assert StateType.CANCELLED in TRANSITIONS[StateType.SCHEDULED]
    assert StateType.CANCELLED in TRANSITIONS[StateType.PENDING]


def test_a_completed_state_gives_its_value_whatever_it_is():
    for value in (None, 1, [], ValueError("as a value")):
        assert Completed(data=value).result() is value


@pytest.mark.parametrize("make", [Failed, TimedOut, Crashed, Cancelled])
def test_a_state_that_did_not_complete_raises_its_exception_or_returns_it(make):
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine"):
        make(data=error).result()
    assert make(data=error).result(raise_on_failure=False) is error


@pytest.mark.parametrize(
    ("make", "kind"), [(Failed, FailedRun), (Crashed, CrashedRun), (Cancelled, CancelledRun)]
)
def test_without_an_exception_the_message_is_the_error(make, kind):
    with pytest.raises(kind, match="why"):
        make("why").result()
    with pytest.raises(kind, match=make().name):
        make().result()


def test_a_state_that_rests_on_another_raises_that_ones_exception():
    inner = Failed(data=ValueError("inner"))
    with pytest.raises(ValueError, match="inner"):
        Failed(data=Failed(data=inner)).result()


@pytest.mark.parametrize("make", [Scheduled, Pending, Running, Paused, Cancelling])
def test_a_run_that_has_not_ended_has_no_result(make):
    with pytest.raises(UnfinishedRun):
        make().result()
    assert isinstance(make().result(raise_on_failure=False), UnfinishedRun)


def test_a_state_from_the_registry_has_no_value_and_says_so_in_any_copy_of_it():
    state = recorded_state(StateType.COMPLETED, "Completed", None, now())
    for each in (state, pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        with pytest.raises(MissingResult) as caught:
            each.result()
        assert "persist_result" in caught.value.hint


def test_a_failed_state_from_the_registry_raises_its_message():
    state = recorded_state(StateType.FAILED, "Failed", "it broke", now())
    with pytest.raises(FailedRun, match="it broke"):
        state.result()


def test_states_are_equal_whatever_they_returned_and_cannot_be_altered():
    at = now()
    one = State(StateType.COMPLETED, "Completed", None, at, data=1)
    assert one == State(StateType.COMPLETED, "Completed", None, at, data=2)
    assert "data" not in repr(one)
    with pytest.raises(AttributeError):
        one.name = "Other"


def tallied(*counted):
    tally = Tally()
    for state in counted:
        tally.add(state)
    return tally.final_state(data="all")


def test_a_flow_whose_states_all_completed_completed():
    state = tallied(Completed(), Completed())
    assert str(state) == "Completed('All states completed.')"
    assert state.result() == "all"


def test_a_flow_with_a_failed_or_crashed_state_failed_with_the_first_problem():
    first, second = Crashed(data=ValueError("first")), Failed(data=KeyError("second"))
    state = tallied(Completed(), first, second)
    assert str(state) == "Failed('2/3 states failed.')"
    with pytest.raises(ValueError, match="first"):
        state.result()


def test_a_flow_with_a_cancelled_state_is_cancelled_even_if_others_failed():
    assert str(tallied(Failed(), Cancelled(), Completed())) == (
        "Cancelled('1/3 states cancelled.')"
    )


def test_a_flow_with_a_task_that_never_ran_failed():
    assert str(tallied(Completed(), NotReady())) == "Failed('1/2 states are not final.')"


def test_every_public_maker_of_states_is_tested():
    made = {name for name in vars(states) if name[0].isupper() and name in MAKERS}
    public = {
        name
        for name, value in vars(states).items()
        if name[0].isupper() and getattr(value, "__annotations__", {}).get("return") == "State"
    }
    assert made == public == set(MAKERS)
