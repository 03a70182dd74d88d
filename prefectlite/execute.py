"""Run a flow run that was put on record elsewhere: ``python -m prefectlite.execute [FLOW_RUN_ID]``.

What a supervisor starts, in the run's working directory and environment; without an argument the id is
PREFECTLITE_FLOW_RUN_ID. The run is begun only where it is still waiting for that: one that was
cancelled meanwhile is left alone. The exit code says how it ended, as that of ``prefectlite run`` does.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from prefectlite import console, logs
from prefectlite.courier_processes import await_couriers_at_exit
from prefectlite.endings import exit_code_of, tell_ending
from prefectlite.entrypoints import load_flow
from prefectlite.errors import ConflictError, EntrypointError, PrefectLiteError, UsageError
from prefectlite.flow_engine import FlowRequest
from prefectlite.interruptions import TerminationSignal, watch
from prefectlite.liveness import own_identity
from prefectlite.outcomes import user_traceback
from prefectlite.records import FlowRun, LogLine, ProcessIdentity
from prefectlite.registry import Registry, open_registry
from prefectlite.run_folders import RunFolder
from prefectlite.settings import (
    PREFECTLITE_FLOW_RUN_ID,
    PREFECTLITE_FLOW_TIMEOUT,
    PREFECTLITE_REGISTRY,
    PREFECTLITE_RUN_FOLDER,
)
from prefectlite.settling import keep_output
from prefectlite.states import Failed, Pending, State

_ERROR = 40
#: The supervisor's, who sends it at a hard timeout; above those that the C library takes.
_STACK_SIGNAL = signal.SIGRTMIN + 5 if hasattr(signal, "SIGRTMIN") else None


def main(arguments: Sequence[str]) -> int:
    """Run the flow run of this id, and return the exit code."""
    try:
        flow_run_id = arguments[0] if arguments else PREFECTLITE_FLOW_RUN_ID.value()
        if len(arguments) > 1 or not flow_run_id:
            raise UsageError("which flow run?", hint="python -m prefectlite.execute FLOW_RUN_ID")
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        folder = _supervised(registry)
        state = execute(registry, flow_run_id, supervisor=folder.supervisor() if folder else None)
    except PrefectLiteError as error:
        console.error(error)
        return error.exit_code
    except TerminationSignal as interruption:
        return int(interruption.code or 0)
    return exit_code_of(state)


def execute(
    registry: Registry, flow_run_id: str, *, supervisor: ProcessIdentity | None = None
) -> State:
    """Run a flow run that is Scheduled or Pending, here, and return its final state.

    Args:
        registry: Where the run is on record.
        flow_run_id: The run.
        supervisor: Who owns this process; None where nobody does.

    Raises:
        ConflictError: It is neither: it was begun, or has ended.
        StateConflictError: It was cancelled at this moment.
    """
    flow_run = registry.find_flow_run(flow_run_id)
    if not (flow_run.state.is_scheduled() or flow_run.state.is_pending()) or flow_run.run_count:
        raise ConflictError(
            f"flow run {flow_run.name!r} is {flow_run.state.name}; it cannot be begun"
        )
    if supervisor is not None:
        pid = f"{supervisor.hostname}:{supervisor.pid}"
        flow_run = replace(flow_run, supervisor=supervisor, infrastructure_pid=pid)
    try:
        flow = load_flow(flow_run.entrypoint or "", folder=Path.cwd())
    except EntrypointError as error:
        return _not_loaded(registry, flow_run, error)
    timeout_seconds = PREFECTLITE_FLOW_TIMEOUT.value()
    if timeout_seconds is not None:
        PREFECTLITE_FLOW_TIMEOUT.forget()  # flows that this one starts have their own
        flow = flow.with_options(timeout_seconds=timeout_seconds)
    request = FlowRequest(
        flow, (), dict(flow_run.parameters), entrypoint=flow_run.entrypoint, flow_run=flow_run
    )
    try:
        state = flow.run_to_end(request)
    except (Exception, TerminationSignal, KeyboardInterrupt):
        raise
    except BaseException:
        ended = request.flow_run
        if ended is None or not ended.state.is_final():
            raise
        state = ended.state  # sys.exit, say: whatever its code, the run has Crashed
    if not state.is_completed() and request.flow_run is not None and supervisor is None:
        tell_ending(request.flow_run, state)
    return state


def _not_loaded(registry: Registry, flow_run: FlowRun, error: EntrypointError) -> State:
    """Record that there is no flow to run, and why, in the run's log too."""
    told = str(error)
    if error.__cause__ is not None:
        told += f"\n{user_traceback(error.__cause__)}"
    state = Failed(f"Its flow could not be loaded: {error}", data=error)
    flow_run = registry.begin_flow_run(flow_run, Pending(), own_identity())
    registry.add_log_line(
        LogLine(flow_run.id, None, _ERROR, "prefectlite.flow_runs", told, state.timestamp)
    )
    registry.change_state(flow_run, state)
    console.error(error)
    return state


def _supervised(registry: Registry) -> RunFolder | None:
    """Get on with who supervises this process, and return the folder for that; None if nobody does."""
    path = PREFECTLITE_RUN_FOLDER.value()
    if not path:
        return None
    PREFECTLITE_RUN_FOLDER.forget()  # other flows that this one starts are not supervised so
    folder = RunFolder(Path(path))
    logs.mark_lines()
    await_couriers_at_exit()
    if _STACK_SIGNAL is not None:
        import faulthandler

        faulthandler.register(_STACK_SIGNAL, all_threads=True)
        (folder.path / "stack_ready").touch()
    look = watch.on_tick

    def tick() -> float | None:
        # What is not recorded now is when the run has ended.
        with suppress(PrefectLiteError, OSError):
            keep_output(registry, folder)
        return look()

    watch.on_tick = tick
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
