"""What the registry knows of a flow: what became of its runs. There is no other record of a flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prefectlite.records import FlowRun
from prefectlite.states import FINAL, StateType


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSummary:
    """What became of the runs of one flow.

    Attributes:
        run_counts: How many runs are in a state of a type, by types; those without any are left out.
        mean_seconds: How long the runs that Completed took on average; None where none has.
        last_run: The newest; None where there is none.
        deployments: The names of its deployments.
    """

    name: str
    run_counts: Mapping[StateType, int] = field(default_factory=dict)
    mean_seconds: float | None = None
    last_run: FlowRun | None = None
    deployments: tuple[str, ...] = ()

    @property
    def run_count(self) -> int:
        """How many runs there are."""
        return sum(self.run_counts.values())

    @property
    def unfinished_count(self) -> int:
        """How many runs are not in a final state."""
        return sum(count for type_, count in self.run_counts.items() if type_ not in FINAL)

    @property
    def success_rate(self) -> float | None:
        """Which part of the runs that have ended Completed, 0 to 1; None where none has ended."""
        ended = self.run_count - self.unfinished_count
        return self.count(StateType.COMPLETED) / ended if ended else None

    def count(self, type_: StateType) -> int:
        """Return how many runs are in a state of a type."""
        return self.run_counts.get(type_, 0)

    def dict(self) -> dict[str, object]:
        """Return the summary as JSON can hold it."""
        return {
            "name": self.name,
            "run_count": self.run_count,
            "run_counts": {type_.value: count for type_, count in self.run_counts.items()},
            "success_rate": self.success_rate,
            "mean_seconds": self.mean_seconds,
            "last_run": self.last_run and self.last_run.dict(),
            "deployments": [*self.deployments],
        }
