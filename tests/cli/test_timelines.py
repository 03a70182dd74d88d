"""When runs waited, ran and were tried again, as text at any width and as a picture."""

import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefectlite.clock import from_microseconds
from prefectlite.names import new_id
from prefectlite.records import FlowRun, TaskRun
from prefectlite.states import (
    AwaitingRetry,
    Completed,
    Crashed,
    Failed,
    NotReady,
    Paused,
    Pending,
    Running,
    Scheduled,
)
from prefectlite.text_tables import short_name, width
from prefectlite.timeline_pictures import timeline_svg
from prefectlite.timeline_texts import timeline_lines
from prefectlite.timelines import Phase, Row, Span, Timeline, read_timeline, ticks

_BEGIN = from_microseconds(1_700_000_000_000_000)
_SVG = "{http://www.w3.org/2000/svg}"


class Drawing:
    """Puts runs on record, with states at so many seconds since the beginning."""

    def __init__(self, registry):
        self.registry = registry

    def flow_run(self, *states, name="fair-owl", flow_name="etl", **fields):
        (state, at), *rest = states
        run = FlowRun(
            id=new_id(),
            name=name,
            flow_name=flow_name,
            state=_at(state, at),
            created_at=_moment(at),
            started_at=_moment(at) if state.is_running() else None,
            **fields,
        )
        self.registry.create_flow_run(run)
        return self.change(run, *rest)

    def task_run(self, flow_run, name, *states, **fields):
        (state, at), *rest = states
        run = TaskRun(
            id=new_id(),
            name=name,
            task_name=name,
            flow_run_id=flow_run.id,
            state=_at(state, at),
            created_at=_moment(at),
            started_at=_moment(at) if state.is_running() else None,
            **fields,
        )
        self.registry.create_task_runs([run])
        return self.change(run, *rest)

    def change(self, run, *states):
        for state, at in states:
            run = self.registry.change_state(run, _at(state, at))
        return run

    def timeline(self, flow_run, limit=50):
        return read_timeline(self.registry, self.registry.find_flow_run(flow_run.id), limit=limit)


def _moment(seconds):
    return _BEGIN + timedelta(seconds=seconds)


def _at(state, seconds):
    return replace(state, timestamp=_moment(seconds))


@pytest.fixture
def drawing(registry):
    return Drawing(registry)


@pytest.fixture
def nightly(drawing):
    """A flow run of 10 seconds with a retry, a failure, and a subflow run with a task run."""
    top = drawing.flow_run((Scheduled(), -3600), (Pending(), -1), (Running(), 0))
    states = [(Running(), 1), (AwaitingRetry(), 2), (Running(name="Retrying"), 4), (Completed(), 5)]
    drawing.task_run(top, "shaky-0", *states)
    drawing.task_run(top, "bad-0", (Pending(), 0), (Running(), 6), (Failed(), 7))
    child = drawing.flow_run((Running(), 7), name="child", parent_flow_run_id=top.id)
    drawing.task_run(child, "cut-0", (Running(), 8), (Completed(), 9))
    drawing.change(child, (Completed(), 9))
    return drawing.change(top, (Failed("1/3 states failed."), 10))


def _spans(row):
    return [(span.phase, span.begin, span.end) for span in row.spans]


def test_a_timeline_begins_with_the_run_and_tells_waiting_from_running_and_from_trying_again(
    drawing, nightly
):
    timeline = drawing.timeline(nightly)
    assert (timeline.seconds, timeline.missing) == (10, 0)
    found = [(row.name, row.depth, row.state.name, _spans(row)) for row in timeline.rows]
    assert found == [
        ("etl", 0, "Failed", [(Phase.RAN, 0, 10)]),
        (
            "shaky-0",
            1,
            "Completed",
            [(Phase.RETRIED, 1, 2), (Phase.WAITED, 2, 4), (Phase.RAN, 4, 5)],
        ),
        ("bad-0", 1, "Failed", [(Phase.WAITED, 0, 6), (Phase.RAN, 6, 7)]),
        ("etl", 1, "Completed", [(Phase.RAN, 7, 9)]),
        ("cut-0", 2, "Completed", [(Phase.RAN, 8, 9)]),
    ]


def test_of_many_runs_the_longest_are_shown_below_what_is_left_of_their_parents(drawing, nightly):
    timeline = drawing.timeline(nightly, limit=2)
    assert [(row.name, row.depth) for row in timeline.rows] == [
        ("etl", 0),
        ("shaky-0", 1),
        ("etl", 1),
    ]
    assert timeline.missing == 2
    top = drawing.flow_run((Running(), 0))
    child = drawing.flow_run((Running(), 1), parent_flow_run_id=top.id)
    drawing.task_run(child, "long-0", (Running(), 1), (Completed(), 99))
    drawing.change(child, (Crashed(), 2))
    rows = drawing.timeline(drawing.change(top, (Crashed(), 3)), limit=1).rows
    assert [(row.name, row.depth) for row in rows] == [("etl", 0), ("long-0", 1)]


def test_a_run_that_goes_on_lasts_until_now_and_one_that_never_began_until_that_was_known(drawing):
    top = drawing.flow_run((Running(), 0), (Paused(), 5))
    timeline = drawing.timeline(top)
    assert [phase for phase, _, _ in _spans(timeline.rows[0])] == [Phase.RAN, Phase.PAUSED]
    assert timeline.seconds > 1_000
    assert timeline.rows[0].spans[-1].end == timeline.seconds
    other = drawing.flow_run((Running(), 0))
    drawing.task_run(other, "never-0", (Pending(), 1), (NotReady(), 3))
    drawing.change(other, (Failed(), 4))
    assert _spans(drawing.timeline(other).rows[1]) == [(Phase.WAITED, 1, 3)]


def test_a_task_run_that_a_task_called_is_below_it(drawing):
    top = drawing.flow_run((Running(), 0))
    outer = drawing.task_run(top, "outer-0", (Running(), 1))
    drawing.task_run(top, "inner-0", (Running(), 2), (Completed(), 3), parent_task_run_id=outer.id)
    drawing.change(outer, (Completed(), 4))
    drawing.change(top, (Completed(), 5))
    assert [row.depth for row in drawing.timeline(top).rows] == [0, 1, 2]


@settings(max_examples=200, deadline=None)
@given(st.floats(0.001, 1e8), st.integers(1, 50))
def test_ticks_are_at_most_so_many_of_one_step_and_different(seconds, most):
    found = ticks(seconds, most)
    assert 1 <= len(found) <= most
    assert found[0] == (0, "0s")
    assert found[-1][0] <= seconds
    assert len({text for _, text in found}) == len(found)


@pytest.mark.parametrize(
    ("seconds", "most", "texts"),
    [
        (0.02, 6, ["0s", "5ms", "10ms", "15ms", "20ms"]),
        (2, 5, ["0s", "0.5s", "1.0s", "1.5s", "2.0s"]),
        (100, 5, ["0s", "30s", "1m", "1m30s"]),
        (9_000, 6, ["0s", "30m", "1h", "1h30m", "2h", "2h30m"]),
        (200_000, 3, ["0s", "1d", "2d"]),
    ],
)
def test_ticks_are_where_a_person_would_put_them(seconds, most, texts):
    assert [text for _, text in ticks(seconds, most)] == texts


def test_a_name_that_is_cut_keeps_its_end(drawing):
    assert short_name("extract_everything-412", 12, mark="…") == "extract_…412"
    assert short_name("short", 12, mark="…") == "short"


def _lines(timeline, columns, *, is_unicode=True):
    lines = timeline_lines(timeline, columns=columns, is_unicode=is_unicode)
    return ["".join(line).rstrip() for line in lines]


_FLOW_RUN = FlowRun(id=new_id(), name="fair-owl", flow_name="etl", state=Completed())


def _row(name, *spans, state=None, depth=1, seconds=1.0):
    return Row(name, depth, state or Completed(), seconds, [Span(*span) for span in spans])


_EXAMPLE = Timeline(
    _FLOW_RUN,
    [
        _row("etl", (Phase.RAN, 0, 10), depth=0, seconds=10.0),
        _row(
            "get-0",
            (Phase.WAITED, 0, 2),
            (Phase.RETRIED, 2, 4),
            (Phase.WAITED, 4, 5),
            (Phase.RAN, 5, 6),
        ),
        _row("put-0", (Phase.PAUSED, 6, 8), (Phase.RAN, 8, 10), state=Failed()),
        _row("quick-0", (Phase.RAN, 9.9999, 10), seconds=0.0001),
    ],
    10.0,
    0,
)


def test_a_timeline_is_drawn_under_an_axis_with_a_legend_of_what_is_to_be_explained():
    assert _lines(_EXAMPLE, 62) == [
        "          0s                  5s",
        "etl       ████████████████████████████████████████ 10s",
        "  get-0   ░░░░░░░░▒▒▒▒▒▒▒▒░░░░████                 1.0s",
        "  put-0                           ┄┄┄┄┄┄┄┄████████ 1.0s Failed",
        "  quick-0                                        █ 0ms",
        "▒ tried again  ┄ paused  ░ waited",
    ]
    assert _lines(_EXAMPLE, 20, is_unicode=False) == [
        "       0s",
        "etl    #############",
        "  ge>0 ..xxx.##",
        "  pu>0        ---###",
        "  qu>0             #",
        "x tried again  - pa>",
    ]


@pytest.mark.parametrize("is_unicode", [True, False])
@pytest.mark.parametrize("columns", [20, 21, 40, 47, 48, 80, 300])
def test_a_timeline_is_no_wider_than_there_is_room_for(columns, is_unicode):
    lines = _lines(_EXAMPLE, columns, is_unicode=is_unicode)
    assert len(lines) == 6
    assert all(width(line) <= columns for line in lines)
    assert is_unicode or all(line.isascii() for line in lines)


# The picture


def _picture(timeline):
    text = timeline_svg(timeline)
    return text, ET.fromstring(text)


def test_the_picture_of_a_run_that_has_ended_is_the_same_each_time_and_needs_nothing_else(
    drawing, nightly
):
    text, root = _picture(drawing.timeline(nightly))
    assert text == timeline_svg(drawing.timeline(nightly))
    assert root.tag == f"{_SVG}svg"
    assert text.endswith("</svg>\n")
    assert "href" not in text
    assert {"etl", "shaky-0", "bad-0", "cut-0", "1.0s Failed"} <= {
        element.text for element in root.iter(f"{_SVG}text")
    }


def test_a_hostile_name_is_text_in_the_picture():
    name = "</text><script>alert('&')</script>\x1b[31m\ud7ff\uffff\x00"
    rows = [_row(name, (Phase.RAN, 0, 10), depth=0), _row(name * 9, (Phase.RAN, 0, 1))]
    run = replace(_FLOW_RUN, name=name, flow_name=name)
    text, root = _picture(Timeline(run, rows, 10.0, 3))
    assert root.find(f".//{_SVG}script") is None
    assert r"\x1b[31m" in text
    assert "Not shown: 3 shorter runs." in text


@pytest.mark.parametrize("count", [1, 5, 61, 500])
@pytest.mark.parametrize("letter", ["m", "界"])
def test_nothing_overlaps_in_the_picture(count, letter):
    rows = [_row("etl", (Phase.RAN, 0, 10), depth=0, seconds=360_000)]
    rows += [
        _row(
            letter * (number % 60 + 1), (Phase.WAITED, 0, 1), (Phase.RAN, 1, 10), depth=number % 30
        )
        for number in range(1, count)
    ]
    _, root = _picture(Timeline(_FLOW_RUN, rows, 10.0, 0))
    height = float(root.get("height"))
    tops = []
    for group in root.iter(f"{_SVG}g"):
        name, end = group.findall(f"{_SVG}text")
        spans = group.findall(f"{_SVG}rect")
        size = float(name.get("font-size")) * 0.61
        name_end = float(name.get("x")) + width(name.text) * size
        bars = [(float(bar.get("x")), float(bar.get("width"))) for bar in spans]
        assert name_end <= min(x for x, _ in bars)
        assert max(x + wide for x, wide in bars) <= float(end.get("x")) - width(end.text) * size
        tops.append(float(name.get("y")))
    assert len(tops) == count
    assert all(later - earlier >= 10 for earlier, later in pairwise(tops))
    assert tops[-1] < height


# The command


def test_inspect_shows_the_timeline_and_writes_the_picture(run, drawing, nightly, tmp_path):
    shown = run("flow-run inspect --timeline", nightly.id)
    assert (shown.exit_code, len(shown.stdout.splitlines())) == (0, 7)
    path = tmp_path / "a b.svg"
    path.write_text("old")
    written = run("flow-run inspect", nightly.id, "--svg", str(path))
    assert (written.exit_code, written.stdout, written.stderr) == (0, "", f"Wrote {path}\n")
    assert run("flow-run inspect --svg -", nightly.id).stdout == path.read_text()
    assert [each.name for each in tmp_path.glob("*svg*")] == ["a b.svg"]
    cut = run("flow-run inspect --timeline --limit 1", nightly.id)
    assert "3 runs that were shorter are not shown" in cut.stderr


@pytest.mark.parametrize("options", ["--timeline --json", "--svg x.svg --json", "--limit 3"])
def test_what_no_timeline_can_be_is_wrong_usage(run, nightly, options):
    assert run(f"flow-run inspect {options}", nightly.id).exit_code == 2


def test_a_picture_that_cannot_be_written_leaves_what_was_there(run, nightly, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (folder, folder / "missing" / "a.svg"):
        ended = run("flow-run inspect --svg", str(path), nightly.id)
        assert (ended.exit_code, f"cannot write '{path}': " in ended.stderr) == (5, True)
    assert list(folder.iterdir()) == []


def test_a_pipe_is_written_to_and_a_link_is_followed(run, nightly, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert run("flow-run inspect --svg", str(pipe), nightly.id).exit_code == 0
    assert pipe.is_fifo()
    assert os.read(reading, 4) == b"<svg"
    os.close(reading)
    link, target = tmp_path / "link.svg", tmp_path / "target.svg"
    target.write_text("old")
    link.symlink_to(target)
    assert run("flow-run inspect --svg", str(link), nightly.id).exit_code == 0
    assert link.is_symlink()
    assert target.read_text().startswith("<svg")
