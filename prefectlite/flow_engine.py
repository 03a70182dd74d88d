"""Run flows: what happens to a flow run, in which order, written once.

``_steps`` is the life of a flow run as a generator; ``drivers`` runs it in the way that the function's
kind asks for. The engine takes a function and its options and knows no decorator. A flow run is two
durable transactions: created and Running, then its final state.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefectlite import logs, prints
from prefectlite.context import (
    FlowRunContext,
    RunContext,
    TaskRunContext,
    check_open,
    current,
    current_tags,
    follow_threads,
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
    FlowRunNotRunningError,
    ParameterTypeError,
    ResultNotStoredError,
    StateConflictError,
    UsageError,
)
from prefectlite.holds import hold_while_paused
from prefectlite.interruptions import Signals, is_terminating
from prefectlite.lifecycle import (
    attempts,
    call_hooks,
    finish,
    interrupted_state,
    made_name,
    wait_for_inputs,
)
from prefectlite.liveness import end_orphans, own_identity
from prefectlite.names import new_id, random_run_name
from prefectlite.options import FlowLike, Hook
from prefectlite.outcomes import failed_state, flow_state, unsettled
from prefectlite.parameters import bind, call_arguments, signature_of, to_json_values, validate
from prefectlite.records import FlowRun
from prefectlite.registry import Registry, open_registry
from prefectlite.settings import PREFECTLITE_LOGGING_LOG_PRINTS, PREFECTLITE_REGISTRY
from prefectlite.states import Cancelled, Crashed, Pending, Running, State, StateType, Tally
from prefectlite.stops import Watched, interruption, is_cancelled, refuse_in_cancelled
from prefectlite.timeouts import Deadline, TimeoutInterrupt

# What tasks may take to end when their flow run ends around them.
_ENDING_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class FlowRequest:
    """One call of a flow.

    Attributes:
        name: The flow run's name; None for what ``flow_run_name`` says, or a random one.
        tags: Tags of this run, beside those that ``tags`` has set around the call.
        entrypoint: Where the flow was loaded from, where a command did that.
        flow_run: The run, as of its last change of state; None before it is on record. One that was
            put on record elsewhere is given, and begun.
        signals: The signal handlers around it; only a top one has some.
    """

    flow: FlowLike
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    wait_for: Sequence[object] = ()
    name: str | None = None
    tags: frozenset[str] = frozenset()
    entrypoint: str | None = None
    flow_run: FlowRun | None = None
    signals: Signals | None = None
    parent: RunContext | None = field(init=False)

    def __post_init__(self) -> None:
        self.parent = current()


def run_flow(request: FlowRequest) -> State:
    """Run a flow in this thread and return its final state.

    Raises:
        BaseException: What interrupted it: Ctrl-C, SIGTERM, ``sys.exit``, an outer deadline.
    """
    if request.parent is not None:
        state = drive(_steps(request), perform_here)
        check_open(request.parent)
        return state
    with Signals():
        return drive(_steps(request), perform_here)


async def arun_flow(request: FlowRequest) -> State:
    """Run an async flow on the running loop; see ``run_flow``."""
    if request.parent is not None:
        state = await adrive(_steps(request))
        check_open(request.parent)
        return state
    import asyncio

    loop, this = asyncio.get_running_loop(), asyncio.current_task()

    def deliver() -> None:
        if signals.received is not None and this is not None:  # else it was taken back
            signals.settle()
            this.cancel()

    signals = Signals(lambda: loop.call_soon_threadsafe(deliver))
    with signals as request.signals:
        try:
            return await adrive(_steps(request))
        except asyncio.CancelledError:
            received = signals.received
            if received is None:
                raise
            raise received from None


def iterate_flow(request: FlowRequest) -> Generator[Any, Any, State]:
    """Run a generator flow while its items are taken; see ``run_flow``."""
    return drive_generator(_steps(request))


def aiterate_flow(
    request: FlowRequest, finish: Callable[[State], object] = State.result
) -> AsyncGenerator[Any, Any]:
    """Run an async generator flow while its items are taken; see ``run_flow``.

    Args:
        finish: Called with the final state; if nothing is given, what the flow raised is raised.
    """
    return adrive_generator(_steps(request), finish)


def _steps(request: FlowRequest) -> Steps[State]:
    """Yield what a flow run needs done, from its creation to its final state."""
    _refuse_in_import_of_worker(request.flow)
    options = request.flow.options
    if request.parent is None:
        logs.set_up()
        follow_threads()
    else:
        yield from _hold_until_it_may_begin(request.parent)
    inputs = yield from wait_for_inputs(request.args, request.kwargs, request.wait_for)
    request.args, request.kwargs = inputs
    context, error = _create(request)
    if error is not None:
        return _finish(request, context, failed_state("Flow", error))
    watched = Watched(context)
    try:
        call_hooks(options.on_running, request.flow, context, context.flow_run.state)
        state = yield from attempts(context, options, lambda: _body(request, context))
        state = _persisted(context, state)
    except StateConflictError as conflict:
        state = failed_state("Flow", conflict)
    except (Exception, GeneratorExit):
        raise  # the registry failed, or these steps were dropped: nothing can be recorded
    except BaseException as interruption:
        watched.disarm()  # hooks are user code, too
        received = request.signals.received if request.signals else None
        ended = _finish(request, context, interrupted_state(context, received or interruption))
        if not context.is_cancelled or is_cancelled(context.parent) or is_terminating():
            watched.hand_on()
            raise
        _settle_loop(interruption)
        return ended
    finally:
        watched.end()
        _let_go_of_runner(context)
    return _finish(request, context, state)


def _hold_until_it_may_begin(parent: RunContext) -> Steps[None]:
    """Begin no subflow while its parent is paused, nor once that is being cancelled or has ended."""
    flow_run = yield from hold_while_paused(parent)
    check_open(parent)
    yield from refuse_in_cancelled(parent)
    if flow_run.state.is_cancelling():
        refusal = FlowRunNotRunningError(flow_run.id, current=flow_run.state)
        raise (yield from interruption(refusal))


def _settle_loop(interruption: BaseException) -> None:
    """Note that the loop's cancellation of an async flow has done its work, and goes no further."""
    if type(interruption).__name__ == "CancelledError":
        import asyncio

        this = asyncio.current_task()
        if this is not None:
            this.uncancel()


def _body(request: FlowRequest, context: FlowRunContext) -> Steps[State]:
    """Yield the steps of one attempt: call the function, then gather what it has submitted."""
    context.tally = Tally()
    context.has_ended = False
    try:
        return (yield from _call_and_gather(request, context))
    except (Exception, GeneratorExit):
        raise
    except BaseException:
        yield from _end_children(context)
        raise


def _call_and_gather(request: FlowRequest, context: FlowRunContext) -> Steps[State]:
    parameters = context.parameters
    args, kwargs = call_arguments(request.flow.fn, parameters) if parameters else ((), {})
    try:
        value = yield Call(request.flow.fn, args, kwargs, context, request.flow.kind)
    except StopIteration as error:  # Python would make a RuntimeError of it, in a generator
        yield from _gather(context, context.deadline)
        return failed_state("Flow", error)
    except Exception:
        yield from _gather(context, context.deadline)
        raise
    yield from _gather(context, context.deadline)
    futures = unsettled(value)  # of another flow run
    if futures:
        yield Wait(futures, context.deadline, context)
    return flow_state(value, context.tally)


def _gather(context: FlowRunContext, deadline: Deadline | None) -> Steps[None]:
    """Wait until every task run that was submitted has ended."""
    while context.unfinished:
        futures = list(context.unfinished)
        yield Wait(futures, deadline, None if context.has_ended else context)
        # Who settled one does so, too; but perhaps not yet, or not any more, if that was interrupted.
        context.unfinished.difference_update(futures)


def _end_children(context: FlowRunContext) -> Steps[None]:
    """End the task runs that have not ended: their flow run is over."""
    context.has_ended = context.may_have_orphans = True
    if context.task_runner is not None:
        context.task_runner.interrupt()
    for loop_task in list(context.loop_tasks):
        loop_task.cancel()
    try:
        yield from _gather(context, Deadline.start("Flow run", _ENDING_SECONDS))
    except TimeoutInterrupt:
        names = ", ".join(future.name for future in list(context.unfinished))
        logs.record(context, logging.WARNING, f"These task runs did not end in time: {names}")
    _let_go_of_runner(context)


def _let_go_of_runner(context: FlowRunContext) -> None:
    runner, context.task_runner = context.task_runner, None
    if runner is not None:
        runner.shutdown()


def _create(request: FlowRequest) -> tuple[FlowRunContext, UsageError | None]:
    """Put the flow run on record: as Running, or as Pending if the call is refused."""
    flow, parent = request.flow, request.parent
    registry = _registry(parent)
    parameters, error = _parameters(request)
    if error is None:
        error = _give_name(request, parameters)
    state = Running() if error is None else Pending()
    flow_run = request.flow_run
    is_new = flow_run is None
    if flow_run is None:
        flow_run = _new_flow_run(request, parameters, state)
        registry.create_flow_run(flow_run)
    else:
        flow_run = registry.begin_flow_run(flow_run, state, own_identity())
    request.flow_run = flow_run
    context = FlowRunContext(
        flow,
        flow_run,
        registry,
        parameters=parameters,
        log_prints=_log_prints(flow, parent),
        parent=parent,
    )
    if context.log_prints:
        prints.capture()
    word = "Created" if is_new else "Began"
    message = f"{word} flow run {flow_run.name!r} for flow {flow_run.flow_name!r}"
    logs.record(context, logging.INFO, message, logger=logs.engine_logger)
    return context, error


def _registry(parent: RunContext | None) -> Registry:
    return open_registry(PREFECTLITE_REGISTRY.value()) if parent is None else parent.registry


def _parameters(request: FlowRequest) -> tuple[dict[str, object], UsageError | None]:
    """Return the values to call the flow with, by name, and why they are refused, if they are."""
    flow = request.flow
    if not request.args and not request.kwargs and not signature_of(flow.fn).parameters:
        return {}, None
    parameters = dict(request.kwargs)
    try:
        parameters = bind(flow.fn, request.args, request.kwargs)
        if flow.options.validate_parameters:
            parameters = validate(flow.fn, parameters)
    except ParameterTypeError as error:
        return parameters, error
    return parameters, None


def _give_name(request: FlowRequest, parameters: Mapping[str, object]) -> UsageError | None:
    """Give the run the name that ``flow_run_name`` makes; return why there is none, if so."""
    template = request.flow.options.flow_run_name
    if template is not None and not request.name and request.flow_run is None:
        try:
            request.name = made_name("flow_run_name", template, parameters)
        except UsageError as error:
            return error
    return None


def _new_flow_run(request: FlowRequest, parameters: Mapping[str, object], state: State) -> FlowRun:
    options, parent = request.flow.options, request.parent
    is_running = state.is_running()
    process = own_identity()
    return FlowRun(
        id=new_id(),
        name=request.name or random_run_name(),
        flow_name=options.name,
        state=state,
        parameters=to_json_values(parameters, function=request.flow.fn) if parameters else {},
        tags=tuple(sorted(request.tags | current_tags())),
        version=options.version,
        entrypoint=request.entrypoint,
        process=process,
        supervisor=parent.flow_run.supervisor if parent else None,
        infrastructure_pid=parent.flow_run.infrastructure_pid
        if parent
        else f"{process.hostname}:{process.pid}",
        parent_flow_run_id=parent.flow_run.id if parent else None,
        parent_task_run_id=parent.task_run.id if isinstance(parent, TaskRunContext) else None,
        run_count=1 if is_running else 0,
        created_at=state.timestamp,
        started_at=state.timestamp if is_running else None,
    )


def _finish(request: FlowRequest, context: FlowRunContext, state: State) -> State:
    """Put the final state on record, then tell it: to the log, the parent's tally, the hooks."""
    prints.finish(context)
    if context.may_have_orphans:
        end_orphans(
            context.registry,
            context.flow_run.id,
            "Its flow run ended, and its own end is not on record.",
            kind=Cancelled if state.is_cancelled() or is_cancelled(context) else Crashed,
        )
    state = finish(context, state)
    request.flow_run = context.flow_run
    if isinstance(context.parent, FlowRunContext):
        context.parent.count(state)
    options = request.flow.options
    hooks: dict[StateType, Sequence[Hook]] = {
        StateType.COMPLETED: options.on_completion,
        StateType.FAILED: options.on_failure,
        StateType.CANCELLED: options.on_cancellation,
        StateType.CRASHED: options.on_crashed,
    }
    call_hooks(hooks.get(state.type, ()), request.flow, context, state)
    return state


def _persisted(context: FlowRunContext, state: State) -> State:
    """Store the result where the options ask for it; a result that cannot be is a failure."""
    flow = context.flow
    if flow is None or not flow.options.persist_result or not state.is_completed():
        return state
    from prefectlite.results import store_result

    try:
        store_result(context.flow_run.id, state.data)
    except ResultNotStoredError as error:
        return failed_state("Flow", error)
    return state


def _log_prints(flow: FlowLike, parent: RunContext | None) -> bool:
    if flow.options.log_prints is not None:
        return flow.options.log_prints
    if parent is not None:
        return parent.flow_run_context.log_prints
    return PREFECTLITE_LOGGING_LOG_PRINTS.value()


def _refuse_in_import_of_worker(flow: FlowLike) -> None:
    """Refuse to run a flow while a process of a ProcessPoolTaskRunner imports the program.

    Raises:
        UsageError: That is what is happening: without a guard, each process would run it again.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UsageError(
            f"flow {flow.options.name!r} was called while a task's process imports the program",
            hint='put the call under: if __name__ == "__main__":',
        )
