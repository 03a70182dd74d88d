"""The limit of a registry: SQLite alone, with the very statements that a run of ours executed.

A run is recorded once, with its pragmas and parameters; then the statements are executed again, in
a file of their own and with nothing around them.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from prefectlite import flow
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks.measuring import home

_Statement = tuple[str, Any, bool]


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a run: how long it took, and which statements were executed in it."""

    seconds: float
    first: int
    last: int


class Recording:
    """The statements of a run, in order, and the span of them that is compared."""

    def __init__(self) -> None:
        self.statements: list[_Statement] = []
        self.span = Span(0.0, 0, 0)

    def replay(self) -> float:
        """Execute the statements in a new file; return the seconds that those of the span took."""
        with tempfile.TemporaryDirectory(prefix="prefectlite-benchmark-") as folder:
            path = Path(folder) / "registry.db"
            open_registry(f"sqlite:///{path}").close()  # for the tables
            connection = sqlite3.connect(path, isolation_level=None)
            try:
                calls = [
                    (connection.executemany if is_many else connection.execute, sql, values)
                    for sql, values, is_many in self.statements
                ]
                _execute(calls[: self.span.first])
                started = perf_counter()
                _execute(calls[self.span.first : self.span.last])
                return perf_counter() - started
            finally:
                connection.close()


def in_flow(work: Callable[[], object], recording: Recording | None = None) -> Span:
    """Do the work in a flow run, and return what it took there."""
    statements = recording.statements if recording else []
    spans: list[Span] = []

    @flow(name="benchmark", log_prints=True)
    def benchmark() -> None:
        first, started = len(statements), perf_counter()
        work()
        spans.append(Span(perf_counter() - started, first, len(statements)))

    benchmark()
    return spans[0]


def recorded(work: Callable[[], object]) -> Recording:
    """Record the work, done in a flow run with a registry of its own."""
    with recording() as record, home():
        record.span = in_flow(work, record)
    return record


def recorded_calls(work: Callable[[], object]) -> Recording:
    """Record the work, done in a registry of its own that is open already."""
    with recording() as record, home():
        open_registry(PREFECTLITE_REGISTRY.value())
        first = len(record.statements)
        work()
        record.span = Span(0.0, first, len(record.statements))
    return record


@contextmanager
def recording() -> Iterator[Recording]:
    """Record what every connection that is opened meanwhile executes, then and later."""
    record = Recording()
    note = record.statements.append

    class Recorder(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            note((sql, parameters, False))
            return super().execute(sql, parameters)

        def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
            rows = list(parameters)
            note((sql, rows, True))
            return super().executemany(sql, rows)

    connect = sqlite3.connect
    # Whoever opens the registry finds the module's function, whatever it keeps the connection in.
    sqlite3.connect = lambda *args, **options: connect(*args, **options, factory=Recorder)  # type: ignore[assignment]  # for a while
    try:
        yield record
    finally:
        sqlite3.connect = connect


def _execute(calls: Iterable[tuple[Callable[[str, Any], object], str, Any]]) -> None:
    for call, sql, values in calls:
        call(sql, values)
