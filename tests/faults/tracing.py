"""Has a system call of a command fail, by strace(1): the N-th of its kind, or all from there on.

strace counts the calls of each thread by itself, and those on other files, too. So a command is traced
once without a fault, to learn which of its calls touch the files that matter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_CALL = re.compile(r"^(\d+) +(\w+)\(")
#: The calls that may fail, what with, and whether also all of them from there on: not those that
#: Python itself makes to import a module.
FAULTS: dict[str, tuple[tuple[str, ...], bool]] = {
    "pwrite64": (("EIO", "ENOSPC"), True),
    "write": (("EIO", "ENOSPC"), False),
    "pread64": (("EIO",), False),
    "fdatasync": (("EIO",), True),
    "fsync": (("EIO",), True),
    "ftruncate": (("EIO", "ENOSPC"), True),
    "openat": (("EACCES", "EIO", "EROFS", "ENOSPC"), False),
    "mkdir": (("EACCES", "ENOSPC"), False),
    "rename": (("EIO", "EROFS"), False),
    "unlink": (("EIO", "EROFS"), False),
    "newfstatat": (("EIO",), False),
    "flock": (("ENOLCK",), False),
}
# Only by the numbers that they have in the command itself. In the processes that it starts these
# are counted anew, and are mostly imports, and the pipe by which a signal is heard of.
_OF_COMMAND = ("newfstatat", "openat", "write")


@dataclass(frozen=True, slots=True, order=True)
class Injection:
    """One fault of a system call.

    Attributes:
        when: As strace has it: ``7`` is the seventh call, ``7+`` all from there on.
    """

    call: str
    error: str
    when: str

    def __str__(self) -> str:
        """Return it in short, as ``pwrite64:EIO:7+``."""
        return f"{self.call}:{self.error}:{self.when}"

    def prefix(self) -> list[str]:
        """Return a command that starts another with this fault."""
        inject = f"inject={self.call}:error={self.error}:when={self.when}"
        return [*_strace("/dev/null", [self.call]), "-e", inject]


def tracing(log: Path) -> list[str]:
    """Return a command that starts another and notes its calls in a file."""
    return [*_strace(str(log), FAULTS), "-y"]


def injections(log: Path, folder: Path) -> list[Injection]:
    """Return every fault that a traced command can meet on the files of a folder."""
    counts: Counter[tuple[str, str]] = Counter()
    found: set[tuple[str, int]] = set()
    first = ""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _CALL.match(line)
        if match is None:  # a signal, or the end of a call that another came between
            continue
        thread, call = match.groups()
        first = first or thread
        counts[thread, call] += 1
        if str(folder) in line and (thread == first or call not in _OF_COMMAND):
            found.add((call, counts[thread, call]))
    return [
        Injection(call, error, f"{number}{more}")
        for call, number in sorted(found)
        for error in FAULTS[call][0]
        for more in ("", "+")[: 1 + FAULTS[call][1]]
    ]


def _strace(log: str, calls: Iterable[str]) -> list[str]:
    trace = ",".join(calls)
    return ["strace", "-f", "-qq", "--seccomp-bpf", "-o", log, "-e", f"trace={trace}"]
