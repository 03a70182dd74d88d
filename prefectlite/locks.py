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
from pathlib import Path

from prefectlite.clock import monotonic
from prefectlite.errors import RegistryLockTimeoutError

# A write holds the gate for 30 to 200 microseconds: a few short naps nearly always win it, and
# cost less than the thread that is needed to wait for it in line with a deadline.
_NAPS = 20
_NAP_SECONDS = 0.0001
_LOOK_SECONDS = 0.01


class WriteGate:
    """The right to write, shared by every process that opens the same file.

    Not reentrant, and not for two threads at once: the caller holds a lock of its own around it.
    """

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        self.path = path
        self.timeout_seconds = timeout_seconds
        self._descriptor = _open(path)
        self._claim: _Claim | None = None

    def enter(self) -> None:
        """Wait for the gate and take it.

        Raises:
            RegistryLockTimeoutError: Another process held it for ``timeout_seconds``.
        """
        if self.try_enter() or self._wait_in_line():
            return
        holder = _holder(self._descriptor)
        raise RegistryLockTimeoutError(
            f"the registry's gate {self.path} was held for {self.timeout_seconds:g} seconds"
            + (f" by process {holder}" if holder else ""),
            hint=f"is it stopped? see: ps -p {holder}" if holder else None,
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

    def close(self) -> None:
        """Let go of the file, and of the gate where it is held."""
        self.leave()
        os.close(self._descriptor)

    def forget(self) -> None:
        """Close the copy that a forked child has; if the parent holds the gate, it keeps it."""
        os.close(self._descriptor)

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
                os.close(self._descriptor)
                self._descriptor = claim.descriptor
                self._claim = None
        return won

    def _poll(self) -> bool:
        """Try again and again. Others may be served first, but it needs no thread."""
        deadline = monotonic() + self.timeout_seconds
        while not self.try_enter():
            if monotonic() > deadline:
                return False
        return True


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


def _holder(descriptor: int) -> int | None:
    """Return the PID of the process that holds the flock on a file, by proc_locks(5)."""
    status = os.fstat(descriptor)
    name = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        table = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    for line in table.splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and name in fields:
            return int(fields[4])
    return None
