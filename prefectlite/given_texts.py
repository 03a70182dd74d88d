"""What a person gives a command for keys: as KEY=VALUE, from the environment, or through stdin.

``cli`` only. What is given may be a secret: no message from here repeats it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from prefectlite import console
from prefectlite.errors import UsageError
from prefectlite.references import read_stdin
from prefectlite.settings import variable


def read_pairs(arguments: Sequence[str], *, first: int) -> dict[str, str]:
    """Return what ``KEY=VALUE`` arguments say; an error does not repeat them.

    Args:
        arguments: They.
        first: Which argument of the command the first of them is, from 1.

    Raises:
        UsageError: One is of another form, or a key is given twice.
    """
    found: dict[str, str] = {}
    for place, argument in enumerate(arguments, start=first):
        key, separator, text = argument.partition("=")
        if not separator or not key:
            raise UsageError(
                f"argument {place} is not KEY=VALUE", hint="such as: host=localhost retries=3"
            )
        if key in found:
            raise UsageError(f"{key!r} is given twice")
        found[key] = text
    return found


def all_texts(
    given: Mapping[str, str], from_env: Sequence[str], stdin: Sequence[str]
) -> dict[str, str]:
    """Return the text of each key, wherever it comes from; blocks until what stdin is to give is there.

    Args:
        given: What ``read_pairs`` gave.
        from_env: Each as ``KEY``, or ``KEY=VARIABLE``.
        stdin: Keys.

    Raises:
        UsageError: A key is given twice, or its text is not to be had.
    """
    texts = {**given}
    sources: list[tuple[str, Callable[[], str]]] = []
    for one in from_env:
        key, separator, name = one.partition("=")
        name = name if separator else key.upper().replace(".", "_").replace("-", "_")
        sources.append((key, lambda name=name: _variable(name)))  # type: ignore[misc] # a default, to bind it
    sources += [(key, lambda key=key: _from_stdin(key)) for key in stdin]  # type: ignore[misc] # as above
    if len(stdin) > 1 and not sys.stdin.isatty():
        raise UsageError("--stdin can be given once, where stdin is no terminal")
    for key, source in sources:
        if key in texts:
            raise UsageError(f"{key!r} is given twice")
        texts[key] = source()
    return texts


def _variable(name: str) -> str:
    text = variable(name)
    if text is None:
        raise UsageError(
            f"the environment has no {name!r}", hint="name another: --from-env KEY=VARIABLE"
        )
    return text


def _from_stdin(key: str) -> str:
    try:
        text = _asked(key) if sys.stdin.isatty() else read_stdin(repr(key)).removesuffix("\n")
    except (OSError, EOFError, ValueError):  # the last: it is closed
        raise UsageError(f"{key!r} cannot be read from stdin") from None
    if not text:
        raise UsageError(f"{key!r} cannot be read from stdin: it is empty")
    return text


def _asked(key: str) -> str:
    from getpass import getpass

    try:
        return getpass(f"{console.escaped(key)}: ")
    except (EOFError, KeyboardInterrupt):
        console.say("")  # what comes next is not to stand behind the question
        raise
