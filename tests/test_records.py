"""Records as they are shown, and the run after a change of state."""

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest

from prefectlite.clock import now
from prefectlite.deployment_records import Deployment, WorkQueue
from prefectlite.names import new_id
from prefectlite.records import FlowRun, LogLine, StateChange, TaskRun, after_change
from prefectlite.states import (
    AwaitingRetry,
    Completed,
    Failed,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    State,
    StateType,
)

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 10, UTC)


def flow_run(state, **fields):
    return FlowRun(id=new_id(), name="n", flow_name="f", state=state, **fields)


def task_run(state, **fields):
    fields.setdefault("created_at", MOMENT)
    return TaskRun(
        id=new_id(), name="n", task_name="t", flow_run_id=new_id(), state=state, **fields
    )


def change(run, *states):
    for state in states:
        run = after_change(run, state)
    return run


@pytest.mark.parametrize("make", [flow_run, task_run])
def test_a_run_is_shown_as_json_with_all_that_it_has(make):
    run = make(State(StateType.FAILED, "TimedOut", "late", MOMENT), tags=("a",), created_at=MOMENT)
    shown = run.dict()
    assert json.loads(json.dumps(shown)) == shown
    hidden = {"state_version", "process", "launcher", "supervisor"}
    assert set(shown) == set(run.__dataclass_fields__) - hidden | {"duration_seconds"}
    assert shown["created_at"] == "2024-05-06T07:08:09.000010+00:00"
    assert shown["state"] == {
        "type": "FAILED",
        "name": "TimedOut",
        "message": "late",
        "timestamp": "2024-05-06T07:08:09.000010+00:00",
    }


def test_what_is_shown_of_a_run_is_a_copy():
    run = flow_run(Running(), parameters={"x": 1}, tags=("a",))
    run.dict()["parameters"]["x"] = 2
    run.dict()["tags"].append("b")
    assert (run.parameters, run.tags) == ({"x": 1}, ("a",))


def test_a_change_and_a_line_are_shown_as_json():
    shown = StateChange(2, State(StateType.RUNNING, "Running", None, MOMENT), "me@host:1").dict()
    assert shown["version"] == 2
    assert shown["actor"] == "me@host:1"
    assert shown["name"] == "Running"
    line = LogLine(new_id(), None, 20, "logger", "message", MOMENT, 7).dict()
    assert json.loads(json.dumps(line)) == line
    assert line["timestamp"] == "2024-05-06T07:08:09.000010+00:00"
    assert "position" not in line


def test_a_run_takes_as_long_as_from_its_first_start_to_its_end_or_to_now():
    assert flow_run(Pending()).duration_seconds is None
    run = flow_run(Running(), started_at=MOMENT, ended_at=MOMENT + timedelta(seconds=1.5))
    assert run.duration_seconds == 1.5
    hour_ago = now() - timedelta(hours=1)
    assert task_run(Running(), started_at=hour_ago).duration_seconds >= 3600


@pytest.mark.parametrize("make", [flow_run, task_run])
def test_each_change_makes_a_new_run_one_version_on(make):
    run = make(Pending())
    changed = after_change(run, Running())
    assert (run.state_version, changed.state_version) == (1, 2)
    assert run.state.is_pending()
    assert type(changed) is type(run)
    assert changed.id == run.id


@pytest.mark.parametrize("kind", [FlowRun, TaskRun])
def test_a_change_keeps_all_that_it_does_not_change(kind):
    # Also a field that is added tomorrow: that is why it is not a list of names.
    changed = {"state", "state_version", "run_count", "started_at", "ended_at"}
    kept = {field.name: f"its {field.name}" for field in fields(kind) if field.name not in changed}
    run = after_change(kind(**kept, state=Pending()), Running())
    assert {name: getattr(run, name) for name in kept} == kept


def test_each_attempt_is_counted_and_the_first_is_the_start():
    first = Running()
    run = change(flow_run(Scheduled()), Pending(), first, AwaitingRetry(), Retrying())
    assert (run.run_count, run.started_at, run.ended_at) == (2, first.timestamp, None)
    end = Failed()
    assert change(run, end).ended_at == end.timestamp


def test_going_on_after_a_pause_is_the_same_attempt():
    assert change(flow_run(Pending()), Running(), Paused(), Running()).run_count == 1


def test_a_run_that_completes_without_running_has_an_end_and_no_start():
    end = Completed(name="Cached")
    run = change(task_run(Pending()), end)
    assert (run.run_count, run.started_at, run.ended_at) == (0, None, end.timestamp)


def test_a_record_cannot_be_altered():
    with pytest.raises(AttributeError):
        flow_run(Pending()).name = "other"


@pytest.mark.parametrize(
    "record",
    [
        Deployment(
            id="i",
            name="n",
            flow_name="f",
            entrypoint="e",
            working_directory="/",
            parameters={"x": [1]},
            tags=("a",),
            created_at=MOMENT,
        ),
        WorkQueue(id="i", name="n", created_at=MOMENT),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_deployment_and_a_work_queue_are_shown_as_json_with_all_that_they_have(record):
    shown = record.dict()
    assert json.loads(json.dumps(shown)) == shown
    assert set(shown) == set(record.__dataclass_fields__)
    assert shown["created_at"] == "2024-05-06T07:08:09.000010+00:00"


def test_a_deployment_is_called_by_its_flow_and_itself():
    fields = {"id": "i", "entrypoint": "e", "working_directory": "/"}
    assert Deployment(name="n", flow_name="a/f", **fields).full_name == "a/f/n"
