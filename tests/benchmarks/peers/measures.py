"""Which work is compared, how it is timed, and the turns that the contenders take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from tests.benchmarks.measuring import Sample, killed_after
from tests.benchmarks.peers.contenders import LISTED, PROGRAMS, Contender

# What two processes of a contender get to settle in, before one resumes or cancels the other.
_SETTLE_SECONDS = 1.0
# What everybody who can be asked to polls by, in the row that is about that.
POLLING_SECONDS = 0.1

# A contender's process that takes so long hangs: it is killed, and has failed.
_DEADLINE_SECONDS = 600

#: What was measured, by row: seconds or bytes.
Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: rounds, and sizes of the work."""

    rounds: int
    tasks: int = 200
    flows: int = 10
    mapped: int = 1_000


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is, in which round of how many."""

    contender: Contender
    number: int
    extent: Extent

    @property
    def share(self) -> float:
        """How far the rounds are: spreads over them what else would be at the same moment always."""
        return (self.number + 0.5) / self.extent.rounds


class ContenderError(Exception):
    """A contender's process has failed; says what it wrote last."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A way of measuring that gives some rows.

    Attributes:
        rows: The names of the rows.
        take: Measures once.
        prepare: Is called once for each contender, before the rounds.
    """

    rows: tuple[str, ...]
    take: Callable[[Turn], Values]
    prepare: Callable[[Contender], None] | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """What was measured: the values by row and contender, and who has failed, and how."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)

    def sample(self, row: str, contender: str) -> Sample | None:
        """Return the values of a cell, a value a round; None where there are none."""
        values = self.values.get((row, contender))
        return Sample(tuple(values)) if values else None

    def ratio(self, row: str, contender: str, to: str) -> Sample | None:
        """Return a contender's values over those that another had in the same rounds.

        None where either has none, or where the other needs nothing at all.
        """
        above, below = self.sample(row, contender), self.sample(row, to)
        return above.over(below) if above and below and all(below.values) else None


def take_turns(
    contenders: Sequence[Contender], measures: Sequence[Measure], extent: Extent
) -> Results:
    """Measure everything, in each round everyone; who is first changes with each round."""
    results = Results()
    for measure in measures:
        _progress(f"{', '.join(measure.rows)}: warming up")
        active = [each for each in contenders if _has(measure, each)]
        active = [each for each in active if _try(measure, results, Turn(each, -1, extent))]
        for number in range(extent.rounds):
            shift = number % max(1, len(active))
            for contender in active[shift:] + active[:shift]:
                _progress(
                    f"{', '.join(measure.rows)}: {contender.title}, {number + 1} of {extent.rounds}"
                )
                _try(measure, results, Turn(contender, number, extent))
    return results


def _has(measure: Measure, contender: Contender) -> bool:
    return not any(row in contender.missing for row in measure.rows)


def _try(measure: Measure, results: Results, turn: Turn) -> bool:
    """Take one turn, or before the first prepare it; what fails then has no figures at all."""
    key = turn.contender.name
    if (measure.rows[0], key) in results.failures:
        return False
    try:
        if turn.number >= 0:
            for row, value in measure.take(turn).items():
                results.values.setdefault((row, key), []).append(value)
        elif measure.prepare:
            measure.prepare(turn.contender)
    except ContenderError as error:
        _progress(f"FAILED: {turn.contender.title}: {error}")
        for row in measure.rows:
            results.failures[row, key] = str(error)
            results.values.pop((row, key), None)
        return False
    return True


def _costs(turn: Turn) -> Values:
    extent = turn.extent
    return _tell(turn.contender, "costs", extent.tasks, extent.flows, extent.mapped)


def _first(turn: Turn) -> Values:
    started = perf_counter()
    told = _tell(turn.contender, "first")
    return {"first": perf_counter() - started, **told}


def _import(turn: Turn) -> Values:
    contender = turn.contender
    return {"import": _seconds(contender, [contender.python, "-c", contender.import_code])}


def _list(turn: Turn) -> Values:
    return {"list": _seconds(turn.contender, turn.contender.list_command)}


def _resume(turn: Turn) -> Values:
    wait = _SETTLE_SECONDS + turn.share * turn.contender.poll_seconds
    return _tell(turn.contender, "resume", wait, "")


def _resume_polling(turn: Turn) -> Values:
    wait = _SETTLE_SECONDS + turn.share * POLLING_SECONDS
    told = _tell(turn.contender, "resume", wait, POLLING_SECONDS)
    return {"resume-polling": told["resume"]}


def _cancel(turn: Turn) -> Values:
    return _tell(turn.contender, "cancel", _SETTLE_SECONDS + turn.share)


def _seed(contender: Contender) -> None:
    _tell(contender, "seed", LISTED)
    _seconds(contender, contender.list_command)


def _warm(contender: Contender) -> None:
    """Write byte code and make the database, which nobody is timed for."""
    _tell(contender, "first")


#: By name, in the order of the table.
MEASURES: dict[str, Measure] = {
    "first": Measure(("first", "peak", "server"), _first, _warm),
    "import": Measure(("import",), _import),
    "costs": Measure(("task", "flow", "mapped"), _costs),
    "list": Measure(("list",), _list, _seed),
    "resume": Measure(("resume",), _resume),
    "resume-polling": Measure(("resume-polling",), _resume_polling),
    "cancel": Measure(("cancel",), _cancel),
}


def _tell(contender: Contender, work: str, *arguments: object) -> Values:
    """Have a contender's program do some work, and return what it tells."""
    program = str(PROGRAMS / contender.program)
    output = _run(contender, [contender.python, program, work, *map(str, arguments)])
    told: Values = {}
    for line in output.splitlines():
        if line.startswith("{"):
            told |= json.loads(line)
    return told


def _seconds(contender: Contender, command: Sequence[object]) -> float:
    started = perf_counter()
    _run(contender, command)
    return perf_counter() - started


def _run(contender: Contender, command: Sequence[object]) -> str:
    """Run a command of a contender, and return its standard output."""
    contender.home.mkdir(parents=True, exist_ok=True)
    log = contender.home / "stderr.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=contender.environment(),
            cwd=contender.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with killed_after(process, _DEADLINE_SECONDS):
            output, _ = process.communicate()
    if process.returncode != 0:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise ContenderError(f"exit code {process.returncode}: {' / '.join(said)}")
    return output


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
