"""The engine's side of a pause: hold a flow run while it is Paused on record, and no longer.

``pausing`` holds one that has paused itself; the engines and ``submission`` hold one that was paused from
outside, at its next task. All are steps, as ``drivers`` runs them. A hold ends when the run
is in another state, whoever has changed it; at the deadline the run is failed here.
"""

from __future__ import annotations

import logging

from prefectlite import logs
from prefectlite.clock import now
from prefectlite.context import RunContext
from prefectlite.drivers import Sleep, Steps, Wait
from prefectlite.errors import FlowPauseTimeout
from prefectlite.interruptions import watch
from prefectlite.latches import Hold
from prefectlite.pauses import UNRESUMED, fail_overdue, is_unresumed
from prefectlite.records import FlowRun, Pause
from prefectlite.timeouts import Deadline, TimeoutInterrupt

#: How often a paused run looks for what nobody tells it of: whoever resumes it from where its process
#: cannot be reached, such as another container. A hundred of them take a small part of a core.
LOOK_SECONDS = 10.0
# Where nobody in this process looks at the run's state, as in a process of a ProcessPoolTaskRunner.
_UNWATCHED_LOOK_SECONDS = 0.2

_TOLD = "Waits here, since the run is paused. To resume: prefectlite flow-run resume {}"


def hold_while_paused(context: RunContext) -> Steps[FlowRun]:
    """Wait until the flow run is not paused, and return it as it is then.

    Args:
        context: Whose code waits: the flow run itself, or a task run in it.

    Raises:
        FlowPauseTimeout: It has not been resumed in time, and has Failed.
    """
    flow = context.flow_run_context
    flow.flow_run = flow_run = flow.registry.find_flow_run(flow.flow_run.id)
    while flow_run.state.is_paused():
        logs.record(context, logging.WARNING, _TOLD.format(flow_run.id))
        version = flow_run.state_version
        pause = flow.registry.pauses.find_pause(flow_run.id, state_version=version)
        flow_run = yield from hold(context, pause or Pause(state_version=version))
        if flow_run.state.is_running():
            logs.record(context, logging.INFO, "Resumed")
    if is_unresumed(flow_run.state):
        raise FlowPauseTimeout(UNRESUMED)
    return flow_run


def hold(
    context: RunContext, pause: Pause, *, look_seconds: float = LOOK_SECONDS
) -> Steps[FlowRun]:
    """Wait until the flow run has left this pause, and return it as it is then; at the deadline, fail it.

    Args:
        context: As for ``hold_while_paused``.
        pause: What it waits for, as it is on record.
        look_seconds: How often to look for what nobody tells of.
    """
    flow = context.flow_run_context
    while True:
        waiting = Hold(pause.state_version, look_seconds)
        flow.holds.add(waiting)  # first: what is changed from here on is seen
        watch.stir()  # it may look less often than this asks for
        try:
            flow.registry.change_mark()  # raises an error where the registry was deleted
            flow.flow_run = flow_run = flow.registry.find_flow_run(flow.flow_run.id)
            if flow_run.state_version > pause.state_version:
                return flow_run
            left = _seconds_left(pause)
            if left is not None and left <= 0:
                fail_overdue(flow.registry)
            elif flow.is_watched:
                # The deadline is one of the wall clock, which may be set, or go on while the
                # machine sleeps: it is looked at again and again.
                seconds = None if left is None else min(left, look_seconds)
                yield from _wait(waiting, seconds, context)
            else:  # also in a thread that its flow has not waited for
                yield Sleep(min(left or look_seconds, _UNWATCHED_LOOK_SECONDS), context)
        finally:
            flow.holds.discard(waiting)


def _wait(waiting: Hold, seconds: float | None, context: RunContext) -> Steps[None]:
    deadline = None if seconds is None else Deadline.start("Pause", seconds)
    try:
        yield Wait([waiting], deadline, context)
    except TimeoutInterrupt as interruption:
        if deadline is None or interruption.deadline is not deadline:
            raise  # the run's own


def _seconds_left(pause: Pause) -> float | None:
    """Return how long a pause may go on; None for ever."""
    if pause.resume_by is None:
        return None
    return (pause.resume_by - now()).total_seconds()
