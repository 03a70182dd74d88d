"""Cancel flow runs: ask for it on record, and see to it that they end.

The one way to cancel, for commands, programs and agents. Asking is a change of state; what follows is
done by whoever is there, and no two disagree: the run's own engine, which sees the request and ends
its code; else, here, signals to its process and at last to everything that descends from it. A run is
Cancelled on record only when that is gone.
"""

from __future__ import annotations

import signal
from datetime import datetime, timedelta

from prefectlite.clock import duration_text, now
from prefectlite.errors import (
    ConflictError,
    InfrastructureError,
    RunFinalError,
    StateConflictError,
)
from prefectlite.liveness import record_dead
from prefectlite.process_trees import end_tree, send
from prefectlite.records import FlowRun, ProcessIdentity
from prefectlite.registry import Registry
from prefectlite.states import Cancelled, Cancelling
from prefectlite.waiting import wait_for_flow_run

#: What a run gets to end by itself, where nobody says otherwise.
DEFAULT_GRACE_SECONDS = 30.0
# A run that reads its record needs no signal; this is long enough for it to have done so.
_HEED_SECONDS = 1.0


def request_cancellation(registry: Registry, flow_run: FlowRun) -> FlowRun:
    """Put on record that a run is to end, and wake it; return it as it then is.

    One that no process has begun is Cancelled at once. Safe to call again.

    Raises:
        RunFinalError: It has ended.
    """
    while not flow_run.state.is_cancelling():
        state = flow_run.state
        if state.is_final():
            raise RunFinalError(
                f"flow run {flow_run.name!r} is {state.name} already; it cannot be cancelled"
            )
        is_begun = flow_run.process is not None or not state.is_scheduled()
        try:
            taken = Cancelling() if is_begun else Cancelled("It had not been started.")
            flow_run = registry.change_state(flow_run, taken)
            break
        except StateConflictError:  # it has just moved on
            flow_run = registry.find_flow_run(flow_run.id)
    return flow_run


def wake(flow_run: FlowRun) -> None:
    """Have the run's own engine look at its record now, where it can be reached from here."""
    if flow_run.process is not None:
        # It does nothing to a process that does not listen for it.
        send(flow_run.process, signal.SIGURG)


def enforce_cancellation(
    registry: Registry, flow_run: FlowRun, *, grace_seconds: float = DEFAULT_GRACE_SECONDS
) -> FlowRun:
    """See to it that a run which is Cancelling ends, and return it as it is then.

    Blocks until it has ended: for the grace period, counted from the request, and a moment more.

    Raises:
        InfrastructureNotAvailable: Its process cannot be signalled from here.
        InfrastructureError: Some of its processes do not die.
        ConflictError: It is a subflow run that does not heed the request: it shares its process with
            others, which must not be killed.
    """
    process = flow_run.process
    if process is None:
        told = "Whether it still ran could not be found out: its process was never recorded."
        return registry.change_state(flow_run, Cancelled(told))
    deadline = flow_run.state.timestamp + timedelta(seconds=grace_seconds)
    flow_run = _wait(registry, flow_run, min(_HEED_SECONDS, _seconds_until(deadline)))
    if flow_run.state.is_final():
        return flow_run
    has_others = _has_others(registry, flow_run, process)
    if not has_others:
        # SIGCONT, because a stopped process handles no signal.
        send(process, signal.SIGTERM, signal.SIGCONT)
    flow_run = _wait(registry, flow_run, _seconds_until(deadline))
    if flow_run.state.is_final():
        return flow_run
    # Looked at again: another flow may have begun there meanwhile.
    if has_others or _has_others(registry, flow_run, process):
        raise ConflictError(
            f"flow run {flow_run.name!r} does not end, and shares its process with others",
            hint="cancel the flow run that called it",
        )
    return _killed(registry, flow_run, process, grace_seconds)


def _killed(
    registry: Registry, flow_run: FlowRun, process: ProcessIdentity, grace_seconds: float
) -> FlowRun:
    swept = end_tree(process)
    if swept.survivors:
        pids = ",".join(map(str, swept.survivors))
        raise InfrastructureError(
            f"these processes of flow run {flow_run.name!r} were killed and do not end: {pids}",
            hint=f"they may wait for a disk or a network: ps -o pid,stat,wchan -p {pids}",
        )
    count = f"{swept.killed} processes" if swept.killed != 1 else "1 process"
    told = f"Killed ({count}): it did not end within {duration_text(grace_seconds)}."
    for run in registry.list_begun_flow_runs():
        if run.process == process:
            record_dead(registry, run, told)
    return registry.find_flow_run(flow_run.id)


def mark_cancelled(registry: Registry, flow_run: FlowRun) -> FlowRun:
    """Put a run that is Cancelling on record as Cancelled, without knowing that it has ended."""
    told = "Marked by hand; whether it still runs is not known."
    return registry.change_state(flow_run, Cancelled(told))


def _has_others(registry: Registry, flow_run: FlowRun, process: ProcessIdentity) -> bool:
    """Return whether the same process has runs that are not to end with this one."""
    runs = {run.id: run for run in registry.list_begun_flow_runs() if run.process == process}
    inside = {flow_run.id}
    while found := {
        id_
        for id_, run in runs.items()
        if id_ not in inside and (run.parent_flow_run_id in inside or run.state.is_cancelling())
    }:
        inside |= found
    return not runs.keys() <= inside


def _wait(registry: Registry, flow_run: FlowRun, seconds: float) -> FlowRun:
    return wait_for_flow_run(registry, flow_run.id, timeout_seconds=max(0.0, seconds))


def _seconds_until(moment: datetime) -> float:
    return max(0.0, (moment - now()).total_seconds())
