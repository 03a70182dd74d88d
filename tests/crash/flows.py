"""The flows that are run and killed; each writes into the journal what it was told has happened.

It is copied into the site's folder as ``work.py``, and imports nothing of the bench. A fact is written
only after prefectlite has acknowledged it, in one write, so that a kill leaves no part of one. Run as
``python work.py FLOW NAME`` it is a program that calls a flow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from prefectlite import Flow, State, flow, get_run_logger, pause_flow_run, task
from prefectlite.context import FlowRunContext, TaskRunContext
from prefectlite.task_runners import ProcessPoolTaskRunner

#: What a large result weighs: enough that a kill can fall into its writing.
_BLOB_BYTES = 300_000
#: What a child lives at most, if neither prefectlite nor the driver ends it.
_CHILD_SECONDS = "60"


def note(fact: str, **values: object) -> None:
    """Write a fact into the journal."""
    line = json.dumps({"fact": fact, "pid": os.getpid(), **values}) + "\n"
    descriptor = os.open(os.environ["CRASH_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def _begin_flow() -> None:
    context = FlowRunContext.get()
    assert context is not None
    run = context.flow_run
    note("flow_began", run=run.id, attempt=run.run_count, text=run.flow_name)


def _begin_task() -> tuple[str, int]:
    context = TaskRunContext.get()
    assert context is not None
    run = context.task_run
    note("task_began", run=run.flow_run_id, task=run.id, attempt=run.run_count)
    get_run_logger().info("in task run %s", run.id)
    return run.id, run.run_count


def _returned(task_run_id: str) -> None:
    note("task_returned", task=task_run_id)


@task
def step(seconds: float = 0.0) -> str:
    """Return the id of its own run, after some seconds."""
    id_, _ = _begin_task()
    time.sleep(seconds)
    return id_


@task(retries=1)
def flaky() -> str:
    """Fail the first time."""
    id_, attempt = _begin_task()
    if attempt == 1:
        raise RuntimeError("the first attempt fails")
    return id_


@task
def item(number: int) -> str:
    """Return the id of its own run."""
    id_, _ = _begin_task()
    time.sleep(0.005 * (number % 3))
    return id_


@task(persist_result=True)
def blob() -> tuple[str, bytes]:
    """Return much, which is stored."""
    id_, _ = _begin_task()
    return id_, os.urandom(_BLOB_BYTES)


@flow
def steps(count: int = 5, seconds: float = 0.05) -> int:
    """Call tasks, one after the other; one of them is tried again."""
    _begin_flow()
    for _ in range(count):
        _returned(step(seconds))
    _returned(flaky())
    return count


@flow
def fan(count: int = 12) -> int:
    """Submit and map tasks to threads."""
    _begin_flow()
    futures = [step.submit(0.02), *item.map(range(count)), flaky.submit()]
    for future in futures:
        _returned(future.result())
    return count


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def pool() -> None:
    """Map tasks to processes."""
    _begin_flow()
    for future in item.map(range(4)):
        _returned(future.result())


@flow
def nest() -> None:
    """Call two subflows, and tasks between them."""
    _begin_flow()
    steps(2, 0.02)
    _returned(step())
    fan(3)


@flow(retries=1)
def again() -> None:
    """Fail the first time, as a whole."""
    context = FlowRunContext.get()
    assert context is not None
    _begin_flow()
    _returned(step(0.1))
    if context.flow_run.run_count == 1:
        raise RuntimeError("the first attempt fails")


@flow
def fails() -> None:
    """Fail."""
    _begin_flow()
    _returned(step())
    raise RuntimeError("it fails")


@flow
def hold() -> None:
    """Pause, until somebody resumes it."""
    _begin_flow()
    _returned(step())
    pause_flow_run(timeout=60, key="hold")
    context = FlowRunContext.get()
    assert context is not None
    note("went_on", run=context.flow_run.id)
    _returned(step())


@flow
def slow(seconds: float = 3.0) -> None:
    """Be there to be cancelled or paused; a task every now and then."""
    _begin_flow()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        _returned(step(0.05))
        time.sleep(0.1)


@flow
def stubborn(seconds: float = 8.0) -> None:
    """Swallow whatever is raised in it, and have a child in a session of its own."""
    _brood()
    _begin_flow()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            time.sleep(0.1)
        except BaseException:
            continue


@flow
def brood() -> None:
    """Leave children behind: in its group, in a session of their own, and detached twice."""
    _brood()
    _begin_flow()
    for _ in range(20):
        _returned(step(0.15))


@flow
def store() -> None:
    """Store results."""
    _begin_flow()
    for _ in range(3):
        id_, _ = blob()
        note("task_returned", task=id_)
        note("stored", task=id_)


@flow
def fleeting() -> None:
    """Be deleted soon."""
    _begin_flow()
    step()


def _brood() -> None:
    sleep = ["sleep", _CHILD_SECONDS]
    started = [
        subprocess.Popen(sleep),
        subprocess.Popen(sleep, start_new_session=True),
        subprocess.Popen(["setsid", "sh", "-c", f"sleep {_CHILD_SECONDS} &"]),
    ]
    started[-1].wait()
    for child in started[:-1]:
        child.returncode = 0  # they are left behind, and nobody asks how they end


def main() -> None:
    """Call the flow that the arguments name, as a person's own program does."""
    name, run_name = sys.argv[1:]
    chosen: Flow[..., object] = globals()[name]
    state = chosen.with_options(flow_run_name=run_name)(return_state=True)
    assert isinstance(state, State)
    note("ended", run=run_name, types=[state.type.value])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
