"""prefectlite run in a step of GitHub Actions: its annotations, and the summary of the step."""

import html
import re
import sys
from pathlib import Path

import pytest

from prefectlite.github import error_commands, summary
from prefectlite.registry import open_registry
from prefectlite.run_reports import read_reports
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Completed, Crashed, Failed

_FLOWS = r"""
from elsewhere import library
from prefectlite import flow, task
from prefectlite.task_runners import ProcessPoolTaskRunner

def inner(text):
    raise ValueError(text)      # line 7

@task
def fails(text):
    inner(text)

@task
def fails_below():
    library()                   # line 15

@flow
def etl(text: str = "no rows"):
    fails.submit(text)

@flow
def below():
    fails_below()

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def pooled():
    fails.submit("no rows")

@flow
def many(n: int):
    fails.map(["x"] * n)

@flow
def good():
    pass
"""
_LIBRARY = """
def library():
    return 1 / 0
"""


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """A checkout with a folder of flows, which is current; what a test imports is forgotten."""
    workspace = tmp_path / "check,out: 100%"
    (workspace / "flows").mkdir(parents=True)
    (workspace / "flows" / "gh_flows.py").write_text(_FLOWS)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "elsewhere.py").write_text(_LIBRARY)
    monkeypatch.chdir(workspace / "flows")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "lib")])
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(workspace))
    yield workspace
    for name in ("gh_flows", "elsewhere"):
        sys.modules.pop(name, None)


@pytest.fixture
def step_summary(tmp_path, monkeypatch):
    """The file of the step's summary; it exists, as the runner makes it."""
    path = tmp_path / "summary.md"
    path.touch()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def _annotations(text):
    """Return the properties and the message of each error, as the runner takes them from a line.

    As actions/runner does it: a line begins with the command, the properties end at the next two
    colons, commas part them, and what is escaped is put back with ``%`` last.
    """
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"::error (.*?)::(.*)", line)
        if match:
            pairs = (pair.split("=", 1) for pair in match[1].split(","))
            properties = {name: _unescaped(value, ":,") for name, value in pairs}
            found.append((properties, _unescaped(match[2], "")))
    return found


def _unescaped(text, more):
    for character in ("\r", "\n", *more, "%"):
        text = text.replace(f"%{ord(character):02X}", character)
    return text


def _rows(markdown):
    """Return the cells of each row of the tables, without their escapes."""
    rows = [line[2:-2].split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    assert all(len(row) == 4 for row in rows), rows
    return [[html.unescape(cell) for cell in row] for row in rows]


def _recorded():
    return open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs()[0]


@pytest.mark.parametrize("flow", ["etl", "pooled"])
def test_a_failed_task_is_annotated_where_the_users_own_code_failed(run, flow):
    ended = run(f"run gh_flows:{flow}")
    assert (ended.exit_code, ended.stdout) == (1, "")
    ((properties, message),) = _annotations(ended.stderr)
    assert properties == {
        "file": "flows/gh_flows.py",
        "line": "7",
        "title": "Task run 'fails-0' is Failed",
    }
    first, *trace = message.splitlines()
    assert first == "Task run encountered an exception. ValueError: no rows"
    assert trace[-1] == "ValueError: no rows"


def test_a_frame_that_is_not_of_the_workspace_is_passed_over(run, tmp_path, monkeypatch):
    ((properties, _),) = _annotations(run("run gh_flows:below").stderr)
    assert (properties["file"], properties["line"]) == ("flows/gh_flows.py", "15")
    monkeypatch.delenv("GITHUB_WORKSPACE")
    ((properties, _),) = _annotations(run("run gh_flows:below").stderr)
    assert properties["file"] == str(tmp_path / "lib" / "elsewhere.py")


def test_libraries_in_the_workspace_are_not_the_users_own(seeds, workspace):
    own, library = workspace / "my.py", workspace / ".venv/lib/python3/site-packages/x.py"
    flow_run = seeds.flow_run(end=False)
    task_run = seeds.task_run(flow_run, end=Failed("why"))
    frames = f'  File "{own}", line 3, in a\n  File "{library}", line 4, in b\n'
    trace = f"Encountered exception during execution:\nTraceback:\n{frames}ValueError"
    seeds.log(flow_run, trace, task_run=task_run, level=40)
    (command,) = error_commands(read_reports(seeds.registry, flow_run.id)[:1])
    ((properties, _),) = _annotations(command)
    assert (properties["file"], properties["line"]) == ("my.py", "3")


def test_no_text_of_a_run_ends_its_annotation_or_begins_another(run):
    evil = "50% a:b,c=d\r\n::error file=x::y\n%0A\x1b[2J"
    ended = run("run gh_flows:etl --name", "a,b: c%\n::debug::x", "-p", f"text={evil}")
    assert "\x1b[2J" not in ended.stderr.splitlines()[-3]
    annotations = _annotations(
        "\n".join(line for line in ended.stderr.splitlines() if line.startswith("::error file=f"))
    )
    ((properties, message),) = annotations
    assert properties["title"] == "Task run 'fails-0' is Failed"
    assert "ValueError: 50% a:b,c=d\n::error file=x::y\n%0A\\x1b[2J" in message


def test_a_hostile_name_stays_in_the_title(seeds):
    flow_run = seeds.flow_run("a,b: c%\n::debug::x", end=Crashed())
    (command,) = error_commands(read_reports(seeds.registry, flow_run.id))
    ((properties, message),) = _annotations(command)
    assert properties == {"title": "Flow run 'a,b: c%\\n::debug::x' is Crashed"}
    assert message == "Flow run is Crashed."


def test_no_more_is_annotated_than_github_shows_and_the_last_counts_the_rest(run):
    annotations = _annotations(run("run gh_flows:many -p n=12").stderr)
    assert len(annotations) == 10
    assert annotations[-1][0] == {"title": "3 more runs have failed"}
    assert len(_annotations(run("run gh_flows:many -p n=10").stderr)) == 10


def test_a_long_message_is_cut_below_what_github_takes(run):
    ended = run("run gh_flows:etl -p", "text=" + "x" * 10_000)
    ((_, message),) = _annotations(ended.stderr)
    assert len(message) < 4_096
    assert "\n...\n" in message


@pytest.mark.parametrize("value", ["", "false", "1", "TRUE"])
def test_elsewhere_nothing_of_it_is_done(run, monkeypatch, step_summary, value):
    monkeypatch.setenv("GITHUB_ACTIONS", value)
    assert "::error" not in run("run gh_flows:etl").stderr
    assert "::error" not in run("run gh_flows:etl --junit out.xml").stderr
    assert step_summary.read_text() == ""


def test_the_summary_says_what_became_of_the_run_failures_first(run, seeds, step_summary):
    step_summary.write_text("what another command has to say")
    assert run("run gh_flows:good --name early").exit_code == 0
    flow_run = seeds.flow_run("late", end=False)
    for name, state in (("a", Completed()), ("b", Crashed("gone")), ("c", Failed("why"))):
        seeds.task_run(flow_run, name, end=state)
    seeds.end(flow_run, Failed("2/3 states failed."))
    text = step_summary.read_text()
    assert text.startswith(
        "what another command has to say\n### Flow run early of good: Completed\n"
    )
    text = summary(read_reports(seeds.registry, flow_run.id), room=10_000)
    assert html.unescape(text).startswith("\n### Flow run late of my-flow: Failed\n\n")
    assert "ms, `" in html.unescape(text)
    assert [row[:2] for row in _rows(text)] == [
        ["Task run", "State"],
        ["c", "Failed"],
        ["b", "Crashed"],
        ["a", "Completed"],
    ]
    assert [row[3] for row in _rows(text)] == ["Message", "why", "gone", ""]


def test_no_text_of_a_run_is_markdown_or_html(seeds):
    evil = "<img src=x> | a\n\n# b `c` [d](http://e) *f* \\| @g ::h ~~i~~ <!-- \x1b\u202e"
    flow_run = seeds.flow_run(evil, flow_name=evil, end=False)
    seeds.task_run(flow_run, evil, end=Failed(evil))
    seeds.end(flow_run, Failed(evil))
    text = summary(read_reports(seeds.registry, flow_run.id), room=10_000)
    _, row = _rows(text)
    shown = " ".join(evil.split()).replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert (row[0], row[3]) == (shown, shown)
    plain = re.sub("&#[0-9]+;", "", text)
    assert not {*"<>[]()*\\@~!"} & {*plain}
    assert plain.count("#") == 3
    assert plain.count("`") == 2
    assert len(text.splitlines()) == 8


def test_the_summary_is_cut_where_there_is_no_room_and_says_so(seeds, step_summary):
    flow_run = seeds.flow_run(end=False)
    for number in range(40):
        seeds.task_run(flow_run, f"task-{number}")
    seeds.end(flow_run)
    reports = read_reports(seeds.registry, flow_run.id)
    whole = summary(reports, room=100_000)
    assert len(_rows(whole)) == 41
    cut = summary(reports, room=1_500)
    assert len(cut.encode()) <= 1_500
    assert 5 < len(_rows(cut)) < 41
    assert "There is more" in cut.splitlines()[-1]
    assert summary(reports, room=50) == summary(reports, room=-1) == ""


def test_a_step_never_has_more_than_github_takes(run, step_summary):
    step_summary.write_bytes(b"x" * (1024 * 1024 - 100))
    assert run("run gh_flows:good").exit_code == 0
    assert step_summary.stat().st_size == 1024 * 1024 - 100


def test_a_summary_that_cannot_be_written_is_noted_and_changes_no_code(run, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    ended = run("run gh_flows:good")
    assert ended.exit_code == 0
    assert "note: the step summary cannot be written: Is a directory" in ended.stderr


def test_stdout_stays_the_documents(run, step_summary):
    ended = run("run gh_flows:etl --json")
    assert ended.stdout.startswith("{")
    assert len(ended.stdout.splitlines()) == 1
    assert len(_annotations(ended.stderr)) == 1
    assert step_summary.read_text().startswith("\n### Flow run ")
    assert Path("gh_flows.py").exists()
    assert _recorded().state.is_failed()
