"""The states that a flow run, its task runs and its subflow runs take, as JSON lines as it goes.

``prefectlite run --events``. A thread follows the registry and not the engine, so that a line says
what is on record, whoever did it: a process of a task runner, or another shell that pauses the run. It
goes by the history of each run, so that a state which lasts for less than a look is not lost. Whoever
reads the lines may go away, and the run waits for a slow reader only at its end. A line is

``{"event": "task_run.state", "time": "2024-02-29T21:31:37.513000+00:00", "flow_run_id": "...",
"task_run_id": "...", "parent_flow_run_id": null, "parent_task_run_id": null, "name": "add-0",
"flow_name": "total", "task_name": "add", "version": 1, "state": {"type": "RUNNING", "name":
"Running", "message": null}, "actor": "me@myhost:4711"}``

``flow_run.state`` has no ``task_run_id`` and ``task_name``. ``version`` counts the states of a run: each
comes once, and in this order. Across runs they come by time, unless one took long to get on record; the
first of a flow run is before those of its task runs all the same, and its last one after them.
"""

from __future__ import annotations

import json
import os
import select
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from prefectlite import console
from prefectlite.clock import EPOCH, monotonic, now
from prefectlite.errors import NotFoundError, OutputClosedError, OutputError, PrefectLiteError
from prefectlite.filesystems import is_open_already
from prefectlite.output_files import refuse_registry_file
from prefectlite.records import FlowRun, StateChange, TaskRun, iso_text
from prefectlite.registry import Registry, open_registry
from prefectlite.run_filters import FlowRunFilter, TaskRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY

Run = TypeVar("Run", FlowRun, TaskRun)

# A look at a registry that nobody has written to takes 3 microseconds. After one that takes longer,
# since there is much to tell or many runs are open, it rests for as long as that took.
_LOOK_SECONDS = 0.05
# From the moment of a state to its commit: what is younger waits for the next look, so that what
# another thread commits meanwhile, and is older, comes first.
_COMMIT_TIME = timedelta(milliseconds=20)
# What is so far ahead was told by a clock that has been set back since.
_SET_BACK_TIME = timedelta(seconds=1)
_MORE_RUNS = 50
# What a reader gets for the last lines where the run was interrupted twice.
_INTERRUPTED_SECONDS = 1.0


class RunEvents:
    """Where the lines go.

    Args:
        descriptor: Of a file that is open.
        is_kept: Whether what it holds already stays, when the first run is followed.

    Attributes:
        error: Why they could not be written, or the registry not read; None while all is well.
    """

    def __init__(self, descriptor: int, *, is_kept: bool = True) -> None:
        self.error: PrefectLiteError | None = None
        self._descriptor = descriptor
        self._is_kept = is_kept
        self._thread: threading.Thread | None = None

    def write(self, events: Iterable[dict[str, object]]) -> None:
        """Write lines, at once; once that has failed, nothing."""
        data = "".join(f"{json.dumps(event)}\n" for event in events).encode()
        try:
            while data and self.error is None:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # whoever made the pipe does not want to be blocked
                    self._wait_for_room()
        except BrokenPipeError:
            self.error = OutputClosedError("the reader of the events has gone")
        except OSError as error:
            self.error = OutputError(f"cannot write the events: {error.strerror or error}")

    def _wait_for_room(self) -> None:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLOUT)
        waiting.poll()  # ends, too, where the reader has gone

    @contextmanager
    def following(self, request: _Source) -> Iterator[None]:
        """Write what becomes of a request's flow run meanwhile, to the last state on record."""
        has_ended = threading.Event()
        self._empty()

        def follow() -> None:
            follower = EventFollower(request)
            interval, is_last = 0.0, False
            while not is_last and self.error is None:
                is_last = has_ended.wait(interval)
                began = monotonic()
                try:
                    self.write(follower.events(is_last=is_last))
                except PrefectLiteError as error:
                    self.error = error
                interval = max(_LOOK_SECONDS, monotonic() - began)

        self._thread = threading.Thread(target=follow, name="prefectlite-events", daemon=True)
        self._thread.start()
        deadline = None
        try:
            yield
        except BaseException:
            deadline = monotonic() + _INTERRUPTED_SECONDS
            raise
        finally:
            has_ended.set()
            while self._thread.is_alive() and (deadline is None or monotonic() < deadline):
                self._thread.join(_LOOK_SECONDS)  # a signal that comes just before it is noticed

    def _empty(self) -> None:
        """Empty an earlier file, now that there is something to write to it."""
        if not self._is_kept and stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            try:
                os.ftruncate(self._descriptor, 0)
            except OSError as error:
                self.error = OutputError(f"cannot write the events: {error.strerror or error}")

    def close(self) -> None:
        """Close the descriptor."""
        # Not where Ctrl-C has ended the wait for a reader: another file could get its number.
        if self._thread is None or not self._thread.is_alive():
            os.close(self._descriptor)


@contextmanager
def open_events(target: str) -> Iterator[RunEvents]:
    """Open a file for events, or stdout as it now is for ``-``.

    An earlier file is emptied no sooner than there is a run to follow.

    Raises:
        OutputError: It cannot be written.
        UsageError: It is a file of the registry.
    """
    is_kept = target == "-" or is_open_already(target)
    try:
        if target == "-":
            console.flush()
            descriptor = os.dup(1)
        else:
            refuse_registry_file(Path(target))
            start = os.O_APPEND if is_kept else 0
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | start, 0o666)
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {target!r}: {told}") from error
    events = RunEvents(descriptor, is_kept=is_kept)
    try:
        yield events
    finally:
        events.close()


class _Event(NamedTuple):
    """A line that is to be written.

    Attributes:
        at: When, for its place among the others: never before an earlier state of the same run.
    """

    at: datetime
    line: dict[str, object]


class _Seen(NamedTuple):
    """What has been seen of a run: the version of its state, and that state's place by time."""

    version: int
    at: datetime


_UNSEEN = _Seen(0, EPOCH)


class _Source(Protocol):
    """Who knows which flow run is followed: a request, or what a command follows."""

    @property
    def flow_run(self) -> FlowRun | None:
        """The run; None before it is on record."""


class EventFollower:
    """What has been seen of a flow run and of the runs below it."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._registry: Registry | None = None
        self._mark: object = None
        self._held: list[_Event] = []
        self._flow_runs: list[_FlowRunFollower] = []

    def events(self, *, is_last: bool) -> list[dict[str, object]]:
        """Return the lines for what has happened since the last look.

        Args:
            is_last: Hold nothing back for the next one.
        """
        registry = self._registry or self._open()
        if registry is None:
            return []
        mark = registry.change_mark()
        if mark == self._mark and not self._held:
            return []
        self._mark, seen_at = mark, now()
        # It grows while it is gone through: a run is looked at before those below it, so that it
        # ends in the same look as they do, or a later one.
        for follower in self._flow_runs:
            self._held += follower.events(registry)
            self._flow_runs += follower.new_subflow_runs(registry)
        self._flow_runs = [follower for follower in self._flow_runs if not follower.has_ended]
        self._held.sort(key=lambda event: event.at)
        due, waiting = list[_Event](), list[_Event]()
        for event in self._held:
            (waiting if not is_last and _may_be_early(event, seen_at) else due).append(event)
        self._held = waiting
        return [event.line for event in due]

    def _open(self) -> Registry | None:
        """Open the registry by a connection of its own: only that learns of what this process writes."""
        flow_run = self._source.flow_run
        if flow_run is None:
            return None
        self._registry = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)
        self._flow_runs.append(_FlowRunFollower(flow_run))
        return self._registry


def _may_be_early(event: _Event, seen_at: datetime) -> bool:
    """Return whether an older event may still come; not before one from before a clock was set back."""
    return seen_at - _COMMIT_TIME < event.at < seen_at + _SET_BACK_TIME


class _FlowRunFollower:
    """What has been seen of one flow run, its task runs, and which subflow runs it has.

    Attributes:
        has_ended: Whether nothing can follow.
    """

    def __init__(self, flow_run: FlowRun) -> None:
        self.has_ended = False
        self._flow_run = flow_run
        self._seen = _UNSEEN
        # Task runs from the oldest that has not ended, in the order of their creation.
        self._task_runs: dict[str, _Seen] = {}
        self._last_subflow_run: str | None = None

    def events(self, registry: Registry) -> Iterator[_Event]:
        """Yield what has happened to the flow run, and then to its task runs."""
        try:
            self._flow_run = flow_run = registry.find_flow_run(self._flow_run.id)
        except NotFoundError:  # it was deleted meanwhile
            self.has_ended = True
            return
        self.has_ended = flow_run.state.is_final()
        self._seen, events = self._new(registry, flow_run, self._seen)
        yield from events
        known, self._task_runs = self._task_runs, {}
        found = _since(
            lambda limit: registry.list_task_runs(
                TaskRunFilter(flow_run_ids=[flow_run.id]), limit=limit
            ),
            next(iter(known), None),
            expected=len(known),
        )
        for task_run in found:
            seen, events = self._new(registry, task_run, known.get(task_run.id, _UNSEEN))
            yield from events
            is_over = task_run.state.is_final() and task_run is not found[-1]
            if self._task_runs or not is_over:
                self._task_runs[task_run.id] = seen

    def _new(
        self, registry: Registry, run: FlowRun | TaskRun, seen: _Seen
    ) -> tuple[_Seen, list[_Event]]:
        """Return what has happened to a run since it was seen, and what is seen of it now."""
        events: list[_Event] = []
        if run.state_version > seen.version:
            for change in registry.state_history(run)[seen.version :]:
                seen = _Seen(change.version, max(seen.at, change.state.timestamp))
                events.append(_Event(seen.at, _line(run, change, self._flow_run)))
        return seen, events

    def new_subflow_runs(self, registry: Registry) -> list[_FlowRunFollower]:
        """Return what follows the subflow runs that have come since the last time."""
        found = _since(
            lambda limit: registry.list_flow_runs(
                FlowRunFilter(parent_flow_run_id=self._flow_run.id), limit=limit
            ),
            self._last_subflow_run,
            expected=1,
        )
        new = [run for run in found if run.id != self._last_subflow_run]
        if new:
            self._last_subflow_run = new[-1].id
        return [_FlowRunFollower(run) for run in new]


def _since(find: Callable[[int], list[Run]], id_: str | None, *, expected: int) -> list[Run]:
    """Return the runs from a known one on, oldest first; all where none is known.

    Args:
        find: Returns at most so many, newest first.
        id_: The known one.
        expected: How many there are at least.
    """
    limit = expected + _MORE_RUNS
    while True:
        found = find(limit)
        places = (place for place, run in enumerate(found) if run.id == id_)
        place = next(places, None)
        if place is not None or len(found) < limit:
            return found[place::-1]
        limit *= 2


def _line(run: FlowRun | TaskRun, change: StateChange, flow_run: FlowRun) -> dict[str, object]:
    is_task_run = isinstance(run, TaskRun)
    state = change.state
    return {
        "event": "task_run.state" if is_task_run else "flow_run.state",
        "time": iso_text(state.timestamp),
        "flow_run_id": flow_run.id,
        "task_run_id": run.id if is_task_run else None,
        "parent_flow_run_id": flow_run.parent_flow_run_id,
        "parent_task_run_id": run.parent_task_run_id,
        "name": run.name,
        "flow_name": flow_run.flow_name,
        "task_name": run.task_name if isinstance(run, TaskRun) else None,
        "version": change.version,
        "state": {"type": state.type.value, "name": state.name, "message": state.message},
        "actor": change.actor,
    }
