"""Put on record what has become of runs whose processes are gone: the one place where it is decided.

Every command that reads runs comes by here first, and so do agents and whoever waits. A supervisor
runs it as ``python -m prefectlite.settling RUN_FOLDER`` when all processes of its run are gone. Where
the supervisor itself was killed, what it left is found by the run's token and ended here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from prefectlite import console
from prefectlite.clock import monotonic, now
from prefectlite.errors import (
    NotFoundError,
    PrefectLiteError,
    RegistryError,
    StateConflictError,
)
from prefectlite.exits import Exit, count_text, final_state
from prefectlite.liveness import (
    end_orphans,
    is_alive,
    is_reachable,
    log_end,
    record_dead,
    restart_message,
    start_ticks,
    tick_of,
    tidy,
    was_restarted,
)
from prefectlite.process_trees import end_cgroup, end_marked, wait_until_gone
from prefectlite.records import FlowRun, LogLine, ProcessIdentity
from prefectlite.registry import Registry, open_registry
from prefectlite.run_folders import RunFolder, run_folders
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Cancelled, Crashed, Scheduled

# A supervisor whose engine has died ends what that left, in two seconds, and has it put on record.
_ENDING_SECONDS = 4.0
_LOOK_SECONDS = 0.02
_INFO, _WARNING = 20, 30
_LOGGER = "prefectlite.supervisor"


class _Alive:
    """Which processes are alive; each is asked for once."""

    def __init__(self) -> None:
        self._known: dict[str, bool | None] = {}

    def __call__(self, identity: ProcessIdentity | None) -> bool | None:
        if identity is None:
            return None
        if identity.token not in self._known:
            self._known[identity.token] = is_alive(identity)
        return self._known[identity.token]


def settle(
    registry: Registry,
    open_to_write: Callable[[], Registry],
    *,
    ending_seconds: float = _ENDING_SECONDS,
) -> list[FlowRun]:
    """Put on record which runs' processes are dead, and which were not resumed in time.

    Args:
        registry: Where to look; reading suffices.
        open_to_write: Called only where there is something to record.
        ending_seconds: How long to wait for supervisors that are about to do it. What they have
            not done by then is done without them; with 0 it is left to them.

    Returns:
        Those for which that failed; ``unrecorded_text`` says it of one.
    """
    unrecorded: list[FlowRun] = []
    begun = registry.list_begun_flow_runs()
    if any(flow_run.state.is_paused() for flow_run in begun):
        from prefectlite.pauses import fail_overdue  # mostly none is, and many commands come here

        unrecorded = [flow_run for flow_run, _ in registry.pauses.list_overdue_flow_runs(now())]
        with suppress(RegistryError):
            if unrecorded:
                fail_overdue(open_to_write())
                unrecorded = []
    dead, ending = _dead_runs(registry, monotonic() + ending_seconds)
    if ending_seconds:
        dead += ending
    for position, flow_run in enumerate(dead):
        try:
            _settle(open_to_write(), flow_run, has_supervisor=flow_run in ending)
        except NotFoundError:  # it was deleted just now; its folder is left to what follows
            continue
        except RegistryError:
            return [*unrecorded, *(run for run in dead[position:] if run not in unrecorded)]
    if dead:
        _tidy(registry, dead)
    with suppress(RegistryError):  # what is left in folders is of runs that have ended
        handled = {run.id for run in dead}
        _settle_folders(registry.url, open_to_write, but=handled)
    return unrecorded


def unrecorded_text(flow_run: FlowRun) -> str:
    """Return what is told of a run that ``settle`` could not put on record."""
    processes = [one for one in (flow_run.supervisor, flow_run.process) if one is not None]
    if any(is_alive(one) is False for one in processes):
        truth = "its process is dead"
    elif flow_run.state.is_paused():
        truth = "it was not resumed in time"
    else:
        truth = "what was to start it is dead"
    return (
        f"flow run {flow_run.name!r} is {flow_run.state.name} on record, but {truth}; the registry"
        " cannot be written, so that this cannot be recorded"
    )


def wait_for_supervisor(flow_run: FlowRun, *, seconds: float = _ENDING_SECONDS) -> None:
    """Wait until the supervisor of a run that has ended has done its part, for a while at most.

    Then nothing of the run is left, and all of its output is in its log.
    """
    if flow_run.supervisor is None or not flow_run.state.is_final():
        return
    wait_until_gone(flow_run.supervisor, seconds=seconds)


def _tidy(registry: Registry, ended: Sequence[FlowRun]) -> None:
    tidy_unneeded(registry, [process for run in ended for process in (run.process, run.launcher)])


def tidy_unneeded(registry: Registry, processes: Iterable[ProcessIdentity | None]) -> None:
    """Remove the locks of those processes that are dead and that no run needs any more."""
    begun = registry.list_begun_flow_runs()
    needed = {process for run in begun for process in (run.process, run.launcher)}
    for process in {*processes} - needed:
        if process is not None and is_alive(process) is False:
            tidy(process)


def _dead_runs(registry: Registry, deadline: float) -> tuple[list[FlowRun], list[FlowRun]]:
    """Return the runs whose death nobody is about to record, once those who are had the time.

    Returns:
        Beside these, the runs whose process is dead and whose supervisor still lives.
    """
    while True:
        alive, dead, ending = _Alive(), [], list[FlowRun]()
        for flow_run in registry.list_begun_flow_runs():
            if flow_run.supervisor is not None:
                if alive(flow_run.supervisor) is False:
                    dead.append(flow_run)
                elif alive(flow_run.process) is False:
                    ending.append(flow_run)
            elif flow_run.process is not None:
                if alive(flow_run.process) is False:
                    dead.append(flow_run)
            elif flow_run.infrastructure_pid is None and alive(flow_run.launcher) is False:
                dead.append(flow_run)
        if not ending or monotonic() >= deadline:
            return dead, ending
        time.sleep(_LOOK_SECONDS)


def _settle(registry: Registry, flow_run: FlowRun, *, has_supervisor: bool) -> None:
    """Record the death of a run's process, its supervisor, or of who had taken it."""
    if has_supervisor:
        _settle_engine(registry, flow_run)
    elif flow_run.supervisor is not None:
        _settle_launch(registry, flow_run, flow_run.supervisor)
    elif flow_run.process is not None:
        _settle_called(registry, flow_run, flow_run.process)
    else:
        settle_unlaunched(registry, flow_run)


def _settle_called(registry: Registry, flow_run: FlowRun, process: ProcessIdentity) -> None:
    """Record the death of a process that nobody supervised.

    If its run was being cancelled, what it has started since the run began is killed first. The run stays
    Cancelling where some of that does not die, or cannot be seen from here. Only who kills waits for
    that: each command that reads runs comes by here.
    """
    if flow_run.state.is_cancelling() and not was_restarted(process):
        if not is_reachable(process):
            return
        has_others = any(  # then nobody knows whose its children are
            run.process == process
            and run.parent_flow_run_id is None
            and not run.state.is_cancelling()
            for run in registry.list_begun_flow_runs()
        )
        since_tick = tick_of(flow_run.started_at or flow_run.created_at)
        if not has_others:
            swept = end_marked(process.token, since_tick=since_tick, is_patient=False)
            if swept.survivors:
                return
    record_dead(registry, flow_run)


def _settle_folders(
    url: str, open_to_write: Callable[[], Registry], *, but: Collection[str]
) -> None:
    """Settle the launches whose supervisor is dead, and whose run has ended all the same.

    Args:
        url: The registry's; what is of another one is left to it.
        open_to_write: As for ``settle``.
        but: Ids of runs that are settled already.
    """
    for folder in run_folders():
        supervisor = folder.supervisor()
        if supervisor is None or folder.flow_run_id in but or is_alive(supervisor) is not False:
            continue
        if folder.registry() not in (url, PREFECTLITE_REGISTRY.value()):
            continue
        registry = open_to_write()
        try:
            flow_run = registry.find_flow_run(folder.flow_run_id)
        except NotFoundError:
            _swept(folder, supervisor.token)
            folder.remove()
        else:
            _settle_launch(registry, flow_run, supervisor)


def _settle_engine(registry: Registry, flow_run: FlowRun) -> None:
    """Record the death of a run's own process beside a supervisor that is not done with the rest."""
    supervisor = flow_run.supervisor
    if supervisor is None or flow_run.state.is_cancelling():
        return
    is_over_time = RunFolder.of(supervisor).is_over_time()
    _end(registry, flow_run, Exit(reason="timed_out" if is_over_time else "ended"))


def _settle_launch(registry: Registry, flow_run: FlowRun, supervisor: ProcessIdentity) -> None:
    """End what a supervisor that is dead has left, and record how its run ended."""
    folder = RunFolder.of(supervisor)
    exit_ = folder.exit()
    if was_restarted(supervisor):
        told = restart_message(supervisor)
        exit_ = replace(exit_ or Exit(reason="restarted", message=told), survivors=())
    elif exit_ is None and not is_reachable(supervisor):  # what it left cannot be seen from here
        if not flow_run.state.is_cancelling():
            _end(registry, flow_run, Exit(reason="unseen"))
        return
    if exit_ is None:
        exit_ = _swept(folder, supervisor.token)
    elif exit_.survivors:
        left = [(pid, ticks) for pid, ticks in exit_.survivors if _is_left(pid, ticks)]
        exit_ = replace(exit_, survivors=tuple(left))
    record_exit(registry, flow_run, folder, exit_)


def _swept(folder: RunFolder, token: str) -> Exit:
    """End what the supervisor of a folder has left, and return that as the exit of its run."""
    cgroup = folder.cgroup()
    if cgroup is not None:
        end_cgroup(cgroup)
    swept = end_marked(token)
    survivors = tuple((pid, start_ticks(pid) or 0) for pid in swept.survivors)
    exit_ = Exit(reason="lost", ended_at=now(), swept=swept.killed, survivors=survivors)
    if survivors:  # who comes next need not wait for them again
        with suppress(OSError):
            folder.write_exit(exit_)
    return exit_


def _is_left(pid: int, ticks: int) -> bool:
    """Return whether a process that did not die is there still; ticks of 0 are not known."""
    found = start_ticks(pid)
    return found is not None and ticks in (0, found)


def record_exit(registry: Registry, flow_run: FlowRun, folder: RunFolder, exit_: Exit) -> None:
    """Put on record how a launched run ended, with its output; then the folder is of no use.

    A run that is Cancelling stays so as long as some of its processes do not die. Safe to call again,
    and from several processes at once.
    """
    from prefectlite.couriers import call_courier  # no listing needs it

    # The run's own courier, if there was one, has ended with its tree.
    call_courier(registry)
    # First: another process may be a step ahead, and remove the folder.
    hang, size = folder.hang_report(), folder.output_bytes()
    place = keep_output(registry, folder)
    told = _told(exit_, flow_run.id, hang and hang[1])
    if told and place <= size:
        # Up to one place further than there is any output: so it is told once.
        registry.launches.add_output(told, flow_run_id=flow_run.id, start=place, end=size + 1)
    if _is_of(flow_run, folder):
        if exit_.survivors and flow_run.state.is_cancelling():
            return
        _end(registry, flow_run, exit_, hang and hang[0])
    if not exit_.survivors:
        folder.remove()
        _tidy(registry, [flow_run])


def _end(
    registry: Registry, flow_run: FlowRun, exit_: Exit, hang_message: str | None = None
) -> None:
    """Move a run to the state that follows from how its processes ended, unless it has one."""
    while not flow_run.state.is_final():
        state = final_state(flow_run, exit_, hang_message)
        kind = Cancelled if state.is_cancelled() else Crashed
        end_orphans(registry, flow_run.id, state.message or "", kind=kind)
        try:
            registry.change_state(flow_run, state)
            log_end(registry, flow_run.id, state)
            break
        except StateConflictError:  # its cancellation was asked for just now, or it is recorded
            flow_run = registry.find_flow_run(flow_run.id)


def _is_of(flow_run: FlowRun, folder: RunFolder) -> bool:
    """Return whether a run's processes are, or would have been, those of a launch."""
    if flow_run.supervisor is None:  # it ended before its launcher could say so
        return flow_run.process is None and not flow_run.state.is_scheduled()
    # By name, which has a part of the token: what was in it may be lost.
    return RunFolder.of(flow_run.supervisor).path.name == folder.path.name


def keep_output(registry: Registry, folder: RunFolder) -> int:
    """Put what a run has written since the last time into its log; return how far that is now.

    Several processes may do so at once: each piece is added by one of them, and all of them return
    when there is no more.
    """
    start = registry.launches.output_bytes(folder.flow_run_id)
    while True:
        lines, end = folder.output(start)
        if end == start:
            return start
        found = [
            LogLine(folder.flow_run_id, None, _INFO, line.stream, _as_shown(line.text), line.at)
            for line in lines
        ]
        if registry.launches.add_output(
            found, flow_run_id=folder.flow_run_id, start=start, end=end
        ):
            start = end
        else:  # another process was first
            start = registry.launches.output_bytes(folder.flow_run_id)


def _as_shown(text: str) -> str:
    """Return what a terminal would show in the end of a line that was drawn again and again."""
    return text.rstrip("\r").rpartition("\r")[2]


def _told(exit_: Exit, flow_run_id: str, stacks: str | None) -> list[LogLine]:
    """Return what a run's log is to say of its end, beside its state."""
    texts = []
    if stacks:
        texts.append(f"It did not heed its timeout. Its threads were at:\n{stacks.rstrip()}")
    if exit_.swept and exit_.reason == "ended":
        texts.append(f"What it had left running was ended: {count_text(exit_.swept)}.")
    if exit_.survivors:
        pids = ",".join(str(pid) for pid, _ in exit_.survivors)
        texts.append(f"These processes do not die: {pids} (see: ps -o pid,stat,wchan -p {pids})")
    if exit_.lost_output_bytes:
        texts.append(f"{exit_.lost_output_bytes} bytes of its output are lost: the disk was full.")
    at = exit_.ended_at or now()
    return [LogLine(flow_run_id, None, _WARNING, _LOGGER, text, at) for text in texts]


def settle_unlaunched(registry: Registry, flow_run: FlowRun) -> None:
    """Let others have a run whose launcher died, or failed, before it said that it had launched it."""
    for folder in run_folders(flow_run.id):
        supervisor = folder.supervisor()
        if supervisor is not None and is_alive(supervisor):
            pid = f"{supervisor.hostname}:{supervisor.pid}"
            registry.launches.record_launch(flow_run, infrastructure_pid=pid, supervisor=supervisor)
            return
        token = folder.token()
        if token is not None:  # it may just be starting
            _swept(folder, token)
        folder.remove()
    with suppress(StateConflictError):  # another process was first
        if flow_run.state.is_cancelling():
            registry.change_state(flow_run, Cancelled("It had not been started."))
        elif flow_run.work_queue is None:
            registry.change_state(flow_run, Crashed("What was to start it died before it did."))
        else:
            told = "The agent that had taken it did not get it started."
            registry.launches.release_flow_run(flow_run, Scheduled(told))


def main(arguments: Sequence[str]) -> int:
    """Settle the launch of this folder: all its processes but the supervisor are gone."""
    folder = RunFolder(Path(arguments[0]))
    exit_ = folder.exit()
    if exit_ is None:
        return 1
    try:
        url = PREFECTLITE_REGISTRY.value()
        # First without making it: it may have been deleted while the run went on.
        flow_run = open_registry(url, read_only=True).find_flow_run(folder.flow_run_id)
        record_exit(open_registry(url), flow_run, folder, exit_)
    except PrefectLiteError as error:
        console.error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
