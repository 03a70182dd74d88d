"""Records as rows and back."""

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as some

from prefectlite import deployment_rows, rows
from prefectlite.clock import now
from prefectlite.deployment_records import Deployment, WorkQueue
from prefectlite.names import new_id
from prefectlite.records import CachedResult, FlowRun, LogLine, TaskRun
from prefectlite.states import State, StateType

TEXTS = some.text()
MOMENTS = some.datetimes(timezones=some.just(UTC))
STATES = some.builds(
    State, some.sampled_from(StateType), TEXTS, some.none() | TEXTS, MOMENTS, some.just(None)
)
MAYBE_TEXTS, MAYBE_MOMENTS = some.none() | TEXTS, some.none() | MOMENTS
TAGS = some.lists(TEXTS).map(tuple)
RUN = {"id": TEXTS, "name": TEXTS, "state": STATES, "tags": TAGS, "parent_task_run_id": MAYBE_TEXTS}
RUN |= {"created_at": MOMENTS, "started_at": MAYBE_MOMENTS, "ended_at": MAYBE_MOMENTS}
FLOW_RUNS = some.builds(
    FlowRun,
    **RUN,
    flow_name=TEXTS,
    parameters=some.dictionaries(TEXTS, TEXTS | some.integers() | some.none()),
    version=MAYBE_TEXTS,
    entrypoint=MAYBE_TEXTS,
    parent_flow_run_id=MAYBE_TEXTS,
    deployment_id=MAYBE_TEXTS,
    work_queue=MAYBE_TEXTS,
    infrastructure=some.none() | some.dictionaries(TEXTS, TEXTS | some.integers()),
    scheduled_at=MAYBE_MOMENTS,
)
TASK_RUNS = some.builds(TaskRun, **RUN, task_name=TEXTS, flow_run_id=TEXTS, cache_key=MAYBE_TEXTS)


@given(FLOW_RUNS)
def test_a_flow_run_survives_as_a_row(run):
    assert rows.flow_run_from(rows.flow_run_values(run)) == run


@given(TASK_RUNS)
def test_a_task_run_survives_as_a_row(run):
    assert rows.task_run_from([*rows.task_run_values(run), run.flow_run_id]) == run


@given(
    some.builds(
        Deployment,
        id=TEXTS,
        name=TEXTS,
        description=MAYBE_TEXTS,
        version=MAYBE_TEXTS,
        parameters=some.dictionaries(TEXTS, TEXTS | some.integers() | some.none()),
        tags=TAGS,
        infrastructure=some.dictionaries(TEXTS, TEXTS | some.integers()),
        created_at=MOMENTS,
        updated_at=MOMENTS,
    )
)
def test_a_deployment_survives_as_a_row(deployment):
    values = deployment_rows.deployment_values(deployment)
    assert deployment_rows.deployment_from(values) == deployment
    assert len(values) == len(deployment_rows.DEPLOYMENT_COLUMNS.split(", "))


@given(
    some.builds(
        WorkQueue,
        id=TEXTS,
        name=TEXTS,
        description=MAYBE_TEXTS,
        priority=some.integers(),
        concurrency_limit=some.none() | some.integers(),
        is_paused=some.booleans(),
        created_at=MOMENTS,
    )
)
def test_a_work_queue_survives_as_a_row(queue):
    values = deployment_rows.work_queue_values(queue)
    assert deployment_rows.work_queue_from(values) == queue
    assert len(values) == len(deployment_rows.WORK_QUEUE_COLUMNS.split(", "))


@given(some.builds(LogLine, TEXTS, MAYBE_TEXTS, some.integers(), TEXTS, TEXTS, MOMENTS))
def test_a_line_survives_as_a_row(line):
    assert rows.log_line_from([*rows.log_values(line), line.position]) == line


@given(some.builds(CachedResult, TEXTS, TEXTS, MAYBE_MOMENTS))
def test_a_cached_result_survives_as_a_row(cached):
    assert rows.cached_result_from(rows.cached_result_values(cached)) == cached


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        (rows.FLOW_RUN_COLUMNS, rows.flow_run_values),
        (rows.TASK_RUN_COLUMNS, rows.task_run_values),
    ],
)
def test_there_is_a_value_for_each_column(columns, values):
    state = State(StateType.RUNNING, "Running", "message", now())
    common = {"id": new_id(), "name": "n", "state": state, "created_at": now()}
    run = (
        FlowRun(**common, flow_name="f")
        if values is rows.flow_run_values
        else TaskRun(**common, task_name="t", flow_run_id=new_id())
    )
    by_column = dict(zip(columns.split(", "), values(run), strict=True))
    assert by_column["id"] == run.id
    assert by_column["state_message"] == "message"
    assert by_column["run_count"] == 0


@given(some.text(some.characters(codec=None, exclude_categories=[])))
def test_every_text_can_be_stored_and_good_ones_are_left_alone(text):
    stored = rows.storable(text)
    stored.encode()
    assert rows.storable(stored) == stored
    if not any("\ud800" <= mark <= "\udfff" for mark in text):
        assert stored == text
