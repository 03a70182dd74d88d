"""``flow-run pause`` and ``resume``: what they change, say and print, and how they refuse."""

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from prefectlite import pauses
from prefectlite.clock import now
from prefectlite.errors import NotPausedError, RegistryLockTimeoutError, UsageError
from prefectlite.liveness import own_identity
from prefectlite.records import Pause
from prefectlite.run_filters import FlowRunFilter
from prefectlite.run_inputs import schema_of
from prefectlite.states import Cancelling, Paused, Scheduled

KEYS = {"key", "resume_by", "input_schema", "run_input"}


class Approval(BaseModel):
    approved: bool
    comment: str = ""


@pytest.fixture
def paused(seeds):
    """Put a paused run on record."""

    def put(name="approval", **fields):
        flow_run = seeds.flow_run(name, end=False, process=own_identity())
        pauses = seeds.registry.pauses
        return pauses.pause_flow_run(flow_run, Paused("It waits."), Pause(**fields))

    return put


def test_pause_stops_a_run_at_its_next_task(run, seeds):
    flow_run = seeds.flow_run("busy", end=False)
    ended = run("flow-run pause busy")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr.startswith(f"Paused flow run 'busy' ({flow_run.id}). It stops at its next")
    found = seeds.registry.find_flow_run("busy")
    assert found.state.name == "Paused"
    assert seeds.registry.pauses.find_pause(found.id).resume_by is None


def test_a_timeout_says_until_when(run, seeds):
    seeds.flow_run("busy", end=False)
    (document,) = json.loads(run("flow-run pause busy --timeout 3600 --json").stdout)
    found = seeds.registry.find_flow_run("busy")
    resume_by = seeds.registry.pauses.find_pause(found.id).resume_by
    assert resume_by - found.state.timestamp == timedelta(hours=1)
    assert document["state"]["message"].endswith(f"by {resume_by:%Y-%m-%d %H:%M:%S} UTC.")


@pytest.mark.parametrize("state", [None, Scheduled(name="AwaitingRetry"), Paused(), Cancelling()])
def test_only_a_running_run_is_paused(run, seeds, state):
    seeds.flow_run("other", end=state)
    ended = run("flow-run pause other")
    assert ended.exit_code == 4
    told = "is Paused already" if state and state.is_paused() else "it cannot become Paused"
    assert told in ended.stderr


def test_the_others_are_paused_although_one_cannot_be(run, seeds):
    seeds.flow_run("over")
    seeds.flow_run("busy", end=False)
    ended = run("flow-run pause over busy --json")
    assert ended.exit_code == 4
    assert [each["name"] for each in json.loads(ended.stdout)] == ["busy"]


def test_nothing_is_changed_where_one_does_not_exist(run, seeds):
    seeds.flow_run("busy", end=False)
    assert run("flow-run pause busy nobody").exit_code == 3
    assert seeds.registry.find_flow_run("busy").state.name == "Running"


def test_resume_lets_a_run_go_on(run, seeds, paused):
    flow_run = paused()
    ended = run("flow-run resume approval --json")
    assert ended.exit_code == 0
    assert ended.stderr == f"Resumed flow run 'approval' ({flow_run.id}).\n"
    (document,) = json.loads(ended.stdout)
    assert document["state"]["name"] == "Running"
    assert run("flow-run resume approval").exit_code == 4


def test_a_run_that_is_not_paused_is_not_resumed(run, seeds):
    seeds.flow_run("over")
    ended = run("flow-run resume over")
    assert ended.exit_code == 4
    assert ended.stderr == "error: flow run 'over' is Completed, not Paused; it cannot be resumed\n"


def test_a_run_is_failed_at_its_deadline_and_not_resumed_after_it(run, seeds, paused):
    resume_by = now() - timedelta(seconds=1)
    flow_run = paused(resume_by=resume_by)
    ended = run("flow-run resume approval")
    assert ended.exit_code == 4
    assert "'approval' should have been resumed by 20" in ended.stderr
    found = seeds.registry.find_flow_run(flow_run.id)
    assert found.state.name == "Failed"
    assert found.state.message == "The flow was paused and never resumed."
    assert found.ended_at == max(resume_by, flow_run.state.timestamp)


@pytest.mark.parametrize("command", ["ls", "inspect approval", "wait approval", "logs approval"])
def test_every_reader_finds_a_run_failed_that_was_not_resumed_in_time(run, seeds, paused, command):
    flow_run = paused(resume_by=now() - timedelta(seconds=1))
    run(f"flow-run {command}")
    assert seeds.registry.find_flow_run(flow_run.id).state.name == "Failed"


def test_inspect_says_what_a_run_waits_for(run, paused):
    flow_run = paused(key="release", input_schema=schema_of(Approval))
    shown = run("flow-run inspect approval").stdout
    assert "Waits for        release\n" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["ASKS", "FOR", "TYPE", "DEFAULT", "MEANING"] in rows
    assert ["approved", "BOOLEAN", "-", "-"] in rows
    assert ["comment", "TEXT", '""', "-"] in rows
    document = json.loads(run("flow-run inspect approval --json").stdout)
    assert document["pause"].keys() == KEYS
    assert document["pause"]["key"] == "release"
    run("flow-run resume approval --input approved=true")
    assert json.loads(run("flow-run inspect", flow_run.id, "--json").stdout)["pause"] is None


def answer_of(seeds, flow_run):
    return seeds.registry.pauses.find_pause(flow_run.id).run_input


def test_answers_are_json_or_text_and_later_ones_win(run, seeds, paused, monkeypatch):
    flow_run = paused(input_schema=schema_of(Approval))
    monkeypatch.setattr("sys.stdin", io.StringIO('{"approved": false, "comment": "no"}'))
    line = "flow-run resume approval --input-json - -i approved=true --input"
    assert run(line, "comment=5 = five").exit_code == 0
    assert answer_of(seeds, flow_run) == {"approved": True, "comment": "5 = five"}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("", "approved: field required"),
        ("-i approved=perhaps", "approved: input should be a valid boolean"),
        ("-i aproved=true", "does not ask for 'aproved'"),
        ("--input approved", "--input 'approved' is not KEY=VALUE"),
        ("--input-json [1]", "the values in --input-json are no JSON object"),
        ("--input-json {", "the values in --input-json cannot be read"),
        ("--input-json @nowhere", "the values in nowhere cannot be read"),
        ("--input", "--input needs a value"),
    ],
)
def test_a_bad_answer_is_refused_and_the_run_stays_paused(run, seeds, paused, options, fault):
    flow_run = paused(input_schema=schema_of(Approval))
    ended = run(f"flow-run resume approval {options}")
    assert ended.exit_code == 2
    assert fault in ended.stderr
    assert seeds.registry.find_flow_run(flow_run.id).state.name == "Paused"


def test_an_answer_that_is_not_asked_for_is_refused(run, seeds, paused):
    flow_run = paused()
    ended = run("flow-run resume approval -i approved=true")
    assert ended.exit_code == 2
    assert "flow run 'approval' asks for nothing" in ended.stderr
    assert seeds.registry.find_flow_run(flow_run.id).state.name == "Paused"


def test_an_answer_that_the_flow_refuses_is_told_with_the_reason(
    start_python, start, until, registry
):
    flow = start_python(
        """
        from pydantic import BaseModel, field_validator
        from prefectlite import flow, pause_flow_run

        class Release(BaseModel):
            version: str

            @field_validator("version")
            @classmethod
            def is_new(cls, value):
                if value == "1.0":
                    raise ValueError("that is out already")
                return value

        @flow
        def release():
            print(pause_flow_run(wait_for_input=Release).version)

        release.with_options(flow_run_name="release")()
        """
    )
    until(lambda: registry.list_flow_runs(FlowRunFilter(states=["paused"])), "a paused run")
    refused = start("flow-run", "resume", "release", "--input", "version=1.0")
    assert refused.returncode == 2
    assert (
        b"is paused again: The answer was refused: version: value error, that is" in refused.stderr
    )
    assert start("flow-run", "resume", "release", "--input", "version=1.1").returncode == 0
    assert flow.end() == "1.1\n"


def test_an_answer_to_one_pause_is_none_to_the_next(seeds, paused):
    # As of who looks, types an answer, and is overtaken by another person.
    seen = paused()
    pauses.resume(seeds.registry, seen)
    again = seeds.registry.find_flow_run(seen.id)
    seeds.registry.pauses.pause_flow_run(again, Paused("It asks for more."), Pause())
    with pytest.raises(NotPausedError, match="was resumed by another, and is paused again"):
        pauses.resume(seeds.registry, seen)
    assert seeds.registry.find_flow_run(seen.id).state.is_paused()


@pytest.mark.parametrize("value", [now(), float("nan"), b"bytes"])
def test_an_answer_that_json_cannot_hold_is_refused(seeds, paused, value):
    class Anything(BaseModel):
        value: Any

    flow_run = paused(input_schema=schema_of(Anything))
    with pytest.raises(UsageError, match="the answer cannot be kept on record"):
        pauses.resume(seeds.registry, flow_run, {"value": value})
    assert seeds.registry.find_flow_run(flow_run.id).state.is_paused()


def test_runs_are_listed_although_it_cannot_be_recorded_that_one_is_overdue(
    run, paused, monkeypatch
):
    paused(resume_by=now() - timedelta(seconds=1))

    def fails(_):
        raise RegistryLockTimeoutError("the gate is held")

    monkeypatch.setattr(pauses, "fail_overdue", fails)
    ended = run("flow-run ls")
    assert ended.exit_code == 0
    assert "'approval' is Paused on record, but" in ended.stderr
    assert "Paused" in ended.stdout
