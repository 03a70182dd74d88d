"""What a person names on the command line, and finds on record: by ids, starts of ids, or names.

``cli`` only. ``-`` stands for the lines of stdin, so that what one command lists another can take:
every command that takes such names comes by here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO, TypeVar

from prefectlite import console
from prefectlite.errors import UsageError

#: Stands for the lines of stdin.
STDIN = "-"
#: What the description of an argument ends with that is read here.
FROM_STDIN = "; - reads them from stdin, one a line"
ONE_FROM_STDIN = "; - reads it from stdin"
_NOTHING = "stdin names nothing, so that there is nothing to do"


class NothingGivenError(Exception):
    """Stdin was to name one thing, and names none: there is nothing to do, as with xargs -r."""

    def __init__(self) -> None:
        super().__init__(_NOTHING)


class Identified(Protocol):
    """What is on record under an id."""

    @property
    def id(self) -> str: ...  # noqa: D102 - the class says it


T = TypeVar("T")
I = TypeVar("I", bound=Identified)  # noqa: E741 - as T

# Which stream was read, and what for.
_read: dict[str, tuple[TextIO, str]] = {}


def read_stdin(reader: str) -> str:
    """Return what stdin holds; a command reads it once.

    Args:
        reader: What is read from it, as the person knows it, such as ``--params``.

    Raises:
        UsageError: It was read for something else, or is no text.
    """
    stream, other = _read.get(STDIN, (None, ""))
    if stream is sys.stdin:
        raise UsageError(f"stdin can be read once, and not for both {other} and {reader}")
    _read[STDIN] = sys.stdin, reader
    try:
        return sys.stdin.read()
    except (OSError, ValueError) as error:  # the latter: it is closed, or no UTF-8
        raise UsageError(f"{reader} cannot be read from stdin: {error}") from error


def find_each(references: Sequence[str], find: Callable[[str], I]) -> list[I]:
    """Return what is meant, each once, in the order of the references.

    Args:
        references: Ids, starts of ids, or names; ``-`` for the lines of stdin. A note says where
            these are none.
        find: Returns what one means.

    Raises:
        PrefectLiteError: What ``find`` raises; nothing has been done yet.
        UsageError: Stdin cannot be read.
    """
    given: list[str] = []
    for reference in references:
        given += _lines() if reference == STDIN else [reference]
    if not given:
        console.note(_NOTHING)
    found = [find(reference) for reference in given]
    return list({one.id: one for one in found}.values())


def find_one(reference: str, find: Callable[[str], T]) -> T:
    """Return what is meant.

    Args:
        reference: An id, the start of one, or a name; ``-`` for the line of stdin.
        find: Returns what it means.

    Raises:
        NothingGivenError: Stdin has no line.
        PrefectLiteError: What ``find`` raises.
        UsageError: Stdin has more than one line, or cannot be read.
    """
    if reference != STDIN:
        return find(reference)
    lines = _lines()
    if not lines:
        raise NothingGivenError
    if len(lines) > 1:
        raise UsageError(f"this command takes one, and stdin has {len(lines)} lines")
    return find(lines[0])


def _lines() -> list[str]:
    return [
        line.strip()
        for line in read_stdin("the names of what it is about").split("\n")
        if line.strip()
    ]
