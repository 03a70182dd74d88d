"""Log lines: what one costs the flow that logs it, and how many a second get on record."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from time import perf_counter

from prefectlite import get_run_logger
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks.bare import Span, in_flow, recorded
from tests.benchmarks.measuring import Benchmark, Row, Sample, Scale, Target, home, in_turns


def _print_lines(count: int) -> Callable[[], None]:
    def work() -> None:
        for number in range(count):
            print("line", number)

    return work


def _log_lines(count: int) -> Callable[[], None]:
    def work() -> None:
        logger = get_run_logger()
        for number in range(count):
            logger.info("line %s", number)

    return work


def _plain_print(count: int) -> float:
    """Return the seconds that Python's print takes, to a file that keeps nothing."""
    with open(os.devnull, "w") as null:  # noqa: PTH123 - not a path of ours
        started = perf_counter()
        for number in range(count):
            print("line", number, file=null, flush=True)
        return perf_counter() - started


def _plain_logging(count: int) -> float:
    """Return the seconds that Python's logging takes, to a file that keeps nothing."""
    with open(os.devnull, "w") as null:  # noqa: PTH123 - not a path of ours
        handler = logging.StreamHandler(null)
        handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)-7s | %(message)s"))
        logger = logging.getLogger("benchmark")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.handlers = [handler]
        started = perf_counter()
        for number in range(count):
            logger.info("line %s", number)
        return perf_counter() - started


def in_flow_thread(scale: Scale) -> list[Row]:
    """Measure what a line costs the code that prints or logs it."""
    count = scale.pick(20_000, 4_000)
    kinds = {
        "line, print (limit: Python's)": (_print_lines(count), _plain_print),
        "line, get_run_logger().info (limit: Python's)": (_log_lines(count), _plain_logging),
    }
    rows = []
    for name, (work, plain) in kinds.items():

        def ours(work: Callable[[], None] = work) -> float:
            with home():
                return in_flow(work).seconds

        def limit(plain: Callable[[int], float] = plain) -> float:
            return plain(count)

        seconds, least = in_turns(ours, limit, rounds=scale.rounds)
        each = 1e6 / count
        targets = (Target(5, of_ratio=False),)
        rows.append(Row(name, "us", seconds.times(each), least.times(each), targets))
    return rows


def on_record(scale: Scale) -> list[Row]:
    """Measure how many lines a second get on record, from the first to the end of the flow."""
    count = scale.pick(20_000, 4_000)
    work = _print_lines(count)
    recording = recorded(work)
    # All of them: the last lines are written when the flow has ended.
    recording.span = Span(0.0, 0, len(recording.statements))

    def ours() -> float:
        with home():
            started = perf_counter()
            in_flow(work)
            seconds = perf_counter() - started
            registry = open_registry(PREFECTLITE_REGISTRY.value())
            (flow_run,) = registry.list_flow_runs()
            found = sum(line.message.startswith("line") for line in registry.read_logs(flow_run.id))
            if found != count:
                raise AssertionError(f"{found} of {count} lines are on record")
            return seconds

    seconds, limit = in_turns(ours, recording.replay, rounds=scale.rounds)
    targets = (Target(100_000, of_ratio=False, at_least=True),)
    return [Row("lines on record", "1/s", _rate(seconds, count), _rate(limit, count), targets)]


def _rate(seconds: Sample, count: int) -> Sample:
    return Sample(tuple(count / value for value in seconds.values))


BENCHMARKS: dict[str, Benchmark] = {"lines": in_flow_thread, "lines-on-record": on_record}
