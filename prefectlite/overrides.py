"""What a deployment may say about the infrastructure of its runs, and whether it is right.

``deployments`` checks with it before anything is kept. What a value means to a process is
``infrastructure/process.py``'s affair; nothing here starts one.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from prefectlite.errors import UsageError
from prefectlite.json_values import json_or_text
from prefectlite.plugins import load

_PROCESS = "process"
#: What Prefect 2.8 calls some of them.
_ALIASES = {"env": "environment", "working_dir": "working_directory"}


def checked_infrastructure(given: Mapping[str, object]) -> dict[str, object]:
    """Return the infrastructure of a deployment, with its ``type``, which is ``process`` if not given.

    A dotted key sets one entry of a table: ``environment.DEBUG``, as in Prefect 2.8. A ``command``
    that is one text is split as a shell would. None is as if it had not been given.

    Raises:
        UsageError: A key is unknown, or a value is not what it must be. ``SettingError`` where there
            is no such type.
    """
    infrastructure: dict[str, object] = {"type": _PROCESS}
    for key, value in given.items():
        name, _, entry = key.partition(".")
        name = _ALIASES.get(name, name)
        if value is None:
            continue
        table = infrastructure.get(name)
        if not entry:
            infrastructure[name] = value
        elif isinstance(table, Mapping):
            infrastructure[name] = {**table, entry: value}
        else:
            infrastructure[name] = {entry: value}
    type_ = infrastructure["type"]
    if not isinstance(type_, str):
        raise UsageError(f"infrastructure: type {type_!r} is not a text")
    if type_ != _PROCESS:
        load("infrastructure", type_)  # what it takes is its own affair
        return infrastructure
    for name, value in infrastructure.items():
        check = _CHECKS.get(name)
        if check is None:
            raise _unknown(name)
        try:
            infrastructure[name] = check(value)
        except ValueError as error:
            # Without the value: an environment may hold secrets.
            raise UsageError(f"infrastructure: {name} must be {error}") from None
    return infrastructure


def override_from_text(key: str, text: str) -> object:
    """Return the value that a person means by ``--override KEY=TEXT``.

    An entry of the environment keeps its text; any other text is a value if it is JSON.
    """
    name, _, entry = key.partition(".")
    is_variable = entry and _ALIASES.get(name, name) == "environment"
    return text if is_variable else json_or_text(text)


def _unknown(name: str) -> UsageError:
    near = get_close_matches(name, _CHECKS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(_CHECKS)}"
    return UsageError(f"infrastructure: there is no {name!r} for a process", hint=hint)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a text")
    return value


def _command(value: object) -> list[str]:
    expected = "a list of texts, or one as a shell reads it"
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError:
            raise ValueError(expected) from None
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(expected)
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        raise ValueError(expected)
    return [*value]


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("a table of texts")  # noqa: TRY004 - it becomes a UsageError
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError("a table whose names can be names of variables")
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"a table of texts ({name} is none: put it in quotes)")
    return {**value}


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - it becomes a UsageError
    return value


def _seconds(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:  # type: ignore[arg-type, operator] # a number
        raise ValueError("a number of seconds, at least 0")
    return value  # type: ignore[return-value] # a number


def _some_seconds(value: object) -> float:
    seconds = _seconds(value)
    if not seconds:
        raise ValueError("a number of seconds above 0")
    return seconds


_CHECKS: dict[str, Callable[[object], object]] = {
    "type": _text,
    "command": _command,
    "environment": _environment,
    "working_directory": _text,
    "stream_output": _yes_or_no,
    "grace_seconds": _seconds,
    "timeout_seconds": _some_seconds,
}
