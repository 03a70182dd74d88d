"""Cancel flow runs: ask for it on record, and see to it that they end.

The one way to cancel, for commands, programs and agents. Asking is a change of state; what follows is
done by whoever is there, and no two disagree: the run's own engine, which sees the request and ends
its code; its supervisor, which is told; else, here, signals to its process and at last to everything
that descends from it. A run is Cancelled on record only when that is gone.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from datetime import datetime, timedelta

from prefectlite.clock import monotonic, now
from prefectlite.errors import (
    ConflictError,
    InfrastructureError,
    InfrastructureNotFound,
    RegistryLockTimeoutError,
    RunFinalError,
    StateConflictError,
    UsageError,
)
from prefectlite.exits import killed_message
from prefectlite.infrastructure import DEFAULT_TYPE, load_infrastructure
from prefectlite.liveness import is_alive, is_own, record_dead, tidy
from prefectlite.process_trees import end_tree, send
from prefectlite.records import FlowRun, ProcessIdentity
from prefectlite.registry import Registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settling import settle
from prefectlite.states import Cancelled, Cancelling
from prefectlite.waiting import wait_for_flow_runs

#: What a run gets to end by itself, where nobody says otherwise.
DEFAULT_GRACE_SECONDS = 30.0
# A run that reads its record needs no signal; this is long enough for it to have done so.
_HEED_SECONDS = 1.0
# What a supervisor may take to end what it has killed, before it is killed itself.
_SUPERVISOR_SECONDS = 15.0
# What a launch may take, at the end of which it is on record or has failed.
_LAUNCH_SECONDS = 40.0
# Between two looks at what nobody tells of: a launcher that is about to say what it has launched.
_LOOK_SECONDS = 0.5


def request_cancellation(
    registry: Registry, flow_run: FlowRun, *, grace_seconds: float = DEFAULT_GRACE_SECONDS
) -> FlowRun:
    """Put on record that a run is to end, and return it as it then is.

    The same is asked of its subflow runs in other processes. What no process has begun or taken is
    Cancelled at once. Safe to call again: the sooner of two ends of a grace period holds.

    Raises:
        RunFinalError: It has ended.
        NotFoundError: It was deleted.
    """
    while True:
        # As it is now: a deadline that is set for what has moved on would stay with it.
        flow_run = registry.find_flow_run(flow_run.id)
        state, cancelling = flow_run.state, Cancelling()
        if state.is_final():
            raise RunFinalError(
                f"flow run {flow_run.name!r} is {state.name} already; it cannot be cancelled"
            )
        is_taken = flow_run.process is not None or flow_run.launcher is not None
        try:
            if state.is_scheduled() and not is_taken:
                registry.change_state(flow_run, Cancelled("It had not been started."))
            else:
                kill_at = cancelling.timestamp + timedelta(seconds=grace_seconds)
                registry.launches.set_kill_at(flow_run.id, kill_at)
                if not state.is_cancelling():
                    registry.change_state(flow_run, cancelling)
            break
        except StateConflictError:  # it has just moved on
            continue
    for child in _runs_elsewhere(registry, flow_run):
        with suppress(RunFinalError):  # just now
            request_cancellation(registry, child, grace_seconds=grace_seconds)
    return registry.find_flow_run(flow_run.id)


def _runs_elsewhere(registry: Registry, flow_run: FlowRun) -> list[FlowRun]:
    """Return the subflow runs, and theirs, that have not ended and do not end with their parent."""
    found = []
    for child in registry.list_flow_runs(FlowRunFilter(parent_flow_run_id=flow_run.id), limit=None):
        is_elsewhere = child.process is None or child.process != flow_run.process
        if is_elsewhere and not child.state.is_final():
            found.append(child)
        found += _runs_elsewhere(registry, child)
    return found


def wake(flow_run: FlowRun) -> None:
    """Have the run's own engine look at its record now, where it can be reached from here."""
    if flow_run.process is not None:
        # It does nothing to a process that does not listen for it.
        send(flow_run.process, signal.SIGURG)
    if flow_run.supervisor is not None:  # one that is stopped would not see the engine's end
        send(flow_run.supervisor, signal.SIGCONT)


def enforce_cancellation(registry: Registry, flow_run: FlowRun) -> FlowRun:
    """See to it that a run which is Cancelling ends, and return it as it is then.

    Blocks until it has ended: until its ``kill_at``, and a moment more.

    Raises:
        InfrastructureNotAvailable: It cannot be signalled from here.
        InfrastructureError: Some of its processes do not die, or cannot be proven to be its own.
        ConflictError: It is a subflow run that does not heed the request: it shares its process with
            others, which must not be killed. Or that is the process which calls this.
    """
    enforcement = Enforcement(registry, flow_run.id)
    while (pause_seconds := enforcement.advance()) is not None:
        wait_for_flow_runs(
            registry,
            enforcement.flow_run_ids,
            timeout_seconds=pause_seconds,
            needed=len(enforcement.flow_run_ids),
        )
    return registry.find_flow_run(flow_run.id)


class Enforcement:
    """What is done about one run that is Cancelling, step by step, for whoever also does other things.

    All that it needs is on the run's record: another process can begin anew at any time.
    """

    def __init__(self, registry: Registry, flow_run_id: str) -> None:
        self._registry = registry
        self._flow_run_id = flow_run_id
        self._is_told = False
        # Ends of times that the wall clock gave at first; from then on it may be set as it will.
        self._kill_at: datetime | None = None
        self._tell_at = self._end_at = 0.0
        self._children: dict[str, Enforcement] = {}

    @property
    def flow_run_ids(self) -> list[str]:
        """The runs whose end is seen to: this one, and its subflow runs in other processes."""
        return [self._flow_run_id, *self._children]

    def advance(self) -> float | None:
        """Do what is due; return how many seconds later to come again, or None when it has ended.

        Its subflow runs in other processes must have ended, too. It blocks only to wait for the death of what it has killed.

        Raises:
            PrefectLiteError: As ``enforce_cancellation``; to try again later does no harm.
        """
        registry = self._registry
        flow_run = registry.find_flow_run(self._flow_run_id)
        pauses = [self.advance_alone(flow_run)]
        for child in _runs_elsewhere(registry, flow_run):
            if child.state.is_cancelling():
                enforcement = self._children.setdefault(child.id, Enforcement(registry, child.id))
                pauses.append(enforcement.advance_alone(child))
        return min((pause for pause in pauses if pause is not None), default=None)

    def advance_alone(self, flow_run: FlowRun) -> float | None:
        """Do what is due about the run itself, as it is on record now; see ``advance``."""
        if not flow_run.state.is_cancelling():
            return None
        if flow_run.infrastructure_pid is None and flow_run.process is None:
            return self._wait_for_launcher(flow_run)
        has_others = _has_others(self._registry, flow_run)
        left = self._seconds_left(flow_run)
        if not self._is_told:
            heed = self._tell_at - monotonic()
            is_own = flow_run.process is not None and not _is_supervised(flow_run)
            if min(heed, left) > 0 and is_own:  # else who is told gives it that time
                return min(heed, left)
            if not has_others:
                self._tell(flow_run, left)
            self._is_told = True  # only now: what fails is tried again
        if _is_supervised(flow_run):
            left += _SUPERVISOR_SECONDS  # it does the rest
        if left > 0:
            return left
        if has_others:
            raise ConflictError(
                f"flow run {flow_run.name!r} does not end, and shares its process with others",
                hint="cancel the flow run that called it",
            )
        self._kill(flow_run)
        return None

    def _wait_for_launcher(self, flow_run: FlowRun) -> float | None:
        """Leave a run that is taken and not launched to who has taken it, as long as that can be."""
        if flow_run.launcher is not None:
            settle(self._registry, lambda: self._registry, ending_seconds=0.0)
            left = self._seconds_left(flow_run)
            if left > 0 or (left > -_LAUNCH_SECONDS and is_alive(flow_run.launcher)):
                return _LOOK_SECONDS
        told = "Whether it still ran could not be found out: its process was never recorded."
        self._mark(flow_run, told)
        return None

    def _seconds_left(self, flow_run: FlowRun) -> float:
        """Return how long a run that is Cancelling has until it is killed; negative when it is over."""
        asked_at, kill_at = flow_run.state.timestamp, flow_run.kill_at
        if kill_at is None:  # asked for by a program that sets states itself
            kill_at = asked_at + timedelta(seconds=DEFAULT_GRACE_SECONDS)
        if kill_at != self._kill_at:
            grace, left = kill_at - asked_at, kill_at - now()
            if timedelta() < grace < left:  # the clock was set back: it would be years, say
                left = grace
            heeded = min(_HEED_SECONDS, _HEED_SECONDS - (now() - asked_at).total_seconds())
            self._kill_at = kill_at
            self._end_at, self._tell_at = monotonic() + left.total_seconds(), monotonic() + heeded
        return self._end_at - monotonic()

    def _tell(self, flow_run: FlowRun, left: float) -> None:
        if flow_run.infrastructure_pid is not None and _is_supervised(flow_run):
            try:
                infrastructure = load_infrastructure(flow_run.infrastructure or {})
            except UsageError as error:
                raise InfrastructureError(
                    f"flow run {flow_run.name!r} cannot be ended from here: {error}",
                    hint="install here what its infrastructure needs, and cancel it again",
                ) from error
            try:
                infrastructure.kill(
                    flow_run.infrastructure_pid, max(0.0, left), supervisor=flow_run.supervisor
                )
            except InfrastructureNotFound:
                if flow_run.supervisor is None:  # of an infrastructure that needs none
                    self._mark(flow_run, "What it ran in was gone already.")
                else:
                    settle(self._registry, lambda: self._registry)
        elif flow_run.process is not None:
            # One that is stopped handles no signal. It may also hold the write gate, without which the next
            # step cannot be taken: so this one is sent whatever the run has come to, and ends nothing.
            send(flow_run.process, signal.SIGCONT)
            self._signal(flow_run.process, signal.SIGTERM)

    def _signal(self, process: ProcessIdentity, number: signal.Signals) -> bool:
        """Signal a process while its run cannot end; return False where that has ended already.

        Nobody supervises it: after its flow it may go on with a program of the user's, for which no
        signal is meant. One that comes before the end is the flow's, see ``lifecycle.finish``.
        """
        try:
            return self._registry.launches.while_cancelling(
                self._flow_run_id, lambda: send(process, number)
            )
        except RegistryLockTimeoutError:
            # Perhaps it is that process which has the gate, and is stopped: only its end frees it. Its
            # run cannot have ended meanwhile.
            if not self._registry.find_flow_run(self._flow_run_id).state.is_cancelling():
                return False
            send(process, number)
            return True

    def _kill(self, flow_run: FlowRun) -> None:
        """Kill what did not end in time, and record it."""
        registry, owner = self._registry, flow_run.supervisor or flow_run.process
        if owner is None:
            self._is_told = False  # what it runs in is told again
            raise InfrastructureError(f"flow run {flow_run.name!r} does not end")
        if is_own(owner):  # it would stop itself, with the write gate in its hands
            raise ConflictError(
                f"flow run {flow_run.name!r} does not end, and it is this process that would be killed",
                hint=f"from another one: prefectlite flow-run cancel {flow_run.id}",
            )
        if flow_run.supervisor is None and not self._signal(owner, signal.SIGSTOP):
            return
        try:
            swept = end_tree(owner)
        except BaseException:
            with suppress(InfrastructureError):
                send(owner, signal.SIGKILL)  # else it would stay stopped, perhaps in the write gate
            raise
        if swept.survivors:
            pids = ",".join(map(str, swept.survivors))
            raise InfrastructureError(
                f"these processes of flow run {flow_run.name!r} were killed and do not end: {pids}",
                hint=f"they may wait for a disk or a network: ps -o pid,stat,wchan -p {pids}",
            )
        if is_alive(owner) is not False:
            raise InfrastructureError(
                f"process {owner.pid} on {owner.hostname} cannot be proven to be that of flow run"
                f" {flow_run.name!r}; it was not signalled",
                hint=f"to mark it all the same: prefectlite flow-run cancel --force {flow_run.id}",
            )
        told = killed_message(flow_run, swept.killed)
        for run in registry.list_begun_flow_runs():
            if owner in (run.process, run.supervisor):
                if run.process is None:  # it had not been begun
                    self._mark(run, told)
                else:
                    record_dead(registry, run, told)
        tidy(owner)

    def _mark(self, flow_run: FlowRun, told: str) -> None:
        try:
            self._registry.change_state(flow_run, Cancelled(told))
        except StateConflictError:  # somebody knew more
            return


def mark_cancelled(registry: Registry, flow_run: FlowRun) -> FlowRun:
    """Put a run that is Cancelling on record as Cancelled, without knowing that it has ended."""
    told = "Marked by hand; whether it still runs is not known."
    return registry.change_state(flow_run, Cancelled(told))


def _is_supervised(flow_run: FlowRun) -> bool:
    """Return whether an infrastructure ends the run, and not a signal to its own process."""
    type_ = (flow_run.infrastructure or {}).get("type", DEFAULT_TYPE)
    return flow_run.supervisor is not None or type_ != DEFAULT_TYPE


def _has_others(registry: Registry, flow_run: FlowRun) -> bool:
    """Return whether the run's process has other runs, that are not to end with this one."""
    process = flow_run.process
    if process is None:
        return False
    runs = {run.id: run for run in registry.list_begun_flow_runs() if run.process == process}
    inside = {flow_run.id}
    while found := {
        id_
        for id_, run in runs.items()
        if id_ not in inside and (run.parent_flow_run_id in inside or run.state.is_cancelling())
    }:
        inside |= found
    return not runs.keys() <= inside
