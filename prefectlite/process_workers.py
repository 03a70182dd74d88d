"""A child process that runs one task at a time for ``ProcessPoolTaskRunner``.

The parent keeps all states; the child only calls the user's function, in a context rebuilt from the
parent's, so that logs, prints and nested tasks work there and are recorded by the child itself. A
child ends with its parent, however that dies.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefectlite import logs, prints
from prefectlite.clock import monotonic
from prefectlite.context import FlowRunContext, TaskRunContext, follow_threads
from prefectlite.drivers import Call, call_here
from prefectlite.errors import PrefectLiteError, UsageError
from prefectlite.interruptions import WorkerDiedError, waits
from prefectlite.options import TaskLike
from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import open_registry
from prefectlite.timeouts import Deadline, TimeoutInterrupt

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

# The child raises at the deadline itself, so that a ``finally`` runs; then it is killed.
_KILL_GRACE_SECONDS = 1.0
# What a child may take to end once it has nothing more to do; threads of user code can hold it.
_EXIT_SECONDS = 5.0


class RemoteError(PrefectLiteError):
    """A task in a process raised something that cannot be pickled; this is its description."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What the child needs to call a task as the parent would."""

    task: TaskLike
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    flow_run: FlowRun
    task_run: TaskRun
    registry_url: str
    log_prints: tuple[bool, bool]
    timeout: tuple[str, float, float] | None


class ProcessWorker:
    """One child process. Its methods are for one thread, but ``kill`` is for any."""

    def __init__(self) -> None:
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._connection: Connection = ours
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs,), name="prefectlite-task", daemon=False
        )
        self._process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        """Whether it can take another call."""
        return self._process.is_alive()

    def call(self, call: Call) -> object:
        """Call the user's function in the child, and return or raise what it does.

        Raises:
            TimeoutInterrupt: The deadline passed; the child was killed if it did not stop.
            WorkerDiedError: The child died.
            UsageError: The task or its arguments cannot be pickled.
        """
        self._send(call)
        deadline = call.deadline
        until = None if deadline is None else deadline.remaining() + _KILL_GRACE_SECONDS
        try:
            outcome = self._receive(until)
        except EOFError:
            self._process.join()
            raise WorkerDiedError(
                f"The task's process {self._process.pid} died: {_exit_text(self._process)}."
            ) from None
        if outcome is None:
            self.kill()
            self._process.join()
            raise TimeoutInterrupt(deadline)
        is_error, value = outcome
        if is_error:
            raise value
        return value

    def kill(self) -> None:
        """Kill the child."""
        # multiprocessing refuses once it has reaped the child, so the PID is not another's.
        self._process.kill()

    def close(self) -> None:
        """Let the child end."""
        self._connection.close()
        self._process.join(_EXIT_SECONDS)
        if self._process.is_alive():
            self.kill()
            self._process.join()

    def _send(self, call: Call) -> None:
        context = call.context
        if not isinstance(context, TaskRunContext):
            raise TypeError("only a task run is called in a process")
        flow = context.flow_run_context
        deadline = call.deadline
        order = _Order(
            context.task,
            tuple(call.args),
            call.kwargs,
            context.flow_run,
            context.task_run,
            context.registry.url,
            (flow.log_prints, context.log_prints),
            (deadline.noun, deadline.seconds, deadline.remaining()) if deadline else None,
        )
        try:
            message = pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise UsageError(
                f"task {context.task.options.name!r} cannot be sent to a process: {error}",
                hint="its arguments must pickle, and it must be defined at the top of a module",
            ) from error
        self._connection.send_bytes(message)

    @waits
    def _receive(self, timeout: float | None) -> tuple[bool, Any] | None:
        if not self._connection.poll(timeout):
            return None
        outcome: tuple[bool, Any] = self._connection.recv()
        return outcome


def _exit_text(process: BaseProcess) -> str:
    code = process.exitcode
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _serve(connection: Connection) -> None:
    """Run orders until the parent closes the connection; the child's main function."""
    # Ctrl-C reaches the whole foreground group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="prefectlite-parent", daemon=True).start()
    logs.set_up()
    prints.capture()
    follow_threads()
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(_outcome(message))


def _end_with_parent() -> None:
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _outcome(message: bytes) -> bytes:
    """Do one order and return its outcome, pickled: whether it is an error, and the value."""
    try:
        order: _Order = pickle.loads(message)  # noqa: S301 - from our own parent, by its own pipe
    except Exception as error:  # noqa: BLE001 - the import of user code raises what it likes
        return _pickled_error(error)
    registry = open_registry(order.registry_url)
    flow = FlowRunContext(None, order.flow_run, registry, log_prints=order.log_prints[0])
    context = TaskRunContext(
        order.task, order.task_run, flow, parent=flow, log_prints=order.log_prints[1]
    )
    if order.timeout is not None:
        noun, seconds, remaining = order.timeout
        context.deadline = Deadline(noun, seconds, monotonic() + remaining)
    try:
        value = call_here(
            Call(order.task.fn, order.args, dict(order.kwargs), context, order.task.kind)
        )
    except BaseException as error:  # noqa: BLE001 - it is handed to the parent, whatever it is
        return _pickled_error(error)
    finally:
        registry.flush_logs()
    try:
        return pickle.dumps((False, value), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - the import of user code raises what it likes
        return _pickled_error(
            RemoteError(
                f"the result of task run {order.task_run.name!r} cannot be pickled: {error}",
                hint="return plain data, or write it to a file and return its path",
            )
        )


def _pickled_error(error: BaseException) -> bytes:
    from prefectlite.outcomes import user_traceback

    error.add_note(f"In the task's process:\n{user_traceback(error)}")
    try:
        message = pickle.dumps((True, error), pickle.HIGHEST_PROTOCOL)
        pickle.loads(message)  # noqa: S301 - our own; an error may pickle and yet not load
    except Exception:  # noqa: BLE001 - __reduce__ of user objects raises what it likes
        told = RemoteError(f"{type(error).__name__}: {error}")
        return pickle.dumps((True, told), pickle.HIGHEST_PROTOCOL)
    return message
