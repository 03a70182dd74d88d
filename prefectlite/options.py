"""What a flow or task was decorated with.

The decorators fill these in, the engine reads them. ``Runnable`` is all that the engine knows of a
decorated function, so that it imports no decorator.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

from prefectlite.errors import UsageError

Function = Callable[..., Any]
#: Called as ``hook(flow_or_task, run, state)``; what it returns is ignored, what it raises logged.
Hook = Callable[..., object]
#: A template for ``str.format`` over the parameters, or a function that returns the name.
RunName = str | Callable[[], str]

RESERVED_PARAMETERS = frozenset({"return_state", "wait_for"})


class Kind(StrEnum):
    """How a function is to be called."""

    SYNC = "sync"
    ASYNC = "async"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"


class Binding(StrEnum):
    """What a decorated function is bound to when it is taken from a class or an object."""

    INSTANCE = "instance"
    CLASS = "class"
    NOTHING = "nothing"

    @classmethod
    def of(cls, function: object) -> Binding:
        """Return how a function binds, by what was decorated."""
        if isinstance(function, classmethod):
            return cls.CLASS
        return cls.NOTHING if isinstance(function, staticmethod) else cls.INSTANCE

    def target(self, instance: object, owner: type | None) -> object:
        """Return what to bind to, None for nothing."""
        if self is Binding.NOTHING:
            return None
        return owner if self is Binding.CLASS else instance


def kind_of(function: Function) -> Kind:
    """Return how a function is to be called."""
    if inspect.iscoroutinefunction(function):
        return Kind.ASYNC
    if inspect.isgeneratorfunction(function):
        return Kind.GENERATOR
    if inspect.isasyncgenfunction(function):
        return Kind.ASYNC_GENERATOR
    return Kind.SYNC


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The options of ``@task``; the decorator describes them."""

    name: str
    description: str | None = None
    tags: frozenset[str] = frozenset()
    task_run_name: RunName | None = None
    retries: int = 0
    retry_delay_seconds: float | Sequence[float] = 0
    retry_jitter_factor: float | None = None
    timeout_seconds: float | None = None
    cache_key_fn: Callable[..., str | None] | None = None
    cache_expiration: timedelta | None = None
    refresh_cache: bool = False
    persist_result: bool | None = None
    log_prints: bool | None = None
    on_completion: Sequence[Hook] = ()
    on_failure: Sequence[Hook] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions:
    """The options of ``@flow``; the decorator describes them."""

    name: str
    version: str | None = None
    description: str | None = None
    flow_run_name: RunName | None = None
    retries: int = 0
    retry_delay_seconds: float | Sequence[float] = 0
    timeout_seconds: float | None = None
    task_runner: object | None = None
    validate_parameters: bool = True
    persist_result: bool | None = None
    log_prints: bool | None = None
    on_completion: Sequence[Hook] = ()
    on_failure: Sequence[Hook] = ()
    on_cancellation: Sequence[Hook] = ()
    on_crashed: Sequence[Hook] = ()
    on_running: Sequence[Hook] = ()


class TaskLike(Protocol):
    """What the engine needs of a task."""

    fn: Function
    options: TaskOptions
    kind: Kind


class FlowLike(Protocol):
    """What the engine needs of a flow."""

    fn: Function
    options: FlowOptions
    kind: Kind


def check_function(noun: str, function: object) -> Function:
    """Return ``function`` if a flow or task can be made of it.

    Raises:
        UsageError: It cannot be called, or has a parameter whose name is reserved.
    """
    if not callable(function) or isinstance(function, type):
        raise UsageError(
            f"{function!r} is not a function, so it cannot be a {noun}",
            hint=f"the options of @{noun} are given by keyword: @{noun}(retries=3)",
        )
    if isinstance(getattr(function, "options", None), FlowOptions | TaskOptions):
        raise UsageError(
            f"{function!r} is one already, so it cannot be a {noun}",
            hint="decorate the function once; a flow can call a task, and a task a flow",
        )
    try:
        names: Mapping[str, object] = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        names = {}
    for name in RESERVED_PARAMETERS & names.keys():
        raise UsageError(f"{name!r} is reserved; it cannot be a parameter of a {noun}")
    return function


def function_name(function: Function) -> str:
    """Return the function's name; for an object that can be called, its class's."""
    name: str = getattr(function, "__name__", type(function).__name__)
    return name


def checked_hooks(option: str, hooks: object) -> tuple[Hook, ...]:
    """Return the hooks of an option; none for None.

    Raises:
        UsageError: It is no list of functions.
    """
    given: Any = () if hooks is None else hooks
    if not isinstance(given, list | tuple) or not all(callable(hook) for hook in given):
        raise UsageError(f"{option}={hooks!r} is not a list of functions")
    return tuple(given)


def check_run_name(option: str, name: object) -> None:
    """Refuse what can give no run name.

    Raises:
        UsageError: It is neither a text nor a function.
    """
    if name is not None and not isinstance(name, str) and not callable(name):
        raise UsageError(f"{option}={name!r} is neither a template nor a function")


def check_retries(retries: int) -> int:
    """Return the number of retries if it is one.

    Raises:
        UsageError: It is negative or not a whole number.
    """
    given: object = retries
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise UsageError(f"retries={retries!r} is not a whole number of at least 0")
    return retries
