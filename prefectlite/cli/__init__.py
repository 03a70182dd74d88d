"""The command line: every other file here is one command, or one group, as ``command_tree`` finds it.

Commands are plain functions, declared as ``commands`` says, which may return an exit code. This file
has the arguments read, runs the command, and turns what it raises into words and an exit code. It
must never import a command that was not asked for, except to give help.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Annotated

from prefectlite import __version__, console, terminals
from prefectlite.argument_reading import (
    HELP,
    PROGRAM,
    STANDS_BEFORE,
    read_arguments,
    read_leading_options,
)
from prefectlite.command_tree import every_command
from prefectlite.commands import Call, Function, Group, Option, parameters
from prefectlite.errors import (
    EntrypointError,
    OutputClosedError,
    OutputError,
    PrefectLiteError,
    UsageError,
)
from prefectlite.names import near_hint
from prefectlite.references import NothingGivenError
from prefectlite.setting_sources import checked_profile, use_profile
from prefectlite.settings import PREFECTLITE_DEBUG

_INTERNAL_ERROR = 1
# What a disk refuses, whatever was asked of it; and what a person may not do, where a file is named.
_OF_A_DISK = {
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.ENXIO,
    errno.ENODEV,
    errno.ESTALE,
}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM}
# What a machine has no more of: files that may be open, memory, processes that may run.
_OF_A_LIMIT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
# Commands that work where the profile has what is no setting, so that it can be mended.
_MENDERS = {f"{__name__}.config", f"{__name__}.doctor", f"{__name__}.profile"}
EXIT_CODES = (
    ("0", "done; for a run: Completed"),
    ("1", "the run Failed or Crashed"),
    ("2", "wrong usage"),
    ("3", "not found"),
    ("4", "conflict: already final, not final, not paused, ambiguous"),
    ("5", "the registry, the infrastructure or the output cannot be used"),
    ("124", "the run TimedOut"),
    ("130", "interrupted"),
    ("141", "the reader of the output has gone"),
    ("143", "the run was Cancelled"),
)


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
            complete="profile",
        ),
    ] = None,
    version: Annotated[
        bool, Option("--version", "-V", description="Show the version and exit.")
    ] = False,
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
    except NothingGivenError as nothing:
        console.note(str(nothing))
    except KeyboardInterrupt:
        _flush_after_all()
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, a person reads one line about it
        exit_code = _report_unforeseen(error)
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
    exit_code = 0
    for function, values in read_calls(arguments):
        if function.__module__ not in {__name__, *_MENDERS}:
            checked_profile()
        exit_code = function(**values) or 0
    return exit_code


def read_calls(arguments: Sequence[str]) -> list[Call]:
    """Return what to run, in order: what the program's own options say, then the command.

    Raises:
        UsageError: There is no such command, or its arguments are wrong.
    """
    leading = read_leading_options(options, arguments)
    if leading is None:
        return [(_show_help, {})]
    values, rest = leading
    if rest[:1] == ["help"]:
        rest = [*rest[1:], HELP[1]]
    calls: list[Call] = [(options, values)]
    if values["version"]:
        return calls
    words, found = _find(rest)
    own = rest[len(words) :]
    if isinstance(found, Group):  # its help is asked for, or the command is missing
        return [*calls, (_show_help, {"words": words, "found": found, "is_asked": bool(own)})]
    read = read_arguments(found, own, command=" ".join(words), leading=_leading_options())
    if read is None:
        return [*calls, (_show_help, {"words": words, "found": found})]
    return [*calls, (found, read)]


def _find(arguments: Sequence[str]) -> tuple[list[str], Function | Group]:
    """Return the words that name a command, or a group whose help is to be shown, and that."""
    found: Function | Group = every_command()
    words: list[str] = []
    for word in arguments:
        if not isinstance(found, Group) or word in HELP:
            break
        inner = found.find(word)
        if inner is None:
            raise _no_command(found, words, word)
        words.append(word)
        found = inner
    return words, found


def _no_command(group: Group, words: Sequence[str], word: str) -> UsageError:
    if word.startswith("-"):
        name = word.partition("=")[0]
        hint = STANDS_BEFORE if name in _leading_options() else _see_help(words)
        return UsageError(f"no such option: {name}", hint=hint)
    hint = near_hint(word.lower().replace("_", "-"), group.words) or _see_help(words)
    return UsageError(f"no such command: {' '.join([*words, word])}", hint=hint)


def _leading_options() -> list[str]:
    return [name for parameter in parameters(options) for name in parameter.names]


def _see_help(words: Sequence[str]) -> str:
    return f"see: {' '.join([PROGRAM, *words, HELP[1]])}"


def _show_help(
    words: Sequence[str] = (), found: Function | Group | None = None, *, is_asked: bool = True
) -> int:
    """Show help: on stdout where it was asked for, else as what is said of a missing command."""
    from prefectlite.usage import Help

    stream = sys.stdout if is_asked else sys.stderr
    help_ = Help(
        columns=terminals.columns(stream), emphasis=lambda text: console.emphasized(text, stream)
    )
    if found is None or not words:
        text = help_.of_program(options, every_command(), EXIT_CODES)
    elif isinstance(found, Group):
        text = help_.of_group(words, found)
    else:
        text = help_.of_command(words, found)
    console.out(text) if is_asked else console.say(text)
    return 0 if is_asked else UsageError.exit_code


def _report_unforeseen(error: Exception) -> int:
    """Say what no command has expected, and return the exit code."""
    refused = _refused_by_the_system(error) if isinstance(error, OSError) else None
    exit_code = _INTERNAL_ERROR if refused is None else OutputError.exit_code
    told, hint = refused or (
        f"internal error: {type(error).__name__}: {error}",
        "this is a fault of prefectlite; set PREFECTLITE_DEBUG=1 to see where",
    )
    console.error(told, hint=hint)
    try:
        is_debugging = PREFECTLITE_DEBUG.value()
    except PrefectLiteError:
        return exit_code
    if is_debugging:
        import traceback

        console.say("".join(traceback.format_exception(error)).rstrip())
    return exit_code


def _refused_by_the_system(error: OSError) -> tuple[str, str] | None:
    """Return what to say of what the system has refused, and what to do; None for a fault of ours.

    Of many calls any may be the first to find that a disk fails, that a limit is reached, or that
    somebody has just removed what was there.
    """
    about = error.filename or "a file"
    if error.errno in _OF_A_LIMIT:
        about, hint = error.filename or "a process or a file", "is a limit reached? see ulimit -a;"
    elif error.errno in _OF_A_DISK or (error.errno in _NOT_ALLOWED and error.filename):
        hint = "is its disk whole, and may you read and write there?"
    elif error.filename:
        hint = "did somebody change that meanwhile? if not, this is a fault of prefectlite:"
    elif error.errno == errno.ENOENT:  # as getcwd(3) says it, which is given no name
        about, hint = "the current folder", "is it gone? cd to one that exists;"
    else:
        return None
    told = f"{about} cannot be used: {error.strerror or error}"
    return told, f"{hint} PREFECTLITE_DEBUG=1 shows where"
