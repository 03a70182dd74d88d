"""What is on record of a run that is launched, and of one that is to be killed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from prefectlite.records import FlowRun
from prefectlite.states import State
from tests.models.run_model import FINAL, Runs


def set_kill_at(runs: Runs, id_: str, at: datetime) -> None:
    """Let a run that has not ended be killed then, unless it is to be killed earlier."""
    run = runs.records.get(id_)
    if run is not None and run.state.type not in FINAL:
        runs.records[id_] = replace(run, kill_at=min(at, run.kill_at or at))


def record_launch(runs: Runs, seen: FlowRun, pid: str) -> bool:
    """Say what a run runs in, for who has taken it and has not said so; return whether that holds."""
    run = runs.records.get(seen.id)
    is_its = run is not None and seen.launcher is not None and run.launcher == seen.launcher
    if not is_its or run.infrastructure_pid is not None:
        return False
    runs.records[run.id] = replace(run, infrastructure_pid=pid)
    return True


def release(runs: Runs, seen: FlowRun, state: State) -> FlowRun:
    """Let others have a run that was taken: nothing of that stays on record."""
    forgotten = dict.fromkeys(("launcher", "agent_name", "supervisor", "infrastructure_pid"))
    return runs.change(seen, state, **forgotten)
