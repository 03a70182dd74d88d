"""Where submitted tasks run: in the caller, in threads, or in processes.

A runner gets work (the engine's steps for one task run) and runs it to its end. One instance serves
one flow run; the engine makes it at the first ``submit`` and shuts it down with the run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from queue import SimpleQueue
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
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0
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
            for _ in range(self._threads):
                self._queue.put(None)

    def _put(self, item: Callable[[], None]) -> None:
        with self._lock:
            if self._is_shut:
                # What rested on a thread that was given up on; the others may have ended.
                _start_thread(lambda: self._has_served(item))
                return
            self._add_thread_if_needed(self._unfinished + 1)
            self._unfinished += 1
            self._queue.put(item)  # inside the lock, so that it is before what shutdown puts

    def _add_thread_if_needed(self, unfinished: int) -> None:
        if self._threads < min(unfinished, self._room) and not self._is_shut:
            _start_thread(self._serve)
            self._threads += 1

    def _serve(self) -> None:
        while True:
            item = self._queue.get()
            if item is None or not self._has_served(item):
                return
            del item  # with the task's arguments and result, while this thread is idle

    def _has_served(self, item: Callable[[], None]) -> bool:
        """Run one item; return whether this thread is to take another."""
        blocking.enter = self._make_room
        try:
            item()
        except AbandonedError:
            return False  # _replace_thread has counted this one out
        except BaseException:  # noqa: BLE001, S110 - who waits for the future was told
            pass
        with self._lock:
            self._unfinished -= 1
            # One that was added while another waited is not needed any more.
            is_spare = self._threads > self._room and not self._is_shut
            self._threads -= is_spare
        return not is_spare

    @contextmanager
    def _make_room(self) -> Iterator[None]:
        """Let one more task run while this thread waits for one, which may be in the queue."""
        with self._lock:
            self._room += 1
            self._add_thread_if_needed(self._unfinished)
        try:
            yield
        finally:
            with self._lock:
                self._room -= 1

    def _performer(self, work: Work) -> Perform:
        def perform(effect: Effect) -> object:
            if self._interrupted.is_set():
                raise TimeoutInterrupt
            if isinstance(effect, Call):
                return self._perform_call(effect, work)
            if isinstance(effect, Sleep):
                if self._interrupted.wait(effect.seconds):
                    raise TimeoutInterrupt
                return None
            return perform_here(effect)

        return perform

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
            self._unfinished -= 1
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
