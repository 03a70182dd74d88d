"""Many processes that write to one registry at once, as fast as they can.

``python -m tests.benchmarks.writers SECONDS`` is one of them: it says ``ready``, waits for a line
on its standard input, writes, and prints what it saw as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from time import perf_counter

from prefectlite.errors import RegistryError
from prefectlite.names import new_id
from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Completed, Running
from tests.benchmarks.measuring import (
    DEADLINE_SECONDS,
    SOURCES,
    Benchmark,
    Row,
    Sample,
    Scale,
    Target,
    environment,
    home,
)

_PROCESSES = 8


def shared_registry(scale: Scale) -> list[Row]:
    """Measure writes of several processes, and of one alone for comparison."""
    seconds = scale.pick(10, 2)
    with home():
        alone = _write(1, seconds / 4)
        together = _write(_PROCESSES, seconds)
    counts = [float(each["writes"]) for each in together]
    waits = [each["worst_seconds"] * 1e3 for each in together]
    errors = [float(each["errors"]) for each in together]
    name = f"{_PROCESSES} writers for {seconds} s"
    return [
        Row(f"{name}: errors", "", _one(sum(errors)), None, (_at_most(0),)),
        Row(f"{name}: worst wait", "ms", _one(max(waits)), None, (_at_most(250),)),
        Row(
            f"{name}: writes of the slowest (limit: of the fastest)",
            "",
            _one(min(counts)),
            _one(max(counts)),
            (Target(0.5, at_least=True),),
        ),
        Row(
            f"{name}: all their writes (limit: of one alone)",
            "1/s",
            _one(sum(counts) / seconds),
            _one(alone[0]["writes"] / (seconds / 4)),
        ),
    ]


def _one(value: float) -> Sample:
    return Sample((value,))


def _at_most(value: float) -> Target:
    return Target(value, of_ratio=False)


def _write(processes: int, seconds: float) -> list[dict[str, float]]:
    """Let that many processes write at the same time; return what each saw."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.writers", str(seconds)],
            env=environment(),
            cwd=SOURCES,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in started:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise AssertionError("a writer did not start")
    for process in started:
        if process.stdin is not None:
            process.stdin.write("go\n")
            process.stdin.flush()
    return [json.loads(process.communicate(timeout=DEADLINE_SECONDS)[0]) for process in started]


def _be_writer(seconds: float) -> dict[str, float]:
    """Write task runs for so long; return the number of writes and errors, and the worst wait."""
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    flow_run = FlowRun(id=new_id(), name="writer", flow_name="writer", state=Running())
    registry.create_flow_run(flow_run)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    writes = errors = 0
    worst = 0.0
    started = last = perf_counter()
    while last - started < seconds:
        state = Running()
        task_run = TaskRun(
            id=new_id(),
            name="writer-0",
            task_name="writer",
            flow_run_id=flow_run.id,
            state=state,
            created_at=state.timestamp,
            started_at=state.timestamp,
        )
        for write in (
            lambda run=task_run: registry.create_task_runs([run]),
            lambda run=task_run: registry.change_state(run, Completed()),
        ):
            try:
                write()
                writes += 1
            except RegistryError:
                errors += 1
            previous, last = last, perf_counter()
            worst = max(worst, last - previous)
    return {"writes": writes, "errors": errors, "worst_seconds": worst}


BENCHMARKS: dict[str, Benchmark] = {"writers": shared_registry}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(_be_writer(float(sys.argv[1]))) + "\n")
