"""Backups of the registry: whole, of one moment, and there only when they are finished.

``registry backup`` calls it. What a registry does not hold, stored results and the secrets of blocks, is
not in one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from prefectlite.errors import ConflictError, NotFoundError, OutputError, UsageError
from prefectlite.filesystems import sync_folder
from prefectlite.output_files import part_of, refuse_registry_file
from prefectlite.registry import open_upkeep


def back_up(
    url: str, target: Path, *, told: Callable[[int, int], object], replaces: bool = False
) -> int:
    """Write all that is on record at one moment to a file; return its size in bytes.

    Others go on writing meanwhile. The file is its owner's alone, and outlives a power cut. A registry
    of an older version of prefectlite is copied as it is.

    Args:
        url: The registry's.
        target: The file.
        told: Called with how much is written and how much there is, many times a second.
        replaces: Whether it may be there already; it then is the old one until the new one is whole.

    Raises:
        NotFoundError: There is no registry.
        UsageError: The file is a folder, or of the registry itself.
        ConflictError: The file is there.
        OutputError: It cannot be written, and nothing is left of it; or it is there and whole, but may not
            outlive a power cut.
    """
    with closing(open_upkeep(url)) as upkeep:
        storage = upkeep.storage()
        if not storage.exists:
            raise NotFoundError(f"there is no registry yet: {storage.path}")
        try:
            _check(target, url, replaces=replaces)
        except (OSError, ValueError) as error:  # a name that is too long, a null byte
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{target} cannot be written: {reason}") from error
        part = part_of(target)
        try:
            upkeep.back_up(part, told=told)
            _check(target, url, replaces=replaces)
            _put(part, target)
        finally:
            # SQLite has a journal beside a file that it could not finish.
            for left in (part, part.with_name(f"{part.name}-journal")):
                with suppress(OSError):
                    left.unlink(missing_ok=True)
        return target.stat().st_size


def _check(target: Path, url: str, *, replaces: bool) -> None:
    if target.is_dir() or not target.name:
        raise UsageError(f"{target} is a folder", hint=f"name a file: {target / 'registry.backup'}")
    refuse_registry_file(target, url)
    if not os.path.lexists(target):
        return
    if target.exists() and not target.is_file():  # such as /dev/null, which must stay what it is
        raise UsageError(f"{target} is no file", hint="name one that is to be written")
    if not replaces:
        raise ConflictError(f"{target} is there already", hint="replace it with --force")


def _put(part: Path, target: Path) -> None:
    """Give a finished file its name, for good."""
    try:
        part.replace(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
    try:
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(
            f"{target} is written, but may not outlive a power cut: {error.strerror or error}",
            hint="is its disk whole?",
        ) from error
