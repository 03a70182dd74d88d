"""End a supervised flow that does not heed its own timeout, with the stacks of where it hangs.

``lifecycle`` guards each attempt of a flow with it. No exception reaches code that is in one long C
call; the watchdog of ``faulthandler`` needs neither the interpreter nor its lock. What it leaves in the
run's folder tells ``settling`` that the run is TimedOut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import SupportsFloat

from prefectlite.records import FlowRun, ProcessIdentity
from prefectlite.run_folders import HANG_FILE, RunFolder
from prefectlite.timeouts import Deadline

# What user code gets for its ``finally``, where the infrastructure does not say.
_GRACE_SECONDS = 30.0


@contextmanager
def ended_if_it_hangs(
    flow_run: FlowRun, supervisor: ProcessIdentity, deadline: Deadline
) -> Iterator[None]:
    """End this process where the block goes on for a grace period after the run's deadline."""
    import faulthandler

    grace_seconds = (flow_run.infrastructure or {}).get("grace_seconds", _GRACE_SECONDS)
    grace = float(grace_seconds) if isinstance(grace_seconds, SupportsFloat) else _GRACE_SECONDS
    try:
        file = (RunFolder.of(supervisor).path / HANG_FILE).open("w", encoding="utf-8")
    except OSError:  # the disk is full, or the folder is gone: the flow can do without
        yield
        return
    with file:
        with suppress(OSError, OverflowError):
            file.write(f"{deadline.message}\n")
            file.flush()
            faulthandler.dump_traceback_later(deadline.remaining() + grace, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
