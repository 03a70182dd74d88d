"""Where submitted tasks run: in the caller, in threads, or in processes.

A runner gets work (the engine's steps for one task run) and runs it to its end. One instance serves
one flow run; the engine makes it at the first ``submit`` and shuts it down with the run.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Protocol

from prefectlite.clock import monotonic
from prefectlite.drivers import Call, Effect, Perform, Sleep, call_here, perform_here
from prefectlite.errors import UsageError
from prefectlite.interruptions import AbandonedError
from prefectlite.latches import blocking
from prefectlite.logs import logger_of
from prefectlite.process_workers import ProcessWorker
from prefectlite.thread_calls import ThreadCall
from prefectlite.timeouts import TimeoutInterrupt

#: How many threads a ConcurrentTaskRunner uses at most, where it is not told.
DEFAULT_THREADS = 64


class Work(Protocol):
    """One task run, ready to be run."""

    def run(self, perform: Perform, *, error: BaseException | None = None) -> None:
        """Run it to its end; with ``error``, from the effect whose outcome that is."""


class TaskRunner:
    """What the engine asks of a runner; also the runner that needs nothing more."""

    def duplicate(self) -> TaskRunner:
        """Return a new runner with the same options, for another flow run."""
        return type(self)()

    def submit(self, work: Work) -> None:
        """Run work, now or when there is room."""
        work.run(perform_here)

    def interrupt(self) -> None:
        """End what runs, with ``TimeoutInterrupt``, and do not wait for it."""

    def shutdown(self) -> None:
        """Let go of threads and processes; nothing is submitted any more."""


class SequentialTaskRunner(TaskRunner):
    """Runs each task when it is submitted, in the caller's thread, one after the other."""


class ConcurrentTaskRunner(TaskRunner):
    """Runs tasks in threads of this process; for tasks that wait for files, networks, programs.

    Args:
        max_workers: How many tasks run at once, at most. A task that waits for another task's
            future does not count.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        self.max_workers = _checked_workers(max_workers, DEFAULT_THREADS)
        self._lock = threading.Lock()
        self._queue: deque[Callable[[], None]] = deque()
        self._threads = 0
        # Those that are on their way to the queue: awake, and with nothing before it that takes long.
        self._free = 0
        # Of each that sleeps, the lock that is released to wake it; who slept last is woken first.
        self._sleeping: list[_thread.LockType] = []
        self._room = self.max_workers
        self._is_shut = False
        self._interrupted = threading.Event()
        self._calls: set[ThreadCall] = set()

    def duplicate(self) -> ConcurrentTaskRunner:
        """Return a new runner with the same options, for another flow run."""
        return type(self)(self.max_workers)

    def submit(self, work: Work) -> None:
        """Queue work; it runs when fewer than ``max_workers`` tasks do."""
        self._put(lambda: work.run(self._performer(work)))

    def interrupt(self) -> None:
        """Interrupt the calls that run; those that do not come back are abandoned."""
        self._interrupted.set()
        for call in list(self._calls):
            call.end_at(monotonic())

    def shutdown(self) -> None:
        """End the threads when they have run what is queued."""
        with self._lock:
            self._is_shut = True
            while self._sleeping:
                self._call_thread()

    def _put(self, item: Callable[[], None]) -> None:
        with self._lock:
            if not self._threads:
                self._call_thread()
            self._queue.append(item)
            self._see_to_queue()

    def _see_to_queue(self) -> None:
        """Have a thread on its way to the queue, if there is something in it and room for one more.

        One is enough: before it does what may take long, it calls the next. So two or three threads
        serve tasks that take no time; if all did, each would wait for the interpreter at every step.
        """
        if self._queue and not self._free and (self._sleeping or self._threads < self._room):
            with suppress(RuntimeError):  # no thread is to be had: the others will come by
                self._call_thread()

    def _call_thread(self) -> None:
        if self._sleeping:
            self._sleeping.pop().release()
        else:
            _start_thread(self._serve)
            self._threads += 1
        self._free += 1

    def _serve(self) -> None:
        blocking.enter, blocking.aside = self._make_room, self._aside
        while (item := self._next_item()) is not None:
            try:
                item()
            except AbandonedError:
                with self._lock:  # which has been counted out of the threads by _replace_thread
                    self._free -= 1
                    self._see_to_queue()
                return
            except BaseException:  # noqa: BLE001, S110 - who waits for the future was told
                pass
            del item  # with the task's arguments and result, while this thread is idle

    def _next_item(self) -> Callable[[], None] | None:
        """Return what is next in the queue, once there is something; None where the thread is to end."""
        while True:
            with self._lock:
                # One that was added while another waited is not needed any more.
                is_spare = self._threads > self._room
                if self._queue and not is_spare:
                    return self._queue.popleft()
                self._free -= 1
                if self._is_shut or is_spare:
                    self._threads -= 1
                    self._see_to_queue()
                    return None
                call = _thread.allocate_lock()
                call.acquire()
                self._sleeping.append(call)
            call.acquire()

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Leave the queue to other threads while this one does what may take long."""
        if blocking.is_aside:
            yield
            return
        self._step_aside()
        try:
            yield
        finally:
            self._come_back()

    def _step_aside(self) -> None:
        blocking.is_aside = True
        with self._lock:
            self._free -= 1
            self._see_to_queue()

    def _come_back(self) -> None:
        blocking.is_aside = False
        with self._lock:
            self._free += 1

    @contextmanager
    def _make_room(self) -> Iterator[None]:
        """Let one more task run while this thread waits for one, which may be in the queue.

        Raises:
            RuntimeError: It would wait for ever: no thread is left for the queue, nor to be had.
        """
        with self._lock:
            self._room += 1
            self._see_to_queue()
            waiting = self._room - self.max_workers
            is_last = bool(self._queue) and not self._free and waiting >= self._threads
        try:
            if is_last:
                raise RuntimeError("every thread waits for a task, and no more are to be had")
            with self._aside():
                yield
        finally:
            with self._lock:
                self._room -= 1

    def _performer(self, work: Work) -> Perform:
        def perform(effect: Effect) -> object:
            self._step_aside()
            try:
                return self._perform(effect, work)
            finally:
                self._come_back()

        return perform

    def _perform(self, effect: Effect, work: Work) -> object:
        if self._interrupted.is_set():
            raise TimeoutInterrupt
        if isinstance(effect, Call):
            return self._perform_call(effect, work)
        if isinstance(effect, Sleep):
            if self._interrupted.wait(effect.seconds):
                raise TimeoutInterrupt
            return None
        return perform_here(effect)

    def _perform_call(self, call: Call, work: Work) -> object:
        thread_call = ThreadCall(call, lambda place: self._replace_thread(work, call, place))
        self._calls.add(thread_call)
        if self._interrupted.is_set():  # since the last look
            thread_call.end_at(monotonic())
        try:
            return thread_call.run(self._call)
        finally:
            self._calls.discard(thread_call)

    def _call(self, call: Call) -> object:
        return call_here(call)

    def _replace_thread(self, work: Work, call: Call, place: str) -> None:
        """Go on with work in another thread, instead of the one that hangs in ``call``."""

        def go_on() -> None:
            logger_of(call.context).warning(
                "The thread does not stop when it is told to; the run goes on without it. It hangs"
                " at %s",
                place,
            )
            work.run(self._performer(work), error=TimeoutInterrupt(call.deadline))

        with self._lock:
            self._threads -= 1
        self._put(go_on)


class ProcessPoolTaskRunner(ConcurrentTaskRunner):
    """Runs tasks in processes; for tasks that compute, and for tasks that must be killed in time.

    Tasks must be importable by name, and their arguments and results must pickle. A process that
    is past a task's deadline is killed. A program that starts one runs its flow under
    ``if __name__ == "__main__":``, because each process imports the program's main file.

    Args:
        max_workers: How many processes run at once, at most; as many as there are processors.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__(_checked_workers(max_workers, os.cpu_count() or 1))
        self._workers: dict[int, ProcessWorker] = {}

    def interrupt(self) -> None:
        """Kill the processes that run a task."""
        self._interrupted.set()
        for worker in list(self._workers.values()):
            worker.kill()

    def shutdown(self) -> None:
        """End the threads and their processes."""
        super().shutdown()
        for worker in list(self._workers.values()):
            worker.close()

    def _perform_call(self, call: Call, work: Work) -> object:
        # The thread does not hang: it waits for the process until the deadline and kills it then.
        del work
        return self._call(call)

    def _call(self, call: Call) -> object:
        thread = threading.get_ident()
        worker = self._workers.get(thread)
        if worker is None or not worker.is_alive:
            worker = self._workers[thread] = ProcessWorker()
        if self._interrupted.is_set():  # since the last look
            worker.kill()
        return worker.call(call)


def _start_thread(target: Callable[[], object]) -> None:
    thread = threading.Thread(target=target, name="prefectlite-task", daemon=True)
    # In an empty context: the thread serves many task runs and belongs to none.
    Context().run(thread.start)


def checked_runner(runner: object) -> object:
    """Return a ``task_runner`` option if it is one: a runner, or a class of them, or None.

    Raises:
        UsageError: It is not.
    """
    is_class = isinstance(runner, type) and issubclass(runner, TaskRunner)
    if runner is None or is_class or isinstance(runner, TaskRunner):
        return runner
    raise UsageError(
        f"task_runner={runner!r} is not a task runner",
        hint="take one of prefectlite.task_runners, such as ConcurrentTaskRunner(max_workers=4)",
    )


def _checked_workers(max_workers: int | None, default: int) -> int:
    if max_workers is None:
        return default
    given: object = max_workers
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise UsageError(f"max_workers={max_workers!r} is not a whole number of at least 1")
    return max_workers
