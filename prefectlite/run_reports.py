"""What came of a flow run, its task runs and its subflow runs, for a report that others read.

``cli`` reads it once a run is over, for ``junit`` and ``github``. Nothing here writes. Where a run's
traceback is to be had, that is from its log: whatever process raised it, it is told there.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from prefectlite.log_listings import read_lines
from prefectlite.outcomes import TRACEBACK_HEADING
from prefectlite.records import FlowRun, LogLine, LogQuery, TaskRun
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter, TaskRunFilter

# Of a run that logs more, what it said last; a report is no copy of the log. The servers refuse files
# of some tens of megabytes, so that of very many runs each has less.
_MOST_LINES = 1_000
_MOST_CHARACTERS = 100_000
_ALL_CHARACTERS = 10_000_000


class Outcome(StrEnum):
    """What a run comes to in a report."""

    PASSED = "passed"
    #: The user's code failed.
    FAILED = "failed"
    #: Something else ended it: a crash, a cancellation; or it has not ended.
    BROKEN = "broken"
    #: It was not begun.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What came of one run.

    Attributes:
        lines: The last lines of its log, in order, the first of them cut where there is no room for
            all of it; of a flow run without those of its task runs.
        traceback: How its last attempt failed, without the frames of prefectlite, cut in the middle
            where it is long; empty where no traceback was logged for it, as where another run had
            raised the error.
    """

    run: FlowRun | TaskRun
    lines: tuple[LogLine, ...]
    traceback: str = ""

    @property
    def noun(self) -> str:
        """``Flow run`` or ``Task run``."""
        return "Flow run" if isinstance(self.run, FlowRun) else "Task run"

    @property
    def outcome(self) -> Outcome:
        """What it came to."""
        state = self.run.state
        if state.is_completed():
            return Outcome.PASSED
        if state.is_failed():
            return Outcome.FAILED
        was_begun = self.run.run_count or state.is_crashed() or isinstance(self.run, FlowRun)
        return Outcome.BROKEN if was_begun else Outcome.SKIPPED

    @property
    def is_failure(self) -> bool:
        """Whether it is to be told as one."""
        return self.outcome in (Outcome.FAILED, Outcome.BROKEN)

    @property
    def message(self) -> str:
        """Why it is in its state, as far as that is known."""
        return self.run.state.message or f"{self.noun} is {self.run.state.name}."


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRunReport:
    """What came of a flow run and its task runs.

    Attributes:
        flow_run: As it was read.
        own: What came of itself.
        task_runs: What came of its task runs, in the order in which they were put on record.
        fails_by_itself: Whether it is a failure that those of its task runs and subflow runs do not
            already tell: it has a traceback of its own, or none of them has failed.
    """

    flow_run: FlowRun
    own: RunReport
    task_runs: tuple[RunReport, ...]
    fails_by_itself: bool

    def failures(self) -> Iterator[RunReport]:
        """Yield what is to be told as a failure, the cause before what follows from it."""
        yield from (report for report in self.task_runs if report.is_failure)
        if self.fails_by_itself:
            yield self.own


def read_reports(
    registry: Registry, flow_run_id: str, *, with_lines: bool = True
) -> list[FlowRunReport]:
    """Return what came of a flow run, and then of its subflow runs and theirs.

    Args:
        registry: Where it is on record.
        flow_run_id: The whole id.
        with_lines: Also what they have logged, and not only their tracebacks.

    Raises:
        NotFoundError: It is not on record any more.
    """
    runs = len(registry.list_run_tree(flow_run_id))
    runs += sum(count.number for count in registry.count_tasks(flow_run_id))
    most = min(_MOST_CHARACTERS, _ALL_CHARACTERS // max(1, runs))
    return _read(registry, flow_run_id, most, with_lines=with_lines)


def _read(
    registry: Registry, flow_run_id: str, most: int, *, with_lines: bool
) -> list[FlowRunReport]:
    """Return the reports, with so many characters of each run's lines and traceback at most."""
    flow_run = registry.find_flow_run(flow_run_id)
    subflow_runs = registry.list_flow_runs(
        FlowRunFilter(parent_flow_run_id=flow_run.id), limit=None
    )
    below = [
        _read(registry, subflow_run.id, most, with_lines=with_lines)
        for subflow_run in reversed(subflow_runs)
    ]
    reports = _run_reports(registry, flow_run, most, with_lines=with_lines)
    own, *task_runs = reports
    has_failed_below = any(
        report.is_failure for report in (*task_runs, *(one[0].own for one in below))
    )
    report = FlowRunReport(
        flow_run=flow_run,
        own=own,
        task_runs=tuple(task_runs),
        fails_by_itself=own.is_failure and (bool(own.traceback) or not has_failed_below),
    )
    return [report, *(one for some in below for one in some)]


class _LastLines:
    """The last lines of a run, with so many characters at most."""

    def __init__(self, most: int) -> None:
        self.lines: deque[LogLine] = deque()
        self._left = most

    def add(self, line: LogLine) -> None:
        self.lines.append(line)
        self._left -= len(line.message)
        while self._left < 0 or len(self.lines) > _MOST_LINES:
            first = self.lines.popleft()
            self._left += len(first.message)
            if self._left > 0 and len(self.lines) < _MOST_LINES:
                end = first.message[-self._left :]
                self.lines.appendleft(first._replace(message=end))
                self._left -= len(end)


def _cut(text: str, most: int) -> str:
    """Return a text of so many characters at most, with both ends, which matter in a traceback."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}\n...\n{text[-half:]}"


def _run_reports(
    registry: Registry, flow_run: FlowRun, most: int, *, with_lines: bool
) -> list[RunReport]:
    """Return what came of a flow run itself, and then of each of its task runs."""
    logged: dict[str | None, _LastLines] = {}
    tracebacks: dict[str | None, LogLine] = {}
    query = LogQuery() if with_lines else LogQuery(least_level=logging.ERROR)
    for line in read_lines(registry, flow_run.id, **query):
        if with_lines:
            logged.setdefault(line.task_run_id, _LastLines(most)).add(line)
        if line.message.startswith(TRACEBACK_HEADING):
            tracebacks[line.task_run_id] = line._replace(message=_cut(line.message, most))
    task_runs = registry.list_task_runs(TaskRunFilter(flow_run_ids=[flow_run.id]), limit=None)
    keys: list[tuple[str | None, FlowRun | TaskRun]] = [(None, flow_run)]
    keys += [(task_run.id, task_run) for task_run in reversed(task_runs)]
    return [
        RunReport(
            run=run,
            lines=tuple(logged[key].lines) if key in logged else (),
            traceback=_traceback(registry, run, tracebacks.get(key)),
        )
        for key, run in keys
    ]


def _traceback(registry: Registry, run: FlowRun | TaskRun, line: LogLine | None) -> str:
    """Return the traceback of a run's last attempt, where the last one that it logged is that."""
    if line is None or run.state.is_completed():
        return ""
    if run.run_count > 1:
        begun = [
            change.state.timestamp
            for change in registry.state_history(run)
            if change.state.is_running()
        ]
        if begun and line.timestamp < begun[-1]:
            return ""
    return line.message.removeprefix(TRACEBACK_HEADING)
