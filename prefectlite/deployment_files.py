"""Deployments as TOML files: one deployment a file, written to be read and changed by a person.

``deployments`` reads and writes them here. What a file says is checked for its form alone: which
keys there are and of what type. A file that moves with the code it deploys stays right, because its
``working_directory`` is relative to the file's own folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prefectlite.deployment_records import Deployment
from prefectlite.errors import ConflictError, OutputError, UsageError
from prefectlite.names import near_names

#: The keys of a file, and what each must be.
_KEYS: dict[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "flow_name": (str, "a text"),
    "entrypoint": (str, "a text"),
    "working_directory": (str, "a text"),
    "description": (str, "a text"),
    "version": (str, "a text"),
    "tags": (list, "a list of texts"),
    "work_queue": (str, "a text"),
    "parameters": (dict, "a table"),
    "infrastructure": (dict, "a table, or a block such as process/big-box"),
}
_REQUIRED = ("name", "flow_name", "entrypoint")
_HEAD = """\
# A deployment: a flow, what it is called with, and what it runs in.
# Put it on record, and again after each change: prefectlite deployment apply FILE
# Run it: prefectlite deployment run FLOW-NAME/NAME
#
# entrypoint: path.py:flow or module:flow, seen from working_directory.
# working_directory: relative to the folder of this file.
# work_queue: where its runs wait to be taken.

"""
_PARAMETERS = """
# What the flow is called with, where a run says nothing else.
"""
_INFRASTRUCTURE = """
# What each run runs in. A process can have: command, environment (a table), working_directory,
# stream_output, grace_seconds (between SIGTERM and SIGKILL) and timeout_seconds. With
# block = "process/NAME" it has what that block has, but for what is said here.
"""


def toml_text(deployment: Deployment, *, folder: Path | None) -> str:
    """Return a deployment as the text of a file.

    Args:
        deployment: What to write.
        folder: Where the file will be; None where that is not known, so that the working directory
            is absolute.

    Raises:
        UsageError: TOML cannot say a parameter: it has no null.
    """
    import tomli_w

    directory = deployment.working_directory
    if folder is not None:
        directory = os.path.relpath(directory, folder.absolute())
    texts = {
        "name": deployment.name,
        "flow_name": deployment.flow_name,
        "entrypoint": deployment.entrypoint,
        "working_directory": directory,
        "description": deployment.description,
        "version": deployment.version,
    }
    document: dict[str, object] = {key: text for key, text in texts.items() if text is not None}
    document |= {"tags": [*deployment.tags], "work_queue": deployment.work_queue}
    for name, value in deployment.parameters.items():
        if _has_none(value):
            raise UsageError(
                f"the parameter {name!r} has a null, which TOML cannot say",
                hint="leave it out where None is its default, or give it to each run",
            )
    text = (
        _HEAD
        + tomli_w.dumps(document)
        + _PARAMETERS
        + tomli_w.dumps({"parameters": deployment.parameters})
        + _INFRASTRUCTURE
        + tomli_w.dumps({"infrastructure": deployment.infrastructure})
    )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the deployment cannot be written as UTF-8: {error}") from error
    return text


def read_toml(path: Path) -> dict[str, object]:
    """Return the keys and values of a file; its working directory is absolute.

    An ``infrastructure`` that is a text is given as the table that has it as its ``block``.

    Raises:
        UsageError: The file cannot be read, is no TOML, or has a key that is unknown, missing or
            of another type.
    """
    import tomllib

    try:
        folder = path.absolute().parent
        document = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RuntimeError) as error:  # of TOML; a loop of links; too deep
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{path} cannot be read: {reason}",
            hint="a deployment's file is made by: prefectlite deployment build",
        ) from error
    if isinstance(document.get("infrastructure"), str):
        document["infrastructure"] = {"block": document["infrastructure"]}
    for key, value in document.items():
        if key not in _KEYS:
            raise UsageError(f"{path}: there is no key {key!r} in a deployment", hint=_near(key))
        kind, expected = _KEYS[key]
        is_right = isinstance(value, kind)
        if kind is list:
            is_right = is_right and all(isinstance(item, str) for item in value)
        if not is_right:
            raise UsageError(f"{path}: {key!r} must be {expected}, not {value!r}")
    for key in _REQUIRED:
        if key not in document:
            raise UsageError(f"{path}: {key!r} is missing")
    directory = document.get("working_directory", ".")
    return {**document, "working_directory": os.path.normpath(folder / directory)}


def write_toml(path: Path, text: str, *, replace: bool) -> None:
    """Write the text of a file.

    Raises:
        ConflictError: There is a file, and it is not to be replaced.
        OutputError: It cannot be written.
    """
    try:
        with path.open("w" if replace else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConflictError(
            f"there is a file {str(path)!r} already", hint="replace it with --force"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"cannot write {str(path)!r}: {reason}") from error


def _near(key: str) -> str:
    near = near_names(key, _KEYS)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(_KEYS)}"


def _has_none(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_none, value.values()))
    return any(map(_has_none, value)) if isinstance(value, list) else value is None
