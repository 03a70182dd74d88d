"""Help, usage errors and shell completion: the commands as Typer sees them.

The command line comes here with arguments that its own reader (``commands.py``) declined. Typer
reads them by the same declarations, and runs nothing: what it makes of them is handed back, so that
a command runs in one way whoever read its arguments. Only ``cli`` imports this module, and only
then: Typer is most of what starting a command would cost. It must never print.
"""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Annotated

import typer

from prefectlite.commands import Argument, Call, Function, Parameter, parameters

PROGRAM = "prefectlite"
_SETTINGS = {"help_option_names": ["--help", "-h"]}
# A paragraph that begins with this mark is not wrapped.
_AS_IT_IS = "\b"


class Group:
    """Commands that share a first word.

    Args:
        description: What they do, one sentence.
        commands: Each by its name; groups, too.
    """

    def __init__(self, description: str, commands: dict[str, Group | Function]) -> None:
        self.description = description
        self.commands = commands


class Reading:
    """What Typer made of the arguments.

    Attributes:
        calls: What to run, in order: the program's own options, then the command. Empty, or
            without a command, where there is nothing to run.
        stdout: The help, or a completion.
        stderr: What is wrong with the arguments.
        exit_code: 0, or 2 for wrong arguments.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.stdout = ""
        self.stderr = ""
        self.exit_code = 0


def read(
    options: Function,
    commands: Mapping[str, Group | Function],
    arguments: Sequence[str],
    *,
    epilog: str = "",
) -> Reading:
    """Read the arguments of the whole program.

    Args:
        options: A function that declares the options before the command.
        commands: Groups and commands by their first word.
        arguments: Without the program's name.
        epilog: What the program's own help ends with, shown as it is.
    """
    reading = Reading()
    app = typer.Typer(
        rich_markup_mode=None,
        no_args_is_help=True,
        context_settings=_SETTINGS,
        epilog=_unwrapped(epilog),
    )
    app.callback(help=_help(options)[0])(_recorder(options, reading.calls))
    _add_all(app, commands, reading.calls)
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            app(args=list(arguments), prog_name=PROGRAM)
        except SystemExit as end:
            reading.exit_code = end.code if isinstance(end.code, int) else 0
    reading.stdout, reading.stderr = stdout.getvalue(), stderr.getvalue()
    for name in (name for parameter in parameters(options) for name in parameter.names):
        if re.search(rf"No such option: {name}(?![\w-])", reading.stderr):
            reading.stderr += f"hint: {name} stands before the command, right after {PROGRAM}\n"
    return reading


def _add_all(app: typer.Typer, commands: Mapping[str, Group | Function], calls: list[Call]) -> None:
    for name, command in commands.items():
        if isinstance(command, Group):
            group = typer.Typer(help=command.description, no_args_is_help=True)
            _add_all(group, command.commands, calls)
            app.add_typer(group, name=name, context_settings=_SETTINGS)
        else:
            _add(app, name, command, calls)


def _add(app: typer.Typer, name: str, function: Function, calls: list[Call]) -> None:
    description, examples = _help(function)
    declare = app.command(
        name, help=description, epilog=_unwrapped(examples), context_settings=_SETTINGS
    )
    declare(_recorder(function, calls))


def _recorder(function: Function, calls: list[Call]) -> Callable[..., None]:
    """Return a stand-in for a command, with its declarations as Typer's, that only takes note."""

    def record(**values: object) -> None:
        calls.append((function, values))

    declared = [
        inspect.Parameter(
            parameter.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=parameter.default,
            annotation=_annotation(parameter),
        )
        for parameter in parameters(function)
    ]
    record.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]  # inspect reads it
    record.__annotations__ = {parameter.name: parameter.annotation for parameter in declared}
    return record


def _annotation(parameter: Parameter) -> object:
    marker = parameter.marker
    if isinstance(marker, Argument):
        info = typer.Argument(help=marker.description, metavar=marker.metavar, readable=False)
    else:
        info = typer.Option(
            *marker.names,
            help=marker.description,
            metavar=marker.metavar,
            min=marker.minimum,
            case_sensitive=not marker.ignore_case,
            readable=False,
        )
    return Annotated[parameter.annotation, info]


def _help(function: Function) -> tuple[str, str]:
    """Return a docstring's prose, and its examples under their heading."""
    prose, heading, examples = (inspect.getdoc(function) or "").partition("\nExamples:\n")
    return prose.strip(), f"Examples:\n{examples}" if heading else ""


def _unwrapped(text: str) -> str:
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(f"{_AS_IT_IS}\n{paragraph}" for paragraph in paragraphs)
