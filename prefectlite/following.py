"""Look at a run again and again, as long as there is something new to see of it.

The commands that follow a run call it. It waits for changes of the registry, which costs next to
nothing while there are none, and ends when the run has, and all that it has said is on record. It
records nothing but that a run's process has died.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prefectlite.clock import monotonic
from prefectlite.errors import NotFoundError, OutputClosedError
from prefectlite.liveness import is_alive
from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry import Registry, open_registry
from prefectlite.settling import settle
from prefectlite.waiting import (
    GROWTH,
    LONGEST_SECONDS,
    SETTLE_SECONDS,
    SHORTEST_SECONDS,
    refuse_unrecorded,
)

# A supervisor does its part in two seconds. A process without one may have a last line to write, and
# hooks to call, or be a program that goes on for long.
_SUPERVISOR_SECONDS = 4.0
_PROCESS_SECONDS = 0.5
# A line is on record 50 ms after it was logged.
_TASK_SECONDS = 0.15
_ENDING_LOOK_SECONDS = 0.02
_GONE = select.POLLERR | select.POLLHUP


@dataclass
class Followed:
    """What is followed, as it was when it was looked at last.

    Attributes:
        task_run: Where it is no more than one task run of the flow run.
        has_ended: Whether this was the last look.
        mark: What ``Registry.change_mark`` gave just before it.
    """

    flow_run: FlowRun
    task_run: TaskRun | None = None
    has_ended: bool = False
    mark: object = None

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow on its state."""
        if self.flow_run.state.is_final() or self.task_run is None:
            return self.flow_run.state.is_final()
        return self.task_run.state.is_final() or self.task_run.state.name == "NotReady"


def follow(
    registry: Registry, followed: Followed, *, tick_seconds: float | None = None
) -> Iterator[Followed]:
    """Yield what is followed, brought up to date: at once, after each change, and when it has ended.

    The last time, all that belongs to it is on record.

    Args:
        registry: Where to look; one for reading suffices.
        followed: It is brought up to date in place.
        tick_seconds: Yield it this often though nothing has changed; None for not.

    Raises:
        NotFoundError: It was deleted meanwhile.
        OutputClosedError: Whoever reads stdout has gone.
        RegistryReadOnlyError: Its process is dead, and that cannot be recorded.
    """
    pause = _Pause()
    settle_at, ends_at = 0.0, None
    while True:
        mark = followed.mark = registry.change_mark()
        if monotonic() >= settle_at:
            _settle(registry, followed.flow_run)
            settle_at = monotonic() + SETTLE_SECONDS
        _look(registry, followed)
        if followed.is_final:
            ends_at = ends_at or monotonic() + _ending_seconds(followed)
            followed.has_ended = monotonic() >= ends_at or not _is_alive(followed.flow_run)
        yield followed
        if followed.has_ended:
            return
        if followed.is_final:
            pause(_ENDING_LOOK_SECONDS)
            continue
        seconds = max(0.0, settle_at - monotonic())
        if registry.wait_for_change(
            mark, timeout_seconds=min(seconds, tick_seconds or seconds), pause=pause
        ):
            pause.hurry()


def _settle(registry: Registry, flow_run: FlowRun) -> None:
    """Have it put on record if its process is dead, or it was not resumed in time."""
    if flow_run.state.is_running() and _is_alive(flow_run):  # to look at all runs costs more
        return
    # What supervisors are about to do is left to them: a view must not stand still.
    dead = settle(registry, lambda: open_registry(registry.url), ending_seconds=0.0)
    refuse_unrecorded(dead, [flow_run.id])


def _look(registry: Registry, followed: Followed) -> None:
    try:
        followed.flow_run = registry.find_flow_run(followed.flow_run.id)
        if followed.task_run is not None:
            followed.task_run = registry.find_task_run(followed.task_run.id)
    except NotFoundError as error:
        raise NotFoundError(f"flow run {followed.flow_run.name!r} was deleted meanwhile") from error


def _ending_seconds(followed: Followed) -> float:
    """Return how long to wait, at most, for what comes after a final state."""
    if not followed.flow_run.state.is_final():
        return _TASK_SECONDS
    return _SUPERVISOR_SECONDS if followed.flow_run.supervisor else _PROCESS_SECONDS


def _is_alive(flow_run: FlowRun) -> bool:
    """Return whether the process lives that has the last word on a run."""
    process = flow_run.supervisor or flow_run.process
    return process is not None and is_alive(process) is True


class _Pause:
    """Sleeps between two looks, and notices at once when whoever reads stdout has gone.

    Who follows a run that says nothing would else never find out.
    """

    def __init__(self) -> None:
        self._seconds = SHORTEST_SECONDS
        self._sleep: Callable[[float], object] = time.sleep
        try:
            self._output = select.poll()
            self._output.register(sys.stdout.fileno(), 0)
            self._sleep = self._watch_output
        except (OSError, ValueError):  # it is no file of the system
            return

    def hurry(self) -> None:
        """Sleep for a shorter time from now on: where one change is, there may be more."""
        self._seconds = SHORTEST_SECONDS

    def __call__(self, seconds: float) -> None:
        """Sleep for so long at most."""
        self._sleep(min(seconds, self._seconds))
        self._seconds = min(self._seconds * GROWTH, LONGEST_SECONDS)

    def _watch_output(self, seconds: float) -> None:
        found = self._output.poll(seconds * 1000)
        if any(event & _GONE for _, event in found):
            raise OutputClosedError("the reader of the output has gone")
        if found:  # a system that cannot watch such a file
            self._sleep = time.sleep
