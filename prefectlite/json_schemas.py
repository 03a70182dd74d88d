"""How the JSON that commands print is described: records, their fields, and what each field means.

``json_records`` and ``json_documents`` describe it so, the man pages show it, and tests compare it with
what the commands print. No command imports this: a record says itself what of it is printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Scalar(StrEnum):
    """A value whose fields are not described, by what a man page calls it."""

    TEXT = "string"
    TIME = "time"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    OBJECT = "object"
    ANY = "any value"


class Field(NamedTuple):
    """One field of a record.

    Attributes:
        kind: What its value is, or each of its values where it is a list.
        meaning: One sentence.
        is_always: Whether it is there in every such document.
    """

    kind: Scalar | Record
    meaning: str
    is_list: bool = False
    is_nullable: bool = False
    is_always: bool = True


@dataclass(frozen=True, slots=True)
class Record:
    """An object whose fields are known.

    Attributes:
        title: What it is, such as ``flow run``.
        own_fields: Those that ``base`` has not.
        base: A record whose fields it has, too.
    """

    title: str
    own_fields: Mapping[str, Field]
    base: Record | None = None

    @property
    def fields(self) -> dict[str, Field]:
        """All of its fields by their names."""
        return {**(self.base.fields if self.base else {}), **self.own_fields}


class Shape(StrEnum):
    """How a command prints records, in words."""

    ONE = "One object"
    LIST = "A list of objects"
    LINES = "One object a line"


class Document(NamedTuple):
    """What a command prints with ``--json``."""

    record: Record
    shape: Shape = Shape.ONE


def text(meaning: str) -> Field:
    """Return a field that is a text."""
    return Field(Scalar.TEXT, meaning)


def texts(meaning: str) -> Field:
    """Return a field that is a list of texts."""
    return Field(Scalar.TEXT, meaning, is_list=True)


def time(meaning: str) -> Field:
    """Return a field that is a time."""
    return Field(Scalar.TIME, meaning)


def whole(meaning: str) -> Field:
    """Return a field that is a whole number."""
    return Field(Scalar.INTEGER, meaning)


def yes_or_no(meaning: str) -> Field:
    """Return a field that is true or false."""
    return Field(Scalar.BOOLEAN, meaning)


def table(meaning: str) -> Field:
    """Return a field that is an object with any keys."""
    return Field(Scalar.OBJECT, meaning)


def maybe(kind: Scalar | Record, meaning: str) -> Field:
    """Return a field that may be null."""
    return Field(kind, meaning, is_nullable=True)


def many(kind: Record, meaning: str) -> Field:
    """Return a field that is a list of records."""
    return Field(kind, meaning, is_list=True)
