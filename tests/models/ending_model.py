"""How runs end that do not end by themselves: late, cancelled, with their process, or with time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from prefectlite.records import FlowRun, ProcessIdentity, TaskRun
from prefectlite.states import Cancelled, Cancelling, Crashed, Failed, Scheduled, State
from prefectlite.upkeep_records import Prunable
from tests.models.launch_model import release, set_kill_at
from tests.models.run_model import FINAL, Refused, Runs

_NOT_STARTED = "It had not been started."
_TOO_EARLY = "Its flow run ended before it could start."
IsDead = Callable[[ProcessIdentity | None], bool]


def flow_runs(runs: Runs) -> list[FlowRun]:
    """Return the flow runs, in the order of their creation."""
    return [run for run in runs.records.values() if isinstance(run, FlowRun)]


def task_runs(runs: Runs) -> list[TaskRun]:
    """Return the task runs, in the order of their creation."""
    return [run for run in runs.records.values() if isinstance(run, TaskRun)]


def children(runs: Runs, id_: str) -> list[FlowRun]:
    """Return the subflow runs of a run."""
    return [run for run in flow_runs(runs) if run.parent_flow_run_id == id_]


def tree(runs: Runs, id_: str, depth: int = 0) -> Iterator[tuple[int, FlowRun]]:
    """Yield a run and all the subflow runs below it, with how deep they are."""
    yield depth, runs.records[id_]
    for child in children(runs, id_):
        yield from tree(runs, child.id, depth + 1)


def overdue(runs: Runs, at: datetime) -> list[FlowRun]:
    """Return the paused runs that should have been resumed by then."""
    found = []
    for run in flow_runs(runs):
        pause = runs.pauses[run.id].get(run.state_version)
        if run.state.type == "PAUSED" and pause and pause.resume_by and pause.resume_by <= at:
            found.append(run)
    return found


def fail_overdue(runs: Runs, at: datetime) -> int:
    """Fail these, as of their deadline; return how many they are."""
    found = overdue(runs, at)
    for run in found:
        resume_by = runs.pauses[run.id][run.state_version].resume_by
        failed = Failed("The flow was paused and never resumed.")
        runs.change(run, replace(failed, timestamp=max(resume_by, run.state.timestamp)))
    return len(found)


def cancel(runs: Runs, id_: str, grace_seconds: float) -> FlowRun:
    """Ask for the end of a run, and of the subflow runs below it that other processes run."""
    run = runs.get(id_)
    if run.state.type in FINAL:
        raise Refused("final")
    if run.state.type == "SCHEDULED" and run.process is None and run.launcher is None:
        runs.change(run, Cancelled(_NOT_STARTED))
    else:
        asked = Cancelling()
        set_kill_at(runs, id_, asked.timestamp + timedelta(seconds=grace_seconds))
        if run.state.type != "CANCELLING":
            runs.change(runs.get(id_), asked)
    for _, parent in [*tree(runs, id_)]:
        for child in children(runs, parent.id):
            is_elsewhere = child.process is None or child.process != parent.process
            if is_elsewhere and runs.get(child.id).state.type not in FINAL:
                cancel(runs, child.id, grace_seconds)
    return runs.get(id_)


def settle(runs: Runs, ids: Sequence[str], is_dead: IsDead) -> int:
    """Record what became of runs whose process, or who had taken them, is dead; return how many.

    Args:
        ids: The runs that a process has begun or taken, in the order in which they are looked at.
        is_dead: Whether a process is known to be dead.
    """
    dead = 0
    for run in map(runs.get, ids):
        if run.state.type in FINAL:
            continue
        if run.process is not None and is_dead(run.process):
            kind = Cancelled if run.state.type == "CANCELLING" else Crashed
            process = run.process
            told = f"Its process {process.pid} on {process.hostname} died before it ended."
            _end_inside(runs, run.id, kind(told), is_dead)
            runs.change(run, kind(told))
        elif run.process is None and run.infrastructure_pid is None and is_dead(run.launcher):
            _let_go(runs, run)
        else:
            continue
        dead += 1
    return dead


def _end_inside(runs: Runs, id_: str, state: State, is_dead: IsDead) -> None:
    """End the task runs of a run, and its subflow runs that no living process runs."""
    for run in [*runs.records.values()]:
        is_inside = id_ in {
            getattr(run, "flow_run_id", None),
            getattr(run, "parent_flow_run_id", None),
        }
        process = getattr(run, "process", None)
        is_left = run.state.type in f"{FINAL} CANCELLING"
        is_left = is_left or (isinstance(run, TaskRun) and run.state.name == "NotReady")
        if is_inside and not is_left and (process is None or is_dead(process)):
            _end_inside(runs, run.id, state, is_dead)
            runs.change(run, state if run.run_count else Cancelled(_TOO_EARLY))


def _let_go(runs: Runs, run: FlowRun) -> None:
    """Let others have a run that was taken, and not launched, by a process that is dead."""
    if run.state.type == "CANCELLING":
        runs.change(run, Cancelled(_NOT_STARTED))
    elif run.work_queue is None:
        runs.change(run, Crashed("What was to start it died before it did."))
    else:
        told = "The agent that had taken it did not get it started."
        release(runs, run, Scheduled(told))


def prunable(runs: Runs, which: Prunable, matches: Callable[[FlowRun], bool]) -> list[str]:
    """Return the ids of the runs that are not needed: whole trees that have ended, deepest first."""
    tops = [run for run in flow_runs(runs) if run.parent_flow_run_id not in runs.records]
    found = []
    for top in tops:
        newer = [run for run in tops if run.flow_name == top.flow_name and run is not top]
        place = sum(tops.index(run) > tops.index(top) for run in newer)
        below = [*tree(runs, top.id)]
        ends = [run.ended_at or run.state.timestamp for _, run in below]
        has_ended = all(run.state.type in FINAL for _, run in below)
        is_old = which.before is None or max(ends) < which.before
        if place >= which.keep and has_ended and is_old and matches(top):
            order = [*runs.records]
            below.sort(key=lambda one: (-one[0], order.index(one[1].id)))
            found += [run.id for _, run in below]
    return found
