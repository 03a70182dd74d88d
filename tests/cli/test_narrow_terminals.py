"""Tables on terminals of any width: no line is wider, and what matters most is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefectlite import cli, console
from prefectlite.states import AwaitingRetry, Failed
from prefectlite.text_tables import width

SOURCES = str(Path(cli.__file__).parents[2])


@pytest.fixture
def on_terminal(run, monkeypatch):
    """Run a command line on a terminal that has so many columns."""

    def run_command(columns, line):
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setattr(console, "_is_terminal", lambda _: True)
        monkeypatch.setattr(console, "columns", lambda _: columns)
        return run(line)

    return run_command


@pytest.fixture
def long_names(seeds):
    flow_run = seeds.flow_run(
        "a-long-name-" * 9, end=False, flow_name="日本語の流れ" * 9, tags=("t" * 50, "u")
    )
    seeds.task_run(flow_run, "cafe\N{COMBINING ACUTE ACCENT}\N{GRINNING FACE}" * 20)
    seeds.registry.change_state(flow_run, AwaitingRetry("a message " * 20))
    return flow_run, seeds.flow_run("short", end=Failed("why"))


@pytest.mark.parametrize(
    "line",
    [
        "flow-run ls",
        "flow-run ls --columns message,tags,parameters,id,state,pid,flow,created",
        "task-run ls",
        "flow ls",
        "config view --show-defaults --show-sources",
        "block type ls",
    ],
)
def test_no_line_of_a_table_is_wider_than_the_terminal(on_terminal, long_names, line):
    rows = len(on_terminal(1_000, line).stdout.splitlines())
    for columns in (1, 2, 5, 9, *range(10, 90, 3), 120, 200, 300):
        lines = on_terminal(columns, line).stdout.splitlines()
        assert len(lines) == rows
        assert all(width(one) <= columns for one in lines), columns
        assert not any(one.endswith(" ") for one in lines)


def test_id_and_state_are_there_from_20_columns_and_more_where_there_is_room(
    on_terminal, long_names
):
    flow_run, _ = long_names
    for columns, titles in {
        20: ["ID", "STATE"],
        40: ["ID", "NAME", "STATE"],
        55: ["ID", "FLOW", "NAME", "STATE", "DURATION"],
        80: ["ID", "FLOW", "NAME", "STATE", "STARTED", "DURATION"],
    }.items():
        header, _, row = on_terminal(columns, "flow-run ls").stdout.splitlines()
        assert header.split() == titles, columns
        assert row.split()[0] == flow_run.id[:8]
        assert "Await" in row


def test_what_there_is_no_room_for_is_told_beside_the_table(on_terminal, long_names):
    ended = on_terminal(40, "flow-run ls")
    assert ended.stderr == "note: this terminal is too narrow for: FLOW, STARTED, DURATION\n"
    assert on_terminal(100, "flow-run ls").stderr == ""


def test_of_columns_that_were_named_the_first_are_kept(on_terminal, long_names):
    header = on_terminal(30, "flow-run ls --columns started,id,state").stdout.splitlines()[0]
    assert header.split() == ["STARTED", "ID"]


def test_columns_of_wide_characters_stand_below_each_other_in_a_pipe_too(run, long_names):
    header, short, long = run("flow-run ls --columns flow,name").stdout.splitlines()
    at = width(long[: long.index("a-long")])
    assert header.index("NAME") == at == short.index("short")


def test_a_text_that_was_cut_says_so_where_there_is_only_ascii(start, seeds):
    seeds.flow_run("café-" * 40)
    program = (
        "import sys; from prefectlite import console; console._is_terminal = lambda _: True;"
        "console.columns = lambda _: 60; from prefectlite.__main__ import main; code = main();"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, "flow-run", "ls"],
        env={**os.environ, "PYTHONPATH": SOURCES, "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    _, row = ended.stdout.decode("ascii").splitlines()
    assert len(row) <= 60
    assert r"caf\xe9-caf" in row
    assert ">  Completed" in row
    modules = ended.stderr.decode().split()
    assert "prefectlite.console" in modules
    assert {"rich", "csv", "difflib", "unicodedata"} & {*modules} == set()
