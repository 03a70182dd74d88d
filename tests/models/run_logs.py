"""The rules for log lines: those of a writer stay in their order, and none is on record too late."""

from __future__ import annotations

from hypothesis import strategies as some

from prefectlite.records import CachedResult, LogLine
from tests.models import ending_model
from tests.models import run_strategies as draws
from tests.models.run_store import WRITERS, SharedRegistry, step

#: What each rule can come to; see ``Counts``.
OUTCOMES = {
    "add_lines": ["done"],
    "flush_logs": ["done"],
    "read_logs": ["some", "none"],
    "add_output": ["done", "no"],
}
_INFO = 20


class LogRules(SharedRegistry):
    """Lines that wait in each of the writers, and lines on record.

    Attributes:
        lines: By writer what it has added, and the number of those that must be on record.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[LogLine]] = [[], [], []]
        self.is_recorded: set[str] = set()
        self.output_bytes: dict[str, int] = {}
        self.cached: dict[str, CachedResult] = {}

    def lines_are_recorded(self, writer: int, *, of: str | None = None) -> None:
        """Note that a writer's lines must be on record: those of a run and its task runs, or all."""
        for line in self.lines[writer]:
            if of in {None, line.flow_run_id, line.task_run_id}:
                self.is_recorded.add(line.message)

    @step(
        needs=lambda self: self.flow_runs(),
        data=some.data(),
        writer=WRITERS,
        levels=some.lists(draws.LEVELS, min_size=1, max_size=4),
    )
    def add_lines(self, data: some.DataObject, writer: int, levels: list[int]) -> None:
        registry = self.turn(writer)
        runs = [(run.id, None) for run in self.flow_runs()]
        runs += [(run.flow_run_id, run.id) for run in ending_model.task_runs(self.model)]
        for level in levels:
            flow_run_id, task_run_id = data.draw(some.sampled_from(runs))
            message = f"{writer}-{len(self.lines[writer]):06}"
            line = LogLine(flow_run_id, task_run_id, level, "test", message, self.clock.moment)
            self.lines[writer].append(line)
            registry.add_log_line(line)
        assert registry.unrecorded_seconds() is not None
        self.counts.reached("add_lines")

    @step(writer=WRITERS)
    def flush_logs(self, writer: int) -> None:
        registry = self.turn(writer)
        registry.flush_logs()
        assert registry.unrecorded_seconds() is None
        self.lines_are_recorded(writer)
        self.counts.reached("flush_logs")

    @step(
        needs=lambda self: self.flow_runs(),
        data=some.data(),
        writer=WRITERS,
        limit=draws.LIMITS,
        least_level=some.just(10) | draws.LEVELS,
        is_last=some.booleans(),
        with_subflows=some.booleans(),
    )
    def read_logs(
        self,
        data: some.DataObject,
        writer: int,
        *,
        limit: int | None,
        least_level: int,
        is_last: bool,
        with_subflows: bool,
    ) -> None:
        registry = self.turn(writer)
        run = data.draw(some.sampled_from(self.flow_runs()))
        inside = {one.id for _, one in ending_model.tree(self.model, run.id)}
        ids = inside if with_subflows else {run.id}
        plain = [line for id_ in sorted(ids) for line in self._lines_of(id_)]
        plain.sort(key=lambda line: line.position)
        position = plain[-1].position if plain else 0
        assert registry.last_log_position(run.id, with_subflows=with_subflows) == position
        tasks = data.draw(some.sampled_from([(), (), (), ("load",), ("save", "abcd")]))
        after = data.draw(some.sampled_from([0, 0, 0, *(line.position for line in plain)]))
        expected = [
            line
            for line in plain
            if line.level >= least_level and line.position > after and self._is_of(line, tasks)
        ]
        found = registry.read_logs(
            run.id,
            with_subflows=with_subflows,
            least_level=least_level,
            after=after,
            limit=limit,
            is_last=is_last,
            tasks=tasks,
        )
        assert found == (expected[-limit:] if limit and is_last else expected[:limit])
        self.counts.reached("read_logs", "some" if expected else "none")

    def _lines_of(self, flow_run_id: str) -> list[LogLine]:
        """Return the lines of one run, compared with what was added."""
        found = self.registries[0].read_logs(flow_run_id)
        assert [line.position for line in found] == sorted({line.position for line in found})
        for writer, lines in enumerate(self.lines):
            added = [line for line in lines if line.flow_run_id == flow_run_id]
            here = [
                line._replace(position=0)
                for line in found
                if line.logger == "test" and line.message.startswith(f"{writer}-")
            ]
            assert here == added[: len(here)]
            late = [line.message for line in added[len(here) :]]
            assert self.is_recorded.isdisjoint(late)
        return found

    def _is_of(self, line: LogLine, words: tuple[str, ...]) -> bool:
        run = self.model.records.get(line.task_run_id or "")
        if not words:
            return True
        return run is not None and any(
            word in {run.task_name, run.name} or run.id.startswith(word) for word in words
        )

    @step(
        needs=lambda self: self.flow_runs(),
        data=some.data(),
        writer=WRITERS,
        start=some.integers(0, 2),
        count=some.integers(1, 2),
    )
    def add_output(self, data: some.DataObject, writer: int, start: int, count: int) -> None:
        registry = self.turn(writer)
        run = data.draw(some.sampled_from(self.flow_runs()))
        place = self.output_bytes.get(run.id, 0)
        assert registry.launches.output_bytes(run.id) == place
        start = place if start else place + 1
        line = LogLine(run.id, None, _INFO, "stdout", "printed", self.clock.moment)
        before = len(registry.read_logs(run.id))
        is_added = registry.launches.add_output(
            [line] * count, flow_run_id=run.id, start=start, end=start + count
        )
        assert is_added is (start == place)
        assert len(registry.read_logs(run.id)) == before + count * is_added
        if is_added:
            self.output_bytes[run.id] = start + count
        self.counts.reached("add_output", "done" if is_added else "no")
