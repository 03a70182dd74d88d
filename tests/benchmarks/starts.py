"""Whole processes: a program with a flow, and the commands that people wait for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from prefectlite.clock import now
from prefectlite.names import new_id
from prefectlite.records import FlowRun, LogLine
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Completed, Running
from tests.benchmarks.measuring import (
    SOURCES,
    Benchmark,
    Row,
    Scale,
    Target,
    home,
    in_turns,
    process_seconds,
)

_RUNS = 1_000
_LINES = 1_000
# What pip writes for a console script.
_COMMAND = "import sys; from prefectlite.__main__ import main; sys.exit(main())"
_HELLO = str(SOURCES / "prefectlite" / "examples" / "hello.py")

#: By name: Python's arguments, whether the registry is to hold runs, the ratio to bare Python.
_PROCESSES: dict[str, tuple[Sequence[str], bool, float]] = {
    "python hello.py": ([_HELLO], False, 15),
    "prefectlite --version": (["-c", _COMMAND, "--version"], False, 2),
    f"prefectlite flow-run ls, {_RUNS:,} runs": (["-c", _COMMAND, "flow-run", "ls"], True, 8),
    f"prefectlite flow-run ls -n {_RUNS}": (
        ["-c", _COMMAND, "flow-run", "ls", "-n", str(_RUNS)],
        True,
        8,
    ),
    f"prefectlite flow-run logs, {_LINES:,} lines": (
        ["-c", _COMMAND, "flow-run", "logs", "benchmark-0"],
        True,
        8,
    ),
}


def starts(names: Sequence[str], scale: Scale) -> list[Row]:
    """Measure processes beside one that does nothing."""
    rows = []
    for name in names:
        arguments, is_seeded, target = _PROCESSES[name]
        with ExitStack() as stack:
            stack.enter_context(home())
            if is_seeded:
                _seed()
            ours, limit = in_turns(
                partial(process_seconds, arguments),
                partial(process_seconds, ["-c", "pass"]),
                rounds=scale.pick(21, 7),
            )
        rows.append(Row(name, "ms", ours.times(1e3), limit.times(1e3), (Target(target),)))
    return rows


def _seed() -> None:
    """Put ended flow runs on record; the first has log lines."""
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    for number in range(_RUNS):
        flow_run = FlowRun(
            id=new_id(),
            name=f"benchmark-{number}",
            flow_name="benchmark",
            state=Running(),
            parameters={"number": number},
            started_at=now(),
        )
        registry.create_flow_run(flow_run)
        for line in range(0 if number else _LINES):
            registry.add_log_line(
                LogLine(flow_run.id, None, 20, "prefectlite.flow_runs", f"line {line}", now())
            )
        registry.change_state(flow_run, Completed())
    registry.close()


_HELLO_NAME, _VERSION_NAME, *_SEEDED_NAMES = _PROCESSES
BENCHMARKS: dict[str, Benchmark] = {
    "hello": partial(starts, [_HELLO_NAME]),
    "version": partial(starts, [_VERSION_NAME]),
    "commands": partial(starts, _SEEDED_NAMES),
}
