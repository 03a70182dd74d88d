"""Paused flow runs: how soon a resume reaches the flow, and what a hundred that wait cost."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefectlite import resume_flow_run
from prefectlite.registry import Registry, open_registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks.measuring import Benchmark, Row, Sample, Scale, Target, environment, home

_FLOW = """
import time
from prefectlite import flow, pause_flow_run

@flow
def waits():
    pause_flow_run(timeout=600)
    print(time.monotonic_ns(), flush=True)

waits()
"""
_NANOSECONDS = 1e9


def resume(scale: Scale) -> list[Row]:
    """Measure the time from the call of ``resume_flow_run`` to the flow's next line."""
    with home():
        seconds = [_resume_seconds() for _ in range(scale.pick(10, 3))]
    sample = Sample(tuple(seconds)).times(1e3)
    return [
        Row("resume to the flow's next line", "ms", sample, targets=(Target(100, of_ratio=False),))
    ]


def paused(scale: Scale) -> list[Row]:
    """Measure the processor time of flows that are paused, each in a process of its own."""
    number, seconds = scale.pick(100, 4), scale.pick(20, 2)
    with home(), _paused(number) as (_, programs):
        before, began = _used(programs), time.monotonic()
        time.sleep(seconds)
        share = (_used(programs) - before) / (time.monotonic() - began)
    return [
        Row(
            f"{number} paused flow runs, share of a core",
            "%",
            Sample((share * 100,)),
            targets=(Target(1, of_ratio=False),),
        )
    ]


@contextmanager
def _paused(number: int) -> Iterator[tuple[Registry, list[subprocess.Popen[bytes]]]]:
    """Start flows, and yield the registry and their processes once all of them are paused."""
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", _FLOW],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(number)
    ]
    try:
        while True:
            mark = registry.change_mark()
            if len(registry.list_flow_runs(FlowRunFilter(states=["paused"]), limit=None)) == number:
                break
            if not registry.wait_for_change(mark, timeout_seconds=60):
                raise AssertionError("the flows did not pause")
        yield registry, programs
    finally:
        for program in programs:
            program.kill()
            program.communicate()


def _used(programs: list[subprocess.Popen[bytes]]) -> float:
    """Return the seconds that all threads of these processes have been on a processor.

    By the scheduler's count, in nanoseconds (proc_pid_stat(5) counts in hundredths of a second).
    """
    files = [
        file for each in programs for file in Path(f"/proc/{each.pid}/task").glob("*/schedstat")
    ]
    return sum(int(file.read_text(encoding="ascii").split()[0]) for file in files) / _NANOSECONDS


def _resume_seconds() -> float:
    with _paused(1) as (registry, (program,)):
        (flow_run,) = registry.list_flow_runs(FlowRunFilter(states=["paused"]))
        began = time.monotonic_ns()
        resume_flow_run(flow_run.id)
        if program.stdout is None:
            raise AssertionError("it has no stdout")
        return (int(program.stdout.readline()) - began) / _NANOSECONDS


BENCHMARKS: dict[str, Benchmark] = {"resume": resume, "paused": paused}
