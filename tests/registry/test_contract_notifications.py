"""What is true of every registry: changes of flow runs are noted for rules, and told by one courier each."""

from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite import courier_processes
from prefectlite.clock import now
from prefectlite.errors import AmbiguousReferenceError, NotFoundError, StateConflictError
from prefectlite.liveness import own_identity, record_dead
from prefectlite.names import new_id
from prefectlite.notification_records import NotificationRule
from prefectlite.records import Pause
from prefectlite.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    TimedOut,
)
from prefectlite.upkeep_records import Deleted

LATER = timedelta(seconds=60)


@pytest.fixture(autouse=True)
def called(monkeypatch):
    """The addresses for which a courier was called; none is started here."""
    calls = []
    monkeypatch.setattr(courier_processes, "start_courier", calls.append)
    return calls


@pytest.fixture
def tables(store):
    return store.registry.notifications


@pytest.fixture
def add_rule(tables):
    def add(*states, block="custom-webhook/chat", **fields):
        rule = NotificationRule(**{"id": new_id(), **fields}, states=states, block=block)
        tables.create_rule(rule)
        return rule

    return add


@pytest.fixture
def noted(tables):
    """The names of the states that are noted for a rule, oldest first."""

    def list_names(rule):
        found = tables.list_notifications(rule.id, limit=1_000)
        return [one.flow_run.state.name for one in reversed(found)]

    return list_names


def other_courier():
    return replace(own_identity(), token="another")


def take(tables, courier=None):
    return tables.take_notification(courier or own_identity(), at=now(), until=now() + LATER)


@pytest.mark.parametrize(
    ("states", "state", "matches"),
    [
        ((), Pending(), True),
        (("Failed",), Failed(), True),
        (("Failed",), TimedOut(), True),
        (("failed",), TimedOut(), True),
        (("TimedOut",), TimedOut(), True),
        (("TimedOut",), Failed(), False),
        (("Running",), Retrying(), True),
        (("Retrying",), Running(), False),
        (("SCHEDULED",), AwaitingRetry(), True),
        (("Late",), Scheduled(name="Late"), True),
        (("Late",), Scheduled(), False),
        (("Failed", "Paused"), Paused(), True),
        (("Failed", "Paused"), Crashed(), False),
        (("Completed",), Completed(name="Grüße"), True),
    ],
)
def test_a_rule_matches_states_by_name_or_type_in_any_case(
    store, add_rule, noted, states, state, matches
):
    rule = add_rule(*states)
    store.add_flow_run(state)
    assert noted(rule) == ([state.name] if matches else [])


@pytest.mark.parametrize(
    ("wanted", "tags", "matches"),
    [
        ((), (), True),
        ((), ("a",), True),
        (("a",), (), False),
        (("a",), ("a", "b"), True),
        (("a", "c"), ("b", "c"), True),
        (("a",), ("A",), False),
        (("a",), ("aa", '"a"', "a "), False),
        ((", ",), ("a", "b"), False),
        (("世界 '\"\\",), ("世界 '\"\\",), True),
        (("\udc80",), ("\udc80",), True),
        (("",), ("",), True),
    ],
)
def test_a_rule_matches_runs_that_have_any_of_its_tags(
    store, add_rule, noted, wanted, tags, matches
):
    rule = add_rule(tags=wanted)
    store.add_flow_run(tags=tags)
    assert bool(noted(rule)) is matches


@pytest.mark.parametrize(
    ("wanted", "name", "matches"),
    [
        ((), "etl", True),
        (("etl",), "etl", True),
        (("other", "etl"), "etl", True),
        (("etl",), "ETL", False),
        (("etl",), "etl2", False),
        (("%",), "etl", False),
        (("Grüße, '世界'",), "Grüße, '世界'", True),
        (("\udc80",), "\udc80", True),
    ],
)
def test_a_rule_matches_flows_by_their_names(store, add_rule, noted, wanted, name, matches):
    rule = add_rule(flow_names=wanted)
    store.add_flow_run(flow_name=name)
    assert bool(noted(rule)) is matches


def test_all_that_a_rule_names_must_match(store, add_rule, noted):
    rule = add_rule("Failed", tags=("a",), flow_names=("etl",))
    for state, tags, flow_name in [
        (Running(), ("a",), "etl"),
        (Failed(), ("b",), "etl"),
        (Failed(), ("a",), "other"),
    ]:
        store.add_flow_run(state, tags=tags, flow_name=flow_name)
    assert noted(rule) == []
    store.add_flow_run(Failed(), tags=("a",), flow_name="etl")
    assert noted(rule) == ["Failed"]


def test_a_change_is_noted_for_each_rule_that_matches_and_for_no_paused_one(
    store, tables, add_rule, noted
):
    rules = [add_rule(), add_rule("running"), add_rule("failed"), add_rule()]
    tables.set_rule_active(rules[3].id, is_active=False)
    store.add_flow_run()
    assert [noted(rule) for rule in rules] == [["Running"], ["Running"], [], []]
    tables.set_rule_active(rules[3].id, is_active=True)
    store.add_flow_run()
    assert noted(rules[3]) == ["Running"]


def _create(store):
    store.add_flow_run(Paused())


def _change(store):
    store.registry.change_state(store.add_flow_run(), Paused())


def _pause(store):
    store.registry.pauses.pause_flow_run(store.add_flow_run(), Paused(), Pause())


@pytest.mark.parametrize("change", [_create, _change, _pause])
def test_paused_is_noted_however_a_run_comes_to_it(store, add_rule, noted, change):
    rule = add_rule("Paused")
    change(store)
    assert noted(rule) == ["Paused"]


def test_a_resumed_run_is_noted(store, add_rule, noted):
    rule = add_rule("Running")
    pauses = store.registry.pauses
    run = pauses.pause_flow_run(store.add_flow_run(Running()), Paused(), Pause())
    pauses.resume_flow_run(run, Running())
    assert noted(rule) == ["Running", "Running"]


def test_a_run_that_is_begun_claimed_and_released_is_noted(store, add_rule, noted):
    rule = add_rule()
    run = store.add_flow_run(Scheduled(), work_queue="q", scheduled_at=now())
    (claimed,) = store.registry.deployments.claim_due_flow_runs(["q"], limit=1, at=now())
    released = store.registry.launches.release_flow_run(claimed, Scheduled(name="Late"))
    store.registry.begin_flow_run(released, Running(), own_identity())
    assert noted(rule) == ["Scheduled", "Pending", "Late", "Running"]
    assert run.state.name == "Scheduled"


def test_a_cancelled_run_and_one_that_a_reader_finds_dead_are_noted(store, add_rule, noted):
    rule = add_rule("Cancelling", "Cancelled", "Crashed")
    run = store.registry.change_state(store.add_flow_run(), Cancelling())
    store.registry.change_state(run, Cancelled())
    dead = replace(own_identity(), token="gone", boot_id="an earlier one")
    record_dead(store.registry, store.add_flow_run(process=dead))
    assert noted(rule) == ["Cancelling", "Cancelled", "Crashed"]


def test_a_change_that_is_refused_is_not_noted(store, add_rule, noted):
    rule = add_rule("failed")
    run = store.add_flow_run()
    store.registry.change_state(run, Completed())
    with pytest.raises(StateConflictError):
        store.registry.change_state(run, Failed())
    assert noted(rule) == []


def test_task_runs_are_not_noted(store, add_rule, noted):
    rule = add_rule()
    run = store.add_flow_run()
    store.registry.change_state(store.add_task_run(run), Failed())
    assert noted(rule) == ["Running"]


def test_what_is_noted_is_the_state_of_then(store, tables, add_rule):
    add_rule("Running")
    run = store.add_flow_run(Running("so it began"), parameters={"n": 1}, tags=("a",))
    store.registry.change_state(run, Completed())
    taken = take(tables)
    assert replace(taken.flow_run, ended_at=None) == run
    assert (taken.attempts, taken.courier) == (1, own_identity())


def test_two_couriers_never_get_the_same(store, tables, add_rule):
    add_rule()
    runs = {store.add_flow_run().id for _ in range(3)}
    taken = [take(tables), take(tables, other_courier()), take(tables), take(tables)]
    assert taken.pop() is None
    assert {one.flow_run.id for one in taken} == runs


def test_couriers_that_take_at_once_get_each_notification_once(store, tables, add_rule, in_threads):
    add_rule()
    runs = [store.add_flow_run().id for _ in range(40)]
    found = []

    def take_all(number):
        courier = replace(own_identity(), token=f"courier {number}")
        while (taken := take(tables, courier)) is not None:
            found.append(taken.flow_run.id)
            assert tables.record_delivery(taken, at=now())

    in_threads(take_all, range(4))
    assert sorted(found) == sorted(runs)


def test_what_was_tried_least_comes_first(store, tables, add_rule):
    add_rule()
    first, second = store.add_flow_run(), store.add_flow_run()
    taken = take(tables)
    assert taken.flow_run.id == first.id
    tables.record_problem(taken, "no", due_at=now())
    assert [take(tables).flow_run.id for _ in range(2)] == [second.id, first.id]


def test_what_is_delivered_is_counted_and_forgotten(store, tables, add_rule):
    rule = add_rule()
    store.add_flow_run()
    at = now()
    assert tables.find_rule(rule.id).waiting_count == 1
    assert tables.record_delivery(take(tables), at=at)
    found = tables.find_rule(rule.id)
    assert (found.delivered_count, found.delivered_at, found.waiting_count) == (1, at, 0)
    assert tables.list_notifications(rule.id, limit=9) == []
    assert tables.next_due_at() is None


def test_what_failed_waits_for_its_time_and_says_why(store, tables, add_rule):
    rule = add_rule()
    store.add_flow_run()
    due_at = now() + LATER
    assert tables.record_problem(take(tables), "server down", due_at=due_at)
    assert take(tables) is None
    assert tables.next_due_at() == due_at
    found = tables.find_rule(rule.id)
    assert (found.waiting_count, found.failed_count, found.problem) == (1, 0, "server down")
    again = tables.take_notification(own_identity(), at=due_at, until=due_at + LATER)
    assert (again.attempts, again.problem) == (2, "server down")


def test_what_is_given_up_is_kept_and_never_due(store, tables, add_rule):
    rule = add_rule()
    store.add_flow_run()
    tables.record_problem(take(tables), "server gone", due_at=None)
    assert (take(tables), tables.next_due_at()) == (None, None)
    found = tables.find_rule(rule.id)
    assert (found.waiting_count, found.failed_count, found.problem) == (0, 1, "server gone")
    (kept,) = tables.list_notifications(rule.id, limit=9)
    assert (kept.due_at, kept.problem) == (None, "server gone")


def test_what_a_late_courier_says_of_what_it_lost_counts_for_nothing(store, tables, add_rule):
    rule = add_rule()
    store.add_flow_run()
    lost = take(tables)
    (taken,) = tables.list_taken()
    assert taken == lost
    tables.record_problem(lost, "its courier ended", due_at=now())
    again = take(tables, other_courier())
    assert not tables.record_delivery(lost, at=now())
    assert not tables.record_problem(lost, "what?", due_at=None)
    assert tables.find_rule(rule.id).delivered_count == 0
    assert tables.record_delivery(again, at=now())
    assert not tables.record_delivery(again, at=now())
    assert tables.find_rule(rule.id).delivered_count == 1


def test_what_waits_for_a_rule_is_put_off_and_for_others_is_not(store, tables, add_rule):
    rule, other = add_rule("Running"), add_rule("Completed")
    run = store.add_flow_run()
    store.registry.change_state(run, Completed())
    until = now() + LATER
    tables.put_off(rule.id, until=until)
    assert take(tables).rule_id == other.id
    assert take(tables) is None
    assert tables.list_notifications(rule.id, limit=1)[0].due_at == until


def test_what_waits_for_its_next_attempt_is_counted_and_can_be_made_due(store, tables, add_rule):
    add_rule()
    assert tables.waiting() == (0, None)
    given_up, put_off, taken = [store.add_flow_run() and take(tables) for _ in range(3)]
    tables.record_problem(given_up, "gone", due_at=None)
    later = now() + LATER
    tables.record_problem(put_off, "down", due_at=later)
    assert tables.waiting() == (1, later)
    at = now()
    tables.make_due(at=at)
    assert tables.waiting() == (1, at)
    assert tables.list_taken() == [taken]
    assert take(tables).position == put_off.position
    assert take(tables) is None
    assert tables.record_delivery(taken, at=now())


def test_a_rule_or_run_that_is_deleted_takes_with_it_what_is_not_told(store, tables, add_rule):
    rule, other = add_rule(), add_rule()
    first, second = store.add_flow_run(), store.add_flow_run()
    taken = take(tables)
    store.registry.upkeep.delete_flow_runs([first.id], Deleted())
    assert not tables.record_delivery(taken, at=now())
    assert len(tables.list_notifications(other.id, limit=9)) == 1
    tables.delete_rule(rule.id)
    left = [take(tables), take(tables)]
    assert [one and (one.rule_id, one.flow_run.id) for one in left] == [(other.id, second.id), None]


def test_a_rule_is_found_by_its_id_or_the_start_of_it(tables, add_rule):
    rules = [add_rule("Failed", template="{flow_run_name}", tags=("a",)) for _ in range(3)]
    rules += [add_rule("Failed", id=f"0000{new_id()[4:]}") for _ in range(2)]
    assert tables.find_rule(rules[3].id.upper()[:13]) == rules[3]
    assert tables.list_rules() == rules
    with pytest.raises(AmbiguousReferenceError):
        tables.find_rule("0000")
    for reference in ("", "nothing", "%", "\udc80", "000", rules[0].id + "0"):
        with pytest.raises(NotFoundError):
            tables.find_rule(reference)


def test_a_rule_that_is_not_there_cannot_be_changed(tables):
    with pytest.raises(NotFoundError):
        tables.delete_rule(new_id())
    with pytest.raises(NotFoundError):
        tables.set_rule_active(new_id(), is_active=False)


def test_a_courier_is_called_by_a_change_that_is_to_be_told_and_by_no_other(
    store, tables, add_rule, called
):
    store.add_flow_run()
    add_rule("failed")
    run = store.add_flow_run()
    assert called == []
    store.registry.change_state(run, Failed())
    assert called == [store.registry.url]
    taken = take(tables)
    store.add_flow_run()
    assert len(called) == 1
    tables.record_problem(taken, "not now", due_at=now() + LATER)
    store.add_flow_run()
    assert len(called) == 1


def test_any_change_calls_a_courier_for_what_another_has_left(store, tables, add_rule, called):
    rule = add_rule("failed")
    store.add_flow_run(Failed())
    called.clear()
    store.add_flow_run()
    assert len(called) == 1
    tables.delete_rule(rule.id)
    store.add_flow_run()
    assert len(called) == 1


def test_what_a_courier_writes_calls_no_other(store, tables, add_rule, called):
    add_rule()
    store.add_flow_run()
    store.add_flow_run()
    called.clear()
    tables.record_delivery(take(tables), at=now())
    taken = take(tables)
    tables.put_off(taken.rule_id, until=now() + LATER)
    tables.record_problem(taken, "no", due_at=now())
    assert called == []


def test_the_end_of_a_supervised_process_is_told_by_who_settles_it(store, add_rule, called, noted):
    rule = add_rule("completed")
    supervised = {"supervisor": replace(own_identity(), token="s"), "process": own_identity()}
    run = store.add_flow_run(**supervised)
    store.registry.change_state(run, Completed())
    assert (called, noted(rule)) == ([], ["Completed"])
    elsewhere = replace(own_identity(), pid=1)
    run = store.add_flow_run(**{**supervised, "process": elsewhere})
    called.clear()
    store.registry.change_state(run, Completed())
    assert len(called) == 1
