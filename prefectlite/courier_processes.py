"""Start couriers: processes in the background that deliver notifications.

The registry calls this after a change that has left something to deliver, and so do agents and who
settles runs. What it starts is ``couriers``. It never waits for that, and never fails: what could not be
started now is found by the next one who looks. Who starts supervisors has ``reap`` from here.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
from contextlib import suppress

from prefectlite.clock import monotonic
from prefectlite.errors import SettingError
from prefectlite.settings import (
    PREFECTLITE_FLOW_RUN_ID,
    PREFECTLITE_FLOW_TIMEOUT,
    PREFECTLITE_HOME,
    PREFECTLITE_REGISTRY,
    PREFECTLITE_RUN_FOLDER,
    PREFECTLITE_RUN_TOKEN,
    child_environment,
)

# A courier belongs to no run: what ends the processes of one by its token must not find it.
_OF_A_RUN = (
    PREFECTLITE_RUN_TOKEN,
    PREFECTLITE_FLOW_RUN_ID,
    PREFECTLITE_FLOW_TIMEOUT,
    PREFECTLITE_RUN_FOLDER,
)
# What a message takes, with some room: the courier of a process that is supervised gets no more.
_LAST_SECONDS = 1.0


class _Couriers:
    """The couriers that this process has started.

    Attributes:
        pids: Those that are not known to have ended.
        looking: The end of a pipe to the last one. That holds the other end until it is about to look
            for the last time: so what is on record before that, it finds. -1 where there is none.
        are_awaited: Whether this process is not to end before them.
        lock: Held by who starts one. A signal's handler may come here while its thread does.
    """

    def __init__(self) -> None:
        self.pids = set[int]()
        self.looking = -1
        self.are_awaited = False
        self.lock = threading.RLock()

    def begin_anew(self) -> None:
        """Have none, in a forked child: they are its parent's."""
        if self.looking >= 0:
            os.close(self.looking)
        self.pids, self.looking, self.are_awaited = set(), -1, False
        self.lock = threading.RLock()  # another thread of the parent may have held it

    def are_looking(self) -> bool:
        """Return whether one of them will still find what is on record now."""
        reap(self.pids)
        if self.looking < 0:
            return False
        poll = select.poll()
        poll.register(self.looking, 0)  # POLLHUP comes unasked
        if self.pids and not poll.poll(0):
            return True
        os.close(self.looking)
        self.looking = -1
        return False


_couriers = _Couriers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_couriers.begin_anew)


def reap(children: set[int]) -> None:
    """Let the system forget those of these children of this process that have ended; so does the set."""
    for pid in [*children]:
        with suppress(ChildProcessError):  # somebody else was first, or it is not ours
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                continue
        children.discard(pid)


def start_courier(registry_url: str) -> None:
    """Have what is due to be told delivered, by a process that goes on without this one.

    Nothing is started while one that this process has started is still to look.
    """
    # No process or descriptor is to be had; nobody's home.
    with _couriers.lock, suppress(OSError, SettingError):
        if not _couriers.are_looking():
            _start(registry_url)


def _start(registry_url: str) -> None:
    ours = {
        PREFECTLITE_HOME.name: str(PREFECTLITE_HOME.value()),
        PREFECTLITE_REGISTRY.name: registry_url,
    }
    environment = child_environment(ours)
    for setting in _OF_A_RUN:
        environment.pop(setting.name, None)
    looking, held = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            # -P: a file of the current folder may have the name of a module that is needed.
            [sys.executable, "-P", "-m", "prefectlite.couriers"],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, held, 1),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsigmask=(),  # whatever its starter holds back
            setsid=True,  # or Ctrl-C and the end of the terminal would reach it
        )
    except OSError:
        os.close(looking)
        raise
    finally:
        os.close(held)
    _couriers.pids.add(pid)
    _couriers.looking = looking


def courier_pids() -> frozenset[int]:
    """Return the PIDs of the couriers that this process has started: they are of no run."""
    return frozenset(_couriers.pids)


def await_couriers_at_exit() -> None:
    """Have this process give its couriers a moment at exit, and end them then.

    For what a supervisor started: as soon as it ends, so does all that it has started, and the log of
    the run says that something was left running.
    """
    _couriers.are_awaited = True


@atexit.register
def _end() -> None:
    if not _couriers.are_awaited:
        return
    deadline = monotonic() + _LAST_SECONDS
    for pid in _couriers.pids:
        with suppress(OSError, AttributeError):  # it is gone; this is not Linux
            descriptor = os.pidfd_open(pid)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(max(0.0, deadline - monotonic()) * 1000)
            os.close(descriptor)
    reap(_couriers.pids)
    for pid in _couriers.pids:
        # What it had taken is found by who settles the run.
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
