"""An agent: how soon it runs what is due, and what it costs while nothing is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from prefectlite.clock import now
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import Registry, open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Scheduled
from prefectlite.waiting import wait_for_flow_run
from tests.benchmarks.measuring import Benchmark, Row, Sample, Scale, Target, environment, home

_FLOW = """
import time
from prefectlite import flow

@flow
def first():
    with open("first_line", "w") as file:
        file.write(str(time.monotonic_ns()))
"""
_DEADLINE_SECONDS = 30


def due(scale: Scale) -> list[Row]:
    """Measure the time from a run's record, due at once, to the first line of its flow."""
    with home() as folder, _agent() as (registry, _):
        (folder / "first.py").write_text(_FLOW, encoding="utf-8")
        seconds = [_first_line_seconds(registry, folder) for _ in range(scale.pick(10, 3))]
    sample = Sample(tuple(seconds[1:])).times(1e3)  # the first compiles what it imports
    return [
        Row("a due run, to its first line", "ms", sample, targets=(Target(500, of_ratio=False),))
    ]


def idle(scale: Scale) -> list[Row]:
    """Measure the processor time and memory of an agent to which nothing happens."""
    seconds = scale.pick(20, 3)
    with home(), _agent() as (_, agent):
        process = psutil.Process(agent.pid)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(seconds)
        used = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        memory = process.memory_info().rss
    return [
        Row(
            "idle agent, share of a core",
            "%",
            Sample((used * 100,)),
            targets=(Target(0.2, of_ratio=False),),
        ),
        Row(
            "idle agent, memory",
            "MB",
            Sample((memory / 1e6,)),
            targets=(Target(40, of_ratio=False),),
        ),
    ]


@contextmanager
def _agent() -> Iterator[tuple[Registry, subprocess.Popen[bytes]]]:
    """Start an agent, and yield the registry and its process once it is at work."""
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    agent = subprocess.Popen(
        [sys.executable, "-m", "prefectlite", "agent", "start"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        mark = registry.change_mark()
        while not registry.deployments.list_agents():
            if not registry.wait_for_change(mark, timeout_seconds=_DEADLINE_SECONDS):
                raise AssertionError("the agent did not start")
            mark = registry.change_mark()
        yield registry, agent
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(_DEADLINE_SECONDS)


def _first_line_seconds(registry: Registry, folder: Path) -> float:
    flow_run = FlowRun(
        id=new_id(),
        name="due",
        flow_name="first",
        state=Scheduled(),
        entrypoint="first.py:first",
        work_queue="default",
        infrastructure={"type": "process", "working_directory": str(folder)},
        scheduled_at=now(),
    )
    began = time.monotonic_ns()
    registry.create_flow_run(flow_run)
    ended = wait_for_flow_run(registry, flow_run.id, timeout_seconds=_DEADLINE_SECONDS)
    if not ended.state.is_completed():
        raise AssertionError(f"the run is {ended.state}")
    reached = int((folder / "first_line").read_text(encoding="ascii"))
    return (reached - began) / 1e9


BENCHMARKS: dict[str, Benchmark] = {"due": due, "idle-agent": idle}
