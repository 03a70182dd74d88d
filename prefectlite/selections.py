"""The options that say which runs a command is about, the same for every command.

``cli`` only. What lists flow runs takes ``FlowRunFilters``, what does something with them a
``FlowRunSelection``: references, or the same filters. Each filter that is given must hold of a run; of
one that was given more than once, any of its values.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from prefectlite import console
from prefectlite.commands import Argument, NonEmpty, Option, Past
from prefectlite.errors import UsageError
from prefectlite.names import near_hint
from prefectlite.records import FlowRun
from prefectlite.references import FROM_STDIN, find_each
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import STATE_NAMES, StateType

_KNOWN_STATES = {name.lower() for name in (*STATE_NAMES, *StateType)}

StateOption = Annotated[
    list[str] | None,
    Option(
        "--state",
        "-s",
        description="Only those in this state, by its name or type; may be repeated.",
        metavar="STATE",
        complete="state",
    ),
]
FlowOption = Annotated[
    list[str] | None,
    Option(
        "--flow",
        "-f",
        description="Only those of the flow of this name; may be repeated.",
        metavar="NAME",
        complete="flow",
    ),
]
TagOption = Annotated[
    list[str] | None,
    Option(
        "--tag",
        "-t",
        description="Only those that have this tag; may be repeated.",
        metavar="TAG",
        complete="tag",
    ),
]
QueuesOption = Annotated[
    list[str] | None,
    Option(
        "--queue",
        description="Only those of the work queue of this name; may be repeated.",
        metavar="QUEUE",
        complete="work-queue",
    ),
]
SinceOption = Annotated[
    Past | None,
    Option(
        "--since",
        description="Only those that began then or later: a time, or how long ago, such as 2h. What"
        " has not begun counts as of when it is due, or was made.",
        metavar="TIME",
    ),
]
UntilOption = Annotated[
    Past | None,
    Option("--until", description="Only those that began before then, likewise.", metavar="TIME"),
]
TextOption = Annotated[
    NonEmpty | None,
    Option(
        "--text",
        description="Only those with this in their name, their flow's or task's name, their message"
        " or parameters; in any case.",
        metavar="TEXT",
    ),
]
DryRunOption = Annotated[
    bool, Option("--dry-run", description="Only show with which it would be done.")
]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FlowRunFilters:
    """The options that describe flow runs."""

    state: StateOption = None
    flow: FlowOption = None
    tag: TagOption = None
    deployment: Annotated[
        list[str] | None,
        Option(
            "--deployment",
            description="Only those made of this deployment: flow-name/name, its name alone, its id,"
            " or the start of that; may be repeated.",
            metavar="DEPLOYMENT",
            complete="deployment",
        ),
    ] = None
    queue: QueuesOption = None
    since: SinceOption = None
    until: UntilOption = None
    text: TextOption = None
    parent: Annotated[
        str | None,
        Option(
            "--parent",
            description="Only the subflow runs of this flow run: its id, the start of it, or its"
            " name.",
            metavar="ID",
            complete="flow-run",
        ),
    ] = None

    def filter_by(self, registry: Registry) -> FlowRunFilter:
        """Return what the options mean.

        Raises:
            NotFoundError: There is no such deployment or flow run.
            AmbiguousReferenceError: There are several.
        """
        deployments = (
            registry.deployments.find_deployment(reference) for reference in self.deployment or ()
        )
        return FlowRunFilter(
            states=self.state or (),
            flow_names=self.flow or (),
            tags=self.tag or (),
            deployment_ids=[deployment.id for deployment in deployments],
            work_queues=self.queue or (),
            parent_flow_run_id=(
                None if self.parent is None else registry.find_flow_run(self.parent).id
            ),
            since=self.since,
            until=self.until,
            text=self.text,
        )

    def is_given(self) -> bool:
        """Return whether any of them says something."""
        return any(getattr(self, name) not in (None, []) for name in _FILTERS)


_FILTERS = tuple(FlowRunFilters.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FlowRunSelection(FlowRunFilters):
    """Flow runs that are named, or described by options: what a command does something with."""

    ids: Annotated[
        list[str] | None,
        Argument(
            f"Flow runs: ids, starts of ids, or names{FROM_STDIN}.",
            metavar="ID",
            complete="flow-run",
        ),
    ] = None
    every: Annotated[bool, Option("--all", description="All those with which it can be done.")] = (
        False
    )

    def is_described(self) -> bool:
        """Return whether options describe the flow runs, instead of references that name them."""
        return self.every or self.is_given()

    def choose(self, registry: Registry, types: Collection[StateType]) -> list[FlowRun]:
        """Return the flow runs that are named; else those that the options describe.

        A note says where there is none.

        Args:
            types: The types of states in which a run must be so that the command can do its work
                with it: of those that are described it is done with no others.

        Raises:
            UsageError: Both are given, or neither; or there is none, and a state is misspelled.
            NotFoundError: Something that is named is not there.
            AmbiguousReferenceError: There are several of it.
        """
        if self.ids:
            if self.is_described():
                raise UsageError("name flow runs or describe them, not both")
            return find_each(self.ids, registry.find_flow_run)
        if not self.is_described():
            raise UsageError(
                "which flow runs?",
                hint="name some, or say --flow NAME, --state STATE, another filter or --all",
            )
        where = self.filter_by(registry)
        if not where.states:  # else all that have ever ended would be read
            where = where._replace(states=types)
        described = registry.list_flow_runs(where, limit=None)
        chosen = [run for run in described if run.state.type in types]
        if not chosen:
            check_states(self.state or ())
            console.note("there is no such flow run with which this can be done")
            note_unknown_states(self.state or ())
        return chosen


def check_states(words: Collection[str]) -> None:
    """Refuse words that are no states and near to one: a script must not take a slip for success.

    Raises:
        UsageError: One is such a word.
    """
    for word in words:
        near = None if word.lower() in _KNOWN_STATES else near_hint(word.lower(), _KNOWN_STATES)
        if near:
            raise UsageError(f"{word!r} is no state that prefectlite knows", hint=near)


def note_unknown_states(words: Collection[str]) -> None:
    """Say which words are no states that prefectlite knows: a flow may have states of its own."""
    for word in words:
        if word.lower() not in _KNOWN_STATES:
            near = near_hint(word.lower(), _KNOWN_STATES)
            console.note(
                f"{word!r} is no state that prefectlite knows" + (f"; {near}" if near else "")
            )
