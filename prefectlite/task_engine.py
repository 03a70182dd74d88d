"""Run tasks: what happens to a task run, in which order, written once.

``task_steps`` is the life of a task run as a generator; ``drivers`` runs it in the way that the
function's kind asks for, ``submission`` has a task runner do it. The engine takes a function and its
options and knows no decorator. A plain call is two short transactions: created and Running, then its
final state.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from prefectlite import logs, prints
from prefectlite.clock import now
from prefectlite.context import (
    FlowRunContext,
    RunContext,
    TaskRunContext,
    check_open,
    current,
    current_tags,
)
from prefectlite.drivers import (
    Call,
    Steps,
    Wait,
    adrive,
    adrive_generator,
    drive,
    drive_generator,
    perform_here,
)
from prefectlite.errors import (
    FlowPauseTimeout,
    FlowRunNotRunningError,
    MissingContextError,
    ParameterTypeError,
    RegistryError,
    ResultNotStoredError,
    StateConflictError,
    UpstreamTaskError,
    UsageError,
)
from prefectlite.holds import hold_while_paused
from prefectlite.inputs import find_futures, resolve
from prefectlite.interruptions import calls_user_code
from prefectlite.latches import aside
from prefectlite.lifecycle import (
    attempts,
    call_hooks,
    finish,
    interrupted_state,
    log_failure,
    made_name,
    take,
    wait_for_inputs,
)
from prefectlite.names import new_id
from prefectlite.options import TaskLike
from prefectlite.outcomes import failed_state, task_state, unsettled
from prefectlite.records import CachedResult, TaskRun
from prefectlite.states import Cancelled, Completed, NotReady, Pending, Running, State
from prefectlite.stops import interruption, refuse_in_cancelled


@dataclass(slots=True, eq=False)
class TaskRequest:
    """One call of a task.

    Attributes:
        wait_for: Runs that must have completed before it starts, beside those in its arguments.
        parent: The run that makes the call.
        task_run: The run that was put on record when it was submitted; None for a direct call.
        cache_key: What ``cache_key_fn`` returned.
        refusal: Why it cannot be run; it is then put on record as Failed.
        final: The state that it ended in, once it has.
    """

    task: TaskLike
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    wait_for: Sequence[object]
    parent: RunContext = field(init=False)
    task_run: TaskRun | None = None
    cache_key: str | None = None
    refusal: Exception | None = None
    final: State | None = None

    def __post_init__(self) -> None:
        parent = current()
        if parent is None:
            raise MissingContextError(
                f"task {self.task.options.name!r} was called outside of a flow",
                hint="call it from a flow, or call the plain function: task.fn(...)",
            )
        self.parent = parent


def run_task(request: TaskRequest) -> State:
    """Run a task in this thread and return its final state.

    Raises:
        BaseException: What interrupted it: a deadline of its flow, Ctrl-C, ``sys.exit``.
    """
    state = drive(task_steps(request), perform_here)
    check_open(request.parent)
    return state


async def arun_task(request: TaskRequest) -> State:
    """Run an async task on the running loop; see ``run_task``."""
    state = await adrive(task_steps(request))
    check_open(request.parent)
    return state


def iterate_task(request: TaskRequest) -> Generator[Any, Any, State]:
    """Run a generator task while its items are taken; see ``run_task``."""
    return drive_generator(task_steps(request))


def aiterate_task(request: TaskRequest) -> AsyncGenerator[Any, Any]:
    """Run an async generator task while its items are taken; it raises what the task raised."""
    return adrive_generator(task_steps(request), State.result)


def new_task_run(request: TaskRequest, state: State) -> TaskRun:
    """Return the record of a run in its first state; it is not on record yet."""
    options, parent = request.task.options, request.parent
    flow = parent.flow_run_context
    moment = state.timestamp
    is_running = state.is_running()
    tags = options.tags | current_tags()
    return TaskRun(
        id=new_id(),
        name=_run_name(request) or f"{options.name}-{flow.next_index(options.name)}",
        task_name=options.name,
        flow_run_id=flow.flow_run.id,
        state=state,
        tags=tuple(sorted(tags)) if tags else (),
        parent_task_run_id=parent.task_run.id if isinstance(parent, TaskRunContext) else None,
        run_count=1 if is_running else 0,
        created_at=moment,
        started_at=moment if is_running else None,
    )


def _run_name(request: TaskRequest) -> str | None:
    """Return the name that ``task_run_name`` gives; None where it gives none yet.

    A template over the result of a future that has not ended is left alone.
    """
    template = request.task.options.task_run_name
    if template is None:
        return None
    parameters: Mapping[str, object] = {}
    try:
        if not callable(template):
            if any(not future.is_done for future in find_futures(request.args, request.kwargs)):
                return None
            from prefectlite.parameters import bind

            args, kwargs = resolve(tuple(request.args)), resolve(dict(request.kwargs))
            parameters = bind(request.task.fn, args, kwargs)
        return made_name("task_run_name", template, parameters)
    except (UpstreamTaskError, ParameterTypeError):
        return None  # the run itself ends by it
    except UsageError as error:
        request.refusal = error
        return None


def task_steps(request: TaskRequest) -> Steps[State]:
    """Yield what a task run needs done, from its creation to its final state."""
    task = request.task
    context = None
    try:
        args, kwargs = yield from wait_for_inputs(request.args, request.kwargs, request.wait_for)
        check_open(request.parent)
        state = None
        if task.options.cache_key_fn:
            state = yield from _found_in_cache(request, args, kwargs)
        context = _context(request)
        if state is None:
            yield from _begin(request, context)
            call = Call(task.fn, args, kwargs, context, task.kind)
            state = yield from _run(request, context, call)
    except UpstreamTaskError as error:
        return (yield from _not_ready(request, error))
    except (FlowRunNotRunningError, FlowPauseTimeout) as error:
        end_unstarted(request, str(error))
        raise (yield from interruption(error)) from None
    except StateConflictError as conflict:
        state = failed_state("Task", conflict)
    except (RegistryError, GeneratorExit):
        raise  # the registry failed, or these steps were dropped: nothing can be recorded
    except Exception as error:  # noqa: BLE001 - of user code beside the task, such as __post_init__
        yield from _put_on_record(request)
        state = failed_state("Task", error)
    except BaseException as error:
        # Where it has waited for the end of a pause, a run may not be on record yet.
        if context is None or request.task_run is None or not context.task_run.run_count:
            end_unstarted(request, "The flow run ended before the task could start.")
        else:
            _finish(request, context, interrupted_state(context, error))
        raise
    return _finish(request, context or _context(request), state)


def _run(request: TaskRequest, context: TaskRunContext, call: Call) -> Steps[State]:
    if request.refusal is not None:
        return failed_state("Task", request.refusal)
    state = yield from attempts(context, request.task.options, lambda: _body(call))
    return _persisted(context, state)


def _body(call: Call) -> Steps[State]:
    if call.context.has_ended:
        # An attempt was abandoned with its thread, and keeps the context that says so.
        context = copy.copy(call.context)
        context.has_ended = False
        call = replace(call, context=context)
    try:
        value = yield call
    except StopIteration as error:  # Python would make a RuntimeError of it, in a generator
        return failed_state("Task", error)
    futures = unsettled(value)
    if futures:
        yield Wait(futures, call.deadline)
    return task_state(value)


def _context(request: TaskRequest) -> TaskRunContext:
    """Return the context of the run; a run that is not on record yet is made, as Running."""
    flow = request.parent.flow_run_context
    own = request.task.options.log_prints
    return TaskRunContext(
        request.task,
        request.task_run or new_task_run(request, Running()),
        flow,
        request.parent,
        log_prints=flow.log_prints if own is None else own,
        cache_key=request.cache_key,
    )


def _begin(request: TaskRequest, context: TaskRunContext) -> Steps[None]:
    """Put the run on record as Running: a new one in one transaction."""
    if context.log_prints:
        prints.capture()
    if request.task_run is None:
        (context.task_run,) = yield from create_task_runs(request.parent, [context.task_run])
        request.task_run = context.task_run
    else:
        yield from refuse_in_cancelled(request.parent)
        take(context, Running())


def create_task_runs(parent: RunContext, task_runs: Sequence[TaskRun]) -> Steps[Sequence[TaskRun]]:
    """Put new runs on record, once their flow run is not paused; return them as they are there."""
    yield from refuse_in_cancelled(parent)
    while True:
        try:
            parent.registry.create_task_runs(task_runs)
        except FlowRunNotRunningError as error:
            if not error.current.is_paused():
                raise (yield from interruption(error)) from None
        else:
            return task_runs
        yield from hold_while_paused(parent)
        moment = now()
        task_runs = [_moved(task_run, moment) for task_run in task_runs]


def _moved(task_run: TaskRun, moment: datetime) -> TaskRun:
    """Return a run that is not on record yet as one that is created at a later moment."""
    return replace(
        task_run,
        state=replace(task_run.state, timestamp=moment),
        created_at=moment,
        started_at=moment if task_run.started_at else None,
    )


def _finish(request: TaskRequest, context: TaskRunContext, state: State) -> State:
    """Put the final state on record, then tell it: to the log, the flow's tally, the hooks."""
    options = request.task.options
    try:
        request.final = state = finish(context, state)
    except RegistryError:  # its code has ended, and the flow's may go on
        context.flow_run_context.may_have_orphans = True
        raise
    _remember(request.task, context, state)
    if isinstance(request.parent, FlowRunContext):
        request.parent.count(state)
    hooks = options.on_completion if state.is_completed() else options.on_failure
    if hooks and (state.is_completed() or state.is_failed()):
        call_hooks(hooks, request.task, context, state)
    return state


def _not_ready(request: TaskRequest, error: UpstreamTaskError) -> Steps[State]:
    """Leave a task run Pending for good: what it rests on did not complete."""
    yield from _put_on_record(request)
    context = _context(request)
    request.final = state = NotReady(str(error), data=error)
    take(context, state)
    logs.record(context, logging.ERROR, f"Not started: {error}")
    if isinstance(request.parent, FlowRunContext):
        request.parent.count(state)
    return state


def _put_on_record(request: TaskRequest) -> Steps[None]:
    """Put a run that was called directly on record as Pending: it is not to start, or not yet."""
    if request.task_run is None:
        task_run = new_task_run(request, Pending())
        (request.task_run,) = yield from create_task_runs(request.parent, [task_run])


def end_unstarted(request: TaskRequest, message: str) -> None:
    """End a run that is on record and never started."""
    if request.task_run is not None:
        _finish(request, _context(request), Cancelled(message))


def _found_in_cache(
    request: TaskRequest, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Steps[State | None]:
    """Return the final state of a run that need not or cannot be run; None where it must be.

    It is Cached where an earlier run with the same key has stored its result, and Failed where
    ``cache_key_fn`` raises.
    """
    from prefectlite.parameters import bind
    from prefectlite.results import load_result

    options = request.task.options
    yield from _put_on_record(request)
    context = _context(request)
    try:
        context.parameters = bind(request.task.fn, args, kwargs)
        request.cache_key = _cache_key(request.task, context)
    except Exception as error:  # noqa: BLE001 - user code raises what it likes
        log_failure(context, error)
        return failed_state("Task", error)
    if request.cache_key is None or options.refresh_cache:
        return None
    found = context.registry.find_cached_result(request.cache_key, at=now())
    if found is None:
        return None
    try:
        with aside():
            return Completed(data=load_result(found.task_run_id), name="Cached")
    except ResultNotStoredError as error:
        logs.record(context, logging.WARNING, f"Not taken from the cache: {error}")
        return None


@calls_user_code
def _cache_key(task: TaskLike, context: TaskRunContext) -> str | None:
    key_of = task.options.cache_key_fn
    if key_of is None:
        return None
    with aside():
        return key_of(context, dict(context.parameters))


def _persisted(context: TaskRunContext, state: State) -> State:
    """Store the result where the options ask for it; a result that cannot be is a failure."""
    options = context.task.options
    wanted = options.persist_result
    if wanted is None:
        wanted = context.cache_key is not None
    if not wanted or not state.is_completed():
        return state
    from prefectlite.results import store_result

    try:
        with aside():
            store_result(context.task_run.id, state.data)
    except ResultNotStoredError as error:
        return failed_state("Task", error)
    return state


def _remember(task: TaskLike, context: TaskRunContext, state: State) -> None:
    """Let later runs with the same cache key find this one's result."""
    if context.cache_key is None or state.name != "Completed":
        return
    if task.options.persist_result is False:
        return
    expiration = task.options.cache_expiration
    context.registry.save_cached_result(
        CachedResult(
            context.cache_key,
            context.task_run.id,
            None if expiration is None else state.timestamp + expiration,
        )
    )
