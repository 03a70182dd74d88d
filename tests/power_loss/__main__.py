"""Cut the power of a traced workload again and again, and report what was lost; see the package."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import prefectlite
from prefectlite.liveness import machine_id
from tests.power_loss import notes, planted
from tests.power_loss.cuts import Cut, cuts
from tests.power_loss.disks import Disk, Operation
from tests.power_loss.restarted import restart
from tests.power_loss.traces import operations, trace
from tests.power_loss.workload import STEPS
from tests.processes import end_all

_SOURCES = Path(prefectlite.__file__).parents[1]
_MEMORY = Path("/dev/shm")
_TRACE_SECONDS = 300
_SHOWN = 20
_INTERRUPTED = 130
_EXAMPLES = """examples:
  python -m tests.power_loss --cuts 3000
  python -m tests.power_loss --synchronous normal     # must find what is lost
  python -m tests.power_loss --synchronous off        # must find what is corrupt, too
"""


def main() -> int:
    """Trace, cut, audit and report; return 1 where anything was lost or corrupt."""
    arguments = _arguments()
    folder = arguments.again or arguments.keep or _new_folder()
    folder.mkdir(exist_ok=True)
    sys.stderr.write(f"seed {arguments.seed}, {arguments.cuts} cuts, in {folder}\n")
    _set_environment(folder)
    if machine_id() is None:
        sys.stderr.write("NOT TESTED: what runs say after a restart; there is no /etc/machine-id\n")
    is_kept = True  # also where the bench itself fails
    try:
        bad = _audited(_traced(folder, arguments), folder, arguments)
        is_kept = bool(bad) and not arguments.synchronous
    except KeyboardInterrupt:
        is_kept = False
        return _INTERRUPTED
    finally:
        if is_kept:
            again = f"--again {folder} --seed {arguments.seed} --cuts {arguments.cuts}"
            sys.stdout.write(f"to see it again: python -m tests.power_loss {again}\n")
        elif arguments.again is None and arguments.keep is None:
            shutil.rmtree(folder)
    return 1 if bad else 0


def _new_folder() -> Path:
    room = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="power-loss-", dir=room))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.power_loss",
        description="Cut the power of real programs, and look what is left; needs strace(1).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    seed = random.SystemRandom().randrange(1_000_000)
    parser.add_argument(
        "--seed", type=int, default=seed, help="chooses the cuts and what they lose"
    )
    parser.add_argument("--cuts", type=int, default=400, metavar="N", help="how many (400)")
    parser.add_argument(
        "--synchronous",
        choices=("off", "normal"),
        help="plant a fault: what SQLite is to sync, whatever prefectlite says",
    )
    parser.add_argument(
        "--steps", nargs="+", choices=STEPS, default=list(STEPS), help="of the workload; all"
    )
    parser.add_argument(
        "--again", type=Path, metavar="FOLDER", help="use a trace that was kept, not a new one"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder, which is kept")
    arguments = parser.parse_args()
    if arguments.keep is not None and arguments.keep.exists():
        parser.error(f"there is a {arguments.keep} already")
    if shutil.which("strace") is None:
        parser.error("strace(1) is not installed")
    return arguments


def _set_environment(folder: Path) -> None:
    """Keep the workload and the audits away from the person's own files and settings."""
    for name in [name for name in os.environ if name.startswith(("PREFECTLITE_", "PREFECT_"))]:
        del os.environ[name]
    os.environ["PREFECTLITE_HOME"] = str(folder / "disk" / "home")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    os.environ["PYTHONPATH"] = str(_SOURCES)


def _traced(folder: Path, arguments: argparse.Namespace) -> list[Operation]:
    """Return what the workload did to the disk; what a replay of it gives is just what is there.

    Raises:
        RuntimeError: It is not.
    """
    disk, log, told = folder / "disk", folder / "trace", folder / "notes"
    if not arguments.again:
        disk.mkdir()
        told.touch()
        environment = {
            **os.environ,
            "PYTHONPATH": f"{Path(__file__).parent / 'traced'}:{_SOURCES}",
            notes.FILE: str(told),
            planted.SYNCHRONOUS: arguments.synchronous or "",
        }
        workload = [sys.executable, "-m", "tests.power_loss.workload", str(disk), *arguments.steps]
        try:
            trace(workload, log, env=environment, deadline_seconds=_TRACE_SECONDS)
        finally:
            end_all(f"PREFECTLITE_HOME={disk}/home")
    done = operations(log, disk, told)
    if not arguments.again:
        replay = Disk()
        for operation in done:
            replay.apply(operation)
        differences = list(replay.root.differences(disk))
        if differences:
            raise RuntimeError(f"the trace is not what was done: {'; '.join(differences[:5])}")
    return done


def _audited(done: list[Operation], folder: Path, arguments: argparse.Namespace) -> list[Cut]:
    """Audit what each cut leaves, report it, and return the cuts after which something was wrong."""
    restart()
    if not done:
        raise ValueError(f"{folder} holds no trace that was made there")
    sys.stderr.write(f"{len(done)} operations and notes\n")
    bad: list[Cut] = []
    kinds: Counter[str] = Counter()
    total = acknowledged = 0
    for cut in cuts(done, folder / "disk", seed=arguments.seed, number=arguments.cuts):
        total, acknowledged = total + 1, acknowledged + cut.acknowledged
        kinds.update({finding.kind.value for finding in cut.findings})
        if cut.findings and len(bad) < _SHOWN:
            sys.stdout.write(f"{cut.told()}\n")
        bad += [cut] if cut.findings else []
        if total % 100 == 0:
            sys.stderr.write(f"{total} cuts, {len(bad)} bad\n")
    sys.stdout.write(
        f"seed {arguments.seed}: {total} cuts, {acknowledged} states looked for;"
        f" lost in {kinds['lost']} cuts, corrupt in {kinds['corrupt']}\n"
    )
    return bad


if __name__ == "__main__":
    sys.exit(main())
