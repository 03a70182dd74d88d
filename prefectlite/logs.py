"""Log records of runs: to standard error for people, to the registry for everyone else.

``get_run_logger`` and ``prints`` make records, the engine adds its own. Where a program has added
handlers or filters to the logger ``prefectlite`` or below, they are ``logging.LogRecord`` and go
through all of the standard ``logging``; else they go to the two places directly, at a third of the
cost. The registry gets them with its next write, or from a writer thread that sleeps while nothing
is logged. A record that cannot be shown or stored must never break the code that logged it.
"""

from __future__ import annotations

import _thread
import logging
import os
import sys
import threading
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, TextIO

from prefectlite.context import RunContext, TaskRunContext, current
from prefectlite.daemon_threads import start_daemon_thread
from prefectlite.errors import MissingContextError, RegistryError
from prefectlite.forks import here
from prefectlite.records import LogLine
from prefectlite.registry import Registry
from prefectlite.settings import PREFECTLITE_LOGGING_LEVEL
from prefectlite.terminals import has_color

engine_logger = logging.getLogger("prefectlite.engine")
flow_run_logger = logging.getLogger("prefectlite.flow_runs")
task_run_logger = logging.getLogger("prefectlite.task_runs")
_logger = logging.getLogger("prefectlite")

# A line must be on record 50 ms after it was logged, even if the process is then killed. The wait
# gathers lines: one commit for each would cost ten times as much.
_LINGER_SECONDS = 0.02
# How long a fork waits for a line that another thread writes.
_FORK_SECONDS = 1.0

# Registries keep whole numbers of 64 bits at most; one that they refuse would hold up all others.
_MAX_LEVEL = 1_000_000

#: What begins each line of the console that a supervisor is not to take for output of the run.
_MARK = "\x1e"

_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}
_RESET = "\x1b[0m"


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records belong to one run."""

    def __init__(self, logger: logging.Logger, run: RunContext) -> None:
        super().__init__(logger, {})
        self._run = run

    def process(
        self,
        msg: Any,  # noqa: ANN401 - logging's signature
        kwargs: MutableMapping[str, Any],
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the run to the record, beside the caller's own ``extra``."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "run": self._run}
        return msg, kwargs

    def log(
        self,
        level: int,
        msg: object,
        *args: object,
        **kwargs: Any,  # noqa: ANN401 - logging's signature
    ) -> None:
        """Log a message, as every other method does through this one."""
        logger = self.logger
        if not logger.isEnabledFor(level):
            return
        if not kwargs and not _has_company(logger):
            try:
                message = str(msg) % args if args else str(msg)
            except Exception:  # noqa: BLE001, S110 - told below, with the line of code
                pass
            else:
                _deliver(self._run, logger.name, level, message, time.time())
                return
        # logging looks for the caller's frame, and this one lies between.
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        super().log(level, msg, *args, **kwargs)


def get_run_logger() -> RunLogger:
    """Return a logger for the task run, else the flow run, that this code is in.

    Raises:
        MissingContextError: The code is in no run.
    """
    context = current()
    if context is None:
        raise MissingContextError(
            "there is no run to log for: get_run_logger was called outside of a flow or task",
            hint="use logging.getLogger there, or move the call into the function",
        )
    return logger_of(context)


def logger_of(context: RunContext) -> RunLogger:
    """Return a logger for a run."""
    is_task = isinstance(context, TaskRunContext)
    return RunLogger(task_run_logger if is_task else flow_run_logger, context)


def record(
    context: RunContext, level: int, message: str, *, logger: logging.Logger | None = None
) -> None:
    """Log a message for a run, by the shortest way; for the engine and for prints.

    Args:
        logger: The run's own kind of logger, where none is given.
    """
    if logger is None:
        logger = task_run_logger if isinstance(context, TaskRunContext) else flow_run_logger
    if not logger.isEnabledFor(level):
        return
    if _has_company(logger):
        logger.handle(RunRecord(context, logger.name, level, message))
    else:
        _deliver(context, logger.name, level, message, time.time())


def _has_company(logger: logging.Logger) -> bool:
    """Return whether a record of a run would get anywhere else than to our own two handlers."""
    return bool(
        logger.handlers
        or logger.filters
        or not logger.propagate
        or _logger.handlers != _HANDLERS
        or _logger.filters
        or _logger.propagate
        or _CONSOLE.filters
        or _CONSOLE.level
        or _REGISTRY.filters
        or _REGISTRY.level
    )


def _deliver(run: RunContext, logger: str, level: int, message: str, created: float) -> None:
    _show(run, logger, level, message, created)
    _keep(run, logger, level, message, created)


class RunRecord(logging.LogRecord):
    """A record of a run that is made by prefectlite itself, whose line of code matters to nobody.

    Made without ``LogRecord.__init__``, which costs as much as all the rest of a record's way.
    """

    def __init__(self, run: RunContext, name: str, level: int, message: str) -> None:
        created = time.time()
        self.__dict__.update(
            _NO_PLACE,
            run=run,
            name=name,
            msg=message,
            levelno=level,
            levelname=logging.getLevelName(level),
            created=created,
            msecs=int((created - int(created)) * 1000) + 0.0,
            thread=_thread.get_ident(),
            process=here.pid,
        )


# What a logging.LogRecord has beside what RunRecord sets, as of Python 3.12.
_NO_PLACE: dict[str, object] = {
    "args": (),
    "pathname": "",
    "filename": "",
    "module": "",
    "lineno": 0,
    "funcName": "",
    "exc_info": None,
    "exc_text": None,
    "stack_info": None,
    "relativeCreated": 0.0,
    "threadName": None,
    "processName": None,
    "taskName": None,
}


class ConsoleHandler(logging.Handler):
    """Shows records on standard error, as ``21:31:37.513 | INFO    | Flow run 'x' - hello``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a standard error that is closed or full loses it silently."""
        run: object = getattr(record, "run", None)
        own = run if isinstance(run, RunContext) else None
        _show(own, record.name, record.levelno, _message(record), record.created)


class RegistryHandler(logging.Handler):
    """Adds the records of runs to the registry, in order."""

    def emit(self, record: logging.LogRecord) -> None:
        """Add one record to those that the next write takes along."""
        run: object = getattr(record, "run", None)
        if isinstance(run, RunContext):
            _keep(run, record.name, record.levelno, _message(record), record.created)


_CONSOLE, _REGISTRY = ConsoleHandler(), RegistryHandler()
_HANDLERS: list[logging.Handler] = [_CONSOLE, _REGISTRY]


def set_up() -> None:
    """Add our handlers to the ``prefectlite`` logger and set its level. Safe to call again."""
    if _REGISTRY not in _logger.handlers:
        _logger.addHandler(_CONSOLE)
        _logger.addHandler(_REGISTRY)
        _logger.propagate = False
    level = PREFECTLITE_LOGGING_LEVEL.value()
    if _logger.level != level:  # else logging forgets what it knows of every logger
        _logger.setLevel(level)


class _Console:
    """How lines are shown."""

    mark = ""
    level = logging.NOTSET


class _Stream:
    """The right to write to the console: no process is forked in the middle of a line.

    Else the child would find the stream's own lock held by a thread that it does not have, for ever.
    """

    def __init__(self) -> None:
        self.renew()
        self._forking = threading.local()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._hold, after_in_parent=self._let_go, after_in_child=self.renew
            )

    def renew(self) -> None:
        """Have a lock that nobody holds."""
        self.lock = threading.RLock()  # a handler of a signal may log in the middle of a line

    def _hold(self) -> None:
        # Who does not read what a thread writes must not keep the process from forking.
        self._forking.is_held = self.lock.acquire(timeout=_FORK_SECONDS)

    def _let_go(self) -> None:
        if self._forking.is_held:
            self.lock.release()


_stream = _Stream()


def mark_lines() -> None:
    """Mark from now on what is shown, for a supervisor: the registry has it already."""
    _Console.mark = _MARK


def show_from(level: int) -> None:
    """Show from now on only what has at least this level; everything is recorded all the same."""
    _Console.level = level


def shown_level() -> int:
    """Return the least level that is shown."""
    return _Console.level


def _show(run: RunContext | None, logger: str, level: int, message: str, created: float) -> None:
    stream = sys.stderr
    if stream is None or level < _Console.level:
        return
    if run is None or logger == engine_logger.name:
        source = logger
    elif isinstance(run, TaskRunContext):
        source = f"Task run {run.task_run.name!r}"
    else:
        source = f"Flow run {run.flow_run.name!r}"
    line = f"{_clock_text(created)} | {logging.getLevelName(level):<7} | {source} - {message}"
    try:
        if level in _COLOURS and has_color(sys.stderr):
            line = f"{_COLOURS[level]}{line}{_RESET}"
        if _Console.mark:
            line = _Console.mark + line.replace("\n", f"\n{_Console.mark}")
        with _stream.lock:
            _write_line(stream, line)
    except Exception:  # noqa: BLE001 - a stream of the program's own raises what it likes
        return


def _write_line(stream: TextIO, line: str) -> None:
    try:
        stream.write(line + "\n")
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    if not getattr(stream, "line_buffering", False):
        stream.flush()


def _keep(run: RunContext, logger: str, level: int, message: str, created: float) -> None:
    task_run_id = run.task_run.id if isinstance(run, TaskRunContext) else None
    moment = datetime.fromtimestamp(created, UTC)
    if not -_MAX_LEVEL <= level <= _MAX_LEVEL:
        level = max(-_MAX_LEVEL, min(level, _MAX_LEVEL))
    registry = run.registry
    try:
        registry.add_log_line(LogLine(run.flow_run.id, task_run_id, level, logger, message, moment))
    except RegistryError as error:
        report(error)
    _writer.wake(registry)


class _Writer:
    """The thread that puts lines on record when nothing else writes."""

    def __init__(self) -> None:
        self._due: Registry | None = None
        self._process: int | None = None
        self._registry: Registry | None = None
        self._wakes: SimpleQueue[Registry] = SimpleQueue()
        self._starting = _thread.allocate_lock()

    def wake(self, registry: Registry) -> None:
        """Have the registry flushed a moment from now."""
        self._registry = registry
        if self._process is None:
            with self._starting:
                self._start()
        if self._process != here.pid:
            # A forked child mostly ends by os._exit, which waits for no thread of ours.
            _flush(registry)
        elif self._due is not registry:
            self._due = registry
            self._wakes.put(registry)

    def _start(self) -> None:
        if self._process is not None:  # another thread was first
            return
        # Not before there is a registry: what is registered last is called first, and once the
        # registry has made itself ready for a fork, it can write no more until that is over.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self.hurry)
        start_daemon_thread(self._run)
        self._process = here.pid

    def hurry(self) -> None:
        """Flush now: what a forked child logs comes after what its parent has logged."""
        if self._registry is not None:
            _flush(self._registry)

    def _run(self) -> None:
        while True:
            registry = self._wakes.get()
            # Who logs much writes by himself: then those that wait are young, and it is better not
            # to compete with him for the interpreter.
            while (waited := registry.unrecorded_seconds()) is not None:
                if waited >= _LINGER_SECONDS:
                    break
                time.sleep(_LINGER_SECONDS - waited)
            if self._due is registry:  # else another one is, and this one may be woken for twice
                self._due = None
            _flush(registry)


def _flush(registry: Registry) -> None:
    try:
        registry.flush_logs()
    except RegistryError as error:
        report(error)


_writer = _Writer()
_reported: set[str] = set()


def report(error: RegistryError) -> None:
    """Say once on standard error that log lines are not being recorded."""
    text = f"log lines are not being recorded: {error}"
    if text not in _reported and sys.stderr is not None:
        _reported.add(text)
        try:
            sys.stderr.write(text + "\n")
        except (OSError, ValueError):
            return


def _message(record: logging.LogRecord) -> str:
    """Return the message with its traceback, if it has one."""
    try:
        message = record.getMessage() if record.args else str(record.msg)
        if record.exc_info:
            message = f"{message}\n{logging.Formatter().formatException(record.exc_info)}"
    except Exception as error:  # noqa: BLE001 - of a user's __str__, or arguments that do not fit
        told = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        place = f"{record.pathname}:{record.lineno}"
        return f"{told} (cannot be formatted, at {place}: {type(error).__name__})"
    return f"{message}\n{record.stack_info}" if record.stack_info else message


class _ClockText:
    """The local time of day, formatted once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._text = time.strftime("%H:%M:%S", time.localtime(second))
            self._second = second
        return f"{self._text}.{int((created - second) * 1000):03d}"


_clock_text = _ClockText()
