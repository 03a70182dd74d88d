"""Finds commands: every file and folder of ``prefectlite/cli/`` is a command, or a group of commands.

``flow_run/`` is ``prefectlite flow-run``. The ``COMMANDS`` of a file are its functions, each named by
its function, and the names of files of its folder, in the order of the help. A file whose one command
has the file's own name is that command: ``run.py``. The first line of a file's docstring is the help
of its group.

The command line, the completion and the man pages go by it. It must never import a command that is
not asked for.
"""

from __future__ import annotations

import re
from functools import partial
from importlib import import_module
from pathlib import Path

from prefectlite.commands import Function, Group

_PACKAGE = "prefectlite.cli"
_FOLDER = Path(__file__).parent / "cli"
_WORD = re.compile(r"[a-z]+(-[a-z]+)*", re.ASCII)


def every_command() -> Group:
    """Return the group of all commands; none of them is imported yet."""
    names = [path.stem for path in _FOLDER.iterdir() if path.suffix == ".py" or path.is_dir()]
    words = [_word(name) for name in sorted(names) if name[:1].isalpha()]
    return Group("", words, partial(_load, _PACKAGE))


def outline(word: str) -> str:
    """Return what a command, or a group, of the program is about, without importing it.

    It is the first line of its file's docstring, where the help has that of the command.
    """
    path = _FOLDER / word.replace("-", "_")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline()
    except OSError:  # as in an archive
        return ""
    text = line.strip().strip('"').partition(": ``")[0]
    return f"{text.rstrip('.')}."


def _load(parent: str, word: str) -> Group | Function | None:
    """Return the command or the group of a file; None where there is no such file."""
    name = f"{parent}.{word.replace('-', '_')}"
    if not _WORD.fullmatch(word):
        return None
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
    functions: dict[str, Function] = {
        _word(one.__name__): one for one in module.COMMANDS if callable(one)
    }
    if [*functions] == [word] and len(module.COMMANDS) == 1:
        return functions[word]
    words = [_word(one if isinstance(one, str) else one.__name__) for one in module.COMMANDS]
    description = (module.__doc__ or "").partition("\n")[0]
    return Group(description, words, lambda word: functions.get(word) or _load(name, word))


def _word(name: str) -> str:
    return name.replace("_", "-")
