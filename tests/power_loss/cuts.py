"""Cuts the power at many moments of a workload, and has each disk audited that is left.

``__main__`` calls it. The same seed, number and operations give the same cuts and the same disks.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.power_loss.audits import Audit, Finding, close_all
from tests.power_loss.disks import KEPT, Disk, Kind, Operation
from tests.power_loss.knowledge import Knowledge

# One disk in so many is also looked at by commands, which takes about a second.
_BY_COMMANDS = 25
# In so many of the cuts anything may be kept that was not synced, in the others nothing.
_MERCY = 0.75
_TURNS = (Kind.SYNC, Kind.RENAME, Kind.REMOVE, Kind.MKDIR)


@dataclass(frozen=True, slots=True)
class Cut:
    """A power cut, and what was found after it.

    Attributes:
        place: How many operations had ended.
        step: What the workload was at.
        acknowledged: How many states of runs had to be on record.
        findings: What is wrong.
    """

    place: int
    step: str
    acknowledged: int
    findings: tuple[Finding, ...]

    def told(self) -> str:
        """Return where it was, and the first of what was found."""
        first, *more = self.findings
        others = f"; and {len(more)} more" if more else ""
        return f"cut at {self.place}, in {self.step}: {first.kind}: {first.told}{others}"


def cuts(done: Sequence[Operation], disk: Path, *, seed: int, number: int) -> Iterator[Cut]:
    """Yield one cut after the other, in the order of their moments.

    Args:
        done: What the workload did.
        disk: The folder that stands for the disk; whatever is in it is replaced.
        seed: Decides when power is lost, and what with it.
        number: How many cuts.
    """
    replay, known, start = Disk(), Knowledge(), 0
    for count, place in enumerate(_places(done, random.Random(seed), number)):
        for operation in done[start:place]:
            replay.apply(operation)
            if operation.kind is Kind.NOTE:
                known.learn(operation.data)
        start = place
        shutil.rmtree(disk)
        disk.mkdir()
        chance = random.Random(f"{seed} {count}")
        kept = KEPT if chance.random() < _MERCY else (0.0,)
        replay.root.write_remains(disk, chance, kept)
        audit = Audit(disk, known)
        by_commands = list(audit.by_commands()) if count % _BY_COMMANDS == _BY_COMMANDS // 2 else []
        try:
            findings = (*by_commands, *audit.by_calls())
        finally:
            close_all()
        states = sum(len(states) for states in known.durable.values())
        yield Cut(place, known.step, states, findings)


def _places(done: Sequence[Operation], chance: random.Random, number: int) -> list[int]:
    """Return moments in their order: anywhere, in steps, beside syncs, and right after promises.

    Most operations are writes to the log. A short step, such as the making of a registry, has few
    operations and many ways to go wrong, and so has the moment beside a sync.
    """
    starts = _notes(done, "step")
    spans = list(zip(starts, [*starts[1:], len(done)], strict=True))
    beside = [place for place, operation in enumerate(done) if operation.kind in _TURNS]
    told = _notes(done, "put") or starts
    ways: list[Callable[[], int]] = [
        lambda: chance.randint(0, len(done)),
        lambda: chance.randint(*chance.choice(spans)),
        lambda: chance.choice(beside) + chance.randint(0, 1),
        lambda: chance.choice(told) + 1,
    ]
    return sorted(ways[count % len(ways)]() for count in range(number))


def _notes(done: Sequence[Operation], told: str) -> list[int]:
    """Return the places of the notes of a kind."""
    mark = f'"told": "{told}"'.encode()
    places = enumerate(done)
    return [place for place, one in places if one.kind is Kind.NOTE and mark in one.data]
