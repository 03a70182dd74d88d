"""Say who is told of which changes of flow runs, and see what could not be told.

``prefectlite notification``. A rule names states, tags and flows, and the block that tells. Whoever changes
a run has it delivered in the background; what cannot be is tried again by agents.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated

from prefectlite import console
from prefectlite.clock import now
from prefectlite.commands import Argument, Option
from prefectlite.errors import UsageError
from prefectlite.listings import JsonListOption, JsonOption, settled_registry, writable_registry
from prefectlite.names import near_names, new_id
from prefectlite.notification_records import Notification, NotificationRule
from prefectlite.notification_texts import FIELD_NAMES
from prefectlite.record_tables import Column, Listing, RecordTable, show_all
from prefectlite.references import FROM_STDIN, ONE_FROM_STDIN, find_each, find_one
from prefectlite.run_filters import DEFAULT_LIMIT
from prefectlite.states import STATE_NAMES

_FAILED = 5

_Reference = Annotated[
    str,
    Argument(
        f"The rule's id, or the start of that{ONE_FROM_STDIN}.",
        metavar="RULE",
        complete="notification",
    ),
]
_References = Annotated[
    list[str],
    Argument(
        f"Rules: their ids, or the starts of these{FROM_STDIN}.",
        metavar="RULE",
        complete="notification",
    ),
]


def _activity(rule: NotificationRule) -> str:
    return "active" if rule.is_active else console.Styled("paused", "yellow")


_RULES: RecordTable[NotificationRule] = RecordTable(
    columns=(
        Column("id", attrgetter("id"), is_id=True),
        Column("states", attrgetter("states"), lambda rule: ",".join(rule.states) or "all"),
        Column("tags", attrgetter("tags"), lambda rule: ",".join(rule.tags), is_cut=True),
        Column(
            "flows", attrgetter("flow_names"), lambda rule: ",".join(rule.flow_names), is_cut=True
        ),
        Column("block", attrgetter("block"), is_cut=True),
        Column("status", lambda rule: str(_activity(rule)), _activity),
        Column("told", attrgetter("delivered_count")),
        Column("waiting", attrgetter("waiting_count")),
        Column("failed", attrgetter("failed_count")),
        Column("problem", attrgetter("problem"), is_cut=True),
        Column("template", attrgetter("template"), is_default=False, is_cut=True),
        Column("created", attrgetter("created_at"), is_default=False),
        Column("last-told", attrgetter("delivered_at"), is_default=False),
    ),
    keep=("id", "states", "block", "status", "problem", "failed", "waiting", "told"),
    document=NotificationRule.dict,
    reference=attrgetter("id"),
)


def create(
    *,
    block: Annotated[
        str,
        Option(
            "--block",
            "-b",
            description="The block that tells.",
            metavar="TYPE/NAME",
            complete="block",
        ),
    ],
    state: Annotated[
        list[str] | None,
        Option(
            "--state",
            "-s",
            description="A state that is told, by its name or type; may be repeated. Every state if"
            " none is given.",
            metavar="STATE",
            complete="state",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        Option(
            "--tag",
            "-t",
            description="Only of runs that have this tag, or another that is given.",
            metavar="TAG",
            complete="tag",
        ),
    ] = None,
    flow: Annotated[
        list[str] | None,
        Option(
            "--flow",
            "-f",
            description="Only of runs of the flow of this name; may be repeated.",
            metavar="NAME",
            complete="flow",
        ),
    ] = None,
    template: Annotated[
        str | None,
        Option(
            "--template",
            description="What the message says. Its fields: "
            + ", ".join(f"{{{name}}}" for name in FIELD_NAMES),
            metavar="TEXT",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a rule: whenever a flow run takes one of these states, a block tells of it.

    A state that is also a type means the type: failed tells of TimedOut, too.

    Examples:
        prefectlite notification create --state Failed --state Paused --block slack-webhook/default
        prefectlite notification create -s crashed -f etl -b email-server/me --template '{flow_run_name}:{flow_run_state_name}'
    """
    from prefectlite.block_types import notifying_types
    from prefectlite.blocks import Block  # no listing needs what it imports
    from prefectlite.notification_texts import check_template

    if template is not None:
        check_template(template)
    states = tuple(dict.fromkeys(_state_name(word) for word in state or ()))
    if not hasattr(Block.load(block), "notify"):
        raise UsageError(
            f"the block {block!r} cannot notify",
            hint=f"blocks of these types can: {', '.join(notifying_types())}",
        )
    rule = NotificationRule(
        id=new_id(),
        states=states,
        tags=tuple(dict.fromkeys(tag or ())),
        flow_names=tuple(dict.fromkeys(flow or ())),
        block=block,
        template=template,
    )
    writable_registry().notifications.create_rule(rule)
    _tell("Created", rule)
    if as_json:
        console.out_json(rule.dict())
    else:
        console.out(rule.id)


def ls(listing: Listing) -> None:
    """List rules, oldest first.

    Columns: id, states, tags, flows, block, status, told, waiting, failed, problem, template, created,
    last-told. Waiting counts what is still to be told, failed what was given up.

    Examples:
        prefectlite notification ls
        prefectlite notification ls --json
    """
    show_all(settled_registry().notifications.list_rules(), _RULES, listing)


def inspect(reference: _Reference, *, as_json: JsonOption = False) -> None:
    """Show a rule, and what of it is still to be told or was given up.

    Examples:
        prefectlite notification inspect 3f2a
        prefectlite notification inspect 3f2a --json
    """
    tables = settled_registry().notifications
    rule = find_one(reference, tables.find_rule)
    notifications = tables.list_notifications(rule.id, limit=DEFAULT_LIMIT)
    if as_json:
        found = [notification.dict() for notification in notifications]
        console.out_json({**rule.dict(), "notifications": found})
        return
    console.out_fields(
        {
            "Rule": rule.id,
            "States": ", ".join(rule.states) or "all",
            "Tags": ", ".join(rule.tags),
            "Flows": ", ".join(rule.flow_names),
            "Block": rule.block,
            "Template": rule.template or "",
            "Status": _activity(rule),
            "Created": console.moment_text(rule.created_at),
            "Told": str(rule.delivered_count),
            "Last told": console.moment_text(rule.delivered_at),
            "Waiting": str(rule.waiting_count),
            "Failed": str(rule.failed_count),
        }
    )
    # In full, and not as a column of the table, which a terminal may be too narrow for.
    for problem in dict.fromkeys(notification.problem for notification in notifications):
        console.out()
        console.out_fields({"Problem": problem or ""})
        _show([one for one in notifications if one.problem == problem])
    if rule.waiting_count + rule.failed_count > len(notifications):
        console.note(f"these are the newest {len(notifications)}")


def pause(references: _References, *, as_json: JsonListOption = False) -> None:
    """Pause rules: what changes from now on is not told. What waits already still is.

    Examples:
        prefectlite notification pause 3f2a
    """
    _set_active(references, is_active=False, as_json=as_json)


def resume(references: _References, *, as_json: JsonListOption = False) -> None:
    """Have paused rules tell what changes from now on.

    Examples:
        prefectlite notification resume 3f2a
    """
    _set_active(references, is_active=True, as_json=as_json)


def delete(
    references: _References,
    *,
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list of the deleted rules.")
    ] = False,
) -> None:
    """Delete rules, with what is still to be told for them.

    Examples:
        prefectlite notification delete 3f2a
    """
    tables = writable_registry().notifications
    rules = find_each(references, tables.find_rule)
    for rule in rules:
        tables.delete_rule(rule.id)
        _tell("Deleted", rule)
    if as_json:
        console.out_json([rule.dict() for rule in rules])


def deliver(
    *,
    is_early: Annotated[
        bool,
        Option(
            "--all",
            description="Also what waits for its next attempt; not what was given up.",
        ),
    ] = False,
) -> int:
    """Deliver what is due, and wait for that; without a word where nothing is left.

    For cron where no agent runs, and for the end of a container, which ends what is in the background.
    It also finds runs whose process has died. Exits with 5 where something could not be delivered: it is
    tried again for a day, whenever an agent or this command looks.

    Examples:
        prefectlite notification deliver
        prefectlite notification deliver --all
    """
    from prefectlite.couriers import deliver_due  # it imports pydantic where there is something

    settled_registry()
    registry = writable_registry()
    if is_early:
        registry.notifications.make_due(at=now())
    outcome = deliver_due(registry)
    if outcome.delivered:
        console.say(f"Delivered {_count_text(outcome.delivered)}")
    if outcome.problem is not None:
        console.error(
            f"{_count_text(outcome.failed)} could not be delivered: {outcome.problem}",
            hint="see: prefectlite notification ls",
        )
    count, due_at = registry.notifications.waiting()
    if count:
        waiting = f"{_count_text(count)} {'waits' if count == 1 else 'wait'} for the next attempt"
        console.note(
            f"{waiting}, the first until {console.moment_text(due_at)};"
            " to try now: prefectlite notification deliver --all"
        )
    return 0 if outcome.problem is None else _FAILED


def test(reference: _Reference) -> None:
    """Send one message through a rule's block now, with the rule's template.

    It is about a run that never was, in the first of the rule's states.

    Examples:
        prefectlite notification test 3f2a
    """
    from prefectlite.couriers import send
    from prefectlite.notification_texts import body, example, subject

    rule = find_one(reference, writable_registry().notifications.find_rule)
    flow_run = example(rule)
    send(rule.block, f"Test: {subject(flow_run)}", body(flow_run, rule.template))
    console.say(f"Sent a message through block {console.escaped(rule.block)}")


def _set_active(references: list[str], *, is_active: bool, as_json: bool) -> None:
    tables = writable_registry().notifications
    rules = [
        tables.set_rule_active(rule.id, is_active=is_active)
        for rule in find_each(references, tables.find_rule)
    ]
    for rule in rules:
        _tell("Resumed" if is_active else "Paused", rule)
    if as_json:
        console.out_json([rule.dict() for rule in rules])


def _state_name(word: str) -> str:
    """Return the name of the state that a word means, in any case."""
    names = {name.lower(): name for name in STATE_NAMES}
    if word.lower() not in names:
        near = near_names(word.lower(), names)
        hint = f"did you mean {names[near[0]]}?" if near else f"there are: {', '.join(STATE_NAMES)}"
        raise UsageError(f"there is no state {word!r}", hint=hint)
    return names[word.lower()]


def _show(notifications: list[Notification]) -> None:
    console.out_table(
        ["FLOW RUN", "STATE", "CHANGED", "ATTEMPTS", "NEXT"],
        [
            [
                one.flow_run.name,
                console.state_text(one.flow_run.state),
                console.moment_text(one.flow_run.state.timestamp),
                str(one.attempts),
                _next_text(one),
            ]
            for one in notifications
        ],
        cut=["FLOW RUN"],
    )


def _next_text(notification: Notification) -> str:
    if notification.due_at is None:
        return console.Styled("given up", "red")
    if notification.courier is not None:
        return "being sent"
    return console.moment_text(notification.due_at) if notification.attempts else "at once"


def _count_text(count: int) -> str:
    return "1 notification" if count == 1 else f"{count} notifications"


def _tell(what: str, rule: NotificationRule) -> None:
    told = ", ".join(rule.states) or "all states"
    if rule.flow_names:
        told += f", of flow {' or '.join(rule.flow_names)}"
    if rule.tags:
        told += f", tagged {' or '.join(rule.tags)}"
    console.say(
        f"{what} notification rule {rule.id}: {console.escaped(f'{told}, by {rule.block}')}"
    )


COMMANDS = (create, ls, inspect, pause, resume, delete, deliver, test)
