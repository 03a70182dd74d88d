"""A run's process and all that descends from it: signalled only where it is proven to be that.

A PID is a number that the system gives again: a process is opened first (pidfd_open(2)), checked
against what is known of it, and signalled by what was opened. Descendants are found by their parents
and, where those are gone, by the token that they inherit in their environment; what dropped both, a
supervisor must find.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefectlite.clock import monotonic
from prefectlite.courier_processes import courier_pids
from prefectlite.errors import InfrastructureError, InfrastructureNotAvailable
from prefectlite.liveness import is_alive, is_reachable, start_ticks
from prefectlite.records import ProcessIdentity
from prefectlite.settings import PREFECTLITE_RUN_TOKEN

if TYPE_CHECKING:
    import psutil

# What the kernel may take to end a process that was killed; more takes only what is stuck in it.
_DEATH_SECONDS = 10.0
# Between SIGTERM and SIGKILL, for what a cancelled flow has started; a supervisor gives as much.
_TOLD_SECONDS = 2.0
# For how long a process may seem to be within execve(2); one whose program hides its arguments always does.
_EXEC_SECONDS = 0.01
# What was killed in a control group is gone, or will not be for long.
_CGROUP_SECONDS = 1.0
# Between two looks at a process that cannot be opened from here.
_LOOK_SECONDS = 0.02
#: What was waited for, and did not die: this process need not wait for it again.
_undying: set[psutil.Process] = set()
# Signals that wait for the first thread of a process, and for any (proc_pid_status(5)).
_PENDING = {"SigPnd", "ShdPnd"}
# Position of the kernel's flags in /proc/PID/stat, after the command's name, and the one of what exits
# (proc_pid_stat(5), field 9).
_FLAGS, _PF_EXITING = 9 - 3, 0x4
#: Stands for the descriptor of a process where the system has none.
_NO_PIDFD = -1


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of a tree.

    Attributes:
        killed: How many processes were killed.
        survivors: PIDs that were not gone in time, and which nobody may claim to be.
    """

    killed: int
    survivors: tuple[int, ...]


def send(identity: ProcessIdentity, *numbers: signal.Signals) -> bool:
    """Send signals to the very process that an identity names; return whether it was there.

    Raises:
        InfrastructureNotAvailable: It is on another machine, in another PID namespace, or another
            user's.
    """
    if is_alive(identity) is False:
        return False
    if not is_reachable(identity):
        raise InfrastructureNotAvailable(
            f"process {identity.pid} on {identity.hostname} cannot be reached from here",
            hint="cancel it there: on that host, or in that container",
        )
    with _pidfd(identity.pid) as process:
        # Looked at after it was opened: what is open cannot be replaced any more.
        if process is None or not _is_same(identity):
            return False
        for number in numbers:
            _send(process, identity.pid, number)
    return True


def _is_same(identity: ProcessIdentity) -> bool:
    """Return whether the PID is now that of the very process; where that is not known, it is not."""
    ticks = start_ticks(identity.pid)
    return ticks is not None and ticks == identity.start_ticks and is_alive(identity) is not False


@contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    """Open a process; None where there is none."""
    if not hasattr(os, "pidfd_open"):  # not Linux
        yield _NO_PIDFD
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # an old kernel, or a filter around it
            raise InfrastructureError(f"process {pid} cannot be opened: {error}") from error
        yield _NO_PIDFD
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _send(process: int, pid: int, number: signal.Signals) -> None:
    try:
        if process == _NO_PIDFD:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise InfrastructureNotAvailable(
            f"process {pid} belongs to another user", hint="cancel it as that user, or as root"
        ) from error


def wait_until_gone(identity: ProcessIdentity, *, seconds: float) -> None:
    """Wait until a process has ended, for so many seconds at most."""
    deadline = monotonic() + seconds
    if is_reachable(identity):
        with suppress(InfrastructureError), _pidfd(identity.pid) as process:
            if process not in (None, _NO_PIDFD) and _is_same(identity):
                _has_ended(process, deadline)
                return
    while is_alive(identity) and monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def end_tree(identity: ProcessIdentity) -> Swept:
    """Kill a run's process and everything that descends from it; wait until they are gone.

    The processes are stopped before they are killed, parents first: what is stopped starts nothing
    new. Blocks for ten seconds at most where one does not die, and once in a process for each that does
    not. This process itself is spared.

    What belongs to another user is not killed, and is among the survivors.
    """
    return _end(lambda: _members(identity.token, identity), is_patient=True)


def end_marked(token: str, *, since_tick: int = 0, is_patient: bool = True) -> Swept:
    """Kill what has a token in its environment, as ``end_tree`` does.

    Args:
        token: What the environment of each has.
        since_tick: Spare what started before, by the ticks of ``liveness.start_ticks``.
        is_patient: Whether to wait also for what had been killed before and is there still, perhaps since
            just now, and for what may not be killed.
    """

    def find() -> list[psutil.Process]:
        found = _members(token, None)
        return [one for one in found if (start_ticks(one.pid) or 0) >= since_tick]

    return _end(find, is_patient=is_patient)


def has_descendants(supervisor: ProcessIdentity) -> bool:
    """Return whether a supervisor has other descendants than the process that asks."""
    import psutil

    if not is_reachable(supervisor) or not _is_same(supervisor):
        return False
    try:
        found = psutil.Process(supervisor.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return False
    spared = {os.getpid(), *courier_pids()}
    return any(_runs(one) for one in found if one.pid not in spared)


def end_children(identity: ProcessIdentity, since: tuple[int, int]) -> None:
    """End what this process has started since a moment: told to first, killed in the end.

    Blocks for some seconds where one does not heed that. What multiprocessing keeps for as long as
    this process lives is spared, and so are its couriers.

    Args:
        identity: This process's.
        since: The moment, by ``liveness.present_moment``.
    """

    def find() -> list[psutil.Process]:
        spared = _kept_by_multiprocessing() | courier_pids()
        return [
            member
            for member in _members(identity.token, identity)
            if member.pid not in spared and (start_ticks(member.pid) or 0, member.pid) > since
        ]

    told = [member for member in find() if member not in _undying]
    deadline = monotonic() + _TOLD_SECONDS
    for member in told:
        _signal_member(member, signal.SIGTERM)
        _signal_member(member, signal.SIGCONT)
    for member in told:
        _is_gone(member, deadline)
    _end(find, is_patient=True)


def _kept_by_multiprocessing() -> set[int]:
    """Return the PIDs of the resource tracker and the fork server, where there are some."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    server = sys.modules.get("multiprocessing.forkserver")
    return {
        getattr(getattr(tracker, "_resource_tracker", None), "_pid", None) or 0,
        getattr(getattr(server, "_forkserver", None), "_forkserver_pid", None) or 0,
    }


def end_cgroup(path: str) -> None:
    """Kill what is in a control group that a supervisor made, and remove it (cgroups(7)).

    Not where this process is in it: what else is must then be found in another way.
    """
    with suppress(OSError):
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
        if Path(path).name in groups.replace("\n", "/").split("/"):  # no other one has that name
            return
    with suppress(OSError):
        Path(path, "cgroup.kill").write_text("1", encoding="ascii")
    with suppress(OSError):
        _wait_until_empty(path)
    for folder, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()


def _wait_until_empty(path: str) -> None:
    """Wait until no process lives in a control group or below it, for a while at most.

    The kernel tells when that changes; zombies do not count, and do not keep it (cgroups(7)).
    """
    deadline = monotonic() + _CGROUP_SECONDS
    with Path(path, "cgroup.events").open("rb", buffering=0) as events:
        told = select.poll()
        told.register(events, select.POLLPRI)
        while b"populated 1" in events.read() and (left := deadline - monotonic()) > 0:
            told.poll(left * 1000)
            events.seek(0)


def _end(find: Callable[[], list[psutil.Process]], *, is_patient: bool) -> Swept:
    deadline = monotonic() + _DEATH_SECONDS
    killed = 0
    while True:
        members = _frozen(find)
        until = {}
        for member in members:
            may_end = (_kill(member) or is_patient) and member not in _undying
            until[member] = deadline if may_end else 0.0
        left = [member for member in members if not _is_gone(member, until[member])]
        _undying.update(member for member in left if until[member])
        killed += len(members) - len(left)
        if not members or left:
            return Swept(killed, tuple(member.pid for member in left))


def _frozen(find: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """Stop every process of the tree, and look again until no new one is found."""
    frozen: list[psutil.Process] = []
    while True:
        new = [member for member in find() if member not in frozen]
        if not new:
            return frozen
        for member in new:
            _signal_member(member, signal.SIGSTOP)
        frozen += new


def _members(token: str, identity: ProcessIdentity | None) -> list[psutil.Process]:
    """Return the processes of the tree that are there now, parents before their children."""
    import psutil

    members: list[psutil.Process] = []
    if identity is not None and is_reachable(identity) and _is_same(identity):
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(identity.pid)
            children = root.children(recursive=True)
            if _is_same(identity):
                members = [root, *children]
    for pid in psutil.pids():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process not in members and _has_token(process, token):
                members.append(process)
    # A task of the run may be what asks for its end: it ends by itself, when that is done.
    return [one for one in members if one.pid != os.getpid() and _runs(one)]


def _has_token(process: psutil.Process, token: str) -> bool:
    import psutil

    try:
        environment, until = process.environ(), monotonic() + _EXEC_SECONDS
        if not environment:  # a thread of the kernel has no program either: an OSError
            Path(f"/proc/{process.pid}/exe").readlink()
        may_change = True
        while may_change and not environment:
            # For some microseconds within execve(2) there are neither arguments nor environment. The
            # latter is read last: where there are arguments now, that has just ended.
            may_change = not process.cmdline() and monotonic() < until
            environment = process.environ()
    except (psutil.Error, OSError):  # another user's, or gone
        return False
    return token in environment.get(PREFECTLITE_RUN_TOKEN.name, "").split(":")


def _runs(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _kill(member: psutil.Process) -> bool:
    """Kill a process; return whether that is what it may be about to end by.

    One that was ending before and is there still waits for a disk, say, and no signal ends that.
    """
    was_ending = _is_ending(member.pid)
    return _signal_member(member, signal.SIGKILL) and not was_ending


def _is_ending(pid: int) -> bool:
    """Return whether SIGKILL is pending for a process, or it exits; not where there is no /proc.

    What is killed by its control group has that pending for a thread alone; what exits has nothing
    pending any more.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in _PENDING and int(value, 16) & 1 << signal.SIGKILL - 1:
                return True
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return bool(int(stat.rpartition(")")[2].split()[_FLAGS]) & _PF_EXITING)
    return False


def _signal_member(member: psutil.Process, number: signal.Signals) -> bool:
    """Signal the very process that was found; return False where that is another user's."""
    with _pidfd(member.pid) as process:
        # psutil compares the start time: it is the one that was found, now that it is open.
        if process is not None and member.is_running():
            try:
                _send(process, member.pid, number)
            except InfrastructureNotAvailable:  # it will be among the survivors
                return False
    return True


def _is_gone(member: psutil.Process, deadline: float) -> bool:
    """Wait until a process is gone, or a zombie; return False where the time runs out."""
    import psutil

    with _pidfd(member.pid) as process:
        if process is None or not member.is_running():
            return True
        if process != _NO_PIDFD:
            return _has_ended(process, deadline)
    with suppress(psutil.TimeoutExpired):
        member.wait(max(0.0, deadline - monotonic()))
        return True
    return False


def _has_ended(process: int, deadline: float) -> bool:
    """Wait until a process that is open has ended, or the time runs out; return whether it has."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - monotonic()) * 1_000))
