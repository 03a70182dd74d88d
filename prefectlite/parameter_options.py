"""The options that give a flow its parameters: ``-p KEY=VALUE`` and ``--params``.

``cli`` only, by every command that takes parameters. Nothing here knows the flow: what a text means
to its signature is ``parameters.from_text``'s affair.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated

from prefectlite import console
from prefectlite.commands import Option
from prefectlite.errors import UsageError
from prefectlite.references import read_stdin

ParamOption = Annotated[
    list[str] | None,
    Option(
        "--param",
        "-p",
        description="A parameter: JSON, or else plain text; may be repeated.",
        metavar="KEY=VALUE",
        complete="parameter",
    ),
]
ParamsOption = Annotated[
    str | None,
    Option(
        "--params",
        description="All parameters as a JSON object, or @FILE, or - for stdin.",
        metavar="JSON",
        complete="json-file",
    ),
]
RunNameOption = Annotated[
    str | None, Option("--name", description="The flow run's name.", metavar="NAME")
]
RunTagOption = Annotated[
    list[str] | None,
    Option(
        "--tag",
        "-t",
        description="A tag of the flow run; may be repeated.",
        metavar="TAG",
        complete="tag",
    ),
]


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Return what the values ``KEY=VALUE`` of an option say; the last one of a key counts.

    Raises:
        UsageError: One is not of that form.
    """
    found = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UsageError(
                f"{option} {text!r} is not KEY=VALUE", hint=f"such as: {option} name=you"
            )
        found[key] = value
    return found


def parameters_of(text: str | None, *, option: str = "--params") -> dict[str, object]:
    """Return the values that an option gives; reads stdin or a file where it says so.

    Raises:
        UsageError: They cannot be read, or are no JSON object.
    """
    if text is None:
        return {}
    import json

    source = option
    try:
        if text == "-":
            source, text = "stdin", read_stdin(option)
        elif text.startswith("@"):
            source = text[1:]
            text = Path(source).read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the values in {source} cannot be read: {error}",
            hint=f'they are a JSON object: {option} \'{{"name": "you"}}\'',
        ) from error
    if not isinstance(document, Mapping):
        raise UsageError(
            f"the values in {source} are no JSON object",
            hint=f'such as: {option} \'{{"name": "you"}}\'',
        )
    return dict(document)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send to stderr what is printed meanwhile, by this process and by those that it starts.

    For a command that runs or imports a person's code, while its own stdout is for data.
    """
    console.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        try:
            console.flush()  # of who kept the stdout that was there before
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
