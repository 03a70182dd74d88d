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
from typing import TYPE_CHECKING

from prefectlite import logs, prints
from prefectlite.clock import monotonic
from prefectlite.context import FlowRunContext, TaskRunContext, follow_threads
from prefectlite.drivers import Call, call_here
from prefectlite.errors import PrefectLiteError, RegistryError, UsageError
from prefectlite.interruptions import WorkerDiedError
from prefectlite.options import TaskLike
from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import Registry, open_registry
from prefectlite.timeouts import Deadline, TimeoutInterrupt

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

# The child raises at the deadline itself, so that a ``finally`` runs; then it is killed.
_KILL_GRACE_SECONDS = 1.0
# What a child may take to start, which is mostly the import of the program's main file.
_START_SECONDS = 60.0
# poll(2) counts milliseconds in 31 bits.
_LONGEST_POLL_SECONDS = 1e6
_NO_GUARD = (
    "it died as it imported the program's main file; a program that is run as a file starts its"
    ' flows under: if __name__ == "__main__":'
)
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


class ProcessWorker:
    """One child process. Its methods are for one thread, but ``kill`` is for any."""

    def __init__(self) -> None:
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._connection: Connection = ours
        self._process: BaseProcess = context.Process(
            target=_serve,
            args=(theirs, logs.shown_level()),
            name="prefectlite-task",
            daemon=False,
        )
        self._process.start()
        theirs.close()
        # Beside the pipe, which stays open as long as a child of the child has a copy of it.
        self._sentinel = _exit_descriptor(self._process)
        self._is_ready = False

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
        message = _pickled_order(call)
        if not self._is_ready:
            self._await_start()
            if call.deadline is not None:  # the call has its whole time, whatever the start took
                call.context.deadline = Deadline.start(call.deadline.noun, call.deadline.seconds)
        deadline = call.deadline
        try:
            self._connection.send_bytes(_with_time_left(message, deadline))
            until = None if deadline is None else deadline.at + _KILL_GRACE_SECONDS
            outcome = self._receive(until)
        except (EOFError, OSError):
            call.context.flow_run_context.may_have_orphans = True
            raise self._death() from None
        if outcome is None:
            call.context.flow_run_context.may_have_orphans = True
            self.kill()
            self._process.join()
            raise TimeoutInterrupt(deadline)
        return _value_of(outcome, call)

    def _await_start(self) -> None:
        try:
            self._is_ready = self._receive(monotonic() + _START_SECONDS) is not None
        except (EOFError, OSError):
            raise self._death(_NO_GUARD) from None
        if not self._is_ready:
            self.kill()
            raise self._death(f"it did not start within {_START_SECONDS:g} seconds")

    def _death(self, how: str | None = None) -> WorkerDiedError:
        self._process.join(_KILL_GRACE_SECONDS)
        self.kill()  # if it only closed the pipe
        self._process.join()
        text = _exit_text(self._process)
        return WorkerDiedError(
            f"The task's process {self._process.pid} died: {text}{f' ({how})' if how else ''}."
        )

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
        if self._sentinel != self._process.sentinel:
            os.close(self._sentinel)

    def _receive(self, until: float | None) -> bytes | None:
        """Return what the child sends; None if it sends nothing in time.

        Raises:
            EOFError: It has died.
        """
        from multiprocessing.connection import wait

        while until is None or monotonic() < until:
            remaining = _LONGEST_POLL_SECONDS if until is None else max(0.0, until - monotonic())
            ready = wait([self._connection, self._sentinel], min(remaining, _LONGEST_POLL_SECONDS))
            if self._connection in ready or (ready and self._connection.poll()):
                return self._connection.recv_bytes()
            if ready:
                raise EOFError
        return None


def _exit_descriptor(process: BaseProcess) -> int:
    """Return a descriptor that is readable once the process has ended."""
    try:
        return os.pidfd_open(process.pid or 0)
    except (AttributeError, OSError):  # not Linux
        return process.sentinel


def _pickled_order(call: Call) -> bytes:
    """Return what the child needs to make a call.

    Raises:
        UsageError: It cannot be pickled.
    """
    context = call.context
    if not isinstance(context, TaskRunContext):
        raise TypeError("only a task run is called in a process")
    order = _Order(
        context.task,
        tuple(call.args),
        call.kwargs,
        context.flow_run,
        context.task_run,
        context.registry.url,
        (context.flow_run_context.log_prints, context.log_prints),
    )
    try:
        return pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise UsageError(
            f"task {context.task.options.name!r} cannot be sent to a process: {error}",
            hint="its arguments must pickle, and it must be defined at the top of a module",
        ) from error


def _with_time_left(order: bytes, deadline: Deadline | None) -> bytes:
    time_left = (deadline.noun, deadline.seconds, deadline.remaining()) if deadline else None
    return pickle.dumps((order, time_left), pickle.HIGHEST_PROTOCOL)


def _value_of(outcome: bytes, call: Call) -> object:
    """Return what the function returned in the child, or raise what it raised.

    Raises:
        RemoteError: It cannot be made here of what the child has pickled.
    """
    try:
        is_error, value = pickle.loads(outcome)  # noqa: S301 - from our own child, by its own pipe
    except Exception as error:
        raise RemoteError(
            f"the result of task run {call.context.run.name!r} cannot be unpickled: {error}",
            hint="return plain data, or write it to a file and return its path",
        ) from error
    if is_error:
        raise value
    result: object = value
    return result


def _exit_text(process: BaseProcess) -> str:
    code = process.exitcode
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _serve(connection: Connection, shown_level: int) -> None:
    """Run orders until the parent closes the connection; the child's main function."""
    # Ctrl-C reaches the whole foreground group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="prefectlite-parent", daemon=True).start()
    logs.set_up()
    logs.show_from(shown_level)
    prints.capture()
    follow_threads()
    connection.send_bytes(b"ready")
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
        pickled, time_left = pickle.loads(message)  # noqa: S301 - from our own parent, by its pipe
        order: _Order = pickle.loads(pickled)  # noqa: S301 - as above
    except Exception as error:  # noqa: BLE001 - the import of user code raises what it likes
        return _pickled_error(error)
    registry = open_registry(order.registry_url)
    flow = FlowRunContext(None, order.flow_run, registry, log_prints=order.log_prints[0])
    context = TaskRunContext(
        order.task, order.task_run, flow, parent=flow, log_prints=order.log_prints[1]
    )
    if time_left is not None:
        noun, seconds, remaining = time_left
        context.deadline = Deadline(noun, seconds, monotonic() + remaining)
    try:
        value = call_here(
            Call(order.task.fn, order.args, dict(order.kwargs), context, order.task.kind)
        )
    except BaseException as error:  # noqa: BLE001 - it is handed to the parent, whatever it is
        return _pickled_error(error)
    finally:
        _flush(registry)
    try:
        return pickle.dumps((False, value), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - the import of user code raises what it likes
        return _pickled_error(
            RemoteError(
                f"the result of task run {order.task_run.name!r} cannot be pickled: {error}",
                hint="return plain data, or write it to a file and return its path",
            )
        )


def _flush(registry: Registry) -> None:
    try:
        registry.flush_logs()
    except RegistryError as error:  # the parent will meet it too, when it records the outcome
        logs.report(error)


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
