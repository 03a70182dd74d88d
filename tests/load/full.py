"""A registry with very many runs, beside one with next to none: what tasks and commands cost there."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

from prefectlite.clock import now
from prefectlite.registry import open_registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks import tasks
from tests.benchmarks.bare import in_flow
from tests.benchmarks.measuring import (
    Sample,
    home,
    in_turns,
    killed_after,
    process_seconds,
    quiet,
)
from tests.load.copies import DAYS, copy_runs, differences, make_runs
from tests.load.programs import Ended, measured, run_command, start_python
from tests.load.trials import Load, Trial

_TASKS_IN_FLOW = 10
_TASK_RATIO, _LIST_RATIO = 1.3, 1.5
_TAB = ("__complete", "fish", "--", "prefectlite", "flow-run")
#: What a person or a shell asks. ``RUN`` is the id of a run of ten tasks, ``START`` how that begins and
#: ``NAME`` its name; in the registry that it is compared with it is the only run.
_COMMANDS: dict[str, Sequence[str]] = {
    "flow-run ls -s failed -n 1": ("flow-run", "ls", "-s", "failed", "-n", "1"),
    "flow-run ls --since 1h": ("flow-run", "ls", "--since", "1h"),
    "flow-run ls --text": ("flow-run", "ls", "--text", "no such text"),
    "flow-run ls --sort duration -n 1": ("flow-run", "ls", "--sort", "duration", "-n", "1"),
    "task-run ls -n 10": ("task-run", "ls", "-n", "10"),
    "task-run ls --flow-run ID": ("task-run", "ls", "--flow-run", "RUN"),
    "flow ls": ("flow", "ls"),
    "flow-run logs ID": ("flow-run", "logs", "RUN"),
    "flow-run logs NAME": ("flow-run", "logs", "NAME"),
    "flow-run inspect START": ("flow-run", "inspect", "START"),
    "flow-run watch ID": ("flow-run", "watch", "RUN"),
    "flow-run wait ID": ("flow-run", "wait", "RUN"),
    "TAB, a flow run": (*_TAB, "inspect", ""),
    "TAB, the start of an id": (*_TAB, "inspect", "START"),
    "TAB, what can be cancelled": (*_TAB, "cancel", ""),
    "TAB, a flow": (*_TAB, "ls", "--flow", ""),
    "TAB, a tag": (*_TAB, "ls", "--tag", ""),
    "registry info": ("registry", "info"),
}
#: In the short form, of so many commands one.
_QUICK_STEP = 9
_LIVING = """
import threading
from prefectlite import flow

@flow
def waits():
    print("ready", flush=True)
    threading.Event().wait()

waits(return_state=True)
"""


def full_registry(trial: Trial) -> None:
    """Fill a registry; measure in it and in an empty one, in turns."""
    count = trial.scale.pick(100_000, 2_000)
    with tempfile.TemporaryDirectory(prefix="prefectlite-load-") as temporary:
        full, small, empty = (Path(temporary) / name for name in ("full", "small", "empty"))
        _fill(trial, full, count)
        with home(small), quiet():
            make_runs(1, _TASKS_IN_FLOW)
        with home(empty):
            open_registry(PREFECTLITE_REGISTRY.value())
        _show_task(trial, full, empty)
        _show_listing(trial, full, empty)
        for name in [*_COMMANDS][:: trial.scale.pick(1, _QUICK_STEP)]:
            _show_command(trial, name, full, small)
        _show_cancel(trial, full, empty)
        with home(full):
            _show_upkeep(trial, Path(temporary))
            _show_prune(trial, count)


def _fill(trial: Trial, folder: Path, count: int) -> None:
    """Put that many ended flow runs on record, and say whether they are like real ones."""
    with home(folder):
        began = perf_counter()
        with quiet():
            made = make_runs(min(200, count // 50), _TASKS_IN_FLOW)
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        (newest,) = registry.list_flow_runs(FlowRunFilter(states=["completed"]), limit=1)
        registry.close()
        path = folder / "registry.db"
        copy_runs(path, count // made)
        trial.tell(
            f"  filled, {path.stat().st_size / 1e6:,.0f} MB, in {perf_counter() - began:.0f} s"
        )
        contents = registry.upkeep.contents()
        told = f"{count:,} flow runs of {_TASKS_IN_FLOW} tasks"
        trial.claim_equal(f"{told}: flow runs", sum(contents.flow_runs.values()), count)
        trial.claim_equal(f"{told}: task runs", contents.rows["task_runs"], count * _TASKS_IN_FLOW)
        (copy,) = registry.list_flow_runs(FlowRunFilter(states=["completed"]), limit=1)
        registry.close()
        differing = differences(path, newest.id, copy.id) if newest.id != copy.id else ["no copy"]
        trial.claim(f"{told}: they are like real ones", not differing, "; ".join(differing))


def _show_task(trial: Trial, full: Path, empty: Path) -> None:
    """Measure a called task, in a flow of so many: by the clock, and what of that is work of ours."""
    count = trial.scale.pick(2_000, 300)

    def seconds(folder: Path, clock: Callable[[], float]) -> float:
        taken = []

        def work() -> None:
            began = clock()
            for number in range(count):
                tasks.nothing(number)
            taken.append(clock() - began)

        with home(folder):
            in_flow(work)
        return taken[0]

    clocks = {"": perf_counter, ", processor time": process_time}
    for told, clock in clocks.items():
        with quiet():
            ours, limit = in_turns(
                partial(seconds, full, clock), partial(seconds, empty, clock), rounds=_rounds(trial)
            )
        each = 1e6 / count
        name = f"full registry (limit: empty): task, called{told}"
        trial.show(name, "us", ours.times(each), limit.times(each), ratio_at_most=_TASK_RATIO)


def _show_listing(trial: Trial, full: Path, empty: Path) -> None:
    """Measure the listing of runs: the usual 200 of them, beside none, and of one."""
    for words in (["flow-run", "ls"], ["flow-run", "ls", "-n", "1"]):
        ours, limit = _in_turns(trial, _Command(words, full), _Command(words, empty))
        name = f"full registry (limit: empty): {' '.join(words)}"
        trial.show(name, "ms", ours, limit, ratio_at_most=_LIST_RATIO)


def _show_command(trial: Trial, name: str, full: Path, small: Path) -> None:
    trial.tell(f"  {name}")
    ours, limit = _in_turns(trial, _command(name, full), _command(name, small))
    trial.show(f"full registry (limit: one run): {name}", "ms", ours, limit)


class _Command(NamedTuple):
    """What is asked of the registry of a home folder."""

    words: Sequence[str]
    folder: Path

    def seconds(self) -> float:
        """Return how long the whole process takes."""
        with home(self.folder):
            return process_seconds(["-m", "prefectlite", *self.words])


def _command(name: str, folder: Path) -> _Command:
    """Return a command about a run of a registry."""
    with home(folder):
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        completed = registry.list_flow_runs(FlowRunFilter(states=["Completed"]), limit=100)
    flow_run = completed[-1]
    known = {"RUN": flow_run.id, "START": flow_run.id[:8], "NAME": flow_run.name}
    return _Command([known.get(word, word) for word in _COMMANDS[name]], folder)


def _in_turns(trial: Trial, one: _Command, other: _Command) -> tuple[Sample, Sample]:
    """Return the milliseconds that each of two commands takes."""
    ours, limit = in_turns(one.seconds, other.seconds, rounds=_rounds(trial))
    return ours.times(1e3), limit.times(1e3)


def _rounds(trial: Trial) -> int:
    return trial.scale.pick(7, 1)


def _show_cancel(trial: Trial, full: Path, empty: Path) -> None:
    ours, limit = in_turns(
        partial(_cancel_seconds, full), partial(_cancel_seconds, empty), rounds=_rounds(trial)
    )
    name = "full registry (limit: empty): flow-run cancel --wait"
    trial.show(name, "ms", ours.times(1e3), limit.times(1e3))


def _cancel_seconds(folder: Path) -> float:
    with home(folder):
        program = start_python(["-c", _LIVING], stdout=subprocess.PIPE)
        try:
            with killed_after(program):
                if program.stdout is None or program.stdout.readline() != "ready\n":
                    raise AssertionError("the flow did not start")
            registry = open_registry(PREFECTLITE_REGISTRY.value())
            (flow_run,) = registry.list_flow_runs(FlowRunFilter(states=["running"]))
            command = ["flow-run", "cancel", flow_run.id, "--wait"]
            return process_seconds(["-m", "prefectlite", *command])
        finally:
            program.kill()
            program.communicate()


def _show_upkeep(trial: Trial, folder: Path) -> None:
    """Measure what reads all of it: a look at the whole, and a backup, which is whole, too."""
    copy = folder / "copy.backup"
    _claim_done(trial, "registry check", measured(["registry", "check"]))
    _claim_done(trial, "registry check --quick", measured(["registry", "check", "--quick"]))
    _claim_done(trial, "registry backup", measured(["registry", "backup", str(copy)]))
    os.environ["PREFECTLITE_REGISTRY"] = f"sqlite:///{copy}"
    try:
        _claim_done(trial, "registry check of the backup", measured(["registry", "check"]))
    finally:
        del os.environ["PREFECTLITE_REGISTRY"]
    copy.unlink()


def _show_prune(trial: Trial, count: int) -> None:
    """Measure how long it takes to delete half of it; the rest is whole."""
    words = ["registry", "prune", "--older-than", f"{DAYS // 2}d"]
    _claim_done(trial, "registry prune --dry-run", measured([*words, "--dry-run"]))
    _claim_done(trial, "registry prune of the older half", measured(words))
    contents = open_registry(PREFECTLITE_REGISTRY.value()).upkeep.contents()
    left = sum(contents.flow_runs.values())
    name = "full registry: prune --older-than"
    trial.claim(f"{name}: half is left", abs(left - count / 2) < count / 20, left)
    days = (now() - (contents.oldest_at or now())).days
    trial.claim(f"{name}: the newer half", days <= DAYS // 2, f"the oldest is of {days} days ago")
    check = run_command("registry", "check")
    trial.claim(f"{name}: registry check", check.returncode == 0, check.stderr.strip())


def _claim_done(trial: Trial, name: str, ended: Ended) -> None:
    told = f"{ended.peak_bytes / 1e6:.0f} MB, {ended.errors.strip()[-200:]}"
    trial.claim(f"full registry: {name}", ended.exit_code == 0, told)
    trial.show(f"full registry: {name}", "s", ended.seconds)


LOADS: dict[str, Load] = {"full": full_registry}
