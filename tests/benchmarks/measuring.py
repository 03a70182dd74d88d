"""Samples, and how they are taken: ours and the limit in turns, with a registry of their own."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

#: The checkout, which the processes that are measured import from.
SOURCES = Path(__file__).parents[2]
#: What one process may take, on a busy machine and with a registry of 1,000,000 task runs; then it hangs.
DEADLINE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The same quantity, measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """What is reported: a neighbour's burst moves the mean, not this."""
        return statistics.median(self.values)

    def times(self, factor: float) -> Sample:
        """Return the sample in another unit."""
        return Sample(tuple(value * factor for value in self.values))

    def over(self, other: Sample) -> Sample:
        """Return the ratio of each value to the one that was measured beside it."""
        pairs = zip(self.values, other.values, strict=True)
        return Sample(tuple(ours / limit for ours, limit in pairs))


@dataclass(frozen=True, slots=True)
class Target:
    """What a row should reach.

    Attributes:
        value: The bound.
        of_ratio: Whether it bounds the ratio to the limit; else our own value, in the row's unit.
        at_least: Whether more is better.
    """

    value: float
    of_ratio: bool = True
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. ``limit`` is None where there is nothing to compare with."""

    name: str
    unit: str
    ours: Sample
    limit: Sample | None = None
    targets: tuple[Target, ...] = ()

    @property
    def ratio(self) -> Sample | None:
        """Ours over the limit, round by round."""
        return None if self.limit is None else self.ours.over(self.limit)

    def reaches(self, target: Target) -> bool:
        """Return whether the median is within a target."""
        sample = self.ratio if target.of_ratio else self.ours
        if sample is None:
            return False
        if target.at_least:
            return sample.median >= target.value
        return sample.median <= target.value


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    is_quick: bool = False

    @property
    def rounds(self) -> int:
        """How often ours and the limit take turns."""
        return 3 if self.is_quick else 9

    def pick(self, full: int, quick: int) -> int:
        """Return a size for this run."""
        return quick if self.is_quick else full


#: Measures, and returns its rows.
Benchmark = Callable[[Scale], list[Row]]


def in_turns(
    ours: Callable[[], float], limit: Callable[[], float], *, rounds: int
) -> tuple[Sample, Sample]:
    """Call both once to warm up and then in turns; who is first changes with each round."""
    taken: dict[Callable[[], float], list[float]] = {ours: [], limit: []}
    ours()
    limit()
    for number in range(rounds):
        for measure in (ours, limit) if number % 2 else (limit, ours):
            taken[measure].append(measure())
    return Sample(tuple(taken[ours])), Sample(tuple(taken[limit]))


@contextmanager
def home(folder: Path | None = None) -> Iterator[Path]:
    """Keep the registry in a folder, by default a new one that is deleted at the end."""
    previous = os.environ.get("PREFECTLITE_HOME")
    with tempfile.TemporaryDirectory(
        prefix="prefectlite-benchmark-", ignore_cleanup_errors=True
    ) as temporary:
        chosen = folder or Path(temporary)
        os.environ["PREFECTLITE_HOME"] = str(chosen)
        try:
            yield chosen
        finally:
            open_registry(PREFECTLITE_REGISTRY.value()).close()
            if previous is None:
                del os.environ["PREFECTLITE_HOME"]
            else:
                os.environ["PREFECTLITE_HOME"] = previous


@contextmanager
def quiet() -> Iterator[None]:
    """Send this process's standard error to /dev/null: a terminal is not what is measured."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def environment() -> dict[str, str]:
    """Return the environment of a process that is measured: with byte-code, from this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    cache = Path(tempfile.gettempdir()) / f"prefectlite-benchmark-bytecode-{os.getuid()}"
    return {**kept, "PYTHONPATH": str(SOURCES), "PYTHONPYCACHEPREFIX": str(cache)}


@contextmanager
def killed_after(
    process: subprocess.Popen[Any], seconds: float = DEADLINE_SECONDS
) -> Iterator[None]:
    """Kill a process that is waited for in the block, and has not ended after so many seconds.

    subprocess's own timeouts poll for its end, in naps of up to 50 ms, which would be measured.
    """
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def process_seconds(arguments: Sequence[str]) -> float:
    """Run Python with these arguments, and return how long the whole process took.

    Raises:
        CalledProcessError: It did not end with 0.
    """
    started = perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with killed_after(process):
        exit_code = process.wait()
    seconds = perf_counter() - started
    if exit_code:
        raise subprocess.CalledProcessError(exit_code, process.args)
    return seconds


def process_output(arguments: Sequence[str]) -> str:
    """Run Python with these arguments, and return its standard output."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(),
        cwd=SOURCES,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    ).stdout
