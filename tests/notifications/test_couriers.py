"""What a courier does with what is due: sends it, or says what was in the way and when it tries again."""

import sqlite3
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite import couriers
from prefectlite.blocks import Block
from prefectlite.clock import from_microseconds, now
from prefectlite.couriers import call_courier, deliver_due, send
from prefectlite.errors import NotificationError
from prefectlite.liveness import own_identity
from prefectlite.names import new_id
from prefectlite.notification_records import NotificationRule
from prefectlite.states import Completed, Failed, Paused

SECRET = "hush-hush-9f31"
LATER = timedelta(seconds=100)
TOLD, FAILING = [], set()
pytestmark = pytest.mark.usefixtures("no_couriers")


class Loud(Block):
    """A person's own block: it fails, and says a secret."""

    def notify(self, body, subject):
        raise ValueError(f"cannot send to https://example.invalid/{SECRET}")


class Leaving(Block):
    def notify(self, body, subject):
        raise SystemExit(SECRET)


class Mute(Block):
    """A block that tells nobody anything."""


class Coroutine(Block):
    """A block as those of Prefect 2.8 are."""

    async def notify(self, body, subject):
        TOLD.append(subject)


class Hanging(Block):
    def notify(self, body, subject):
        threading.Event().wait(60)


class Noting(Block):
    """A block that notes what it is told, and fails while it is told to."""

    def notify(self, body, subject):
        TOLD.append(subject)
        if FAILING:
            raise NotificationError("no, thank you")


@pytest.fixture
def noting(registry):
    """The subjects that blocks were told."""
    TOLD.clear()
    FAILING.clear()
    Noting().save("here")
    return TOLD


@pytest.fixture
def later(monkeypatch):
    """Have couriers take the present time for later, by so many seconds."""

    def move(seconds):
        monkeypatch.setattr(couriers, "now", lambda: now() + timedelta(seconds=seconds))

    return move


def test_what_is_due_is_delivered_once(registry, inbox, tables, add_rule, add_run):
    rule = add_rule(inbox.block(), "Failed")
    add_run(Failed("oh no"), name="bad")
    add_run(Completed(), name="good")
    assert deliver_due(registry).delivered == 1
    assert inbox.subjects() == ["bad: Failed"]
    assert "oh no" in inbox.bodies[0]["body"]
    assert deliver_due(registry).delivered == 0
    assert tables.find_rule(rule.id).delivered_count == 1


def test_a_message_is_made_from_the_state_it_is_about(registry, inbox, add_rule, add_run):
    add_rule(inbox.block(), "Paused", template="{flow_run_state_name}: {resume_command}")
    flow_run = add_run(Paused(), tags=("a",))
    registry.change_state(flow_run, Failed("nobody came"))
    deliver_due(registry)
    assert [body["body"] for body in inbox.bodies] == [
        f"Paused: prefectlite flow-run resume {flow_run.id}"
    ]


def test_what_cannot_be_delivered_waits_longer_each_time_and_is_given_up_in_the_end(
    registry, noting, tables, add_rule, add_run, later
):
    rule = add_rule("noting/here")
    add_run()
    FAILING.add("noting")
    waits, seconds = [], 0.0
    while True:
        before = now()
        assert deliver_due(registry).failed == 1
        (kept,) = tables.list_notifications(rule.id, limit=9)
        assert (kept.courier, kept.problem) == (None, "no, thank you")
        if kept.due_at is None:
            break
        waits.append(round((kept.due_at - before).total_seconds() - seconds))
        assert deliver_due(registry).failed == 0
        seconds += waits[-1] + 1
        later(seconds)
    assert waits[:8] == [30, 60, 120, 240, 480, 960, 1920, 3600]
    assert set(waits[8:]) == {3600}
    assert 22 * 3600 < sum(waits) < 26 * 3600
    assert tables.find_rule(rule.id).failed_count == 1
    FAILING.clear()
    later(seconds * 10)
    assert (deliver_due(registry).delivered, tables.next_due_at()) == (0, None)


def test_one_failure_puts_off_the_rest_of_its_rule_and_no_other(
    registry, noting, inbox, add_rule, add_run, later
):
    add_rule("noting/here")
    add_rule(inbox.block())
    for number in range(5):
        add_run(name=f"run-{number}")
    FAILING.add("noting")
    outcome = deliver_due(registry)
    assert (outcome.delivered, outcome.failed) == (5, 1)
    assert noting == ["run-0: Running"]
    later(31)
    deliver_due(registry)
    assert noting[1:] == ["run-1: Running"]
    FAILING.clear()
    later(92)
    assert deliver_due(registry).delivered == 5
    assert sorted(noting[2:]) == [f"run-{number}: Running" for number in range(5)]


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("custom-webhook/nothing", "there is no block 'custom-webhook/nothing'"),
        ("nonsense/here", "nonsense"),
        ("nonsense", "nonsense"),
        ("loud/here", "block loud/here raised ValueError"),
        ("leaving/here", "block leaving/here raised SystemExit"),
        ("mute/here", "block mute/here cannot notify"),
    ],
)
@pytest.mark.usefixtures("noting")
def test_whatever_is_wrong_with_a_block_is_said_and_ends_no_courier(
    registry, add_rule, add_run, reference, problem
):
    for block in (Loud, Leaving, Mute):
        block().save("here")
    tables = registry.notifications
    broken, good = add_rule(reference), add_rule("noting/here")
    add_run()
    outcome = deliver_due(registry)
    assert (outcome.delivered, outcome.failed) == (1, 1)
    assert problem in tables.find_rule(broken.id).problem
    assert tables.find_rule(good.id).delivered_count == 1


def test_a_block_that_is_deleted_or_does_not_fit_is_a_problem_and_stops_no_change(
    registry, home, inbox, tables, add_rule, add_run
):
    rules = [add_rule(inbox.block(name)) for name in ("deleted", "broken")]
    Block.delete("custom-webhook/deleted")
    connection = sqlite3.connect(home / "registry.db", isolation_level=None)
    connection.execute("UPDATE block_document SET fields = '{\"x\": 1}' WHERE name = 'broken'")
    connection.close()
    flow_run = add_run()
    registry.change_state(flow_run, Completed())
    assert deliver_due(registry).delivered == 0
    problems = [tables.find_rule(rule.id).problem for rule in rules]
    assert problems[0] == "there is no block 'custom-webhook/deleted'"
    assert "custom-webhook/broken" in problems[1]
    assert SECRET not in str(problems)


def test_a_coroutine_that_notifies_is_run_to_its_end(registry, add_rule, add_run):
    Coroutine().save("here")
    add_rule("coroutine/here")
    add_run(name="late")
    assert deliver_due(registry).delivered == 1
    assert TOLD[-1] == "late: Running"


def test_a_block_that_hangs_is_left_behind(monkeypatch, registry, tables, add_rule, add_run):
    monkeypatch.setattr(couriers, "_SEND_SECONDS", 0.05)
    Hanging().save("here")
    rule = add_rule("hanging/here")
    add_run()
    assert deliver_due(registry).problem == "block hanging/here was not done after 50ms"
    assert tables.find_rule(rule.id).waiting_count == 1


def test_what_a_dead_courier_had_taken_is_delivered_by_the_next(
    registry, inbox, tables, add_rule, add_run
):
    add_rule(inbox.block())
    add_run()
    dead = replace(own_identity(), token="gone", boot_id="an earlier one")
    assert tables.take_notification(dead, at=now(), until=now() + LATER)
    assert deliver_due(registry).delivered == 1
    assert len(inbox.bodies) == 1


def test_what_a_living_courier_has_taken_is_left_to_it(registry, tables, add_rule, add_run, later):
    add_rule("noting/here")
    add_run()
    assert tables.take_notification(own_identity(), at=now(), until=now() + LATER)
    later(1_000)
    assert deliver_due(registry).failed == 0
    assert len(tables.list_taken()) == 1


def test_what_a_courier_of_another_machine_has_taken_is_left_to_it_until_it_is_late(
    registry, noting, tables, add_rule, add_run, later
):
    add_rule("noting/here")
    add_run()
    elsewhere = replace(own_identity(), token="far", machine_id="m", boot_id="b", hostname="h")
    assert tables.take_notification(elsewhere, at=now(), until=now() + LATER)
    assert deliver_due(registry).delivered == 0
    later(LATER.total_seconds() + 1)
    assert deliver_due(registry).delivered == 1


def test_what_ends_every_courier_is_given_up(registry, tables, add_rule, add_run):
    rule = add_rule("noting/here")
    add_run()
    for number in range(100):
        dead = replace(own_identity(), token=f"dead {number}", boot_id="an earlier one")
        if tables.take_notification(dead, at=now(), until=now() + LATER) is None:
            break
        call_courier(registry)
    assert number == 30
    found = tables.find_rule(rule.id)
    assert (found.failed_count, found.problem) == (1, "its courier ended before it was done")


def test_a_courier_is_called_for_what_is_due_and_the_caller_told_of_what_will_be(
    registry, tables, add_rule, add_run, no_couriers
):
    assert call_courier(registry) is None
    add_rule("noting/here")
    add_run()
    no_couriers.clear()
    assert call_courier(registry) <= now()
    assert no_couriers == [registry.url]
    taken = tables.take_notification(own_identity(), at=now(), until=now() + LATER)
    assert call_courier(registry) == taken.due_at
    due_at = from_microseconds(4_000_000_000_000_000)
    tables.record_problem(taken, "no", due_at=due_at)
    assert call_courier(registry) == due_at
    assert len(no_couriers) == 1


def test_no_secret_is_kept_or_told(registry, home, inbox, tables, add_rule, add_run):
    rules = [add_rule(inbox.block()), add_rule("loud/here")]
    Loud().save("here")
    inbox.status = 500
    add_run()
    inbox.stop()
    assert deliver_due(registry).failed == 2
    with pytest.raises(NotificationError) as caught:
        send("custom-webhook/inbox", "subject", "body")
    assert SECRET not in f"{caught.value!r} {caught.value.hint}"
    assert SECRET not in str([tables.find_rule(rule.id).dict() for rule in rules])
    for path in home.glob("registry.db*"):
        assert SECRET.encode() not in path.read_bytes()


def test_a_template_of_another_version_is_a_problem(registry, noting, add_rule, add_run, tables):
    rule = NotificationRule(id=new_id(), block="noting/here", template="{flow_run_mood}")
    tables.create_rule(rule)
    add_run()
    assert deliver_due(registry).problem == "the template cannot be filled in: KeyError"
    assert noting == []
