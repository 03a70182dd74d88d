"""Very many supervised runs at once: all begin, all can be cancelled, and nothing is left of them."""

from __future__ import annotations

import time
from pathlib import Path

from prefectlite.deployments import run_deployment
from prefectlite.records import FlowRun
from prefectlite.registry import Registry, open_registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks.measuring import DEADLINE_SECONDS, home
from tests.load.programs import (
    agent,
    deploy,
    left_of_runs,
    memory_bytes,
    processor_seconds,
    run_command,
)
from tests.load.trials import Load, Trial, wait_until

_FLOW = """
import signal, threading
from prefectlite import flow

signal.alarm(3600)  # whatever becomes of the load, nothing outlives it for long

@flow
def waits():
    threading.Event().wait()
"""


def launched(trial: Trial) -> None:
    """Have an agent launch runs that do not end, look at them, and cancel all of them."""
    count, seconds = trial.scale.pick(200, 12), trial.scale.pick(20, 2)
    with home() as folder:
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        (folder / "waits.py").write_text(_FLOW, encoding="utf-8")
        deploy(folder / "waits.py", "waits")
        with agent(registry, "--limit", str(count)) as launcher:
            try:
                _begin(trial, registry, count)
                _show_cost(trial, _in_state(registry, "Running"), seconds=seconds)
                _cancel(trial, registry, count)
                _claim_nothing_left(trial, registry, folder, launcher.pid, count)
            finally:  # where something went wrong
                run_command("flow-run", "cancel", "--all", "--wait", "--grace", "1s")
        check = run_command("registry", "check")
        told = check.stderr.strip()
        trial.claim(f"{count} supervised runs: registry check", check.returncode == 0, told)


def _begin(trial: Trial, registry: Registry, count: int) -> None:
    """Make all the runs, and wait until they are Running."""
    name = f"{count} supervised runs"
    began = time.monotonic()
    for _ in range(count):
        run_deployment("waits/load", timeout=0)
    wait_until(
        lambda: len(_in_state(registry, "Running")) == count,
        f"{count} runs Running",
        seconds=DEADLINE_SECONDS,
    )
    trial.show(f"{name}: all Running", "s", time.monotonic() - began)
    listed = run_command("flow-run", "ls", "-s", "running", "-n", str(2 * count), "-q")
    trial.claim_equal(f"{name}: listed Running", len({*listed.stdout.split()}), count)


def _in_state(registry: Registry, name: str) -> list[FlowRun]:
    return registry.list_flow_runs(FlowRunFilter(states=[name]), limit=None)


def _show_cost(trial: Trial, flow_runs: list[FlowRun], *, seconds: float) -> None:
    engines = [run.process.pid for run in flow_runs if run.process]
    supervisors = [run.supervisor.pid for run in flow_runs if run.supervisor]
    name = f"{len(flow_runs)} supervised runs"
    trial.claim_equal(f"{name}: each with a supervisor", len({*supervisors}), len(flow_runs))
    for kind in ("Rss", "Pss"):
        for noun, pids in (("engine", engines), ("supervisor", supervisors)):
            mean = sum(memory_bytes(pid, kind) for pid in pids) / len(pids) / 1e6
            trial.show(f"{name}: {kind} of the {noun} of each", "MB", mean)
    before, began = processor_seconds([*engines, *supervisors]), time.monotonic()
    time.sleep(seconds)
    used = processor_seconds([*engines, *supervisors]) - before
    share = used / (time.monotonic() - began) * 100
    trial.show(f"{name}: all of them, idle, share of a core", "%", share)


def _cancel(trial: Trial, registry: Registry, count: int) -> None:
    name = f"{count} supervised runs"
    began = time.monotonic()
    done = run_command("flow-run", "cancel", "--all", "--wait")
    trial.show(f"{name}: cancel --all --wait", "s", time.monotonic() - began)
    told = done.stderr[-300:] if done.returncode else ""
    trial.claim(f"{name}: cancel --all", done.returncode == 0, told)
    trial.claim_equal(f"{name}: Cancelled", len(_in_state(registry, "Cancelled")), count)
    messages = [run.state.message or "" for run in _in_state(registry, "Cancelled")]
    killed = sum("killed" in message for message in messages)
    trial.claim_equal(f"{name}: had to be killed", killed, 0)


def _claim_nothing_left(
    trial: Trial, registry: Registry, folder: Path, launcher: int, count: int
) -> None:
    """Say whether processes and files of the runs are gone a moment after the record says so."""
    name = f"{count} supervised runs"
    found = left_of_runs(folder, launcher)
    trial.claim(f"{name}: nothing left", not found, f"{len(found)}: {found[:3]}" if found else "")
    living = len(registry.list_begun_flow_runs())
    trial.claim_equal(f"{name}: on record as going on", living, 0)


LOADS: dict[str, Load] = {"launched": launched}
