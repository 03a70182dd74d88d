"""How a command is declared, and a strict reader of its arguments that costs no import.

A command is a plain function. Each parameter is annotated with ``Annotated[type, Option(...)]`` or
``Annotated[type, Argument(...)]``, and its docstring is its help: a first part in prose, then
``Examples:`` and one command line each. Parameters are ``str``, ``int``, ``float``, ``bool`` (a
flag), ``Path``, an ``Enum``, a ``Literal``, or a list of one of them but a flag; ``| None`` is
allowed.

The reader here takes what it fully understands and declines the rest without a word. The command
line then asks Typer (``usage.py``), which is built from the same declarations and takes eight times
as long to import as a listing takes to print. So the reader must never take what Typer would
refuse, nor read it in another way.
"""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

Function = Callable[..., int | None]
#: A command with the values of its parameters: what both readers make of the arguments.
Call = tuple[Function, dict[str, object]]

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?", re.ASCII)


class Argument:
    """Marks a parameter that is given by its place.

    Args:
        description: What it is, one sentence.
        metavar: What the help calls it; None for the parameter's name.
    """

    def __init__(self, description: str, *, metavar: str | None = None) -> None:
        self.description = description
        self.metavar = metavar


class Option:
    """Marks a parameter that is given by a name.

    Args:
        names: ``--long`` and ``-s`` names, the first one first.
        description: What it does, one sentence.
        metavar: What the help calls its value; None for its type.
        minimum: The least number that is allowed; None for any.
        ignore_case: Take the values of an Enum or a Literal in any case.
    """

    def __init__(
        self,
        *names: str,
        description: str,
        metavar: str | None = None,
        minimum: float | None = None,
        ignore_case: bool = False,
    ) -> None:
        self.names = names
        self.description = description
        self.metavar = metavar
        self.minimum = minimum
        self.ignore_case = ignore_case


class Parameter:
    """One parameter of a command, as its function declares it.

    Attributes:
        annotation: The type that it was annotated with, without its marker.
        value_type: The type of one value: the item's for a list, and never ``None``.
        is_list: Whether it may be given more than once.
        is_flag: Whether it takes no value.
        default: Its default; ``inspect.Parameter.empty`` where it must be given.
    """

    def __init__(self, parameter: inspect.Parameter) -> None:
        if get_origin(parameter.annotation) is not Annotated:
            raise TypeError(f"{parameter.name} is annotated with neither Argument nor Option")
        self.annotation, self.marker = get_args(parameter.annotation)
        self.name = parameter.name
        self.default = parameter.default
        value_type = self.annotation
        if type(None) in get_args(value_type) and get_origin(value_type) is not Literal:
            (value_type,) = (t for t in get_args(value_type) if t is not type(None))
        self.is_list = get_origin(value_type) is list
        self.value_type = get_args(value_type)[0] if self.is_list else value_type
        self.is_flag = self.value_type is bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names it is given by; none for one that is given by its place."""
        return self.marker.names if isinstance(self.marker, Option) else ()

    def convert(self, text: str) -> object:
        """Return one value.

        Raises:
            ValueError: The text may be wrong, or right in a way that only Typer can judge.
        """
        converter = _CONVERTERS.get(self.value_type)
        value = self._choice(text) if converter is None else converter(text)
        least = getattr(self.marker, "minimum", None)
        if least is not None and isinstance(value, int | float) and value < least:
            raise ValueError(text)
        return value

    def _choice(self, text: str) -> object:
        ignore_case = getattr(self.marker, "ignore_case", False)
        sought = text.casefold() if ignore_case else text
        is_enum = isinstance(self.value_type, type) and issubclass(self.value_type, Enum)
        for choice in self.value_type if is_enum else get_args(self.value_type):
            value = str(choice.value if is_enum else choice)
            if sought == (value.casefold() if ignore_case else value):
                found: object = choice
                return found
        raise ValueError(text)


def parameters(function: Function) -> list[Parameter]:
    """Return the parameters of a command, in the order in which it declares them."""
    signature = inspect.signature(function, eval_str=True)
    return [Parameter(parameter) for parameter in signature.parameters.values()]


def read_arguments(function: Function, arguments: Sequence[str]) -> dict[str, object] | None:
    """Return the values for a command's parameters, or None where Typer must be asked."""
    reading = _Reading(function, arguments)
    try:
        reading.read_all()
        return reading.values()
    except ValueError:
        return None


def read_leading_options(
    function: Function, arguments: Sequence[str]
) -> tuple[dict[str, object], list[str]] | None:
    """Return the values of the options before the first other argument, and what follows them.

    Returns:
        None where Typer must be asked.
    """
    reading = _Reading(function, arguments)
    try:
        rest = reading.read_options()
        return reading.values(), rest
    except ValueError:
        return None


class _Reading:
    """Arguments on their way into values; a ValueError anywhere means that they are declined.

    What stands for what is getopt's rule, as Click applies it: an option's value is the next
    argument whatever that looks like, the last one of several counts, ``--`` ends the options.
    """

    def __init__(self, function: Function, arguments: Sequence[str]) -> None:
        self._parameters = parameters(function)
        self._options = {name: option for option in self._parameters for name in option.names}
        self._left = deque(arguments)
        self._texts: dict[str, list[str]] = {}
        self._placed: deque[str] = deque()

    def read_all(self) -> None:
        """Take every argument."""
        while self._left:
            argument = self._left.popleft()
            if argument == "--":
                self._placed.extend(self._left)
                return
            if _is_option(argument):
                self._read_option(argument)
            else:
                self._placed.append(argument)

    def read_options(self) -> list[str]:
        """Take options up to the first argument that is none, and return the rest."""
        while self._left and _is_option(self._left[0]):
            self._read_option(self._left.popleft())
        return list(self._left)

    def values(self) -> dict[str, object]:
        """Return the values of all parameters."""
        values = {parameter.name: self._value(parameter) for parameter in self._parameters}
        if self._placed:
            raise ValueError(self._placed[0])
        return values

    def _read_option(self, argument: str) -> None:
        if argument.startswith("--"):
            name, has_value, value = argument.partition("=")
            option = self._option(name)
            if option.is_flag and has_value:
                raise ValueError(argument)
            self._give(option, value if has_value else None)
            return
        for index, letter in enumerate(argument[1:], start=2):
            option = self._option(f"-{letter}")
            self._give(option, argument[index:] or None)
            if not option.is_flag:
                return

    def _option(self, name: str) -> Parameter:
        option = self._options.get(name)
        if option is None:
            raise ValueError(name)
        return option

    def _give(self, option: Parameter, value: str | None) -> None:
        if option.is_flag:
            value = ""
        elif value is None:
            if not self._left:
                raise ValueError(option.name)
            value = self._left.popleft()
        self._texts.setdefault(option.name, []).append(value)

    def _value(self, parameter: Parameter) -> object:
        texts = self._texts.get(parameter.name)
        if not parameter.names and self._placed:
            texts = list(self._placed) if parameter.is_list else [self._placed[0]]
            for _ in texts:
                self._placed.popleft()
        if texts is None:
            if parameter.default is inspect.Parameter.empty:
                raise ValueError(parameter.name)
            default: object = parameter.default
            return default
        if parameter.is_flag:
            return True
        if parameter.is_list:
            return [parameter.convert(text) for text in texts]
        return parameter.convert(texts[-1])


def _is_option(argument: str) -> bool:
    return argument[:1] == "-" and argument != "-"


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


_CONVERTERS: dict[object, Callable[[str], object]] = {
    str: str,
    int: _integer,
    float: _number,
    Path: Path,
}
