"""From what user code returned or raised to the state that its run takes.

Pure rules: nothing here reads or writes the registry.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeGuard

from prefectlite.clock import now
from prefectlite.errors import CrashedRun, UnfinishedRun
from prefectlite.futures import TaskFuture
from prefectlite.interruptions import TerminationSignal, WorkerDiedError
from prefectlite.states import Completed, Crashed, Failed, State, Tally, TimedOut
from prefectlite.timeouts import Deadline, TimeoutInterrupt

#: What the log line begins with that tells the traceback of a run.
TRACEBACK_HEADING = "Encountered exception during execution:\n"
_PACKAGE = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - pathlib would be a cost at start-up
_EXAMPLES = os.path.join(_PACKAGE, "examples")  # noqa: PTH118 - as above


def task_state(value: object) -> State:
    """Return the final state of a task that returned ``value``.

    A State that it returns is its state; a collection of nothing but states and settled futures
    counts as they ended; anything else is its result.
    """
    return _returned(value) or Completed(data=value)


def flow_state(value: object, tally: Tally) -> State:
    """Return the final state of a flow that returned ``value``.

    As for a task; a flow that returns None stands for all the tasks and subflows that it called.
    """
    if value is None and tally.total:
        return tally.final_state()
    return _returned(value) or Completed(data=value)


def _returned(value: object) -> State | None:
    if isinstance(value, TaskFuture):
        value = value.get_state()
    if isinstance(value, State):
        return _final(value)
    if _are_runs(value):
        states = [item.get_state() if isinstance(item, TaskFuture) else item for item in value]
        tally = Tally()
        for state in states:
            tally.add(state)
        return tally.final_state(states)
    return None


def unsettled(value: object) -> list[TaskFuture[object]]:
    """Return the futures that a run must wait for before its state can be made of ``value``."""
    runs = [value] if isinstance(value, TaskFuture) else value if _are_runs(value) else []
    return [run for run in runs if isinstance(run, TaskFuture) and not run.is_done]


def _are_runs(value: object) -> TypeGuard[Collection[TaskFuture[object] | State]]:
    if not isinstance(value, list | tuple | set) or not value:
        return False
    return all(isinstance(item, TaskFuture | State) for item in value)


def _final(state: State) -> State:
    if state.is_final():
        # It counts from now; when it was made is the affair of the run that it is about.
        return replace(state, timestamp=now())
    message = f"The run returned the state {state}, which is not final."
    return Failed(message, data=state.data or UnfinishedRun(message))


def failed_state(noun: str, error: BaseException) -> State:
    """Return the state of a run whose code raised an error; ``noun`` is ``Flow`` or ``Task``."""
    text = str(error)
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return Failed(f"{noun} run encountered an exception. {told}", data=error)


def timed_out_state(deadline: Deadline, interruption: TimeoutInterrupt | None = None) -> State:
    """Return the state of a run that was over its time.

    Args:
        interruption: What ended it; its traceback says where the time went.
    """
    error = TimeoutError(deadline.message)
    if interruption is not None:
        error = error.with_traceback(interruption.__traceback__)
    return TimedOut(deadline.message, data=error)


def crashed_state(error: BaseException) -> State:
    """Return the state of a run that something other than its own code ended.

    Its data is an ordinary error: who asks for the result must not be interrupted too.
    """
    if isinstance(error, WorkerDiedError):
        message = str(error)
    elif isinstance(error, KeyboardInterrupt):
        message = "Execution was aborted by an interrupt signal (SIGINT)."
    elif isinstance(error, TerminationSignal):
        message = "Execution was aborted by a termination signal (SIGTERM)."
    elif isinstance(error, SystemExit):
        message = f"Execution was aborted by sys.exit({error.code!r})."
    elif isinstance(error, TimeoutInterrupt) and error.deadline is not None:
        message = f"Execution was interrupted: {error.deadline.message}."
    elif isinstance(error, TimeoutInterrupt):
        message = "Execution was interrupted: its flow run had ended."
    elif type(error).__name__ == "CancelledError":
        message = "Execution was cancelled by the event loop."
    else:
        message = f"Execution was aborted by {type(error).__name__}: {error}"
    crash = CrashedRun(message)
    crash.__cause__ = error
    return Crashed(message, data=crash)


def user_traceback(error: BaseException) -> str:
    """Return the traceback of an error without the frames of prefectlite, ending in no newline."""
    import traceback

    report = traceback.TracebackException.from_exception(error, compact=True)
    _keep_user_frames(report)
    return "".join(report.format()).rstrip("\n")


def _keep_user_frames(report: Any) -> None:  # noqa: ANN401 - traceback is imported only here
    report.stack[:] = [frame for frame in report.stack if _is_user_frame(frame.filename)]
    for link in ("__cause__", "__context__"):
        part = getattr(report, link)
        if part is None:
            continue
        has_frames = bool(part.stack)
        _keep_user_frames(part)
        if has_frames and not part.stack:  # only why an error of ours was raised: of SQLite, say
            setattr(report, link, part.__cause__ or part.__context__)


def _is_user_frame(path: str) -> bool:
    return not path.startswith(_PACKAGE) or path.startswith(_EXAMPLES)
