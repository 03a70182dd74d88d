"""Files beside the registry that nothing on record needs any more, and files that are missed.

``registry check`` and ``registry prune`` ask. Whoever deletes a run or a block removes its files, too;
what is left over is of one that was killed in between, or of a registry that was restored from a
backup. Of the files of secrets only those that a registry has itself listed are ever removed here. Stored
results are only counted: several registries may share a home folder, and no file tells whose it is. What
was left by processes that were killed is told by its lock, which is free; that of a process tells its
registry, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress

from prefectlite.block_documents import remove_unused_secrets
from prefectlite.clock import now
from prefectlite.errors import PrefectLiteError
from prefectlite.liveness import free_locks
from prefectlite.registry import Registry
from prefectlite.registry_parts import BlockRegistry, UpkeepRegistry
from prefectlite.results import results_folder, unfinished_results
from prefectlite.secret_files import secrets_folder
from prefectlite.settings import PREFECTLITE_HOME
from prefectlite.upkeep_records import Fault

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# A file is made first and locked then; a process that slept in between is known to live all the same,
# by its start (``liveness.is_alive``), and is told that its result could not be stored.
_YOUNG_SECONDS = 600.0


def leftover_secrets(upkeep: UpkeepRegistry, blocks: BlockRegistry) -> list[str]:
    """Return the names of the files of secrets that no block names; none of a registry elsewhere.

    A backup has listed the files, too, that the registry beside them has come to need since.
    """
    return blocks.unused_secrets_files() if _is_at_home(upkeep) else []


def remove_leftover_secrets(registry: Registry, names: Collection[str]) -> int:
    """Remove files of secrets that no block names; return how many are gone."""
    if not names:
        return 0
    with suppress(PrefectLiteError):
        remove_unused_secrets()
    return len({*names} - {*registry.blocks.unused_secrets_files()})


def other_results_size(upkeep: UpkeepRegistry) -> tuple[int, int]:
    """Return how many results no run of this registry has stored, and their size in bytes.

    They may be those of another one. Of a registry that is not in the home folder it is none.
    """
    files = _result_files() if _is_at_home(upkeep) else []
    # After the files: a run is on record before it stores anything.
    known = upkeep.known_runs({id_ for id_, _ in files})
    sizes = [size for id_, size in files if id_ not in known]
    return len(sizes), sum(sizes)


def remove_files_of_the_dead(registry: Registry) -> int:
    """Remove locks of dead processes that no run needs, and results that were never finished.

    Returns:
        How many files are gone.
    """
    path, before = registry.upkeep.storage().path, now().timestamp() - _YOUNG_SECONDS
    locks = {} if path is None else free_locks(path, before=before)
    # After the locks: who is dead by then puts nothing more on record.
    begun, agents = registry.list_begun_flow_runs(), registry.deployments.list_agents()
    needed = {agent.process for agent in agents}
    needed |= {one for run in begun for one in (run.process, run.launcher) if one is not None}
    for process in needed:
        locks.pop(process.token, None)
    removed = 0
    parts = unfinished_results(before=before) if _is_at_home(registry.upkeep) else ()
    for path in [*locks.values(), *parts]:
        with suppress(OSError):  # another user's; or somebody else was first
            path.unlink()
            removed += 1
    return removed


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
    """Return how many results the home folder has, and how large they are together in bytes."""
    sizes = [size for _, size in _result_files()]
    return len(sizes), sum(sizes)


def _is_at_home(upkeep: UpkeepRegistry) -> bool:
    path = upkeep.storage().path
    return path is not None and path.parent == PREFECTLITE_HOME.value().resolve()


def _result_files() -> list[tuple[str, int]]:
    """Return of each file of a result, finished or not, the run's id and the size in bytes."""
    found = []
    with suppress(OSError), os.scandir(results_folder()) as entries:
        for entry in entries:
            match = _ID.match(entry.name.removeprefix("."))
            with suppress(FileNotFoundError):  # it was renamed, or deleted, since it was listed
                if match and entry.is_file(follow_symlinks=False):
                    found.append((match[0], entry.stat().st_size))
    return found
