"""Statements of the SQLite registry that reach over a flow run and all that is below it.

``registry/sqlite.py`` alone uses them. Nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Iterable

from prefectlite.clock import to_microseconds
from prefectlite.conditions import Where
from prefectlite.records import LogQuery
from prefectlite.rows import FLOW_RUN_COLUMNS, Row, storable

_TREE = """
    WITH RECURSIVE tree (seq, id) AS (
        SELECT seq, id FROM flow_run WHERE id = ?
        UNION SELECT child.seq, child.id FROM tree
            JOIN flow_run AS child ON child.parent_flow_run_id = tree.id
    )
"""
_IN_TREE = f"IN ({_TREE} SELECT seq FROM tree)"  # noqa: S608 - literals only, no value
_IS_RUN = "= (SELECT seq FROM flow_run WHERE id = ?)"
#: Takes the id of a flow run; the columns are those of ``rows.flow_run_from``.
LIST_RUN_TREE = f"SELECT {FLOW_RUN_COLUMNS} FROM flow_run WHERE seq {_IN_TREE} ORDER BY seq"  # noqa: S608 - literals only, no value
#: Takes the id of a flow run; the columns are those of ``rows.task_count_from``.
COUNT_TASKS = f"""
    {_TREE}
    SELECT tree.id, task_name, state_type, state_name, count(*) FROM tree
    JOIN task_run ON flow_run_seq = tree.seq
    GROUP BY tree.seq, task_name, state_name ORDER BY tree.seq, min(task_run.seq)
"""  # noqa: S608 - literals only, no value
# "g" is the first character after those of an id, so this is its every prefix.
_IS_OF_TASK = """
    EXISTS (
        SELECT 1 FROM task_run
        WHERE id = task_run_id AND (task_name = ? OR name = ? OR (id >= ? AND id < ? || 'g'))
    )
"""


def newest_line_query(*, with_subflows: bool) -> str:
    """Return a SELECT of the greatest position of a log line; it takes the id of a flow run."""
    runs = _IN_TREE if with_subflows else _IS_RUN
    position = "(SELECT max(seq) FROM log WHERE flow_run_seq = flow_run.seq)"  # by its index
    return f"SELECT max({position}) FROM flow_run WHERE seq {runs}"  # noqa: S608 - literals only, no value


def first_rows(cursor: Iterable[Row], characters: int) -> list[Row]:
    """Return the first rows of what ``log_query`` selects, until their messages have so many."""
    rows = []
    for row in cursor:
        rows.append(row)
        characters -= len(row[3])
        if characters <= 0:
            break
    return rows


def log_query(flow_run_id: str, query: LogQuery) -> tuple[str, list[object]]:
    """Return a SELECT of log lines and its values; the columns are those of ``rows.log_line_from``."""
    where = Where()
    with_subflows = query.get("with_subflows", False)
    where.add(f"flow_run_seq {_IN_TREE if with_subflows else _IS_RUN}", flow_run_id)
    where.add("seq > ?", query.get("after", 0))
    if "task_run_id" in query:
        where.add("task_run_id = ?", query["task_run_id"])
    if query.get("tasks"):
        words = query["tasks"]
        where.add(
            f"({' OR '.join([_IS_OF_TASK] * len(words))})",
            *(text for word in words for text in (word, word, word.lower(), word.lower())),
        )
    if "least_level" in query:
        where.add("level >= ?", query["least_level"])
    if "since" in query:
        where.add("at >= ?", to_microseconds(query["since"]))
    id_ = "(SELECT id FROM flow_run WHERE seq = flow_run_seq)" if with_subflows else "?"
    sql = f"SELECT task_run_id, level, logger, message, at, {id_}, seq FROM log {where}"  # noqa: S608 - literals only, no value
    if query.get("is_last"):
        sql = f"SELECT * FROM ({sql} ORDER BY seq DESC LIMIT ?)"  # noqa: S608 - literals only, no value
        order = "ORDER BY seq"
    else:
        order = "ORDER BY seq LIMIT ?"
    values = where.values(query.get("limit"))
    return f"{sql} {order}", values if with_subflows else [storable(flow_run_id), *values]
