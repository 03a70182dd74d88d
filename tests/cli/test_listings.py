"""What every ``ls`` shares: forms, columns, order, limit; and that no two differ in it."""

import csv
import io
import json
from datetime import datetime

import pytest

from prefectlite import console
from prefectlite.clock import now
from prefectlite.command_tree import every_command
from prefectlite.commands import Group, documentation, parameters
from prefectlite.deployment_records import Agent
from prefectlite.record_tables import Listing, RecordTable, show_all
from prefectlite.records import ProcessIdentity
from prefectlite.run_filters import FLOW_RUN_ORDERS, TASK_RUN_ORDERS
from prefectlite.states import Failed

_FORMS = ("table", "json", "jsonl", "csv")


def _listings(group=None, words=()):
    """Yield the words, the function and the table of every command that lists records."""
    for word, one in (group or every_command()).items():
        if isinstance(one, Group):
            yield from _listings(one, (*words, word))
        elif {"--columns", "--sort"} <= {name for each in parameters(one) for name in each.names}:
            used = [one.__globals__.get(name) for name in one.__code__.co_names]
            (table,) = (each for each in used if isinstance(each, RecordTable))
            yield " ".join([*words, word]), one, table


_EVERY = [*_listings()]
_LINES = [line for line, _, _ in _EVERY]


def test_every_group_whose_things_are_on_record_can_list_them():
    assert {*_LINES} >= {
        "agent ls", "block ls", "block type ls", "config view", "deployment ls", "flow ls",
        "flow-run ls", "notification ls", "profile ls", "task-run ls", "work-queue ls",
    }  # fmt: skip


@pytest.mark.parametrize(("line", "function", "table"), _EVERY, ids=_LINES)
def test_the_help_of_a_listing_names_its_columns_in_order(line, function, table):
    told = " ".join(documentation(function).prose)
    names = [column.name for column in table.columns]
    assert f"Columns: {', '.join(names)}." in told
    assert len({*names}) == len(names)
    assert {*table.keep} <= {*names}


@pytest.mark.parametrize(("line", "function", "table"), _EVERY, ids=_LINES)
def test_every_listing_has_every_form_with_every_column(filled, line, function, table):
    names = [column.name for column in table.columns]
    every = f"--columns {','.join(names)}"
    (header, *rows) = csv.reader(io.StringIO(filled(f"{line} --format csv {every}").stdout))
    assert header == names
    assert rows or line == "agent ls"
    documents = json.loads(filled(f"{line} --format json {every}").stdout)
    assert len(documents) == len(rows)
    assert all([*document] == names for document in documents)
    lines = filled(f"{line} --format jsonl {every}").stdout.splitlines()
    assert [json.loads(one) for one in lines] == documents
    shown = filled(f"{line} {every}").stdout.splitlines()
    assert len(shown) == len(rows) + 1
    assert "  ".join(column.title for column in table.columns).split() == shown[0].split()
    quiet = filled(f"{line} -q").stdout.splitlines()
    assert len(quiet) == len(rows)
    assert filled(f"{line} --limit 1 -q").stdout.splitlines() == quiet[:1]


@pytest.mark.parametrize("line", _LINES)
def test_every_listing_prints_json_when_asked_the_short_way_or_the_long(filled, line):
    short = filled(f"{line} --json").stdout
    assert isinstance(json.loads(short), list)
    assert filled(f"{line} --format json").stdout == short
    assert filled(f"{line} --json --format json").stdout == short


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ("--columns nmae", "there is no column 'nmae' to show", "did you mean name?"),
        ("--columns id,,name", "there is no column '' to show", "there are: "),
        ("--columns +id,zzz", "there is no column 'zzz' to show", "there are: "),
        ("--sort nmae", "there is no column 'nmae' to sort by", "did you mean name?"),
        ("--sort --id", "there is no column '-id'", "there are: "),
        ("--format xml", "'xml' is none of table, json, jsonl, csv", "hint: "),
        ("--json --format csv", "--json and --format csv cannot be given together", ""),
        ("-q --json", "--quiet and --json cannot", ""),
        ("-q --format table", "--quiet and --format cannot", ""),
        ("-q --columns id", "--quiet and --columns cannot", ""),
        ("--limit 0", "--limit: 0 is less than 1", ""),
    ],
)
@pytest.mark.parametrize("line", ["flow-run ls", "deployment ls"])
def test_options_that_are_wrong_are_refused(run, line, options, message, hint):
    ended = run(f"{line} {options}")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert hint in ended.stderr


def test_columns_are_shown_in_the_order_in_which_they_are_named_each_once(run, seeds):
    flow_run = seeds.flow_run("n", tags=("x",))
    shown = run("flow-run ls --columns Name,ID,name").stdout.splitlines()
    assert [line.split() for line in shown] == [["NAME", "ID"], ["n", flow_run.id]]
    usual = run("flow-run ls").stdout.splitlines()[0].split()
    assert run("flow-run ls --columns +tags,+id").stdout.splitlines()[0].split() == [*usual, "TAGS"]


def test_csv_and_json_columns_have_raw_values(run, seeds):
    flow_run = seeds.flow_run("a,b", tags=("x", "y"), parameters={"k": 'say "hi"'})
    names = "name,started,duration,tags,parameters,queue,attempts"
    started, seconds = flow_run.started_at.isoformat(), flow_run.duration_seconds
    (_, row) = csv.reader(io.StringIO(run(f"flow-run ls --format csv --columns {names}").stdout))
    assert row == ["a,b", started, f"{seconds:.6f}", "x,y", '{"k": "say \\"hi\\""}', "", "1"]
    (document,) = json.loads(run(f"flow-run ls --json --columns {names}").stdout)
    parameters = {"k": 'say "hi"'}
    assert [*document.values()] == ["a,b", started, seconds, ["x", "y"], parameters, None, 1]
    assert datetime.fromisoformat(document["started"]).utcoffset() is not None


def test_csv_keeps_line_ends_in_quotes_and_ends_its_own_lines_as_unix_does(run, seeds):
    seeds.flow_run(end=Failed("two\nlines"))
    assert run("flow-run ls --format csv --columns message").stdout == 'message\n"two\nlines"\n'


def test_csv_on_a_terminal_cannot_act_on_it(run, seeds, monkeypatch):
    seeds.flow_run(end=Failed("\x1b[2J"))
    monkeypatch.setattr(console, "_is_terminal", lambda _: True)
    assert "\x1b" not in run("flow-run ls --format csv --columns message").stdout


def test_a_listing_without_records_is_empty_in_every_form(run):
    shown = [run(f"flow-run ls --columns id --format {form}").stdout for form in _FORMS]
    assert shown == ["ID\n", "[]\n", "", "id\n"]
    assert run("flow-run ls --quiet").stdout == ""


def test_small_listings_are_sorted_by_any_column_and_those_without_a_value_come_last(run):
    for name, limit in {"b": "2", "c": "none", "a": "10"}.items():
        assert run(f"work-queue create {name}").exit_code == 0
        assert run(f"work-queue set-limit {name} {limit}").exit_code == 0

    def names(options):
        return [one["name"] for one in json.loads(run(f"work-queue ls --json {options}").stdout)]

    assert names("--sort name") == ["a", "b", "c"]
    assert names("--sort -name") == ["c", "b", "a"]
    assert names("--sort limit") == ["b", "a", "c"]
    assert names("--sort -limit") == ["a", "b", "c"]
    assert names("--sort -limit -n 2") == ["a", "b"]


@pytest.fixture
def more(filled, seeds):
    """Records of each kind but agents that differ in every column, some without a value."""
    parent = seeds.flow_run("parent", flow_name="other", end=False)
    seeds.task_run(parent, "other-0")
    seeds.end(parent)
    seeds.flow_run("child", end=False, flow_name="new", parent_flow_run_id=parent.id)
    for line in (
        "deployment build deployed_flows.py:etl -n n -p n=1 -t a --apply",
        "deployment build deployed_flows.py:etl -n day -p day=x --apply",
        "work-queue create slow --limit 2 --priority 1",
        "block create string other value=ho",
        "notification create -t a --block custom-webhook/chat --template hi",
    ):
        assert filled(line).exit_code == 0
    return filled


@pytest.mark.parametrize(("line", "function", "table"), _EVERY, ids=_LINES)
def test_every_listing_can_be_sorted_by_each_of_its_columns_both_ways(more, line, function, table):
    by_line = {"flow-run ls": FLOW_RUN_ORDERS, "task-run ls": TASK_RUN_ORDERS}
    names = by_line.get(line, [column.name for column in table.columns])
    quiet = f"{line}{' --show-defaults' if line == 'config view' else ''} -q"
    listed = sorted(more(quiet).stdout.splitlines())
    assert len(listed) > 1 or line == "agent ls"
    for sort in (f"{sign}{name}" for sign in ("", "-") for name in names):
        ended = more(f"{quiet} --sort {sort}")
        assert ended.exit_code == 0, ended.stderr
        assert sorted(ended.stdout.splitlines()) == listed, sort


def test_agents_can_be_sorted_by_each_column(capsys):
    table = next(table for line, _, table in _EVERY if line == "agent ls")
    process = ProcessIdentity(
        token="t",
        hostname="host",
        machine_id=None,
        boot_id=None,
        pid_namespace=None,
        pid=7,
        start_ticks=1,
        lock_path=None,
    )
    fields = {"process": process, "started_at": now()}
    agents = [
        Agent(id="1", name="a", work_queues=("x",), concurrency_limit=None, **fields),
        Agent(id="2", name="b", work_queues=("x", "y"), concurrency_limit=2, **fields),
    ]
    for column in table.columns:
        show_all(agents, table, Listing(sort=column.name, quiet=True))
        assert sorted(capsys.readouterr().out.split()) == ["a", "b"]


def test_what_is_sorted_by_parameters_is_sorted_by_their_json(more):
    def parameters_by(sort):
        return [
            one["parameters"] for one in json.loads(more(f"deployment ls --json {sort}").stdout)
        ]

    ordered = [{}, {"day": "x"}, {"n": 1}]
    assert parameters_by("--sort parameters") == ordered
    assert parameters_by("--sort -parameters") == ordered[::-1]


def test_runs_are_sorted_before_they_are_limited(run, seeds):
    for name in ("b", "a", "c"):
        seeds.flow_run(name)
    assert run("flow-run ls --sort name -n 1 --columns name").stdout.split() == ["NAME", "a"]
    assert run("flow-run ls --sort -name -n 1 --columns name").stdout.split() == ["NAME", "c"]
    assert run("flow-run ls --sort=-created -n 1 --columns name").stdout.split() == ["NAME", "c"]
    assert run("flow-run ls --sort message").exit_code == 2


def test_names_are_printed_where_commands_take_names(filled):
    assert filled("profile ls -q").stdout.splitlines() == ["default", "ci"]
    assert "string/note" in filled("block ls -q").stdout.splitlines()
    assert filled("flow ls -q").stdout.splitlines() == ["my-flow", "the flow"]
