"""Bugs as they are kept, and what becomes of the tests that are to catch one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: The checkout that is copied.
SOURCES = Path(__file__).parents[2]

# Of what a checkout may hold besides the tree: nothing that tests need.
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "build", "dist")
# A test that waits for another process gives up on it after 60 seconds, perhaps with each parameter.
_LIMIT_SECONDS, _TEST_SECONDS = 300.0, 30.0
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bug:
    """A fault of the product: one text instead of another in one file.

    Attributes:
        name: What is wrong with the product then.
        group: The file of ``bugs/`` that it is kept in.
        file: The file that is changed, from the checkout's root.
        old: What stands there, once.
        new: What is planted in its place.
        caught_by: Ids of the tests that have to fail.
    """

    name: str
    group: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]

    def plant(self, tree: Path) -> None:
        """Change the file in a copy of the tree.

        Raises:
            ValueError: The text that it replaces is not there, or several times.
        """
        path = tree / self.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file} has the text that it replaces {count} times")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")

    def pull(self, tree: Path) -> None:
        """Put the file of the checkout back."""
        shutil.copyfile(SOURCES / self.file, tree / self.file)


def bugs(words: Iterable[str] = ()) -> list[Bug]:
    """Return the bugs whose group is one of these words, or whose name holds one; all without any."""
    found = [
        Bug(
            name=entry["name"],
            group=path.stem,
            file=entry["file"],
            old=entry["old"],
            new=entry["new"],
            caught_by=tuple(entry["caught_by"]),
        )
        for path in sorted((Path(__file__).parent / "bugs").glob("*.toml"))
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["bug"]
    ]
    groups = {bug.group for bug in found}
    chosen = [*words]
    return [
        bug
        for bug in found
        if not chosen
        or any(word == bug.group or (word in bug.name and word not in groups) for word in chosen)
    ]


def copy_tree(folder: Path) -> Path:
    """Copy the checkout into a folder, and return the copy."""
    return Path(shutil.copytree(SOURCES, folder / "tree", ignore=_NOT_COPIED))


def escaped(bug: Bug, tree: Path) -> str:
    """Run the tests that are to catch a bug in a copy of the tree where it is planted.

    Returns:
        Why it was not caught; empty where it was.

    Raises:
        ValueError: They could not be run to their end.
    """
    failed = failures(bug.caught_by, tree)
    blind = [test for test in bug.caught_by if not any(is_of(one, test) for one in failed)]
    return f"not seen by {', '.join(blind)}" if blind else ""


def failures(tests: Sequence[str], tree: Path, *, jobs: int = 1) -> list[str]:
    """Run tests in a copy of the tree, and return the ids of those that fail.

    Args:
        jobs: How many are run at once.

    Raises:
        ValueError: They could not be run to their end.
    """
    temporary = tree.with_name("temporary")
    temporary.mkdir(exist_ok=True)
    workers = str(jobs if jobs > 1 else 0)
    limit_seconds = _LIMIT_SECONDS + _TEST_SECONDS * len(tests)
    command = ["-m", "pytest", "-q", "-n", workers, "-m", "", "-rfE", "--tb=no", *tests]
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTEST_DEBUG_TEMPROOT": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        raise ValueError(f"its tests did not end within {limit_seconds:g} seconds") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(temporary, ignore_errors=True)
    if process.returncode not in (0, 1):
        raise ValueError(f"pytest ended with {process.returncode}: {out[-300:]}")
    failed = _FAILED.findall(out)
    if process.returncode and not failed:
        raise ValueError(f"pytest says of no test that it failed: {out[-300:]}")
    return failed


def is_of(found: str, test: str) -> bool:
    """Return whether a failure is that of a test, or of one of its parameters."""
    return found == test or found.startswith((f"{test}[", f"{test}::"))
