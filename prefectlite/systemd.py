"""What systemd does to the runs of an agent that is one of its services.

``agent start`` asks when it begins. By default systemd ends every process of a unit with it, also those
that have left its session: a run then does not outlive its agent (systemd.kill(5), KillMode).
"""

from __future__ import annotations

import os
import subprocess  # noqa: TID251 - asks systemctl, and starts nothing that stays
from pathlib import Path

from prefectlite.settings import SYSTEMD_EXEC_PID

_SECONDS = 5.0
#: Modes in which only the unit's main process is ended.
_GENTLE = ("process", "none")
_CONTROL_GROUP = Path("/proc/self/cgroup")


def kill_mode_warning() -> str | None:
    """Return what is to be said where the end of this service would end its runs; None if not."""
    if SYSTEMD_EXEC_PID.value() != str(os.getpid()):
        return None  # not a service's main process (systemd.exec(5))
    unit = _unit()
    if unit is None:
        return None
    mode = _kill_mode(unit)
    if mode is None or mode in _GENTLE:
        return None
    return (
        f"the unit {unit} has KillMode={mode}: to stop it ends its runs, too;"
        " write KillMode=process into its [Service] section"
    )


def _unit() -> str | None:
    """Return the service that this process belongs to, by its control group."""
    try:
        lines = _CONTROL_GROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    names = [line.rpartition("/")[2] for line in lines]
    return next((name for name in names if name.endswith(".service")), None)


def _kill_mode(unit: str) -> str | None:
    manager = [] if os.getuid() == 0 else ["--user"]
    try:
        asked = subprocess.run(
            ["systemctl", *manager, "show", "--value", "--property=KillMode", unit],
            capture_output=True,
            check=True,
            text=True,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None
