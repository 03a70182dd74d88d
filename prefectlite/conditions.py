"""The conditions of a SELECT, as they become known one after the other.

The modules that hold statements of the SQLite registry build their WHERE clauses with it. Nothing here
reads or writes.
"""

from __future__ import annotations

from collections.abc import Collection

from prefectlite.rows import storable
from prefectlite.states import FINAL, StateType

#: The types of states that are not final.
UNFINISHED_TYPES = frozenset(type_.value for type_ in StateType) - FINAL


class Where:
    """The WHERE clause of a SELECT, as its conditions are known."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self._values: list[object] = []

    def add(self, condition: str, *values: object) -> None:
        """Add a condition with a ``?`` for each value."""
        self._conditions.append(condition)
        self._values += [storable(item) if isinstance(item, str) else item for item in values]

    def add_any(self, expression: str, values: Collection[str]) -> None:
        """Add that an expression is one of the values; nothing where there are none."""
        if values:
            self.add(f"{expression} IN ({', '.join('?' * len(values))})", *values)

    def add_states(self, states: Collection[str]) -> None:
        """Add that a run's state is one of these, by name or type, in any case; nothing for none."""
        types = [state.upper() for state in states]
        if types and UNFINISHED_TYPES.issuperset(types):
            self.add_any("state_type", types)
            # With the words of flow_run_unfinished, or SQLite would not use that index.
            self.add("state_type NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')")
        elif states:
            # As they are too, because lower() knows the case of ASCII only.
            names = {*states, *(state.lower() for state in states)}
            marks = ", ".join("?" * len(names))
            columns = ("state_name", "lower(state_name)", "lower(state_type)")
            either = " OR ".join(f"{column} IN ({marks})" for column in columns)
            self.add(f"({either})", *names, *names, *names)

    def values(self, limit: int | None) -> list[object]:
        """Return the values to bind, with the limit last; -1 is none to SQLite."""
        return [*self._values, -1 if limit is None else limit]

    def __str__(self) -> str:
        return f"WHERE {' AND '.join(self._conditions)}" if self._conditions else ""
