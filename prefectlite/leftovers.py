"""Files beside the registry that nothing on record needs any more, and files that are missed.

``registry check`` and ``registry prune`` ask. Whoever deletes a run or a block removes its files, too;
what is left over is of one that was killed in between, or of a registry that was restored from a
backup. Only the registry that lies in the home folder itself has leftovers there: the files of one
that lies elsewhere stand among those of others, and nothing tells whose they are.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from prefectlite.block_documents import remove_unused_secrets
from prefectlite.errors import PrefectLiteError
from prefectlite.registry import Registry
from prefectlite.registry_parts import BlockRegistry, UpkeepRegistry
from prefectlite.results import results_folder
from prefectlite.secret_files import secrets_folder
from prefectlite.settings import PREFECTLITE_HOME
from prefectlite.upkeep_records import Fault

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What is younger may be about to be renamed, or of a run that another registry has just begun.
_LEAST_SECONDS = 86_400


@dataclass(slots=True)
class Leftovers:
    """What is left over.

    Attributes:
        results: Stored results that no run on record has stored.
        results_bytes: How large they are together.
        secrets: The names of files of secrets that no block names.
    """

    results: list[Path] = field(default_factory=list)
    results_bytes: int = 0
    secrets: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.results or self.secrets)


def find_leftovers(upkeep: UpkeepRegistry, blocks: BlockRegistry) -> Leftovers:
    """Return what is left over; it only looks."""
    found = Leftovers()
    path = upkeep.storage().path
    if path is None or path.parent != PREFECTLITE_HOME.value().resolve():
        return found
    found.secrets = blocks.unused_secrets_files()
    before = time.time() - _LEAST_SECONDS
    files = [entry for entry in _result_files() if entry.stat().st_mtime < before]
    # After the files: a run is on record before it stores anything.
    known = upkeep.known_runs([entry.name for entry in files])
    for entry in files:
        if entry.name not in known:
            found.results.append(Path(entry.path))
            found.results_bytes += entry.stat().st_size
    return found


def remove_leftovers(registry: Registry, leftovers: Leftovers) -> int:
    """Remove what is left over; return how many files are gone."""
    count = 0
    for path in leftovers.results:
        with suppress(OSError):
            path.unlink()
            count += 1
    if leftovers.secrets:
        with suppress(PrefectLiteError):
            remove_unused_secrets()
        count += len({*leftovers.secrets} - {*registry.blocks.unused_secrets_files()})
    return count


def missing_secrets(blocks: BlockRegistry) -> list[Fault]:
    """Return which blocks lack their file of secrets."""
    return [
        Fault(
            f"the secrets of the block {one.full_name} are gone: {secrets_folder() / one.secrets_file}",
            f"restore the file, or set them again: prefectlite block set {one.full_name}",
        )
        for one in blocks.list_blocks()
        if one.secrets_file is not None and not os.path.lexists(secrets_folder() / one.secrets_file)
    ]


def results_size() -> tuple[int, int]:
    """Return how many results are stored, and how large they are together in bytes."""
    sizes = [entry.stat().st_size for entry in _result_files()]
    return len(sizes), sum(sizes)


def _result_files() -> list[os.DirEntry[str]]:
    """Return the files of results, and those that were never finished; nothing else is ours."""
    try:
        with os.scandir(results_folder()) as entries:
            return [
                entry
                for entry in entries
                if _ID.match(entry.name.removeprefix(".")) and entry.is_file(follow_symlinks=False)
            ]
    except OSError:
        return []
