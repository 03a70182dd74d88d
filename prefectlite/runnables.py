"""What ``@flow`` and ``@task`` have in common: a function with options, each call of which is a run.

``flows`` and ``tasks`` build on it. It knows nothing of runs and must not call the function.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MethodType
from typing import Any, ClassVar, Generic, ParamSpec, Self, TypeVar

from prefectlite.errors import UsageError
from prefectlite.options import FlowOptions, Function, Hook, Kind, TaskOptions
from prefectlite.retries import checked_delay
from prefectlite.timeouts import checked_timeout

P = ParamSpec("P")
R = TypeVar("R")

_RESERVED_PARAMETERS = frozenset({"return_state", "wait_for"})


class Runnable(Generic[P, R]):
    """A decorated function; the subclass has its options and what a call does.

    Attributes:
        noun: What it is called in messages: ``flow`` or ``task``.
        fn: The function; call it to run it without a record.
        kind: How it is to be called.
        options: All that it was decorated with.
    """

    noun: ClassVar[str]
    options: FlowOptions | TaskOptions

    def __init__(self, fn: Callable[P, R], **keywords: Any) -> None:  # noqa: ANN401 - the subclass names them
        self._binding = _Binding.of(fn)
        function = fn if self._binding is _Binding.INSTANCE else getattr(fn, "__func__", fn)
        self.fn: Function = _checked_function(self.noun, function)
        self.kind = kind_of(self.fn)
        self.options = self._checked_options(keywords)
        functools.update_wrapper(self, self.fn)  # type: ignore[arg-type] # it has a __call__

    def _checked_options(self, keywords: Mapping[str, Any]) -> FlowOptions | TaskOptions:
        """Return the options of these keywords of the decorator, or raise ``UsageError``."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The flow's or task's name."""
        return self.options.name

    def _rebuilt(self, keywords: Mapping[str, Any]) -> Self:
        """Return another one of the same function, with some options changed."""
        made = type(self)(self.fn, **{**as_keywords(self.options), **keywords})
        made.__dict__.update(_binding=self._binding)
        return made

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        target = self._binding.target(instance, owner)
        if target is None:
            return self
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__, fn=MethodType(self.fn, target))
        return bound

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def kind_of(function: Function) -> Kind:
    """Return how a function is to be called."""
    if inspect.iscoroutinefunction(function):
        return Kind.ASYNC
    if inspect.isgeneratorfunction(function):
        return Kind.GENERATOR
    if inspect.isasyncgenfunction(function):
        return Kind.ASYNC_GENERATOR
    return Kind.SYNC


def as_keywords(options: FlowOptions | TaskOptions) -> dict[str, Any]:
    """Return options as the keywords of their decorator."""
    return {name: getattr(options, name) for name in options.__slots__}


def common_options(
    noun: str, kind: type[FlowOptions | TaskOptions], fn: Function, keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keywords of a decorator, those that both have checked and filled in.

    Raises:
        UsageError: One is unknown, or has a value that it cannot have.
    """
    for name in keywords.keys() - set(kind.__slots__):
        raise UsageError(f"@{noun} has no option {name!r}")
    _check_run_name(f"{noun}_run_name", keywords.get(f"{noun}_run_name"))
    retries = _checked_retries(keywords.get("retries") or 0)
    hooks = [name for name in kind.__slots__ if name.startswith("on_")]
    return {
        **keywords,
        "name": keywords.get("name") or getattr(fn, "__name__", type(fn).__name__),
        "description": keywords.get("description") or fn.__doc__,
        "retries": retries,
        "retry_delay_seconds": checked_delay(keywords.get("retry_delay_seconds") or 0, retries),
        "timeout_seconds": checked_timeout(keywords.get("timeout_seconds")),
        **{name: _checked_hooks(name, keywords.get(name)) for name in hooks},
    }


class _Binding(StrEnum):
    """What a decorated function is bound to when it is taken from a class or an object."""

    INSTANCE = "instance"
    CLASS = "class"
    NOTHING = "nothing"

    @classmethod
    def of(cls, function: object) -> _Binding:
        """Return how a function binds, by what was decorated."""
        if isinstance(function, classmethod):
            return cls.CLASS
        return cls.NOTHING if isinstance(function, staticmethod) else cls.INSTANCE

    def target(self, instance: object, owner: type | None) -> object:
        """Return what to bind to, None for nothing."""
        if self is _Binding.NOTHING:
            return None
        return owner if self is _Binding.CLASS else instance


def _checked_function(noun: str, function: object) -> Function:
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
    for name in _RESERVED_PARAMETERS & names.keys():
        raise UsageError(f"{name!r} is reserved; it cannot be a parameter of a {noun}")
    return function


def _checked_hooks(option: str, hooks: object) -> tuple[Hook, ...]:
    """Return the hooks of an option; none for None.

    Raises:
        UsageError: It is no list of functions.
    """
    given: Any = () if hooks is None else hooks
    if not isinstance(given, list | tuple) or not all(callable(hook) for hook in given):
        raise UsageError(f"{option}={hooks!r} is not a list of functions")
    return tuple(given)


def _check_run_name(option: str, name: object) -> None:
    """Refuse what can give no run name.

    Raises:
        UsageError: It is neither a text nor a function.
    """
    if name is not None and not isinstance(name, str) and not callable(name):
        raise UsageError(f"{option}={name!r} is neither a template nor a function")


def _checked_retries(retries: int) -> int:
    """Return the number of retries if it is one.

    Raises:
        UsageError: It is negative or not a whole number.
    """
    given: object = retries
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise UsageError(f"retries={retries!r} is not a whole number of at least 0")
    return retries
