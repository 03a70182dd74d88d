"""What flow runs and task runs have in common: attempts, changes of state, hooks.

The one place from which the engine changes a state: on record first, then logged and told. A final
state that another writer has made impossible (the run is being cancelled, say) is not an error
here: the run takes what is allowed.
"""

from __future__ import annotations

import _thread
import itertools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from prefectlite import logs
from prefectlite.clock import duration_text
from prefectlite.context import FlowRunContext, RunContext, TaskRunContext
from prefectlite.drivers import Sleep, Steps, Wait
from prefectlite.errors import (
    FlowPauseTimeout,
    FlowRunNotRunningError,
    StateConflictError,
    UsageError,
)
from prefectlite.exits import hard_timeout_message
from prefectlite.holds import hold_while_paused
from prefectlite.inputs import find_futures, may_hold_runs, resolve
from prefectlite.interruptions import (
    ClosedByCallerError,
    TerminationSignal,
    acquire,
    calls_user_code,
    forget_termination,
)
from prefectlite.latches import aside
from prefectlite.liveness import own_identity
from prefectlite.options import FlowOptions, Hook, RunName, TaskOptions
from prefectlite.outcomes import (
    TRACEBACK_HEADING,
    crashed_state,
    failed_state,
    timed_out_state,
    user_traceback,
)
from prefectlite.records import FlowRun, ProcessIdentity, TaskRun
from prefectlite.retries import delay_before
from prefectlite.states import (
    AwaitingRetry,
    Cancelled,
    Completed,
    Retrying,
    State,
    TimedOut,
    may_follow,
)
from prefectlite.stops import is_cancelled, is_only_flow
from prefectlite.timeouts import Deadline, TimeoutInterrupt


def wait_for_inputs(
    args: Sequence[Any], kwargs: Mapping[str, Any], wait_for: Sequence[object]
) -> Steps[tuple[Sequence[Any], dict[str, Any]]]:
    """Wait for the runs that a call rests on; return its arguments with their results.

    Raises:
        UpstreamTaskError: One of them did not complete.
    """
    if not wait_for and not may_hold_runs(args, kwargs):
        return args, dict(kwargs)
    futures = [run for run in find_futures(args, kwargs, wait_for) if not run.is_done]
    if futures:
        yield Wait(futures)
    resolve(wait_for)
    return resolve(tuple(args)), resolve(dict(kwargs))


@calls_user_code
def made_name(option: str, template: RunName, parameters: Mapping[str, object]) -> str:
    """Return the run name that a ``flow_run_name`` or ``task_run_name`` gives.

    Args:
        option: Which of the two.

    Raises:
        UsageError: It raises, or gives no text.
    """
    try:
        name: object = template() if callable(template) else template.format(**parameters)
    except Exception as error:
        raise UsageError(
            f"{option} gave no name: {type(error).__name__}: {error}",
            hint="it is a template over the parameters, or a function that takes nothing",
        ) from error
    if not isinstance(name, str) or not name:
        raise UsageError(f"{option} gave {name!r}, which is no name")
    return name


def attempts(
    context: RunContext, options: FlowOptions | TaskOptions, body: Callable[[], Steps[State]]
) -> Steps[State]:
    """Try the body, and again as often as the options say, while its state is a failed one.

    Args:
        body: Makes the steps of one attempt; they return the state that it ends in.

    Returns:
        The state in which the run is to end; it is not taken yet.
    """
    noun = noun_of(context)
    for attempt in itertools.count(1):
        state = yield from _attempt(context, noun, options.timeout_seconds, body())
        if not state.is_failed():
            return state
        if _met_cancellation(state.data, context):
            return interrupted_state(context, state.data)
        log_failure(context, state.data)
        if attempt > options.retries or _met_unresumed(state.data, context):
            return state
        jitter = options.retry_jitter_factor if isinstance(options, TaskOptions) else None
        delay = delay_before(attempt, options.retry_delay_seconds, jitter)
        told = f"Attempt {attempt} of {options.retries + 1} ended in {state}"
        try:
            yield from _take_when_running(context, AwaitingRetry(told))
        except (StateConflictError, FlowPauseTimeout):  # it is being cancelled, or over
            return state
        logs.record(context, logging.INFO, f"{told}; the next is due in {duration_text(delay)}")
        context.deadline = None
        if delay:
            yield Sleep(delay, context)
        take(context, Retrying())
    raise AssertionError("unreachable")


def _met_cancellation(error: object, context: RunContext) -> TypeGuard[BaseException]:
    """Return whether a run ended by what could not start in it, since it is being cancelled."""
    if not isinstance(error, FlowRunNotRunningError) or not error.current.is_cancelling():
        return False
    if isinstance(context, FlowRunContext) and error.flow_run_id == context.flow_run.id:
        context.is_cancelled = True
    return is_cancelled(context)


def _met_unresumed(error: object, context: RunContext) -> bool:
    """Return whether a run has failed because its flow run was not resumed in time, and is over."""
    return (
        isinstance(error, FlowPauseTimeout)
        and context.registry.find_flow_run(context.flow_run.id).state.is_final()
    )


def _attempt(
    context: RunContext, noun: str, timeout_seconds: float | None, body: Steps[State]
) -> Steps[State]:
    deadline = Deadline.start(f"{noun} run", timeout_seconds) if timeout_seconds else None
    context.deadline = deadline
    try:
        state = yield from _guarded(context, deadline, body)
    except ClosedByCallerError:
        state = Completed("The caller took no more of its items.")
    except Exception as error:  # noqa: BLE001 - whatever user code raises is its run's state
        state = failed_state(noun, error)
    except TimeoutInterrupt as interruption:
        deadline = context.deadline
        if deadline is None or not deadline.has_passed():
            raise
        if interruption.deadline not in (None, deadline):
            raise  # it is for a run around this one, and must get there
        return timed_out_state(deadline, interruption)
    deadline = context.deadline  # a process's start does not count: its driver has moved it
    if deadline is not None and deadline.has_passed():
        return timed_out_state(deadline)
    return state


def _guarded(context: RunContext, deadline: Deadline | None, body: Steps[State]) -> Steps[State]:
    """Return the steps of an attempt, such that one which hangs past its deadline is ended."""
    supervisor = _supervisor(context) if deadline is not None else None
    if supervisor is None or deadline is None or not isinstance(context, FlowRunContext):
        return body
    from prefectlite.hangs import (
        ended_if_it_hangs,
    )  # nobody waits for what a supervisor has started

    flow_run = context.flow_run

    def steps() -> Steps[State]:
        with ended_if_it_hangs(flow_run, supervisor, deadline):
            return (yield from body)

    return steps()


def _supervisor(context: RunContext) -> ProcessIdentity | None:
    """Return who owns this process, where the run is why it was started."""
    if isinstance(context, FlowRunContext) and context.parent is None:
        return context.flow_run.supervisor
    return None


def _take_when_running(context: RunContext, state: State) -> Steps[None]:
    """Move the run to a state; a flow run that was paused from outside once it has been resumed."""
    while True:
        if isinstance(context, FlowRunContext) and context.flow_run.state.is_paused():
            yield from hold_while_paused(context)  # by a thread of the user's, or a coroutine
        try:
            take(context, state)
        except StateConflictError as conflict:
            current = conflict.current
            if not isinstance(context, FlowRunContext) or not (
                current.is_paused() or current.is_running()
            ):
                raise
            yield from hold_while_paused(context)
        else:
            return


def take(context: RunContext, state: State) -> None:
    """Move the run to a state.

    Raises:
        StateConflictError: Another writer has moved it meanwhile.
        FlowRunNotRunningError: A task was to start in a flow run that is over.
    """
    if isinstance(context, FlowRunContext):
        context.flow_run = context.registry.change_state(context.flow_run, state)
    else:
        context.task_run = context.registry.change_state(context.task_run, state)


def finish(context: RunContext, state: State) -> State:
    """Move the run to a final state and log it; return the state that it has in the end.

    That is another one where the run was being cancelled, or someone else had ended it. A run that
    is Cancelling stays so where others of its processes are left for its supervisor to end.
    """
    is_cancelling = state.is_cancelled() and is_cancelled(context)
    while True:
        if is_cancelling and state.is_cancelled() and _leaves_others(context):
            logs.record(context, logging.INFO, "It has ended; what it has started is ended now")
            return state
        try:
            take(context, state)
            break
        except StateConflictError:
            _refresh(context)
            current = context.run.state
            if current.is_final():
                # What it raised is known here alone.
                state = replace(current, data=state.data) if current.type == state.type else current
                break
            is_cancelling = current.is_cancelling()
            if is_cancelling:
                state = _after_cancelling(state)
            elif not may_follow(current, state):
                raise
    if is_cancelling and isinstance(context, FlowRunContext) and is_only_flow(context):
        # Who cancels it may have sent one, just before its end; what follows is not the run's. Without
        # this, each such end could end a program that has nothing to do with it: see there for its price.
        forget_termination()
    level = logging.INFO if state.is_completed() else logging.ERROR
    logs.record(context, level, f"Finished in state {state}")
    return state


def _leaves_others(context: RunContext) -> bool:
    """End what else a cancelled flow has started; return whether that is for its supervisor to do."""
    if not isinstance(context, FlowRunContext) or context.parent is not None:
        return False
    from prefectlite.process_trees import end_children, has_descendants

    supervisor = context.flow_run.supervisor
    if supervisor is not None:
        return has_descendants(supervisor)
    if is_only_flow(context):  # else nobody knows whose they are
        end_children(own_identity(), context.began_at)
    return False


def interrupted_state(context: RunContext, error: BaseException) -> State:
    """Return the state of a run that something other than its own code ended."""
    supervisor = _supervisor(context)
    if supervisor is not None and isinstance(error, TerminationSignal):
        from prefectlite.run_folders import RunFolder

        if RunFolder.of(supervisor).is_over_time() and not is_cancelled(context):
            return TimedOut(hard_timeout_message(context.flow_run))
    if is_cancelled(context):
        told = "It ended by itself, as it was asked to."
        if not isinstance(context, FlowRunContext) or not context.is_cancelled:
            told = "Its flow run was cancelled."
        return Cancelled(told)
    return crashed_state(error)


def _after_cancelling(state: State) -> State:
    """Return what a run takes that was to end in ``state`` and is being cancelled."""
    if state.is_cancelled():
        return state
    if not state.is_completed():
        return Cancelled("The run ended by itself while it was being cancelled.", data=state.data)
    told = "It had finished before its cancellation reached it."
    return replace(state, message=f"{state.message} {told}" if state.message else told)


def _refresh(context: RunContext) -> None:
    if isinstance(context, FlowRunContext):
        context.flow_run = context.registry.find_flow_run(context.flow_run.id)
    else:
        context.task_run = context.registry.find_task_run(context.task_run.id)


def log_failure(context: RunContext, error: object) -> None:
    """Log the traceback of what user code raised, once: not again where it passes through."""
    if not isinstance(error, BaseException) or error.__traceback__ is None:
        return
    if getattr(error, _LOGGED, False):
        return
    trace = user_traceback(error)
    logs.record(context, logging.ERROR, f"{TRACEBACK_HEADING}{trace}")
    try:
        setattr(error, _LOGGED, True)
    except AttributeError:  # a class with slots; its traceback is then told twice
        return


_LOGGED = "__prefectlite_logged__"


@calls_user_code
def call_hooks(hooks: Sequence[Hook], owner: object, context: RunContext, state: State) -> None:
    """Call each hook with the flow or task, its run and the state; log what one raises.

    Async hooks are run to their end on a loop of their own, in a thread.
    """
    run: FlowRun | TaskRun = context.run
    for hook in hooks:
        name = getattr(hook, "__name__", repr(hook))
        try:
            with aside():
                outcome = hook(owner, run, state)
                if hasattr(outcome, "__await__"):
                    _run_elsewhere(outcome)
        except Exception as error:  # noqa: BLE001 - a hook's error must not change the run
            trace = user_traceback(error)
            logs.record(context, logging.ERROR, f"Hook {name!r} failed:\n{trace}")


def _run_elsewhere(awaitable: object) -> None:
    # The caller may be inside a running event loop, which cannot be entered again. A daemon: who
    # interrupts the wait for a hook that hangs does not want to wait for it at the program's end.
    errors: list[Exception] = []
    has_ended = _thread.allocate_lock()
    has_ended.acquire()

    async def until_done() -> None:
        await awaitable  # type: ignore[misc] # the caller has looked for __await__

    def run() -> None:
        import asyncio

        try:
            asyncio.run(until_done())
        except Exception as error:  # noqa: BLE001 - it is raised in the caller's thread
            errors.append(error)
        finally:
            has_ended.release()

    threading.Thread(target=run, name="prefectlite-hook", daemon=True).start()
    acquire(has_ended)
    if errors:
        raise errors[0]


def noun_of(context: RunContext) -> str:
    """Return ``Task`` or ``Flow``, as messages about the run begin."""
    return "Task" if isinstance(context, TaskRunContext) else "Flow"
