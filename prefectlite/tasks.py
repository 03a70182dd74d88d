"""The ``@task`` decorator.

It only keeps the function and its options; ``task_engine`` and ``submission`` run them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from pickle import PicklingError
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from prefectlite.errors import UsageError
from prefectlite.futures import AsyncTaskFuture, TaskFuture
from prefectlite.inputs import listed
from prefectlite.options import Hook, Kind, RunName, TaskOptions
from prefectlite.retries import RetryDelay, check_jitter
from prefectlite.retries import exponential_backoff as exponential_backoff  # Prefect 2.8's place
from prefectlite.runnables import Runnable, as_keywords, common_options
from prefectlite.submission import amap_task, asubmit_task, map_task, submit_task
from prefectlite.task_engine import (
    TaskRequest,
    aiterate_task,
    arun_task,
    iterate_task,
    run_task,
)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def __getattr__(name: str) -> object:
    """Give ``task_input_hash`` from here too, as Prefect 2.8 does; its module is rarely needed."""
    if name == "task_input_hash":
        from prefectlite.results import task_input_hash

        return task_input_hash
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class TaskKeywords(TypedDict, total=False):
    """The keywords of ``@task``; the decorator describes them."""

    name: str | None
    description: str | None
    tags: Iterable[str]
    task_run_name: RunName | None
    retries: int
    retry_delay_seconds: RetryDelay
    retry_jitter_factor: float | None
    timeout_seconds: float | None
    cache_key_fn: Callable[..., str | None] | None
    cache_expiration: timedelta | None
    refresh_cache: bool
    persist_result: bool | None
    log_prints: bool | None
    on_completion: Sequence[Hook] | None
    on_failure: Sequence[Hook] | None


class Task(Runnable[P, R]):
    """A function whose calls, inside a flow, are task runs.

    ``fn`` is the function, ``options`` what it was given.
    """

    noun = "task"
    options: TaskOptions

    def __init__(self, fn: Callable[P, R], **keywords: Unpack[TaskKeywords]) -> None:
        super().__init__(fn, **keywords)

    def _checked_options(self, keywords: Mapping[str, Any]) -> TaskOptions:
        options = common_options("task", TaskOptions, self.fn, keywords)
        check_jitter(keywords.get("retry_jitter_factor"))
        _check_cache(keywords.get("cache_key_fn"), keywords.get("cache_expiration"))
        options["tags"] = _checked_tags(keywords.get("tags"))
        return TaskOptions(**options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the task here and return what the function returns, or raise what it raises.

        Two more keywords are taken: ``return_state=True`` gives the final State instead, and
        ``wait_for=[...]`` names futures that must have completed before.
        """
        request, return_state = self._request(args, kwargs)
        if self.kind is Kind.SYNC:
            state = run_task(request)
            return cast(R, state if return_state else state.result())
        if self.kind is Kind.ASYNC:
            return cast(R, _awaited(request, return_state=return_state))
        if self.kind is Kind.GENERATOR:
            return cast(R, _items(request))
        return cast(R, aiterate_task(request))

    @overload
    def submit(
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,  # noqa: ANN401 - futures may stand for any argument
        **kwargs: Any,  # noqa: ANN401 - futures may stand for any argument
    ) -> Coroutine[Any, Any, AsyncTaskFuture[T]]: ...
    @overload
    def submit(self, *args: Any, **kwargs: Any) -> TaskFuture[R]: ...  # noqa: ANN401 - futures may stand for any argument
    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Have the flow's task runner run the task, and return a future at once.

        Futures among the arguments are replaced by their results when those are there. For an
        async task on a running event loop the future itself is awaited first, as in Prefect 2.8:
        ``future = await my_task.submit()``.
        """
        request, return_state = self._request(args, kwargs)
        if self._is_on_loop():
            return _async_submitted(request, return_state=return_state)
        future = submit_task(request)
        return future.wait() if return_state else future

    @overload
    def map(
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,  # noqa: ANN401 - futures may stand for any argument
        **kwargs: Any,  # noqa: ANN401 - futures may stand for any argument
    ) -> Coroutine[Any, Any, list[AsyncTaskFuture[T]]]: ...
    @overload
    def map(self, *args: Any, **kwargs: Any) -> list[TaskFuture[R]]: ...  # noqa: ANN401 - futures may stand for any argument
    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a run for each item of the iterables among the arguments; return the futures.

        Values in ``unmapped(...)``, texts, and what cannot be iterated go whole to every run.

        Raises:
            MappingMissingIterable: There is nothing to iterate over.
            MappingLengthMismatch: The iterables have different lengths.
        """
        request, return_state = self._request(args, kwargs)
        if self._is_on_loop():
            return _async_mapped(request, return_state=return_state)
        futures = map_task(request)
        return [future.wait() for future in futures] if return_state else futures

    def with_options(self, **keywords: Unpack[TaskKeywords]) -> Task[P, R]:
        """Return the same task with some options changed."""
        return self._rebuilt(keywords)

    def _request(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[TaskRequest, bool]:
        if "return_state" not in kwargs and "wait_for" not in kwargs:
            return TaskRequest(self, args, kwargs, ()), False
        rest = dict(kwargs)
        return_state = bool(rest.pop("return_state", False))
        wait_for = listed(rest.pop("wait_for", None))
        return TaskRequest(self, args, rest, wait_for), return_state

    def _is_on_loop(self) -> bool:
        # Where another thread is just importing it, it is there, and not whole.
        running_loop = getattr(sys.modules.get("asyncio"), "get_running_loop", None)
        if running_loop is None or self.kind not in (Kind.ASYNC, Kind.ASYNC_GENERATOR):
            return False
        try:
            running_loop()
        except RuntimeError:
            return False
        return True

    def __reduce__(self) -> tuple[object, ...]:
        # By name, as functions pickle: the module's name means this object, not the function.
        if "<" in self.fn.__qualname__:
            raise PicklingError(f"{self.fn.__qualname__} is not at the top of a module")
        owner = getattr(self.fn, "__self__", None)
        return _load, (self.fn.__module__, self.fn.__qualname__, owner, self.options)


def _load(module: str, qualname: str, owner: object, options: TaskOptions) -> Task[..., Any]:
    """Return the task that a pickle names."""
    __import__(module)
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        found = getattr(found, part)
    if isinstance(found, Task):
        task = found if owner is None else found.__get__(owner)
    else:
        task = Task(found)
    if task.options != options:
        task = task.with_options(**cast(TaskKeywords, as_keywords(options)))
    return task


async def _awaited(request: TaskRequest, *, return_state: bool) -> object:
    state = await arun_task(request)
    return state if return_state else state.result()


def _items(request: TaskRequest) -> Any:  # noqa: ANN401 - the items are the user's
    state = yield from iterate_task(request)
    return state.result()


async def _async_submitted(request: TaskRequest, *, return_state: bool) -> object:
    future = await asubmit_task(request)
    return await future.wait() if return_state else future


async def _async_mapped(request: TaskRequest, *, return_state: bool) -> object:
    futures = await amap_task(request)
    return [await future.wait() for future in futures] if return_state else futures


def _checked_tags(tags: object) -> frozenset[str]:
    given: Any = () if tags is None else tags
    if isinstance(given, str) or not all(isinstance(tag, str) for tag in given):
        raise UsageError(f"tags={tags!r} is not a list of texts")
    return frozenset(given)


def _check_cache(key_of: object, expiration: object) -> None:
    if key_of is not None and not callable(key_of):
        raise UsageError(f"cache_key_fn={key_of!r} is not a function")
    if expiration is not None and not isinstance(expiration, timedelta):
        raise UsageError(f"cache_expiration={expiration!r} is not a timedelta")


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    fn: None = None, /, **keywords: Unpack[TaskKeywords]
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    fn: Callable[P, R] | None = None, /, **keywords: Unpack[TaskKeywords]
) -> Task[P, R] | Callable[[Callable[P, R]], Task[P, R]]:
    """Make a task of a function: its calls inside a flow are recorded, retried, timed, cached.

    Works bare (``@task``) and called (``@task(retries=3)``), on functions, ``async def``, methods and
    generators. A generator task runs while its items are taken; submitted, it gives their list. If
    one is retried, its items are yielded again.

    Args:
        fn: The function.
        **keywords: ``name``: the function's name if not given.
            ``description``: the docstring if not given.
            ``tags``: texts to find its runs by.
            ``task_run_name``: a template over the parameters, such as ``"load {table}"``, or a
            function that returns the name; ``NAME-N`` if not given.
            ``retries``: how many more attempts a failure gets.
            ``retry_delay_seconds``: between attempts; one number, a list with one for each retry,
            or a function from the number of retries to such a list.
            ``retry_jitter_factor``: stretch each delay by up to this share of it, at random.
            ``timeout_seconds``: of each attempt; above it the attempt is TimedOut.
            ``cache_key_fn``: a function ``(context, parameters) -> key or None``; a run whose key
            an earlier one had takes that one's stored result and does not run.
            ``cache_expiration``: how long such a result is good for; None is for ever.
            ``refresh_cache``: run all the same, and store the new result.
            ``persist_result``: store the result; where there is a cache key it is stored anyway.
            ``log_prints``: make prints log records; None is as the flow has it.
            ``on_completion``, ``on_failure``: hooks, called as ``hook(task, task_run, state)``.

    Raises:
        UsageError: An option is unknown or has a value that it cannot have.
    """
    if fn is None:
        return lambda function: Task(function, **keywords)
    return Task(fn, **keywords)
