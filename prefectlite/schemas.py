"""The schema of a SQLite file: whether the file is ours, which version it has, how it gets the newest.

``database`` calls this when it opens a file. Nothing here knows a table, or takes the write gate: who
migrates holds it.
"""

from __future__ import annotations

import sqlite3  # noqa: TID251 - a part of the SQLite registry
from pathlib import Path

from prefectlite.errors import RegistryCorruptError, RegistryNewerError

#: Marks the file as ours in its header ("pflt"); see ``PRAGMA application_id``.
APPLICATION_ID = 0x70666C74


class Schema:
    """The schema that a file is to have.

    Attributes:
        migrations: The folder of ``0001_*.sql``, ``0002_*.sql`` ...; each is one transaction.
        version: The number of the last of them.
    """

    def __init__(self, path: Path, migrations: Path, version: int) -> None:
        self.migrations = migrations
        self.version = version
        self._path = path

    def version_of(self, connection: sqlite3.Connection) -> int:
        """Return the version that the file has, which must be a registry or empty.

        Raises:
            RegistryCorruptError: It is a database of another program.
            RegistryNewerError: It has a version that is not known here.
        """
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ((application,),) = connection.execute("PRAGMA application_id").fetchall()
        if application != APPLICATION_ID:
            ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            if application or tables:
                raise RegistryCorruptError(
                    f"{self._path} is a database of another program",
                    hint="set PREFECTLITE_HOME to another folder",
                )
        if version > self.version:
            raise RegistryNewerError(
                f"the registry {self._path} has schema {version}; this version of prefectlite"
                f" knows {self.version}",
                hint="upgrade it: pip install --upgrade prefectlite",
            )
        return int(version)

    def migrate(self, connection: sqlite3.Connection, version: int) -> None:
        """Bring a file from this version to the newest, one transaction a step."""
        if version == self.version:
            return
        for script in sorted(self.migrations.glob("*.sql")):
            number = int(script.name[:4])
            if number > version:
                connection.executescript(
                    f"BEGIN IMMEDIATE;\n{script.read_text(encoding='utf-8')}\n"
                    f"PRAGMA application_id={APPLICATION_ID};\n"
                    f"PRAGMA user_version={number};\nCOMMIT;"
                )
