"""What agents live in: a registry where every call may be the last, and an infrastructure that notes.

The infrastructure keeps to what ``infrastructure/process.py`` and ``supervisor.py`` say of themselves: it
makes the folder of a launch before anything is started, and its supervisor says who it is. What it
starts is an ``Engine``, which goes on when it is told to. Whether one of all these lives says a lock.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from prefectlite.errors import (
    InfrastructureError,
    InfrastructureNotFound,
    NotFoundError,
    RegistryUnavailableError,
    StateConflictError,
)
from prefectlite.exits import Exit
from prefectlite.infrastructure import Launched
from prefectlite.liveness import machine_id
from prefectlite.records import FlowRun, ProcessIdentity
from prefectlite.registry import Registry
from prefectlite.run_folders import RunFolder
from prefectlite.settling import record_exit
from prefectlite.states import Cancelled, Completed, Running
from tests.models.clocks import FakeClock
from tests.models.elsewhere import OtherProcess
from tests.models.processes import identity

_PARTS = {"deployments", "launches", "pauses", "notifications"}


class Killed(BaseException):
    """The agent is no more: nothing of it runs after this."""


class Engine:
    """What was started for a run: a supervisor, and the process that runs the flow."""

    def __init__(self, world: World, flow_run_id: str, folder: RunFolder) -> None:
        self.flow_run_id = flow_run_id
        self._world, self._folder = world, folder
        self._lock = str(folder.path / "supervisor.lock")
        self.is_alive = True
        self.has_begun = self.is_told = False
        world.other.hold(self._lock)
        who = ("hostname", "boot_id", "pid_namespace", "pid")
        found = identity("", Path(self._lock))
        folder.write("supervisor.json", {name: getattr(found, name) for name in who})
        self.supervisor = folder.supervisor()

    def go_on(self) -> None:
        """Do the next thing: begin the run, or end it."""
        registry = self._world.registry
        try:
            flow_run = registry.find_flow_run(self.flow_run_id)
            if self.has_begun and not flow_run.state.is_final():
                is_heeded = flow_run.state.is_cancelling()
                registry.change_state(flow_run, Cancelled() if is_heeded else Completed())
            elif not self.has_begun and not self.is_told and _can_begin(flow_run):
                pid = f"{self.supervisor.hostname}:{self.supervisor.pid}"
                own = replace(flow_run, supervisor=self.supervisor, infrastructure_pid=pid)
                registry.begin_flow_run(own, Running(), self.supervisor)
                self.has_begun = True
                self._world.begun[self.flow_run_id] += 1
                return
        except (NotFoundError, StateConflictError):  # deleted; or cancelled at this moment
            pass
        self._end()

    def _end(self) -> None:
        """End as a supervisor does when nothing is left of its run."""
        reason = "terminated" if self.is_told else "ended"
        exit_ = Exit(reason=reason, ended_at=self._world.clock.moment, exit_code=0)
        self._folder.write_exit(exit_)
        registry = self._world.registry
        with suppress(NotFoundError):  # it was deleted
            flow_run = registry.find_flow_run(self.flow_run_id)
            record_exit(registry, flow_run, self._folder, exit_)
        self.kill()

    def kill(self) -> None:
        """End at once, without a word."""
        self.is_alive = False
        self._world.other.let_go(self._lock)


def _can_begin(flow_run: FlowRun) -> bool:
    is_waiting = flow_run.state.is_scheduled() or flow_run.state.is_pending()
    return is_waiting and not flow_run.run_count


@dataclass
class World:
    """All that agents can reach, and a journal of what was started.

    Attributes:
        registry: As all but agents have it.
        problem: What is wrong with the next launch; None for nothing.
        engines: What was started, in its order.
        begun: How often the flow of a run began.
        launched: The ids of the runs that were started.
    """

    registry: Registry
    clock: FakeClock
    other: OtherProcess
    problem: str | None = None
    engines: list[Engine] = field(default_factory=list)
    begun: Counter[str] = field(default_factory=Counter)
    launched: list[str] = field(default_factory=list)
    on_step: Callable[[str], None] = lambda name: None
    on_launch: Callable[[FlowRun], None] = lambda flow_run: None

    def living(self) -> list[Engine]:
        """Return what goes on."""
        return [engine for engine in self.engines if engine.is_alive]

    def install(self) -> None:
        """Be the infrastructure of the type ``noted``, as if a package had brought it."""
        module = ModuleType("prefectlite.infrastructure.noted")
        module.__file__ = __file__
        module.from_fields = lambda fields: Noted(self)
        sys.modules[module.__name__] = module


class Noted:
    """An infrastructure that notes what it starts; see ``Infrastructure``."""

    def __init__(self, world: World) -> None:
        self._world = world

    def run(self, flow_run: FlowRun) -> Launched:
        """Start an engine."""
        world = self._world
        world.on_launch(flow_run)
        world.on_step("infrastructure.run")
        problem, world.problem = world.problem, None
        if problem == "not now":
            raise InfrastructureError("there is no room")
        if problem == "never":
            raise ValueError("it is described wrongly")
        token = os.urandom(16).hex()
        folder = RunFolder.make(flow_run.id, token)
        url = world.registry.url
        folder.write("spec.json", {"token": token, "machine_id": machine_id(), "registry": url})
        world.on_step("infrastructure.run")
        engine = Engine(world, flow_run.id, folder)
        world.engines.append(engine)
        world.launched.append(flow_run.id)
        world.on_step("infrastructure.run")
        return Launched(f"{engine.supervisor.hostname}:{engine.supervisor.pid}", engine.supervisor)

    def kill(
        self, infrastructure_pid: str, grace_seconds: float, *, supervisor: ProcessIdentity
    ) -> None:
        """Tell an engine to end."""
        self._world.on_step("infrastructure.kill")
        for engine in self._world.living():
            if engine.supervisor == supervisor:
                engine.is_told = True
                return
        raise InfrastructureNotFound("it is gone")


class Watched:
    """A registry, or a part of one, as an agent has it: something may happen around each call."""

    def __init__(self, real: object, on_call: Callable, path: str = "") -> None:
        self._real, self._on_call, self._path = real, on_call, path

    def __getattr__(self, name: str) -> object:
        found = getattr(self._real, name)
        path = f"{self._path}{name}"
        if name in _PARTS:
            return Watched(found, self._on_call, f"{path}.")
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._on_call(path, found, args, kwargs)


@dataclass
class Mishap:
    """Something that happens once, some steps after now.

    Attributes:
        place: What the names of the steps contain that count.
        left: How many of these are still to come before it.
        happens: What it is.
    """

    place: str
    left: int
    happens: Callable[[str], None]


def kill(name: str) -> None:
    """End the agent that makes this step."""
    raise Killed(name)


def fail(name: str) -> None:
    """Have the registry fail; steps of infrastructure cannot."""
    if not name.startswith("infrastructure"):
        raise RegistryUnavailableError("the disk is on fire")
