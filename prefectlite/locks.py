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

from prefectlite.errors import RegistryLockTimeoutError

# A write holds the gate for 30 to 200 microseconds: a few short naps nearly always win it, and
# cost less than the thread that is needed to wait for it in line with a deadline.
_NAPS = 20
_NAP_SECONDS = 0.0001


class WriteGate:
    """The right to write, shared by every process that opens the same file.

    Not reentrant, and not for two threads at once: the caller holds a lock of its own around it.
    """

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        self.path = path
        self.timeout_seconds = timeout_seconds
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def enter(self) -> None:
        """Wait for the gate and take it.

        Raises:
            RegistryLockTimeoutError: Another process held it for ``timeout_seconds``.
        """
        for _ in range(_NAPS):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_NAP_SECONDS)
            else:
                return
        self._enter_in_line()

    def leave(self) -> None:
        """Give the gate back."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file, and of the gate where it was held."""
        os.close(self._descriptor)

    def _enter_in_line(self) -> None:
        """Queue in the kernel, from a thread, because flock(2) itself knows no deadline."""
        claim = _Claim(self.path)
        threading.Thread(target=claim.wait, name="prefectlite-gate", daemon=True).start()
        try:
            claim.settled.acquire(timeout=self.timeout_seconds)
        finally:
            won = not claim.give_up()
            if won:
                os.close(self._descriptor)
                self._descriptor = claim.descriptor
        if not won:
            holder = _holder(self._descriptor)
            raise RegistryLockTimeoutError(
                f"the registry's gate {self.path} was held for {self.timeout_seconds:g} seconds"
                + (f" by process {holder}" if holder else ""),
                hint=f"is it stopped? see: ps -p {holder}" if holder else None,
            )


class _Claim:
    """One wait for the gate, which its thread wins or its owner gives up; never both.

    It has an open file description of its own, or a late win would pass for the owner's next one.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.settled = threading.Semaphore(0)
        self._decision = threading.Lock()
        self._given_up = False
        self._won = False

    def wait(self) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        with self._decision:
            if self._given_up:
                os.close(self.descriptor)
            else:
                self._won = True
        self.settled.release()

    def give_up(self) -> bool:
        """Return whether the wait is given up; False where it was won before."""
        with self._decision:
            self._given_up = not self._won
            return self._given_up


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
