"""Files that a person named to have something written to them: whole or not at all.

``cli`` and what it writes reports with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prefectlite.errors import OutputError, UsageError
from prefectlite.filesystems import is_open_already
from prefectlite.registry import registry_path
from prefectlite.settings import PREFECTLITE_REGISTRY

# What SQLite has beside its file, and prefectlite.
_REGISTRY_ENDINGS = ("", "-wal", "-shm", "-journal")
_GATE_SUFFIX = ".lock"


def refuse_registry_file(path: Path, url: str | None = None) -> None:
    """Refuse to write where the registry is: whoever did would lose all that is on record.

    Args:
        path: A path, by whatever name.
        url: The registry's; None for the one in use.

    Raises:
        UsageError: It is a file of the registry, or would become one.
    """
    registry = registry_path(PREFECTLITE_REGISTRY.value() if url is None else url)
    if registry is None:
        return
    own = [registry.with_name(registry.name + ending) for ending in _REGISTRY_ENDINGS]
    own.append(registry.with_suffix(_GATE_SUFFIX))
    if Path(os.path.realpath(path)) in own or any(_is_same(path, one) for one in own):
        raise UsageError(f"{path} is a file of the registry itself", hint="name another file")


def part_of(path: Path) -> Path:
    """Return a file beside another, of a name that nobody can know, to be written and renamed."""
    return path.with_name(f".prefectlite-{os.urandom(8).hex()}.part")


def output_path(path: Path) -> Path:
    """Return where a file will be written, before there is anything to write.

    Returns:
        The path itself, absolute and without symbolic links: the current folder may change.

    Raises:
        OutputError: It cannot be written there.
        UsageError: The registry is there.
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
    refuse_registry_file(found)
    return found


def write_file(path: Path, texts: Iterable[str]) -> None:
    """Write a file; an earlier one is replaced in one step, by one that the same may read.

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
        part = part_of(path)
        try:
            with part.open("x", encoding="utf-8") as file:
                with suppress(FileNotFoundError):
                    os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
                file.writelines(texts)
            part.replace(path)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there
        return False


def _is_special(path: Path) -> bool:
    """Return whether it has to stay what it is: a pipe, /dev/null, or a file that is open already."""
    return path.exists() and (not path.is_file() or is_open_already(str(path)))
