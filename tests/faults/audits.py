"""What is looked at after each round, when the fault is gone: nothing may be lost, broken or stuck."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tests.faults.places import Ended, Place
from tests.faults.scenarios import Scenario, rows, untold

_ALWAYS = frozenset({0, 5})
# A traceback of the flow's own code may be shown, with no line of ours in it.
_AMISS = re.compile(
    r'File "[^"]*/prefectlite/|File "<frozen|internal error|Exception ignored|Fatal Python error'
)
# An agent's line begins with the time, and says which run it is about.
_ERROR = re.compile("^error: |could not be started: ")
_FLOW_RUNS = "SELECT name, id, state_type, state_version FROM flow_run"
_TASK_RUNS = """
    SELECT flow_run.name, task_run.id, task_run.state_type, task_run.state_version
    FROM task_run JOIN flow_run ON flow_run.seq = flow_run_seq
"""
_NEXT = ("run", "tests/faults/flows.py:work", "--name", "next")

#: Rows of runs, each with the name of its flow run.
Record = frozenset[tuple[Any, ...]]


def record_of(place: Place) -> Record:
    """Return what is on record of runs."""
    return frozenset(rows(place, _FLOW_RUNS) + rows(place, _TASK_RUNS))


def complaints(place: Place, scenario: Scenario, ended: Ended, before: Record) -> Iterator[str]:
    """Yield what is wrong after a command that met a fault.

    Args:
        place: Where that was; it can be written to again.
        scenario: The command.
        ended: How it ended.
        before: What was on record before.
    """
    yield from _of_words(scenario, ended)
    listed = place.run(["flow-run", "ls", "--limit", "3"])  # it finds out who has died
    if listed.code != 0:
        yield f"ls exits with {listed.code} afterwards: {listed.error}"
    yield from _of_file(place)
    lost = [row for row in before - record_of(place) if row[0] not in scenario.touched]
    if lost:
        yield f"lost or changed, of what was on record before: {lost[:3]}"
    yield from untold(place, ended)
    yield from scenario.claim(place, ended)
    again = place.run(_NEXT)
    if again.code != 0:
        yield f"the next run exits with {again.code}: {again.error}"
    yield from untold(place, again)


def _of_words(scenario: Scenario, ended: Ended) -> Iterator[str]:
    if ended.code is None:
        yield f"it hangs: {ended.error}"
    elif ended.code == 2 and "the profiles in" in ended.error:
        return  # settings that cannot be read are no settings
    elif ended.code not in _ALWAYS | scenario.codes:
        yield f"exit code {ended.code}: {ended.error}"
    # A call whose number was that of another file at first may have been one of an import.
    if (amiss := _AMISS.search(ended.error)) and "ModuleNotFoundError" not in ended.error:
        yield f"{amiss.group()!r} on stderr: {ended.error}"
    errors = [line for line in ended.error.splitlines() if _ERROR.search(line)]
    if ended.code == 5 and len(errors) != 1:
        yield f"{len(errors)} lines of error with exit code 5: {ended.error}"


def _of_file(place: Place) -> Iterator[str]:
    if not place.database.exists():
        return
    with closing(sqlite3.connect(place.database)) as connection:
        checked = connection.execute("PRAGMA integrity_check").fetchall()
        strays = connection.execute("PRAGMA foreign_key_check").fetchall()
    if checked != [("ok",)] or strays:
        yield f"the registry is damaged: {checked[:3]} {strays[:3]}"
