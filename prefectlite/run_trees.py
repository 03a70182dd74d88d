"""A flow run with its task runs and subflow runs, as much of it as there is room to show.

``flow-run watch`` shows it. It reads what is on record and writes nothing. Task runs are counted by the
registry, and read one by one only as far as there is room for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import Registry
from prefectlite.run_filters import TaskRunFilter
from prefectlite.run_inputs import usage
from prefectlite.states import State, StateType

_ACTIVE = (StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING)
_UNWANTED = (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
# What is shown first where there is no room for all, the least first.
_TOP, _GOING_ON, _TO_COME, _OVER = range(4)
# Of the task runs of a flow run that go on, the first is shown rather than the second.
_STEP = 0.001


class Tally(Counter[tuple[StateType, str]]):
    """How many runs there are by the type and the name of their state."""

    @property
    def completed(self) -> int:
        """How many have come to the end that one hopes for."""
        return self._of((StateType.COMPLETED,))

    @property
    def unwanted(self) -> int:
        """How many have come to another end, or will never begin."""
        return self._of(_UNWANTED) + self[StateType.PENDING, "NotReady"]

    @property
    def active(self) -> int:
        """How many are going on."""
        return self._of(_ACTIVE)

    @property
    def state(self) -> State:
        """The state that says most of all of them, of which there is at least one."""
        return State(*min(self, key=lambda key: (_weight(*key), -self[key])))

    def _of(self, types: Sequence[StateType]) -> int:
        return sum(number for (type_, _), number in self.items() if type_ in types)


def _weight(type_: StateType, name: str) -> int:
    if type_ in _ACTIVE:
        return _GOING_ON
    if type_ in _UNWANTED or name == "NotReady":
        return _TO_COME + 1
    return _OVER + 1 if type_ is StateType.COMPLETED else _TO_COME


@dataclass(slots=True)
class Entry:
    """What takes one line of a view.

    Attributes:
        depth: 0 for the flow run that is shown; one more than of the entry that it is below.
        state: That of the run; of several, the one that says most of them. None for words alone.
        run: None where it stands for several, or for words.
        tally: Of the task runs that are below it; empty for a single one.
        rank: Where there is no room for all, the least are shown.
    """

    name: str
    depth: int
    state: State | None
    rank: float
    run: FlowRun | TaskRun | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def duration_seconds(self) -> float | None:
        """How long the run took, up to now where it goes on; None where there is no such thing."""
        return None if self.run is None else self.run.duration_seconds


@dataclass(frozen=True, slots=True)
class RunTree:
    """A flow run and what is below it, at one moment.

    Attributes:
        entries: What there is room for; the flow run's own first.
        missing: The task runs that no entry stands for.
        missing_flow_runs: How many subflow runs have none.
    """

    entries: Sequence[Entry]
    missing: Tally
    missing_flow_runs: int


def read_tree(registry: Registry, flow_run_id: str, *, most: int) -> RunTree:
    """Return what is on record of a flow run and of all that is below it.

    Where there is no room for every task run, those of one task share an entry, and beside it those
    that go on or have failed have one of their own.

    Args:
        flow_run_id: The whole id.
        most: How many entries there is room for, at least 1.
    """
    flow_runs = registry.list_run_tree(flow_run_id)
    tallies: dict[str, dict[str, Tally]] = {run.id: {} for run in flow_runs}
    total = len(flow_runs)
    for count in registry.count_tasks(flow_run_id):
        tally = tallies.setdefault(count.flow_run_id, {}).setdefault(count.task_name, Tally())
        tally[count.state_type, count.state_name] += count.number
        total += count.number
    is_grouped = total > most
    where = TaskRunFilter(flow_run_ids=[*tallies])
    kinds = (_ACTIVE, (*_UNWANTED, "NotReady")) if is_grouped else ((),)
    task_runs = [
        task_run
        for states in kinds
        for task_run in registry.list_task_runs(where._replace(states=states), limit=most)
    ]
    growing = _Growing(registry, flow_runs, task_runs, tallies, is_grouped=is_grouped)
    entries = [*growing.entries(flow_runs[0], 0)] if flow_runs else []
    _raise_parents(entries)
    return _pruned(entries, most)


class _Growing:
    """The runs of a tree, by what they are below.

    Args:
        registry: Where it is looked up what a paused run asks for.
        flow_runs: All of the tree, in the order of their creation.
        task_runs: Those that are to have an entry of their own, newest first.
        tallies: The task runs by the flow run's id and the task's name.
        is_grouped: Whether there is an entry for each task.
    """

    def __init__(
        self,
        registry: Registry,
        flow_runs: Sequence[FlowRun],
        task_runs: Sequence[TaskRun],
        tallies: Mapping[str, Mapping[str, Tally]],
        *,
        is_grouped: bool,
    ) -> None:
        self._registry = registry
        self._is_grouped = is_grouped
        self._tallies = tallies
        self._flow_runs: dict[str | None, list[FlowRun]] = {}
        for flow_run in flow_runs:
            self._flow_runs.setdefault(flow_run.parent_flow_run_id, []).append(flow_run)
        self._task_runs: dict[str, list[TaskRun]] = {}
        for task_run in reversed(task_runs):
            self._task_runs.setdefault(task_run.flow_run_id, []).append(task_run)

    def entries(self, flow_run: FlowRun, depth: int) -> Iterator[Entry]:
        """Yield the entry of a flow run and those of all that is below it."""
        tasks = self._tallies[flow_run.id]
        yield self._entry(flow_run, depth)
        if flow_run.state.is_paused():
            yield Entry(self._resuming(flow_run), depth + 1, None, _GOING_ON)
        own = self._task_runs.get(flow_run.id, [])
        for name, tally in tasks.items() if self._is_grouped else ():
            yield Entry(name, depth + 1, tally.state, _rank(tally.state) + _STEP / 2, tally=tally)
            if tally.total() > 1:
                yield from self._of_task(own, name, depth + 2)
        below: list[FlowRun | TaskRun] = [*self._flow_runs.get(flow_run.id, [])]
        if not self._is_grouped:
            below += own
        for run in sorted(below, key=lambda run: run.created_at):
            if isinstance(run, FlowRun):
                yield from self.entries(run, depth + 1)
            else:
                yield self._entry(run, depth + 1)

    def _of_task(self, own: Sequence[TaskRun], name: str, depth: int) -> Iterator[Entry]:
        """Yield the entries of a task's own runs: of those that go on and those that failed alike."""
        numbers = [0, 0]
        for task_run in own:
            if task_run.task_name == name:
                is_active = task_run.state.type in _ACTIVE
                numbers[is_active] += 1
                rank = _GOING_ON + numbers[is_active] * _STEP
                yield self._entry(task_run, depth, rank=rank)

    def _entry(self, run: FlowRun | TaskRun, depth: int, *, rank: float | None = None) -> Entry:
        tally = Tally()
        for counts in self._tallies.get(run.id, {}).values():
            tally.update(counts)
        return Entry(
            name=f"{run.flow_name} {run.name}" if isinstance(run, FlowRun) else run.name,
            depth=depth,
            state=run.state,
            rank=_rank(run.state) if rank is None else rank,
            run=run,
            tally=tally,
        )

    def _resuming(self, flow_run: FlowRun) -> str:
        """Return how to have a paused flow run go on."""
        pause = self._registry.pauses.find_pause(flow_run.id)
        command = f"prefectlite flow-run resume {flow_run.id[:8]}"
        schema = pause.input_schema if pause else None
        return f"to resume: {command} {usage(schema) if schema else ''}".rstrip()


def _rank(state: State) -> int:
    if state.is_completed():
        return _OVER
    return _TO_COME if state.is_scheduled() or state.is_pending() else _GOING_ON


def _raise_parents(entries: Sequence[Entry]) -> None:
    """Have no entry shown without that which it is below."""
    least: dict[int, float] = {}
    for entry in reversed(entries):
        entry.rank = min(entry.rank, least.pop(entry.depth + 1, entry.rank))
        least[entry.depth] = min(entry.rank, least.get(entry.depth, entry.rank))
    if entries:
        entries[0].rank = _TOP


def _pruned(entries: Sequence[Entry], most: int) -> RunTree:
    """Return as many entries as there is room for, and what the others stood for."""
    order = sorted(range(len(entries)), key=lambda number: (entries[number].rank, number))
    kept = {*order[:most]}
    missing, flow_runs = Tally(), 0
    for number in order[most:]:
        if isinstance(entries[number].run, FlowRun):
            flow_runs += 1
        elif entries[number].run is None:
            missing.update(entries[number].tally)
    shown = [entry for number, entry in enumerate(entries) if number in kept]
    return RunTree(shown, missing, flow_runs)
