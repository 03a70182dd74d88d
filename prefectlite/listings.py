"""What the commands that show runs have in common: how they open the registry, list, and cut.

``cli`` only. A run whose process is dead is recorded as Crashed before it is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from prefectlite import console
from prefectlite.commands import Argument, Option
from prefectlite.registry import DEFAULT_LIMIT, Registry, open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.settling import settle

T = TypeVar("T")

StateOption = Annotated[
    list[str] | None,
    Option(
        "--state",
        "-s",
        description="Only those in this state, by its name or type; may be repeated.",
        metavar="STATE",
    ),
]
FlowOption = Annotated[
    list[str] | None,
    Option(
        "--flow",
        "-f",
        description="Only those of the flow of this name; may be repeated.",
        metavar="NAME",
    ),
]
LimitOption = Annotated[
    int | None,
    Option(
        "--limit",
        "-n",
        description=f"At most this many; {DEFAULT_LIMIT} if not given.",
        metavar="N",
        minimum=1,
    ),
]
FlowRunReference = Annotated[
    str,
    Argument("The flow run's id, the start of it, or its name.", metavar="ID", complete="flow-run"),
]
FlowRunReferences = Annotated[
    list[str],
    Argument("Flow runs: ids, starts of ids, or names.", metavar="ID", complete="flow-run"),
]
JsonListOption = Annotated[bool, Option("--json", description="Print a JSON list.")]
JsonOption = Annotated[bool, Option("--json", description="Print one JSON object.")]


def writable_registry() -> Registry:
    """Return the registry, to change something in it."""
    return open_registry(PREFECTLITE_REGISTRY.value())


def settled_registry() -> Registry:
    """Return the registry, to read from, once it says which runs' processes are dead.

    Where that cannot be written, a note says which runs these are.
    """
    registry = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)
    for flow_run in settle(registry, writable_registry):
        console.note(
            f"flow run {flow_run.name!r} is {flow_run.state.name} on record, but its process is"
            " dead; the registry cannot be written, so that this cannot be recorded"
        )
    return registry


def newest(find: Callable[[int], list[T]], limit: int | None) -> tuple[list[T], bool]:
    """Return what a listing finds, and whether it was cut because no limit was named.

    Args:
        find: Returns at most so many, newest first.
        limit: What was asked for.
    """
    found = find(limit or DEFAULT_LIMIT + 1)
    is_cut = not limit and len(found) > DEFAULT_LIMIT
    return (found[:-1] if is_cut else found), is_cut


def note_cut() -> None:
    """Say that a listing was cut, and how to see more."""
    console.note(f"these are the newest {DEFAULT_LIMIT}; --limit N shows more")
