"""What is on record by names and ids, for a shell that waits for an answer to TAB.

``Suggestions`` is the interface; each other file of this package is one implementation, named by the
scheme of the registry's address, as in ``registry``. A person waits for every answer: it must never
wait for another process, create, migrate or change anything, and what it cannot read it does not have.
Nothing here knows which processes are alive: a run whose process died is as the record has it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from prefectlite.plugins import load

#: How many of anything a person wants to choose from.
MOST = 50


class Which(StrEnum):
    """Which flow runs."""

    ALL = "all"
    UNFINISHED = "unfinished"
    RUNNING = "running"
    PAUSED = "paused"
    FINAL = "final"


class Run(NamedTuple):
    """A flow run or a task run.

    Attributes:
        state: The name of its state.
        of: The name of its flow, or of a task run's flow run.
        created_at: Microseconds since the Unix epoch.
        is_unique: Whether no other run has its name, as far as that is known.
    """

    id: str
    name: str
    state: str
    of: str
    created_at: int
    is_unique: bool


class Deployment(NamedTuple):
    """A deployment.

    Attributes:
        parameters: What it gives its runs, as a JSON object.
    """

    id: str
    flow_name: str
    name: str
    work_queue: str
    entrypoint: str
    working_directory: str
    parameters: str


class Suggestions(ABC):
    """Names and ids on record. A method returns nothing where it cannot read."""

    @abstractmethod
    def flow_runs(self, text: str, which: Sequence[Which], *, most: int = MOST) -> list[Run]:
        """Return flow runs, newest first.

        Args:
            text: How their ids or names begin; empty for any.
            which: The first kind comes first; each of them newest first.
            most: At most so many.
        """

    @abstractmethod
    def task_runs(self, text: str, *, most: int = MOST) -> list[Run]:
        """Return task runs, newest first; by name only the newest thousands are searched."""

    @abstractmethod
    def input_schemas(self, reference: str) -> list[str]:
        """Return the JSON schemas of what paused flow runs ask for, by an id's start or a name."""

    @abstractmethod
    def flow_names(self) -> list[str]:
        """Return the names of the flows that have runs or deployments."""

    @abstractmethod
    def tags(self) -> list[str]:
        """Return the tags of the newest flow runs, and of deployments."""

    @abstractmethod
    def deployments(self) -> list[Deployment]:
        """Return the deployments, by flow and name."""

    @abstractmethod
    def work_queues(self) -> list[tuple[str, bool]]:
        """Return the names of work queues, and whether each is paused."""

    @abstractmethod
    def agent_names(self) -> list[str]:
        """Return the names that agents have had."""

    @abstractmethod
    def blocks(self) -> list[tuple[str, str]]:
        """Return the type and the name of each block."""

    @abstractmethod
    def block_types(self) -> list[tuple[str, str]]:
        """Return the types that a person has registered, and where each is defined."""

    @abstractmethod
    def rules(self) -> list[tuple[str, str, bool]]:
        """Return the id, the block, and whether it is active, of each notification rule."""


def open_suggestions(url: str) -> Suggestions:
    """Return what is on record in the registry at a URL; nothing is opened yet.

    Raises:
        SettingError: Nothing can read an address like this.
    """
    suggestions: Suggestions = load("suggestions", url.partition(":")[0]).open_suggestions(url)
    return suggestions
