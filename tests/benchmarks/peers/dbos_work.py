"""The work, done by DBOS on SQLite: run by the Python of a venv that has it.

A flow is a workflow, a task a step. The 1,000 mapped tasks are steps of one asynchronous workflow
that it awaits together, which was found to be faster than child workflows, each of which is put on
record twice. What is on record when the clock stops: every workflow, and each step with its result
but without a state, and no log lines.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from time import perf_counter

from dbos import DBOS, DBOSClient, DBOSConfig, SetWorkflowID
from programs import beside, latency, main, mark, marked_at, marks, peak_bytes, seconds_each, tell

#: Where the contender's environment says.
URL = os.environ["DBOS_SYSTEM_DATABASE_URL"]


@DBOS.step()
def nothing(number: int) -> int:
    """Return the number."""
    return number


@DBOS.step()
async def nothing_awaited(number: int) -> int:
    """Return the number."""
    return number


@DBOS.step()
def step() -> None:
    """Take ten milliseconds."""
    time.sleep(0.01)


@DBOS.workflow()
def empty() -> None:
    """Do nothing."""


@DBOS.workflow()
def hello() -> None:
    """Call one step."""
    nothing(1)


@DBOS.workflow()
def calls(count: int) -> float:
    """Return the seconds of each of so many calls, after one that is not counted."""
    nothing(0)
    return seconds_each(count, lambda: [nothing(number) for number in range(count)])


@DBOS.workflow()
async def maps(count: int) -> float:
    """Return the seconds of each of so many steps, begun together and waited for."""
    started = perf_counter()
    await asyncio.gather(*(nothing_awaited(number) for number in range(count)))
    return (perf_counter() - started) / count


@DBOS.workflow()
def waits(ready: str, reached: str) -> None:
    """Wait for a message, and mark when it has come."""
    mark(ready)
    DBOS.recv(timeout_seconds=600)
    mark(reached)


@DBOS.workflow()
def steps(ready: str, reached: str) -> None:
    """Call short steps until cancelled, and mark when."""
    try:
        step()
        mark(ready)
        while True:
            step()
    finally:
        mark(reached)


def launch(poll: str = "") -> None:
    """Open the database, and have it looked at every so often (an empty text: as by default)."""
    config: DBOSConfig = {"name": "benchmark", "system_database_url": URL}
    if poll:
        config["notification_listener_polling_interval_sec"] = float(poll)
    DBOS(config=config)
    DBOS.launch()


def costs(tasks: str, flows: str, mapped: str) -> None:
    """Tell what each of so many tasks, flows and mapped tasks takes in a process that is warm."""
    launch()
    empty()
    tell(flow=seconds_each(int(flows), lambda: [empty() for _ in range(int(flows))]))
    tell(task=calls(int(tasks)))
    tell(mapped=asyncio.run(maps(int(mapped))))
    DBOS.destroy()


def first() -> None:
    """Run a workflow with one step; the driver times the whole process.

    Without ``destroy``, which takes a while and has nothing left to do: all is on record.
    """
    launch()
    hello()
    tell(peak=peak_bytes(), server=0)


def seed(count: str) -> None:
    """Put so many workflows on record."""
    launch()
    for _ in range(int(count)):
        empty()
    DBOS.destroy()


def resume(wait: str, poll: str) -> None:
    """Send a workflow that waits for it a message, and tell how soon it goes on."""
    with marks() as (ready, reached), beside("subject", "waits", ready, reached, poll):
        marked_at(ready)
        client = DBOSClient(system_database_url=URL)
        time.sleep(float(wait))
        began = time.monotonic_ns()
        client.send(Path(ready).parent.name, "go on")
        tell(resume=latency(began, reached))


def cancel(wait: str) -> None:
    """Cancel a workflow of many short steps, and tell how soon its code sees it."""
    with marks() as (ready, reached), beside("subject", "steps", ready, reached, ""):
        marked_at(ready)
        client = DBOSClient(system_database_url=URL)
        time.sleep(float(wait))
        began = time.monotonic_ns()
        client.cancel_workflow(Path(ready).parent.name)
        tell(cancel=latency(began, reached))


def subject(name: str, ready: str, reached: str, poll: str) -> None:
    """Run a workflow that another process knows by the folder of its marks."""
    launch(poll)
    with SetWorkflowID(Path(ready).parent.name):
        {"waits": waits, "steps": steps}[name](ready, reached)


if __name__ == "__main__":
    main({work.__name__: work for work in (costs, first, seed, resume, cancel, subject)})
