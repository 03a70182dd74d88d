"""What the upkeep of a registry tells: where it is kept, what is in it, what is wrong with it.

Plain records, for ``registry_parts.UpkeepRegistry`` and those who call it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from prefectlite.records import iso_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where and how a registry is kept.

    Attributes:
        path: Its file; None where it is not in one.
        exists: Whether it is there; what is not is as good as empty.
        file_bytes: How large it is.
        log_bytes: How large what is not moved into it yet is.
        free_bytes: What of the file is free: it is used again before the file grows.
        schema_version: Of the tables; 0 for none.
        newest_schema_version: What this version of prefectlite would make of it.
        engine: What keeps it, with its version.
        journal_mode: How it keeps transactions whole.
    """

    path: Path | None
    exists: bool
    file_bytes: int
    log_bytes: int
    free_bytes: int
    schema_version: int
    newest_schema_version: int
    engine: str
    journal_mode: str

    def dict(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "path": self.path and str(self.path)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """How much of what is on record.

    Attributes:
        flow_runs: How many flow runs by the names of their states.
        rows: How many of everything else, by its name in the plural.
        oldest_at: When the flow run was created that is longest on record; None for none.
        newest_at: The same of the one that is shortest.
    """

    flow_runs: Mapping[str, int]
    rows: Mapping[str, int]
    oldest_at: datetime | None
    newest_at: datetime | None

    def dict(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return {
            "flow_runs": {**self.flow_runs},
            **self.rows,
            "oldest_at": iso_text(self.oldest_at),
            "newest_at": iso_text(self.newest_at),
        }


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with a registry.

    Attributes:
        message: What.
        hint: What to do.
    """

    message: str
    hint: str

    def dict(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return {"message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prunable:
    """Which flow runs are no longer needed. Conditions are those of a run that no other has called.

    Attributes:
        before: It has ended before that, and so have its subflow runs; None for any time.
        states: Names or types of states; empty for all.
        flow_names: Names of flows; empty for all.
        keep: This many newest runs of each flow are needed, whatever else holds.
    """

    before: datetime | None = None
    states: Collection[str] = ()
    flow_names: Collection[str] = ()
    keep: int = 0


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A flow run that has ended."""

    id: str
    flow_name: str
    ended_at: datetime


@dataclass(slots=True)
class Deleted:
    """The ids of the runs that are off the record; filled while they are deleted.

    Attributes:
        flow_run_ids: The flow runs.
        task_run_ids: Their task runs.
        unfinished_id: A flow run on record of whose task runs or log lines some are gone; or None.
    """

    flow_run_ids: list[str] = field(default_factory=list)
    task_run_ids: list[str] = field(default_factory=list)
    unfinished_id: str | None = None

    def clear(self) -> None:
        """Forget them: they are on record after all."""
        self.flow_run_ids.clear()
        self.task_run_ids.clear()
        self.unfinished_id = None
