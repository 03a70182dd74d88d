"""What SQLite keeps of blocks: their fields, which files have their secrets, and their types.

``registry_parts.BlockRegistry`` describes the methods; see ``deployment_tables``. Nothing here commits by
itself, and no secret comes here.
"""

from __future__ import annotations

import json
import sqlite3  # noqa: TID251 - a part of the SQLite registry
from collections.abc import Sequence

from prefectlite.block_records import BlockDocument, BlockType, NestedBlock, SecretPlace
from prefectlite.clock import from_microseconds, to_microseconds
from prefectlite.conditions import Where
from prefectlite.errors import ConflictError, NotFoundError
from prefectlite.names import near_names
from prefectlite.registry_parts import BlockRegistry
from prefectlite.rows import Row, Values, storable
from prefectlite.tables import Tables

_COLUMNS = "id, type, name, fields, secrets, blocks, secrets_file, created_at, updated_at"
_SELECT = f"SELECT {_COLUMNS} FROM block_document "  # noqa: S608 - literals only, no value
_KEPT = ("id", "type", "name", "created_at")
_INSERT = f"""
    INSERT INTO block_document ({_COLUMNS}) VALUES ({", ".join("?" * 9)})
    ON CONFLICT (type, name) DO """  # noqa: S608 - literals only, no value
_REPLACE = "UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in _COLUMNS.split(", ") if name not in _KEPT
)
_DELETE = "DELETE FROM block_document WHERE type = ? AND name = ?"
_SELECT_UNUSED_FILES = """
    SELECT name FROM secrets_file
    WHERE name NOT IN (SELECT secrets_file FROM block_document WHERE secrets_file IS NOT NULL)
"""
_SAVE_TYPE = """
    INSERT INTO block_type (type, entrypoint, registered_at) VALUES (?, ?, ?)
    ON CONFLICT (type) DO UPDATE SET
    entrypoint = excluded.entrypoint, registered_at = excluded.registered_at
"""


class BlockTables(Tables, BlockRegistry):
    """The methods of ``registry_parts.BlockRegistry``, which describes them."""

    def save_block(self, document: BlockDocument, *, overwrite: bool) -> BlockDocument:  # noqa: D102 - see the interface
        row = _values(document)
        sql = _INSERT + (_REPLACE if overwrite else "NOTHING")

        def save(connection: sqlite3.Connection) -> BlockDocument:
            if connection.execute(sql, row).rowcount < 1:
                raise ConflictError(
                    f"there is a block {document.full_name!r} already",
                    hint="replace it with overwrite=True, or with --overwrite",
                )
            rows = connection.execute(_SELECT + "WHERE type = ? AND name = ?", row[1:3]).fetchall()
            return _document(rows[0])

        return self._write(save, durable=True)

    def find_block(self, type_: str, name: str) -> BlockDocument:  # noqa: D102 - see the interface
        values = (storable(type_), storable(name))
        found = self._read(_document, _SELECT + "WHERE type = ? AND name = ?", values)
        if not found:
            raise _missing(type_, name, [one.name for one in self.list_blocks(type_)])
        return found[0]

    def list_blocks(self, type_: str | None = None) -> list[BlockDocument]:  # noqa: D102 - see the interface
        where = Where()
        if type_ is not None:
            where.add_any("type", [type_])
        sql = f"{_SELECT} {where} ORDER BY type, name LIMIT ?"
        return self._read(_document, sql, where.values(None))

    def delete_block(self, type_: str, name: str) -> None:  # noqa: D102 - see the interface
        def delete(connection: sqlite3.Connection) -> None:
            if connection.execute(_DELETE, (storable(type_), storable(name))).rowcount < 1:
                raise _missing(type_, name)

        self._write(delete, durable=True)

    def list_secrets_file(self, name: str) -> None:  # noqa: D102 - see the interface
        sql = "INSERT INTO secrets_file (name) VALUES (?)"
        self._write(lambda connection: connection.execute(sql, (name,)), durable=True)

    def unlist_secrets_file(self, name: str) -> None:  # noqa: D102 - see the interface
        sql = "DELETE FROM secrets_file WHERE name = ?"
        self._write(lambda connection: connection.execute(sql, (name,)), durable=False)

    def unused_secrets_files(self) -> list[str]:  # noqa: D102 - see the interface
        return self._read(lambda row: str(row[0]), _SELECT_UNUSED_FILES, ())

    def save_block_types(self, types: Sequence[BlockType]) -> None:  # noqa: D102 - see the interface
        rows = [
            (storable(one.type), storable(one.entrypoint), to_microseconds(one.registered_at))
            for one in types
        ]
        self._write(lambda connection: connection.executemany(_SAVE_TYPE, rows), durable=True)

    def list_block_types(self) -> list[BlockType]:  # noqa: D102 - see the interface
        sql = "SELECT type, entrypoint, registered_at FROM block_type ORDER BY type"
        return self._read(lambda row: BlockType(row[0], row[1], from_microseconds(row[2])), sql, ())


def _missing(type_: str, name: str, known: Sequence[str] = ()) -> NotFoundError:
    near = [f"{type_}/{one}" for one in near_names(name, known)]
    hint = f"did you mean {' or '.join(near)}?" if near else "see: prefectlite block ls"
    return NotFoundError(f"there is no block '{type_}/{name}'", hint=hint)


def _values(document: BlockDocument) -> Values:
    return (
        document.id,
        storable(document.type),
        storable(document.name),
        json.dumps({**document.fields}),
        json.dumps([[one.place, one.kind] for one in document.secrets]),
        json.dumps([[one.place, one.type, one.name] for one in document.blocks]),
        document.secrets_file,
        to_microseconds(document.created_at),
        to_microseconds(document.updated_at),
    )


def _document(row: Row) -> BlockDocument:
    return BlockDocument(
        id=row[0],
        type=row[1],
        name=row[2],
        fields=json.loads(row[3]),
        secrets=tuple(SecretPlace(tuple(place), kind) for place, kind in json.loads(row[4])),
        blocks=tuple(
            NestedBlock(tuple(place), type_, name) for place, type_, name in json.loads(row[5])
        ),
        secrets_file=row[6],
        created_at=from_microseconds(row[7]),
        updated_at=from_microseconds(row[8]),
    )
