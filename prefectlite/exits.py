"""How the processes of a launched run ended, and what that means for the run.

``run_folders`` reads it, ``settling`` puts it on record. Nothing here reads, writes or signals.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from prefectlite.clock import duration_text
from prefectlite.records import FlowRun
from prefectlite.states import Cancelled, Crashed, State, TimedOut

_BY_SIGNAL = 128  # a shell adds this to the number of the signal that ended a command
_SIGNAL_MEANINGS = {
    signal.SIGKILL: "for want of memory, perhaps, or by someone's kill -9",
    signal.SIGSEGV: "a fault in C code",
    signal.SIGBUS: "a fault in C code, or a file that was cut while it was mapped",
    signal.SIGABRT: "C code gave up",
    signal.SIGTERM: "someone told it to end",
    signal.SIGINT: "someone told it to end",
    signal.SIGHUP: "its terminal was closed",
    signal.SIGXCPU: "over its limit of processor time",
}
_EXIT_MEANINGS = {
    126: "the command cannot be executed",
    127: "the command was not found",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a run's processes ended.

    Attributes:
        reason: ``ended``, ``terminated``, ``killed``, ``timed_out`` or ``not_started``; ``lost``
            where the supervisor was killed, so that nobody saw it, ``unseen`` where it is not even
            known what that left, and ``restarted`` where all of it is gone with the machine.
        exit_code: The engine's; None where a signal ended it.
        signal: What ended it; None where it exited.
        message: What else is to be said; None for nothing.
        swept: How many processes had outlived the engine and were ended.
        survivors: What could not be ended: PIDs, and when they started in ticks since boot; 0 where
            that is not known.
        lost_output_bytes: How much of its output could not be kept.
    """

    reason: str
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str | None = None
    swept: int = 0
    survivors: tuple[tuple[int, int], ...] = ()
    lost_output_bytes: int = 0


def explained(exit_: Exit) -> str:
    """Return how the engine's process ended, and what that mostly means."""
    number = exit_.signal
    if number is None and exit_.exit_code is None:
        return "in a way that nobody saw"
    how = f"with exit code {exit_.exit_code}" if number is None else f"by signal {number}"
    meaning = _EXIT_MEANINGS.get(exit_.exit_code or 0)
    with suppress(ValueError):  # a signal without a name; or 255, say, which is no signal's code
        which = signal.Signals((exit_.exit_code or 0) - _BY_SIGNAL if number is None else number)
        meaning = _SIGNAL_MEANINGS.get(which)
        if number is None:
            meaning = f"{which.name}: {meaning}" if meaning else which.name
        else:
            how = f"by {which.name}"
    return f"{how} ({meaning})" if meaning else how


def final_state(flow_run: FlowRun, exit_: Exit, hang_message: str | None = None) -> State:
    """Return the state of a run whose processes are gone, and that has not come to a final one.

    Args:
        flow_run: As it is on record.
        exit_: How they ended.
        hang_message: What the engine would have said had it been able to when its flow was over its
            time; None where it was not.
    """
    if flow_run.state.is_cancelling():
        return Cancelled(_cancelled_message(flow_run, exit_))
    if hang_message is not None:
        return TimedOut(f"{hang_message} and did not heed it; it was killed.")
    if exit_.reason == "timed_out":
        return TimedOut(hard_timeout_message(flow_run))
    return Crashed(_crashed_message(flow_run, exit_))


def _crashed_message(flow_run: FlowRun, exit_: Exit) -> str:
    if exit_.reason == "not_started":
        return f"It could not be started: {exit_.message or 'nobody knows why'}"
    if exit_.reason == "lost":
        return "Its supervisor was killed, and its process with it."
    if exit_.reason == "restarted" and exit_.message:
        return exit_.message
    if exit_.reason == "unseen":
        return "Its supervisor was killed; what is left of it cannot be seen from here."
    if flow_run.process is None:
        return f"Its command ended {explained(exit_)}, and had not run the flow."
    return f"Its process ended {explained(exit_)}."


def hard_timeout_message(flow_run: FlowRun) -> str:
    """Return what is said of a run that was over the timeout of its infrastructure."""
    seconds = (flow_run.infrastructure or {}).get("timeout_seconds")
    return f"Flow run exceeded timeout of {seconds} seconds"


def _cancelled_message(flow_run: FlowRun, exit_: Exit) -> str:
    if exit_.reason == "killed":
        return killed_message(flow_run)
    if exit_.reason == "lost":
        return "Killed, as its supervisor was."
    if exit_.reason == "restarted" and exit_.message:
        return exit_.message
    if exit_.reason == "timed_out":
        return "It was over its time while it was being cancelled, and was ended."
    told = "It ended by itself, as it was asked to."
    if exit_.reason == "terminated":
        told = "Terminated: it ended when it was told to."
    if exit_.reason == "not_started":
        told = "It had not been started."
    if exit_.swept:
        told += f" What it had left ({count_text(exit_.swept)}) was ended."
    return told


def killed_message(flow_run: FlowRun, processes: int | None = None) -> str:
    """Return what is said of a run that was cancelled, and killed in the end.

    Args:
        flow_run: As it was while it was Cancelling.
        processes: How many were killed, where that is known.
    """
    counted = "" if processes is None else f" ({count_text(processes)})"
    if flow_run.kill_at is None:
        return f"Killed{counted}."
    grace_seconds = (flow_run.kill_at - flow_run.state.timestamp).total_seconds()
    return f"Killed{counted}: it did not end within {duration_text(max(0.0, grace_seconds))}."


def count_text(processes: int) -> str:
    """Return a number of processes in words."""
    return "1 process" if processes == 1 else f"{processes} processes"
