"""Submit task runs: put them on record as Pending, and have them run elsewhere.

A sync task goes to the flow run's task runner, an async one that is submitted on an event loop to
that loop. Either starts when the runs that it rests on have ended. What then happens to it is
``task_engine``'s affair; this module must never change a state itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from prefectlite.context import FlowRunContext, check_open
from prefectlite.drivers import Perform, Steps, adrive, drive, perform_here
from prefectlite.futures import AsyncTaskFuture, TaskFuture, block_on
from prefectlite.inputs import find_futures, may_hold_runs, resolve, split_for_map
from prefectlite.interruptions import AbandonedError, CancelInterrupt
from prefectlite.latches import when_all_settled
from prefectlite.outcomes import crashed_state
from prefectlite.states import Pending, State
from prefectlite.task_engine import (
    TaskRequest,
    create_task_runs,
    end_unstarted,
    new_task_run,
    task_steps,
)
from prefectlite.timeouts import TimeoutInterrupt

if TYPE_CHECKING:
    from prefectlite.task_runners import TaskRunner

AnyFuture = TypeVar("AnyFuture", TaskFuture[Any], AsyncTaskFuture[Any])

# How many task runs ``map`` puts on record in one transaction: it holds the gate for about 2 ms.
_CREATED_AT_ONCE = 100
# Threads of the user's may submit the first tasks of a flow run at the same moment.
_runner_lock = threading.Lock()


def submit_task(request: TaskRequest) -> TaskFuture[Any]:
    """Put a task run on record as Pending, and have the flow's task runner run it.

    It starts when the runs that it rests on have ended and the runner has room.
    """
    (future,) = drive(_create([request], TaskFuture), perform_here)
    _start_all([(request, future)])
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
        created = drive(_create(group, TaskFuture), perform_here)
        _start_all([*zip(group, created, strict=True)])
        futures += created
    return futures


async def asubmit_task(request: TaskRequest) -> AsyncTaskFuture[Any]:
    """Submit an async task to the running loop; see ``submit_task``."""
    import asyncio

    from prefectlite.task_runners import SequentialTaskRunner

    (future,) = await adrive(_create([request], AsyncTaskFuture))
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
    """A submitted task run and the future that is to be settled with its state.

    It runs with the context variables as they were where it was submitted, in a copy of its own.
    """

    __slots__ = ("_context", "_future", "_request", "_steps")

    def __init__(self, request: TaskRequest, future: TaskFuture[Any]) -> None:
        self._request = request
        self._future = future
        self._context = copy_context()
        self._steps = task_steps(request)

    @property
    def flow_run_id(self) -> str:
        """Of which flow run it is."""
        return self._future.task_run.flow_run_id

    def run(self, perform: Perform, *, error: BaseException | None = None) -> None:
        """Run it to its end in this thread, and settle its future.

        Raises:
            BaseException: What interrupted it, once the future is settled.
            AbandonedError: Another thread goes on with it.
        """
        try:
            # A copy, because a thread that was given up on may never leave the first one.
            context = self._context if error is None else self._context.copy()
            context.run(drive, self._steps, perform, error=error)
        except AbandonedError:
            raise
        except BaseException as raised:
            self._settle(raised)
            if not isinstance(raised, Exception):
                raise
        else:
            self._settle(None)

    async def arun(self) -> None:
        """Run it to its end on the running loop, and settle its future."""
        try:
            await adrive(self._steps)
        except BaseException as raised:
            self._settle(raised)
            if not isinstance(raised, Exception | TimeoutInterrupt | CancelInterrupt):
                raise
        else:
            self._settle(None)

    def _settle(self, error: BaseException | None) -> None:
        # Without a final state the registry failed, and the error says how.
        state = self._request.final or crashed_state(error or AssertionError("no state"))
        self._future.settle(state)


def _create(requests: Sequence[TaskRequest], kind: type[AnyFuture]) -> Steps[list[AnyFuture]]:
    """Put task runs of one flow run on record as Pending."""
    parent = requests[0].parent
    flow = parent.flow_run_context
    check_open(parent)
    new = [new_task_run(request, Pending()) for request in requests]
    created = yield from create_task_runs(parent, new)
    futures = []
    for request, task_run in zip(requests, created, strict=True):
        request.task_run = task_run
        futures.append(kind(task_run))
    flow.unfinished.update(futures)
    for future in futures:
        future.add_done_callback(flow.unfinished.discard)
    return futures


def _start_all(pairs: Sequence[tuple[TaskRequest, TaskFuture[Any]]]) -> None:
    """Give task runs to the runner; where that is interrupted, end those it did not get."""
    for position, (request, future) in enumerate(pairs):
        try:
            _start(request, future)
        except BaseException as error:
            for one, its_future in pairs[position:]:
                if not its_future.is_done:
                    end_unstarted(one, "It was interrupted before the task could start.")
                    its_future.settle(one.final or crashed_state(error))
            raise


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
    if flow.task_runner is not None:
        return flow.task_runner
    from prefectlite.task_runners import ConcurrentTaskRunner, TaskRunner

    with _runner_lock:
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
        block_on(future)
    args = [resolve(value) if _is_run(value) else value for value in request.args]
    kwargs = {
        name: resolve(value) if _is_run(value) else value for name, value in request.kwargs.items()
    }
    return args, kwargs
