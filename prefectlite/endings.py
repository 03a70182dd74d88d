"""How a command tells what became of a run: in words, and by its exit code.

``cli`` only, by every command that waits for the end of a run. The table of exit codes is in the help
of the program.
"""

from __future__ import annotations

from prefectlite import console
from prefectlite.records import FlowRun, TaskRun
from prefectlite.states import State

_FAILED = 1
#: As of timeout(1).
TIMED_OUT = 124
#: Also that of a run which SIGTERM has ended.
CANCELLED = 143


def exit_code_of(state: State) -> int:
    """Return the exit code of a command that waited for a run, by the run's final state."""
    if state.is_completed():
        return 0
    if state.is_cancelled():
        return CANCELLED
    return TIMED_OUT if state.name == "TimedOut" else _FAILED


def tell_ending(run: FlowRun | TaskRun, state: State) -> None:
    """Say that a run did not complete, why, and where to read more."""
    kind = "flow run" if isinstance(run, FlowRun) else "task run"
    why = f": {state.message}" if state.message else ""
    console.error(
        f"{kind} {run.name!r} is {state.name}{why}",
        hint=f"see: prefectlite {kind.replace(' ', '-')} logs {run.id[:8]}",
    )
