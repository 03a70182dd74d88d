"""Make the rounds that the arguments name, and report what was wrong; see the package."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import product
from pathlib import Path
from typing import NoReturn

from tests.faults.places import Place
from tests.faults.scenarios import SCENARIOS, set_up
from tests.faults.sweeps import SWEEPS, mount, rounds

_EVERY = 100
_INTERRUPTED = 130
_INSIDE = "PREFECTLITE_FAULTS_INSIDE"


def main() -> int:
    """Make the rounds, and return 1 where anything was wrong."""
    arguments = _arguments()
    if _INSIDE not in os.environ:
        _begin_again_in_a_namespace()
    with tempfile.TemporaryDirectory(prefix="prefectlite-faults-") as folder:
        mount(Path(folder))
        place = Place(Path(folder))
        try:
            set_up(place)
            place.keep()
            return _report(arguments, place)
        except KeyboardInterrupt:
            return _INTERRUPTED
        finally:
            place.end_all()
            place.close()
            subprocess.run(["umount", "--lazy", folder], check=True)


def _report(arguments: argparse.Namespace, place: Place) -> int:
    """Make the rounds, tell what was wrong, and return 1 where anything was."""
    made: Counter[str] = Counter()
    wrong = 0
    seed, every = arguments.seed, arguments.every
    for sweep, scenario in product(arguments.sweeps or SWEEPS, arguments.only or SCENARIOS):
        sys.stderr.write(f"{sweep} {scenario} ...\n")
        for one in rounds(sweep, scenario, place, seed=seed, every=every):
            made[f"exit code {one.code}"] += 1
            wrong += bool(one.complaints)
            for complaint in one.complaints:
                sys.stdout.write(f"{one.name}: {complaint.strip()}\n")
                sys.stdout.flush()
    total = sum(made.values())
    told = ", ".join(f"{code}: {count}" for code, count in sorted(made.items()))
    sys.stdout.write(f"{total} rounds with seed {seed}, every {every}; {told}\n")
    sys.stdout.write(f"{wrong} of them with something wrong\n")
    return 1 if wrong or not total else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Have disks fail under commands of prefectlite, and see what they make of it.",
        epilog="for example: python -m tests.faults injected --only run --every 10 --seed 3",
    )
    parser.add_argument(
        "sweeps", nargs="*", metavar="SWEEP", help=f"any of: {', '.join(SWEEPS)}; default: all"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="COMMAND",
        choices=[*SCENARIOS],
        help=f"with this command alone, may be repeated: {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--seed", type=int, default=0, help="which rounds are made; default: 0")
    parser.add_argument(
        "--every", type=int, default=_EVERY, help=f"make each so-many-th round; default: {_EVERY}"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sweeps if name not in SWEEPS]
    if unknown or arguments.every < 1:
        parser.error(f"no such sweep: {', '.join(unknown)}" if unknown else "--every: at least 1")
    if os.geteuid() != 0:
        parser.error("a small disk is mounted, which needs root")
    for program in ("unshare", "mount", "strace"):
        if shutil.which(program) is None:
            parser.error(f"{program} is not installed")
    return arguments


def _begin_again_in_a_namespace() -> NoReturn:
    """Become the same in a mount namespace, so that no disk is left behind by whatever ends this."""
    command = [sys.executable, "-m", "tests.faults", *sys.argv[1:]]
    unshare = ["unshare", "--mount", "--propagation", "private", "--"]
    os.execvpe("unshare", [*unshare, *command], {**os.environ, _INSIDE: "1"})


if __name__ == "__main__":
    sys.exit(main())
