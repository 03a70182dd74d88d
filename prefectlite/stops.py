"""See what others do to a run while it goes on: that it is being cancelled, or was resumed.

While a flow runs, the process's watch thread looks at its state on record a few times a second, and at
once when another process pokes it. A run that is Cancelling gets ``CancelInterrupt`` raised in its
user code, and in nothing else; its subflows and tasks end with it. Who waits for the end of a pause is
woken. What the registry then says is the engine's affair; this module must never change a state.
"""

from __future__ import annotations

import os
from contextlib import suppress
from types import FrameType

from prefectlite import watches
from prefectlite.clock import monotonic
from prefectlite.context import FlowRunContext, LoopCall, RunContext, current, enclosing
from prefectlite.errors import PrefectLiteError
from prefectlite.interruptions import (
    LOOP_GRACE_SECONDS,
    CancelInterrupt,
    add_source,
    call_at,
    can_be_woken,
    ignore_termination,
    in_main_thread,
    is_interruptible,
    is_terminating,
    poke_main_thread,
    prepare_main_thread,
    retry_main_thread,
    watch,
)
from prefectlite.records import FlowRun
from prefectlite.timeouts import REPEAT_SECONDS, InterruptibleThread


class Watched:
    """A flow run whose state on record is looked at until ``end``."""

    def __init__(self, context: FlowRunContext) -> None:
        self.context = context
        self.next_at: float | None = None
        self._thread: InterruptibleThread | None = None
        if in_main_thread():
            prepare_main_thread()
        else:
            self._thread = InterruptibleThread(CancelInterrupt)
        context.is_watched = True
        _watched.append(self)
        watch.start()
        if any(watched.context.holds for watched in _watched.copy()):
            watch.stir()  # for a run that is paused it looks less often

    def end(self) -> None:
        """Look no more; to be called in the thread that made it."""
        self.disarm()
        self.context.is_watched = False
        _watched.remove(self)
        self._release()  # threads of the user's that are not waited for
        if not any(each.context.is_cancelled for each in _watched):
            ignore_termination(is_ending=False)

    def disarm(self) -> None:
        """Interrupt no more; in the thread that made it. SIGTERM is still ignored until ``end``."""
        if self._thread is not None:
            self._thread.disarm()

    def look(self) -> float:
        """Do what the run's state on record asks for; from the watch thread.

        Returns:
            How many seconds later to look again.
        """
        context = self.context
        if context.is_cancelled:
            return watches.TICK_SECONDS  # it was interrupted, and will be again
        try:
            if context.holds:
                context.registry.change_mark()  # raises an error where the registry was deleted
            flow_run = context.registry.find_flow_run(context.flow_run.id)
        except PrefectLiteError:  # who runs it will find out; here is nobody to be told
            self._release()
            return watches.TICK_SECONDS
        if flow_run.state.is_cancelling() and self in _watched:
            context.is_cancelled = True
            if flow_run.supervisor is not None:
                self._tell_supervisor(flow_run)
        self._release(flow_run)
        if context.is_cancelled and not is_terminating():  # else its code is ending already
            self._interrupt()
        if flow_run.state.is_paused() and can_be_woken():
            return min(
                (hold.look_seconds for hold in context.holds.copy()), default=watches.TICK_SECONDS
            )
        return watches.TICK_SECONDS

    def _tell_supervisor(self, flow_run: FlowRun) -> None:
        """Have the supervisor see to the end, as who asked for it does: that one may have died."""
        from prefectlite.cancellation import Enforcement  # few runs are cancelled

        with suppress(PrefectLiteError):  # the next who looks tells it
            Enforcement(self.context.registry, flow_run.id).advance_alone(flow_run)

    def _release(self, flow_run: FlowRun | None = None) -> None:
        """Wake who waits for the end of a pause that is over; all, to see for themselves, if it is None."""
        holds = self.context.holds
        for hold in holds.copy():
            if flow_run is None or hold.state_version < flow_run.state_version:
                holds.discard(hold)
                hold.settle((flow_run or self.context.flow_run).state)

    def _interrupt(self) -> None:
        at = monotonic()
        call = self.context.loop_call
        if call is not None:
            at += LOOP_GRACE_SECONDS  # the exception is for code that blocks its loop
        if self._thread is None:
            self.next_at = at  # before the loop, which moves it, hears of this
        if call is not None:
            with suppress(RuntimeError):  # the loop has just been closed
                call[0].call_soon_threadsafe(self._cancel_on_loop, call)
        if self._thread is None:
            call_at(at, poke_main_thread)
        elif call is None:  # in another thread's loop it could hit other flows, or the loop itself
            ignore_termination(is_ending=True)
            self._thread.interrupt_at(at)

    def _cancel_on_loop(self, call: LoopCall) -> None:
        """Cancel the flow's own task, where it is still awaited; again, if that is not heeded."""
        if self.context.loop_call != call or self not in _watched:
            return
        ignore_termination(is_ending=True)
        self.next_at = None if self.next_at is None else monotonic() + REPEAT_SECONDS
        loop, task = call
        task.cancel()
        loop.call_later(REPEAT_SECONDS, self._cancel_on_loop, call)


_watched: list[Watched] = []


def is_only_flow(context: FlowRunContext) -> bool:
    """Return whether no other flow that was not called in this one goes on in this process."""
    return all(context in enclosing(watched.context) for watched in _watched.copy())


def is_cancelled(context: RunContext) -> bool:
    """Return whether a run, or one around it, is being cancelled."""
    return any(
        isinstance(each, FlowRunContext) and each.is_cancelled for each in enclosing(context)
    )


def _look() -> float | None:
    return min((watched.look() for watched in _watched.copy()), default=None)


def _due_interruption(frame: FrameType | None) -> BaseException | None:
    moment, is_due = monotonic(), False
    for watched in _watched:
        if watched.next_at is None:
            continue
        if watched.next_at > moment:
            continue
        if _is_inside(watched.context) and is_interruptible(frame):
            watched.next_at = moment + REPEAT_SECONDS
            call_at(watched.next_at, poke_main_thread)
            ignore_termination(is_ending=True)
            return CancelInterrupt()
        is_due = True
    if is_due:
        retry_main_thread()
    return None


def _is_inside(context: FlowRunContext) -> bool:
    return any(each is context for each in enclosing(current()))


def _forget_in_child() -> None:
    """Leave it to who waits, in a forked child, to look: its parent's watch thread is not there."""
    for watched in _watched:
        watched.context.is_watched = False


add_source(_due_interruption)
watch.on_tick = _look
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
