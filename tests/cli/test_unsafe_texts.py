"""Whatever a run, a flow or a log line is called, nothing of it acts on a terminal."""

import re
from dataclasses import replace

import pytest

from prefectlite.states import Cancelled, Failed, Paused, Scheduled

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_EVIL = "a\x1b[31m\x07\r\x9b2J\x7f\u202eb\u2028c"
_READING = """
flow-run ls; flow-run ls --json; flow-run ls --format jsonl; flow-run ls --columns name,flow,tags,parameters,message; flow-run inspect ID
flow-run inspect ID --json; flow-run inspect ID --timeline; flow-run logs ID; flow-run logs ID --json
flow-run logs ID --follow; flow-run watch ID; flow-run watch ID --json; flow-run wait ID
flow-run wait ID --json; flow ls; flow ls --json; task-run ls; task-run ls --json; task-run inspect TASK
task-run inspect TASK --json; task-run logs TASK; flow-run logs ID --task x\x1b
flow-run ls --flow x\x1b; flow-run inspect x\x1b; flow-run delete ID
"""
_CHANGING = ["flow-run cancel ID", "flow-run cancel ID --json", "flow-run cancel ID --force"]
_CHANGING += ["flow-run pause ID", "flow-run resume ID", "flow-run delete ID --force"]


def _evil_run(seeds, **fields):
    texts = {"flow_name": _EVIL, "tags": (_EVIL,), "parameters": {_EVIL: [_EVIL]}, **fields}
    return seeds.flow_run(_EVIL, end=False, **texts)


def _check(ended):
    assert ended.exit_code in {0, 1, 3, 4, 143}, ended  # and not 2, nor a crash
    for text in (ended.stdout, ended.stderr):
        assert not _UNSAFE.search(text), ended


@pytest.mark.parametrize(
    "line", [line.strip() for line in re.split("[;\n]", _READING) if line.strip()]
)
def test_what_is_shown_of_a_run_is_escaped(run, seeds, line):
    flow_run = _evil_run(seeds)
    _evil_run(seeds, parent_flow_run_id=flow_run.id)
    task_run = seeds.task_run(flow_run, _EVIL, end=Failed(_EVIL))
    for one in (None, task_run):
        seeds.log(flow_run, _EVIL, task_run=one)
        seeds.log(flow_run, _EVIL, task_run=one, logger=_EVIL)
    seeds.end(flow_run, Failed(_EVIL))
    ended = run(
        "", *[{"ID": flow_run.id, "TASK": task_run.id}.get(word, word) for word in line.split()]
    )
    _check(ended)


@pytest.mark.parametrize("line", _CHANGING)
@pytest.mark.parametrize("kind", [Paused, Scheduled, None], ids=["paused", "scheduled", "running"])
def test_what_is_said_of_a_change_is_escaped(run, seeds, line, kind):
    flow_run = _evil_run(seeds)
    if kind is not None:
        state = replace(kind(), name=_EVIL, message=_EVIL)
        seeds.registry.change_state(flow_run, state)
    _check(run(line.replace("ID", flow_run.id)))


def test_a_message_that_comes_with_a_change_is_escaped(run, seeds, monkeypatch):
    cancelled = _evil_run(seeds)

    def cancel(registry, run, **_):
        return registry.change_state(run, Cancelled(_EVIL))

    monkeypatch.setattr("prefectlite.cancellation.request_cancellation", cancel)
    ended = run("flow-run cancel", cancelled.id)
    assert "Cancelled flow run 'a" in ended.stderr
    _check(ended)


def test_why_a_run_is_paused_is_escaped(run, seeds, monkeypatch):
    flow_run = _evil_run(seeds)

    def pause(registry, run, *_, **__):
        return registry.change_state(run, Paused(_EVIL))

    monkeypatch.setattr("prefectlite.pauses.pause", pause)
    ended = run("flow-run pause", flow_run.id)
    assert "Paused flow run 'a" in ended.stderr
    _check(ended)
