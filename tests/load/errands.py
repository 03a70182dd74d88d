"""What people and programs do in a soak: runs of all kinds, each with the end that it must come to."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from prefectlite.deployments import run_deployment
from prefectlite.errors import NotFoundError
from prefectlite.names import new_id
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import State
from tests.benchmarks.measuring import DEADLINE_SECONDS
from tests.load.programs import run_command, start_command
from tests.load.trials import Trial, wait_until

# More at once, and a busy machine would fall ever further behind.
_MOST = 8
_LATE_SECONDS = 120.0


class _Kind(NamedTuple):
    """A kind of run.

    Attributes:
        name: What it is called in the report.
        flow: The flow's.
        ends: The name of the state that it must end in.
        acts_at: The name of the state in which something is done with it; None for nothing.
        command: What that is, of ``flow-run``.
    """

    name: str
    flow: str
    ends: str
    acts_at: str | None = None
    command: str = ""


#: The first is as frequent as two others.
_KINDS = (
    _Kind("short", "short", "Completed"),
    _Kind("nested", "nested", "Completed"),
    _Kind("fails", "fails", "Failed"),
    _Kind("asks", "asks", "Completed", "Paused", "resume"),
    _Kind("asks and ends", "asks", "Cancelled", "Paused", "cancel"),
    _Kind("waits", "waits", "Cancelled", "Running", "cancel"),
)
_LAUNCHED_SHARE, _FOLLOWED_SHARE = 0.6, 0.3
#: The exit code of who runs or follows a run that has ended so.
_EXIT_CODES = {"Completed": 0, "Failed": 1, "Cancelled": 143}


@dataclass(slots=True)
class _Errand:
    """A run, and what is to become of it.

    Attributes:
        name: The run's.
        has_acted: Whether what is to be done with it is done.
        follower: Reads its log to the end, where somebody does.
        program: Runs it in the foreground; None where an agent does.
    """

    kind: _Kind
    name: str
    has_acted: bool = False
    follower: subprocess.Popen[str] | None = None
    program: subprocess.Popen[str] | None = None
    began_at: float = field(default_factory=time.monotonic)

    @property
    def programs(self) -> list[subprocess.Popen[str]]:
        """What ends when the run has."""
        return [one for one in (self.program, self.follower) if one is not None]

    def __str__(self) -> str:
        where = "launched" if self.program is None else "in the foreground"
        return f"{self.kind.name}, {where}"


class Errands:
    """All that is under way, and what became of what was."""

    def __init__(self, trial: Trial, registry: Registry, file: Path, random: Random) -> None:
        self._trial = trial
        self._registry = registry
        self._file = file
        self._random = random
        self._open: list[_Errand] = []
        self._done: Counter[str] = Counter()
        self._wrong: list[str] = []
        self._pruning: subprocess.Popen[str] | None = None
        self._prunes = 0

    def advance(self) -> None:
        """Go on with each."""
        for errand in [*self._open]:
            if self._has_ended(errand):
                self._open.remove(errand)

    def begin(self) -> None:
        """Begin something, chosen at random, unless too much is under way."""
        if len(self._open) >= _MOST:
            return
        kind = self._random.choice((_KINDS[0], *_KINDS))
        errand = _Errand(kind, f"{kind.flow}-{new_id()[:13]}")
        if self._random.random() < _LAUNCHED_SHARE:
            run_deployment(f"{kind.flow}/load", flow_run_name=errand.name, timeout=0)
            if self._random.random() < _FOLLOWED_SHARE:
                errand.follower = start_command("flow-run", "logs", errand.name, "--follow")
        else:
            words = ["run", f"{self._file}:{kind.flow}", "--name", errand.name]
            errand.program = start_command(*words)
        self._open.append(errand)

    def _has_ended(self, errand: _Errand) -> bool:
        """Do what is to be done with a run now; return whether all of it is over."""
        kind, state = errand.kind, self._state(errand.name)
        if state is not None and state.name == kind.acts_at and not errand.has_acted:
            start_command("flow-run", kind.command, errand.name).wait(DEADLINE_SECONDS)
            errand.has_acted = True
        have_ended = all(one.poll() is not None for one in errand.programs)
        if state is not None and state.is_final() and have_ended:
            self._judge(errand, state)
            return True
        if time.monotonic() - errand.began_at > _LATE_SECONDS:
            self._wrong.append(f"{errand} {errand.name}: {state} for too long")
            for one in errand.programs:
                one.kill()
                one.wait()
            return True
        return False

    def _state(self, name: str) -> State | None:
        try:
            return self._registry.find_flow_run(name).state
        except NotFoundError:  # its program has not begun
            return None

    def _judge(self, errand: _Errand, state: State) -> None:
        self._done[str(errand)] += 1
        ends = errand.kind.ends
        if state.name != ends:
            self._wrong.append(f"{errand} {errand.name} is {state}, not {ends}")
        for program in errand.programs:
            if program.returncode != _EXIT_CODES[ends]:
                what = "run" if program is errand.program else "logs --follow"
                told = f"{what} ended with {program.returncode}, not {_EXIT_CODES[ends]}"
                self._wrong.append(f"{errand} {errand.name}: {told}")

    def prune(self, kept_seconds: int) -> None:
        """Delete what ended longer ago, while all goes on; not before the last time is over."""
        if self._pruning is None or self._end_pruning():
            words = ("registry", "prune", "--older-than", f"{kept_seconds}s")
            self._pruning = start_command(*words)

    def _end_pruning(self) -> bool:
        if self._pruning is None or self._pruning.poll() is None:
            return self._pruning is None
        if self._pruning.returncode:
            self._wrong.append(f"registry prune ended with {self._pruning.returncode}")
        self._prunes += 1
        self._pruning = None
        return True

    def finish(self) -> None:
        """Begin no more, and wait until all that is under way has ended."""

        def have_ended() -> bool:
            self.advance()
            return not self._open and self._end_pruning()

        wait_until(have_ended, "the end of all runs", seconds=DEADLINE_SECONDS)

    def stop(self) -> None:
        """End what is still there, where something went wrong."""
        for errand in self._open:
            for program in errand.programs:
                program.kill()
                program.wait()
        run_command("flow-run", "cancel", "--all", "--wait", "--grace", "1s")

    def claim(self) -> None:
        """Say whether each came to the end that it must come to, and show how many there were."""
        told = "; ".join(self._wrong[:5])
        self._trial.claim("soak: every run ended as it was meant to", not self._wrong, told)
        unfinished = FlowRunFilter(states=["Running", "Pending", "Paused", "Cancelling"])
        left = len(self._registry.list_flow_runs(unfinished, limit=None))
        self._trial.claim_equal("soak: runs that go on", left, 0)
        for kind, number in sorted(self._done.items()):
            self._trial.show(f"soak of {self._trial.minutes:g} min: {kind}", "runs", number)
        self._trial.show(
            f"soak of {self._trial.minutes:g} min: registry prune", "times", self._prunes
        )

    def __str__(self) -> str:
        return f"{self._done.total()} runs ended, {len(self._open)} under way, {len(self._wrong)} wrong"
