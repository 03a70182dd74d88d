"""What a command prints with --json has the fields that its man page names, and no other."""

import io
import json
import shlex
import sys
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from prefectlite import json_records
from prefectlite.block_records import BlockDocument, BlockType
from prefectlite.command_tree import every_command
from prefectlite.commands import Group, documentation, parameters
from prefectlite.deployment_records import Agent, Deployment, WorkQueue
from prefectlite.json_documents import DOCUMENTS, records_of
from prefectlite.json_schemas import Record, Scalar, Shape
from prefectlite.notification_records import NotificationRule
from prefectlite.records import FlowRun, Pause, TaskRun

_TYPES = {
    Scalar.TEXT: str,
    Scalar.TIME: str,
    Scalar.INTEGER: int,
    Scalar.NUMBER: int | float,
    Scalar.BOOLEAN: bool,
    Scalar.OBJECT: dict,
    Scalar.ANY: object,
}


def _commands(found, words=()):
    if not isinstance(found, Group):
        yield " ".join(words), found
        return
    for word, inner in found.items():
        yield from _commands(inner, (*words, word))


_FUNCTIONS = dict(_commands(every_command()))
#: Where an example does not show all that a command prints, a line that does.
_LINES = {
    "block inspect": "block inspect warehouse/spare",
    "config validate": "config validate",
    "config view": "config view --show-defaults",
    "flow-run inspect": "flow-run inspect nimble-hare",
    "flow-run wait": "flow-run wait gigantic-cockatoo",
    "run --events": "run my_flows.py:etl --events events.jsonl",
    "notification inspect": "notification inspect 3f2a",
}

#: What nothing of is printed, because nothing is wrong.
_UNSEEN = {"registry check": "problem"}


def _line(command):
    if command in _LINES:
        return shlex.split(_LINES[command])
    examples = documentation(_FUNCTIONS[command]).examples
    plain = [one for one in examples if not {*"|&;<>$`"} & {*one} and "--watch" not in one]
    return shlex.split(plain[0])[1:]


def _check(value, kind, where):
    """Check one value, and yield the titles of the records that it is made of."""
    if not isinstance(kind, Record):
        assert isinstance(value, _TYPES[kind]), (where, value)
        assert kind is Scalar.BOOLEAN or kind is Scalar.ANY or not isinstance(value, bool), where
        if kind is Scalar.TIME:
            assert datetime.fromisoformat(value).utcoffset() == timedelta(0), (where, value)
        return
    yield kind.title
    known = kind.fields
    assert {*value} <= {*known}, where
    assert {*value} >= {name for name, field in known.items() if field.is_always}, where
    for name in value:
        field, inner = known[name], value[name]
        if inner is None:
            assert field.is_nullable or field.kind is Scalar.ANY, (where, name)
            continue
        assert isinstance(inner, list) or not field.is_list, (where, name)
        for one in inner if field.is_list else [inner]:
            yield from _check(one, field.kind, f"{where} {name}")


def test_every_command_that_prints_json_says_what():
    printing = {
        words
        for words, function in _FUNCTIONS.items()
        if any("--json" in parameter.names for parameter in parameters(function))
    }
    assert printing == {words for words in DOCUMENTS if " --" not in words}


@pytest.fixture
def ready(place, monkeypatch, command):
    """A place where a command has something of everything to print."""
    if command in {"flow-run resume", "flow-run inspect"}:
        place.add_paused_runs()
    else:
        place.add_runs(is_ended=command not in {"flow-run cancel", "flow-run pause"})
    if command == "block create":
        place.run("block delete secret/api-key")
    if command in {"block create", "block set"}:
        monkeypatch.setattr(sys, "stdin", io.StringIO("hush\n"))
    if command == "work-queue create":
        place.run("work-queue delete slow")
    if command == "config validate":
        monkeypatch.setenv("PREFECTLITE_DEBUG", "perhaps")
    if command == "notification inspect":
        place.crash()
    return place


@pytest.mark.parametrize("command", [*DOCUMENTS])
def test_a_command_prints_what_its_man_page_says(command, ready, run, request):
    document = DOCUMENTS[command]
    if command == "agent ls":
        request.getfixturevalue("agent")()
        request.getfixturevalue("until")(ready.registry.deployments.list_agents)
    words = _line(command)
    is_file = "--events" in words
    ended = run("", *words, *([] if is_file or "--json" in words else ["--json"]))
    assert ended.exit_code == (2 if command == "config validate" else 0), ended.stderr
    text = Path("events.jsonl").read_text() if is_file else ended.stdout
    if document.shape is Shape.LINES:
        found = [json.loads(line) for line in text.splitlines()]
    else:
        found = json.loads(text)
    assert isinstance(found, dict) is (document.shape is Shape.ONE)
    seen = {
        title
        for one in ([found] if document.shape is Shape.ONE else found)
        for title in _check(one, document.record, command)
    }
    bases = {record.base.title for record in records_of([document]) if record.base}
    expected = {record.title for record in records_of([document])} - bases
    expected -= {_UNSEEN.get(command), None if command == "block inspect" else "block in a block"}
    assert seen >= expected, "nothing was printed of some of what the page describes"


@pytest.mark.parametrize(
    ("record", "class_"),
    [
        (json_records.FLOW_RUN, FlowRun),
        (json_records.TASK_RUN, TaskRun),
        (json_records.PAUSE, Pause),
        (json_records.DEPLOYMENT, Deployment),
        (json_records.WORK_QUEUE, WorkQueue),
        (json_records.AGENT, Agent),
        (json_records.BLOCK, BlockDocument),
        (json_records.REGISTERED_TYPE, BlockType),
        (json_records.RULE, NotificationRule),
    ],
)
def test_what_may_be_none_on_record_may_be_null_in_json(record, class_):
    hints = get_type_hints(class_)
    for field in fields(class_):
        if field.name in record.fields:
            is_nullable = type(None) in get_args(hints[field.name])
            assert record.fields[field.name].is_nullable is is_nullable, field.name
