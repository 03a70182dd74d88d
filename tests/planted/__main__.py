"""Plant bugs, and say which of them no test has seen; see the package."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

from tests.planted.planting import Bug, bugs, copy_tree, escaped

_EPILOG = "example: python -m tests.planted disk 'write gate'"


def main() -> int:
    """Plant what the arguments name; return 1 where a bug was not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted", epilog=_EPILOG)
    parser.add_argument("words", nargs="*", metavar="WORD", help="a group, or a part of a name")
    parser.add_argument("--list", action="store_true", help="only show the bugs")
    cores = os.cpu_count() or 1
    parser.add_argument(
        "-j", "--jobs", type=int, default=cores, help="how many at once (%(default)s)"
    )
    arguments = parser.parse_args()
    chosen = bugs(arguments.words)
    if not chosen:
        parser.error("no bug is called so")
    if arguments.list:
        for bug in chosen:
            sys.stdout.write(f"{bug.group}: {bug.name} ({bug.file})\n")
        return 0
    return 1 if _plant_all(chosen, arguments.jobs) else 0


def _plant_all(chosen: list[Bug], jobs: int) -> int:
    """Plant each bug by itself, several at once; return how many were not caught."""
    with tempfile.TemporaryDirectory(prefix="planted-", ignore_cleanup_errors=True) as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(min(jobs, len(chosen))):
            own = Path(folder) / str(number)
            own.mkdir()
            trees.put(copy_tree(own))

        def attempt(bug: Bug) -> bool:
            started, tree = monotonic(), trees.get()
            try:
                bug.plant(tree)
                try:
                    problem = escaped(bug, tree)
                finally:
                    bug.pull(tree)
            except (OSError, ValueError) as error:  # its file is gone, or says something else
                problem = str(error)
            finally:
                trees.put(tree)
            outcome = f"NOT CAUGHT: {problem}" if problem else "caught"
            seconds = f"{monotonic() - started:.0f} s"
            sys.stdout.write(f"{bug.group}: {bug.name}: {outcome} ({seconds})\n")
            sys.stdout.flush()
            return bool(problem)

        with ThreadPoolExecutor(jobs) as pool:
            missed = sum(pool.map(attempt, chosen))
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} bugs were caught.\n")
    return missed


if __name__ == "__main__":
    sys.exit(main())
