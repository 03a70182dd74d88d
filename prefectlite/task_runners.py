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
from prefectlite.futures import AsyncTaskFuture, TaskFuture
from prefectlite.interruptions import AbandonedError, call_at
from prefectlite.latches import Latch, blocking
from prefectlite.logs import logger_of
from prefectlite.process_workers import ProcessWorker
from prefectlite.thread_calls import ThreadCall
from prefectlite.timeouts import TimeoutInterrupt

#: How many threads a ConcurrentTaskRunner uses at most, where it is not told.
DEFAULT_THREADS = 64
# A call that is over at once, and how many in a row tell that the next will be.
_QUICK_SECONDS = 0.0001
_QUICK_IN_A_ROW = 32
# How long what was put off has to wait, should it not be so.
_LOOK_SECONDS = 0.002


class Work(Protocol):
    """One task run, ready to be run."""

    @property
    def flow_run_id(self) -> str:
        """Of which flow run it is."""

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

    Where tasks take no time, what costs is to wake a thread, and threads that want the interpreter at the
    same moment. So after some such tasks one thread serves the queue alone, and who waits for a task is
    woken a moment later, unless a call turns out to take long.

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
        # What threads of this runner wait for.
        self._waited_for: list[Latch] = []
        self._flow_run_id = ""
        # How many calls in a row were over at once, and how often a thread came back from one.
        self._quick_calls = self._returns = 0
        self._is_looked_after = False
        self._returns_at_look = 0
        # What wakes who waits for a task that has ended, and is not woken yet.
        self._wakes: deque[Callable[[], None]] = deque()
        self._is_shut = False
        self._interrupted = threading.Event()
        self._calls: set[ThreadCall] = set()

    def duplicate(self) -> ConcurrentTaskRunner:
        """Return a new runner with the same options, for another flow run."""
        return type(self)(self.max_workers)

    def submit(self, work: Work) -> None:
        """Queue work; it runs when fewer than ``max_workers`` tasks do."""
        self._flow_run_id = work.flow_run_id
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

        One is enough: before it does what may take long, it calls the next. So a few threads serve
        tasks that take no time; if all did, each would wait for the interpreter at every step.
        """
        if not self._queue or self._free or not (self._sleeping or self._threads < self._room):
            return
        if self._is_quick and self._look_later():
            return
        with suppress(RuntimeError):  # no thread is to be had: the others will come by
            self._call_thread()

    @property
    def _is_quick(self) -> bool:
        """Whether the next call will be over at once, as it seems."""
        return self._quick_calls >= _QUICK_IN_A_ROW

    def _look_later(self) -> bool:
        """See to it that what was put off is done in a moment; return False where that cannot be."""
        if not self._is_looked_after:
            try:
                call_at(monotonic() + _LOOK_SECONDS, self._look)
            except RuntimeError:  # no thread is to be had for that
                return False
            self._is_looked_after, self._returns_at_look = True, self._returns
        return True

    def _look(self) -> None:
        """Do what was put off; on the timer's thread."""
        with self._lock:
            self._is_looked_after = False
            if self._returns == self._returns_at_look:  # that call takes its time
                self._quick_calls = 0
            self._see_to_queue()
        self._wake_all()  # not before: what is put off from here on is looked after again

    def _wake(self, wake: Callable[[], None]) -> None:
        """Wake who waits for a task that has ended; later, where the next ones will have by then."""
        with self._lock:
            if self._is_quick and self._queue and self._look_later():
                self._wakes.append(wake)
                return
        wake()

    def _wake_all(self) -> None:
        while self._wakes:
            with suppress(IndexError):  # another thread was first
                self._wakes.popleft()()

    def _call_thread(self) -> None:
        if self._sleeping:
            self._sleeping.pop().release()
        else:
            _start_thread(self._serve)
            self._threads += 1
        self._free += 1

    def _serve(self) -> None:
        blocking.enter, blocking.aside = self._make_room, self._aside
        blocking.wake = self._wake
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
                is_one_too_many = self._is_quick and self._free > 1
                if self._queue and not is_spare and not is_one_too_many:
                    return self._queue.popleft()
                self._free -= 1
                if self._is_shut or is_spare:
                    self._threads -= 1
                    self._see_to_queue()
                    return None
                call = _thread.allocate_lock()
                call.acquire()
                self._sleeping.append(call)
            self._wake_all()
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
        blocking.aside_since = monotonic()
        with self._lock:
            self._free -= 1
            self._see_to_queue()

    def _come_back(self) -> None:
        blocking.is_aside = False
        was_quick = monotonic() - blocking.aside_since < _QUICK_SECONDS
        with self._lock:
            self._free += 1
            self._returns += 1
            self._quick_calls = self._quick_calls + 1 if was_quick else 0

    @contextmanager
    def _make_room(self, latch: Latch) -> Iterator[None]:
        """Let one more task run while this thread waits for one, which may be in the queue.

        Raises:
            RuntimeError: It would wait for ever: no thread is left for the queue, nor to be had.
        """
        with self._lock:
            self._room += 1
            self._waited_for.append(latch)
            self._quick_calls = 0
            self._see_to_queue()
            is_stuck = self._is_stuck()
        try:
            if is_stuck:
                raise RuntimeError(
                    "each thread of the task runner waits for another task, and the machine has no more"
                    " threads to give: is a limit reached? see ulimit -u"
                )
            with self._aside():
                yield
        finally:
            with self._lock:
                self._room -= 1
                self._waited_for.remove(latch)

    def _is_stuck(self) -> bool:
        """Return whether no thread will ever come by the queue."""
        if not self._queue or self._free:
            return False
        # Who waits for something else, such as the end of a pause, or a task of a subflow, comes back.
        stuck = [each for each in self._waited_for if not each.is_done and self._is_own(each)]
        return len(stuck) >= self._threads

    def _is_own(self, latch: Latch) -> bool:
        if not isinstance(latch, TaskFuture) or isinstance(latch, AsyncTaskFuture):
            return False
        return latch.task_run.flow_run_id == self._flow_run_id

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
