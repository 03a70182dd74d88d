"""Take flow runs that are due from work queues, launch them, and see to it that cancellations happen.

``prefectlite agent start`` runs it, by hand, from cron or as a service. An agent keeps nothing to
itself: all that it knows is on record, so one that is killed is followed by another as if it had never
been away. What it launches is not its child's child: it outlives the agent.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta
from typing import Self

from prefectlite.cancellation import Enforcement, wake
from prefectlite.clock import duration_text, monotonic, now
from prefectlite.courier_processes import reap
from prefectlite.couriers import call_courier
from prefectlite.deployment_records import Agent
from prefectlite.errors import (
    InfrastructureError,
    InfrastructureNotAvailable,
    NotFoundError,
    PrefectLiteError,
    RegistryError,
    RegistryNewerError,
    RegistryReplacedError,
    StateConflictError,
)
from prefectlite.launching import launch
from prefectlite.liveness import is_alive, own_identity
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settling import settle, settle_unlaunched, tidy_unneeded
from prefectlite.states import Scheduled

#: What ends an agent; between two steps, never within one. Where one is ignored, as by nohup, it stays so.
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# No change of the registry tells of a process that died.
_SETTLE_SECONDS = 5.0
# A run that nobody took within this time is Late; as in Prefect 2.8.
_LATE_SECONDS = 15.0
# A few at a time: another agent gets its share, and a signal is not kept waiting for long.
_RUNS_AT_ONCE = 5
_FIRST_BACK_OFF_SECONDS, _LAST_BACK_OFF_SECONDS = 0.5, 30.0
# Who cannot be ended now may be so later, when what is in the way has gone.
_TRY_AGAIN_SECONDS = 5.0


class _Stop(BaseException):
    """The agent was told to end; raised only where it waits."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


class _Signals:
    """What ends the agent: remembered while it works, and heard while it waits.

    ``signal.sigtimedwait`` would be simpler. But where the process was stopped as it waited (Ctrl-Z) and
    the time is over when it goes on, CPython 3.11 returns what happened to be in memory as a signal.
    """

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe()
        self._told = select.poll()
        self._told.register(self._reading, select.POLLIN)
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._handlers = {number: signal.getsignal(number) for number in STOPPING}
        for number, handler in self._handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)  # else nothing is written to the pipe
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reading)
        os.close(self._writing)

    def pause(self, seconds: float) -> None:
        """Sleep, and see to signals, also those that came since the last time.

        Raises:
            _Stop: One came.
        """
        if self._told.poll(seconds * 1000):
            for number in os.read(self._reading, 512):
                if number in STOPPING:
                    raise _Stop(signal.Signals(number))


def new_agent(name: str, work_queues: Collection[str], concurrency_limit: int | None) -> Agent:
    """Return this process as an agent; it is not on record by that."""
    return Agent(
        id=new_id(),
        name=name,
        work_queues=tuple(dict.fromkeys(work_queues)),
        concurrency_limit=concurrency_limit,
        process=own_identity(),
    )


class Service:
    """An agent at work.

    Args:
        registry: Where the runs are.
        agent: Who it is, and what it takes.
        tell: Called with what a person may want to know, a sentence each time.
    """

    def __init__(self, registry: Registry, agent: Agent, tell: Callable[[str], object]) -> None:
        self._registry = registry
        self._agent = agent
        self._tell = tell
        self._enforcements: dict[str, tuple[Enforcement, float]] = {}
        self._taken: list[FlowRun] = []
        self._launched: set[str] = set()
        self._supervisors: set[int] = set()
        self._told: set[str] = set()
        self._signals = _Signals()
        self._is_once = self._has_more = False
        self._back_off_seconds = 0.0
        self._settle_at = self._claim_at = 0.0

    def run_once(self) -> int:
        """Do what is due now, and return the exit code: 0, or 5 where a run could not be started.

        Raises:
            RegistryError: The registry cannot be used.
        """
        self._is_once = True
        while self._round() <= 0 and self._has_more:
            continue
        told_at = monotonic() + _FIRST_BACK_OFF_SECONDS * 3
        while any(at <= told_at for _, at in self._enforcements.values()):
            # A cancellation that was asked for just now: its run is told in a moment.
            time.sleep(max(0.0, min(at for _, at in self._enforcements.values()) - monotonic()))
            self._enforce()
        return 5 if self._claim_at else 0

    def run(self) -> int:
        """Put the agent on record, work until a signal comes, and return the exit code.

        Raises:
            RegistryError: It cannot be put on record.
            RegistryNewerError: Another version of prefectlite has taken over the registry.
            RegistryReplacedError: It is another registry now.
        """
        with self._signals:
            try:
                self._registry.deployments.save_agent(self._agent)
                queues = ", ".join(self._agent.work_queues)
                self._tell(f"Agent {self._agent.name!r} takes runs from: {queues}")
                while True:
                    self._turn()
            except _Stop as stop:
                self._tell(f"{stop}: no more runs are taken; those that go on are left to go on")
                return 130 if stop.number is signal.SIGINT else 0
            finally:
                with suppress(RegistryError):
                    self._registry.deployments.delete_agent(self._agent.id)

    def _turn(self) -> None:
        """Do what is due, and wait until something else is."""
        try:
            self._signals.pause(0.0)
            mark = self._registry.change_mark()
            seconds = self._round()
            self._tell_ended()
            reap(self._supervisors)  # the next launch does it, too; but that may be a long time off
            self._registry.wait_for_change(mark, timeout_seconds=seconds, pause=self._signals.pause)
        except (RegistryNewerError, RegistryReplacedError):
            raise
        except RegistryError as error:
            seconds = self._back_off()
            self._settle_at = 0.0  # it may have lost sight of something
            self._tell(f"{error}; trying again in {duration_text(seconds)}")
            self._signals.pause(seconds)
        else:
            if not self._claim_at:
                self._back_off_seconds = 0.0

    def _back_off(self) -> float:
        longer = max(_FIRST_BACK_OFF_SECONDS, self._back_off_seconds * 2)
        self._back_off_seconds = min(longer, _LAST_BACK_OFF_SECONDS)
        return self._back_off_seconds

    def _round(self) -> float:
        """Do what is due; return after how many seconds something else may be."""
        if monotonic() >= self._settle_at:
            settle(self._registry, lambda: self._registry, ending_seconds=0.0)
            self._find_forgotten()
            self._mark_late()
            self._settle_at = monotonic() + _SETTLE_SECONDS
        self._find_cancellations()
        self._enforce()
        if monotonic() >= self._claim_at:
            self._claim_at = 0.0
            self._launch_due()
        told_at = call_courier(self._registry)
        if self._has_more:
            return 0.0
        next_due_at = self._registry.deployments.next_due_at(
            self._agent.work_queues, after=now() - timedelta(seconds=0.001)
        )
        moments = [self._settle_at, *(at for _, at in self._enforcements.values())]
        moments += [self._claim_at] if self._claim_at else []
        seconds = min(moments) - monotonic()
        if next_due_at is not None:
            seconds = min(seconds, (next_due_at - now()).total_seconds())
        if told_at is not None and told_at > now():  # what is due now is a courier's affair
            seconds = min(seconds, (told_at - now()).total_seconds())
        return max(0.0, seconds)

    def _find_forgotten(self) -> None:
        """Let others have what this agent has taken, and lost sight of when the registry failed."""
        known = {flow_run.id for flow_run in self._taken}
        for flow_run in self._registry.list_begun_flow_runs():
            if (
                flow_run.launcher == self._agent.process
                and flow_run.process is None
                and flow_run.infrastructure_pid is None
                and flow_run.id not in known
            ):
                settle_unlaunched(self._registry, flow_run)

    def _mark_late(self) -> None:
        before = now() - timedelta(seconds=_LATE_SECONDS)
        tables = self._registry.deployments
        # Those of other queues, too: there may be no agent for them, which is what is to be seen.
        queues = {*self._agent.work_queues, *tables.count_queued_flow_runs()}
        overdue = tables.list_overdue_flow_runs(queues, before=before)
        for flow_run in overdue:
            with suppress(StateConflictError, NotFoundError):  # it was taken, or deleted, just now
                self._registry.change_state(flow_run, Scheduled(name="Late"))

    def _find_cancellations(self) -> None:
        """Note which runs are to end: those of its queues, and those that are in none."""
        served = {None, *self._agent.work_queues}
        found = self._registry.list_flow_runs(FlowRunFilter(states=["cancelling"]), limit=None)
        for flow_run in found:
            if flow_run.work_queue in served and flow_run.id not in self._enforcements:
                self._enforcements[flow_run.id] = Enforcement(self._registry, flow_run.id), 0.0
                with suppress(InfrastructureError):  # told when it is enforced
                    wake(flow_run)
        for ended in self._enforcements.keys() - {flow_run.id for flow_run in found}:
            # Not only when its grace period is over: it is to be told.
            self._enforcements[ended] = self._enforcements[ended][0], 0.0

    def _enforce(self) -> None:
        for flow_run_id, (enforcement, at) in [*self._enforcements.items()]:
            if at > monotonic():
                continue
            try:
                seconds = enforcement.advance()
            except RegistryError:
                raise
            except NotFoundError:  # it was deleted
                seconds = None
            except InfrastructureNotAvailable:  # an agent of its host does it
                seconds = _TRY_AGAIN_SECONDS
            except PrefectLiteError as error:
                self._tell_once(f"cannot cancel flow run {flow_run_id}: {error}", error.hint)
                seconds = _TRY_AGAIN_SECONDS
            except Exception as error:  # noqa: BLE001 - of an infrastructure that is not ours
                self._tell_once(f"cannot cancel flow run {flow_run_id}: {error!r}", None)
                seconds = _TRY_AGAIN_SECONDS
            if seconds is None:
                del self._enforcements[flow_run_id]
                self._tell_cancelled(flow_run_id)
            else:
                self._enforcements[flow_run_id] = enforcement, monotonic() + seconds

    def _tell_cancelled(self, flow_run_id: str) -> None:
        self._launched.discard(flow_run_id)
        with suppress(PrefectLiteError):  # it was deleted
            flow_run = self._registry.find_flow_run(flow_run_id)
            self._tell(f"Flow run {flow_run.name!r} is {flow_run.state}")

    def _tell_ended(self) -> None:
        """Tell how those of the launched runs ended that have since the last time."""
        if not self._launched:
            return
        ended = self._launched - {run.id for run in self._registry.list_begun_flow_runs()}
        self._launched -= ended
        for flow_run_id in ended:
            with suppress(NotFoundError):  # it was deleted
                flow_run = self._registry.find_flow_run(flow_run_id)
                if flow_run.state.is_final():
                    told = f"Flow run {flow_run.name!r} is {flow_run.state}"
                    self._tell(f"{told}, after {duration_text(flow_run.duration_seconds or 0)}")

    def _launch_due(self) -> None:
        """Take some of what is due and launch it, until something is in the way."""
        # What is left from before the registry could not be used is this agent's as long as it lives.
        if not self._taken:
            self._taken = self._registry.deployments.claim_due_flow_runs(
                self._agent.work_queues, limit=_RUNS_AT_ONCE, at=now(), agent=self._agent
            )
        self._has_more = len(self._taken) >= _RUNS_AT_ONCE
        while self._taken and not self._claim_at:
            self._launch(self._taken.pop(0))
        while self._taken:  # what was in the way of the one before is in the way of these
            self._release(self._taken.pop(0), "")
        self._has_more = self._has_more and not self._claim_at

    def _launch(self, flow_run: FlowRun) -> None:
        try:
            launched = launch(self._registry, flow_run)
        except NotFoundError:  # it was deleted, and ends when it finds that out
            return
        except InfrastructureError as error:
            seconds = self._back_off()
            self._claim_at = monotonic() + seconds
            again = f"trying again in {duration_text(seconds)}"
            self._tell(f"{error}; {'it is left to the next agent' if self._is_once else again}")
            self._release(flow_run, str(error))
        else:
            self._launched.add(launched.id)
            if launched.supervisor is not None:
                self._supervisors.add(launched.supervisor.pid)
            where = launched.infrastructure_pid or launched.state
            self._tell(f"Launched flow run {launched.name!r} ({launched.id}): {where}")

    def _release(self, flow_run: FlowRun, told: str) -> None:
        """Let others have what was taken; where the registry fails, ``_find_forgotten`` does later."""
        with suppress(StateConflictError, NotFoundError):  # cancelled: then it is found so; deleted
            self._registry.launches.release_flow_run(flow_run, Scheduled(told or None))

    def _tell_once(self, text: str, hint: str | None) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(f"{text} ({hint})" if hint else text)


def living_agents(registry: Registry, open_to_write: Callable[[], Registry]) -> list[Agent]:
    """Return the agents that are going, or may be; what is left of dead ones is deleted."""
    living = []
    for agent in registry.deployments.list_agents():
        if is_alive(agent.process) is not False:
            living.append(agent)
            continue
        with suppress(RegistryError):
            open_to_write().deployments.delete_agent(agent.id)
            tidy_unneeded(registry, [agent.process])
    return living


def default_name() -> str:
    """Return the name of an agent that was given none: its host's."""
    return os.uname().nodename
