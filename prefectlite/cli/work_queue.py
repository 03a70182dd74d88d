"""Make work queues, pause and limit them, and see what waits in them.

``prefectlite work-queue``. The flow runs of a deployment wait in its work queue until they are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from prefectlite import console
from prefectlite.commands import Argument, Option
from prefectlite.deployment_records import DEFAULT_PRIORITY, WorkQueue
from prefectlite.errors import ConflictError, UsageError
from prefectlite.listings import JsonListOption, JsonOption, settled_registry, writable_registry
from prefectlite.names import new_id

# What a run that waits to be taken is called; every other that is not final is going on.
_WAITING = frozenset({"Scheduled", "Late", "Resuming"})
# More runs than any machine could have, and less than a registry could not keep.
_MOST = 1_000_000_000
_NO_LIMIT = "none"

_Reference = Annotated[
    str, Argument("The work queue's name, its id, or the start of that.", metavar="QUEUE")
]
_References = Annotated[list[str], Argument("Work queues: names or ids.", metavar="QUEUE")]


def create(
    name: Annotated[str, Argument("The work queue's name.", metavar="NAME")],
    *,
    priority: Annotated[
        int,
        Option(
            "--priority",
            description=f"1 is served first; {DEFAULT_PRIORITY} if not given.",
            metavar="N",
            minimum=1,
        ),
    ] = DEFAULT_PRIORITY,
    limit: Annotated[
        int | None,
        Option(
            "--limit",
            "-l",
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


def ls(*, as_json: JsonListOption = False) -> None:
    """List work queues, those that are served first before the others.

    WAITING counts the runs that wait to be taken, ACTIVE those that were and have not ended.

    Examples:
        prefectlite work-queue ls
        prefectlite work-queue ls --json
    """
    tables = settled_registry().deployments
    queues, counts = tables.list_work_queues(), tables.count_queued_flow_runs()
    if as_json:
        console.out_json([_document(queue, counts.get(queue.name, {})) for queue in queues])
        return
    ids = console.id_texts([queue.id for queue in queues])
    console.out_table(
        ["ID", "NAME", "PRIORITY", "LIMIT", "STATE", "WAITING", "ACTIVE"],
        [
            [
                id_,
                queue.name,
                str(queue.priority),
                _limit_text(queue, unlimited=""),
                _state_text(queue),
                str(_waiting(counts.get(queue.name, {}))),
                str(_active(counts.get(queue.name, {}))),
            ]
            for id_, queue in zip(ids, queues, strict=True)
        ],
        cut=["NAME"],
    )


def inspect(reference: _Reference, *, as_json: JsonOption = False) -> None:
    """Show a work queue, and how many runs are in it.

    Examples:
        prefectlite work-queue inspect default
        prefectlite work-queue inspect slow --json
    """
    tables = settled_registry().deployments
    queue = tables.find_work_queue(reference)
    counts = tables.count_queued_flow_runs().get(queue.name, {})
    if as_json:
        console.out_json(_document(queue, counts))
        return
    console.out_fields(
        {
            "Work queue": queue.name,
            "ID": queue.id,
            "Description": queue.description or "",
            "Priority": str(queue.priority),
            "Limit": _limit_text(queue, unlimited=_NO_LIMIT),
            "State": _state_text(queue),
            "Waiting": str(_waiting(counts)),
            "Active": str(_active(counts)),
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
    found = tables.find_work_queue(reference)
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
    found = [tables.find_work_queue(reference) for reference in references]
    queues = {queue.id: queue for queue in found}
    for queue in queues.values():
        using = tables.list_deployments(work_queue=queue.name)
        if using and not force:
            raise ConflictError(
                f"the work queue {queue.name!r} is named by the deployment {using[0].full_name!r}"
                + (f" and {len(using) - 1} more" if using[1:] else ""),
                hint="delete the deployment first, or the queue with --force",
            )
    for queue in queues.values():
        tables.delete_work_queue(queue.id)
        _tell("Deleted", queue)
    if as_json:
        console.out_json([queue.dict() for queue in queues.values()])


def _set_paused(references: list[str], *, is_paused: bool, as_json: bool) -> None:
    tables = writable_registry().deployments
    found = [tables.find_work_queue(reference) for reference in references]
    queues = [
        tables.change_work_queue(id_, is_paused=is_paused)
        for id_ in dict.fromkeys(queue.id for queue in found)
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


def _document(queue: WorkQueue, counts: Mapping[str, int]) -> dict[str, object]:
    return {**queue.dict(), "flow_run_counts": dict(counts)}


def _limit_text(queue: WorkQueue, *, unlimited: str) -> str:
    return unlimited if queue.concurrency_limit is None else str(queue.concurrency_limit)


def _state_text(queue: WorkQueue) -> str:
    return console.Styled("paused", "yellow") if queue.is_paused else "open"


def _waiting(counts: Mapping[str, int]) -> int:
    return sum(count for name, count in counts.items() if name in _WAITING)


def _active(counts: Mapping[str, int]) -> int:
    return sum(count for name, count in counts.items() if name not in _WAITING)


COMMANDS = (create, ls, inspect, pause, resume, set_limit, delete)
