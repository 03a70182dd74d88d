"""Run tasks: what happens to a task run, in which order, written once.

``_steps`` is the life of a task run as a generator; ``drivers`` runs it in the way that the function's
kind asks for. The engine takes a function and its options and knows no decorator. A plain call is two
short transactions: created and Running, then its final state.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

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
    Perform,
    Steps,
    adrive,
    adrive_generator,
    drive,
    drive_generator,
    perform_here,
)
from prefectlite.errors import (
    FlowRunNotRunningError,
    MissingContextError,
    ResultNotStoredError,
    StateConflictError,
    UpstreamTaskError,
)
from prefectlite.futures import AsyncTaskFuture, TaskFuture, when_all_settled
from prefectlite.inputs import find_futures, may_hold_runs, resolve, split_for_map
from prefectlite.interruptions import AbandonedError, calls_user_code
from prefectlite.lifecycle import attempts, call_hooks, finish, log_failure, take, wait_for_inputs
from prefectlite.names import new_id
from prefectlite.options import TaskLike
from prefectlite.outcomes import crashed_state, failed_state, task_state
from prefectlite.records import CachedResult, TaskRun
from prefectlite.states import Cancelled, Completed, NotReady, Pending, Running, State
from prefectlite.timeouts import TimeoutInterrupt

if TYPE_CHECKING:
    from prefectlite.task_runners import TaskRunner

AnyFuture = TypeVar("AnyFuture", TaskFuture[Any], AsyncTaskFuture[Any])

# How many task runs ``map`` puts on record in one transaction: it holds the gate for about 2 ms.
_CREATED_AT_ONCE = 100


@dataclass(slots=True, eq=False)
class TaskRequest:
    """One call of a task.

    Attributes:
        wait_for: Runs that must have completed before it starts, beside those in its arguments.
        parent: The run that makes the call.
        task_run: The run that was put on record when it was submitted; None for a direct call.
        cache_key: What ``cache_key_fn`` returned.
        final: The state that it ended in, once it has.
    """

    task: TaskLike
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    wait_for: Sequence[object]
    parent: RunContext = field(init=False)
    task_run: TaskRun | None = None
    cache_key: str | None = None
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
    return drive(_steps(request), perform_here)


async def arun_task(request: TaskRequest) -> State:
    """Run an async task on the running loop; see ``run_task``."""
    return await adrive(_steps(request))


def iterate_task(request: TaskRequest) -> Generator[Any, Any, State]:
    """Run a generator task while its items are taken; see ``run_task``."""
    return drive_generator(_steps(request))


def aiterate_task(request: TaskRequest) -> AsyncGenerator[Any, Any]:
    """Run an async generator task while its items are taken; see ``run_task``."""
    return adrive_generator(_steps(request))


def submit_task(request: TaskRequest) -> TaskFuture[Any]:
    """Put a task run on record as Pending, and have the flow's task runner run it.

    It starts when the runs that it rests on have ended and the runner has room.
    """
    (future,) = _create([request], TaskFuture)
    _start(request, future)
    return future


def map_task(request: TaskRequest) -> list[TaskFuture[Any]]:
    """Submit one task run for each item of the iterables among the arguments, in order.

    A future or state that stands for an iterable itself is waited for first.
    """
    args, kwargs = _unfolded(request)
    requests = [
        TaskRequest(request.task, some_args, some_kwargs, request.wait_for)
        for some_args, some_kwargs in split_for_map(args, kwargs)
    ]
    futures: list[TaskFuture[Any]] = []
    for first in range(0, len(requests), _CREATED_AT_ONCE):
        group = requests[first : first + _CREATED_AT_ONCE]
        created = _create(group, TaskFuture)
        for one, future in zip(group, created, strict=True):
            _start(one, future)
        futures += created
    return futures


async def asubmit_task(request: TaskRequest) -> AsyncTaskFuture[Any]:
    """Submit an async task to the running loop; see ``submit_task``."""
    import asyncio

    from prefectlite.task_runners import SequentialTaskRunner

    (future,) = _create([request], AsyncTaskFuture)
    work = TaskWork(request, future)
    if isinstance(_runner(request.parent.flow_run_context), SequentialTaskRunner):
        await work.arun()
        return future
    loop_tasks = request.parent.flow_run_context.loop_tasks
    loop_task = asyncio.ensure_future(work.arun())
    loop_tasks.add(loop_task)
    loop_task.add_done_callback(loop_tasks.discard)
    return future


async def amap_task(request: TaskRequest) -> list[AsyncTaskFuture[Any]]:
    """Submit async tasks to the running loop; see ``map_task``."""
    found = [value for value in (*request.args, *request.kwargs.values()) if _is_run(value)]
    for future in find_futures(found):
        await AsyncTaskFuture.wait(future)  # type: ignore[arg-type] # it waits for any future
    args, kwargs = _unfolded(request)
    return [
        await asubmit_task(TaskRequest(request.task, some_args, some_kwargs, request.wait_for))
        for some_args, some_kwargs in split_for_map(args, kwargs)
    ]


class TaskWork:
    """A submitted task run and the future that is to be settled with its state."""

    __slots__ = ("_future", "_request", "_steps")

    def __init__(self, request: TaskRequest, future: TaskFuture[Any]) -> None:
        self._request = request
        self._future = future
        self._steps = _steps(request)

    def run(self, perform: Perform, *, error: BaseException | None = None) -> None:
        """Run it to its end in this thread, and settle its future. Raises only AbandonedError."""
        try:
            drive(self._steps, perform, error=error)
        except AbandonedError:
            raise
        except BaseException as raised:  # noqa: BLE001 - who waits for the future is told
            self._settle(raised)
        else:
            self._settle(None)

    async def arun(self) -> None:
        """Run it to its end on the running loop, and settle its future."""
        try:
            await adrive(self._steps)
        except BaseException as raised:
            self._settle(raised)
            if not isinstance(raised, Exception | TimeoutInterrupt):
                raise
        else:
            self._settle(None)

    def _settle(self, error: BaseException | None) -> None:
        # Without a final state the registry failed, and the error says how.
        state = self._request.final or crashed_state(error or AssertionError("no state"))
        self._future.settle(state)


def _create(requests: Sequence[TaskRequest], kind: type[AnyFuture]) -> list[AnyFuture]:
    """Put task runs of one flow run on record as Pending."""
    flow = requests[0].parent.flow_run_context
    check_open(requests[0].parent)
    for request in requests:
        request.task_run = _new_task_run(request, Pending())
    flow.registry.create_task_runs([request.task_run for request in requests if request.task_run])
    futures = [kind(request.task_run) for request in requests if request.task_run]
    flow.unfinished.update(futures)
    for future in futures:
        future.add_done_callback(flow.unfinished.discard)
    return futures


def _start(request: TaskRequest, future: TaskFuture[Any]) -> None:
    """Give a task run to the runner, once the runs that it rests on have ended."""
    runner = _runner(request.parent.flow_run_context)
    work = TaskWork(request, future)
    upstream: set[TaskFuture[Any]] = set()
    if request.wait_for or may_hold_runs(request.args, request.kwargs):
        found = find_futures(request.args, request.kwargs, request.wait_for)
        upstream = {run for run in found if not run.is_done}
    # The runner is not asked before: a thread that only waits could keep out what it waits for.
    when_all_settled(upstream, lambda: runner.submit(work))


def _runner(flow: FlowRunContext) -> TaskRunner:
    """Return the runner of a flow run, made at the first use."""
    from prefectlite.task_runners import ConcurrentTaskRunner, TaskRunner

    if flow.task_runner is None:
        chosen = flow.flow.options.task_runner if flow.flow else None
        if isinstance(chosen, type):
            chosen = chosen()
        flow.task_runner = (
            chosen.duplicate() if isinstance(chosen, TaskRunner) else ConcurrentTaskRunner()
        )
    runner: TaskRunner = flow.task_runner
    return runner


def _is_run(value: object) -> bool:
    return isinstance(value, TaskFuture | State)


def _unfolded(request: TaskRequest) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of ``map`` with the result of each that is itself a future or state."""
    values = [value for value in (*request.args, *request.kwargs.values()) if _is_run(value)]
    for future in find_futures(*values):
        TaskFuture.wait(future)
    args = [resolve(value) if _is_run(value) else value for value in request.args]
    kwargs = {
        name: resolve(value) if _is_run(value) else value for name, value in request.kwargs.items()
    }
    return args, kwargs


def _new_task_run(request: TaskRequest, state: State) -> TaskRun:
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
    if callable(template):
        return template()
    if any(not future.is_done for future in find_futures(request.args, request.kwargs)):
        return None
    try:
        args, kwargs = resolve(tuple(request.args)), resolve(dict(request.kwargs))
    except UpstreamTaskError:
        return None
    from prefectlite.parameters import bind

    return template.format(**bind(request.task.fn, args, kwargs))


def _steps(request: TaskRequest) -> Steps[State]:
    """Yield what a task run needs done, from its creation to its final state."""
    task = request.task
    try:
        args, kwargs = yield from wait_for_inputs(request.args, request.kwargs, request.wait_for)
    except UpstreamTaskError as error:
        return _not_ready(request, error)
    context = None
    try:
        check_open(request.parent)
        state = _found_in_cache(request, args, kwargs) if task.options.cache_key_fn else None
        context = _context(request)
        if state is None:
            _begin(request, context)
            call = Call(task.fn, args, kwargs, context, task.kind)
            state = yield from attempts(context, task.options, lambda: _body(call))
            state = _persisted(context, state)
    except FlowRunNotRunningError as error:
        _end_unstarted(request, str(error))
        raise
    except StateConflictError as conflict:
        state = failed_state("Task", conflict)
    except (Exception, GeneratorExit):
        raise  # the registry failed, or these steps were dropped: nothing can be recorded
    except BaseException as error:
        if context is None or not context.task_run.run_count:
            _end_unstarted(request, "The flow run ended before the task could start.")
        else:
            _finish(request, context, crashed_state(error))
        raise
    return _finish(request, context or _context(request), state)


def _body(call: Call) -> Steps[State]:
    return task_state((yield call))


def _context(request: TaskRequest) -> TaskRunContext:
    """Return the context of the run; a run that is not on record yet is made, as Running."""
    flow = request.parent.flow_run_context
    own = request.task.options.log_prints
    return TaskRunContext(
        request.task,
        request.task_run or _new_task_run(request, Running()),
        flow,
        request.parent,
        log_prints=flow.log_prints if own is None else own,
        cache_key=request.cache_key,
    )


def _begin(request: TaskRequest, context: TaskRunContext) -> None:
    """Put the run on record as Running: a new one in one transaction."""
    if context.log_prints:
        prints.capture()
    if request.task_run is None:
        context.registry.create_task_runs([context.task_run])
    else:
        take(context, Running())


def _finish(request: TaskRequest, context: TaskRunContext, state: State) -> State:
    """Put the final state on record, then tell it: to the log, the flow's tally, the hooks."""
    options = request.task.options
    request.final = state = finish(context, state)
    _remember(request.task, context, state)
    if isinstance(request.parent, FlowRunContext):
        request.parent.count(state)
    hooks = options.on_completion if state.is_completed() else options.on_failure
    if hooks and (state.is_completed() or state.is_failed()):
        call_hooks(hooks, request.task, context, state)
    return state


def _not_ready(request: TaskRequest, error: UpstreamTaskError) -> State:
    """Leave a task run Pending for good: what it rests on did not complete."""
    _put_on_record(request)
    context = _context(request)
    request.final = state = NotReady(str(error), data=error)
    take(context, state)
    logs.record(context, logging.ERROR, f"Not started: {error}")
    if isinstance(request.parent, FlowRunContext):
        request.parent.count(state)
    return state


def _put_on_record(request: TaskRequest) -> None:
    """Put a run that was called directly on record as Pending: it is not to start, or not yet."""
    if request.task_run is None:
        task_run = _new_task_run(request, Pending())
        request.parent.registry.create_task_runs([task_run])
        request.task_run = task_run


def _end_unstarted(request: TaskRequest, message: str) -> None:
    """End a run that is on record and never started."""
    if request.task_run is not None:
        _finish(request, _context(request), Cancelled(message))


def _found_in_cache(
    request: TaskRequest, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> State | None:
    """Return the final state of a run that need not or cannot be run; None where it must be.

    It is Cached where an earlier run with the same key has stored its result, and Failed where
    ``cache_key_fn`` raises.
    """
    from prefectlite.parameters import bind
    from prefectlite.results import load_result

    options = request.task.options
    _put_on_record(request)
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
        return Completed(data=load_result(found.task_run_id), name="Cached")
    except ResultNotStoredError as error:
        logs.record(context, logging.WARNING, f"Not taken from the cache: {error}")
        return None


@calls_user_code
def _cache_key(task: TaskLike, context: TaskRunContext) -> str | None:
    key_of = task.options.cache_key_fn
    return None if key_of is None else key_of(context, dict(context.parameters))


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
