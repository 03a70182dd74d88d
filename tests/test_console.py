"""What the console lets through, and how it shows times, ids, tables and JSON."""

import io
import json
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefectlite import console
from prefectlite.clock import now
from prefectlite.errors import NotFoundError, OutputClosedError, OutputError
from prefectlite.states import Completed, StateType

_MOMENT = datetime(2024, 2, 29, 21, 31, 37, 513_999, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _automatic_colour():
    console.use_color(console.Color.AUTO)
    yield
    console.use_color(console.Color.AUTO)


@given(st.text())
def test_an_escaped_text_is_one_line_that_moves_no_cursor(text):
    escaped = console.escaped(text)
    assert len(escaped.splitlines()) <= 1
    assert not [mark for mark in escaped if ord(mark) < 0x20 or 0x7F <= ord(mark) < 0xA0]


@pytest.mark.parametrize("text", ["plain", "café ☕", "👩‍👩‍👧", "日本", "", "a  b", "\\x1b"])
def test_a_harmless_text_is_shown_as_it_is(text):
    assert console.escaped(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202e\u2066\u2028", r"\u202e\u2066\u2028"),
    ],
)
def test_a_dangerous_text_is_shown_escaped(text, shown):
    assert console.escaped(text) == shown


@given(st.text(), st.text())
def test_a_log_message_never_begins_a_line_of_its_own(source, message):
    first, *rest = console.log_text(_MOMENT, 20, source, message).split("\n")
    assert " | INFO    | " in first
    assert all(line.startswith("    ") for line in rest)


def test_a_log_line_has_local_time_to_the_millisecond_and_a_padded_level():
    time = _MOMENT.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    line = console.log_text(_MOMENT, 30, "Flow run 'a'", "hello")
    assert line == f"{time}.513 | WARNING | Flow run 'a' - hello"


def test_a_log_line_of_today_has_no_date():
    moment = now()
    line = console.log_text(moment, 20, "mine", "hello")
    assert line.startswith(moment.astimezone().strftime("%H:%M:%S"))


def test_times_are_local_and_absent_ones_are_empty():
    assert console.moment_text(_MOMENT) == _MOMENT.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert console.moment_text(None) == console.seconds_text(None) == ""
    assert console.seconds_text(192) == "3m12s"


def test_every_type_of_state_has_a_colour():
    for type_ in StateType:
        assert console._STATE_STYLES[type_] in console._ANSI
    assert console.state_text(Completed()).style == "green"


def test_a_table_in_a_pipe_is_aligned_columns_two_spaces_apart(capsys):
    console.out_table(["A", "LONGER", "C"], [["1", "2", ""], ["\n", "", "three"]])
    assert capsys.readouterr().out == ("A   LONGER  C\n1   2       -\n\\n  -       three\n")


def test_colour_does_not_move_the_columns(capsys):
    rows = [[console.Styled("x", "red"), "1"], [console.Styled("long", "green"), "2"]]
    console.out_table(["S", "N"], rows)
    plain = capsys.readouterr().out
    console.use_color(console.Color.ALWAYS)
    console.out_table(["S", "N"], rows)
    painted = capsys.readouterr().out
    assert "\x1b[31mx\x1b[0m     1" in painted
    for code in ("\x1b[31m", "\x1b[32m", "\x1b[0m"):
        painted = painted.replace(code, "")
    assert painted == plain


def test_ids_on_a_terminal_are_as_long_as_it_takes_to_tell_them_apart(monkeypatch):
    ids = ["aaaaaaaa-1", "aaaaaaaa-2", "bbbbbbbb-1", "bbbbbbbb-1"]
    assert console.id_texts(ids) == ids
    monkeypatch.setattr(console, "_is_terminal", lambda _: True)
    assert console.id_texts(ids) == ids
    assert console.id_texts(ids[1:]) == ["aaaaaaaa", "bbbbbbbb", "bbbbbbbb"]
    assert console.id_texts([]) == []


def test_fields_without_a_value_are_left_out(capsys):
    console.out_fields({"Name": "a\x1b", "Message": "", "Tags": "b"})
    assert capsys.readouterr().out == "Name     a\\x1b\nTags     b\n"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON, st.sampled_from([None, 2]))
def test_json_is_valid_and_safe_to_show_whatever_it_says(value, indent):
    def refuse(constant):
        raise AssertionError(constant)

    text = console.json_text(value, indent=indent)
    json.loads(text, parse_constant=refuse)
    assert not [mark for mark in text if mark != "\n" and ord(mark) in console._UNSAFE]


@given(st.text())
def test_a_text_comes_back_from_json_as_it_was(text):
    assert json.loads(console.json_text(text)) == text


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize(
    "values",
    [
        *([], [1], [{}, []], [{"a": [1, {"b": None}]}, {"c": "x\ny"}]),
        [[float("nan")], "\x7f\u2028\N{SNOWMAN}"],
    ],
)
def test_a_json_list_is_the_same_text_when_it_is_printed_piece_by_piece(
    capsys, monkeypatch, values, is_terminal
):
    monkeypatch.setattr(console, "_is_terminal", lambda _: is_terminal)
    console.out_json(values)
    whole = capsys.readouterr().out
    console.out_json_list(iter(values))
    assert capsys.readouterr().out == whole


def test_lists_are_printed_as_they_are_made(capsys):
    printed = []

    def rows():
        for number in range(3):
            yield [number]
            printed.append(capsys.readouterr().out)

    console.out_json_list(rows())
    assert "".join(printed) == "[[0], [1], [2]"
    assert capsys.readouterr().out == "]\n"
    printed.clear()
    console.out_csv(rows())
    assert printed == ["0\n", "1\n", "2\n"]


def test_json_has_no_number_that_is_none(capsys):
    console.out_json({"a": [float("nan"), float("inf"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"a": ["nan", "inf", 1.5]}


def test_an_error_is_one_line_and_a_hint_on_stderr(capsys):
    console.error(NotFoundError("no\nsuch", hint="look"))
    console.error("plain")
    console.note("by the way")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: no\\nsuch\nhint: look\nerror: plain\nnote: by the way\n"


@pytest.mark.parametrize(
    ("failure", "expected"), [(BrokenPipeError, OutputClosedError), (OSError, OutputError)]
)
def test_output_that_cannot_be_written_is_an_error_of_ours(monkeypatch, failure, expected):
    class Broken(io.StringIO):
        def write(self, _):
            raise failure

    monkeypatch.setattr(sys, "stdout", Broken())
    for out, value in ((console.out, "x"), (console.out_csv, [["x"]]), (console.out_json_list, [])):
        with pytest.raises(expected) as raised:
            out(value)
        assert type(raised.value) is expected
    # There is nobody left to tell when stderr breaks.
    monkeypatch.setattr(sys, "stderr", Broken())
    console.error("x")


@pytest.mark.parametrize(
    ("is_terminal", "no_color", "term", "choice", "expected"),
    [
        (True, "", "xterm", "auto", True),
        (True, "", "", "auto", False),
        (False, "", "xterm", "auto", False),
        (True, "1", "xterm", "auto", False),
        (True, "", "dumb", "auto", False),
        (True, "", "xterm", "never", False),
        (False, "1", "dumb", "always", True),
    ],
)
def test_colour_follows_the_option_then_the_environment_then_the_stream(
    monkeypatch, is_terminal, no_color, term, choice, expected
):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    console.use_color(console.Color(choice))
    assert console._has_color(stream) is expected
