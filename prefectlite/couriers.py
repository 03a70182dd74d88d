"""Deliver notifications that are due, and see to it that somebody does.

``python -m prefectlite.couriers`` is a courier: what ``courier_processes`` starts. ``notification
deliver`` does the same in the foreground. A courier takes one notification at a time, says so on record,
sends it, and forgets it or says what was in the way. Should it be killed, the next one finds out and
takes over: so a message is sent at least once, and seldom twice. Whatever is wrong with a block must not
end a courier.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta

from prefectlite import notification_texts as texts
from prefectlite.clock import duration_text, now
from prefectlite.courier_processes import start_courier
from prefectlite.errors import NotificationError, PrefectLiteError
from prefectlite.liveness import is_alive, own_identity
from prefectlite.notification_records import Notification
from prefectlite.registry import Registry, open_registry
from prefectlite.registry_parts import NotificationRegistry
from prefectlite.settings import PREFECTLITE_REGISTRY

# For blocks that have no timeout of their own.
_SEND_SECONDS = 60.0
# Then a courier of which it cannot be known whether it lives does not: twice what it could take.
_LATE_SECONDS = 120.0
_FIRST_BACK_OFF_SECONDS, _LAST_BACK_OFF_SECONDS = 30.0, 3_600.0
# With these back-offs, a day. By count, because where nobody tries, nothing has failed.
_MOST_ATTEMPTS = 30
_PROBLEM_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of what was due.

    Attributes:
        delivered: How many notifications were delivered.
        failed: How many were not.
        problem: What was last in the way; None where nothing was.
    """

    delivered: int
    failed: int
    problem: str | None


def call_courier(registry: Registry) -> datetime | None:
    """Have a process in the background deliver what is due, if anything is.

    Returns:
        When the first that is not delivered is, or was, due; None where all is.
    """
    tables = registry.notifications
    _release_taken(tables)
    due_at = tables.next_due_at()
    if due_at is not None and due_at <= now():
        start_courier(registry.url)
    return due_at


def deliver_due(registry: Registry) -> Delivered:
    """Deliver what is due, one after the other, until nothing is."""
    tables = registry.notifications
    _release_taken(tables)
    delivered, failed, problem = 0, 0, None
    while True:
        moment = now()
        late_at = moment + timedelta(seconds=_LATE_SECONDS)
        taken = tables.take_notification(own_identity(), at=moment, until=late_at)
        if taken is None:
            return Delivered(delivered, failed, problem)
        found = _deliver(taken)
        if found is None:
            delivered += tables.record_delivery(taken, at=now())
            continue
        failed, problem = failed + 1, found
        tables.record_problem(taken, found, due_at=_next_attempt_at(taken))
        # What is in the way of one is likely to be so of the others, and to find out may take a while.
        tables.put_off(taken.rule_id, until=now() + timedelta(seconds=_FIRST_BACK_OFF_SECONDS))


def send(block: str, subject: str, body: str) -> None:
    """Send a message through a block, and wait until that is done.

    Args:
        block: As ``type/name``.
        subject: One line.
        body: The message.

    Raises:
        NotificationError: It was not sent. It says why, without secrets.
    """
    problems: list[NotificationError | None] = []
    # In a thread, because nothing else surely returns: what hangs is left behind.
    thread = threading.Thread(
        target=lambda: problems.append(_problem(block, subject, body)), daemon=True
    )
    thread.start()
    thread.join(_SEND_SECONDS)
    if not problems:
        raise NotificationError(f"block {block} was not done after {duration_text(_SEND_SECONDS)}")
    if problems[0] is not None:
        raise problems[0]


def _problem(block: str, subject: str, body: str) -> NotificationError | None:
    try:
        from prefectlite.blocks import Block  # it imports pydantic

        notify = getattr(Block.load(block), "notify", None)
        if notify is None:
            return NotificationError(f"block {block} cannot notify")
        outcome = notify(body, subject)
        if hasattr(outcome, "__await__"):  # of a person's own block, as those of Prefect 2.8 are
            import asyncio

            asyncio.run(_awaited(outcome))
    except PrefectLiteError as error:
        return NotificationError(str(error)[:_PROBLEM_CHARACTERS], hint=error.hint)
    # Of a person's own block. What it says may hold a secret, such as a URL.
    except BaseException as error:  # noqa: BLE001 - whatever it is must not end the courier
        return NotificationError(f"block {block} raised {type(error).__name__}")
    return None


async def _awaited(outcome: Awaitable[object]) -> None:
    await outcome


def _deliver(notification: Notification) -> str | None:
    """Send the message of a notification; return what was in the way, or None."""
    flow_run = notification.flow_run
    try:
        body = texts.body(flow_run, notification.template)
    except (ValueError, LookupError) as error:  # of another version of prefectlite
        return f"the template cannot be filled in: {type(error).__name__}"
    try:
        send(notification.block, texts.subject(flow_run), body)
    except NotificationError as error:
        return str(error)
    return None


def _release_taken(tables: NotificationRegistry) -> None:
    """Let others have what couriers have taken that are dead."""
    for taken in tables.list_taken():
        if taken.courier is None or taken.due_at is None:
            continue
        alive = is_alive(taken.courier)
        if alive is False or (alive is None and taken.due_at <= now()):
            due_at = None if taken.attempts >= _MOST_ATTEMPTS else now()
            tables.record_problem(taken, "its courier ended before it was done", due_at=due_at)


def _next_attempt_at(taken: Notification) -> datetime | None:
    """Return when to try one again that could not be delivered; None where it is given up."""
    if taken.attempts >= _MOST_ATTEMPTS:
        return None
    seconds = _FIRST_BACK_OFF_SECONDS * 2.0 ** (taken.attempts - 1)
    return now() + timedelta(seconds=min(seconds, _LAST_BACK_OFF_SECONDS))


def main() -> int:
    """Deliver what is due, as a courier.

    Stdout is a pipe to who has started it, and is closed when it looks for the last time.
    """
    looking = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # what a block prints is no word to anybody
    os.close(null)
    try:
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        deliver_due(registry)
        os.close(looking)
        deliver_due(registry)  # what was put on record meanwhile, by who thought it would be found
    except PrefectLiteError as error:  # the next one finds out
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
