"""What the programs of all contenders share; the standard library alone, for any venv's Python.

A program is ``python <library>_work.py WORK [ARGUMENT]...``. It prints JSON lines, and what two of
its processes have to tell each other is in files: when something was reached, by the clock that all
processes of a machine have in common.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

T = TypeVar("T")

_DEADLINE_SECONDS = 120
# Whatever becomes of the driver, none of its programs outlives it for longer.
_LIFE_SECONDS = 600
# Between two looks for a file: nothing is timed by when it is seen, only by what is in it.
_LOOK_SECONDS = 0.01
# What a process gets to end by itself when it is no longer needed.
_END_SECONDS = 20


def main(works: Mapping[str, Callable[..., None]]) -> None:
    """Do the work that the command line names, with its arguments as text."""
    signal.alarm(_LIFE_SECONDS)
    name, *arguments = sys.argv[1:]
    works[name](*arguments)


def tell(**fields: float) -> None:
    """Print what was measured: seconds or bytes, by the name of the row."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def seconds_each(count: int, work: Callable[[], object]) -> float:
    """Do the work, which is ``count`` of something, and return the seconds that one of them took."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) / count


def peak_bytes(pid: int | str = "self") -> int:
    """Return the most memory that a process has had at once; 0 where the system does not say.

    Not ``ru_maxrss``, which on Linux begins with the size of the process that it was started from.
    """
    status = Path(f"/proc/{pid}/status")
    text = status.read_text(encoding="ascii", errors="replace") if status.exists() else ""
    sizes = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 if sizes else 0


def peak_bytes_of_children() -> int:
    """Return the sum of the peaks of the processes that this one has started and that still run."""
    children = Path("/proc/self/task").glob("*/children")
    return sum(peak_bytes(pid) for file in children for pid in file.read_text().split())


def mark(file: str) -> None:
    """Say in a file that this moment was reached."""
    reached = time.monotonic_ns()
    path = Path(file)
    path.with_suffix(".new").write_text(str(reached), encoding="ascii")
    path.with_suffix(".new").rename(path)


def until(condition: Callable[[], T], what: str) -> T:
    """Wait until a condition gives something true, and return that.

    Raises:
        TimeoutError: It never did.
    """
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_DEADLINE_SECONDS} s: {what}")
        time.sleep(_LOOK_SECONDS)
    return found


def marked_at(file: str) -> int:
    """Wait until another process has marked a file, and return when: nanoseconds, monotonic.

    Raises:
        TimeoutError: It did not.
    """
    until(Path(file).exists, f"{Path(file).name} is marked")
    return int(Path(file).read_text(encoding="ascii"))


def latency(began: int, file: str) -> float:
    """Return the seconds from a moment to the one that another process marks."""
    return (marked_at(file) - began) / 1e9


@contextmanager
def marks() -> Iterator[tuple[str, str]]:
    """Yield two files to mark: that a process is ready, and that it was reached."""
    with TemporaryDirectory(prefix="prefectlite-benchmark-", ignore_cleanup_errors=True) as folder:
        yield f"{folder}/ready", f"{folder}/reached"


@contextmanager
def beside(work: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have another process of the same program do some work meanwhile; end it afterwards."""
    process = subprocess.Popen(
        [sys.executable, sys.argv[0], work, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Where the driver keeps it, for when something goes wrong.
        stderr=None,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
