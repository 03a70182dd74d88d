"""Find out what is wrong with an installation, and how to mend it: ``prefectlite doctor``.

It looks, and changes nothing. The checks are in modules of their own, by what they are about.
"""

from __future__ import annotations

from collections.abc import Callable

from prefectlite import console
from prefectlite.errors import PrefectLiteError, RegistryError
from prefectlite.findings import Finding, Status, error
from prefectlite.listings import JsonListOption

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.ERROR: "red", Status.SKIPPED: ""}
_WIDTH = max(map(len, Status)) + 2


def doctor(*, as_json: JsonListOption = False) -> int:
    """Check this machine, the settings and the registry. The exit code is 5 where something does not work.

    Each check says how to mend what it finds. Warnings are of what may do harm, or does a little.

    Examples:
        prefectlite doctor
        prefectlite doctor --json
    """
    found = {name: _finding(check) for name, check in _checks().items()}
    if as_json:
        console.out_json(
            [
                {"check": name, "status": one.status, "message": one.message, "fix": one.fix}
                for name, one in found.items()
            ]
        )
    else:
        for name, one in found.items():
            _print(name, one)
    counts = dict.fromkeys(Status, 0)
    for one in found.values():
        counts[one.status] += 1
    console.say(f"errors: {counts[Status.ERROR]}, warnings: {counts[Status.WARNING]}")
    return RegistryError.exit_code if counts[Status.ERROR] else 0


def _print(name: str, found: Finding) -> None:
    status = console.Styled(f"{found.status:{_WIDTH}}", _STYLES[found.status])
    console.out_line([status, console.escaped(f"{name}: {found.message}")])
    if found.fix is not None:
        console.out_line([" " * _WIDTH, "fix: ", console.escaped(found.fix)])


def _finding(check: Callable[[], Finding]) -> Finding:
    """Return what a check finds; it is an error where it cannot find out."""
    try:
        return check()
    except PrefectLiteError as problem:
        return error(str(problem), problem.hint or "mend it, and see again")
    except Exception as problem:  # noqa: BLE001 - whatever it is, the other checks matter all the more
        return error(
            f"the check itself failed: {type(problem).__name__}: {problem}",
            "see whether the other checks say why; if not, it is a fault of prefectlite",
        )


def _checks() -> dict[str, Callable[[], Finding]]:
    """Return the checks by what they are about, in the order in which they are shown."""
    from prefectlite import home_checks, machine_checks, registry_checks

    return {
        "python": machine_checks.check_python,
        "sqlite": machine_checks.check_sqlite,
        "settings": home_checks.check_settings,
        "home folder": home_checks.check_home,
        "permissions": home_checks.check_permissions,
        "filesystem": home_checks.check_filesystem,
        "locks": home_checks.check_locks,
        "disk": home_checks.check_disk,
        "registry": registry_checks.check_registry,
        "integrity": registry_checks.check_integrity,
        "write gate": registry_checks.check_gate,
        "clock": machine_checks.check_clock,
        "file times": home_checks.check_file_times,
        "recorded times": registry_checks.check_times,
        "stale runs": registry_checks.check_stale_runs,
        "run folders": home_checks.check_run_folders,
        "work queues": registry_checks.check_work_queues,
        "notifications": registry_checks.check_notifications,
        "subreaper": machine_checks.check_subreaper,
        "pidfd": machine_checks.check_pidfd,
        "control groups": machine_checks.check_cgroup,
        "proc": machine_checks.check_proc,
        "cron": machine_checks.check_cron,
        "systemd": machine_checks.check_systemd,
        "terminal": machine_checks.check_terminal,
    }


COMMANDS = (doctor,)
