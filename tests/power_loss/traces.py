"""What strace(1) saw programs do to the files of a folder, as a list of operations in their order.

``__main__`` traces the workload with it. An operation has the place at which it ended: who was told of it
was told later. Whatever changes a file in a way that is not known here is an error, not a gap.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.power_loss.disks import Kind, Operation

_SYSTEM_CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,"
    "fdatasync,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,"
    "rmdir,sendfile,copy_file_range,splice,sync_file_range"
)
_MOST_BYTES = 1 << 24
_CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_DELETED = "(deleted)"
_HERE = "AT_FDCWD"


def trace(
    command: Sequence[str], log: Path, *, env: Mapping[str, str], deadline_seconds: float
) -> None:
    """Run a command, and all that it starts, and write down what it does to files.

    Raises:
        RuntimeError: It failed.
    """
    strace = ["strace", "-f", "-y", "-xx", "--seccomp-bpf", f"--string-limit={_MOST_BYTES}"]
    options = [f"--output={log}", f"--trace={_SYSTEM_CALLS}"]
    done = subprocess.run(
        [*strace, *options, *command],
        env=dict(env),
        check=False,
        capture_output=True,
        text=True,
        timeout=deadline_seconds,
    )
    if done.returncode:
        raise RuntimeError(f"the workload ended with {done.returncode}: {done.stderr[-2000:]}")


def operations(log: Path, disk: Path, notes: Path) -> list[Operation]:
    """Return what was done in one folder, and what was written to the file of notes.

    Raises:
        ValueError: Something was done that cannot be replayed.
    """
    reader = _Reader(disk, notes)
    with log.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            reader.read(line.rstrip("\n"))
    return reader.operations


class _Reader:
    """Reads a log line by line; what threads and processes do at once stands in parts in it."""

    def __init__(self, disk: Path, notes: Path) -> None:
        self.operations: list[Operation] = []
        self._disk, self._notes = f"{disk}/", str(notes)
        # What must stand in a line that matters: strace writes all texts as hexadecimal digits.
        self._marks = [_hexadecimal(f"{disk}"), _hexadecimal(self._notes)]
        self._begun: dict[str, tuple[str, int]] = {}
        # What is there, and where the next write(2) to each file goes.
        self._files: set[str] = set()
        self._positions: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def read(self, line: str) -> None:
        """Take the next line."""
        begun_at = len(self.operations)
        if line.endswith(_UNFINISHED):
            process = line.partition(" ")[0]
            self._begun[process] = line.removesuffix(_UNFINISHED), begun_at
            return
        resumed = _RESUMED.match(line)
        if resumed is not None:
            first, begun_at = self._begun.pop(resumed[1])
            line = first + resumed[2]
        if any(mark in line for mark in self._marks):
            call = _CALL.match(line)
            if call is not None and not call[4].startswith("-"):
                self._take(call[2], call[3].split(", "), int(call[4]), begun_at)

    def _take(self, call: str, arguments: list[str], result: int, begun_at: int) -> None:
        if call in ("fsync", "fdatasync"):
            path = self._inside(_descriptor(arguments[0]))
            if path is not None:
                self._add(Operation(Kind.SYNC, path, offset=begun_at))
        elif call in ("write", "pwrite64", "ftruncate"):
            self._change(call, arguments, result)
        elif call == "openat":
            self._open(_joined(*arguments[:2]), arguments[2])
        elif call in ("mkdir", "mkdirat"):
            self._name(Kind.MKDIR, _joined(*arguments[:-1]))
        elif call in ("unlink", "unlinkat", "rmdir"):
            self._name(Kind.REMOVE, _joined(*arguments[: 2 if call == "unlinkat" else 1]))
        elif call in ("rename", "renameat", "renameat2", "link", "linkat"):
            self._rename(call, arguments)
        else:
            raise ValueError(f"cannot replay {call}: {_shown(arguments)}")

    def _change(self, call: str, arguments: list[str], result: int) -> None:
        path = _descriptor(arguments[0])
        if path == self._notes:
            self._add(Operation(Kind.NOTE, "", data=_bytes(arguments[1])[:result]))
        inside = self._inside(path)
        if inside is None:
            return
        if call == "ftruncate":
            size = int(arguments[1])
            self._sizes[inside] = size
            self._add(Operation(Kind.TRUNCATE, inside, offset=size))
            return
        at_end = self._sizes.get(inside, 0)
        if call == "pwrite64":
            offset = int(arguments[3])
        else:
            offset = self._positions.get(inside, at_end)
            if inside in self._positions:
                self._positions[inside] = offset + result
        self._sizes[inside] = max(at_end, offset + result)
        data = _bytes(arguments[1])[:result]
        if len(data) < result:
            raise ValueError(f"the log has not all of what was written to {path}")
        self._add(Operation(Kind.WRITE, inside, offset=offset, data=data))

    def _open(self, path: str, flags: str) -> None:
        inside = self._inside(path)
        if inside is None or not ("O_WRONLY" in flags or "O_RDWR" in flags):
            return
        if "O_TMPFILE" in flags:
            raise ValueError(f"cannot replay a file without a name in {path}")
        if inside not in self._files:
            self._files.add(inside)
            self._sizes[inside] = 0
            self._add(Operation(Kind.CREATE, inside))
        elif "O_TRUNC" in flags:
            self._sizes[inside] = 0
            self._add(Operation(Kind.TRUNCATE, inside))
        self._positions.pop(inside, None)
        if "O_APPEND" not in flags:
            self._positions[inside] = 0

    def _name(self, kind: Kind, path: str) -> None:
        inside = self._inside(path)
        if inside is not None:
            self._files.discard(inside)
            self._add(Operation(kind, inside))

    def _rename(self, call: str, arguments: list[str]) -> None:
        size = 2 if call.endswith(("at", "at2")) else 1  # of them, with a folder before the path
        pairs = arguments[:size], arguments[size : 2 * size]
        source, target = (self._inside(_joined(*pair)) for pair in pairs)
        if source is None or target is None:
            raise ValueError(f"cannot replay {call} across the disk's border: {_shown(arguments)}")
        for known in (self._positions, self._sizes):
            if source in known:
                known[target] = known[source]
        if source in self._files:
            self._files.add(target)
        is_rename = call.startswith("rename")
        if is_rename:
            self._files.discard(source)
        kind = Kind.RENAME if is_rename else Kind.LINK
        self._add(Operation(kind, source, target=target))

    def _add(self, operation: Operation) -> None:
        self.operations.append(operation)

    def _inside(self, path: str | None) -> str | None:
        """Return a path relative to the disk; None where it is elsewhere, or has no name any more."""
        if path is None or not f"{path}/".startswith(self._disk):
            return None
        return path[len(self._disk) :] or "."


def _hexadecimal(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.strip('"').replace("\\x", ""))


def _descriptor(argument: str) -> str | None:
    """Return the path of an open file; None where that was removed, which a power cut does, too."""
    _, _, path = argument.partition("<")
    return None if argument.endswith(_DELETED) else _bytes(path.rstrip(">")).decode()


def _joined(*arguments: str) -> str:
    """Return the path that one argument is, or that is relative to a folder before it."""
    path = _bytes(arguments[-1]).decode()
    if len(arguments) == 1 or path.startswith("/"):
        return path
    folder = _descriptor(arguments[0].removeprefix(_HERE)) or ""
    return f"{folder}/{path}"


def _shown(arguments: Sequence[str]) -> str:
    return ", ".join(argument[:80] for argument in arguments)
