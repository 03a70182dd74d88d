"""The command line: every other file here is one command, or one group of commands.

``flow_run.py`` is ``prefectlite flow-run``. Its ``COMMANDS`` are plain functions, declared as
``commands.py`` says; each is named by its function, and may return an exit code. A file whose one
command has the file's own name is that command, without a second word: ``run.py``. A group in a group
says so: ``GROUP = "block type"``. The first line of a file's docstring is the help of its group.

This file finds the command, reads the arguments, runs it, and turns what it raises into words and
an exit code. It must never import a command that was not asked for, except to give help.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

from prefectlite import __version__, console
from prefectlite.commands import (
    Call,
    Function,
    Option,
    read_arguments,
    read_leading_options,
)
from prefectlite.errors import EntrypointError, OutputClosedError, OutputError, PrefectLiteError
from prefectlite.setting_sources import checked_profile, use_profile
from prefectlite.settings import PREFECTLITE_COMPLETE, PREFECTLITE_DEBUG

if TYPE_CHECKING:
    from prefectlite.usage import Group

_INTERNAL_ERROR = 1
# Commands that work where the profile has what is no setting, so that it can be mended.
_MENDERS = {f"{__name__}.config", f"{__name__}.profile"}
_WORD = re.compile(r"[a-z]+(-[a-z]+)*", re.ASCII)
_EXIT_CODES = """\
Exit codes:
  0    done; for a run: Completed
  1    the run Failed or Crashed
  2    wrong usage
  3    not found
  4    conflict: already final, not final, not paused, ambiguous
  5    the registry, the infrastructure or the output cannot be used
  124  the run TimedOut
  130  interrupted
  141  the reader of the output has gone
  143  the run was Cancelled
"""


def options(
    *,
    color: Annotated[
        console.Color, Option("--color", description="When to use colour.")
    ] = console.Color.AUTO,
    profile: Annotated[
        str | None,
        Option(
            "--profile",
            description="Use the settings of this profile, instead of the active one's.",
            metavar="NAME",
        ),
    ] = None,
    version: Annotated[bool, Option("--version", description="Show the version and exit.")] = False,
) -> None:
    """Run flows, and see what became of them."""
    console.use_color(color)
    if profile is not None:
        use_profile(profile)
    if version:
        console.out(f"prefectlite {__version__}")


def main(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code.

    Args:
        arguments: Without the program's name.

    Raises:
        KeyboardInterrupt: The person pressed Ctrl-C.
    """
    exit_code = 0
    try:
        console.prepare()
        console.use_color(console.Color.AUTO)
        exit_code = _run(arguments)
        console.flush()
    except OutputError as error:
        console.discard_output()
        if not isinstance(error, OutputClosedError):
            console.error(error)
        # What became of a run matters more than who was there to read it.
        exit_code = exit_code or error.exit_code
    except PrefectLiteError as error:
        if isinstance(error, EntrypointError) and error.__cause__ is not None:
            _show_traceback(error.__cause__)
        console.error(error)
        exit_code = error.exit_code
    except KeyboardInterrupt:
        _flush_after_all()
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, a person reads one line about it
        _report_internal(error)
        exit_code = _INTERNAL_ERROR
    _flush_after_all()  # what was printed before an error; nothing where there was none
    return exit_code


def _show_traceback(error: BaseException) -> None:
    """Show where in the person's own code an error was raised."""
    from prefectlite.outcomes import user_traceback

    console.say(user_traceback(error))


def _flush_after_all() -> None:
    """Print what is left of a command that did not end well; its exit code is settled."""
    console.settle_words()
    try:
        console.flush()
    except OutputError:
        console.discard_output()


def _run(arguments: Sequence[str]) -> int:
    calls = None if PREFECTLITE_COMPLETE.value() else read_calls(arguments)
    exit_code = 0
    if calls is None:
        from prefectlite import usage

        reading = usage.read(options, every_command(), arguments, epilog=_EXIT_CODES)
        calls, exit_code = reading.calls, reading.exit_code
        if reading.stderr:
            console.say(reading.stderr.rstrip("\n"))
        if reading.stdout:
            console.out(reading.stdout.rstrip("\n"))
        if exit_code:
            return exit_code
    for function, values in calls:
        if function is not options and function.__module__ not in _MENDERS:
            checked_profile()
        exit_code = function(**values) or 0
    return exit_code


def read_calls(arguments: Sequence[str]) -> list[Call] | None:
    """Return what to run for arguments that are right beyond doubt; None where Typer must judge."""
    leading = read_leading_options(options, arguments)
    if leading is None:
        return None
    values, rest = leading
    if values["version"]:
        return [(options, values)]
    found = _find(rest)
    if found is None:
        return None
    function, own = found
    command_values = read_arguments(function, own)
    if command_values is None:
        return None
    return [(options, values), (function, command_values)]


def every_command() -> dict[str, Group | Function]:
    """Return all commands and groups by their first word; imports them all."""
    from prefectlite.usage import Group

    commands: dict[str, Group | Function] = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        module = _import(path.stem)
        functions = _functions(module)
        description = (module.__doc__ or "").partition("\n")[0]
        command = functions.get("") or Group(description, {**functions})
        first, _, second = _group(module).partition(" ")
        outer = commands.get(first)
        if second and isinstance(outer, Group):  # which comes before it, as its file does
            outer.commands[second] = command
        else:
            commands[first] = command
    return commands


def _find(arguments: Sequence[str]) -> tuple[Function, Sequence[str]] | None:
    """Return the command that the first words name, and the arguments after them."""
    for count in (1, 2):  # the words of the group
        words = arguments[:count]
        if len(words) < count or not all(map(_WORD.fullmatch, words)):
            return None
        functions = _functions_of(words)
        if "" in functions:
            return functions[""], arguments[count:]
        function = functions.get("".join(arguments[count : count + 1]))
        if function is not None:
            return function, arguments[count + 1 :]
    return None


def _functions_of(words: Sequence[str]) -> Mapping[str, Function]:
    """Return the commands of a group, by its words; none where there is no such group."""
    name = "_".join(words).replace("-", "_")
    try:
        module = _import(name)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        return {}
    return _functions(module) if _group(module) == " ".join(words) else {}


def _group(module: ModuleType) -> str:
    """Return the word, or the two words, that the commands of a file come after."""
    words: str = getattr(module, "GROUP", _word(module.__name__.rpartition(".")[2]))
    return words


def _import(name: str) -> ModuleType:
    path = f"{__name__}.{name}"
    __import__(path)
    return sys.modules[path]


def _functions(module: ModuleType) -> Mapping[str, Function]:
    """Return a file's commands by their second word, which is empty where the file is one."""
    functions: Sequence[Function] = module.COMMANDS
    file_name = module.__name__.rpartition(".")[2]
    if [function.__name__ for function in functions] == [file_name]:
        return {"": functions[0]}
    return {_word(function.__name__): function for function in functions}


def _word(name: str) -> str:
    return name.replace("_", "-")


def _report_internal(error: Exception) -> None:
    console.error(
        f"internal error: {type(error).__name__}: {error}",
        hint="this is a fault of prefectlite; set PREFECTLITE_DEBUG=1 to see where",
    )
    try:
        is_debugging = PREFECTLITE_DEBUG.value()
    except PrefectLiteError:
        return
    if is_debugging:
        import traceback

        console.say("".join(traceback.format_exception(error)).rstrip())
