"""Make work queues, pause and limit them, and see what waits in them.

``prefectlite work-queue``. The flow runs of a deployment wait in its work queue until they are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, NamedTuple

from prefectlite import console
from prefectlite.commands import Argument, Option
from prefectlite.deployment_records import DEFAULT_PRIORITY, WorkQueue
from prefectlite.errors import ConflictError, UsageError
from prefectlite.listings import JsonListOption, JsonOption, settled_registry, writable_registry
from prefectlite.names import new_id
from prefectlite.record_tables import Column, Listing, RecordTable, show_all
from prefectlite.references import FROM_STDIN, ONE_FROM_STDIN, find_each, find_one

# What a run that waits to be taken is called; every other that is not final is going on.
_WAITING = frozenset({"Scheduled", "Late", "Resuming"})
# More runs than any machine could have, and less than a registry could not keep.
_MOST = 1_000_000_000
_NO_LIMIT = "none"

_Reference = Annotated[
    str,
    Argument(
        f"The work queue's name, its id, or the start of that{ONE_FROM_STDIN}.",
        metavar="QUEUE",
        complete="work-queue",
    ),
]
_References = Annotated[
    list[str],
    Argument(f"Work queues: names or ids{FROM_STDIN}.", metavar="QUEUE", complete="work-queue"),
]


class _Counted(NamedTuple):
    """A work queue, and how many runs are in it by the names of their states."""

    queue: WorkQueue
    counts: Mapping[str, int]

    @property
    def waiting(self) -> int:
        """How many wait to be taken."""
        return sum(count for name, count in self.counts.items() if name in _WAITING)

    @property
    def active(self) -> int:
        """How many were taken and have not ended."""
        return sum(self.counts.values()) - self.waiting

    def dict(self) -> dict[str, object]:
        """Return both as JSON can hold them."""
        return {**self.queue.dict(), "flow_run_counts": dict(self.counts)}


_WORK_QUEUES: RecordTable[_Counted] = RecordTable(
    columns=(
        Column("id", attrgetter("queue.id"), is_id=True),
        Column("name", attrgetter("queue.name"), is_cut=True),
        Column("priority", attrgetter("queue.priority")),
        Column("limit", attrgetter("queue.concurrency_limit")),
        Column(
            "state",
            lambda one: "paused" if one.queue.is_paused else "open",
            lambda one: _state_text(one.queue),
        ),
        Column("waiting", attrgetter("waiting")),
        Column("active", attrgetter("active")),
        Column("description", attrgetter("queue.description"), is_default=False, is_cut=True),
        Column("created", attrgetter("queue.created_at"), is_default=False),
    ),
    keep=("name", "state", "id", "waiting", "active"),
    document=_Counted.dict,
    reference=attrgetter("queue.id"),
)


def create(
    name: Annotated[str, Argument("The work queue's name.", metavar="NAME")],
    *,
    priority: Annotated[
        int,
        Option(
            "--priority",
            description="The queue with the smallest number is served first.",
            metavar="N",
            minimum=1,
        ),
    ] = DEFAULT_PRIORITY,
    limit: Annotated[
        int | None,
        Option(
            "--limit",
            description="How many of its runs may be going on at once; any number if not given.",
            metavar="N",
            minimum=0,
        ),
    ] = None,
    description: Annotated[
        str | None, Option("--description", description="What it is for.", metavar="TEXT")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a work queue.

    Examples:
        prefectlite work-queue create slow --limit 2
        prefectlite work-queue create urgent --priority 1
    """
    from prefectlite.deployments import check_name  # no listing needs what it imports

    check_name("work queue", name)
    queue = WorkQueue(
        id=new_id(),
        name=name,
        description=description,
        priority=_checked("--priority", priority),
        concurrency_limit=None if limit is None else _checked("--limit", limit),
    )
    writable_registry().deployments.create_work_queue(queue)
    _tell("Created", queue)
    if as_json:
        console.out_json(queue.dict())


def ls(listing: Listing) -> None:
    """List work queues, those that are served first before the others.

    Columns: id, name, priority, limit, state, waiting, active, description, created. Waiting counts the
    runs that wait to be taken, active those that were and have not ended.

    Examples:
        prefectlite work-queue ls
        prefectlite work-queue ls --sort -waiting --json
    """
    tables = settled_registry().deployments
    queues, counts = tables.list_work_queues(), tables.count_queued_flow_runs()
    counted = [_Counted(queue, counts.get(queue.name, {})) for queue in queues]
    show_all(counted, _WORK_QUEUES, listing)


def inspect(reference: _Reference, *, as_json: JsonOption = False) -> None:
    """Show a work queue, and how many runs are in it.

    Examples:
        prefectlite work-queue inspect default
        prefectlite work-queue inspect slow --json
    """
    tables = settled_registry().deployments
    queue = find_one(reference, tables.find_work_queue)
    counted = _Counted(queue, tables.count_queued_flow_runs().get(queue.name, {}))
    if as_json:
        console.out_json(counted.dict())
        return
    console.out_fields(
        {
            "Work queue": queue.name,
            "ID": queue.id,
            "Description": queue.description or "",
            "Priority": str(queue.priority),
            "Limit": _limit_text(queue, unlimited=_NO_LIMIT),
            "State": _state_text(queue),
            "Waiting": str(counted.waiting),
            "Active": str(counted.active),
            "Created": console.moment_text(queue.created_at),
        }
    )


def pause(references: _References, *, as_json: JsonListOption = False) -> None:
    """Pause work queues: no more of their runs are taken. Those that were taken go on.

    Examples:
        prefectlite work-queue pause slow
    """
    _set_paused(references, is_paused=True, as_json=as_json)


def resume(references: _References, *, as_json: JsonListOption = False) -> None:
    """Let the runs of paused work queues be taken again.

    Examples:
        prefectlite work-queue resume slow
    """
    _set_paused(references, is_paused=False, as_json=as_json)


def set_limit(
    reference: _Reference,
    limit: Annotated[
        str,
        Argument("How many of its runs may be going on at once, or none.", metavar="N|none"),
    ],
    *,
    as_json: JsonOption = False,
) -> None:
    """Set how many runs of a work queue may be going on at once.

    Examples:
        prefectlite work-queue set-limit slow 2
        prefectlite work-queue set-limit slow none
    """
    if limit != _NO_LIMIT and not (limit.isascii() and limit.isdigit()):
        raise UsageError(f"{limit!r} is neither a number nor 'none'")
    # Cut, because Python refuses to read thousands of digits; it is too large anyway.
    number = None if limit == _NO_LIMIT else _checked("the limit", int(limit[:20]))
    tables = writable_registry().deployments
    found = find_one(reference, tables.find_work_queue)
    queue = tables.change_work_queue(found.id, concurrency_limit=number)
    _tell(f"Set the limit to {_limit_text(queue, unlimited=_NO_LIMIT)} for", queue)
    if as_json:
        console.out_json(queue.dict())


def delete(
    references: _References,
    *,
    force: Annotated[
        bool, Option("--force", description="Delete also those that deployments name.")
    ] = False,
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list of the deleted work queues.")
    ] = False,
) -> None:
    """Delete work queues. Runs that wait in one stay, without its limit and its pause.

    Nothing is deleted unless all of them can be.

    Examples:
        prefectlite work-queue delete slow
    """
    tables = writable_registry().deployments
    queues = find_each(references, tables.find_work_queue)
    for queue in queues:
        using = tables.list_deployments(work_queue=queue.name)
        if using and not force:
            raise ConflictError(
                f"the work queue {queue.name!r} is named by the deployment {using[0].full_name!r}"
                + (f" and {len(using) - 1} more" if using[1:] else ""),
                hint="delete the deployment first, or the queue with --force",
            )
    for queue in queues:
        tables.delete_work_queue(queue.id)
        _tell("Deleted", queue)
    if as_json:
        console.out_json([queue.dict() for queue in queues])


def _set_paused(references: list[str], *, is_paused: bool, as_json: bool) -> None:
    tables = writable_registry().deployments
    queues = [
        tables.change_work_queue(queue.id, is_paused=is_paused)
        for queue in find_each(references, tables.find_work_queue)
    ]
    for queue in queues:
        _tell("Paused" if is_paused else "Resumed", queue)
    if as_json:
        console.out_json([queue.dict() for queue in queues])


def _checked(what: str, number: int) -> int:
    if number > _MOST:
        raise UsageError(f"{what} {number} is too large", hint=f"the most is {_MOST}")
    return number


def _tell(what: str, queue: WorkQueue) -> None:
    console.say(f"{what} work queue '{console.escaped(queue.name)}' ({queue.id})")


def _limit_text(queue: WorkQueue, *, unlimited: str) -> str:
    return unlimited if queue.concurrency_limit is None else str(queue.concurrency_limit)


def _state_text(queue: WorkQueue) -> str:
    return console.Styled("paused", "yellow") if queue.is_paused else "open"


COMMANDS = (create, ls, inspect, pause, resume, set_limit, delete)
