"""When a flow run, its task runs and its subflow runs waited, ran and were tried again.

``timeline_texts`` and ``timeline_pictures`` show it. It reads what is on record and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from prefectlite.clock import duration_text, now
from prefectlite.records import FlowRun, StateChange, TaskRun
from prefectlite.registry import Registry
from prefectlite.run_filters import TaskRunFilter
from prefectlite.states import State

Run = FlowRun | TaskRun

# A flow without a task ends within a millisecond, and still has a length on paper.
_LEAST_SECONDS = 0.001
_STEPS = (1, 2, 5, 10, 15, 30)
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


class Phase(StrEnum):
    """What a run did for a while."""

    #: Submitted, scheduled, or between two attempts.
    WAITED = "waited"
    PAUSED = "paused"
    #: An attempt after which it was tried again.
    RETRIED = "tried again"
    #: What led to the state that it has.
    RAN = "ran"


@dataclass(frozen=True, slots=True)
class Span:
    """A phase of a run: from when to when, in seconds since the beginning of the timeline."""

    phase: Phase
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Row:
    """One run on a timeline.

    Attributes:
        name: The flow's for a flow run; the task run's own.
        depth: 0 for the flow run that the timeline is of; one more than of the row that it is below.
        spans: In order; they do not overlap.
    """

    name: str
    depth: int
    state: State
    duration_seconds: float | None
    spans: Sequence[Span]

    @property
    def end_text(self) -> str:
        """How long it took, and its state where that is not what one hopes for."""
        texts = ["" if self.duration_seconds is None else duration_text(self.duration_seconds)]
        if self.state.name != "Completed":
            texts.append(self.state.name)
        return " ".join(filter(None, texts))


@dataclass(frozen=True, slots=True)
class Timeline:
    """A flow run and what was below it, from its start to its end, or to now.

    Attributes:
        rows: The flow run's own first, and then each before those that are below it.
        seconds: How long all of it is.
        missing: How many runs are left out, because they were shorter than the others.
    """

    flow_run: FlowRun
    rows: Sequence[Row]
    seconds: float
    missing: int


def read_timeline(registry: Registry, flow_run: FlowRun, *, limit: int) -> Timeline:
    """Return the timeline of a flow run.

    Args:
        limit: At most so many runs below it: those that took longest.
    """
    subflow_runs = registry.list_run_tree(flow_run.id)[1:]
    where = TaskRunFilter(flow_run_ids=[flow_run.id, *(run.id for run in subflow_runs)])
    runs: list[Run] = [*subflow_runs, *registry.list_task_runs(where, limit=None)]
    runs.sort(key=lambda run: run.duration_seconds or 0.0, reverse=True)
    parents = {run.id: _parent_id(run) for run in runs}
    shown = sorted(runs[:limit], key=lambda run: (_began_at(run), run.created_at, run.id))
    below: dict[str, list[Run]] = {run.id: [] for run in (flow_run, *shown)}
    for run in shown:
        parent = parents[run.id]
        while parent not in below:
            parent = parents.get(parent, flow_run.id)
        below[parent].append(run)
    begin = _began_at(flow_run)
    ends = [run.ended_at or flow_run.ended_at or now() for run in (flow_run, *runs)]
    end = max(begin, *ends)

    def rows(run: Run, depth: int) -> Iterator[Row]:
        spans = [*_spans(registry.state_history(run), begin, end)]
        name = run.flow_name if isinstance(run, FlowRun) else run.name
        yield Row(name, depth, run.state, run.duration_seconds, spans)
        for child in below[run.id]:
            yield from rows(child, depth + 1)

    seconds = max(_LEAST_SECONDS, (end - begin).total_seconds())
    return Timeline(flow_run, [*rows(flow_run, 0)], seconds, len(runs) - len(shown))


def _spans(history: Sequence[StateChange], begin: datetime, end: datetime) -> Iterator[Span]:
    """Yield what a run did, by the states that it had; what came before the beginning is left out."""
    for number, change in enumerate(history):
        state = change.state
        following = history[number + 1].state if number + 1 < len(history) else None
        if following is None and (state.is_final() or state.name == "NotReady"):
            return
        until = following.timestamp if following else end
        if state.is_running() or state.is_cancelling():
            is_retried = following is not None and following.is_scheduled()
            phase = Phase.RETRIED if is_retried else Phase.RAN
        else:
            phase = Phase.PAUSED if state.is_paused() else Phase.WAITED
        if until < begin or (until == begin and phase is Phase.WAITED):
            continue
        # Within the timeline and in order, also where the clock was set back meanwhile.
        first = min(max(state.timestamp, begin), end)
        moments = (first, min(max(until, first), end))
        yield Span(phase, *((moment - begin).total_seconds() for moment in moments))


def ticks(seconds: float, most: int) -> list[tuple[float, str]]:
    """Return where to mark so many seconds, with what to write there; from 0, at most so many.

    Args:
        most: At least 1.
    """
    step = next(step for step in _steps() if seconds / step < most)
    return [
        (round(number * step, 3), _tick_text(number * step, step))
        for number in range(int(seconds / step) + 1)
    ]


def _steps() -> Iterator[float]:
    """Yield lengths in which people think, from 1 millisecond up."""
    for power in (-3, -2, -1):
        yield from (round(step * 10**power, 3) for step in (1, 2, 5))
    for unit in (1, _MINUTE):
        yield from (float(step * unit) for step in _STEPS)
    yield from (float(step * _HOUR) for step in (1, 2, 3, 6, 12))
    step = float(_DAY)
    while True:
        yield step
        step *= 2


def _tick_text(seconds: float, step: float) -> str:
    if not seconds:
        return "0s"
    if step < 0.1:  # noqa: PLR2004 - a tenth of a second is the last that one decimal can say
        return f"{seconds * 1000:.0f}ms"
    if step < 1:
        return f"{seconds:.1f}s"
    texts = []
    left = round(seconds)
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m"), (1, "s")):
        count, left = divmod(left, unit)
        if count:
            texts.append(f"{count}{name}")
    return "".join(texts)


def _began_at(run: Run) -> datetime:
    return run.started_at or run.created_at


def _parent_id(run: Run) -> str:
    own = run.parent_flow_run_id if isinstance(run, FlowRun) else run.flow_run_id
    return run.parent_task_run_id or own or ""
