"""The ``@flow`` decorator.

It only keeps the function and its options; ``flow_engine`` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from prefectlite.flow_engine import (
    FlowRequest,
    aiterate_flow,
    arun_flow,
    iterate_flow,
    run_flow,
)
from prefectlite.inputs import listed
from prefectlite.options import FlowOptions, Hook, Kind, RunName
from prefectlite.retries import RetryDelay
from prefectlite.runnables import Runnable, common_options
from prefectlite.states import State

P = ParamSpec("P")
R = TypeVar("R")


class FlowKeywords(TypedDict, total=False):
    """The keywords of ``@flow``; the decorator describes them."""

    name: str | None
    version: str | None
    description: str | None
    flow_run_name: RunName | None
    retries: int
    retry_delay_seconds: RetryDelay
    timeout_seconds: float | None
    task_runner: object | None
    validate_parameters: bool
    persist_result: bool | None
    log_prints: bool | None
    on_completion: Sequence[Hook] | None
    on_failure: Sequence[Hook] | None
    on_cancellation: Sequence[Hook] | None
    on_crashed: Sequence[Hook] | None
    on_running: Sequence[Hook] | None


class Flow(Runnable[P, R]):
    """A function whose calls are flow runs; ``fn`` is the function, ``options`` what it was given."""

    noun = "flow"
    options: FlowOptions

    def __init__(self, fn: Callable[P, R], **keywords: Unpack[FlowKeywords]) -> None:
        super().__init__(fn, **keywords)

    def _checked_options(self, keywords: Mapping[str, Any]) -> FlowOptions:
        options = common_options("flow", FlowOptions, self.fn, keywords)
        if not keywords.get("name"):
            options["name"] = options["name"].replace("_", "-")
        if keywords.get("task_runner") is not None:
            from prefectlite.task_runners import checked_runner

            checked_runner(keywords["task_runner"])
        return FlowOptions(**options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the flow here and return what the function returns, or raise what it raises.

        Two more keywords are taken: ``return_state=True`` gives the final State instead, and
        ``wait_for=[...]`` names futures that must have completed before.
        """
        rest: dict[str, Any] = dict(kwargs)
        return_state = bool(rest.pop("return_state", False))
        wait_for = listed(rest.pop("wait_for", None))
        request = FlowRequest(self, args, rest, wait_for)
        return cast(R, self.start(request, return_state=return_state))

    def start(self, request: FlowRequest, *, return_state: bool = False) -> object:
        """Run a prepared request, in the way that the function's kind asks for.

        Returns:
            What a call returns: the result or state, or a coroutine or generator of it.
        """
        if self.kind is Kind.SYNC:
            state = run_flow(request)
            return state if return_state else state.result()
        if self.kind is Kind.ASYNC:
            return _awaited(request, return_state=return_state)
        if self.kind is Kind.GENERATOR:
            return _items(request)
        return aiterate_flow(request)

    def run_to_end(self, request: FlowRequest) -> State:
        """Run a prepared request to its end, whatever the function's kind, and return its state.

        The items of a generator are taken and dropped. Not for a running event loop.
        """
        if self.kind is Kind.SYNC:
            return run_flow(request)
        if self.kind is Kind.GENERATOR:
            steps = iterate_flow(request)
            while True:
                try:
                    next(steps)
                except StopIteration as stop:
                    state: State = stop.value
                    return state
        import asyncio

        if self.kind is Kind.ASYNC:
            return asyncio.run(arun_flow(request))
        return asyncio.run(_aexhausted(request))

    def with_options(self, **keywords: Unpack[FlowKeywords]) -> Flow[P, R]:
        """Return the same flow with some options changed."""
        return self._rebuilt(keywords)


async def _aexhausted(request: FlowRequest) -> State:
    states: list[State] = []
    async for _ in aiterate_flow(request, states.append):
        pass
    return states[0]


async def _awaited(request: FlowRequest, *, return_state: bool) -> object:
    state = await arun_flow(request)
    return state if return_state else state.result()


def _items(request: FlowRequest) -> Any:  # noqa: ANN401 - the items are the user's
    state = yield from iterate_flow(request)
    return state.result()


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    fn: None = None, /, **keywords: Unpack[FlowKeywords]
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(
    fn: Callable[P, R] | None = None, /, **keywords: Unpack[FlowKeywords]
) -> Flow[P, R] | Callable[[Callable[P, R]], Flow[P, R]]:
    """Make a flow of a function: its calls are recorded, retried, timed, and hold task runs.

    Works bare (``@flow``) and called (``@flow(retries=3)``), on functions, ``async def``, methods and
    generators. What it returns decides its final state: a State, as it is; states or futures, or
    None after it has called tasks and subflows, by how those ended; any other value is Completed.

    Args:
        fn: The function.
        **keywords: ``name``: the function's name with hyphens, if not given.
            ``version``, ``description``: for people; the description is the docstring if not given.
            ``flow_run_name``: a template over the parameters, such as ``"load {day}"``, or a function
            that returns the name; random if not given.
            ``retries``: how many more attempts a failure gets; each runs all of its tasks again.
            ``retry_delay_seconds``: between attempts; one number, a list with one for each retry,
            or a function from the number of retries to such a list.
            ``timeout_seconds``: of each attempt; above it the run is TimedOut.
            ``task_runner``: where submitted tasks run; a ``ConcurrentTaskRunner`` if not given.
            ``validate_parameters``: check and coerce annotated parameters with pydantic.
            ``persist_result``: store the result.
            ``log_prints``: make prints log records; None is as the setting has it.
            ``on_completion``, ``on_failure``, ``on_cancellation``, ``on_crashed``, ``on_running``:
            hooks, called as ``hook(flow, flow_run, state)``.

    Raises:
        UsageError: An option is unknown or has a value that it cannot have.
    """
    if fn is None:
        return lambda function: Flow(function, **keywords)
    return Flow(fn, **keywords)
