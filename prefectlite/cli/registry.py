"""See how the registry is kept, check it, back it up, and delete what is too old.

``prefectlite registry``. Only ``prune`` changes it.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

from prefectlite import console
from prefectlite.commands import Argument, Option, Past
from prefectlite.errors import ConflictError, RegistryError, SettingError, UsageError
from prefectlite.listings import JsonOption, writable_registry
from prefectlite.registry import Registry, open_registry, open_upkeep, registry_path
from prefectlite.run_filters import FlowRunFilter
from prefectlite.selections import DryRunOption, FlowOption, StateOption, note_unknown_states
from prefectlite.settings import PREFECTLITE_REGISTRY, PREFECTLITE_REGISTRY_LOCK_SECONDS
from prefectlite.upkeep_records import Deleted, EndedRun, Prunable

# What a compaction writes in a second at the least, on a disk of today. Measured: 100 million.
_VACUUM_BYTES_A_SECOND = 25_000_000
# Less is not worth a word.
_MENTIONED_BYTES = 10_000_000
_GOING_ON = ("PENDING", "RUNNING", "CANCELLING")


def path() -> None:
    """Print the registry's file, for use in scripts.

    Examples:
        prefectlite registry path
    """
    url = PREFECTLITE_REGISTRY.value()
    file = registry_path(url)
    if file is None:
        raise SettingError(f"the registry {PREFECTLITE_REGISTRY.masked(url)} is not in a file")
    console.out(str(file))


def info(*, as_json: JsonOption = False) -> None:
    """Show where the registry is, how large it is, and how much is on record.

    It reads no run: of a million task runs it takes a tenth of a second to count them.

    Examples:
        prefectlite registry info
        prefectlite registry info --json
    """
    from prefectlite.filesystems import filesystem_type
    from prefectlite.leftovers import results_size

    url = PREFECTLITE_REGISTRY.value()
    upkeep = open_registry(url, read_only=True).upkeep
    storage, contents = upkeep.storage(), upkeep.contents()
    results, results_bytes = results_size()
    kind = None if storage.path is None else filesystem_type(storage.path.parent)
    if as_json:
        console.out_json(
            {
                "url": PREFECTLITE_REGISTRY.masked(url),
                **storage.dict(),
                "filesystem": kind,
                "results": results,
                "results_bytes": results_bytes,
                **contents.dict(),
            }
        )
        return
    size = console.bytes_text
    free = f", {size(storage.free_bytes)} of it free" if storage.free_bytes else ""
    states = ", ".join(f"{count} {name}" for name, count in contents.flow_runs.items())
    total = sum(contents.flow_runs.values())
    console.out_fields(
        {
            "Registry": PREFECTLITE_REGISTRY.masked(url),
            "File": str(storage.path or ""),
            "Size": f"{size(storage.file_bytes)}{free}" if storage.exists else "not there yet",
            "Log": size(storage.log_bytes) if storage.log_bytes else "",
            "Stored results": f"{results}, {size(results_bytes)}" if results else "",
            "Filesystem": kind or "",
            "Engine": f"{storage.engine}, journal mode {storage.journal_mode}",
            "Schema": str(storage.schema_version),
            "Flow runs": f"{total}: {states}" if states else "0",
            **{
                name.replace("_", " ").capitalize(): str(count)
                for name, count in contents.rows.items()
                if count
            },
            "Oldest flow run": console.moment_text(contents.oldest_at),
            "Newest flow run": console.moment_text(contents.newest_at),
        }
    )


def check(
    *,
    quick: Annotated[
        bool,
        Option("--quick", description="Look for damage only, not at what rows and indexes say."),
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Check that the registry is whole. The exit code is 5 where something is wrong.

    It reads everything and changes nothing; others may go on writing. A million task runs take about
    ten seconds, a second with --quick. A backup is checked in the same way: say where it is in
    PREFECTLITE_REGISTRY.

    Examples:
        prefectlite registry check
        prefectlite registry check --quick --json
    """
    from prefectlite.leftovers import leftover_secrets, missing_secrets, other_results_size
    from prefectlite.progress_bars import ProgressBar

    url = PREFECTLITE_REGISTRY.value()
    secrets: list[str] = []
    others = others_bytes = 0
    with closing(open_upkeep(url)) as upkeep, ProgressBar("Checking") as bar:
        storage = upkeep.storage()
        faults = upkeep.faults(is_quick=quick, told=bar.tick)
        # To read an older one through the rest of the registry would make it a newer one.
        if not faults and not quick and storage.schema_version == storage.newest_schema_version:
            blocks = open_registry(url, read_only=True).blocks
            faults += missing_secrets(blocks)
            secrets = leftover_secrets(upkeep, blocks)
            others, others_bytes = other_results_size(upkeep)
    if as_json:
        console.out_json(
            {
                "url": PREFECTLITE_REGISTRY.masked(url),
                "exists": storage.exists,
                "faults": [fault.dict() for fault in faults],
                "other_results": others,
                "other_results_bytes": others_bytes,
                "leftover_secrets": len(secrets),
            }
        )
    for fault in faults:
        console.error(fault.message, hint=fault.hint)
    if secrets:
        console.note(f"files of secrets that no block needs: {len(secrets)}; prune removes them")
    if others:
        size = console.bytes_text(others_bytes)
        console.note(
            f"stored results of no run of this registry: {others}, {size}; they may be of another one"
        )
    if not storage.exists:
        console.note(f"there is no registry yet: {storage.path}")
    elif not faults:
        console.say("The registry is whole.")
    return RegistryError.exit_code if faults else 0


def backup(
    target: Annotated[Path, Argument("The file to write, on any filesystem.", metavar="FILE")],
    *,
    force: Annotated[
        bool, Option("--force", description="Replace the file if it is there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write all that is on record at one moment to a file that only you can read.

    Others go on writing meanwhile. Stored results and the secrets of blocks are in folders of their
    own: keep copies of these, too. To restore, with nothing running: move the registry's file away, and
    with it those of the same name that end in -wal and -shm; copy the backup to its place, and the
    two folders beside it.

    Examples:
        prefectlite registry backup registry.backup --force
        prefectlite registry backup before-upgrade.backup --json
    """
    from prefectlite.backups import back_up
    from prefectlite.progress_bars import ProgressBar

    if str(target) == "-":
        raise UsageError("a backup is written to a file, not to stdout")
    with ProgressBar("Backing up") as bar:
        size = back_up(PREFECTLITE_REGISTRY.value(), target, told=bar.update, replaces=force)
    if as_json:
        console.out_json({"path": str(target.absolute()), "bytes": size})
    told = f"{console.escaped(str(target))} ({console.bytes_text(size)})"
    console.say(f"Backed up the registry to {told}")
    _note_folders()


def _note_folders() -> None:
    """Say which folders a person who wants to restore a backup needs besides."""
    from prefectlite.results import results_folder
    from prefectlite.secret_files import secrets_folder

    kept = {"stored results": results_folder(), "the secrets of blocks": secrets_folder()}
    for what, folder in kept.items():
        if folder.is_dir():
            console.note(f"{what} are not in it; to keep them, too, copy the folder {folder}")


def prune(
    *,
    older_than: Annotated[
        Past | None,
        Option(
            "--older-than",
            description="Only those that ended longer ago than this, such as 30d, or before this time.",
            metavar="TIME",
        ),
    ] = None,
    keep: Annotated[
        int,
        Option(
            "--keep",
            description="Keep this many newest runs of each flow, however old they are.",
            metavar="N",
            minimum=0,
        ),
    ] = 0,
    state: StateOption = None,
    flow: FlowOption = None,
    vacuum: Annotated[
        bool,
        Option(
            "--vacuum",
            description="Then give free space back to the disk; nobody can write meanwhile.",
        ),
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete flow runs that have ended long ago, with their task runs, logs and stored results.

    Subflow runs go, and stay, with the run that called them: the conditions are asked of that one, and
    all of them must have ended so long ago. Runs that have not ended are never deleted. A task whose
    cached result is deleted runs again. Files of secrets that no block needs are removed, too, and those
    that killed processes have left. A run of many task runs is deleted in parts: who interrupts that,
    and is told so, says it again.

    Others go on writing meanwhile. The space is used again by later runs; --vacuum makes the file
    smaller.

    Examples:
        prefectlite registry prune --older-than 30d --dry-run
        prefectlite registry prune --older-than 90d --state completed --keep 10
    """
    from prefectlite.leftovers import (
        leftover_secrets,
        remove_files_of_the_dead,
        remove_leftover_secrets,
    )

    if older_than is None and not keep:
        raise UsageError("which flow runs?", hint="say --older-than 30d, or --keep N, or both")
    note_unknown_states(state or ())
    prunable = Prunable(before=older_than, states=state or (), flow_names=flow or (), keep=keep)
    registry = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)
    flow_runs = registry.upkeep.list_prunable_flow_runs(prunable)
    secrets = leftover_secrets(registry.upkeep, registry.blocks)
    if dry_run:
        _tell_prunable(flow_runs, len(secrets), as_json=as_json)
        return
    # There is nothing in one that is not there, and no reason to make it.
    if registry.upkeep.storage().exists:
        registry = writable_registry()
    if vacuum:
        _check_vacuum(registry)
    task_runs = _delete(registry, flow_runs)
    files = remove_leftover_secrets(registry, secrets)
    left = remove_files_of_the_dead(registry)
    registry.upkeep.forget_lost_results()
    if files:
        console.say(f"Removed files of secrets that no block needed: {files}")
    if left:
        console.say(f"Removed files that killed processes had left: {left}")
    if vacuum:
        _give_back_space(registry)
    elif (free_bytes := registry.upkeep.storage().free_bytes) > _MENTIONED_BYTES:
        free = console.bytes_text(free_bytes)
        console.note(f"{free} of the registry's file are free, and used again; see --vacuum")
    if as_json:
        summary = {"flow_runs": len(flow_runs), "task_runs": task_runs, "leftover_secrets": files}
        console.out_json({**summary, "is_dry_run": False})


def _tell_prunable(flow_runs: list[EndedRun], files: int, *, as_json: bool) -> None:
    """Show what would be deleted: how many runs of which flows, and when these ended."""
    if as_json:
        summary = {"flow_runs": len(flow_runs), "task_runs": None, "leftover_secrets": files}
        console.out_json({**summary, "is_dry_run": True})
        return
    flows: dict[str, list[EndedRun]] = {}
    for flow_run in flow_runs:
        flows.setdefault(flow_run.flow_name, []).append(flow_run)
    rows = []
    for name, runs in sorted(flows.items()):
        ends = [run.ended_at for run in runs]
        moments = [console.moment_text(min(ends)), console.moment_text(max(ends))]
        rows.append([name, str(len(runs)), *moments])
    console.out_table(["FLOW", "FLOW RUNS", "FIRST ENDED", "LAST ENDED"], rows, cut=["FLOW"])
    if files:
        console.note(f"files of secrets that no block needs: {files}; they would be removed")


def _delete(registry: Registry, flow_runs: list[EndedRun]) -> int:
    """Delete flow runs, say how far that came, and return how many task runs they had."""
    from prefectlite.deletion import delete_flow_runs
    from prefectlite.progress_bars import ProgressBar

    flow_run_count = task_run_count = 0
    unfinished_id = None

    def told(deleted: Deleted) -> None:
        nonlocal flow_run_count, task_run_count, unfinished_id
        unfinished_id = deleted.unfinished_id
        flow_run_count += len(deleted.flow_run_ids)
        task_run_count += len(deleted.task_run_ids)
        bar.update(flow_run_count, len(flow_runs))

    with ProgressBar("Deleting", unit="flow runs") as bar:
        try:
            delete_flow_runs(registry, [flow_run.id for flow_run in flow_runs], told)
        finally:
            bar.clear()
            of_all = f" of {len(flow_runs)}" if flow_run_count < len(flow_runs) else ""
            console.say(f"Deleted flow runs: {flow_run_count}{of_all}, task runs: {task_run_count}")
            if unfinished_id is not None:
                console.note(f"only a part of {unfinished_id} is deleted; repeat it for the rest")
    return task_run_count


def _give_back_space(registry: Registry) -> None:
    from prefectlite.progress_bars import ProgressBar

    with ProgressBar("Compacting") as bar:
        registry.upkeep.give_back_space(told=bar.tick)


def _check_vacuum(registry: Registry) -> None:
    """Refuse to keep runs that are going on from writing for so long that they would give up.

    Raises:
        ConflictError: They might be.
    """
    storage = registry.upkeep.storage()
    seconds = (storage.file_bytes - storage.free_bytes) / _VACUUM_BYTES_A_SECOND
    if seconds < PREFECTLITE_REGISTRY_LOCK_SECONDS.value():
        return
    going_on = registry.list_flow_runs(FlowRunFilter(states=_GOING_ON), limit=None)
    if going_on:
        raise ConflictError(
            f"{len(going_on)} flow runs are going on, and could not write for some"
            f" {seconds:.0f} seconds",
            hint="prune without --vacuum now, and once with it when none is",
        )


COMMANDS = (path, info, check, backup, prune)
