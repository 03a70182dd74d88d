"""The log lines of a flow run, and whose each of them is, as the commands that show them need it.

``cli`` only.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefectlite.errors import NotFoundError
from prefectlite.records import FlowRun, LogLine
from prefectlite.registry import Registry

# Lines are read in pieces of this size: a reader that holds the registry for long stops checkpoints,
# and all lines of a run may not fit into memory.
_LINES_AT_ONCE = 2_000


class Sources:
    """Says whose each log line is; asks the registry for a task run's name once."""

    def __init__(self, registry: Registry, flow_run: FlowRun) -> None:
        self._registry = registry
        self._flow_run = f"Flow run {flow_run.name!r}"
        self._task_runs: dict[str, str] = {}

    def name(self, line: LogLine) -> str:
        """Return what stands before the dash of a line."""
        if line.logger == "prefectlite.flow_runs":
            return self._flow_run
        if line.logger == "prefectlite.task_runs" and line.task_run_id is not None:
            return self._task_run(line.task_run_id)
        return line.logger

    def _task_run(self, task_run_id: str) -> str:
        known = self._task_runs.get(task_run_id)
        if known is None:
            try:
                known = f"Task run {self._registry.find_task_run(task_run_id).name!r}"
            except NotFoundError:
                known = f"Task run {task_run_id!r}"
            self._task_runs[task_run_id] = known
        return known


def read_lines(registry: Registry, flow_run_id: str) -> Iterator[LogLine]:
    """Yield the lines of a flow run and its task runs, in the order in which they were recorded."""
    after = 0
    while lines := registry.read_logs(flow_run_id, after=after, limit=_LINES_AT_ONCE):
        yield from lines
        after = lines[-1].position
