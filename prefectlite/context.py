"""Which run is this code in: one context variable, and what hangs on it.

The engine enters a context around each call of user code; everything that asks "which run?" (logs,
prints, nested tasks, subflows) looks here. Threads that user code starts take the context along.
"""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefectlite.errors import MissingContextError
from prefectlite.futures import TaskFuture
from prefectlite.latches import Hold
from prefectlite.liveness import present_moment
from prefectlite.options import FlowLike, TaskLike
from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import Registry
from prefectlite.states import State, Tally
from prefectlite.timeouts import Deadline, TimeoutInterrupt

#: An event loop, and the task in it.
LoopCall = tuple["asyncio.AbstractEventLoop", "asyncio.Task[Any]"]

if TYPE_CHECKING:
    import asyncio

    from prefectlite.task_runners import TaskRunner


@dataclass(slots=True, eq=False)
class FlowRunContext:
    """A flow run, seen from inside.

    Attributes:
        flow: The flow; None in a process of a ``ProcessPoolTaskRunner``.
        flow_run: The run, as of its last change of state.
        parameters: The values it was called with, validated.
        log_prints: Whether print is a log record of this run.
        deadline: When it must have ended; None where it has no limit.
        parent: The run that called this one as a subflow.
        task_runner: Where its submitted tasks run; None before the first.
        loop_tasks: The asyncio tasks of its submitted async tasks.
        tally: The final states of the task runs and subflow runs that it has called.
        unfinished: Futures of task runs that have not ended.
        has_ended: Whether the engine has given up waiting for it; no new task may start.
        may_have_orphans: Whether a thread was abandoned, a process killed, or an end not recorded in
            it: runs may be left unfinished on record.
        is_cancelled: Whether it is being cancelled, and its code interrupted for that.
        interrupted_at: When its code was last interrupted for that, by ``clock.monotonic``; None
            before.
        is_watched: Whether this process looks after its state on record, and settles its holds.
        holds: What waits for the end of a pause.
        loop_call: Where its code is awaited, while it is.
        is_suspended: Whether it is a generator between two items.
        began_at: When, by ``liveness.present_moment``.
    """

    flow: FlowLike | None
    flow_run: FlowRun
    registry: Registry
    parameters: Mapping[str, object] = field(default_factory=dict)
    log_prints: bool = False
    deadline: Deadline | None = None
    parent: FlowRunContext | TaskRunContext | None = None
    task_runner: TaskRunner | None = None
    loop_tasks: set[asyncio.Task[None]] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)
    unfinished: set[TaskFuture[object]] = field(default_factory=set)
    has_ended: bool = False
    may_have_orphans: bool = False
    is_cancelled: bool = False
    interrupted_at: float | None = None
    is_watched: bool = False
    holds: set[Hold] = field(default_factory=set)
    loop_call: LoopCall | None = None
    is_suspended: bool = False
    partial_lines: dict[int, str] = field(default_factory=dict)
    began_at: tuple[int, int] = field(default_factory=present_moment)
    _indexes: dict[str, itertools.count[int]] = field(default_factory=dict)

    @classmethod
    def get(cls) -> FlowRunContext | None:
        """Return the context of the flow run that this code is in, also inside a task."""
        context = current()
        return context.flow_run_context if context is not None else None

    @property
    def flow_run_context(self) -> FlowRunContext:
        """Itself; so that a task's context can be asked the same."""
        return self

    @property
    def run(self) -> FlowRun:
        """The run."""
        return self.flow_run

    def count(self, state: State) -> None:
        """Add the final state of a task run or subflow run that it called to its tally."""
        with _tally_lock:
            self.tally.add(state)

    def next_index(self, task_name: str) -> int:
        """Return how many runs of this task the flow run had before this one."""
        # setdefault and next are atomic under the GIL: no lock for tasks that threads call.
        return next(self._indexes.setdefault(task_name, itertools.count()))


@dataclass(slots=True, eq=False)
class TaskRunContext:
    """A task run, seen from inside.

    Attributes:
        task: The task.
        task_run: The run, as of its last change of state.
        flow_run_context: The flow run that it belongs to.
        log_prints: Whether print is a log record of this run.
        deadline: When it must have ended; None where it has no limit.
        parent: The run that called it.
        has_ended: Whether the engine has given up waiting for it; no new task may start in it.
        parameters: The arguments by name; only where ``cache_key_fn`` needs them.
        cache_key: What ``cache_key_fn`` returned.
    """

    task: TaskLike
    task_run: TaskRun
    flow_run_context: FlowRunContext
    parent: FlowRunContext | TaskRunContext
    log_prints: bool = False
    deadline: Deadline | None = None
    has_ended: bool = False
    partial_lines: dict[int, str] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    cache_key: str | None = None

    @classmethod
    def get(cls) -> TaskRunContext | None:
        """Return the context of the task run that this code is in; None outside of one."""
        context = current()
        return context if isinstance(context, TaskRunContext) else None

    @property
    def flow_run(self) -> FlowRun:
        """The flow run that the task run belongs to."""
        return self.flow_run_context.flow_run

    @property
    def registry(self) -> Registry:
        """Where the run is recorded."""
        return self.flow_run_context.registry

    @property
    def run(self) -> TaskRun:
        """The run."""
        return self.task_run


# Held for an instant; tasks of one flow run end in many threads.
_tally_lock = threading.Lock()

RunContext = FlowRunContext | TaskRunContext

_current: contextvars.ContextVar[RunContext | None] = contextvars.ContextVar(
    "prefectlite_run", default=None
)
_tags: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar(
    "prefectlite_tags", default=frozenset()
)
#: The current run's context, or None outside of a run.
current = _current.get
#: Make a context the current one; returns the token for ``leave``.
enter = _current.set
#: Undo an ``enter``, in the same thread or coroutine.
leave = _current.reset
#: The tags that ``tags`` has set around this code.
current_tags = _tags.get


def get_run_context() -> RunContext:
    """Return the context of the task run, else of the flow run, that this code is in.

    Raises:
        MissingContextError: The code is in no run.
    """
    context = current()
    if context is None:
        raise MissingContextError(
            "there is no run here: get_run_context was called outside of a flow or task",
            hint="call it from a function that @flow or @task decorates, while it runs",
        )
    return context


@contextmanager
def tags(*new_tags: str) -> Iterator[frozenset[str]]:
    """Give every flow run and task run that begins inside these tags, beside their own."""
    token = _tags.set(_tags.get() | frozenset(new_tags))
    try:
        yield _tags.get()
    finally:
        _tags.reset(token)


def enclosing(context: RunContext | None) -> Iterator[RunContext]:
    """Yield a context and every one around it, innermost first."""
    while context is not None:
        yield context
        context = context.parent


def check_open(parent: RunContext) -> None:
    """Refuse to begin a run inside one that has ended or is over its time.

    Raises:
        TimeoutInterrupt: One of the enclosing runs is.
    """
    context: RunContext | None = parent
    while context is not None:
        deadline = context.deadline
        if context.has_ended or (deadline is not None and deadline.has_passed()):
            raise TimeoutInterrupt(deadline)
        context = context.parent


def is_under(deadline: Deadline) -> bool:
    """Return whether this code is in a run that the deadline is for, however deep inside."""
    return any(context.deadline is deadline for context in enclosing(current()))


def follow_threads() -> None:
    """Let a thread that a run starts belong to that run. Done once; safe to call again.

    Python 3.14 can do the same (``sys.flags.thread_inherit_context``); before it, a new thread
    starts with an empty context and its prints and log records would belong to nobody.
    """
    if threading.Thread.start is not _start_in_context:
        threading.Thread.start = _start_in_context  # type: ignore[method-assign] # on purpose


_plain_start = threading.Thread.start


def _start_in_context(self: threading.Thread) -> None:
    if current() is not None:
        run, context = self.run, contextvars.copy_context()
        self.run = lambda: context.run(run)  # type: ignore[method-assign] # for this thread only
    _plain_start(self)
