"""How a command is declared, and what its declaration says.

A command is a plain function. Each parameter is annotated with ``Annotated[type, Option(...)]`` or
``Annotated[type, Argument(...)]``, or with a class whose own parameters are annotated so: options
that several commands share, which come as one value. Its docstring is its help: a first line, more in
prose, then ``Examples:`` and one command line each. Parameters are ``str``, ``NonEmpty``, ``int``,
``float``, ``Seconds``, ``datetime``, ``Past``, ``bool`` (a flag), ``Path``, an ``Enum``, a ``Literal``,
or a list of one of them but a flag; ``| None`` is allowed.

The reader of arguments, the help, the man pages and the completion all go by what is here, and import
no more of a command than its own file.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, NewType, get_args, get_origin

from prefectlite.clock import duration_from_text, moment_from_text, past_from_text

Function = Callable[..., int | None]
#: A command with the values of its parameters.
Call = tuple[Function, dict[str, object]]

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
# What is added to a time must come to one that there is.
_LONGEST_SECONDS = 100 * 366 * 86_400
_NUMBER = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})", re.ASCII)


class Seconds(float):
    """A duration in seconds; on the command line ``90``, ``45s``, ``3m12s``, ``1.5h`` or ``inf``."""


#: A time; on the command line also how long ago it is: ``2h``.
Past = NewType("Past", datetime)
#: A text that is not empty: an empty one that is looked for is found everywhere.
NonEmpty = NewType("NonEmpty", str)


class Argument:
    """Marks a parameter that is given by its place.

    Args:
        description: What it is, one sentence.
        metavar: What the help calls it; None for the parameter's name.
        complete: What a shell offers for it, as ``completion_values`` names it; None for what its type
            says: choices, or files.
    """

    def __init__(
        self, description: str, *, metavar: str | None = None, complete: str | None = None
    ) -> None:
        self.description = description
        self.metavar = metavar
        self.complete = complete


class Option:
    """Marks a parameter that is given by a name.

    Args:
        names: ``--long`` and ``-s`` names, the long one first.
        description: What it does, one sentence.
        metavar: What the help calls its value; None for its type.
        minimum: The least number that is allowed; None for any.
        ignore_case: Take the values of an Enum or a Literal in any case.
        complete: As for ``Argument``.
    """

    def __init__(
        self,
        *names: str,
        description: str,
        metavar: str | None = None,
        minimum: float | None = None,
        ignore_case: bool = False,
        complete: str | None = None,
    ) -> None:
        self.names = names
        self.description = description
        self.metavar = metavar
        self.minimum = minimum
        self.ignore_case = ignore_case
        self.complete = complete


class Parameter:
    """One parameter of a command, as its function declares it.

    Attributes:
        marker: Its ``Option`` or ``Argument``.
        value_type: The type of one value: the item's for a list, and never ``None``.
        is_list: Whether it may be given more than once.
        is_flag: Whether it takes no value.
        default: Its default; ``inspect.Parameter.empty`` where it must be given.
    """

    def __init__(self, parameter: inspect.Parameter) -> None:
        value_type, marker = get_args(parameter.annotation)
        self.marker: Option | Argument = marker
        self.name = parameter.name
        self.default = parameter.default
        if type(None) in get_args(value_type) and get_origin(value_type) is not Literal:
            (value_type,) = (t for t in get_args(value_type) if t is not type(None))
        self.is_list = get_origin(value_type) is list
        self.value_type = get_args(value_type)[0] if self.is_list else value_type
        self.is_flag = self.value_type is bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names it is given by; none for one that is given by its place."""
        return self.marker.names if isinstance(self.marker, Option) else ()

    @property
    def label(self) -> str:
        """What it is called where something is wrong with it, or where it is missing."""
        return self.names[0] if self.names else self.metavar

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        if self.marker.metavar is not None:
            return self.marker.metavar
        if self.choices:
            return "|".join(self.choices)
        name = self.name.upper().replace("_", "-")
        return _METAVARS.get(self.value_type, name) if self.names else name

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty

    @property
    def choices(self) -> list[str]:
        """The values that it takes; empty where these are not so few."""
        return [text for text, _ in self._choices()]

    def convert(self, text: str) -> object:
        """Return one value.

        Raises:
            ValueError: The text is wrong; says how, without the parameter's name.
        """
        choices = self._choices()
        value = self._chosen(text) if choices else _CONVERTERS[self.value_type](text)
        least = getattr(self.marker, "minimum", None)
        if least is not None and isinstance(value, int | float) and value < least:
            raise ValueError(f"{text} is less than {least}")
        return value

    def _choices(self) -> list[tuple[str, object]]:
        if isinstance(self.value_type, type) and issubclass(self.value_type, Enum):
            return [(str(choice.value), choice) for choice in self.value_type]
        if get_origin(self.value_type) is Literal:
            return [(str(choice), choice) for choice in get_args(self.value_type)]
        return []

    def _chosen(self, text: str) -> object:
        ignore_case = getattr(self.marker, "ignore_case", False)
        sought = text.casefold() if ignore_case else text
        for value, choice in self._choices():
            if sought == (value.casefold() if ignore_case else value):
                return choice
        raise ValueError(f"{text!r} is none of {', '.join(self.choices)}")


class Group:
    """Commands that share a first word.

    Args:
        description: What they do, one sentence.
        words: Their names, in the order of the help.
        load: Returns a command, or a group, by its name.
    """

    def __init__(
        self,
        description: str,
        words: Sequence[str],
        load: Callable[[str], Group | Function | None],
    ) -> None:
        self.description = description
        self.words = words
        self._load = load

    def find(self, word: str) -> Group | Function | None:
        """Return a command or a group by its name; None where there is none."""
        return self._load(word) if word in self.words else None

    def items(self) -> list[tuple[str, Group | Function]]:
        """Return all of them by their names; imports them."""
        found = ((word, self.find(word)) for word in self.words)
        return [(word, one) for word, one in found if one is not None]


class Documentation(NamedTuple):
    """What the docstring of a command says.

    Attributes:
        summary: Its first line.
        prose: The paragraphs after it, each one line.
        examples: Command lines.
    """

    summary: str
    prose: list[str]
    examples: list[str]


def documentation(function: Function) -> Documentation:
    """Return what the docstring of a command says."""
    prose, _, examples = (inspect.getdoc(function) or "").partition("\nExamples:\n")
    summary, *rest = [" ".join(part.split()) for part in prose.strip().split("\n\n")]
    return Documentation(summary, rest, [line.strip() for line in examples.strip().split("\n")])


def parameters(function: Callable[..., object]) -> list[Parameter]:
    """Return the parameters of a command, in the order in which it declares them.

    Raises:
        TypeError: One is not declared as it must be, or two have the same name.
    """
    declared = [Parameter(parameter) for _, parameter in _declared(function)]
    if len({parameter.name for parameter in declared}) < len(declared):
        raise TypeError(f"{function.__name__} has two parameters of one name")
    return declared


def arranged(function: Function, values: Mapping[str, object]) -> dict[str, object]:
    """Return what to call a command with, of the values of its parameters by their names."""
    given: dict[str, object] = {}
    for owner, parameter in _declared(function):
        if owner is None:
            given[parameter.name] = values[parameter.name]
        else:
            name, kind = owner
            if name not in given:
                names = [own.name for own in parameters(kind)]
                given[name] = kind(**{name: values[name] for name in names})
    return given


@cache  # one command line asks several times, and evaluating the annotations takes a while
def _declared(
    function: Callable[..., object],
) -> Sequence[tuple[tuple[str, type] | None, inspect.Parameter]]:
    """Return each parameter, after the name and the class that it is part of, if it is."""
    found: list[tuple[tuple[str, type] | None, inspect.Parameter]] = []
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        kind = parameter.annotation
        if get_origin(kind) is Annotated:
            found.append((None, parameter))
        elif (
            isinstance(kind, type) and kind.__module__ != "builtins" and kind is not parameter.empty
        ):
            found += (((parameter.name, kind), own) for _, own in _declared(kind))
        else:
            raise TypeError(f"{parameter.name} is annotated with neither Argument nor Option")
    return found


def _non_empty(text: str) -> str:
    if not text:
        raise ValueError("the text is empty")
    return text


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is not a number")
    return float(text)


def _seconds(text: str) -> Seconds:
    if text == "inf":
        return Seconds(text)
    seconds = duration_from_text(text)
    if seconds > _LONGEST_SECONDS:
        raise ValueError(f"{text!r} is more than a hundred years")
    return Seconds(seconds)


_METAVARS: dict[object, str] = {
    int: "N",
    Path: "FILE",
    Seconds: "DURATION",
    datetime: "TIME",
    Past: "TIME",
}
_CONVERTERS: dict[object, Callable[[str], object]] = {
    str: str,
    NonEmpty: _non_empty,
    int: _integer,
    float: _number,
    Seconds: _seconds,
    datetime: moment_from_text,
    Past: past_from_text,
    Path: Path,
}
