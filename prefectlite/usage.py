"""The help of the program, of a group and of a command, as text.

``cli`` only where help is asked for, and ``manuals``. It is made of the same declarations that the
arguments are read by; nothing of it is written twice. It must never print.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence

from prefectlite.argument_reading import HELP, PROGRAM
from prefectlite.commands import Function, Group, Parameter, documentation, parameters

# Longer lines are harder to read than a taller text.
_WIDEST = 100
# A description has at least so many columns beside its name; else it goes below.
_NARROWEST = 24
_INDENT = 2
_HANGING = 6
_GAP = 2
# Stands for a space at which no line is broken; no name has it.
_UNBROKEN = "\0"
# A name that is longer has its description below it, instead of pushing all others to the right.
_LONGEST_NAME = 32

#: What is said of the option that shows help.
HELP_TEXT = "Show this help and exit."

Rows = Sequence[tuple[str, str]]
#: Shows a heading as one.
Emphasis = Callable[[str], str]


class Help:
    """Writes help for a reader.

    Args:
        columns: How wide the reader's lines are.
        emphasis: How a heading is shown.
    """

    def __init__(self, *, columns: int, emphasis: Emphasis = str) -> None:
        self._columns = max(min(columns, _WIDEST), 1)
        self._emphasis = emphasis

    def of_command(self, words: Sequence[str], function: Function) -> str:
        """Return the help of a command."""
        text = documentation(function)
        declared = parameters(function)
        placed = [parameter for parameter in declared if not parameter.names]
        needed = [f"{p.label} {p.metavar}" for p in declared if p.names and p.is_required]
        usage = [*words, "[OPTIONS]", *needed, *map(placed_text, placed)]
        return self._joined(
            self._usage(usage),
            *map(self._wrapped, [text.summary, *text.prose]),
            self._section("Arguments", [(p.metavar, described(p)) for p in placed]),
            self._options(declared),
            self._lines("Examples", text.examples),
        )

    def of_group(self, words: Sequence[str], group: Group) -> str:
        """Return the help of a group."""
        return self._joined(
            self._usage([*words, "COMMAND ..."]),
            self._wrapped(group.description),
            self._section("Commands", [*command_rows(group)]),
            self._wrapped(f"{' '.join([PROGRAM, *words, 'COMMAND', HELP[1]])} explains each."),
        )

    def of_program(self, options: Function, commands: Group, ends: Rows) -> str:
        """Return the help of the program.

        Args:
            options: What declares the options before the command.
            commands: All of them.
            ends: Exit codes, and what each means.
        """
        return self._joined(
            self._usage(["[OPTIONS]", "COMMAND ..."]),
            self._wrapped(documentation(options).summary),
            self._section("Commands", [*command_rows(commands)]),
            self._options(parameters(options)),
            self._section("Exit codes", ends),
            self._wrapped(f"{PROGRAM} COMMAND {HELP[1]} explains each command."),
        )

    def _usage(self, parts: Sequence[str]) -> str:
        """Return how it is called; a part is broken only where it is wider than a line."""
        room = self._columns - _HANGING
        whole = (p.replace(" ", _UNBROKEN) if len(p) <= room else p for p in (PROGRAM, *parts))
        first, *rest = self._filled(" ".join(whole), room)
        lines = [" " * _INDENT + first, *(" " * _HANGING + line for line in rest)]
        return "\n".join([self._emphasis("Usage:"), *lines]).replace(_UNBROKEN, " ")

    def _options(self, declared: Sequence[Parameter]) -> str:
        rows = [(option_text(p), described(p)) for p in declared if p.names]
        return self._section("Options", [*rows, (", ".join(HELP), HELP_TEXT)])

    def _section(self, title: str, rows: Rows) -> str:
        if not rows:
            return ""
        longest = max((len(name) for name, _ in rows if len(name) <= _LONGEST_NAME), default=0)
        indent = _INDENT + longest + _GAP
        lines = [self._emphasis(f"{title}:")]
        if self._columns - indent < _NARROWEST:
            lines += self._stacked(rows)
            return "\n".join(lines)
        for name, description in rows:
            told = self._filled(description, self._columns - indent)
            first = f"{' ' * _INDENT}{name}"
            if len(first) + _GAP <= indent:
                lines.append(f"{first:{indent}}{told.pop(0)}")
            else:
                lines += [
                    " " * _INDENT + part for part in self._filled(name, self._columns - _INDENT)
                ]
            lines += [f"{' ' * indent}{line}" for line in told]
        return "\n".join(lines)

    def _stacked(self, rows: Rows) -> Iterator[str]:
        """Yield the lines of rows whose names have what is said of them below."""
        for name, description in rows:
            for line in self._filled(name.strip(), self._columns - _INDENT):
                yield " " * _INDENT + line
            for line in self._filled(description, self._columns - _HANGING):
                yield " " * _HANGING + line

    def _lines(self, title: str, texts: Sequence[str]) -> str:
        """Return a section of lines that are not wrapped, so that they can be copied."""
        indent = " " * _INDENT
        return "\n".join([self._emphasis(f"{title}:"), *(f"{indent}{text}" for text in texts)])

    def _wrapped(self, text: str) -> str:
        return "\n".join(self._filled(text, self._columns))

    def _filled(self, text: str, columns: int) -> list[str]:
        return textwrap.wrap(
            text, max(columns, 1), break_long_words=False, break_on_hyphens=False
        ) or [""]

    def _joined(self, *parts: str) -> str:
        return "\n\n".join(filter(None, parts))


def command_rows(group: Group) -> Rows:
    """Return the names of the commands of a group, and what each does."""
    return [
        (name, one.description if isinstance(one, Group) else documentation(one).summary)
        for name, one in group.items()
    ]


def placed_text(parameter: Parameter) -> str:
    """Return how an argument stands in the usage: ``ID``, ``[ID]``, ``ID...`` or ``[ID...]``."""
    text = parameter.metavar + "..." * parameter.is_list
    return text if parameter.is_required else f"[{text}]"


def option_text(parameter: Parameter) -> str:
    """Return how an option is given: ``-n, --limit N``; long names stand below each other."""
    short = [name for name in parameter.names if not name.startswith("--")]
    long = [name for name in parameter.names if name.startswith("--")]
    names = ", ".join([*short, *long]) if short else " " * 4 + ", ".join(long)
    return names if parameter.is_flag else f"{names} {parameter.metavar}"


def described(parameter: Parameter) -> str:
    """Return what a parameter is, with its default."""
    default = parameter.default
    text = parameter.marker.description
    if parameter.names and parameter.is_required:
        return f"{text} (required)"
    if parameter.is_required or default is None or default is False or default == []:
        return text
    if isinstance(default, float) and default == int(default):
        default = int(default)
    return f"{text} (default: {default})"
