"""The processes of this machine that have a text in their environment: how benches find their own.

A child inherits its environment, in whatever session or group it is; so what carries the name of a
bench's own folder was started by that bench. A zombie has no environment. Linux alone.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_LOOK_SECONDS = 0.01


def pids() -> list[int]:
    """Return the PIDs of all other processes."""
    found = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in found if pid != os.getpid()]


def with_text(text: str) -> list[int]:
    """Return the PIDs of the other processes that have a text in their environment."""
    return [pid for pid in pids() if _has(pid, text)]


def end_all(text: str) -> None:
    """Kill the other processes that have a text in their environment, until there is none."""
    while found := with_text(text):
        for pid in found:
            with suppress(ProcessLookupError):
                _kill(pid, text)
        time.sleep(_LOOK_SECONDS)


def _has(pid: int, text: str) -> bool:
    try:
        return text.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended, or nobody may look
        return False


def _kill(pid: int, text: str) -> None:
    # By a descriptor: the PID itself may be a stranger's by now.
    descriptor = os.pidfd_open(pid)
    try:
        if _has(pid, text):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
