"""Names and ids in the file of the SQLite registry.

The scheme ``sqlite``. It reads the tables of ``registry/migrations/`` by a connection of its own, which
can do nothing but read; only where a log has lost its index does SQLite make that anew. Where the file
is another version's, what both have is found.
"""

from __future__ import annotations

import os
import sqlite3  # noqa: TID251 - it reads what the SQLite registry writes
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from prefectlite.suggestions import MOST, Deployment, Run, Suggestions, Which

_PREFIX = "sqlite:///"
_APPLICATION_ID = 0x70666C74
# Who recovers a log locks readers out for a moment; a person at a prompt would rather have nothing.
_WAIT_SECONDS = 0.05
# Each with the words of flow_run_unfinished, or SQLite would not use that index.
_UNFINISHED = "state_type NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')"
_WHICH = {
    Which.ALL: "TRUE",
    Which.UNFINISHED: _UNFINISHED,
    Which.RUNNING: f"state_type = 'RUNNING' AND {_UNFINISHED}",
    Which.PAUSED: f"state_type = 'PAUSED' AND {_UNFINISHED}",
    Which.FINAL: "state_type IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')",
}
# How many of the newest task runs are searched for a name, and flow runs for a tag: nothing indexes
# these, and there may be millions.
_SEARCHED = 2_000
# "g" is the first character after those of an id, and the last of Unicode ends every name's range.
_BEGINS = "(name >= :text AND name < :text || char(1114111)) OR (id >= :id AND id < :id || 'g')"
_FLOW_RUNS = """
    SELECT id, name, state_name, flow_name, created_at,
        (SELECT count(*) FROM (SELECT 1 FROM flow_run AS other WHERE other.name = run.name LIMIT 2)) = 1
    FROM flow_run AS run WHERE {} ORDER BY {} DESC LIMIT :most
"""
_TASK_RUNS = """
    SELECT run.id, run.name, run.state_name, flow_run.name, run.created_at,
        (SELECT count(*) FROM newest AS other WHERE other.name = run.name) = 1
    FROM newest AS run JOIN flow_run ON flow_run.seq = flow_run_seq
    WHERE :text = '' OR substr(run.name, 1, length(:text)) = :text LIMIT :most
"""
_NEWEST_TASK_RUNS = f"""
    WITH newest AS MATERIALIZED (SELECT * FROM task_run ORDER BY seq DESC LIMIT {_SEARCHED}) {_TASK_RUNS}
"""  # noqa: S608 - literals only, no value
_TASK_RUNS_BY_ID = """
    SELECT run.id, run.name, run.state_name, flow_run.name, run.created_at, FALSE
    FROM task_run AS run JOIN flow_run ON flow_run.seq = flow_run_seq
    WHERE run.id >= :id AND run.id < :id || 'g' ORDER BY run.seq DESC LIMIT :most
"""
_INPUT_SCHEMAS = f"""
    SELECT input_schema FROM flow_run
    JOIN pause ON flow_run_seq = seq AND pause.state_version = flow_run.state_version
    WHERE input_schema IS NOT NULL AND state_type = 'PAUSED' AND {_UNFINISHED}
    AND (name = :text OR (id >= :id AND id < :id || 'g')) LIMIT 10
"""  # noqa: S608 - literals only, no value
# From one name to the next in the index: there are a hundred thousand runs, and few flows.
_FLOW_NAMES = """
    WITH RECURSIVE flow (name) AS (
        SELECT min(flow_name) FROM flow_run
        UNION ALL
        SELECT (SELECT min(flow_name) FROM flow_run WHERE flow_name > flow.name)
        FROM flow WHERE flow.name IS NOT NULL
    )
    SELECT name FROM flow WHERE name IS NOT NULL
    UNION SELECT flow_name FROM deployment ORDER BY 1 LIMIT 500
"""
_TAGS = f"""
    SELECT value FROM (SELECT tags FROM flow_run ORDER BY seq DESC LIMIT {_SEARCHED}), json_each(tags)
    UNION SELECT value FROM deployment, json_each(tags) ORDER BY 1 LIMIT 500
"""  # noqa: S608 - literals only, no value
_DEPLOYMENTS = """
    SELECT id, flow_name, name, work_queue, entrypoint, working_directory, parameters
    FROM deployment ORDER BY flow_name, name LIMIT 500
"""


class SQLiteSuggestions(Suggestions):
    """The methods are described where ``Suggestions`` declares them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def flow_runs(self, text: str, which: Sequence[Which], *, most: int = MOST) -> list[Run]:  # noqa: D102 - see the interface
        found: list[Run] = []
        for kind in which:
            rows = self._rows(_flow_runs_sql(kind, text), text, most - len(found))
            found += [Run(*row) for row in rows]
        return found

    def task_runs(self, text: str, *, most: int = MOST) -> list[Run]:  # noqa: D102 - see the interface
        found = [Run(*row) for row in self._rows(_TASK_RUNS_BY_ID, text, most)] if text else []
        known = {run.id for run in found}
        newest = [Run(*row) for row in self._rows(_NEWEST_TASK_RUNS, text, most)]
        return [*found, *(run for run in newest if run.id not in known)][:most]

    def input_schemas(self, reference: str) -> list[str]:  # noqa: D102 - see the interface
        return [schema for (schema,) in self._rows(_INPUT_SCHEMAS, reference)]

    def flow_names(self) -> list[str]:  # noqa: D102 - see the interface
        return [name for (name,) in self._rows(_FLOW_NAMES)]

    def tags(self) -> list[str]:  # noqa: D102 - see the interface
        return [tag for (tag,) in self._rows(_TAGS)]

    def deployments(self) -> list[Deployment]:  # noqa: D102 - see the interface
        return [Deployment(*row) for row in self._rows(_DEPLOYMENTS)]

    def work_queues(self) -> list[tuple[str, bool]]:  # noqa: D102 - see the interface
        sql = "SELECT name, is_paused FROM work_queue ORDER BY priority, name LIMIT 500"
        return [(name, bool(is_paused)) for name, is_paused in self._rows(sql)]

    def agent_names(self) -> list[str]:  # noqa: D102 - see the interface
        return [name for (name,) in self._rows("SELECT DISTINCT name FROM agent ORDER BY 1")]

    def blocks(self) -> list[tuple[str, str]]:  # noqa: D102 - see the interface
        return self._rows("SELECT type, name FROM block_document ORDER BY 1, 2 LIMIT 500")

    def block_types(self) -> list[tuple[str, str]]:  # noqa: D102 - see the interface
        return self._rows("SELECT type, entrypoint FROM block_type ORDER BY 1 LIMIT 500")

    def rules(self) -> list[tuple[str, str, bool]]:  # noqa: D102 - see the interface
        sql = "SELECT id, block, is_active FROM notification_rule ORDER BY seq LIMIT 500"
        return [(id_, block, bool(is_active)) for id_, block, is_active in self._rows(sql)]

    def _rows(self, sql: str, text: str = "", most: int = MOST) -> list[Any]:
        connection = self._connection
        if connection is None:
            return []
        try:
            return connection.execute(
                sql, {"text": text, "id": text.lower(), "most": most}
            ).fetchall()
        except (sqlite3.Error, ValueError):  # the second: a text that is not UTF-8
            return []

    @cached_property
    def _connection(self) -> sqlite3.Connection | None:
        """A connection that reads what is there; None where that is no registry, or not yet one."""
        log = self._path.with_name(f"{self._path.name}-wal")
        try:
            # Without a log the file is the whole truth, and SQLite would make an index beside it.
            mode = "ro" if log.stat().st_size else "ro&immutable=1"
        except OSError:
            mode = "ro&immutable=1"
        path = str(self._path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        try:
            connection = sqlite3.connect(
                f"file:{path}?mode={mode}", uri=True, isolation_level=None, timeout=_WAIT_SECONDS
            )
            ((application,),) = connection.execute("PRAGMA application_id").fetchall()
        except (sqlite3.Error, ValueError):
            return None
        return connection if application == _APPLICATION_ID else None


def _flow_runs_sql(which: Which, text: str) -> str:
    where = f"({_WHICH[which]})"
    if text:
        where = f"{where} AND ({_BEGINS})"
    # Most runs have ended: of those that have, the newest are soon found. For the rest SQLite is to use
    # the index of what is sought, and not that of the order, which the plus takes away.
    has_many = which in {Which.ALL, Which.FINAL} and not text
    return _FLOW_RUNS.format(where, "run.seq" if has_many else "+run.seq")


def open_suggestions(url: str) -> SQLiteSuggestions:
    """Return what is on record in a file; see ``suggestions.open_suggestions``."""
    # Where the file is behind a symbolic link, so is its log. resolve() raises errors for a loop.
    return SQLiteSuggestions(Path(os.path.realpath(url.removeprefix(_PREFIX))))
