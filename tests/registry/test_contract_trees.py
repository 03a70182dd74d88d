"""What every registry knows of a flow run and all that is below it: runs, counts, log lines."""

from datetime import timedelta

import pytest

from prefectlite.clock import from_microseconds
from prefectlite.names import new_id
from prefectlite.states import Completed, Failed, Running

_NOW = from_microseconds(1_700_000_000_000_000)


@pytest.fixture
def tree(store, line):
    """A flow run, its subflow run, one of that, and another flow run; each with a task run and lines."""
    top = store.add_flow_run(name="top")
    child = store.add_flow_run(name="child", parent_flow_run_id=top.id)
    grandchild = store.add_flow_run(name="grandchild", parent_flow_run_id=child.id)
    runs = [top, child, grandchild, store.add_flow_run(name="other")]
    for number, run in enumerate(runs):
        task_run = store.add_task_run(run, name=f"add-{number}", task_name="add")
        for level in (10, 20, 30):
            told = line(run, f"{run.name} {level}")
            at = _NOW + timedelta(seconds=level)
            store.registry.add_log_line(told._replace(level=level, timestamp=at))
        store.registry.add_log_line(line(run, f"{run.name} task", task_run=task_run))
    store.registry.flush_logs()
    return runs


def test_a_tree_is_a_flow_run_and_all_below_it_in_the_order_of_their_creation(store, tree):
    names = [[run.name for run in store.registry.list_run_tree(run.id)] for run in tree]
    assert names == [
        ["top", "child", "grandchild"],
        ["child", "grandchild"],
        ["grandchild"],
        ["other"],
    ]
    assert store.registry.list_run_tree(new_id()) == []


def test_tasks_are_counted_by_flow_run_and_state_in_the_order_of_their_first_runs(store, tree):
    top, child = tree[:2]
    for name, end in [("zip", Completed()), ("zip", Completed()), ("zip", Failed()), ("cut", None)]:
        run = store.add_task_run(child, Running(), name=f"{name}-n", task_name=name)
        if end is not None:
            store.registry.change_state(run, end)
    counts = store.registry.count_tasks(top.id)
    assert [(count.task_name, count.state_name, count.number) for count in counts] == [
        ("add", "Running", 1),
        ("add", "Running", 1),
        ("zip", "Completed", 2),
        ("zip", "Failed", 1),
        ("cut", "Running", 1),
        ("add", "Running", 1),
    ]
    assert [count.flow_run_id for count in counts][1:5] == [child.id] * 4
    assert counts[3].state_type == "FAILED"


def test_log_lines_of_a_tree_know_whose_they_are_and_keep_their_order(store, tree):
    lines = store.registry.read_logs(tree[0].id, with_subflows=True)
    assert [line.flow_run_id for line in lines] == [run.id for run in tree[:3] for _ in range(4)]
    assert [line.position for line in lines] == sorted(line.position for line in lines)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"least_level": 20}, ["top 20", "top 30", "top task"]),
        ({"since": _NOW + timedelta(seconds=20), "limit": 2}, ["top 20", "top 30"]),
        ({"tasks": ["add"]}, ["top task"]),
        ({"tasks": ["add-0"]}, ["top task"]),
        ({"tasks": ["add-1"]}, []),
        ({"tasks": ["add-1"], "with_subflows": True}, ["child task"]),
        (
            {"tasks": ["nothing", "add"], "with_subflows": True, "limit": 2},
            ["top task", "child task"],
        ),
        ({"limit": 2}, ["top 10", "top 20"]),
        ({"characters": 7}, ["top 10", "top 20"]),
        ({"characters": 1, "least_level": 30}, ["top 30"]),
        ({"limit": 2, "is_last": True}, ["top 30", "top task"]),
        ({"limit": 1, "is_last": True, "with_subflows": True}, ["grandchild task"]),
        ({"limit": None, "is_last": True}, ["top 10", "top 20", "top 30", "top task"]),
    ],
    ids=str,
)
def test_read_logs_gives_the_lines_that_are_asked_for(store, tree, query, expected):
    assert store.messages(tree[0], **query) == expected


def test_lines_of_a_task_run_are_found_by_its_id_and_by_the_start_of_it_in_any_case(store, line):
    run = store.add_flow_run()
    task_runs = [store.add_task_run(run, id=f"{letter}{new_id()[1:]}") for letter in "ab"]
    for task_run in task_runs:
        store.registry.add_log_line(line(run, task_run.id, task_run=task_run))
    store.registry.flush_logs()
    wanted = task_runs[0].id
    for word in (wanted, wanted[:8], wanted[:1].upper()):
        assert store.messages(run, tasks=[word]) == [wanted]


def test_the_last_position_is_that_of_the_newest_line(store, tree):
    top = tree[0].id
    for with_subflows in (False, True):
        last = store.registry.read_logs(top, with_subflows=with_subflows)[-1].position
        assert store.registry.last_log_position(top, with_subflows=with_subflows) == last
    assert store.registry.last_log_position(new_id()) == 0
