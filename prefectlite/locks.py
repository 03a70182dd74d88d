"""A lock between processes that the kernel keeps: who waits longest is next, who dies lets go.

Used by registries that share a file. The lock is an flock(2) on a file of its own, so it belongs to
an open file description: threads of one process must exclude each other by other means, and a forked
child must open its own.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from prefectlite.clock import monotonic
from prefectlite.errors import RegistryLockTimeoutError, RegistryUnavailableError

# A write holds the gate for 30 to 200 microseconds: a few short naps nearly always win it, and
# cost less than the thread that is needed to wait for it in line with a deadline.
_NAPS = 20
_NAP_SECONDS = 0.0001
_LOOK_SECONDS = 0.01
# The states of a process that SIGSTOP or a debugger has stopped (proc_pid_stat(5)).
_STOPPED = "Tt"
_PROGRAM_CHARACTERS = 60
# Options of Python that have no value, and may stand together as one word.
_PLAIN_OPTIONS = "bBdEhiIJOPqRsStuvVx?"
# Where each file and folder is a command, or a group of them, that bears its name.
_COMMANDS = Path(__file__).parent / "cli"
# The kernel keeps no more of a program's name (proc_pid_comm(5)).
_NAME_CHARACTERS = 15


class WriteGate:
    """The right to write, shared by every process that opens the same file.

    Not reentrant, and not for two threads at once: the caller holds a lock of its own around it.
    """

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        self.path = path
        self.timeout_seconds = timeout_seconds
        self._take(_open(path))
        self._claim: _Claim | None = None

    def enter(self) -> None:
        """Wait for the gate and take it.

        Raises:
            RegistryLockTimeoutError: Another process held it for ``timeout_seconds``.
            RegistryUnavailableError: Its file cannot be locked.
        """
        try:
            if self.try_enter() or self._wait_in_line():
                return
            holder = _holder(self._descriptor)
            if self.try_enter():  # it has just let go: then it could not be seen
                return
        except OSError as error:
            raise RegistryUnavailableError(
                f"{self.path} cannot be locked: {error.strerror or error}",
                hint="is it on a disk of a network? set PREFECTLITE_HOME to a folder on a local one",
            ) from error
        who, hint = describe_holder(holder or 0)
        raise RegistryLockTimeoutError(
            f"the registry's gate {self.path} was held for {self.timeout_seconds:g} seconds by {who}",
            hint=hint,
        )

    def try_enter(self) -> bool:
        """Take the gate if it becomes free within a few milliseconds; return whether it did."""
        for _ in range(_NAPS):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_NAP_SECONDS)
            else:
                return True
        return False

    def leave(self) -> None:
        """Give the gate back; nothing where it is not held."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def renew(self) -> None:
        """Be, where the gate is held, in the one that others find: its file may have been deleted.

        Raises:
            RegistryLockTimeoutError: Another process held that for ``timeout_seconds``.
        """
        while not self._is_found():
            outdated, opened = self._descriptor, self._opened
            self._take(_open(self.path))
            close_own(outdated, opened)
            self._claim = None  # it is in the line of the old file
            self.enter()

    def close(self) -> None:
        """Let go of the file, and of the gate where it is held."""
        if _is_open(self._descriptor, self._opened):
            with suppress(OSError):  # to close it is to unlock it, unless a forked child has it
                self.leave()
        self.forget()

    def forget(self) -> None:
        """Close the copy that a forked child has; if the parent holds the gate, it keeps it."""
        close_own(self._descriptor, self._opened)

    def _take(self, descriptor: int) -> None:
        self._opened = os.fstat(descriptor)
        self._descriptor = descriptor

    def _is_found(self) -> bool:
        try:
            found = os.stat(self.path)  # noqa: PTH116 - pathlib takes longer, at every durable write
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._descriptor))

    def _wait_in_line(self) -> bool:
        """Queue in the kernel, from a thread, because flock(2) itself knows no deadline."""
        claim = self._claim
        # A claim that was given up may still be in line. It is taken up again: or else a process
        # that tries all night, while another is stopped, would leave a thread for each attempt.
        if claim is None or not claim.take_up():
            claim = _Claim(self.path)
        won = False
        try:
            claim.start()
            self._claim = claim
            claim.settled.acquire(timeout=self.timeout_seconds)
        except RuntimeError:
            # There is no thread to be had: the interpreter shuts down, or a limit is reached.
            os.close(claim.descriptor)
            return self._poll()
        finally:
            won = not claim.give_up()
            if won:
                outdated, opened = self._descriptor, self._opened
                self._take(claim.descriptor)
                self._claim = None
                close_own(outdated, opened)
        return won

    def _poll(self) -> bool:
        """Try again and again. Others may be served first, but it needs no thread."""
        deadline = monotonic() + self.timeout_seconds
        while not self.try_enter():
            if monotonic() > deadline:
                return False
        return True


def close_own(descriptor: int, opened: os.stat_result) -> bool:
    """Close a file, and return True, unless somebody else has done so.

    Who makes a daemon of a process closes all that it has open (daemon(7)); a descriptor's number may
    then be that of another file, which is not to be closed.

    Args:
        opened: What fstat(2) said of the file when it was opened.
    """
    is_open = _is_open(descriptor, opened)
    if is_open:
        os.close(descriptor)
    return is_open


def gate_holder(path: Path, *, patience_seconds: float) -> int | None:
    """Return the PID of the process that holds a gate for longer than some time; None for nobody.

    0 stands for a process that is not known. It never keeps anybody from the gate for long.

    Raises:
        OSError: There is no such gate, or it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() >= deadline:
                    return _holder(descriptor) or 0
                time.sleep(_LOOK_SECONDS)
            else:
                return None
    finally:
        os.close(descriptor)


def describe_holder(pid: int) -> tuple[str, str]:
    """Return who holds a gate, and what to do about that, both for a person.

    Args:
        pid: As ``gate_holder`` returns it.
    """
    if not pid:
        return (
            "a process that cannot be seen from here",
            "look for it outside of this container, or in others: ps -e -o pid,stat,args",
        )
    who, is_stopped = f"process {pid}", False
    with suppress(OSError):  # it has just ended, or there is no /proc
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        is_stopped = stat.rpartition(")")[2].split()[0] in _STOPPED
        name = stat.partition("(")[2].rpartition(")")[0]
        program = _program(name, Path(f"/proc/{pid}/cmdline").read_bytes())
        who += f" ({program})" if program else ""
    if is_stopped:
        return (
            f"{who}, which is stopped",
            f"let it go on: kill -CONT {pid}; or end it: kill -9 {pid}",
        )
    return who, f"what does it do? see: ps -p {pid}"


def _program(name: str, command_line: bytes) -> str:
    """Return what a process runs, without any word of its command line that could be a secret.

    Args:
        name: What the kernel calls it.
        command_line: As in proc_pid_cmdline(5).
    """
    first, *words = command_line.decode(errors="replace").split("\0")
    is_python = first.rpartition("/")[2].startswith(("python", "pypy"))
    told = _run_by_python([word for word in words if word]) if is_python else []
    if not told or told[0][:_NAME_CHARACTERS] != name:  # a script that names its Python has its own
        told = [name, *told]
    text = "".join(one if one.isprintable() else " " for one in " ".join(told))
    return text if len(text) <= _PROGRAM_CHARACTERS else f"{text[:_PROGRAM_CHARACTERS]}..."


def _run_by_python(words: Sequence[str]) -> list[str]:
    """Return ``-m`` and a module, or a script's name; and the command, where that is prefectlite."""
    left = iter(words)
    for word in left:
        if word == "-":  # the program comes by standard input
            return []
        if not word.startswith("-"):
            script = word.rpartition("/")[2]
            return [script, *_command(script, next(left, ""))]
        option = word[1:].lstrip(_PLAIN_OPTIONS)
        if not option:
            continue
        value = option[1:] or next(left, "")
        if option[0] == "m":
            return ["-m", value, *_command(value, next(left, ""))]
        if option[0] not in "WX":
            return ["-c"] if option[0] == "c" else []
    return []


def _command(program: str, word: str) -> list[str]:
    if program != "prefectlite":
        return []
    with suppress(OSError):  # it is in an archive
        return [one for one in map(_word, _COMMANDS.iterdir()) if one == word]
    return []


def _word(path: Path) -> str:
    return path.stem.replace("_", "-")


class _Claim:
    """One wait for the gate, which its thread wins or its owner gives up; never both.

    It has an open file description of its own, or a late win would pass for the owner's next one.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = _open(path)
        self.settled = threading.Semaphore(0)
        self._is_over = False
        self._decision = threading.Lock()
        self._given_up = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that waits, once."""
        if self._thread is None:
            thread = threading.Thread(target=self._wait, name="prefectlite-gate", daemon=True)
            thread.start()
            self._thread = thread

    def take_up(self) -> bool:
        """Want it again; return False where it came after it was given up, and is gone."""
        with self._decision:
            self._given_up = False
            return not self._is_over

    def give_up(self) -> bool:
        """Return whether the wait is given up; False where it was won before."""
        with self._decision:
            self._given_up = not self._is_over
            return self._given_up

    def _wait(self) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        with self._decision:
            self._is_over = True
            if self._given_up:
                # Unlocked by name, because a forked child may have a copy of the descriptor.
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)
                os.close(self.descriptor)
        self.settled.release()


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_open(descriptor: int, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), opened)
    except OSError:
        return False


def _holder(descriptor: int) -> int | None:
    """Return the PID of the process that holds the flock on a file, by proc_locks(5)."""
    with suppress(OSError, ValueError, IndexError):
        name = f"{_device(descriptor)}:{os.fstat(descriptor).st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and name in fields:
                return int(fields[4])
    return None


def _device(descriptor: int) -> str:
    """Return a file's device as in proc_locks(5): its filesystem's, where fstat(2) may give another's.

    Such filesystems are btrfs and overlay, on which containers are.
    """
    about = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    mount = about.partition("mnt_id:")[2].split()[0]
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    found = (line.split()[2] for line in table.splitlines() if line.split()[0] == mount)
    device = os.fstat(descriptor).st_dev
    major, minor = next(found, f"{os.major(device)}:{os.minor(device)}").split(":")
    return f"{int(major):02x}:{int(minor):02x}"
