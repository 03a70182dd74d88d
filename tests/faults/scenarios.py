"""The commands that meet a fault, and what each of them says by its exit code and its words.

``SCENARIOS`` has them by name. What a command promises is looked at when the fault is gone and all of
its processes have ended: in the registry, by SQL of our own, not by what the command itself reads.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.faults.places import Ended, Place

_ENTRYPOINT = "tests/faults/flows.py:work"
_FINISHED = re.compile(r"(Flow|Task) run '([^']+)' - Finished in state (\w+)\(")
#: What ``run`` exits with for a state; the registry may be out of reach in any of them.
_CODES_OF_RUN = {"COMPLETED": {0}, "FAILED": {1}, "CRASHED": {1}}
_FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")

#: Yields what a command said that is not so.
Claim = Callable[[Place, Ended], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command, and what it says.

    Attributes:
        arguments: Its words; ``{place}`` stands for the folder.
        claim: What must be so, by how it ended.
        codes: The exit codes that it may have, beside 0 and 5.
        touched: Names of flow runs that it may change or delete.
        is_first: Whether it is the first command of all, in a home that is not there yet.
        writes: Whether it writes to the home at all.
    """

    arguments: tuple[str, ...]
    claim: Claim
    codes: frozenset[int] = frozenset()
    touched: frozenset[str] = frozenset()
    is_first: bool = False
    writes: bool = True


def rows(place: Place, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Return what the registry has, read by nobody of prefectlite; nothing where there is none."""
    if not place.database.exists():
        return []
    with closing(sqlite3.connect(f"file:{place.database}?mode=rw", uri=True)) as connection:
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        return connection.execute(sql, values).fetchall() if version else []


def set_up(place: Place) -> None:
    """Put on record what the commands work on.

    Raises:
        RuntimeError: A command failed, with no fault about.
    """
    for arguments in (
        ["run", _ENTRYPOINT, "--name", "old"],
        ["run", _ENTRYPOINT, "--name", "kept"],
        ["block", "create", "secret", "kept", "--from-env", "value=FAULTS_SECRET"],
        ["config", "set", "PREFECTLITE_LOGGING_LEVEL=INFO"],
        ["deployment", "build", _ENTRYPOINT, "-n", "due", "-o", f"{place.folder}/due.toml"],
        ["deployment", "apply", f"{place.folder}/due.toml"],
        ["deployment", "run", "work/due", "--name", "due"],
    ):
        ended = place.run(arguments)
        if ended.code != 0:
            raise RuntimeError(f"{arguments} exited with {ended.code}: {ended.error}")


def state_of(place: Place, name: str) -> str | None:
    """Return the state type of a flow run; None where there is none of that name."""
    found = rows(place, "SELECT state_type FROM flow_run WHERE name = ?", name)
    return found[0][0] if found else None


def untold(place: Place, ended: Ended) -> Iterator[str]:
    """Yield what the log on stderr says of runs that is not on record."""
    for kind, name, state in _FINISHED.findall(ended.error):
        sql = f"SELECT state_name FROM {kind.lower()}_run WHERE name = ?"
        if (state,) not in rows(place, sql, name):
            yield f"{kind} run {name!r} is told to be {state}, and is not on record so"


def _ran(place: Place, ended: Ended) -> Iterator[str]:
    state = state_of(place, "new")
    if ended.code in {0, 1} and ended.code not in _CODES_OF_RUN.get(state or "", ()):
        yield f"run exited with {ended.code}, and the run is {state}"
    elif ended.code == 5 and state == "COMPLETED":
        yield "run exited with 5, and the run is Completed"
    if state not in (None, *_FINAL):
        yield f"nobody found out that the run is over: it is {state}"


def _listed(place: Place, ended: Ended) -> Iterator[str]:
    if ended.code == 0:
        names = {run["name"] for run in json.loads(ended.out)}
        if not names >= {"old", "kept", "due"}:
            yield f"ls exited with 0 and showed {names}"


def _cancelled(place: Place, ended: Ended) -> Iterator[str]:
    state = state_of(place, "due")
    if ended.code == 0 and state != "CANCELLED":
        yield f"cancel exited with 0, and the run is {state}"
    if state not in ("SCHEDULED", "CANCELLED"):
        yield f"cancel left the run {state}"


def _deleted(place: Place, ended: Ended) -> Iterator[str]:
    if ended.code == 0 and state_of(place, "old"):
        yield f"{ended.out or ended.error!r}, with exit code 0, and the run is there"


def _backed_up(place: Place, ended: Ended) -> Iterator[str]:
    if not place.backup.exists():
        if ended.code == 0:
            yield "backup exited with 0, and there is no backup"
        return
    with closing(sqlite3.connect(place.backup)) as connection:
        try:
            checked = connection.execute("PRAGMA integrity_check").fetchall()
            count = connection.execute("SELECT count(*) FROM flow_run").fetchall()
        except sqlite3.Error as error:
            checked, count = [(str(error),)], []
    if checked != [("ok",)] or count != rows(place, "SELECT count(*) FROM flow_run"):
        yield f"the backup is not whole, with exit code {ended.code}: {checked[:2]}"


def _checked(_: Place, ended: Ended) -> Iterator[str]:
    # A page that cannot be read is damage, too: SQLite and we call it so.
    if ended.code == 5 and "rows of" in ended.error:
        yield f"check says that what is whole is not: {ended.error}"


def _created(place: Place, ended: Ended) -> Iterator[str]:
    shown = place.run(["block", "inspect", "secret/new", "--show-secrets", "--json"])
    if shown.code == 3 and ended.code != 0:
        return
    if shown.code != 0 or "sesame" not in shown.out:
        yield f"block create exited with {ended.code}, and inspect: {shown.error or shown.out}"


def _configured(place: Place, ended: Ended) -> Iterator[str]:
    shown = place.run(["config", "view", "--json"])
    told = "PREFECTLITE_LOGGING_LEVEL"
    found = [one["value"] for one in json.loads(shown.out or "[]") if one["name"] == told]
    if found != ["ERROR"] and (ended.code == 0 or found != ["INFO"]):
        yield f"config set exited with {ended.code}, and view shows {found}: {shown.error}"


def _detached(place: Place, ended: Ended) -> Iterator[str]:
    state = state_of(place, "new")
    if ended.code == 0 and (state is None or not ended.out.strip()):
        yield "run --detach exited with 0, and there is no run"
    if state not in (None, *_FINAL):
        yield f"nobody found out that the run is over: it is {state}"


def _launched(place: Place, ended: Ended) -> Iterator[str]:
    state = state_of(place, "due")
    if state == "SCHEDULED":
        again = place.run(["agent", "start", "--run-once"])
        place.run(["flow-run", "ls"])
        state = state_of(place, "due")
        if state != "COMPLETED":
            yield f"the next agent exited with {again.code}, and the run is {state}: {again.error}"
    elif state not in _FINAL:
        yield f"nobody found out that the run is over: it is {state}"


_NEW = ("run", _ENTRYPOINT, "--name", "new")
_ONE, _OLD = frozenset({1}), frozenset({"old", "inner"})
SCENARIOS = {
    "first-run": Scenario(_NEW, _ran, _ONE, is_first=True),
    "run": Scenario(_NEW, _ran, _ONE),
    "ls": Scenario(("flow-run", "ls", "--json"), _listed, writes=False),
    "cancel": Scenario(("flow-run", "cancel", "due"), _cancelled, touched=frozenset({"due"})),
    "delete": Scenario(("flow-run", "delete", "old"), _deleted, touched=_OLD),
    "prune": Scenario(
        ("registry", "prune", "--keep", "2", "--flow", "work", "--vacuum"), _deleted, touched=_OLD
    ),
    "backup": Scenario(("registry", "backup", "{place}/registry.backup"), _backed_up),
    "check": Scenario(("registry", "check"), _checked, writes=False),
    "block": Scenario(
        ("block", "create", "secret", "new", "--from-env", "value=FAULTS_SECRET"), _created
    ),
    "config": Scenario(("config", "set", "PREFECTLITE_LOGGING_LEVEL=ERROR"), _configured),
    "detach": Scenario((*_NEW, "--detach"), _detached, _ONE),
    "agent": Scenario(
        ("agent", "start", "--run-once"), _launched, touched=frozenset({"due", "inner"})
    ),
}
