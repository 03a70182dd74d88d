"""What is true of every registry: which runs a filter finds, and in which order."""

from datetime import UTC, datetime, timedelta

import pytest

from prefectlite.names import new_id
from prefectlite.run_filters import (
    FLOW_RUN_ORDERS,
    TASK_RUN_ORDERS,
    FlowRunFilter,
    Order,
    TaskRunFilter,
)
from prefectlite.states import Completed, Crashed, Failed, Running, Scheduled, StateType
from prefectlite.upkeep_records import Deleted

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def found(store, **conditions):
    return [run.name for run in store.registry.list_flow_runs(FlowRunFilter(**conditions))]


def found_tasks(store, **conditions):
    return [run.name for run in store.registry.list_task_runs(TaskRunFilter(**conditions))]


def test_runs_are_found_by_any_of_their_tags(store):
    store.add_flow_run(name="a", tags=("x", "y"))
    store.add_flow_run(name="b", tags=("ü",))
    flow_run = store.add_flow_run(name="c")
    store.add_task_run(flow_run, name="t", tags=("x",))
    store.add_task_run(flow_run, name="u")
    assert found(store, tags=["y"]) == ["a"]
    assert found(store, tags=["x", "ü"]) == ["b", "a"]
    assert found(store, tags=["z", "%", '"x"', ""]) == []
    assert found_tasks(store, tags=["x"]) == ["t"]


def test_flow_runs_are_found_by_deployment_and_by_queue(store):
    deployment_id = new_id()
    store.add_flow_run(name="a", deployment_id=deployment_id, work_queue="slow")
    store.add_flow_run(name="b", work_queue="fast")
    store.add_flow_run(name="c")
    assert found(store, deployment_ids=[deployment_id]) == ["a"]
    assert found(store, work_queues=["slow", "fast"]) == ["b", "a"]
    assert found(store, deployment_ids=[deployment_id], work_queues=["fast"]) == []


def test_a_run_counts_as_of_its_start_else_when_it_is_due_else_when_it_was_made(store):
    store.add_flow_run(name="began", created_at=NOON - 9 * HOUR, started_at=NOON)
    store.add_flow_run(Scheduled(), name="due", created_at=NOON - HOUR, scheduled_at=NOON + HOUR)
    flow_run = store.add_flow_run(name="made", created_at=NOON - HOUR)
    assert found(store, since=NOON) == ["due", "began"]
    assert found(store, until=NOON) == ["made"]
    assert found(store, since=NOON, until=NOON + HOUR) == ["began"]
    store.add_task_run(flow_run, name="began", created_at=NOON - HOUR, started_at=NOON)
    store.add_task_run(flow_run, name="made", created_at=NOON - HOUR)
    assert found_tasks(store, since=NOON) == ["began"]
    assert found_tasks(store, until=NOON) == ["made"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("OTTER", ["a"]),
        ("etl", ["b"]),
        ("no such FILE", ["c"]),
        ('"day": "tod', ["d"]),
        ('day": "say \\"hi\\""', ["e"]),
        ('say "hi"', ["e"]),
        ("grüße", ["f", "b"]),
        ("GRÜSSE", []),
        ("GRÜ", ["f", "b"]),
        ("\N{GRINNING FACE}", ["f"]),
        ("%", []),
        ("_", ["b"]),
        ("nothing", []),
        ("", ["f", "e", "d", "c", "b", "a"]),
    ],
)
def test_flow_runs_are_found_by_a_text_in_any_case_and_any_place(store, text, names):
    store.add_flow_run(name="calm-Otter")
    store.add_flow_run(name="b", flow_name="my_Etl-Grüße")
    store.add_flow_run(Failed("no such file"), name="c")
    store.add_flow_run(name="d", parameters={"Day": "today"})
    store.add_flow_run(name="e", parameters={"day": 'say "hi"'})
    store.add_flow_run(name="f", parameters={"x": ["GRÜßE", "\N{GRINNING FACE}"]})
    listed = ["a" if name == "calm-Otter" else name for name in found(store, text=text)]
    assert listed == names


def test_task_runs_are_found_by_text_task_and_flow(store):
    etl, other = store.add_flow_run(flow_name="etl"), store.add_flow_run(flow_name="other")
    store.add_task_run(etl, name="load-0", task_name="Load")
    store.add_task_run(other, Failed("no LUCK"), name="x")
    assert found_tasks(store, text="load") == ["load-0"]
    assert found_tasks(store, text="luck") == ["x"]
    assert found_tasks(store, task_names=["Load", "nothing"]) == ["load-0"]
    assert found_tasks(store, flow_names=["other"]) == ["x"]
    assert found_tasks(store, flow_run_ids=[etl.id, other.id]) == ["x", "load-0"]
    assert found_tasks(store, flow_run_ids=[etl.id], flow_names=["other"]) == []


def test_all_of_a_filter_must_hold(store):
    everything = {
        "tags": ("t",),
        "flow_name": "f",
        "work_queue": "q",
        "deployment_id": new_id(),
        "parent_flow_run_id": new_id(),
        "started_at": NOON,
        "parameters": {"a": "needle"},
    }
    store.add_flow_run(Completed(), name="all", **everything)
    conditions = {
        "states": ["completed"],
        "flow_names": ["f"],
        "tags": ["t"],
        "deployment_ids": [everything["deployment_id"]],
        "work_queues": ["q"],
        "parent_flow_run_id": everything["parent_flow_run_id"],
        "since": NOON,
        "until": NOON + HOUR,
        "text": "needle",
    }
    assert set(conditions) == {*FlowRunFilter._fields}
    assert found(store, **conditions) == ["all"]
    for name, other in {"until": NOON, "since": NOON + HOUR}.items():
        assert found(store, **{**conditions, name: other}) == []
    for name in {*conditions} - {"until", "since"}:
        other = "x" if isinstance(conditions[name], str) else ["x"]
        assert found(store, **{**conditions, name: other}) == [], name


def ordered(list_runs, by, **more):
    order = Order(by.removeprefix("-"), by.startswith("-"))
    return "".join(run.name for run in list_runs(order=order, **more))


def add_in_disorder(add):
    """Three runs: b and c have begun, c has ended; a was made in between."""
    add(Running(), name="b", started_at=NOON + HOUR)
    add(Scheduled(), name="a")
    add(Completed(), name="c", started_at=NOON, ended_at=NOON + HOUR)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("created", "bac"),
        ("-created", "cab"),
        ("started", "cba"),
        ("-started", "bca"),
        ("ended", "cab"),
        ("-ended", "cab"),
        ("duration", "cba"),
        ("-duration", "bca"),
        ("name", "abc"),
        ("-name", "cba"),
        ("state", "cba"),
        ("-state", "abc"),
    ],
)
def test_runs_come_in_the_order_that_was_asked_for_those_without_a_value_last(store, by, names):
    flow_run = store.add_flow_run(name="z")
    add_in_disorder(lambda state, **fields: store.add_task_run(flow_run, state, **fields))
    assert ordered(store.registry.list_task_runs, by) == names
    store.registry.upkeep.delete_flow_runs([flow_run.id], Deleted())
    add_in_disorder(store.add_flow_run)
    assert ordered(store.registry.list_flow_runs, by) == names
    # The first of all, and not the first of the newest.
    assert ordered(store.registry.list_flow_runs, by, limit=1) == names[0]
    assert by.removeprefix("-") in FLOW_RUN_ORDERS
    assert by.removeprefix("-") in TASK_RUN_ORDERS


def test_runs_are_ordered_by_flow_or_task_and_of_equal_ones_the_newest_is_first(store):
    for name, flow_name in [("a", "y"), ("b", "x"), ("c", "y")]:
        flow_run = store.add_flow_run(name=name, flow_name=flow_name)
        store.add_task_run(flow_run, name=name, task_name=flow_name)
    assert ordered(store.registry.list_flow_runs, "flow") == "bca"
    assert ordered(store.registry.list_flow_runs, "-flow") == "cab"
    assert ordered(store.registry.list_task_runs, "task") == "bca"


def test_flows_are_summed_up_by_name(store):
    store.add_flow_run(Completed(), flow_name="b", started_at=NOON, ended_at=NOON + HOUR)
    store.add_flow_run(Completed(), flow_name="b", started_at=NOON, ended_at=NOON + 3 * HOUR)
    store.add_flow_run(Failed(), flow_name="b", started_at=NOON, ended_at=NOON + 99 * HOUR)
    store.add_flow_run(Crashed(), flow_name="b")
    last = store.add_flow_run(flow_name="b", started_at=NOON)
    only = store.add_flow_run(Scheduled(), flow_name="a")
    one, two = store.registry.list_flows()
    assert (one.name, one.last_run, one.mean_seconds, one.success_rate) == ("a", only, None, None)
    assert (two.name, two.last_run, two.mean_seconds, two.success_rate) == ("b", last, 7200, 0.5)
    assert (two.run_count, two.unfinished_count) == (5, 1)
    assert two.run_counts == {
        StateType.COMPLETED: 2,
        StateType.FAILED: 1,
        StateType.CRASHED: 1,
        StateType.RUNNING: 1,
    }


def test_a_registry_without_runs_has_no_flows(store):
    assert store.registry.list_flows() == []
