"""Made-up processes, of which the kernel says whether they live: by a lock, as of every other."""

from __future__ import annotations

import os
from pathlib import Path

from prefectlite import liveness
from prefectlite.records import ProcessIdentity


def identity(token: str, lock: Path, *, pid: int = 2**30) -> ProcessIdentity:
    """Return who a made-up process of this machine is.

    Nothing can be signalled by it: there is no such PID, and without its start none is taken for it.

    Args:
        token: Its own.
        lock: A file; the process lives as long as that is locked.
        pid: Greater than any that the kernel gives (proc_sys_kernel(5), pid_max).
    """
    return ProcessIdentity(
        token=token,
        hostname=os.uname().nodename,
        machine_id=liveness.machine_id(),
        boot_id=liveness._boot_id(),
        pid_namespace=liveness._pid_namespace(),
        pid=pid,
        start_ticks=None,
        lock_path=str(lock),
    )
