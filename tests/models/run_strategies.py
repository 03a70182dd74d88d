"""What the rules draw: states, names, tags, ids; few of each, so that they meet."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import strategies as some

from prefectlite.run_filters import FLOW_RUN_ORDERS, TASK_RUN_ORDERS, Order
from prefectlite.states import FINAL, STATE_NAMES, State, StateType

#: Names of runs: one is also the start of ids, one differs from another in case alone.
NAMES = some.sampled_from(["calm-otter", "Calm-Otter", "abcd", "Ärger", "x"])
FLOW_NAMES = some.sampled_from(["etl", "ETL", "müll"])
TASK_NAMES = some.sampled_from(["load", "save"])
TAGS = some.lists(some.sampled_from(["a", "b", "ü"]), unique=True, max_size=2).map(tuple)
QUEUES = some.sampled_from(["fast", "slow", "odd"])
MAYBE_QUEUE = some.none() | QUEUES
PARAMETERS = some.sampled_from([{}, {"day": "Monday"}, {"n": [1, None], "town": "Köln"}])
MESSAGES = some.sampled_from([None, "because", "Weil Ärger"])
#: Starts of ids.
STARTS = some.sampled_from(["abcd", "abce", "0123"])
SECONDS = some.sampled_from([-7200, -60, -1, 0, 1, 60, 7200])
GRACES = some.sampled_from([0.0, 5.0, 30.0])
KEYS = some.sampled_from([None, "first", "first", "second"])
LEVELS = some.sampled_from([10, 20, 30, 40])
LIMITS = some.sampled_from([None, None, 1, 2, 5])

_LASTING = some.sampled_from(sorted(set(StateType) - FINAL))
#: Most orders of changes end at once: types that are final are asked for less often.
TYPES = _LASTING | _LASTING | some.sampled_from(StateType)
_WORDS = ["Running", "RETRYING", "scheduled", "late", "paused", "Completed", "failed", "nonsense"]
STATE_WORDS = some.just([]) | some.lists(some.sampled_from(_WORDS), max_size=2)
TEXTS = some.sampled_from([None] * 7 + ["OTTER", "tl", "ärg", "monday", "KÖLN", "beca", "nowhere"])
FLOW_RUN_ORDER = some.builds(Order, some.sampled_from(FLOW_RUN_ORDERS), some.booleans())
TASK_RUN_ORDER = some.builds(Order, some.sampled_from(TASK_RUN_ORDERS), some.booleans())


@some.composite
def states(draw: some.DrawFn, types: some.SearchStrategy[StateType] = TYPES) -> State:
    """Draw a state, with one of the names that its type has."""
    type_ = draw(types)
    names = [name for name, of_type in STATE_NAMES.items() if of_type is type_]
    return State(type_, draw(some.sampled_from(names)), draw(MESSAGES))


@some.composite
def times(draw: some.DrawFn, at: datetime) -> tuple[datetime | None, datetime | None]:
    """Draw a time since when, and one until when; either may be None."""
    maybe = some.none() | some.none() | SECONDS
    since, until = draw(maybe), draw(maybe)
    return (
        None if since is None else at + timedelta(seconds=since),
        None if until is None else at + timedelta(seconds=until),
    )
