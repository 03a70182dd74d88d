"""The folder in which a run, its supervisor and whoever launched it leave word for each other.

``infrastructure/process.py`` makes one for each launch, ``supervisor.py`` writes to it how the run
went, ``settling`` reads that and removes it. The files, and what is in them, are described in
``supervisor.py``; nothing here signals a process or asks the registry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from prefectlite.clock import from_microseconds, to_microseconds
from prefectlite.exits import Exit
from prefectlite.records import ProcessIdentity
from prefectlite.settings import PREFECTLITE_HOME

#: The engine writes to it what to say should its flow not heed its timeout, and Python then adds the
#: stacks.
HANG_FILE = "hang.txt"
# What ends the name of a folder that is being removed.
_GONE = ".gone"
# What is read of a run's output at once: the rest comes with the next look. A line must fit: of the
# million bytes at which a supervisor cuts it, JSON can make six million.
_OUTPUT_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line that a run wrote to ``stdout`` or ``stderr``."""

    at: datetime
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one launch; of several launches of a run, each has its own."""

    path: Path
    flow_run_id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flow_run_id", self.path.name.partition(".")[0])

    @classmethod
    def make(cls, flow_run_id: str, token: str) -> RunFolder:
        """Make the folder of a launch.

        Args:
            flow_run_id: The run.
            token: What the processes of this launch are marked with.

        Raises:
            OSError: It cannot be made.
        """
        path = _home() / f"{flow_run_id}.{token[:8]}"
        for folder in (path.parents[1], path.parent):  # each would be anyone's to read as a parent
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
        return cls(path)

    @classmethod
    def of(cls, supervisor: ProcessIdentity) -> RunFolder:
        """Return the folder that a supervisor was started with."""
        if supervisor.lock_path is None:
            raise ValueError(f"process {supervisor.pid} is no supervisor: it has no lock")
        return cls(Path(supervisor.lock_path).parent)

    def write(self, name: str, values: Mapping[str, object]) -> None:
        """Write a JSON file that appears whole or not at all, for nobody else's eyes.

        Raises:
            OSError: It cannot be written.
        """
        path = self.path / f"{name}.tmp"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(values, file)
        path.replace(self.path / name)

    def supervisor(self) -> ProcessIdentity | None:
        """Return who supervises the run, alive or dead; None before a supervisor has begun."""
        spec, own = self._read("spec.json"), self._read("supervisor.json")
        try:
            return ProcessIdentity(
                token=spec["token"],
                hostname=own["hostname"],
                machine_id=spec["machine_id"],
                boot_id=own.get("boot_id"),
                pid_namespace=own.get("pid_namespace"),
                pid=own["pid"],
                start_ticks=own.get("start_ticks"),
                lock_path=str(self.path / "supervisor.lock"),
            )
        except KeyError:
            return None

    def registry(self) -> str | None:
        """Return the address of the registry that the run is on record in."""
        url: str | None = self._read("spec.json").get("registry")
        return url

    def write_exit(self, exit_: Exit) -> None:
        """Say how the run ended, in the place of its supervisor.

        Raises:
            OSError: It cannot be written.
        """
        ended_at = exit_.ended_at and to_microseconds(exit_.ended_at)
        self.write("exit.json", {**asdict(exit_), "ended_at": ended_at})

    def token(self) -> str | None:
        """Return what the processes of this launch are marked with; None before that is chosen."""
        token: str | None = self._read("spec.json").get("token")
        return token

    def cgroup(self) -> str | None:
        """Return the path of the run's control group; None where it has none."""
        path: str | None = self._read("supervisor.json").get("cgroup")
        return path

    def exit(self) -> Exit | None:
        """Return how the run's processes ended; None while they have not, or nobody saw it."""
        report = self._read("exit.json")
        try:
            return Exit(
                reason=report["reason"],
                ended_at=from_microseconds(report["ended_at"]),
                exit_code=report["exit_code"],
                signal=report["signal"],
                message=report["message"],
                swept=report["swept"],
                survivors=tuple((int(pid), int(ticks)) for pid, ticks in report["survivors"]),
                lost_output_bytes=report["lost_output_bytes"],
            )
        except (KeyError, TypeError, ValueError):
            return None

    def output(self, start: int) -> tuple[list[OutputLine], int]:
        """Return lines of the output from a place in its file on, and the place behind them.

        A line that is not whole yet is left for the next time; one that is damaged is left out.
        """
        try:
            with (self.path / "output.jsonl").open("rb") as file:
                file.seek(start)
                data = file.read(_OUTPUT_BYTES)
        except OSError:
            return [], start
        whole = data[: data.rfind(b"\n") + 1]
        lines = []
        for text in whole.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                line = json.loads(text)
                lines.append(
                    OutputLine(from_microseconds(line["at"]), line["stream"], line["text"])
                )
        return lines, start + len(whole)

    def output_bytes(self) -> int:
        """Return the size of the file of the output; 0 where there is none."""
        try:
            return (self.path / "output.jsonl").stat().st_size
        except OSError:
            return 0

    def is_over_time(self) -> bool:
        """Return whether the supervisor has told the run to end because of its hard timeout."""
        return (self.path / "timed_out").exists()

    def hang_report(self) -> tuple[str, str] | None:
        """Return what a flow that did not heed its own timeout left behind; None where it did.

        Returns:
            What is to be said of it, and the stacks of its threads.
        """
        try:
            text = (self.path / HANG_FILE).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        message, _, stacks = text.partition("\n")
        return (message, stacks) if stacks else None

    def last_word(self) -> str:
        """Return the last line that the supervisor wrote to its own stderr; empty for none."""
        try:
            text = (self.path / "supervisor.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return text.rstrip().rpartition("\n")[2]

    def remove(self) -> None:
        """Remove the folder; it is no longer there for anybody, even if this is cut short."""
        gone = self.path.with_name(f"{self.path.name}{_GONE}")
        with suppress(OSError):  # another process was first
            self.path.rename(gone)
        _remove(gone)

    def _read(self, name: str) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found = json.loads((self.path / name).read_bytes())
            if isinstance(found, dict):
                return found
        return {}


def run_folders(flow_run_id: str = "") -> Iterator[RunFolder]:
    """Yield the folders of all launches of a run, or of all runs, that are under this home."""
    with suppress(OSError), os.scandir(_home()) as entries:
        for entry in entries:
            if entry.name.endswith(_GONE):  # who was to remove it was killed meanwhile
                _remove(Path(entry.path))
            elif entry.name.startswith(flow_run_id):
                yield RunFolder(Path(entry.path))


def _remove(path: Path) -> None:
    import shutil  # it comes with every way to compress a file

    shutil.rmtree(path, ignore_errors=True)


def _home() -> Path:
    return PREFECTLITE_HOME.value() / "runs"
