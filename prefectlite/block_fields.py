"""The fields of a block's class, as people read and write them.

``cli`` only: what a text means to a field, whether that is a secret, and what fields there are.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prefectlite.block_documents import at, is_reference
from prefectlite.blocks import Block
from prefectlite.errors import UsageError
from prefectlite.infrastructure import Infrastructure, load_infrastructure
from prefectlite.json_values import to_json_value
from prefectlite.parameters import value_from_text
from prefectlite.secret_annotations import holds_secret

# Of a docstring of Google's style, without its indent.
_ATTRIBUTE = re.compile(r"^ {4}(\w+(?:, \w+)*): (.+(?:\n {5,}.+)*)", re.MULTILINE)
_MODULES = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])")


@dataclass(frozen=True, slots=True)
class FieldOutline:
    """One field.

    Attributes:
        type: Its annotation, without the names of modules and what is only for pydantic.
        description: What its declaration says, or else the docstring of the class; empty for nothing.
        default: JSON-able, secrets hidden; None also where it is required, or made anew each time.
        is_secret: Whether it is, or may have in it, a secret.
    """

    name: str
    type: str
    is_required: bool
    default: object
    is_secret: bool
    description: str

    def dict(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return dataclasses.asdict(self)


def outlines(class_: type[Block]) -> str:
    """Return the names of fields in one line, and what is special about them."""
    return ", ".join(
        one.name + ("" if one.is_required else " (optional)") for one in fields_of(class_)
    )


def fields_of(class_: type[Block]) -> list[FieldOutline]:
    """Return the fields of a class of blocks."""
    descriptions = _descriptions(class_)
    return [
        FieldOutline(
            name,
            _type_text(field.annotation),
            field.is_required(),
            _default(None if field.is_required() else field.default),
            holds_secret(field.annotation),
            field.description or descriptions.get(name, ""),
        )
        for name, field in class_.model_fields.items()
    ]


def fields_of_infrastructure(type_: str) -> tuple[type[Infrastructure], list[FieldOutline]]:
    """Return the class of a kind of infrastructure, which is a dataclass, and its fields."""
    usual = load_infrastructure({"type": type_})
    descriptions = _descriptions(type(usual))
    found = [
        FieldOutline(
            field.name,
            _type_text(field.type),
            is_required=False,
            default=to_json_value(getattr(usual, field.name)),
            is_secret=field.name == "environment",
            description=descriptions.get(field.name, ""),
        )
        for field in dataclasses.fields(usual)  # type: ignore[arg-type] # each of ours is a dataclass
    ]
    return type(usual), found


def is_secret(class_: type[Block], key: str) -> bool:
    """Return whether what a dotted key stands for is, or may have in it, a secret."""
    annotation, _ = _annotation(class_, key.split("."))
    return holds_secret(annotation)


def from_texts(class_: type[Block], texts: Mapping[str, str]) -> dict[str, object]:
    """Return the fields that a person means by ``KEY=TEXT``; not validated yet.

    As the parameters of flows: a text is JSON, or else itself; where the field is a text or a secret, it is
    itself. A dotted key is an entry of a table. Where the field is a block, ``type/name`` is one on
    record.

    Raises:
        UsageError: Keys contradict each other.
        NotFoundError: There is no such block.
        BlockNotLoadedError: It does not fit its class, or its secrets are gone.
    """
    fields: dict[str, object] = {}
    for key, text in texts.items():
        steps = key.split(".")
        table: object = fields
        for step in steps[:-1]:
            if isinstance(table, dict):
                table = table.setdefault(step, {})
        if not isinstance(table, dict) or steps[-1] in table:
            raise UsageError(f"{key!r} is also given as a part, or a whole, of another")
        annotation, is_known = _annotation(class_, steps)
        table[steps[-1]] = _value(key, text, annotation if is_known else object)
    return fields


def changed(
    fields: Mapping[str, object], changes: Mapping[str, object], keys: Iterable[str]
) -> dict[str, object]:
    """Return the fields of a block with changes to it; what is beside a changed entry stays.

    Args:
        fields: What the block has.
        changes: What ``from_texts`` gave.
        keys: Those that it was given.

    Raises:
        UsageError: What is to have an entry changed is no table.
    """
    found = {**fields}
    for key in keys:
        *steps, last = key.split(".")
        table, change = found, at(changes, tuple(steps))
        for step in steps:
            below = table.get(step)
            if not isinstance(below, Mapping | None):
                raise UsageError(
                    f"what {key!r} is to be an entry of is no table",
                    hint="change all of it; a block that has a name of its own is changed by that",
                )
            copy = {**(below or {})}
            table[step] = copy
            table = copy
        table[last] = change[last]
    return found


def _value(key: str, text: str, annotation: object) -> object:
    is_block = any(isinstance(one, type) and issubclass(one, Block) for one in _members(annotation))
    if not is_block or text.startswith("{"):
        return value_from_text(text, annotation)
    if not is_reference(text):  # which must not be shown: it may be a secret at the wrong place
        raise UsageError(f"{key!r} is a block, which is given as TYPE/NAME")
    return Block.load(text)


def _annotation(annotation: object, steps: list[str]) -> tuple[object, bool]:
    """Return how an entry of a table in what is annotated so is annotated, and True.

    Where that is not known, it is what is the nearest around it, and False.
    """
    if not steps:
        return annotation, True
    for one in _members(annotation):
        field = getattr(one, "model_fields", {}).get(steps[0])
        if field is not None:
            return _annotation(field.annotation, steps[1:])
        values = typing.get_args(one)[1:]
        if isinstance(typing.get_origin(one), type) and values:
            return _annotation(values[0], steps[1:])
    return annotation, False


def _members(annotation: object) -> tuple[object, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _type_text(annotation: object) -> str:
    if not isinstance(annotation, str):
        annotation = inspect.formatannotation(_plain(annotation))
    return _MODULES.sub("", annotation)


def _plain(annotation: typing.Any) -> typing.Any:  # noqa: ANN401 - any annotation
    """Return an annotation without what is only for pydantic."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _plain(parts[0])
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(_plain, parts))
    if isinstance(annotation, types.GenericAlias):
        return origin[tuple(map(_plain, parts))]
    return annotation


def _descriptions(class_: type) -> dict[str, str]:
    """Return what the docstrings of a class, and of those above it, say of fields."""
    found: dict[str, str] = {}
    for one in reversed(class_.__mro__):
        _, _, section = inspect.cleandoc(one.__doc__ or "").partition("\nAttributes:\n")
        for names, text in _ATTRIBUTE.findall(section):
            plain = " ".join(text.replace("``", "").split())
            found |= dict.fromkeys(names.split(", "), plain)
    return found


def _default(value: object) -> object:
    return None if repr(value) == "PydanticUndefined" else to_json_value(value)
