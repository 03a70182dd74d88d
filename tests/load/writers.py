"""Many processes that run flows with tasks in one registry at once, as fast as they can.

``python -m tests.load.writers SECONDS`` is one of them: it says ``ready``, waits for a line on its
standard input, runs flows, and prints what it saw as JSON.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from time import perf_counter

from prefectlite import flow, get_run_logger, task
from prefectlite.logs import show_from
from prefectlite.registry import Registry, open_registry
from prefectlite.run_filters import FlowRunFilter, TaskRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks import writers
from tests.benchmarks.measuring import DEADLINE_SECONDS, environment, home, killed_after
from tests.load.programs import run_command, start_python
from tests.load.trials import Load, Trial

_PROCESSES = 8
_TASKS = 10
_LINES = 3
_WORST_MILLISECONDS = 250


def bare_writers(trial: Trial) -> None:
    """Let processes write task runs, and nothing else; what the benchmarks measure."""
    rows = writers.shared_registry(trial.scale)
    trial.rows += rows
    trial.claim_equal("bare writers: errors", rows[0].ours.median, 0.0)


def flow_writers(trial: Trial) -> None:
    """Let processes run flows with tasks and log lines, and count what is on record."""
    seconds = trial.scale.pick(10, 2)
    name = f"{_PROCESSES} processes that run flows for {seconds} s"
    with home():
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        told, errors = _run(seconds)
        check = run_command("registry", "check")
        flows = [each["flows"] for each in told]
        waits = [each["worst_seconds"] * 1e3 for each in told]
        trial.claim(f"{name}: no error", not errors, errors[-300:])
        trial.claim_equal(f"{name}: flow runs", _flow_runs(registry), sum(flows))
        trial.claim_equal(f"{name}: task runs", _task_runs(registry), sum(flows) * _TASKS)
        trial.claim_equal(f"{name}: log lines", _lines(registry), sum(flows) * _LINES)
        trial.claim(f"{name}: registry check", check.returncode == 0, check.stderr.strip())
    trial.show(f"{name}: worst wait", "ms", max(waits), at_most=_WORST_MILLISECONDS)
    trial.show(f"{name}: slowest (limit: fastest)", "flow runs", min(flows), max(flows))
    trial.show(f"{name}: all of them", "flow runs/s", sum(flows) / seconds)


def _run(seconds: int) -> tuple[Sequence[dict[str, float]], str]:
    """Let them run flows at the same time; return what each saw, and all that they said."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    only_errors = {**environment(), "PREFECTLITE_LOGGING_LEVEL": "ERROR"}
    started = [
        start_python(["-m", "tests.load.writers", str(seconds)], env=only_errors, **pipes)
        for _ in range(_PROCESSES)
    ]
    for process in started:
        with killed_after(process):
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise AssertionError(f"a writer did not start: {process.communicate()[1]}")
    for process in started:
        if process.stdin is not None:
            process.stdin.write("go\n")
            process.stdin.flush()
    ended = [process.communicate(timeout=DEADLINE_SECONDS) for process in started]
    errors = "".join(error for _, error in ended)
    errors += "".join(f"exit code {one.returncode}" for one in started if one.returncode)
    return [json.loads(out) for out, _ in ended if out], errors


def _flow_runs(registry: Registry) -> int:
    return len(registry.list_flow_runs(FlowRunFilter(states=["Completed"]), limit=None))


def _task_runs(registry: Registry) -> int:
    return len(registry.list_task_runs(TaskRunFilter(states=["Completed"]), limit=None))


def _lines(registry: Registry) -> int:
    return registry.upkeep.contents().rows["log_lines"]


@task
def _nothing() -> None:
    """Do nothing: all that such a call costs is ours."""


class _Watch:
    """Notes how long each task call takes; the worst is a wait for the others."""

    worst_seconds = 0.0

    def call(self) -> None:
        started = perf_counter()
        _nothing()
        self.worst_seconds = max(self.worst_seconds, perf_counter() - started)


def _be_writer(seconds: float) -> dict[str, float]:
    """Run flows for so long; return how many, and how long one task call took at worst."""
    show_from(logging.CRITICAL + 1)  # what is then still said is an error
    watch = _Watch()

    @flow
    def writer() -> None:
        for _ in range(_TASKS):
            watch.call()
        for number in range(_LINES):
            get_run_logger().error("line %s", number)

    open_registry(PREFECTLITE_REGISTRY.value())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    flows, started = 0, perf_counter()
    while perf_counter() - started < seconds:
        writer()
        flows += 1
    return {"flows": flows, "worst_seconds": watch.worst_seconds}


LOADS: dict[str, Load] = {"bare-writers": bare_writers, "writers": flow_writers}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(_be_writer(float(sys.argv[1]))) + "\n")
