"""A disk that loses power: what is left of files and folders of which not all was synced.

``audits`` looks at what ``Folder.write_remains`` makes; ``__main__`` replays operations with ``Disk``. A
power cut leaves all that an fsync(2) had returned for, and of each later operation all, nothing or some
sectors, whatever became of those before and after it. No entry of a folder is durable before the folder
itself was synced, as fsync(2) warns; what a file has is durable whether or not it has a name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath

# A disk writes a sector whole or not at all, and a filesystem a page.
_UNITS_BYTES = (512, 4096)
#: With which chance an operation that was not synced is kept; a file, or a folder, draws one for all of
#: its own, so that one may be as new as can be and its neighbour as old.
KEPT = (0.0, 0.0, 0.1, 0.5, 0.9, 1.0, 1.0)
_SIZE_LOST, _RUBBISH = 0.3, 0.3
# Likewise, with which chance a write that is kept is torn, and then each sector of it.
_TORN = (0.0, 0.0, 0.1, 1.0)
_SECTOR_KEPT = 0.5
#: The entries of a folder of which SQLite's memory is kept: it is mapped, and made anew at each start.
VOLATILE = "-shm"


class Kind(StrEnum):
    """What an operation does."""

    CREATE = "create"
    MKDIR = "mkdir"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    RENAME = "rename"
    LINK = "link"
    REMOVE = "remove"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of the disk, or a note of what a program knows at that moment.

    Attributes:
        kind: What it does.
        path: To what, relative to the disk; of a note nothing.
        target: The new name of what is renamed or linked.
        offset: Where a write begins; the size after a truncation; the number of the first operation
            that had not ended when a sync began, which it need not cover.
        data: What is written, or noted.
    """

    kind: Kind
    path: str
    target: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass(slots=True)
class _Change:
    """What one operation does to a file: bytes at a place, or, where these are None, another size."""

    number: int
    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
        else:
            content.extend(bytes(max(0, self.offset - len(content))))
            content[self.offset : self.offset + len(self.data)] = self.data

    def pieces(self, unit: int) -> Iterator[_Change]:
        """Yield what of a write falls into each sector."""
        data, start = self.data or b"", self.offset
        end = start + len(data)
        while start < end:
            stop = min(end, (start // unit + 1) * unit)
            yield _Change(self.number, start, data[start - self.offset : stop - self.offset])
            start = stop


class File:
    """A file: what is durable, what programs see, and the changes between the two."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._durable = bytearray()
        self._changes: list[_Change] = []

    def change(self, number: int, offset: int, data: bytes | None) -> None:
        """Write, or change the size."""
        change = _Change(number, offset, data)
        change.apply(self.content)
        self._changes.append(change)

    def sync(self, before: int) -> None:
        """Make durable what operations with a smaller number did."""
        for change in self._changes:
            if change.number < before:
                change.apply(self._durable)
        self._changes = [change for change in self._changes if change.number >= before]

    def remains(self, chance: random.Random, kept: Sequence[float] = KEPT) -> bytes:
        """Return what may be in it after a power cut.

        Args:
            chance: Decides it.
            kept: The chances of what was not synced, of which one is drawn.
        """
        if not self._changes:
            return bytes(self._durable)
        sizes = [len(self._durable)]
        for change in self._changes:
            end = change.offset + len(change.data or b"")
            sizes.append(end if change.data is None else max(sizes[-1], end))
        content = bytearray(self._durable)
        lost_bytes = max(0, max(sizes) - len(content))
        content += chance.randbytes(lost_bytes) if chance.random() < _RUBBISH else bytes(lost_bytes)
        share, torn = chance.choice(kept), chance.choice(_TORN)
        for change in self._changes:
            if chance.random() < share:
                if change.data is None or chance.random() >= torn:
                    change.apply(content)
                else:
                    _apply_some(change, content, chance)
        size = chance.choice(sizes) if chance.random() < _SIZE_LOST else sizes[-1]
        return bytes(content[:size])


def _apply_some(change: _Change, content: bytearray, chance: random.Random) -> None:
    for piece in change.pieces(chance.choice(_UNITS_BYTES)):
        if chance.random() < _SECTOR_KEPT:
            piece.apply(content)


@dataclass(slots=True)
class Folder:
    """A folder: its entries as programs see them, those that are durable, and the changes between."""

    entries: dict[str, File | Folder] = field(default_factory=dict)
    _durable: dict[str, File | Folder] = field(default_factory=dict)
    _changes: list[tuple[int, dict[str, File | Folder | None]]] = field(default_factory=list)

    def change(self, number: int, entries: dict[str, File | Folder | None]) -> None:
        """Have names mean something else, all at once; None for nothing."""
        _rename(self.entries, entries)
        self._changes.append((number, entries))

    def sync(self, before: int) -> None:
        """Make durable what operations with a smaller number did."""
        for number, entries in self._changes:
            if number < before:
                _rename(self._durable, entries)
        self._changes = [change for change in self._changes if change[0] >= before]

    def write_remains(
        self, path: Path, chance: random.Random, kept: Sequence[float] = KEPT
    ) -> None:
        """Make, in a folder that is empty, what may be in this one after a power cut.

        Args:
            path: That folder.
            chance: As for a file's.
            kept: As for a file's.
        """
        share = chance.choice(kept)
        entries = dict(self._durable)
        for _, names in self._changes:
            if chance.random() < share:
                _rename(entries, names)
        for name, node in entries.items():
            if isinstance(node, File):
                (path / name).write_bytes(node.remains(chance, kept))
                (path / name).chmod(0o600)
            else:
                (path / name).mkdir(mode=0o700)
                node.write_remains(path / name, chance, kept)

    def differences(self, path: Path) -> Iterator[str]:
        """Yield what programs see in a real folder and not here, or the other way round."""
        names = {entry.name for entry in path.iterdir()}
        for name in sorted(names ^ self.entries.keys()):
            yield f"{path / name} is only {'in the replay' if name in self.entries else 'real'}"
        for name in sorted(names & self.entries.keys()):
            node = self.entries[name]
            if isinstance(node, Folder):
                yield from node.differences(path / name)
            elif not name.endswith(VOLATILE) and (path / name).read_bytes() != node.content:
                yield f"{path / name} differs from its replay"


def _rename(entries: dict[str, File | Folder], changes: dict[str, File | Folder | None]) -> None:
    for name, node in changes.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class Disk:
    """What operations make of a disk that was empty, and synced, before the first."""

    def __init__(self) -> None:
        self.root = Folder()
        self._number = 0

    def apply(self, operation: Operation) -> None:
        """Replay the next operation."""
        number, self._number = self._number, self._number + 1
        match operation.kind:
            case Kind.NOTE:
                pass
            case Kind.SYNC:
                self._found(operation.path).sync(operation.offset)
            case Kind.WRITE | Kind.TRUNCATE:
                data = operation.data if operation.kind is Kind.WRITE else None
                self._file(operation.path).change(number, operation.offset, data)
            case _:
                self._change_names(number, operation)

    def _change_names(self, number: int, operation: Operation) -> None:
        folder, name = self._place(operation.path)
        if operation.kind is Kind.CREATE:
            folder.change(number, {name: File()})
        elif operation.kind is Kind.MKDIR:
            folder.change(number, {name: Folder()})
        elif operation.kind is Kind.REMOVE:
            folder.change(number, {name: None})
        else:
            other, target = self._place(operation.target)
            names: dict[str, File | Folder | None] = {target: folder.entries[name]}
            if operation.kind is Kind.RENAME and other is folder:
                names[name] = None
            other.change(number, names)
            if operation.kind is Kind.RENAME and other is not folder:
                folder.change(number, {name: None})

    def _place(self, path: str) -> tuple[Folder, str]:
        parent = self._found(str(PurePosixPath(path).parent))
        if not isinstance(parent, Folder):
            raise TypeError(f"{path} is in a file")
        return parent, PurePosixPath(path).name

    def _file(self, path: str) -> File:
        found = self._found(path)
        if not isinstance(found, File):
            raise TypeError(f"{path} is a folder")
        return found

    def _found(self, path: str) -> File | Folder:
        node: File | Folder = self.root
        for part in PurePosixPath(path).parts:
            if not isinstance(node, Folder):
                raise TypeError(f"{path} is in a file")
            node = node.entries[part]
        return node
