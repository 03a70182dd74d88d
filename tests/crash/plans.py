"""What happens in a round, drawn from the seed and the round's number alone."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LONG = ("hold", "slow", "brood", "stubborn")
_SHORT = ("steps", "fan", "pool", "nest", "again", "fails", "store")
#: How a run is started, and which flows are, so.
_HOWS = {
    "foreground": (*_LONG, *_SHORT),
    "program": ("steps", "fan", "nest", "store", "brood", "slow"),
    "detached": (*_LONG, *_SHORT),
    "deployed": (*_LONG, "steps", "fan", "nest"),
}
#: What is done with a run of a flow while it goes on; of others it is one of the last two.
_THENS = {
    "hold": ("resume", "resume", "cancel", "leave"),
    "slow": ("cancel", "cancel", "pause", "wait", "leave"),
    "stubborn": ("cancel", "cancel", "cancel", "leave"),
    "brood": ("cancel", "wait", "leave"),
    "nest": ("cancel", "pause", "wait", "leave"),
}
_AGENTS = ("serving", "serving", "serving", "once", "none")
_ERASERS = ("delete", "prune", "none", "none")
#: Who is killed, and how often in so many; ``everything`` is whatever lives, at once.
_OFTEN = {"engine": 5, "supervisor": 5, "agent": 4, "command": 6, "engine+supervisor": 1}
_OFTEN |= {"reader": 2, "settler": 2, "worker": 1, "child": 1, "everything": 1}
_STARTS = (2, 2, 3, 3, 4)
_KILLS = (1, 2, 2, 3, 3, 4)
#: What a kill may wait for instead of its victim, by what brings it about.
_SIGNS = {
    "detached": "supervisor",
    "brood": "child",
    "stubborn": "child",
    "cancel": "CANCELLING",
    "pause": "PAUSED",
    "resume": "PAUSED",
}
#: So many kills, as a part of 1, wait for one of these where there is one.
_TARGETED = 0.4
_LAST_SECONDS, _LINGER_SECONDS = 2.5, 0.4


@dataclass(frozen=True, slots=True)
class Start:
    """A run to start.

    Attributes:
        name: The flow run's name.
        how: ``foreground``, ``program``, ``detached`` or ``deployed``.
        flow: The flow, of ``flows``.
        then: What is done with it: ``wait``, ``cancel``, ``pause`` (and resume), ``resume``, ``leave``.
        after: How many seconds after its start that is done.
    """

    name: str
    how: str
    flow: str
    then: str = "leave"
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A process to kill.

    Attributes:
        kind: As in ``processes.Process``, or a word of what it runs, such as ``cancel``; two with a plus
            between them go together.
        at: When to look for it, in seconds from the round's begin.
        when: It is due when there is a process of this kind, or a flow run in a state of this type, such
            as ``CANCELLING``; empty for the victim's own kind, or, if there is none soon, anybody.
        linger: How many seconds later it is killed.
        pick: Which of several, as a part of 1.
    """

    kind: str
    at: float = 0.0
    when: str = ""
    linger: float = 0.0
    pick: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A round."""

    number: int
    starts: tuple[Start, ...]
    kills: tuple[Kill, ...]
    agent: str = "none"
    eraser: str = "none"

    def __str__(self) -> str:
        starts = ", ".join(f"{one.how} {one.flow}/{one.then}" for one in self.starts)
        return f"agent {self.agent}, eraser {self.eraser}, {starts}"


def draw(seed: int, number: int) -> Plan:
    """Return the plan of a round; the same for the same seed and number."""
    chance = random.Random(f"{seed}:{number}")
    starts = [_start(chance, f"r{number}-{index}") for index in range(chance.choice(_STARTS))]
    words = [word for one in starts for word in (one.how, one.flow, one.then)]
    signs = [_SIGNS[word] for word in words if word in _SIGNS]
    kills = [_kill(chance, signs) for _ in range(chance.choice(_KILLS))]
    return Plan(
        number=number,
        agent=chance.choice(_AGENTS),
        eraser=chance.choice(_ERASERS),
        starts=tuple(starts),
        kills=tuple(sorted(kills, key=lambda kill: (kill.when, kill.at))),
    )


def _start(chance: random.Random, name: str) -> Start:
    how = chance.choice([*_HOWS])
    flow = chance.choice(_HOWS[how])
    then = chance.choice(_THENS.get(flow, ("wait", "leave")))
    return Start(name, how, flow, then, chance.uniform(0, 1.5))


def _kill(chance: random.Random, signs: Sequence[str]) -> Kill:
    at, linger = chance.uniform(0, _LAST_SECONDS), chance.uniform(0, _LINGER_SECONDS)
    (kind,) = chance.choices([*_OFTEN], [*_OFTEN.values()])
    when = chance.choice(signs) if signs and chance.random() < _TARGETED else ""
    return Kill(kind, at, when, linger, chance.random())


def read_plan(path: Path) -> Plan:
    """Return the plan of a JSON file, whose keys are those of ``Plan``, ``Start`` and ``Kill``."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    starts = tuple(Start(**start) for start in fields.pop("starts"))
    kills = tuple(Kill(**kill) for kill in fields.pop("kills"))
    return Plan(starts=starts, kills=kills, **fields)
