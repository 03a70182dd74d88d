"""How often each rule came to what: a rule that never succeeds checks nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping


class Counts:
    """Counts of what rules came to, over all examples.

    Args:
        outcomes: What each rule can come to; first what it is for.
    """

    def __init__(self, outcomes: Mapping[str, Collection[str]]) -> None:
        self.examples = self.steps = 0
        self._outcomes = outcomes
        self._counts: Counter[tuple[str, str]] = Counter()

    def reached(self, rule: str, outcome: str = "done") -> None:
        """Count that a rule came to something.

        Raises:
            AssertionError: The rule does not say that it can.
        """
        assert outcome in self._outcomes[rule], f"{rule} came to {outcome!r}"
        self._counts[rule, outcome] += 1

    def never(self) -> list[str]:
        """Return the rules that never came to what they are for."""
        return [rule for rule, (best, *_) in self._outcomes.items() if not self._counts[rule, best]]

    def table(self) -> str:
        """Return a line for each rule, with what it came to how often."""
        lines = [f"{self.examples} examples, {self.steps} steps"]
        for rule, outcomes in self._outcomes.items():
            counted = (f"{outcome} {self._counts[rule, outcome]}" for outcome in outcomes)
            lines.append(f"  {rule:<24}{', '.join(counted)}")
        return "\n".join(lines) + "\n"
