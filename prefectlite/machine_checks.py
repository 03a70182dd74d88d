"""What ``doctor`` looks at on the machine itself, whatever is on record.

Each check returns a finding, and changes nothing. What can only be tried is tried in a child process.
"""

from __future__ import annotations

import os
import platform
import sqlite3  # noqa: TID251 - for its version alone
import subprocess  # noqa: TID251 - starts what is over in a moment
import sys
from pathlib import Path

from prefectlite import console
from prefectlite.clock import now, since_boot
from prefectlite.findings import Finding, error, ok, skipped, warning
from prefectlite.liveness import start_ticks
from prefectlite.systemd import kill_mode_warning

# The first release without the fault, and those to which its mend was brought back.
_MENDED_SQLITE = (3, 51, 3)
_ALSO_MENDED_SQLITE = ((3, 50, 7), (3, 44, 6))
# That STRICT tables need.
_LEAST_SQLITE = (3, 37, 0)
# When this was written: no clock that is right says less.
_LEAST_YEAR = 2024
_SLACK_SECONDS = 1.0
_CRON_PATH = "/usr/bin:/bin"
_SECONDS = 10.0
# PR_SET_CHILD_SUBREAPER of prctl(2).
_SET_SUBREAPER = "import ctypes; raise SystemExit(ctypes.CDLL(None).prctl(36, *map(ctypes.c_ulong, (1, 0, 0, 0))))"


def check_python() -> Finding:
    """Look at the version of Python."""
    return ok(f"Python {platform.python_version()}, {sys.executable}")


def check_sqlite() -> Finding:
    """Look whether SQLite has the fault for which prefectlite has a lock of its own."""
    version, numbers = sqlite3.sqlite_version, sqlite3.sqlite_version_info
    if numbers < _LEAST_SQLITE:
        least = ".".join(map(str, _LEAST_SQLITE))
        return error(f"SQLite {version} is too old", f"use a Python with SQLite {least} or later")
    if is_mended_sqlite(numbers):
        return ok(f"SQLite {version}")
    return warning(
        f"SQLite {version} can lose a commit where two programs write and checkpoint at once;"
        " prefectlite prevents that by a lock of its own",
        "let no other program write to the registry, or use a Python with SQLite 3.51.3, 3.50.7 or"
        " 3.44.6",
    )


def is_mended_sqlite(numbers: tuple[int, ...]) -> bool:
    """Return whether a version of SQLite is without the fault (sqlite.org/wal.html)."""
    return numbers >= _MENDED_SQLITE or any(
        numbers[:2] == mended[:2] and numbers >= mended for mended in _ALSO_MENDED_SQLITE
    )


def check_clock() -> Finding:
    """Look whether the clocks of the machine can be right."""
    if now().year < _LEAST_YEAR:
        return error(
            f"the clock says {now():%Y-%m-%d}", "set it, or have it set by NTP: timedatectl"
        )
    ticks = start_ticks(os.getpid())
    if ticks is not None and ticks / os.sysconf("SC_CLK_TCK") > since_boot() + _SLACK_SECONDS:
        return error(
            "by /proc, this process starts in the future: processes are not told apart by their starts",
            "is this a sandbox, or a time namespace? run prefectlite outside of it",
        )
    return ok(f"{now():%Y-%m-%d %H:%M:%S} UTC")


def check_subreaper() -> Finding:
    """Look whether a supervisor can keep hold of what its run leaves behind."""
    if sys.platform != "linux":
        return skipped("only Linux has subreapers")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _SET_SUBREAPER],
        capture_output=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode == 0:
        return ok("a supervisor can adopt what its run leaves behind")
    return warning(
        "prctl(PR_SET_CHILD_SUBREAPER) is refused: what a run detaches twice can outlive it",
        "allow it in the sandbox or container that this runs in",
    )


def check_pidfd() -> Finding:
    """Look whether a process can be held on to, so that its PID cannot become that of another."""
    if not hasattr(os, "pidfd_open"):
        return skipped("only Linux has pidfd_open")
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as problem:
        return warning(
            f"pidfd_open is refused ({problem.strerror}): processes are signalled by their PIDs",
            "use Linux 5.3 or later, and allow it in the sandbox or container that this runs in",
        )
    return ok("a process is signalled only once it is held on to")


def check_cgroup() -> Finding:
    """Look whether runs can have control groups of their own; they need not."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("0::")[2].strip()
    except OSError:
        return skipped("there are no control groups here")
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        folder = Path(f"{root}{own}")
        if (folder / "cgroup.procs").exists() and os.access(folder, os.W_OK):
            return ok(f"runs get control groups of their own under {folder}")
    return ok("runs get no control groups of their own; their processes are found one by one")


def check_proc() -> Finding:
    """Look whether the processes of others can be seen."""
    if not Path("/proc/self/stat").exists():
        return skipped("there is no /proc here")
    try:
        Path("/proc/1/stat").read_bytes()
    except OSError:
        return warning(
            "/proc hides the processes of other users (hidepid): whether their runs live is not seen",
            "see to the runs of a user as that user; or mount /proc without hidepid",
        )
    return ok("/proc shows every process")


def check_cron() -> Finding:
    """Look what a crontab must say to have prefectlite found."""
    from shutil import which  # it comes with every way to compress a file

    found = which("prefectlite", path=_CRON_PATH)
    if found is not None:
        return ok(f"cron finds {found}")
    own = Path(sys.executable).with_name("prefectlite")
    command = str(own) if own.exists() else f"{sys.executable} -m prefectlite"
    return ok(f"cron's PATH, {_CRON_PATH}, has no prefectlite; in a crontab, write: {command}")


def check_systemd() -> Finding:
    """Look whether the end of a service would end its runs."""
    told = kill_mode_warning()
    if told is None:
        return ok("this is no service whose end would end its runs")
    return warning(told, "systemctl edit UNIT, add [Service] and KillMode=process")


def check_terminal() -> Finding:
    """Look whether every name can be shown."""
    if console.shows_unicode(sys.stdout):
        return ok(f"stdout takes {sys.stdout.encoding}")
    return warning(
        f"stdout takes {sys.stdout.encoding}: other characters are shown as escapes",
        "set LC_ALL=C.UTF-8, or PYTHONUTF8=1",
    )
