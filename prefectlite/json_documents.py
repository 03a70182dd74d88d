"""What each command prints with ``--json``.

The man pages and the tests go by it. A command that takes ``--json`` and is not here fails a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prefectlite import json_records as records
from prefectlite import json_system_records as system
from prefectlite.json_schemas import Document, Record, Shape

#: What each command prints, by its words; with ``--json`` unless another option stands behind them.
DOCUMENTS: Mapping[str, Document] = {
    "agent ls": Document(records.AGENT, Shape.LIST),
    "block create": Document(records.BLOCK),
    "block delete": Document(records.BLOCK, Shape.LIST),
    "block inspect": Document(records.BLOCK),
    "block ls": Document(records.BLOCK, Shape.LIST),
    "block register": Document(records.REGISTERED_TYPE, Shape.LIST),
    "block set": Document(records.BLOCK),
    "block type inspect": Document(records.INSPECTED_TYPE),
    "block type ls": Document(records.BLOCK_TYPE, Shape.LIST),
    "config validate": Document(system.PROBLEM, Shape.LIST),
    "config view": Document(system.SETTING, Shape.LIST),
    "deployment apply": Document(records.DEPLOYMENT, Shape.LIST),
    "deployment delete": Document(records.DEPLOYMENT, Shape.LIST),
    "deployment inspect": Document(records.DEPLOYMENT),
    "deployment ls": Document(records.DEPLOYMENT, Shape.LIST),
    "deployment run": Document(records.FLOW_RUN),
    "doctor": Document(system.FINDING, Shape.LIST),
    "flow ls": Document(records.FLOW, Shape.LIST),
    "flow-run cancel": Document(records.FLOW_RUN, Shape.LIST),
    "flow-run delete": Document(records.FLOW_RUN, Shape.LIST),
    "flow-run inspect": Document(records.INSPECTED_FLOW_RUN),
    "flow-run logs": Document(records.LOG_LINE, Shape.LINES),
    "flow-run ls": Document(records.FLOW_RUN, Shape.LIST),
    "flow-run pause": Document(records.FLOW_RUN, Shape.LIST),
    "flow-run resume": Document(records.FLOW_RUN, Shape.LIST),
    "flow-run watch": Document(records.EVENT, Shape.LINES),
    "flow-run wait": Document(records.FLOW_RUN, Shape.LIST),
    "notification create": Document(records.RULE),
    "notification delete": Document(records.RULE, Shape.LIST),
    "notification inspect": Document(records.INSPECTED_RULE),
    "notification ls": Document(records.RULE, Shape.LIST),
    "notification pause": Document(records.RULE, Shape.LIST),
    "notification resume": Document(records.RULE, Shape.LIST),
    "profile inspect": Document(system.INSPECTED_PROFILE),
    "profile ls": Document(system.LISTED_PROFILE, Shape.LIST),
    "registry backup": Document(system.BACKUP),
    "registry check": Document(system.CHECKED_REGISTRY),
    "registry info": Document(system.REGISTRY),
    "registry prune": Document(system.PRUNING),
    "run": Document(records.ENDED_FLOW_RUN),
    "run --events": Document(records.EVENT, Shape.LINES),
    "task-run inspect": Document(records.INSPECTED_TASK_RUN),
    "task-run logs": Document(records.LOG_LINE, Shape.LINES),
    "task-run ls": Document(records.TASK_RUN, Shape.LIST),
    "version": Document(system.VERSION),
    "work-queue create": Document(records.WORK_QUEUE),
    "work-queue delete": Document(records.WORK_QUEUE, Shape.LIST),
    "work-queue inspect": Document(records.COUNTED_WORK_QUEUE),
    "work-queue ls": Document(records.COUNTED_WORK_QUEUE, Shape.LIST),
    "work-queue pause": Document(records.WORK_QUEUE, Shape.LIST),
    "work-queue resume": Document(records.WORK_QUEUE, Shape.LIST),
    "work-queue set-limit": Document(records.WORK_QUEUE),
}


def records_of(documents: Iterable[Document]) -> list[Record]:
    """Return the records that documents are made of, each once, an outer one before those in it."""
    found: dict[str, Record] = {}
    for document in documents:
        for record in _with_inner(document.record):
            found.setdefault(record.title, record)
    return [*found.values()]


def _with_inner(record: Record) -> Iterator[Record]:
    yield record
    if record.base is not None:
        yield from _with_inner(record.base)
    for field in record.own_fields.values():
        if isinstance(field.kind, Record):
            yield from _with_inner(field.kind)
