"""Tasks: called one after the other, mapped over threads, and in a registry that is full."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from prefectlite import task
from prefectlite.clock import now
from prefectlite.names import new_id
from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Completed, Running
from tests.benchmarks.bare import in_flow, recorded
from tests.benchmarks.measuring import (
    Benchmark,
    Row,
    Sample,
    Scale,
    Target,
    home,
    in_turns,
    process_output,
)

# What a process that has mapped this many tasks, and holds their futures, takes.
_MEMORY_CODE = """
import sys, psutil
from prefectlite import flow, task

@task
def nothing(number):
    return number

@flow
def mapped(count):
    futures = nothing.map(range(count))
    for future in futures:
        future.result()
    print(psutil.Process().memory_info().rss)

mapped(int(sys.argv[1]))
"""


@task
def nothing(number: int) -> int:
    """Return the number: all that such a call costs is ours."""
    return number


def _call_in_turn(count: int) -> Callable[[], None]:
    def work() -> None:
        for number in range(count):
            nothing(number)

    return work


def _map(count: int) -> Callable[[], None]:
    def work() -> None:
        for future in nothing.map(range(count)):
            future.result()

    return work


def _beside_sqlite(work: Callable[[], None], *, rounds: int) -> tuple[Sample, Sample]:
    """Return the seconds that the work takes in a flow run, and its statements alone."""
    recording = recorded(work)

    def ours() -> float:
        with home():
            return in_flow(work).seconds

    return in_turns(ours, recording.replay, rounds=rounds)


def sequential(scale: Scale) -> list[Row]:
    """Measure a direct call of a task."""
    count = scale.pick(2_000, 500)
    ours, limit = _beside_sqlite(_call_in_turn(count), rounds=scale.rounds)
    targets = (Target(2), Target(100, of_ratio=False))
    return [Row("task, called", "us", *_each(ours, limit, count), targets)]


def mapped(scale: Scale) -> list[Row]:
    """Measure tasks that are mapped over threads."""
    count = scale.pick(10_000, 1_000)
    ours, limit = _beside_sqlite(_map(count), rounds=min(scale.rounds, 5))
    targets = (Target(150, of_ratio=False),)
    return [Row(f"task, {count:,} mapped", "us", *_each(ours, limit, count), targets)]


def memory(scale: Scale) -> list[Row]:
    """Measure what a mapped task weighs: ours the second half of many, the limit the first half."""
    count = scale.pick(10_000, 4_000)
    upper, lower = [], []
    for _ in range(3):
        quarter, half, whole = (
            _resident_bytes(number) for number in (count // 4, count // 2, count)
        )
        upper.append((whole - half) / (count / 2))
        lower.append(max(1.0, (half - quarter) / (count / 4)))
    name = f"memory of a task, {count // 2:,} to {count:,} mapped (limit: the first half)"
    targets = (Target(5_000, of_ratio=False),)
    return [Row(name, "bytes", Sample(tuple(upper)), Sample(tuple(lower)), targets)]


def _resident_bytes(count: int) -> float:
    with home():
        return float(process_output(["-c", _MEMORY_CODE, str(count)]))


def full_registry(scale: Scale) -> list[Row]:
    """Measure a direct call where very many task runs are on record, beside where none are."""
    on_record, count = scale.pick(100_000, 10_000), scale.pick(1_000, 300)
    work = _call_in_turn(count)
    with tempfile.TemporaryDirectory(prefix="prefectlite-benchmark-") as folder:
        with home(Path(folder)):
            _fill(on_record)

        def full() -> float:
            with home(Path(folder)):
                return in_flow(work).seconds

        def empty() -> float:
            with home():
                return in_flow(work).seconds

        ours, limit = in_turns(full, empty, rounds=scale.rounds)
    name = f"task, {on_record:,} on record (limit: none)"
    return [Row(name, "us", *_each(ours, limit, count), (Target(1.3),))]


def _fill(count: int) -> None:
    """Put that many ended task runs on record, of a flow run for each thousand."""
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    for _ in range(0, count, 1_000):
        flow_run = FlowRun(id=new_id(), name="full", flow_name="full", state=Running())
        registry.create_flow_run(flow_run)
        moment = now()
        registry.create_task_runs(
            [
                TaskRun(
                    id=new_id(),
                    name=f"full-{number}",
                    task_name="full",
                    flow_run_id=flow_run.id,
                    state=Completed(),
                    created_at=moment,
                )
                for number in range(1_000)
            ]
        )
        registry.change_state(flow_run, Completed())


def _each(ours: Sample, limit: Sample, count: int) -> tuple[Sample, Sample]:
    """Return microseconds for each of ``count`` calls."""
    return ours.times(1e6 / count), limit.times(1e6 / count)


BENCHMARKS: dict[str, Benchmark] = {
    "task": sequential,
    "mapped": mapped,
    "memory": memory,
    "full-registry": full_registry,
}
