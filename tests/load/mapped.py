"""Very many mapped tasks of one flow: all of them on record, and what each weighs and takes."""

from __future__ import annotations

import json
import subprocess

from prefectlite.registry import open_registry
from prefectlite.run_filters import TaskRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks import tasks
from tests.benchmarks.measuring import home, killed_after
from tests.load.programs import run_command, start_python
from tests.load.trials import Load, Trial

_FLOW = """
import json, signal, sys
from time import perf_counter
from prefectlite import flow, task
from prefectlite.task_runners import ConcurrentTaskRunner, ProcessPoolTaskRunner

signal.alarm(3600)  # whatever becomes of the load, nothing outlives it for long

@task
def double(number):
    return 2 * number

@flow
def mapped(count):
    started = perf_counter()
    found = [future.result() for future in double.map(range(count))]
    return found == [2 * number for number in range(count)], perf_counter() - started

if __name__ == "__main__":
    runner = {"threads": ConcurrentTaskRunner, "processes": ProcessPoolTaskRunner}[sys.argv[1]]
    print(json.dumps(mapped.with_options(task_runner=runner)(int(sys.argv[2]))))
"""
_TASK_BYTES = 5_000
# Pages of the interpreter and of SQLite come into memory at any time.
_SLACK = 1.5


def weight(trial: Trial) -> None:
    """Measure what a mapped task takes of memory; the second half of many no more than the first."""
    (row,) = tasks.memory(trial.scale)
    trial.rows.append(row)
    first = row.limit.median if row.limit else 0.0
    told = f"{first:,.0f} and {row.ours.median:,.0f} bytes each"
    trial.claim(
        "memory of mapped tasks is linear",
        row.ours.median <= max(first * _SLACK, _TASK_BYTES),
        told,
    )


def mapped(trial: Trial) -> None:
    """Map tasks over threads and over processes, and count what is on record."""
    _map(trial, "threads", trial.scale.pick(10_000, 1_000), at_most=150)
    _map(trial, "processes", trial.scale.pick(10_000, 200), at_most=None)


def _map(trial: Trial, where: str, count: int, *, at_most: float | None) -> None:
    name = f"{count:,} tasks mapped over {where}"
    with home() as folder:
        script = folder / "mapped_flow.py"
        script.write_text(_FLOW, encoding="utf-8")
        process = start_python([str(script), where, str(count)], stdout=subprocess.PIPE)
        with killed_after(process):
            output, _ = process.communicate()
        is_right, seconds = json.loads(output or "[false, 0]")
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        completed = registry.list_task_runs(TaskRunFilter(states=["Completed"]), limit=None)
        check = run_command("registry", "check")
    trial.claim(f"{name}: their results", is_right)
    trial.claim_equal(f"{name}: Completed on record", len(completed), count)
    trial.claim_equal(f"{name}: names", len({run.name for run in completed}), count)
    trial.claim_equal(f"{name}: attempts", sum(run.run_count for run in completed), count)
    trial.claim(f"{name}: registry check", check.returncode == 0, check.stderr.strip())
    trial.show(f"{name}: each", "us", seconds / count * 1e6, at_most=at_most)


LOADS: dict[str, Load] = {"mapped": mapped, "mapped-memory": weight}
