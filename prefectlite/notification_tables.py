"""What SQLite keeps of notification rules, and of what is still to be told.

``registry_parts.NotificationRegistry`` describes the methods; see ``deployment_tables``. Notifications are
written by the triggers of ``migrations/0007_notifications.sql`` alone. Nothing here commits by itself.
"""

from __future__ import annotations

import json
import sqlite3  # noqa: TID251 - a part of the SQLite registry
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from prefectlite.clock import from_microseconds, to_microseconds
from prefectlite.errors import AmbiguousReferenceError, NotFoundError
from prefectlite.notification_records import Notification, NotificationRule
from prefectlite.records import ProcessIdentity
from prefectlite.registry_parts import NotificationRegistry
from prefectlite.rows import (
    FLOW_RUN_COLUMNS,
    Row,
    Values,
    flow_run_from,
    identity_from,
    identity_text,
    maybe_storable,
    state_from,
    storable,
)
from prefectlite.tables import Tables, id_range

_RULE_COLUMNS = "id, states, tags, flow_names, block, template, is_active, created_at"
_OF_RULE = "FROM notification WHERE rule_seq = notification_rule.seq"
_SELECT_RULE = f"""
    SELECT {_RULE_COLUMNS}, delivered_count, delivered_at,
        (SELECT count(due_at) {_OF_RULE}), (SELECT count(*) - count(due_at) {_OF_RULE}),
        (SELECT problem {_OF_RULE} AND problem IS NOT NULL ORDER BY seq DESC LIMIT 1)
    FROM notification_rule
"""  # noqa: S608 - literals only, no value
_INSERT_RULE = f"INSERT INTO notification_rule ({_RULE_COLUMNS}) VALUES ({', '.join('?' * 8)})"  # noqa: S608 - literals only, no value
_OWN_COLUMNS = (
    "notification.seq, notification_rule.id, block, template, attempts, due_at, courier, problem,"
    " notification.state_type, notification.state_name, notification.state_message,"
    " notification.state_at, notification.state_version"
)
_OWN_COUNT = _OWN_COLUMNS.count(",") + 1
_RUN_COLUMNS = ", ".join(f"flow_run.{name}" for name in FLOW_RUN_COLUMNS.split(", "))
_SELECT = f"""
    SELECT {_OWN_COLUMNS}, {_RUN_COLUMNS} FROM notification
    JOIN notification_rule ON notification_rule.seq = rule_seq
    JOIN flow_run ON flow_run.seq = flow_run_seq
"""  # noqa: S608 - literals only, no value
_IS_DUE = "due_at <= ? AND courier IS NULL"
_ANY_DUE = f"SELECT 1 FROM notification WHERE {_IS_DUE} LIMIT 1"  # noqa: S608 - literals only, no value
# In the order of the index: with the other one, SQLite would sort all that is due at each take.
_FIRST_DUE = f"SELECT seq FROM notification INDEXED BY notification_waiting WHERE due_at IS NOT NULL AND {_IS_DUE} ORDER BY attempts, seq LIMIT 1"  # noqa: S608 - literals only, no value
_TAKE = "UPDATE notification SET courier = ?, attempts = attempts + 1, due_at = ? WHERE seq = ?"
_COUNT_DELIVERY = """
    UPDATE notification_rule SET delivered_count = delivered_count + 1, delivered_at = ? WHERE id = ?
"""
# By the attempt too: what a late courier has lost may have been taken again, even by itself.
_IS_TAKEN = "seq = ? AND courier = ? AND attempts = ?"
_PUT_OFF = f"""
    UPDATE notification SET due_at = ?
    WHERE rule_seq = (SELECT seq FROM notification_rule WHERE id = ?) AND {_IS_DUE}
"""  # noqa: S608 - literals only, no value
_CANDIDATES = 10


class NotificationTables(Tables, NotificationRegistry):
    """The methods of ``registry_parts.NotificationRegistry``, which describes them."""

    def create_rule(self, rule: NotificationRule) -> None:  # noqa: D102 - see the interface
        row = _rule_values(rule)
        self._write(lambda connection: connection.execute(_INSERT_RULE, row), durable=True)

    def find_rule(self, reference: str) -> NotificationRule:  # noqa: D102 - see the interface
        sql = f"{_SELECT_RULE} WHERE id >= ? AND id < ? ORDER BY seq DESC LIMIT {_CANDIDATES}"
        found = self._read(_rule, sql, id_range(storable(reference)))
        if not found:
            raise _missing(reference)
        if len(found) > 1:
            ids = [rule.id for rule in found]
            raise AmbiguousReferenceError(reference, ids, noun="notification rule")
        return found[0]

    def list_rules(self) -> list[NotificationRule]:  # noqa: D102 - see the interface
        return self._read(_rule, f"{_SELECT_RULE} ORDER BY seq", ())

    def set_rule_active(self, rule_id: str, *, is_active: bool) -> NotificationRule:  # noqa: D102 - see the interface
        sql = "UPDATE notification_rule SET is_active = ? WHERE id = ?"

        def change(connection: sqlite3.Connection) -> NotificationRule:
            if connection.execute(sql, (int(is_active), rule_id)).rowcount < 1:
                raise _missing(rule_id)
            return _rule(
                connection.execute(_SELECT_RULE + "WHERE id = ?", (rule_id,)).fetchall()[0]
            )

        return self._write(change, durable=True)

    def delete_rule(self, rule_id: str) -> None:  # noqa: D102 - see the interface
        sql = "DELETE FROM notification_rule WHERE id = ?"

        def delete(connection: sqlite3.Connection) -> None:
            if connection.execute(sql, (rule_id,)).rowcount < 1:
                raise _missing(rule_id)

        self._write(delete, durable=True)

    def list_notifications(self, rule_id: str, *, limit: int) -> list[Notification]:  # noqa: D102 - see the interface
        where = "WHERE notification_rule.id = ? ORDER BY notification.seq DESC LIMIT ?"
        return self._read(_notification, f"{_SELECT} {where}", (rule_id, limit))

    def next_due_at(self) -> datetime | None:  # noqa: D102 - see the interface
        sql = "SELECT due_at FROM notification WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1"
        found = self._read(tuple, sql, ())
        return from_microseconds(found[0][0]) if found else None

    def waiting(self) -> tuple[int, datetime | None]:  # noqa: D102 - see the interface
        sql = "SELECT count(*), min(due_at) FROM notification WHERE due_at IS NOT NULL AND courier IS NULL"
        ((count, due_at),) = self._read(tuple, sql, ())
        return count, None if due_at is None else from_microseconds(due_at)

    def make_due(self, *, at: datetime) -> None:  # noqa: D102 - see the interface
        sql = "UPDATE notification SET due_at = ? WHERE due_at > ? AND courier IS NULL"
        moment = to_microseconds(at)
        self._changes(lambda connection: connection.execute(sql, (moment, moment)))

    def take_notification(  # noqa: D102 - see the interface
        self, courier: ProcessIdentity, *, at: datetime, until: datetime
    ) -> Notification | None:
        moment, late_at = to_microseconds(at), to_microseconds(until)
        sql = f"{_SELECT} WHERE notification.seq = ({_FIRST_DUE})"

        def take(connection: sqlite3.Connection) -> Notification | None:
            rows = connection.execute(sql, (moment,)).fetchall()
            if not rows:
                return None
            found = _notification(rows[0])
            connection.execute(_TAKE, (identity_text(courier), late_at, found.position))
            return replace(found, courier=courier, attempts=found.attempts + 1, due_at=until)

        # A look costs a third of a transaction, and the last one finds nothing.
        if not self._read(tuple, _ANY_DUE, (moment,)):
            return None
        return self._write(take, durable=False)

    def list_taken(self) -> list[Notification]:  # noqa: D102 - see the interface
        return self._read(_notification, f"{_SELECT} WHERE courier IS NOT NULL", ())

    def record_delivery(self, notification: Notification, *, at: datetime) -> bool:  # noqa: D102 - see the interface
        delete = f"DELETE FROM notification WHERE {_IS_TAKEN}"  # noqa: S608 - literals only, no value
        count = (to_microseconds(at), notification.rule_id)

        def record(connection: sqlite3.Connection) -> bool:
            if connection.execute(delete, _taken_values(notification)).rowcount < 1:
                return False
            connection.execute(_COUNT_DELIVERY, count)
            return True

        return self._write(record, durable=False)

    def record_problem(  # noqa: D102 - see the interface
        self, notification: Notification, problem: str, *, due_at: datetime | None
    ) -> bool:
        sql = f"UPDATE notification SET courier = NULL, due_at = ?, problem = ? WHERE {_IS_TAKEN}"  # noqa: S608 - literals only, no value
        moment = None if due_at is None else to_microseconds(due_at)
        row = (moment, storable(problem), *_taken_values(notification))
        return self._changes(lambda connection: connection.execute(sql, row))

    def put_off(self, rule_id: str, *, until: datetime) -> None:  # noqa: D102 - see the interface
        moment = to_microseconds(until)
        self._changes(lambda connection: connection.execute(_PUT_OFF, (moment, rule_id, moment)))

    def _changes(self, execute: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> bool:
        """Return whether a statement, in a transaction of its own, changed a row."""
        return self._write(lambda connection: execute(connection).rowcount > 0, durable=False)


def _missing(reference: str) -> NotFoundError:
    return NotFoundError(
        f"there is no notification rule {reference!r}", hint="see: prefectlite notification ls"
    )


def _rule_values(rule: NotificationRule) -> Values:
    return (
        rule.id,
        json.dumps([storable(state) for state in rule.states]),
        json.dumps(rule.tags),
        json.dumps([storable(name) for name in rule.flow_names]),
        storable(rule.block),
        maybe_storable(rule.template),
        int(rule.is_active),
        to_microseconds(rule.created_at),
    )


def _rule(row: Row) -> NotificationRule:
    return NotificationRule(
        id=row[0],
        states=tuple(json.loads(row[1])),
        tags=tuple(json.loads(row[2])),
        flow_names=tuple(json.loads(row[3])),
        block=row[4],
        template=row[5],
        is_active=bool(row[6]),
        created_at=from_microseconds(row[7]),
        delivered_count=row[8],
        delivered_at=None if row[9] is None else from_microseconds(row[9]),
        waiting_count=row[10],
        failed_count=row[11],
        problem=row[12],
    )


def _notification(row: Row) -> Notification:
    flow_run = flow_run_from(row[_OWN_COUNT:])
    return Notification(
        position=row[0],
        rule_id=row[1],
        block=row[2],
        template=row[3],
        attempts=row[4],
        due_at=None if row[5] is None else from_microseconds(row[5]),
        courier=None if row[6] is None else identity_from(row[6]),
        problem=row[7],
        flow_run=replace(flow_run, state=state_from(row[8:12]), state_version=row[12]),
    )


def _taken_values(notification: Notification) -> Values:
    courier = notification.courier
    taken_by = None if courier is None else identity_text(courier)
    return notification.position, taken_by, notification.attempts
