"""The rules: what must hold between the journal, the registry, the processes and the files.

Each is a function that returns what it finds against it, a sentence each; its name is the rule's.
Those of ``ALWAYS`` hold whenever a command has read the registry; those of ``AT_REST`` too, once all that
was started has ended; those of ``WHEN_PRUNED`` when ``registry prune`` has then removed what is old.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from prefectlite.states import TRANSITIONS, StateType
from tests.crash.journal import Fact
from tests.crash.processes import Process
from tests.crash.records import Records, Run

_GATE_SECONDS = 1.0
_LOOK_SECONDS = 0.01
#: What a home folder holds beside folders of its own, and what is left of a run that was deleted.
_HOME = {"registry.db", "registry.db-wal", "registry.db-shm", "registry.lock"} | {
    "runs",
    "processes",
    "results",
}
#: The flow whose runs are deleted: on record or not, both are right once that was asked for.
_ERASED = "fleeting"
_BEGINNINGS = ("SCHEDULED", "PENDING", "RUNNING")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules look at.

    Attributes:
        facts: The journal.
        records: The registry.
        processes: Those of the bench that live.
        home: The folder of the registry.
        is_over: Whether all that was to be done is: nothing may wait for an agent.
    """

    facts: list[Fact]
    records: Records
    processes: list[Process]
    home: Path
    is_over: bool = False

    def of(self, *kinds: str) -> Iterator[Fact]:
        """Yield the facts of these kinds."""
        return (fact for fact in self.facts if fact.fact in kinds)

    def erased(self) -> set[str]:
        """Return the ids of the runs that may have been deleted."""
        return {fact.run for fact in self.of("flow_began") if fact.text == _ERASED}

    def runs(self) -> dict[str, Run]:
        """Return the flow runs by id and by name."""
        found = self.records.flow_runs
        return {**{run.name: run for run in found.values()}, **found}


Rule = Callable[[Evidence], list[str]]


def registry_is_whole(evidence: Evidence) -> list[str]:
    """SQLite finds no damage, and no row refers to one that is gone."""
    return evidence.records.damage


def acknowledged_tasks_are_on_record(evidence: Evidence) -> list[str]:
    """A task that began was Running; one that returned is Completed, with its line and its result."""
    found, erased = [], evidence.erased()
    tasks = evidence.records.task_runs
    for fact in evidence.of("task_began", "task_returned", "stored"):
        if fact.run in erased:
            continue
        run = tasks.get(fact.task)
        if run is None:
            found.append(f"task run {fact.task} is not on record, and {fact.fact}")
        elif fact.fact == "task_began":
            was_running = any(change.type == "RUNNING" for change in run.history)
            if not was_running or run.run_count < fact.attempt:
                found.append(f"{run} began attempt {fact.attempt}, which is not on record")
        elif run.type != "COMPLETED":
            found.append(f"{run} returned, and is not Completed")
        elif fact.task not in evidence.records.logged:
            found.append(f"{run} returned, and what it logged is not on record")
        elif fact.fact == "stored" and not (evidence.home / "results" / fact.task).exists():
            found.append(f"{run} has stored a result, and there is none")
    return found


def acknowledged_runs_are_on_record(evidence: Evidence) -> list[str]:
    """What a flow or a command was told of a run is so."""
    found, erased, runs = [], evidence.erased(), evidence.runs()
    for fact in evidence.of(*_SAID):
        run = runs.get(fact.run)
        if run is None:
            if fact.run not in erased:
                found.append(f"flow run {fact.run} is not on record, and {fact.fact}")
        elif not _SAID[fact.fact](run, fact):
            found.append(f"{run} is on record, and it was acknowledged: {fact}")
    found += [f"{runs[one.run]} was deleted" for one in evidence.of("deleted") if one.run in runs]
    return found


def _began(run: Run, fact: Fact) -> bool:
    was_running = any(change.type == "RUNNING" for change in run.history)
    return was_running and run.run_count >= fact.attempt and run.owners[0] is not None


def _went_on(run: Run, _: Fact) -> bool:
    return any(
        before.type == "PAUSED" and after.type in ("RUNNING", "SCHEDULED")
        for before, after in pairwise(run.history)
    )


_SAID: dict[str, Callable[[Run, Fact], bool]] = {
    "flow_began": _began,
    "created": lambda _run, _fact: True,
    "ended": lambda run, fact: run.type in fact.types,
    "had": lambda run, fact: any(change.type in fact.types for change in run.history),
    "resumed": _went_on,
    "went_on": _went_on,
}


def final_states_stay(evidence: Evidence) -> list[str]:
    """A run that an earlier audit saw in a final state is in that very state."""
    found, erased, runs = [], evidence.erased(), evidence.records.flow_runs
    for fact in evidence.of("seen"):
        run = runs.get(fact.run)
        if run is None:
            if fact.run not in erased:
                found.append(f"flow run {fact.run}, which had ended, is gone")
        elif run.type not in fact.types or run.history[-1].version != fact.attempt:
            found.append(f"{run} had ended as {fact.types}, version {fact.attempt}")
    return found


def histories_are_legal(evidence: Evidence) -> list[str]:
    """Each state may follow the one before it, and none is missing."""
    found = []
    for run in [*evidence.records.flow_runs.values(), *evidence.records.task_runs.values()]:
        if run.history[0].type not in _BEGINNINGS:
            found.append(f"{run} began as {run.history[0].type}")
        for before, after in pairwise(run.history):
            if StateType(after.type) not in TRANSITIONS[StateType(before.type)]:
                found.append(f"{run} went from {before.name} to {after.name}")
            if after.version != before.version + 1:
                found.append(f"{run} has no state between {before.version} and {after.version}")
    return found


def nothing_is_started_twice(evidence: Evidence) -> list[str]:
    """Each attempt of a flow or task was begun once, all those of a flow in one process."""
    attempts = Counter(
        (fact.fact, fact.task or fact.run, fact.attempt)
        for fact in evidence.of("flow_began", "task_began")
    )
    found = [f"{what} {count} times" for what, count in attempts.items() if count > 1]
    pids = defaultdict[str, set[int]](set)
    for fact in evidence.of("flow_began"):
        pids[fact.run].add(fact.pid)
    found += [f"flow run {run} began in {those}" for run, those in pids.items() if len(those) > 1]
    names = Counter(run.name for run in evidence.records.flow_runs.values())
    found += [f"flow run {name!r} is {count} times on record" for name, count in names.items() if count > 1]  # fmt: skip
    return found


def what_goes_on_has_a_process(evidence: Evidence) -> list[str]:
    """A run that has not ended, and does not wait for an agent, has a process that lives."""
    living = {(process.pid, process.start_ticks) for process in evidence.processes}
    found = []
    for run in evidence.records.flow_runs.values():
        engine, supervisor, launcher = run.owners
        owner = supervisor or engine or (None if run.is_launched else launcher)
        if run.is_final or (run.type == "SCHEDULED" and owner is None):
            continue
        if owner is None:
            found.append(f"{run} goes on, and nobody has it")
        elif (owner.pid, owner.start_ticks) not in living:
            found.append(f"{run} goes on, and its process {owner.pid} is dead")
    return found


def what_is_over_has_no_process(evidence: Evidence) -> list[str]:
    """Of what has ended no process is left, but what a program without a supervisor left behind."""
    found = []
    runs = evidence.records.flow_runs.values()
    for process in evidence.processes:
        of = [run for run in runs if run.has(process) and run.parent_id is None]
        if process.kind == "child" and of and all(map(_may_leave_processes, of)):
            continue
        told = ", ".join(map(str, of)) or "no run on record"
        found.append(f"{process.kind} {process.pid} ({process.words}) lives, of {told}")
    return found


def _may_leave_processes(run: Run) -> bool:
    """Return whether nobody sees to what a run had started: it had no supervisor, and was not cancelled."""
    return run.owners[1] is None and run.is_final and run.type != "CANCELLED"


def cancelled_runs_leave_no_process(evidence: Evidence) -> list[str]:
    """When a command says that a run is cancelled, none of its processes lives."""
    return [f"{fact.run}: {fact.text}" for fact in evidence.of("survived")]


def nothing_outlives_its_flow_run(evidence: Evidence) -> list[str]:
    """A flow run that has ended has no task run or subflow run that goes on."""
    flow_runs, task_runs = evidence.records.flow_runs, evidence.records.task_runs
    inner = [(run, flow_runs[run.flow_run_id]) for run in task_runs.values()]
    subflow_runs = [run for run in flow_runs.values() if run.parent_id in flow_runs]
    inner += [(run, flow_runs[run.parent_id or ""]) for run in subflow_runs]
    return [
        f"{run} goes on, and {outer} has ended"
        for run, outer in inner
        if outer.is_final and not run.is_final and run.history[-1].name != "NotReady"
    ]


def gate_is_free(evidence: Evidence) -> list[str]:
    """Nobody holds the write gate when nobody is there."""
    path = evidence.home / "registry.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    deadline = time.monotonic() + _GATE_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return [f"{path} is locked"]
                time.sleep(_LOOK_SECONDS)
            else:
                return []
    finally:
        os.close(descriptor)


def no_file_is_left_over(evidence: Evidence) -> list[str]:
    """No run's folder, control group, lock of a crashed process or file of no known kind is left."""
    home = evidence.home
    found = [path for path in home.iterdir() if path.name not in _HOME]
    found += [*(home / "runs").glob("*")]
    since = (home.parent / "mark").stat().st_mtime  # a PID is given again
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        for fact in evidence.of("killed"):
            groups = root.glob(f"prefectlite-{fact.pid}-*")
            found += [group for group in groups if group.stat().st_mtime >= since]
    for run in evidence.records.flow_runs.values():
        if run.type == "CRASHED" and run.owners[0] is not None:  # its death was just seen to
            found += (home / "processes").glob(f"{run.owners[0].token}.lock")
    return [f"{path} is left over" for path in dict.fromkeys(found)]


def no_file_of_the_dead_is_left(evidence: Evidence) -> list[str]:
    """There is no lock but of runs that go on, and no part of a result."""
    runs = evidence.records.flow_runs.values()
    needed = {one.token for run in runs if not run.is_final for one in run.owners if one}
    found = [one for one in (evidence.home / "processes").glob("*") if one.stem not in needed]
    found += (evidence.home / "results").glob(".*")
    return [f"{path} is left over" for path in found]


def commands_work(evidence: Evidence) -> list[str]:
    """No command hangs, fails in a way that its help does not name, or has an internal error."""
    return [f"{fact.fact}: {fact.text}" for fact in evidence.of("hung", "complained")]


def nobody_else_is_killed(evidence: Evidence) -> list[str]:
    """Who was killed, and not by the bench, was running a flow, and that is Cancelled."""
    runs = evidence.runs()
    return [
        f"not by the bench: {fact.text}"
        for fact in evidence.of("was_killed")
        if fact.run not in runs or runs[fact.run].type != "CANCELLED"
    ]


def everything_comes_to_its_end(evidence: Evidence) -> list[str]:
    """When agents have had their time, no run waits any more."""
    runs = evidence.records.flow_runs.values() if evidence.is_over else ()
    return [f"{run} never ended" for run in runs if not run.is_final]


ALWAYS: tuple[Rule, ...] = (
    registry_is_whole,
    acknowledged_tasks_are_on_record,
    acknowledged_runs_are_on_record,
    final_states_stay,
    histories_are_legal,
    nothing_is_started_twice,
    what_goes_on_has_a_process,
    cancelled_runs_leave_no_process,
    nothing_outlives_its_flow_run,
    commands_work,
)
AT_REST: tuple[Rule, ...] = (
    *ALWAYS,
    what_is_over_has_no_process,
    gate_is_free,
    no_file_is_left_over,
    nobody_else_is_killed,
    everything_comes_to_its_end,
)
WHEN_PRUNED: tuple[Rule, ...] = (no_file_of_the_dead_is_left, commands_work)


def findings(evidence: Evidence, rules: tuple[Rule, ...]) -> list[str]:
    """Return what the rules find, each with the name of its rule before it."""
    return [
        f"{rule.__name__}: {found}" for rule in dict.fromkeys(rules) for found in rule(evidence)
    ]
