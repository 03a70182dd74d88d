"""Is a run's process alive? And what is put on record of the runs of one that is not.

A process that runs flows says who it is on each of their records, and holds a POSIX lock on a file
of its own. The kernel lets go of the lock when the process ends, however it ends: no heartbeat, and
nothing to wait for. Every command that reads runs comes by here first, so that none shows a run as
Running whose process is dead. This module signals nothing.
"""

from __future__ import annotations

import atexit
import fcntl
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import ClassVar

from prefectlite.clock import now, since_boot
from prefectlite.errors import PrefectLiteError, SettingError, StateConflictError
from prefectlite.forks import here
from prefectlite.locks import close_own
from prefectlite.records import FlowRun, LogLine, ProcessIdentity, Run
from prefectlite.registry import Registry, registry_path
from prefectlite.run_filters import FlowRunFilter, TaskRunFilter
from prefectlite.settings import PREFECTLITE_HOME, PREFECTLITE_REGISTRY, add_run_token
from prefectlite.states import Cancelled, Crashed, State, StateType

# Position of the start time in /proc/PID/stat, after the command's name (proc_pid_stat(5), field 22).
_START_TICKS = 22 - 3
_STATE = 3 - 3

_ERROR = 40
# More than any of the lines has that are read here.
_LINE_BYTES = 4096
_UNFINISHED = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED)


class _Own:
    """This process's identity, and the lock that says it lives."""

    identity: ProcessIdentity | None = None
    #: Kept open: whoever closes a descriptor of the file lets go of the lock (fcntl(2)).
    descriptor: int | None = None
    #: What fstat(2) said of it then.
    opened: os.stat_result | None = None
    #: The same file, mapped: what closes descriptors does not undo it, and /proc/PID/maps shows it.
    mapping: mmap.mmap | None = None
    #: Those of parents, which are never undone; see ``_forget_parent``.
    mappings_of_parents: ClassVar[list[mmap.mmap]] = []


_own = _Own()


def own_identity() -> ProcessIdentity:
    """Return who this process is; the first call takes the lock and marks the environment.

    Child processes inherit the mark, a token, so that they can be told from strangers. Where the
    lock's file cannot be made, the process is known by its start time alone.
    """
    identity = _own.identity
    if identity is None or identity.pid != here.pid:
        _forget_parent()
        token = os.urandom(16).hex()
        path = _lock_path(token)
        _own.descriptor = None if path is None else _locked(path)
        _own.opened = None if _own.descriptor is None else os.fstat(_own.descriptor)
        _own.mapping = None if _own.descriptor is None else _mapped(_own.descriptor)
        _own.identity = identity = ProcessIdentity(
            token=token,
            hostname=os.uname().nodename,
            machine_id=machine_id(),
            boot_id=_boot_id(),
            pid_namespace=_pid_namespace(),
            pid=here.pid,
            start_ticks=start_ticks(here.pid),
            lock_path=None if _own.descriptor is None else str(path),
        )
        add_run_token(token)
    return identity


def _forget_parent() -> None:
    """Close the copies that a forked child has; the lock is its parent's."""
    descriptor, mapping, opened = _own.descriptor, _own.mapping, _own.opened
    _own.descriptor = _own.mapping = None
    if descriptor is None or opened is None or close_own(descriptor, opened):
        return
    # Who has closed the one has closed the other, too: Python maps a copy of the descriptor, and its
    # destructor closes what has that number by now.
    if mapping is not None:
        _own.mappings_of_parents.append(mapping)


def _lock_path(token: str) -> Path | None:
    try:
        return _locks_folder() / f"{token}.lock"
    except SettingError:  # nobody's home
        return None


def _locks_folder() -> Path:
    return PREFECTLITE_HOME.value() / "processes"


def _locked(path: Path) -> int | None:
    try:
        for folder in (path.parents[1], path.parent):  # each would be anyone's to read as a parent
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # the filesystem has no locks
        os.close(descriptor)
        return None
    return descriptor


def _mapped(descriptor: int) -> mmap.mmap | None:
    try:
        os.ftruncate(descriptor, 1)  # what is empty cannot be mapped
        mapping = mmap.mmap(descriptor, 1, prot=mmap.PROT_READ)
    except OSError:  # the disk is full, or the filesystem maps nothing
        return None
    with suppress(OSError):  # there is no room for it: then who prunes leaves it
        os.write(descriptor, _registry_mark())
    return mapping


def _registry_mark() -> bytes:
    """Return what a lock says of whose it is, a registry's file: several may share a home folder."""
    path = None
    with suppress(PrefectLiteError):  # then it has no runs
        path = registry_path(PREFECTLITE_REGISTRY.value())
    return os.fsencode(path or "?")


def _let_go() -> None:
    identity = _own.identity
    if identity is not None and identity.lock_path and identity.pid == here.pid:
        with suppress(OSError):
            os.unlink(identity.lock_path)  # noqa: PTH108 - at exit, and pathlib costs more


atexit.register(_let_go)


def is_own(identity: ProcessIdentity) -> bool:
    """Return whether an identity is that of this process."""
    return identity == _own.identity and identity.pid == here.pid


def is_alive(identity: ProcessIdentity) -> bool | None:
    """Return whether a process still runs; None where that cannot be known from here."""
    if is_own(identity):
        return True
    if identity.boot_id != _boot_id():
        return False if was_restarted(identity) else None  # or it is of another machine
    if identity.boot_id is None and identity.hostname != os.uname().nodename:
        return None
    is_locked = _is_locked(identity)
    if not is_locked and identity.start_ticks and identity.pid_namespace == _pid_namespace():
        # Code that closes descriptors which are not its own lets go of the lock, and lives. The
        # start time alone does not prove it: a PID can be given again within the same tick.
        is_there = start_ticks(identity.pid) == identity.start_ticks
        return is_there and (_maps_lock(identity) if _is_named(identity) else is_locked is None)
    return is_locked


def was_restarted(identity: ProcessIdentity) -> bool:
    """Return whether this machine was started anew after a process: nothing it left is there."""
    is_this_machine = identity.machine_id is not None and identity.machine_id == machine_id()
    is_this_host = identity.hostname == os.uname().nodename
    return identity.boot_id != _boot_id() and is_this_machine and is_this_host


def restart_message(identity: ProcessIdentity) -> str:
    """Return what is said of a run whose process is gone with an earlier start of the machine."""
    return f"The machine {identity.hostname} was restarted before it ended."


def is_reachable(identity: ProcessIdentity) -> bool:
    """Return whether a process's PID means that process here too."""
    if identity.boot_id is None:  # not Linux
        return identity.hostname == os.uname().nodename
    return identity.boot_id == _boot_id() and identity.pid_namespace == _pid_namespace()


def _is_locked(identity: ProcessIdentity) -> bool | None:
    return None if identity.lock_path is None else _is_file_locked(identity.lock_path)


def _is_file_locked(path: str) -> bool | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # tidied up, another user's, or in another container's filesystem
        return None
    try:
        # Shared, so that two who look at once do not see each other.
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_named(identity: ProcessIdentity) -> bool:
    """Return whether a lock is that of a process like this one; a supervisor never loses its own."""
    return identity.lock_path is not None and identity.token in identity.lock_path


def _maps_lock(identity: ProcessIdentity) -> bool:
    """Return whether a process has the file that it once locked in its memory."""
    try:
        return identity.token in Path(f"/proc/{identity.pid}/maps").read_text(errors="replace")
    except PermissionError:  # another user's, whom nobody here can signal
        return True
    except OSError:
        return False


def tidy(identity: ProcessIdentity) -> None:
    """Remove the lock's file of a dead process whose runs have all come to an end on record."""
    if _is_named(identity) and identity.lock_path is not None:
        with suppress(OSError):
            os.unlink(identity.lock_path)  # noqa: PTH108 - pathlib would tell no more


def free_locks(registry: Path, *, before: float) -> dict[str, Path]:
    """Return the locks that are left of dead processes, by the token of each.

    Args:
        registry: Only of those whose registry was this file, by their settings.
        before: Only of those that are older than this POSIX timestamp.
    """
    # Its own is not looked at: that would let go of it, see ``_Own.descriptor``.
    own_token = None if _own.identity is None else _own.identity.token
    found = {}
    with suppress(OSError):
        for path in _locks_folder().glob(f"{'[0-9a-f]' * 32}.lock"):
            with suppress(OSError):  # it has just ended
                is_old = path.lstat().st_mtime < before
                if is_old and path.stem != own_token and _is_free_lock_of(registry, path):
                    found[path.stem] = path
    return found


def _is_free_lock_of(registry: Path, path: Path) -> bool:
    return path.read_bytes() == os.fsencode(registry) and _is_file_locked(str(path)) is False


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in ticks since the machine did; None where it is gone.

    A zombie is gone: it runs nothing. It is also None where there is no /proc.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name may hold spaces and parentheses
    return None if fields[_STATE] in "ZX" else int(fields[_START_TICKS])


def present_moment() -> tuple[int, int]:
    """Return now as what the starts of processes compare with: a tick, and the newest PID then.

    A tick is ten milliseconds; of two processes that start in the same one, the later has the higher
    PID. Without /proc/loadavg (proc_loadavg(5)) that is 0: all of this tick then count as later.
    """
    newest = (_first_line("/proc/loadavg") or "0").split()[-1]
    return int(since_boot() * os.sysconf("SC_CLK_TCK")), int(newest)


def tick_of(moment: datetime) -> int:
    """Return a moment on record as the starts of processes are counted; a tick early, to be safe.

    The clock may have been set since then: it is right for what that left as it was.
    """
    age_seconds = (now() - moment).total_seconds()
    return int((since_boot() - age_seconds) * os.sysconf("SC_CLK_TCK")) - 1


@cache
def machine_id() -> str | None:
    """Return what names this machine, from machine-id(5); None where there is none."""
    return _first_line("/etc/machine-id")


@cache
def _boot_id() -> str | None:
    return _first_line("/proc/sys/kernel/random/boot_id")


def _first_line(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, _LINE_BYTES)  # open() would cost each flow run twice as much
        finally:
            os.close(descriptor)
        return text.decode("ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def record_dead(registry: Registry, flow_run: FlowRun, told: str | None = None) -> None:
    """Put on record that a flow run's process is dead. Safe from several processes at once.

    Args:
        told: The state's message; None for what can be seen.
    """
    identity = flow_run.process
    if identity is None:
        raise ValueError(f"flow run {flow_run.id} was not begun by a process")
    if told is None and identity.boot_id != _boot_id():
        told = restart_message(identity)
    elif told is None:
        told = f"Its process {identity.pid} on {identity.hostname} died before it ended."
    kind = Cancelled if flow_run.state.is_cancelling() else Crashed
    end_orphans(registry, flow_run.id, told, kind=kind)
    with suppress(StateConflictError):  # it ended just before its process did, or another was first
        state = registry.change_state(flow_run, kind(told)).state
        log_end(registry, flow_run.id, state)


def log_end(registry: Registry, flow_run_id: str, state: State) -> None:
    """Say in the log of a run how it ended, where its own process could not."""
    told = f"Finished in state {state}"
    line = LogLine(flow_run_id, None, _ERROR, "prefectlite.flow_runs", told, state.timestamp)
    registry.add_log_line(line)
    registry.flush_logs()


def end_orphans(
    registry: Registry,
    flow_run_id: str,
    message: str,
    *,
    kind: Callable[[str], State] = Crashed,
) -> None:
    """Record an end for what a flow run has begun and nothing will end any more.

    A thread that was abandoned, or a process that was killed, may have been in the middle of task
    runs and subflow runs of its own. If such a thread still ends one, that comes too late. A
    subflow run whose own process lives is left to it.
    """
    for child in registry.list_flow_runs(
        FlowRunFilter(parent_flow_run_id=flow_run_id, states=_UNFINISHED), limit=None
    ):
        is_ours = _own.identity is not None and child.process == _own.identity
        if is_ours or child.process is None or is_alive(child.process) is False:
            end_orphans(registry, child.id, message, kind=kind)
            _end_orphan(registry, child, kind(message))
    for task_run in registry.list_task_runs(
        TaskRunFilter(flow_run_ids=[flow_run_id], states=_UNFINISHED), limit=None
    ):
        if task_run.state.name != "NotReady":  # an end of its own
            _end_orphan(registry, task_run, kind(message))


def _end_orphan(registry: Registry, run: Run, state: State) -> None:
    if not run.run_count:
        state = Cancelled("Its flow run ended before it could start.")
    with suppress(StateConflictError):  # it has just ended by itself
        registry.change_state(run, state)
