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
from prefectlite.futures import blocking
from prefectlite.interruptions import AbandonedError
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
            for _ in range(self._threads):
                self._queue.put(None)

    def _put(self, item: Callable[[], None]) -> None:
        with self._lock:
            self._unfinished += 1
            self._add_thread_if_needed()
        self._queue.put(item)

    def _add_thread_if_needed(self) -> None:
        if self._threads < min(self._unfinished, self._room):
            self._threads += 1
            thread = threading.Thread(target=self._serve, name="prefectlite-task", daemon=True)
            # In an empty context: the thread serves many task runs and belongs to none.
            Context().run(thread.start)

    def _serve(self) -> None:
        blocking.enter = self._make_room
        while (item := self._queue.get()) is not None:
            try:
                item()
            except AbandonedError:
                return  # _replace_thread has counted this one out
            with self._lock:
                self._unfinished -= 1

    @contextmanager
    def _make_room(self) -> Iterator[None]:
        """Let one more task run while this thread waits for one, which may be in the queue."""
        with self._lock:
            self._room += 1
            self._add_thread_if_needed()
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
        thread_call = ThreadCall(call, lambda: self._replace_thread(work, call))
        self._calls.add(thread_call)
        try:
            return thread_call.run(self._call)
        finally:
            self._calls.discard(thread_call)

    def _call(self, call: Call) -> object:
        return call_here(call)

    def _replace_thread(self, work: Work, call: Call) -> None:
        """Go on with work in another thread, instead of the one that hangs in ``call``."""
        error = TimeoutInterrupt(call.deadline)
        with self._lock:
            self._threads -= 1
            self._unfinished -= 1
        self._put(lambda: work.run(self._performer(work), error=error))


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
        return worker.call(call)


def _checked_workers(max_workers: int | None, default: int) -> int:
    if max_workers is None:
        return default
    given: object = max_workers
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise UsageError(f"max_workers={max_workers!r} is not a whole number of at least 1")
    return max_workers
