"""Files that a person named to have something written to them: whole or not at all.

``cli`` and what it writes reports with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prefectlite.errors import OutputError
from prefectlite.filesystems import is_open_already


def output_path(path: Path) -> Path:
    """Return where a file will be written, before there is anything to write.

    Returns:
        The path itself, absolute and without symbolic links: the current folder may change.

    Raises:
        OutputError: It cannot be written there.
    """
    try:
        found = path.absolute()
        found = found if _is_special(found) else found.resolve()
        if found.is_dir():
            raise OutputError(f"cannot write {str(path)!r}: it is a folder")
        if not found.parent.is_dir():
            raise OutputError(
                f"cannot write {str(path)!r}: there is no folder {str(found.parent)!r}",
                hint=f"make it with: mkdir -p {found.parent}",
            )
        target = found if _is_special(found) else found.parent
        if not os.access(target, os.W_OK):
            raise OutputError(f"cannot write {str(path)!r}: {str(target)!r} is not writable")
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, a link to itself
        told = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {str(path)!r}: {told}") from error
    return found


def write_file(path: Path, texts: Iterable[str]) -> None:
    """Write a file; an earlier one is replaced in one step.

    Args:
        path: As ``output_path`` gave it.
        texts: What it will hold, in pieces.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        if _is_special(path):
            with path.open("a", encoding="utf-8") as file:
                file.writelines(texts)
            return
        part = path.with_name(f".prefectlite-{os.getpid()}.part")
        try:
            with part.open("w", encoding="utf-8") as file:
                file.writelines(texts)
            part.replace(path)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def _is_special(path: Path) -> bool:
    """Return whether it has to stay what it is: a pipe, /dev/null, or a file that is open already."""
    return path.exists() and (not path.is_file() or is_open_already(str(path)))
