"""Flows that do nothing: what is left is their durable commits."""

from __future__ import annotations

from time import perf_counter

from prefectlite import flow
from tests.benchmarks.bare import recorded_calls
from tests.benchmarks.measuring import Benchmark, Row, Scale, Target, home, in_turns


@flow
def empty() -> None:
    """Do nothing."""


def empty_flow(scale: Scale) -> list[Row]:
    """Measure a flow run with nothing in it."""
    count = scale.pick(100, 20)

    def work() -> None:
        for _ in range(count):
            empty()

    recording = recorded_calls(work)

    def ours() -> float:
        with home():
            empty()  # opens the registry
            started = perf_counter()
            work()
            return perf_counter() - started

    seconds, limit = in_turns(ours, recording.replay, rounds=scale.rounds)
    each = 1e6 / count
    targets = (Target(1.5), Target(1_000, of_ratio=False))
    return [Row("flow, empty", "us", seconds.times(each), limit.times(each), targets)]


BENCHMARKS: dict[str, Benchmark] = {"empty-flow": empty_flow}
