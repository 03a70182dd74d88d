"""Cancelling a run of another process: from the command's start to its prompt."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks.measuring import (
    Benchmark,
    Row,
    Sample,
    Scale,
    Target,
    environment,
    home,
    process_seconds,
)

_FLOW = """
import threading
from prefectlite import flow

@flow
def waits():
    print("ready", flush=True)
    {body}

waits(return_state=True)
"""
_HEEDS = "threading.Event().wait()"
_IGNORES = """while True:
        try:
            threading.Event().wait()
        except BaseException:
            pass"""
_COMMAND = "import sys; from prefectlite.__main__ import main; sys.exit(main())"
_GRACE_SECONDS = 1


def cancel(scale: Scale) -> list[Row]:
    """Measure ``flow-run cancel --wait`` for a flow that ends, and for one that must be killed."""
    rounds = scale.pick(9, 3)
    heeds = [_cancel_seconds(_HEEDS, []) for _ in range(rounds)]
    ignores = [
        _cancel_seconds(_IGNORES, ["--grace", str(_GRACE_SECONDS)]) for _ in range(scale.pick(3, 1))
    ]
    return [
        Row(
            "flow-run cancel --wait",
            "ms",
            Sample(tuple(heeds)).times(1e3),
            targets=(Target(300, of_ratio=False),),
        ),
        Row(
            f"flow-run cancel --wait, killed after {_GRACE_SECONDS} s",
            "ms",
            Sample(tuple(ignores)).times(1e3),
            targets=(Target((_GRACE_SECONDS + 1) * 1e3, of_ratio=False),),
        ),
    ]


def _cancel_seconds(body: str, options: Sequence[str]) -> float:
    """Return how long the command takes for a flow in a process of its own."""
    with home():
        program = subprocess.Popen(
            [sys.executable, "-c", _FLOW.format(body=body)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            if program.stdout is None or program.stdout.readline() != b"ready\n":
                raise AssertionError("the flow did not start")
            (flow_run,) = open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs()
            command = ["flow-run", "cancel", flow_run.id, "--wait", *options]
            return process_seconds(["-c", _COMMAND, *command])
        finally:
            program.kill()
            program.communicate()


BENCHMARKS: dict[str, Benchmark] = {"cancel": cancel}
