"""What programs of the workload were told, noted at that moment, so that it can be asked for afterwards.

A note is one line of JSON in a file outside the disk, in one write(2), which strace puts in its place
among the operations. What has returned to its caller is noted after that; what is about to be durable
is noted before, too, because what was told meanwhile need not be covered by it.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from prefectlite.records import FlowRun, TaskRun
from prefectlite.registry.sqlite import SQLiteRegistry

#: Names the file; where it is not set, nothing is noted.
FILE = "POWER_LOSS_NOTES"

_numbers = count()


def note(told: str, **values: object) -> None:
    """Write one note."""
    path = os.environ.get(FILE)
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(descriptor, json.dumps({"told": told, **values}).encode() + b"\n")
        finally:
            os.close(descriptor)


def note_changes() -> None:
    """Note every change of a run's state that the registry acknowledges to this process."""
    for name in ("create_flow_run", "begin_flow_run", "change_state", "create_task_runs"):
        setattr(SQLiteRegistry, name, _noted(getattr(SQLiteRegistry, name)))


def _noted(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def noted(registry: object, run: Any, *args: object) -> object:
        key = f"{os.getpid()}-{next(_numbers)}"
        if isinstance(run, FlowRun):
            note("saving", key=key)
        returned: Any = method(registry, run, *args)
        saved = returned or run
        _note_saved(saved if isinstance(saved, Sequence) else [saved], key)
        return returned

    return noted


def _note_saved(runs: Iterable[FlowRun | TaskRun], key: str) -> None:
    for run in runs:
        parent = None if isinstance(run, FlowRun) else run.flow_run_id
        note("saved", key=key, id=run.id, parent=parent, state=state_of(run))


def state_of(run: FlowRun | TaskRun) -> list[object]:
    """Return what is noted of a run's state: its version, its type and its name."""
    return [run.state_version, run.state.type.value, run.state.name]
