"""What a flow or task was decorated with.

The decorators fill these in, the engine reads them. ``FlowLike`` and ``TaskLike`` are all that the
engine knows of a decorated function, so that it imports no decorator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

Function = Callable[..., Any]
#: Called as ``hook(flow_or_task, run, state)``; what it returns is ignored, what it raises logged.
Hook = Callable[..., object]
#: A template for ``str.format`` over the parameters, or a function that returns the name.
RunName = str | Callable[[], str]


class Kind(StrEnum):
    """How a function is to be called."""

    SYNC = "sync"
    ASYNC = "async"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"


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
