"""The sweeps: each makes rounds of one kind of fault, by growing number, and yields how they went.

A sweep has a list of faults for a scenario, of which every k-th is taken, from a place on that the seed
says. The disk is a filesystem in memory of a mount namespace of our own.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tests.faults.audits import complaints, record_of
from tests.faults.places import Ended, Place
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.tracing import Injection, injections, tracing

T = TypeVar("T")

#: What a command leaves on the disk, at most: a run fills some 700 kB beside what was there.
_DISK_BYTES = 8_000_000
_PAGE_BYTES = 4096
_MOST_PAGES = 220
_MOST_FILE_PAGES = 140


@dataclass(frozen=True, slots=True)
class Round:
    """How one round went.

    Attributes:
        name: The sweep, the scenario and the fault.
        code: The exit code of the command; None where it did not end.
        complaints: What is wrong; mostly nothing.
    """

    name: str
    code: int | None
    complaints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sweep(Generic[T]):
    """A kind of fault.

    Attributes:
        faults: Returns all faults that a command can meet in a place.
        meet: Runs the command with one of them, which is gone on return.
    """

    faults: Callable[[Place, Scenario], Sequence[T]]
    meet: Callable[[Place, Scenario, T], Ended]


def rounds(
    sweep_name: str, scenario_name: str, place: Place, *, seed: int, every: int
) -> Iterator[Round]:
    """Make the rounds of a sweep with one command.

    Args:
        sweep_name: Of ``SWEEPS``.
        scenario_name: Of ``SCENARIOS``.
        place: One that is set up, and kept so.
        seed: Which of the faults are taken.
        every: How many there are to each that is.
    """
    sweep, scenario = SWEEPS[sweep_name], SCENARIOS[scenario_name]
    place.reset(is_empty=scenario.is_first)
    before = record_of(place)
    faults = sweep.faults(place, scenario)
    start = random.Random(f"{seed} {sweep_name} {scenario_name}").randrange(every)
    for fault in faults[start::every]:
        place.reset(is_empty=scenario.is_first)
        ended = sweep.meet(place, scenario, fault)
        found = tuple(complaints(place, scenario, ended, before))
        yield Round(f"{sweep_name} {scenario_name} {fault}", ended.code, found)


def _arguments(place: Place, scenario: Scenario) -> list[str]:
    return [word.format(place=place.folder) for word in scenario.arguments]


def _pages_left(_: Place, scenario: Scenario) -> Sequence[int]:
    return range(_MOST_PAGES if scenario.writes else 1)


def _with_pages_left(place: Place, scenario: Scenario, pages: int) -> Ended:
    ballast = place.folder / "ballast"
    disk = os.statvfs(place.folder)
    size = disk.f_bavail * disk.f_frsize - pages * _PAGE_BYTES
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    try:
        return place.run(_arguments(place, scenario))
    finally:
        ballast.unlink()


def _lengths(_: Place, scenario: Scenario) -> Sequence[int]:
    # A write of a page stops short in its middle.
    pages = range(_MOST_FILE_PAGES if scenario.writes else 0)
    return [page * _PAGE_BYTES + _PAGE_BYTES // 2 for page in pages]


def _with_files_up_to(place: Place, scenario: Scenario, length: int) -> Ended:
    return place.run(_arguments(place, scenario), file_bytes=length)


def _calls(place: Place, scenario: Scenario) -> Sequence[Injection]:
    place.run(_arguments(place, scenario))  # byte-code: who compiles makes other calls
    place.reset(is_empty=scenario.is_first)
    log = place.folder / "strace.log"
    place.run(_arguments(place, scenario), prefix=tracing(log))
    found = injections(log, place.folder)
    # Those of one call stand together: of some, none would be the k-th.
    random.Random(0).shuffle(found)
    return found


def _with_injection(place: Place, scenario: Scenario, injection: Injection) -> Ended:
    return place.run(_arguments(place, scenario), prefix=injection.prefix())


SWEEPS: dict[str, Sweep[Any]] = {
    "full-disk": Sweep(_pages_left, _with_pages_left),
    "short-writes": Sweep(_lengths, _with_files_up_to),
    "injected": Sweep(_calls, _with_injection),
}


def mount(folder: Path) -> None:
    """Mount a small disk; it goes with the mount namespace of this process."""
    options = f"size={_DISK_BYTES},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
