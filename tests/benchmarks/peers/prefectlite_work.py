"""The work, done by prefectlite: run by this Python, from the checkout.

As a user has it by default: ``map`` on the default task runner (threads), log lines on record, flow
runs durable. When the clock stops, every flow run and task run is on record with its states.
"""

from __future__ import annotations

import time
from time import perf_counter

from programs import (
    beside,
    latency,
    main,
    mark,
    marked_at,
    marks,
    peak_bytes,
    peak_bytes_of_children,
    seconds_each,
    tell,
    until,
)

from prefectlite import flow, pause_flow_run, resume_flow_run, task
from prefectlite.registry import open_registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY


@task
def nothing(number: int) -> int:
    """Return the number."""
    return number


@flow
def empty() -> None:
    """Do nothing."""


@flow
def hello() -> None:
    """Call one task."""
    nothing(1)


@flow
def calls(count: int) -> float:
    """Return the seconds of each of so many calls, after one that is not counted."""
    nothing(0)
    return seconds_each(count, lambda: [nothing(number) for number in range(count)])


@flow
def maps(count: int) -> float:
    """Return the seconds of each of so many tasks, mapped and waited for."""
    started = perf_counter()
    for future in nothing.map(range(count)):
        future.result()
    return (perf_counter() - started) / count


def costs(tasks: str, flows: str, mapped: str) -> None:
    """Tell what each of so many tasks, flows and mapped tasks takes in a process that is warm."""
    empty()
    tell(flow=seconds_each(int(flows), lambda: [empty() for _ in range(int(flows))]))
    tell(task=calls(int(tasks)))
    tell(mapped=maps(int(mapped)))


def first() -> None:
    """Run a flow with one task; the driver times the whole process."""
    hello()
    tell(peak=peak_bytes(), server=peak_bytes_of_children())


def seed(count: str) -> None:
    """Put so many flow runs on record."""
    for _ in range(int(count)):
        empty()


def resume(wait: str, _poll: str) -> None:
    """Resume a flow so long after it has paused, and tell how soon it goes on; it does not poll."""
    with marks() as (ready, reached), beside("paused", ready, reached):
        marked_at(ready)
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        is_paused = FlowRunFilter(states=["paused"])
        (flow_run,) = until(lambda: registry.list_flow_runs(is_paused), "a paused run")
        time.sleep(float(wait))
        began = time.monotonic_ns()
        resume_flow_run(flow_run.id)
        tell(resume=latency(began, reached))


def paused(ready: str, reached: str) -> None:
    """Pause, and mark when it goes on."""

    @flow
    def waits() -> None:
        mark(ready)
        pause_flow_run(timeout=600)
        mark(reached)

    waits()


def cancel(wait: str) -> None:
    """Cancel a flow of many short tasks, and tell how soon its code sees it.

    By what ``flow-run cancel`` calls, without the start of that command: so for every contender.
    """
    from prefectlite.cancellation import request_cancellation, wake

    with marks() as (ready, reached), beside("stepping", ready, reached):
        marked_at(ready)
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        (running,) = registry.list_flow_runs(FlowRunFilter(states=["running"]))
        time.sleep(float(wait))
        began = time.monotonic_ns()
        wake(request_cancellation(registry, running))
        tell(cancel=latency(began, reached))


def stepping(ready: str, reached: str) -> None:
    """Call short tasks until cancelled, and mark when."""

    @task
    def step() -> None:
        time.sleep(0.01)

    @flow
    def steps() -> None:
        try:
            step()
            mark(ready)
            while True:
                step()
        finally:
            mark(reached)

    steps()


if __name__ == "__main__":
    main({work.__name__: work for work in (costs, first, seed, resume, paused, cancel, stepping)})
