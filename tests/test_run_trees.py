"""What a view of a run tree has room for, and how it is said at any width."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefectlite.clock import now
from prefectlite.names import new_id
from prefectlite.records import FlowRun, Pause, TaskRun
from prefectlite.run_tree_texts import fitted, tree_lines
from prefectlite.run_trees import Entry, RunTree, Tally, read_tree
from prefectlite.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    NotReady,
    Paused,
    Pending,
    Running,
    Scheduled,
)
from prefectlite.text_tables import width


class Growing:
    """Puts runs on record, below each other."""

    def __init__(self, registry):
        self.registry = registry

    def flow_run(self, name="top", **fields):
        run = FlowRun(id=new_id(), name=name, flow_name="etl", state=Running(), **fields)
        self.registry.create_flow_run(run)
        return run

    def task_runs(self, flow_run, task, *states):
        runs = [
            TaskRun(
                id=new_id(),
                name=f"{task}-{number}",
                task_name=task,
                flow_run_id=flow_run.id,
                state=Running() if state.is_running() else Pending(),
                created_at=now(),
            )
            for number, state in enumerate(states)
        ]
        self.registry.create_task_runs(runs)
        for run, state in zip(runs, states, strict=True):
            if not (state.is_pending() and state.name == "Pending") and not state.is_running():
                self.registry.change_state(run, state)

    def names(self, flow_run, most):
        tree = read_tree(self.registry, flow_run.id, most=most)
        assert len(tree.entries) <= most
        return [f"{'.' * entry.depth}{entry.name}" for entry in tree.entries]


@pytest.fixture
def growing(registry):
    return Growing(registry)


def test_where_there_is_room_each_run_has_a_line_in_the_order_of_creation(growing):
    top = growing.flow_run()
    growing.task_runs(top, "get", Completed(), Running())
    child = growing.flow_run("child", parent_flow_run_id=top.id)
    growing.task_runs(child, "cut", Failed())
    growing.task_runs(top, "put", Pending())
    expected = ["etl top", ".get-0", ".get-1", ".etl child", "..cut-0", ".put-0"]
    assert growing.names(top, 6) == expected


def test_where_there_is_none_the_runs_of_a_task_share_a_line_above_those_that_go_on_or_failed(
    growing,
):
    top = growing.flow_run()
    states = [Completed(), Failed(), Running(), Crashed(), Pending(), Scheduled(), NotReady()]
    growing.task_runs(top, "get", *states, *[Completed()] * 9)
    assert growing.names(top, 8) == ["etl top", ".get", *(f"..get-{n}" for n in (1, 3, 6, 2))]
    # As many of those that go on as of those that failed.
    assert growing.names(top, 4) == ["etl top", ".get", "..get-1", "..get-2"]
    assert growing.names(top, 1) == ["etl top"]


def test_what_goes_on_comes_before_what_is_over_and_never_without_what_it_is_below(growing):
    top = growing.flow_run()
    for number in range(5):
        growing.task_runs(top, f"over{number}", Completed(), Completed())
    child = growing.flow_run("child", parent_flow_run_id=top.id)
    growing.task_runs(child, "late", Running(), Pending())
    assert growing.names(top, 4) == ["etl top", ".etl child", "..late", "...late-0"]
    tree = read_tree(growing.registry, top.id, most=3)
    assert (tree.missing.total(), tree.missing_flow_runs) == (10, 0)
    tree = read_tree(growing.registry, top.id, most=1)
    assert (tree.missing.total(), tree.missing_flow_runs) == (12, 1)


def test_what_failed_is_not_shown_without_the_run_that_completed_around_it(growing):
    top = growing.flow_run()
    growing.task_runs(top, "over", Completed(), Completed())
    child = growing.flow_run("child", parent_flow_run_id=top.id)
    growing.task_runs(child, "bad", Failed(), Completed(), Completed())
    growing.registry.change_state(child, Completed())
    assert growing.names(top, 3) == ["etl top", ".etl child", "..bad"]


def test_a_paused_run_says_how_to_resume_it(growing):
    top = growing.flow_run()
    schema = {"properties": {"approved": {"type": "boolean"}}, "required": ["approved"]}
    growing.registry.pauses.pause_flow_run(top, Paused(), Pause(input_schema=schema))
    _, hint = growing.names(top, 9)
    told = f".to resume: prefectlite flow-run resume {top.id[:8]} --input approved=BOOLEAN"
    assert hint == told


def test_a_run_that_is_not_on_record_is_nothing(growing):
    assert read_tree(growing.registry, new_id(), most=5) == RunTree([], Tally(), 0)


@pytest.mark.parametrize(
    ("states", "name"),
    [
        ([Completed(), Failed(), Running()], "Running"),
        ([Completed(), Failed(), Pending()], "Pending"),
        ([Completed(), Failed(), Completed()], "Failed"),
        ([Completed(), Completed(name="Cached"), Completed()], "Completed"),
        ([Completed(), NotReady()], "NotReady"),
        ([Failed(), Cancelled(), Cancelled()], "Cancelled"),
    ],
)
def test_the_state_of_several_runs_is_the_one_that_says_most(states, name):
    tally = Tally()
    for state in states:
        tally[state.type, state.name] += 1
    assert tally.state.name == name


def _tally(**numbers):
    states = {"done": Completed(), "failed": Failed(), "running": Running(), "waits": Pending()}
    return Tally({(states[k].type, states[k].name): number for k, number in numbers.items()})


def _lines(tree, columns, *, is_unicode=True):
    return ["".join(line) for line in tree_lines(tree, columns=columns, is_unicode=is_unicode)]


def _tree(**numbers):
    tally = _tally(**numbers)
    run = FlowRun(id=new_id(), name="fair-owl", flow_name="etl", state=Running(), created_at=now())
    began = now()
    run = replace(run, started_at=began, ended_at=began + timedelta(seconds=0.2))
    entries = [
        Entry("etl fair-owl", 0, Running(), 0, run=run, tally=tally),
        Entry("to resume: a long command with many words and options", 1, None, 0),
        Entry("transform", 1, Running(), 0, tally=tally),
    ]
    return RunTree(entries, _tally(done=7, waits=1), 2)


def test_a_line_has_a_name_a_state_a_time_and_a_bar():
    assert _lines(_tree(done=5, failed=1, running=2, waits=2), 80) == [
        "etl fair-owl  Running  0.2s  ████████████▒▒▒░░░░░░░░░ 6/10  2 running  1 failed",
        "  to resume: a long command with many words and options",
        "  transform   Running        ████████████▒▒▒░░░░░░░░░ 6/10  2 running  1 failed",
        "… and 8 more task runs: 7 Completed, 1 Pending; 2 more subflow runs",
    ]


@pytest.mark.parametrize(
    ("columns", "first"),
    [
        (60, "etl fair-owl  Running  0.2s  ###############xxx...... 6/10"),
        (40, "etl fair-owl  Running  0.2s  ####.. 6/10"),
        (30, "etl fair-owl  Running"),
        (19, "etl f>wl  Running"),
    ],
)
def test_a_narrow_line_says_less(columns, first):
    line = _lines(_tree(done=5, failed=1, running=2, waits=2), columns, is_unicode=False)[0]
    assert width(line) <= columns
    assert (line.split()[:2], line.isascii()) == (first.split()[:2], True)


@settings(max_examples=30, deadline=None)
@given(
    columns=st.integers(1, 300),
    numbers=st.tuples(*[st.integers(0, 10_000)] * 4).filter(any),
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
)
def test_no_line_is_wider_than_there_is_room_for(columns, numbers, name):
    tree = _tree(**dict(zip(("done", "failed", "running", "waits"), numbers, strict=True)))
    tree.entries.append(Entry(name, 5, Failed(), 0, tally=_tally(done=1)))
    for line in _lines(tree, columns):
        assert width(line) <= columns
        assert not set(line) & {"\n", "\r", "\t", "\x1b", "\x9b"}


def test_a_line_that_is_cut_keeps_its_colours():
    from prefectlite.console import Styled

    line = fitted(["abc", Styled("defgh", "red"), "ijk"], 6, mark="…")
    assert (line, line[1].style) == (["abc", "de…", ""], "red")
    assert fitted(["abc", "def"], 3, mark="…") == ["ab…", ""]
