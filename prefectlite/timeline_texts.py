"""A timeline as lines of text: a bar a run, under an axis of time.

``flow-run inspect --timeline`` prints them, at any width. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from prefectlite import console
from prefectlite.console import Styled
from prefectlite.text_tables import cut, short_name, width
from prefectlite.timelines import Phase, Row, Span, Timeline, ticks

# A retry and a pause are drawn with what is seen in black and white, too.
_BLOCKS = {Phase.RAN: "█", Phase.RETRIED: "▒", Phase.PAUSED: "┄", Phase.WAITED: "░"}
_ASCII = {Phase.RAN: "#", Phase.RETRIED: "x", Phase.PAUSED: "-", Phase.WAITED: "."}
_STYLES = {Phase.RETRIED: "red", Phase.PAUSED: "cyan", Phase.WAITED: ""}
_LEGEND = {Phase.RETRIED: "tried again", Phase.PAUSED: "paused", Phase.WAITED: "waited"}
# What is seen of a run that did several things within one column.
_PRECEDENCE = (Phase.WAITED, Phase.PAUSED, Phase.RETRIED, Phase.RAN)
# The bars get what the names and the ends leave, and at least so much; a name is cut for it.
_LEAST_BAR, _LEAST_NAME = 8, 6
_NAME_SHARE = 0.3
# A narrower line has no room for how long each took.
_LEAST_WITH_ENDS = 48
_TICK_COLUMNS = 10


def timeline_lines(timeline: Timeline, *, columns: int, is_unicode: bool) -> Iterator[list[str]]:
    """Yield lines, each as texts to be printed one after the other; some are ``Styled``.

    Args:
        columns: How wide a line may be, at least 1.
        is_unicode: Whether more than ASCII can be shown.
    """
    marks = _BLOCKS if is_unicode else _ASCII
    names = [_name(row) for row in timeline.rows]
    ends = (
        [console.shown_on_stdout(row.end_text) for row in timeline.rows]
        if columns >= _LEAST_WITH_ENDS
        else []
    )
    end_columns = max((width(end) + 1 for end in ends), default=0)
    longest = max(map(width, names))
    name_columns = min(longest, max(_LEAST_NAME, int(columns * _NAME_SHARE)))
    bar_columns = max(_LEAST_BAR, columns - name_columns - 1 - end_columns)
    yield [" " * (name_columns + 1), _axis(timeline.seconds, bar_columns)]
    ellipsis = "…" if is_unicode else ">"
    for number, row in enumerate(timeline.rows):
        name = short_name(names[number], name_columns, mark=ellipsis)
        line = [name + " " * (name_columns - width(name) + 1)]
        line += _bar(row, timeline.seconds / bar_columns, bar_columns, marks)
        if ends:
            line += [" ", Styled(ends[number], console.state_text(row.state).style)]
        yield line
    seen = {span.phase for row in timeline.rows for span in row.spans}
    legend = [f"{marks[phase]} {text}" for phase, text in _LEGEND.items() if phase in seen]
    if legend:
        yield [cut("  ".join(legend), columns, mark=ellipsis)]


def _name(row: Row) -> str:
    return "  " * row.depth + console.shown_on_stdout(row.name)


def _axis(seconds: float, columns: int) -> str:
    """Return the marks of the axis, each above the column that it stands for."""
    line = ""
    for moment, text in ticks(seconds, max(1, columns // _TICK_COLUMNS)):
        place = int(moment / seconds * columns)
        if place >= len(line) + bool(line) and place + len(text) <= columns:
            line += " " * (place - len(line)) + text
    return line


def _bar(row: Row, column_seconds: float, columns: int, marks: dict[Phase, str]) -> Iterator[str]:
    """Yield the pieces of a bar, so many columns wide in all."""
    phases: list[Phase | None] = [None] * columns
    for phase in _PRECEDENCE:
        for span in row.spans:
            if span.phase is phase:
                first, last = _places(span, column_seconds, columns)
                phases[first:last] = [phase] * (last - first)
    styles = {**_STYLES, Phase.RAN: console.state_text(row.state).style}
    for done, same in groupby(phases):
        if done is None:
            yield " " * len([*same])
        else:
            yield Styled(marks[done] * len([*same]), styles[done])


def _places(span: Span, column_seconds: float, columns: int) -> tuple[int, int]:
    """Return the columns of a span: from one up to, but without, another."""
    first = min(int(span.begin / column_seconds), columns - 1)
    return first, max(first + 1, min(columns, round(span.end / column_seconds)))
