"""The log lines of runs: which of them a person asked for, whose each is, and how they are followed.

``cli`` only, by the commands that show log lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Annotated, Unpack

from prefectlite import console
from prefectlite.commands import Option, Past
from prefectlite.endings import exit_code_of, tell_ending
from prefectlite.errors import NotFoundError, UsageError
from prefectlite.records import FlowRun, LogLine, LogQuery, TaskRun
from prefectlite.registry import Registry
from prefectlite.run_filters import TaskRunFilter

# Lines are read in pieces of this size: a reader that holds the registry for long stops checkpoints,
# and all lines of a run may not fit into memory.
_LINES_AT_ONCE = 5_000
_CHARACTERS_AT_ONCE = 4_000_000


class Level(StrEnum):
    """The levels of log lines, by name."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def number(self) -> int:
        """The level as ``logging`` counts: 10 for debug, 10 more for each of the next."""
        return 10 * (1 + [*Level].index(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Which log lines to show, and how: the options of every command that does."""

    follow: Annotated[
        bool,
        Option(
            "--follow", "-f", description="Go on until the run has ended, and exit as it ended."
        ),
    ] = False
    level: Annotated[
        Level | None,
        Option(
            "--level", "-l", description="Only lines of this level and above.", ignore_case=True
        ),
    ] = None
    since: Annotated[
        Past | None, Option("--since", description="Only lines of this time or later, or no older.")
    ] = None
    tail: Annotated[
        int | None,
        Option(
            "--tail",
            "-n",
            description="Only the last N lines; with --follow, and what comes after them.",
            metavar="N",
            minimum=1,
        ),
    ] = None
    limit: Annotated[
        int | None,
        Option("--limit", description="Only the first N lines.", metavar="N", minimum=1),
    ] = None
    as_json: Annotated[bool, Option("--json", description="Print one JSON object a line.")] = False

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: It does.
        """
        if self.limit is not None and (self.follow or self.tail is not None):
            other = "--follow" if self.follow else "--tail"
            raise UsageError(
                f"--limit takes the first lines, {other} the last", hint="leave out one of them"
            )

    def query(self) -> LogQuery:
        """Return what to ask the registry for; nothing of how many lines."""
        query = LogQuery()
        if self.level is not None:
            query["least_level"] = self.level.number
        if self.since is not None:
            query["since"] = self.since
        return query


class LogReader:
    """Reads the log lines of a flow run, or some of them, each once.

    Args:
        registry: Where they are.
        flow_run_id: The whole id.
        query: Which of them; nothing of how many.
    """

    def __init__(self, registry: Registry, flow_run_id: str, query: LogQuery) -> None:
        self._registry = registry
        self._flow_run_id = flow_run_id
        self._query = query
        self._after = 0

    def lines(self) -> Iterator[LogLine]:
        """Yield the lines that are on record and were not read before."""
        last = 0
        if self._query.keys() - {"with_subflows"}:
            # What does not match is not looked at again at the next look.
            last = self._registry.last_log_position(
                self._flow_run_id, with_subflows=self._query.get("with_subflows", False)
            )
        while lines := self._read(LogQuery(limit=_LINES_AT_ONCE, characters=_CHARACTERS_AT_ONCE)):
            yield from lines
        self._after = max(self._after, last)

    def last_lines(self, count: int) -> list[LogLine]:
        """Return the last of the lines that are on record and were not read before; forget the others."""
        return self._read(LogQuery(limit=count, is_last=True))

    def _read(self, some: LogQuery) -> list[LogLine]:
        query: LogQuery = {**self._query, **some, "after": self._after}
        lines = self._registry.read_logs(self._flow_run_id, **query)
        if lines:
            self._after = lines[-1].position
        return lines


class Sources:
    """Says whose each log line is; asks the registry for a run's name once."""

    def __init__(self, registry: Registry, flow_run: FlowRun) -> None:
        self._registry = registry
        self._known = {flow_run.id: f"Flow run {flow_run.name!r}"}

    def name(self, line: LogLine) -> str:
        """Return what stands before the dash of a line."""
        if line.logger == "prefectlite.flow_runs":
            return self._name("Flow run", line.flow_run_id)
        if line.logger == "prefectlite.task_runs" and line.task_run_id is not None:
            return self._name("Task run", line.task_run_id)
        return line.logger

    def _name(self, kind: str, id_: str) -> str:
        known = self._known.get(id_)
        if known is None:
            find = (
                self._registry.find_flow_run if kind == "Flow run" else self._registry.find_task_run
            )
            try:
                known = f"{kind} {find(id_).name!r}"
            except NotFoundError:
                known = f"{kind} {id_!r}"
            self._known[id_] = known
        return known


def read_lines(
    registry: Registry, flow_run_id: str, **query: Unpack[LogQuery]
) -> Iterator[LogLine]:
    """Yield the lines of a flow run and its task runs, in the order in which they were recorded."""
    return LogReader(registry, flow_run_id, query).lines()


def show_logs(
    registry: Registry,
    flow_run: FlowRun,
    options: LogOptions,
    query: LogQuery,
    *,
    task_run: TaskRun | None = None,
) -> int:
    """Print the log lines that options and query ask for, and return the exit code.

    With ``--follow``, return when the run has ended.

    Args:
        task_run: Whose end it is, where it is not the flow run's.

    Raises:
        NotFoundError: It was deleted meanwhile, or has no such task run.
        OutputClosedError: Whoever reads them has gone.
    """
    options.check()
    reader = LogReader(registry, flow_run.id, {**options.query(), **query})
    show = _Printer(Sources(registry, flow_run), as_json=options.as_json)
    if options.tail is not None:
        show(reader.last_lines(options.tail))
    if options.follow:
        return _follow(registry, flow_run, task_run, lambda: show(reader.lines()))
    if options.tail is None:
        show(islice(reader.lines(), options.limit))
    if not show.count and query.get("tasks"):
        _check_tasks(registry, flow_run, query)
    return 0


def _follow(
    registry: Registry,
    flow_run: FlowRun,
    task_run: TaskRun | None,
    show: Callable[[], object],
) -> int:
    """Show what there is, again and again until a run has ended; return its exit code."""
    from prefectlite.following import Followed, follow  # most do not follow

    if not flow_run.run_count:
        told = f"flow run {flow_run.name!r} is {flow_run.state.name}"
        console.note(f"{told}; its lines come when it begins")
    followed = Followed(flow_run, task_run)
    for _ in follow(registry, followed):
        show()
        console.flush()
    run = followed.task_run or followed.flow_run
    if run.state.is_completed():
        return 0
    tell_ending(run, run.state)
    return exit_code_of(run.state)


class _Printer:
    """Prints log lines, and counts them."""

    def __init__(self, sources: Sources, *, as_json: bool) -> None:
        self.count = 0
        self._sources = sources
        self._as_json = as_json

    def __call__(self, lines: Iterable[LogLine]) -> None:
        for line in lines:
            self.count += 1
            if self._as_json:
                console.out_json_line(line.dict())
            else:
                source = self._sources.name(line)
                console.out(console.log_text(line.timestamp, line.level, source, line.message))


def _check_tasks(registry: Registry, flow_run: FlowRun, query: LogQuery) -> None:
    """Refuse words for task runs that mean none of a flow run.

    Raises:
        NotFoundError: One of them does.
    """
    runs = registry.list_run_tree(flow_run.id) if query.get("with_subflows") else [flow_run]
    where = TaskRunFilter(flow_run_ids=[run.id for run in runs])
    task_runs = registry.list_task_runs(where, limit=None)
    for word in query["tasks"]:
        if not any(
            word in (run.task_name, run.name) or run.id.startswith(word.lower())
            for run in task_runs
        ):
            raise NotFoundError(
                f"flow run {flow_run.name!r} has no task run {word!r}",
                hint=f"see: prefectlite task-run ls --flow-run {flow_run.id[:8]}",
            )
