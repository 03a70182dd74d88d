"""What must not grow while a soak goes on, and whether it has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import mean

from tests.load.programs import descriptors, memory_bytes, threads, zombies_of
from tests.load.trials import Trial

_FEWEST = 9  # samples: three in each third
_MB = 1_000_000
# For a moment every process is one; an agent waits for those that it started every five seconds.
_ZOMBIE_SECONDS = 15.0
#: How much more the last third may have than the second, by what is counted: in half an hour, and in the
#: short form, where little has come and gone. Memory and the file of the registry come in steps; files
#: are as many as runs go on at that moment, or were not pruned yet.
_TOLERANCES = {
    "rss": (2 * _MB, _MB // 2),
    "descriptors": (2, 1),
    "threads": (2, 1),
    "registry.db": (2 * _MB, _MB // 4),
    "registry.db-wal": (4 * _MB, _MB // 2),
    "processes": (6, 2),
    "runs": (6, 3),
    "results": (200, 25),
}


class Gauges:
    """Samples of the memory, descriptors and threads of processes, and of the files of a home folder."""

    def __init__(self, folder: Path, processes: Mapping[str, int]) -> None:
        self._folder = folder
        self._processes = processes
        self._samples: dict[str, list[float]] = {}
        #: When each child that has died and was not waited for was seen first.
        self._dead: dict[int, float] = {}
        self._zombies: set[int] = set()

    def read(self) -> None:
        """Take a sample of each."""
        for name, pid in self._processes.items():
            self._add(f"{name}: rss", memory_bytes(pid, "Rss"))
            self._add(f"{name}: descriptors", descriptors(pid))
            self._add(f"{name}: threads", threads(pid))
        for name in ("registry.db", "registry.db-wal"):
            size = 0
            with suppress(FileNotFoundError):
                size = (self._folder / name).stat().st_size
            self._add(name, size)
        for name in ("processes", "runs", "results"):
            self._add(f"files: {name}", self._files(name))
        present = time.monotonic()
        dead = zombies_of(self._processes.values())
        self._dead = {pid: self._dead.get(pid, present) for pid in dead}
        self._zombies |= {pid for pid, at in self._dead.items() if present - at > _ZOMBIE_SECONDS}

    @property
    def are_enough(self) -> bool:
        """Whether there are so many samples that they can be judged."""
        return all(len(values) >= _FEWEST for values in self._samples.values())

    def _files(self, name: str) -> int:
        folder = self._folder / name
        # Only what is at its top: those of a run that ends go one by one.
        return len([*folder.iterdir()]) if folder.is_dir() else 0

    def _add(self, name: str, value: float) -> None:
        self._samples.setdefault(name, []).append(value)

    def claim(self, trial: Trial) -> None:
        """Say of each whether it was flat, from the second third of the time to the last."""
        for name, values in self._samples.items():
            third = len(values) // 3
            second, last = mean(values[third:-third]), mean(values[-third:])
            tolerance = trial.scale.pick(*_TOLERANCES[name.rpartition(": ")[2]])
            is_flat = last - second <= tolerance
            told = f"{second:,.1f}, then {last:,.1f}; most {max(values):,.0f}"
            trial.claim(f"soak: {name} is flat, within {tolerance:,.0f}", is_flat, told)
        trial.claim("soak: no zombies", not self._zombies, [*self._zombies][:5] or "")

    def __str__(self) -> str:
        return ", ".join(f"{name} {values[-1]:,.0f}" for name, values in self._samples.items())
