"""What ``doctor`` looks at in the registry: whether it opens and is whole, and what is stuck in it.

Each check returns a finding. None of them writes, and none has an older registry brought to the newest
schema: what needs to read the records of one is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta

from prefectlite.clock import duration_text, now
from prefectlite.errors import PrefectLiteError
from prefectlite.findings import Finding, error, ok, skipped, warning
from prefectlite.liveness import is_alive
from prefectlite.locks import describe_holder, gate_holder
from prefectlite.records import FlowRun
from prefectlite.registry import Registry, open_registry, open_upkeep, registry_path
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.upkeep_records import Storage

# To look through more takes longer than a person waits for a doctor.
_QUICK_BYTES = 200_000_000
# A write takes milliseconds; a compaction, or a process that is stopped, holds it for longer.
_PATIENCE_SECONDS = 1.0
_SLACK = timedelta(minutes=1)
# An agent that serves a queue takes what is due within seconds, cron's within a minute.
_LONG_DUE = timedelta(minutes=10)
_NEWEST = 100


def check_registry() -> Finding:
    """Look whether the registry can be opened, and which schema it has."""
    storage = _storage()
    path = storage.path
    if not storage.exists:
        return ok(f"there is none yet; the first run makes {path or 'it'}")
    if storage.schema_version < storage.newest_schema_version:
        versions = f"{storage.schema_version}, older than {storage.newest_schema_version}"
        return ok(f"{path} has schema {versions}; the next command brings it up to that")
    if path is not None and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return warning(f"{path} can be read, but not written", "see to its owner and permissions")
    return ok(f"{path} has schema {storage.schema_version}")


def check_integrity() -> Finding:
    """Look whether a registry that is not large is damaged."""
    storage = None
    with suppress(PrefectLiteError):  # of which the check before tells
        storage = _storage()
    if storage is None or not storage.exists:
        return skipped("there is no registry that can be opened")
    if storage.file_bytes > _QUICK_BYTES:
        return skipped("it is large, so this takes a while: prefectlite registry check --quick")
    with closing(open_upkeep(PREFECTLITE_REGISTRY.value())) as upkeep:
        faults = upkeep.faults(is_quick=True)
    if faults:
        return error(faults[0].message, faults[0].hint)
    return ok("the registry is not damaged")


def check_gate() -> Finding:
    """Look whether somebody keeps all others from writing."""
    holder = None
    try:
        path = registry_path(PREFECTLITE_REGISTRY.value())
        if path is not None:
            lock = path.with_suffix(".lock")
            holder = gate_holder(lock, patience_seconds=_PATIENCE_SECONDS)
    except FileNotFoundError:
        return skipped("there is no write gate yet")
    except (PrefectLiteError, OSError):  # of which another check tells
        return skipped("the write gate cannot be looked at")
    if holder is None:
        return ok("nobody keeps others from writing")
    who, what_to_do = describe_holder(holder)
    return error(f"{who} keeps all others from writing", what_to_do)


def check_times() -> Finding:
    """Look for records from the future."""

    def check(registry: Registry) -> Finding:
        runs = registry.list_flow_runs(limit=_NEWEST)
        ahead = max((run.state.timestamp for run in runs), default=now()) - now()
        if ahead > _SLACK:
            return warning(
                f"the registry has a record from {duration_text(ahead.total_seconds())} in the future",
                "is the clock right? if it was wrong once, this passes by itself",
            )
        return ok("no record is from the future")

    return _reading(check)


def check_stale_runs() -> Finding:
    """Look for runs that are on record as going on, and are not."""

    def check(registry: Registry) -> Finding:
        dead = [run for run in registry.list_begun_flow_runs() if _is_dead(run)]
        overdue = [run for run, _ in registry.pauses.list_overdue_flow_runs(now())]
        stale = [*dead, *overdue]
        if not stale:
            return ok("every run that is on record as going on is")
        run = stale[0]
        told = f"flow runs on record as {run.state.name} or so have ended: {len(stale)}, such as {run.id}"
        return warning(
            told, "any command that may write records what became of them: prefectlite flow-run ls"
        )

    return _reading(check)


def check_work_queues() -> Finding:
    """Look for runs that have been due for long, and that nobody takes."""

    def check(registry: Registry) -> Finding:
        before = now() - _LONG_DUE
        due = [
            run
            for run in registry.list_flow_runs(FlowRunFilter(states=["SCHEDULED"]), limit=None)
            if run.work_queue is not None
            and run.scheduled_at is not None
            and run.scheduled_at < before
            and run.state.name != "AwaitingRetry"
        ]
        if not due:
            return ok("no run has been due for long")
        run = min(due, key=lambda one: one.scheduled_at or before)
        name = run.work_queue or ""
        since = duration_text((now() - (run.scheduled_at or before)).total_seconds())
        told = f"runs that have been due for more than 10 minutes: {len(due)}; one for {since}, in work queue {name!r}"
        return warning(told, _queue_fix(registry, name))

    return _reading(check)


def check_notifications() -> Finding:
    """Look for notifications that could not be delivered."""

    def check(registry: Registry) -> Finding:
        given_up = registry.upkeep.contents().rows["notifications_given_up"]
        if given_up:
            return warning(
                f"notifications that could not be delivered and were given up: {given_up}",
                "see why: prefectlite notification ls, and notification inspect ID",
            )
        return ok("no notification was given up")

    return _reading(check)


def _storage() -> Storage:
    with closing(open_upkeep(PREFECTLITE_REGISTRY.value())) as upkeep:
        return upkeep.storage()


def _reading(check: Callable[[Registry], Finding]) -> Finding:
    """Do a check that reads records, where these can be read without changing anything."""
    with suppress(PrefectLiteError):  # of which another check tells
        storage = _storage()
        if storage.exists and storage.schema_version == storage.newest_schema_version:
            return check(open_registry(PREFECTLITE_REGISTRY.value(), read_only=True))
    return skipped("there is no registry whose records can be read")


def _is_dead(run: FlowRun) -> bool:
    """Return whether who runs a run, or is to start it, is dead."""
    launcher = run.launcher if run.infrastructure_pid is None else None
    owner = run.supervisor or run.process or launcher
    return owner is not None and is_alive(owner) is False


def _queue_fix(registry: Registry, name: str) -> str:
    """Return what to do for runs to be taken from a queue."""
    queues = registry.deployments.list_work_queues()
    if any(queue.name == name and queue.is_paused for queue in queues):
        return f"the queue is paused; let it go on: prefectlite work-queue resume {name}"
    agents = [one for one in registry.deployments.list_agents() if name in one.work_queues]
    if any(is_alive(agent.process) is not False for agent in agents):
        return f"an agent serves it, but has no room; see: prefectlite work-queue inspect {name}"
    return f"no agent serves it; start one: prefectlite agent start -q {name}"
