"""See what others do to a run while it goes on: that it is being cancelled, or was resumed.

While a flow runs, the process's watch thread looks at its state on record a few times a second, and at
once when another process pokes it. A run that is Cancelling gets ``CancelInterrupt`` raised in its user
code, and in nothing else; its subflows and tasks end with it. A call that is refused for it waits for
that: there is one path, and the code that cleans up is not interrupted once more, whether for its own
flow, or for one around it. Who waits for the end of a pause is woken. What the registry then says is the
engine's affair; this module must never change a state.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from prefectlite import watches
from prefectlite.clock import monotonic
from prefectlite.context import FlowRunContext, LoopCall, RunContext, current, enclosing
from prefectlite.drivers import Sleep, Steps
from prefectlite.errors import FlowRunNotRunningError, PrefectLiteError
from prefectlite.interruptions import (
    LOOP_GRACE_SECONDS,
    RETRY_SECONDS,
    CancelInterrupt,
    Timer,
    add_source,
    call_at,
    can_be_woken,
    has_terminated,
    ignore_termination_while,
    in_main_thread,
    is_interruptible,
    is_terminating,
    poke_main_thread,
    prepare_main_thread,
    retry_main_thread,
    watch,
)
from prefectlite.options import Kind
from prefectlite.records import FlowRun
from prefectlite.states import Cancelling
from prefectlite.timeouts import REPEAT_SECONDS, InterruptibleThread

if TYPE_CHECKING:
    import asyncio

# How often a call that was refused looks whether the flow's code was interrupted.
_LOOK_SECONDS = 0.01


class Watched:
    """A flow run whose state on record is looked at until ``end``.

    When its code was last interrupted is noted, by whichever way, and says when to do so again; for the
    flows around it and those called in it, too: what interrupts one runs through the others. (Another task
    of an event loop is cancelled on its own.) The watch thread only says when to begin. So neither has to
    wait for the other, and whoever is first, there is no second interruption at once.
    """

    def __init__(self, context: FlowRunContext) -> None:
        self.context = context
        self._ident = threading.get_ident()
        self._task = _task_here()
        self._cancels = 0 if self._task is None else self._task.cancelling()
        self._first_at: float | None = None
        self._timer: Timer | None = None
        self._loop_call: LoopCall | None = None
        self._thread: InterruptibleThread | None = None
        self.is_in_main_thread = in_main_thread()
        if self.is_in_main_thread:
            prepare_main_thread()
        elif context.flow is None or context.flow.kind not in {Kind.ASYNC, Kind.ASYNC_GENERATOR}:
            self._thread = InterruptibleThread(CancelInterrupt, lambda: not context.is_suspended)
        context.is_watched = True
        _watched.append(self)
        watch.start()
        if any(watched.context.holds for watched in _watched.copy()):
            watch.stir()  # for a run that is paused it looks less often

    def end(self) -> None:
        """Look no more; to be called in the thread that made it."""
        self.disarm()
        if self._timer is not None:
            self._timer.cancel()
        self.context.is_watched = False
        _watched.remove(self)
        self._release()  # threads of the user's that are not waited for
        for each in _watched.copy():
            if each.context.is_cancelled and self.is_within(each) and not each.was_interrupted():
                each.interrupt()  # it has waited for this one to clean up

    def disarm(self) -> None:
        """Interrupt no more; in the thread that made it. SIGTERM is still without effect until ``end``."""
        if self._thread is not None:
            self._thread.disarm()

    def hand_on(self) -> None:
        """Note that what ends its code ends that of the cancelled flows around it, where it was interrupted."""
        if self._told_at() is None:
            return  # it is something else
        for each in _watched.copy():
            if each is not self and self.is_within(each) and is_cancelled(each.context):
                each.note_interruption()

    def look(self) -> float:
        """Do what the run's state on record asks for; from the watch thread.

        Returns:
            How many seconds later to look again.
        """
        context = self.context
        if context.is_cancelled:  # it was interrupted, and will be again
            if context.loop_call not in (None, self._loop_call) and not is_terminating():
                self.interrupt()  # it was not awaited before, or elsewhere
            return watches.TICK_SECONDS
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
            self.interrupt()
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

    def interrupt(self) -> None:
        """Have its code interrupted as soon as can be; from any thread."""
        at = monotonic()
        call = self._loop_call = self.context.loop_call
        if call is not None:
            at += LOOP_GRACE_SECONDS  # the exception is for code that blocks its loop
            with suppress(RuntimeError):  # the loop has just been closed
                call[0].call_soon_threadsafe(self._cancel_on_loop, call)
        self._first_at = at
        self._tell_when_due()

    def _tell_when_due(self) -> None:
        if self.is_in_main_thread:
            tell = poke_main_thread
        elif self._thread is not None:
            tell = self._interrupt_thread
        else:
            return  # on another thread's loop an exception could hit other flows, or the loop itself
        timer, self._timer = self._timer, call_at(self._due_at(), tell)
        if timer is not None:
            timer.cancel()

    def _interrupt_thread(self) -> None:
        """Raise the exception in its thread, where it is time, or see when to try again; on the timer thread."""
        thread = self._thread
        if thread is None or not thread.is_open:
            return
        if not self.is_due():  # a flow around it, or inside, was interrupted meanwhile
            self._tell_when_due()
        elif thread.interrupt():
            self.note_interruption()
        else:
            self._timer = call_at(monotonic() + RETRY_SECONDS, self._interrupt_thread)

    def _cancel_on_loop(self, call: LoopCall) -> None:
        """Cancel the flow's own task, where it is awaited; again, if that is not heeded."""
        present = self.context.loop_call
        if self not in _watched or present not in (None, call):
            return
        loop, task = call
        told_at = self._told_at()
        left = 0.0 if told_at is None else told_at + REPEAT_SECONDS - monotonic()
        if present is None:  # between two items of a generator, say
            left = max(left, watches.TICK_SECONDS)
        elif left <= 0:
            self.note_interruption()
            task.cancel()
            self._cancels = task.cancelling()
            left = REPEAT_SECONDS
        elif self.context.interrupted_at is None:  # but another's, which may end before
            left = min(left, watches.TICK_SECONDS)
        loop.call_later(left, self._cancel_on_loop, call)

    def note_interruption(self) -> None:
        """Take down that the flow's code is interrupted now."""
        self.context.interrupted_at = monotonic()
        self._tell_when_due()

    @property
    def is_ending(self) -> bool:
        """Whether its code was interrupted, or is just being in another thread, and its end is waited for."""
        if any(run.has_ended for run in enclosing(self.context.parent)):
            return False
        is_open = self._thread is not None and not self.context.is_suspended
        return (is_open and self._first_at is not None) or self.context.interrupted_at is not None

    def is_due(self) -> bool:
        """Return whether an exception is to be raised in its thread."""
        told_at = self.context.interrupted_at
        at = self._first_at if told_at is None else told_at + REPEAT_SECONDS
        # The second look asks all other flows.
        return at is not None and monotonic() >= at and monotonic() >= self._due_at()

    def _due_at(self) -> float:
        told_at = self._told_at()
        if told_at is None:
            return self._first_at or 0.0
        return told_at + REPEAT_SECONDS + (LOOP_GRACE_SECONDS if self.context.loop_call else 0.0)

    def _told_at(self) -> float | None:
        """Return when its code was last interrupted, for whichever flow; None before."""
        related = [
            each for each in _watched.copy() if self.is_told_with(each) or each.is_within(self)
        ]
        times = [each.context.interrupted_at for each in related]
        return max((at for at in times if at is not None), default=None)

    def was_interrupted(self) -> bool:
        """Return whether the flow's code was interrupted: what it does since is to clean up."""
        around = (each for each in _watched.copy() if self.is_told_with(each))
        return has_terminated() or any(each.context.interrupted_at is not None for each in around)

    def is_within(self, other: Watched) -> bool:
        """Return whether it is the other one, or was called in that, in the same thread and task."""
        is_same = self._ident == other._ident and self._task is other._task
        return is_same and other.context in enclosing(self.context)

    def is_told_with(self, other: Watched) -> bool:
        """Return whether what interrupts the other one's code interrupts its own, inside it.

        In another task of the loop that is what was cancelled since it began, as by ``asyncio.gather``.
        """
        if self._task is None or self._task.cancelling() <= self._cancels:
            return self.is_within(other)
        return self._ident == other._ident and other.context in enclosing(self.context)

    @property
    def is_here(self) -> bool:
        """Whether the flow's code runs in the caller's thread."""
        return self._ident == threading.get_ident()

    @property
    def blocks_loop(self) -> bool:
        """Whether nothing can interrupt the flow while the caller waits: it is on another thread's loop."""
        return not self.is_in_main_thread and self.is_here and self.context.loop_call is not None


_watched: list[Watched] = []


def _task_here() -> asyncio.Task[Any] | None:
    """Return the task of an event loop that this code is in; None where it is in no loop."""
    # Where the module is not there, or another thread is just importing it, there is no loop here.
    current_task = getattr(sys.modules.get("asyncio"), "current_task", None)
    if current_task is None:
        return None
    with suppress(RuntimeError):
        return cast("asyncio.Task[Any] | None", current_task())
    return None


def is_only_flow(context: FlowRunContext) -> bool:
    """Return whether no other flow that was not called in this one goes on in this process."""
    return all(context in enclosing(watched.context) for watched in _watched.copy())


def is_cancelled(context: RunContext | None) -> bool:
    """Return whether a run, or one around it, is being cancelled."""
    return _cancelled_around(context) is not None


def _cancelled_around(context: RunContext | None) -> FlowRunContext | None:
    while context is not None:  # without a generator: each task asks
        if isinstance(context, FlowRunContext) and context.is_cancelled:
            return context
        context = context.parent
    return None


def _look() -> float | None:
    return min((watched.look() for watched in _watched.copy()), default=None)


def refuse_in_cancelled(parent: RunContext) -> Steps[None]:
    """Let nothing begin in a run that is being cancelled, as far as this process knows, or in one inside.

    Raises:
        BaseException: As ``interruption`` says.
    """
    flow = _cancelled_around(parent)
    if flow is not None:
        refusal = FlowRunNotRunningError(flow.flow_run.id, current=Cancelling())
        raise (yield from interruption(refusal))


def interruption(refusal: Exception) -> Steps[BaseException]:
    """Return what is to be raised in code whose call was refused, since its flow run does not go on.

    Where that is being cancelled, this waits for the interruption of the flow's code, which mostly is
    raised in that wait. It is the refusal itself, an ordinary error, where the flow's code was
    interrupted before and cleans up, or where this process does not look after the flow run.
    """
    if not isinstance(refusal, FlowRunNotRunningError) or not refusal.current.is_cancelling():
        return refusal
    id_ = refusal.flow_run_id
    watched = next((each for each in _watched.copy() if each.context.flow_run.id == id_), None)
    if watched is None or not watched.context.is_watched:
        return refusal
    if watched.was_interrupted():
        # Code that goes on and calls a task again and again would hardly ever be found interruptible.
        yield Sleep(_LOOK_SECONDS)
        return refusal
    watch.stir()
    until = monotonic() + (2 * LOOP_GRACE_SECONDS if watched.blocks_loop else REPEAT_SECONDS)
    while not watched.was_interrupted() and monotonic() < until:
        yield Sleep(_LOOK_SECONDS)
    if watched.is_here and not watched.was_interrupted():  # nobody can but this code itself
        watched.context.is_cancelled = True
        watched.note_interruption()
    return CancelInterrupt()


def _due_interruption(frame: FrameType | None) -> BaseException | None:
    due = [each for each in _watched.copy() if each.is_in_main_thread and each.is_due()]
    if not due:
        return None
    inside = [watched for watched in due if _is_inside(watched.context)]
    if not inside or not is_interruptible(frame):
        retry_main_thread()
        return None
    for watched in inside:
        watched.note_interruption()
    return None if is_terminating() else CancelInterrupt()


def _is_inside(context: FlowRunContext) -> bool:
    return any(each is context for each in enclosing(current()))


def _forget_in_child() -> None:
    """Leave it to who waits, in a forked child, to look: its parent's watch thread is not there."""
    for watched in _watched:
        watched.context.is_watched = False


add_source(_due_interruption)
ignore_termination_while(lambda: any(watched.is_ending for watched in _watched.copy()))
watch.on_tick = _look
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
