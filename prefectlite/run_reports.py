"""What came of a flow run, its task runs and its subflow runs, for a report that others read.

``cli`` reads it once a run is over, for ``junit`` and ``github``. Nothing here writes. Where a run's
traceback is to be had, that is from its log: whatever process raised it, it is told there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from prefectlite.log_listings import read_lines
from prefectlite.outcomes import TRACEBACK_HEADING
from prefectlite.records import FlowRun, LogLine, TaskRun
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter, TaskRunFilter

# Of a run that logs more, what it said last; a report is no copy of the log.
_MOST_LINES = 1_000


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
        lines: The last lines of its log, in order; of a flow run without those of its task runs.
        traceback: How its last attempt failed, without the frames of prefectlite; empty where no
            traceback was logged for it, as where another run had raised the error.
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


def read_reports(registry: Registry, flow_run_id: str) -> list[FlowRunReport]:
    """Return what came of a flow run, and then of its subflow runs and theirs.

    Args:
        registry: Where it is on record.
        flow_run_id: The whole id.

    Raises:
        NotFoundError: It is not on record any more.
    """
    flow_run = registry.find_flow_run(flow_run_id)
    subflow_runs = registry.list_flow_runs(
        FlowRunFilter(parent_flow_run_id=flow_run.id), limit=None
    )
    below = [read_reports(registry, subflow_run.id) for subflow_run in reversed(subflow_runs)]
    reports = _run_reports(registry, flow_run)
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


def _run_reports(registry: Registry, flow_run: FlowRun) -> list[RunReport]:
    """Return what came of a flow run itself, and then of each of its task runs."""
    lines: dict[str | None, deque[LogLine]] = {}
    tracebacks: dict[str | None, LogLine] = {}
    for line in read_lines(registry, flow_run.id):
        lines.setdefault(line.task_run_id, deque(maxlen=_MOST_LINES)).append(line)
        if line.message.startswith(TRACEBACK_HEADING):
            tracebacks[line.task_run_id] = line
    task_runs = registry.list_task_runs(TaskRunFilter(flow_run_ids=[flow_run.id]), limit=None)
    keys: list[tuple[str | None, FlowRun | TaskRun]] = [(None, flow_run)]
    keys += [(task_run.id, task_run) for task_run in reversed(task_runs)]
    return [
        RunReport(
            run=run,
            lines=tuple(lines.get(key, ())),
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
