"""The flows of the workload; what their tasks return says which task run it is of."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from prefectlite import flow, get_run_logger, pause_flow_run, task
from prefectlite.context import TaskRunContext, get_run_context
from prefectlite.results import task_input_hash

#: Of the results of ``own``: more than two pages.
FILLER_BYTES = 9_000
_PAUSE_SECONDS = 120


@task(persist_result=True)
def own() -> dict[str, str]:
    """Return what tells to whom it belongs."""
    context = get_run_context()
    if not isinstance(context, TaskRunContext):
        raise TypeError("this is no task run")
    return {"task_run": context.task_run.id, "filler": context.task_run.id[:1] * FILLER_BYTES}


@task(cache_key_fn=task_input_hash, persist_result=True)
def squared(number: int) -> int:
    """Return what need not be computed twice."""
    return number * number


@task
def add(number: int) -> int:
    """Do next to nothing."""
    return number + 1


@flow
def inner(count: int = 2) -> int:
    """Be called by another flow."""
    return sum(add(number) for number in range(count))


@flow
def etl(count: int = 3) -> int:
    """Do some of everything."""
    for number in range(count):
        own()
        if squared(number) != number * number:
            raise ValueError("a cached result is wrong")
        get_run_logger().info("row %s", number)
    return inner()


@flow
def many(count: int = 160) -> int:
    """Commit so often that the log is checkpointed in the middle."""
    return sum(add(number) for number in range(count))


@flow
def hold(file: str) -> None:
    """Run until a file is there."""
    while not Path(file).exists():
        time.sleep(0.02)


@flow
def killed() -> None:
    """End as nobody wants to."""
    add(1)
    os.kill(os.getpid(), signal.SIGKILL)


@flow
def asking() -> None:
    """Wait for a person in the middle."""
    add(1)
    pause_flow_run(timeout=_PAUSE_SECONDS)
    add(2)
