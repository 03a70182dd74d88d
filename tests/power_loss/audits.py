"""Opens what a power cut left, as prefectlite does after a restart, and compares it with what was known.

``__main__`` audits thousands of disks in one process; a few of them also by commands. What an audit
finds is ``LOST`` or ``CORRUPT``: a promise not kept, or a file, a record or an answer that makes no sense.
Audits change the disk: it is opened to be written, and goes on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from prefectlite.block_documents import find_document
from prefectlite.clock import now
from prefectlite.errors import NotFoundError, ResultNotStoredError
from prefectlite.liveness import machine_id
from prefectlite.names import new_id
from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import Registry, open_registry, open_upkeep, sqlite
from prefectlite.results import load_result
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.settling import settle
from prefectlite.states import Completed, Running
from tests.power_loss.flows import FILLER_BYTES
from tests.power_loss.knowledge import Knowledge, State

_DEADLINE_SECONDS = 60
# What a person does first. The last loads cached results, or computes what is lost of them again.
_COMMANDS = (
    ("registry", "check"),
    ("flow-run", "ls", "--json"),
    ("run", "tests.power_loss.flows:etl", "--quiet"),
)


class Kind(StrEnum):
    """What is wrong."""

    LOST = "lost"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: Kind
    told: str


class Audit:
    """One look at what is left of a disk.

    Args:
        disk: The folder that stands for it.
        known: What had been promised.
    """

    def __init__(self, disk: Path, known: Knowledge) -> None:
        self._disk = disk
        self._known = known

    def by_commands(self) -> Iterator[Finding]:
        """Yield what is wrong for somebody at a shell; the first look at the disk, if at all."""
        for arguments in _COMMANDS:
            command = [sys.executable, "-m", "tests.power_loss.restarted", *arguments]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_DEADLINE_SECONDS
            )
            if done.returncode or "Traceback" in done.stderr:
                said = " ".join(done.stderr.split())[-400:]
                told = f"{' '.join(arguments)}: exit code {done.returncode}: {said}"
                yield Finding(Kind.CORRUPT, told)

    def by_calls(self) -> Iterator[Finding]:
        """Yield what is wrong for programs."""
        looks = self._file, self._records, self._blocks, self._backup, self._results, self._goes_on
        for look in looks:
            try:
                yield from look()
            except Exception as error:
                told = f"{look.__name__.strip('_')}: {type(error).__name__}: {error}"
                yield Finding(Kind.CORRUPT, told)

    def _file(self) -> Iterator[Finding]:
        with closing(open_upkeep(PREFECTLITE_REGISTRY.value())) as upkeep:
            for fault in upkeep.faults(is_quick=False):
                yield Finding(Kind.CORRUPT, fault.message)

    def _records(self) -> Iterator[Finding]:
        url = PREFECTLITE_REGISTRY.value()
        registry = open_registry(url, read_only=True)
        begun = registry.list_begun_flow_runs()
        for run in settle(registry, lambda: open_registry(url)):
            yield Finding(Kind.CORRUPT, f"flow run {run.id} cannot be settled")
        yield from self._restarted(registry, begun)
        runs: dict[str, FlowRun | TaskRun] = {}
        runs.update((run.id, run) for run in registry.list_flow_runs(limit=None))
        runs.update((run.id, run) for run in registry.list_task_runs(limit=None))
        for id_, states in self._known.durable.items():
            if id_ in runs or not self._known.is_deleted(id_):
                yield from _compared(registry, runs.get(id_), states, f"run {id_}")
        for (what, name), may_be in self._known.may_be.items():
            if what == "flow_run" and "there" not in may_be and name in runs:
                yield Finding(Kind.LOST, f"flow run {name} was deleted, and is there again")

    def _restarted(self, registry: Registry, begun: list[FlowRun]) -> Iterator[Finding]:
        """Yield what is not said to have ended with the machine, and was being run."""
        if machine_id() is None:  # then nobody can know that this is the same one
            return
        for run in registry.list_begun_flow_runs():
            yield Finding(Kind.LOST, f"flow run {run.id} is {run.state.name} after a restart")
        for before in begun:
            state = registry.find_flow_run(before.id).state
            is_told = before.supervisor or "restarted" in (state.message or "")
            if before.process and not is_told:
                yield Finding(Kind.LOST, f"flow run {before.id} is {state} after a restart")

    def _blocks(self) -> Iterator[Finding]:
        for (what, name), may_be in self._known.may_be.items():
            if what == "block":
                try:
                    found = find_document("secret", name)[1]["value"]
                except NotFoundError:
                    found = None
                if found not in may_be:
                    yield Finding(Kind.LOST, f"block {name!r} is {str(found)[:20]!r}")

    def _backup(self) -> Iterator[Finding]:
        may_be = self._known.may_be.get(("backup", "registry.backup"), {None})
        path = self._disk / "registry.backup"
        if not path.exists():
            if None not in may_be:
                yield Finding(Kind.LOST, "the backup is gone")
            return
        url = f"sqlite:///{path}"
        with closing(open_upkeep(url)) as upkeep:
            for fault in upkeep.faults(is_quick=False):
                yield Finding(Kind.CORRUPT, f"the backup: {fault.message}")
        number = min(value for value in may_be if isinstance(value, int))
        with closing(open_registry(url, read_only=True)) as registry:
            runs = {run.id: run for run in registry.list_flow_runs(limit=None)}
            for id_, state in self._known.at_backup[number].items():
                if id_ not in self._known.parents:
                    told = f"in the backup, run {id_}"
                    yield from _compared(registry, runs.get(id_), [state], told)

    def _results(self) -> Iterator[Finding]:
        registry = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)
        for run in registry.list_task_runs(limit=None):
            if run.task_name == "own" and run.state.is_completed():
                try:
                    value = load_result(run.id)
                except ResultNotStoredError:  # as results say of themselves
                    continue
                if value != {"task_run": run.id, "filler": run.id[:1] * FILLER_BYTES}:
                    yield Finding(Kind.CORRUPT, f"the result of task run {run.id} is {value!r:.40}")

    def _goes_on(self) -> Iterator[Finding]:
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        made = FlowRun(
            id=new_id(), name="after", flow_name="after", state=Running(), created_at=now()
        )
        registry.create_flow_run(made)
        registry.change_state(made, Completed())
        if not registry.find_flow_run(made.id).state.is_completed():
            yield Finding(Kind.LOST, "what is recorded afterwards is not there")


def close_all() -> None:
    """Let go of every registry, so that the next audit opens another disk."""
    sqlite._close_all()


def _compared(
    registry: Registry, run: FlowRun | TaskRun | None, states: list[State], told: str
) -> Iterator[Finding]:
    if run is None:
        yield Finding(Kind.LOST, f"{told} is gone; it had been {states[-1][2]}")
        return
    history = {change.version: change.state for change in registry.state_history(run)}
    for version, type_, name in states:
        found = history.get(version)
        if found is None or (found.type, found.name) != (type_, name):
            yield Finding(Kind.LOST, f"{told} was {name}, and is {run.state.name}")
