"""What can be wrong with a registry in a SQLite file: damage, and rows that contradict each other.

``upkeep_tables`` asks. It only reads, and works while others write. What is found here no command of
prefectlite makes: a disk did, another program, or a fault of ours.
"""

from __future__ import annotations

import sqlite3  # noqa: TID251 - a part of the SQLite registry

from prefectlite.states import FINAL, StateType
from prefectlite.upkeep_records import Fault

# A damaged file has thousands, which say no more.
_MOST = 10
_RESTORE = (
    "stop what uses it and restore a backup; without one: sqlite3 FILE .recover | sqlite3 NEW_FILE"
)
_REINDEX = "stop what uses it, then: sqlite3 FILE REINDEX"
_DELETE = (
    "keep a backup for a report of this fault; to be rid of it: prefectlite flow-run delete ID"
)
_TYPES = ", ".join(f"'{type_}'" for type_ in StateType)
_FINAL = ", ".join(f"'{type_}'" for type_ in sorted(FINAL))
# How many runs of a table are so, and the id of one.
_CONTRADICTIONS = {
    "are in a state that there is not": f"state_type NOT IN ({_TYPES})",
    "have ended and do not say when, or the other way round": (
        f"(state_type IN ({_FINAL})) <> (ended_at IS NOT NULL)"
    ),
    "lack a part of their history": (
        "state_version - 1 <> (SELECT count(*) FROM {table}_state WHERE {table}_seq = seq)"
    ),
    "had ended before their last state": (
        f"EXISTS (SELECT 1 FROM {{table}}_state WHERE {{table}}_seq = seq AND type IN ({_FINAL}))"  # noqa: S608 - literals only, no value
    ),
}


def found_faults(connection: sqlite3.Connection, *, is_quick: bool, is_newest: bool) -> list[Fault]:
    """Return what is wrong; where the file is damaged, that alone.

    Args:
        is_quick: Look for damage only, and not at what the indexes say.
        is_newest: Whether the tables are those of the newest schema.
    """
    damage = _damage(connection, "quick_check" if is_quick else "integrity_check")
    if damage or is_quick or not is_newest:
        return damage
    return [*_strays(connection), *_contradictions(connection)]


def _damage(connection: sqlite3.Connection, check: str) -> list[Fault]:
    try:
        rows = connection.execute(f"PRAGMA {check}({_MOST})").fetchall()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        rows = [(str(error),)]
    # It begins with a line that says which database it is about.
    found = [line for (text,) in rows for line in text.splitlines() if not line.startswith("***")]
    is_index = all(" index " in line for line in found)
    hint = _REINDEX if is_index else _RESTORE
    return [Fault(f"the file is damaged: {line}", hint) for line in found if line != "ok"]


def _strays(connection: sqlite3.Connection) -> list[Fault]:
    counts: dict[str, int] = {}
    for table, *_ in connection.execute("PRAGMA foreign_key_check"):
        counts[table] = counts.get(table, 0) + 1
    return [
        Fault(f"{count} rows of {table} belong to something that is not on record", _RESTORE)
        for table, count in counts.items()
    ]


def _contradictions(connection: sqlite3.Connection) -> list[Fault]:
    faults = []
    for table in ("flow_run", "task_run"):
        for told, condition in _CONTRADICTIONS.items():
            sql = f"SELECT count(*), min(id) FROM {table} WHERE {condition.format(table=table)}"  # noqa: S608 - literals only, no value
            ((count, id_),) = connection.execute(sql).fetchall()
            if count:
                noun = table.replace("_", " ")
                faults.append(Fault(f"{count} {noun}s {told}, such as {id_}", _DELETE))
    return faults
