"""Tables on a terminal: how wide texts are, and what fits into a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from prefectlite.text_tables import GAP, cut, layout, width


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("plain", 5),
        ("café", 4),
        ("cafe\N{COMBINING ACUTE ACCENT}", 4),
        ("日本", 4),
        ("\N{FULLWIDTH LATIN SMALL LETTER A}", 2),
        ("\N{GRINNING FACE}", 2),
        ("\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}", 2),
        ("a\N{ZERO WIDTH JOINER}b", 2),
    ],
)
def test_a_text_is_as_wide_as_a_terminal_shows_it(text, columns):
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("plain", 5, "plain"),
        ("plain", 4, "pla…"),
        ("plain", 1, "…"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("e\N{COMBINING ACUTE ACCENT}xyz", 3, "e\N{COMBINING ACUTE ACCENT}x…"),
    ],
)
def test_a_text_is_cut_between_characters_and_ends_with_a_mark(text, columns, expected):
    assert cut(text, columns, mark="…") == expected


@given(some.text(max_size=30), some.integers(1, 20))
def test_a_cut_text_is_never_wider_than_asked_for(text, columns):
    assert width(cut(text, columns, mark="…")) <= columns


def test_what_fits_is_left_as_it_is():
    assert layout([8, 5, 9], columns=26, cut={1}, keep=[0]) == {0: 8, 1: 5, 2: 9}


def test_the_widest_are_cut_first_and_to_the_same_width():
    assert layout([8, 30, 20, 10], columns=54, cut={1, 2, 3}, keep=[0]) == {
        0: 8,
        1: 15,
        2: 15,
        3: 10,
    }


def test_what_would_say_too_little_is_left_out_from_the_right_and_what_is_kept_last():
    widths, keep = [8, 20, 20, 9, 19, 8], [0, 3, 2, 1]
    for columns, left in {
        70: "012345",
        60: "01234",
        50: "0123",
        40: "0123",
        37: "023",
        20: "03",
    }.items():
        fitting = layout(widths, columns=columns, cut={1, 2}, keep=keep)
        assert "".join(map(str, fitting)) == left, columns


def test_the_last_two_are_cut_before_one_is_left_out():
    assert layout([8, 13], columns=20, cut=set(), keep=[0, 1]) == {0: 8, 1: 10}
    assert layout([8, 13], columns=12, cut=set(), keep=[0, 1]) == {0: 8}
    assert layout([8, 13], columns=5, cut=set(), keep=[0, 1]) == {0: 5}


@given(
    some.lists(some.integers(1, 1_000_000), min_size=1, max_size=8),
    some.integers(1, 300),
    some.sets(some.integers(0, 7)),
    some.lists(some.integers(0, 7), unique=True),
)
def test_a_line_is_never_wider_than_the_terminal_and_the_most_important_column_is_there(
    widths, columns, may_cut, keep
):
    keep = [number for number in keep if number < len(widths)]
    fitting = layout(widths, columns=columns, cut=may_cut, keep=keep)
    assert sum(fitting.values()) + GAP * (len(fitting) - 1) <= columns
    assert all(0 < fitting[number] <= widths[number] for number in fitting)
    assert (keep or [0])[0] in fitting
    assert [*fitting] == sorted(fitting)
