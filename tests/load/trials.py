"""What a load is given, and what it says: claims, which hold or do not, and figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import TypeVar

from tests.benchmarks.measuring import Row, Sample, Scale, Target

T = TypeVar("T")

_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Claim:
    """What must be so.

    Attributes:
        told: What was found, where that says more than whether it holds.
    """

    name: str
    holds: bool
    told: str = ""


@dataclass(slots=True)
class Trial:
    """One run of some loads.

    Attributes:
        seed: Of all that is chosen at random.
        minutes: How long the soak lasts.
    """

    scale: Scale
    seed: int
    minutes: float
    rows: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    def claim(self, name: str, holds: bool, told: object = "") -> None:  # noqa: FBT001 - what it is about
        """Say whether something that must be so is so."""
        self.claims.append(Claim(name, holds, str(told)))
        if not holds:
            self.tell(f"  does not hold: {name}: {told}")

    def claim_equal(self, name: str, found: object, wanted: object) -> None:
        """Say whether something is as it must be."""
        is_so = found == wanted
        self.claim(name, is_so, found if is_so else f"{found}, not {wanted}")

    def show(
        self,
        name: str,
        unit: str,
        value: float | Sample,
        limit: float | Sample | None = None,
        *,
        at_most: float | None = None,
        ratio_at_most: float | None = None,
    ) -> None:
        """Add a figure to the table, with a target where there is one."""
        targets = []
        if at_most is not None:
            targets.append(Target(at_most, of_ratio=False))
        if ratio_at_most is not None:
            targets.append(Target(ratio_at_most))
        compared = None if limit is None else _sample(limit)
        self.rows.append(Row(name, unit, _sample(value), compared, tuple(targets)))

    def tell(self, text: str) -> None:
        """Say on standard error how far it is."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


#: Puts something under load, and says in the trial what became of it.
Load = Callable[[Trial], None]


class TooLateError(AssertionError):
    """Something did not come about in time."""


def _sample(value: float | Sample) -> Sample:
    return value if isinstance(value, Sample) else Sample((float(value),))


def wait_until(condition: Callable[[], T], what: str, *, seconds: float) -> T:
    """Wait until a condition gives something true, and return that.

    Raises:
        TooLateError: It never did.
    """
    deadline = monotonic() + seconds
    while not (found := condition()):
        if monotonic() > deadline:
            raise TooLateError(f"not within {seconds:g} s: {what}")
        sleep(_LOOK_SECONDS)
    return found
