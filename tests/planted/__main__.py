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

from tests.planted.planting import Bug, bugs, copy_tree, escaped, failures, is_of

_EPILOG = "example: python -m tests.planted disk 'write gate'"


def main() -> int:
    """Plant what the arguments name; return 1 where one was not caught, or a test fails anyway."""
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
    try:
        return 0 if _plant_all(chosen, arguments.jobs) else 1
    except ValueError as error:
        sys.stderr.write(f"without any bug: {error}\n")
        return 1


def _plant_all(chosen: list[Bug], jobs: int) -> bool:
    """Plant each bug by itself, several at once; return whether all were caught."""
    with tempfile.TemporaryDirectory(prefix="planted-", ignore_cleanup_errors=True) as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        first = _copy(folder, 0)
        broken = _fail_anyway(chosen, first, jobs)
        trees.put(first)
        for number in range(1, min(jobs, len(chosen))):
            trees.put(_copy(folder, number))

        def attempt(bug: Bug) -> bool:
            started, tree = monotonic(), trees.get()
            try:
                problem = _problem(bug, tree, broken)
            finally:
                trees.put(tree)
            outcome = f"NOT CAUGHT: {problem}" if problem else "caught"
            _tell(f"{bug.group}: {bug.name}: {outcome}", started)
            return not problem

        with ThreadPoolExecutor(jobs) as pool:
            caught = sum(pool.map(attempt, chosen))
    sys.stdout.write(f"{caught} of {len(chosen)} bugs were caught.\n")
    return caught == len(chosen)


def _copy(folder: str, number: int) -> Path:
    own = Path(folder) / str(number)
    own.mkdir()
    return copy_tree(own)


def _fail_anyway(chosen: list[Bug], tree: Path, jobs: int) -> list[str]:
    """Return which of the tests fail where nothing is planted: they catch nothing by that."""
    started = monotonic()
    tests = sorted({test for bug in chosen for test in bug.caught_by})
    failed = failures(tests, tree, jobs=jobs)
    for test in failed:
        sys.stdout.write(f"FAILS WITHOUT ANY BUG: {test}\n")
    _tell(f"without any bug, {len(failed)} of the tests that are to catch one failed", started)
    return failed


def _problem(bug: Bug, tree: Path, broken: list[str]) -> str:
    """Plant a bug, and pull it again; return why it was not caught, or nothing."""
    if anyway := [test for test in bug.caught_by if any(is_of(one, test) for one in broken)]:
        return f"without it, too, there fails {', '.join(anyway)}"
    try:
        bug.plant(tree)
        try:
            return escaped(bug, tree)
        finally:
            bug.pull(tree)
    except (OSError, ValueError) as error:  # its file is gone, or says something else
        return str(error)


def _tell(text: str, started: float) -> None:
    sys.stdout.write(f"{text} ({monotonic() - started:.0f} s)\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
