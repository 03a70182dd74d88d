"""A timeline as a picture: an SVG document that needs nothing beside itself.

``flow-run inspect --svg`` writes it, for reports. A run that has ended gives the same bytes each time.
Nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from prefectlite import console
from prefectlite.clock import duration_text
from prefectlite.states import State
from prefectlite.text_tables import cut, short_name, width
from prefectlite.timelines import Phase, Row, Span, Timeline, ticks

# Units of the picture, which a browser shows as pixels.
_WIDTH = 960
_MARGIN = 24
_TITLE_HEIGHT, _AXIS_HEIGHT, _FOOT_HEIGHT = 58, 22, 22
# From so many rows on they are drawn closer.
_MANY_ROWS = 60
_ROW, _SMALL_ROW = 22, 15
_FONT, _SMALL_FONT = 12, 10
_INDENT, _DEEPEST = 14, 12
_LEAST_SPAN = 1.5
_MOST_NAME_CHARACTERS, _LEAST_NAME_CHARACTERS = 36, 8
_TICK_WIDTH = 80
_LEGEND_FONT = 12
# What a character of a monospaced font takes at most, in ems: names and durations cannot overlap.
_EM = 0.62
_SANS_EM = 0.56
_SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_INK, _QUIET, _GRID = "#1b1f24", "#57606a", "#d8dee4"
# Told apart by people who do not see red and green, too; and the state is written beside the bar.
_COLOURS = {
    "SCHEDULED": "#8c959f",
    "PENDING": "#8c959f",
    "RUNNING": "#0b63b3",
    "PAUSED": "#0f7f8c",
    "CANCELLING": "#a86400",
    "COMPLETED": "#14866d",
    "FAILED": "#c43c1e",
    "CANCELLED": "#a86400",
    "CRASHED": "#8a3fa0",
}
_FILLS = {Phase.RETRIED: "url(#tried-again)", Phase.PAUSED: "#9fd3da", Phase.WAITED: "#c9d1d9"}
_LEGEND = {
    Phase.RETRIED: "attempt that was tried again",
    Phase.PAUSED: "paused",
    Phase.WAITED: "waited",
}


def timeline_svg(timeline: Timeline) -> str:
    """Return the picture of a timeline, as a document that ends with a line feed."""
    return "\n".join(_Picture(timeline).lines()) + "\n"


class _Picture:
    """The places of a picture's parts, and the lines that draw them."""

    def __init__(self, timeline: Timeline) -> None:
        rows = timeline.rows
        self._timeline = timeline
        is_many = len(rows) > _MANY_ROWS
        self._row = _SMALL_ROW if is_many else _ROW
        self._font = _SMALL_FONT if is_many else _FONT
        self._character = self._font * _EM
        longest = max(
            _indent(row)
            + min(width(console.escaped(row.name)), _MOST_NAME_CHARACTERS) * self._character
            for row in rows
        )
        names = max(longest, _LEAST_NAME_CHARACTERS * self._character)
        ends = max(width(console.escaped(row.end_text)) for row in rows) * self._character
        self._left = _MARGIN + min(names, _WIDTH * 0.4) + 12
        self._right = _WIDTH - _MARGIN - ends - 8
        self._top = _TITLE_HEIGHT + _AXIS_HEIGHT
        self._bottom = self._top + len(rows) * self._row + 4
        self._axes = [self._top - 11, *([self._bottom + 14] if is_many else [])]
        self._legend = [*self._legend_places(self._axes[-1] if is_many else self._bottom)]
        self._foot = self._legend[-1][1] + 18
        self._height = self._foot + (_FOOT_HEIGHT if timeline.missing else 0)

    def lines(self) -> Iterator[str]:
        """Yield the document."""
        flow_run = self._timeline.flow_run
        title = console.escaped(f"{flow_run.flow_name} / {flow_run.name}")
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{self._height}"'
            f' viewBox="0 0 {_WIDTH} {self._height}" role="img" font-family="{_SANS}">'
        )
        yield f"<title>{_text(f'Timeline of flow run {title}')}</title>"
        yield (
            '<defs><pattern id="tried-again" width="6" height="6" patternUnits="userSpaceOnUse"'
            ' patternTransform="rotate(45)"><rect width="6" height="6" fill="#f6c7ba"/>'
            f'<rect width="2.5" height="6" fill="{_COLOURS["FAILED"]}"/></pattern></defs>'
        )
        yield f'<rect width="{_WIDTH}" height="{self._height}" fill="#ffffff"/>'
        yield from self._head()
        yield from self._axis()
        for number, row in enumerate(self._timeline.rows):
            yield from self._bar(number, row)
        yield from self._draw_legend()
        yield "</svg>"

    def _head(self) -> Iterator[str]:
        flow_run = self._timeline.flow_run
        flow, name = (
            cut(console.escaped(text), 48, mark="…") for text in (flow_run.flow_name, flow_run.name)
        )
        yield (
            f'<text x="{_MARGIN}" y="30" font-size="17" font-weight="600" fill="{_INK}">{_text(flow)}'
            f' <tspan font-weight="400" fill="{_QUIET}">{_text(name)}</tspan></text>'
        )
        facts = [flow_run.state.name]
        if flow_run.duration_seconds is not None:
            facts.append(duration_text(flow_run.duration_seconds))
        began_at = flow_run.started_at or flow_run.created_at
        facts.append(f"{began_at:%Y-%m-%d %H:%M:%S} UTC")
        yield (
            f'<text x="{_MARGIN}" y="49" font-size="12" fill="{_QUIET}">'
            f'<tspan font-weight="600" fill="{_colour(flow_run.state)}">{_text(facts[0])}</tspan>'
            f" · {_text(' · '.join(facts[1:]))}</text>"
        )

    def _axis(self) -> Iterator[str]:
        seconds = self._timeline.seconds
        most = max(2, int((self._right - self._left) / _TICK_WIDTH))
        for moment, text in ticks(seconds, most):
            x = self._x(moment)
            yield f'<path d="M{x} {self._top - 6}V{self._bottom}" stroke="{_GRID}" stroke-width="1"/>'
            for y in self._axes:
                yield (
                    f'<text x="{x}" y="{y}" font-size="11" text-anchor="middle"'
                    f' fill="{_QUIET}">{text}</text>'
                )

    def _bar(self, number: int, row: Row) -> Iterator[str]:
        top = self._top + number * self._row
        base = top + self._row / 2 + self._font * 0.35
        indent = _MARGIN + _indent(row)
        weight = ' font-weight="700"' if row.depth == 0 else ""
        font = f'font-size="{self._font}" font-family="{_MONO}"{weight}'
        told = f"{console.escaped(row.name)}: {console.escaped(row.end_text)}"
        room = int((self._left - 12 - indent) / self._character)
        name = short_name(console.escaped(row.name), max(1, room), mark="…")
        yield f"<g><title>{_text(told)}</title>"
        yield f'<text x="{indent:g}" y="{base:.1f}" {font} fill="{_INK}">{_text(name)}</text>'
        for span in row.spans:
            yield self._span(span, row.state, top)
        yield (
            f'<text x="{_WIDTH - _MARGIN}" y="{base:.1f}" text-anchor="end" {font}'
            f' fill="{_QUIET if row.state.is_completed() else _colour(row.state)}">{_text(console.escaped(row.end_text))}</text>'
        )
        yield "</g>"

    def _span(self, span: Span, state: State, top: float) -> str:
        x, end = self._x(span.begin), self._x(span.end)
        height = self._row * 0.62
        y = top + (self._row - height) / 2
        if span.phase is Phase.WAITED:  # a thin line: nothing happened
            y, height = y + height * 0.35, height * 0.3
        return (
            f'<rect x="{x}" y="{y:.1f}" width="{max(_LEAST_SPAN, end - x):.1f}" height="{height:.1f}"'
            f' rx="1.5" fill="{_fill(span.phase, state)}"/>'
        )

    def _x(self, seconds: float) -> float:
        share = seconds / self._timeline.seconds
        return round(self._left + share * (self._right - self._left), 1)

    def _legend_places(self, top: int) -> Iterator[tuple[int, int, str, str]]:
        """Yield where each entry of the legend is, below a line, its text and its colour."""
        rows = self._timeline.rows
        phases = {span.phase for row in rows for span in row.spans}
        entries = {row.state.type.capitalize(): _colour(row.state) for row in rows}
        entries |= {
            text: _fill(phase, rows[0].state) for phase, text in _LEGEND.items() if phase in phases
        }
        x, y = _MARGIN, top + 24
        for text, fill in entries.items():
            taken = 18 + int(width(text) * _LEGEND_FONT * _SANS_EM) + 14
            if x + taken > _WIDTH - _MARGIN and x > _MARGIN:
                x, y = _MARGIN, y + 20
            yield x, y, text, fill
            x += taken

    def _draw_legend(self) -> Iterator[str]:
        """Yield the legend, and what is missing."""
        font = f'font-size="{_LEGEND_FONT}"'
        for x, y, text, fill in self._legend:
            yield f'<rect x="{x}" y="{y - 10}" width="12" height="12" rx="2" fill="{fill}"/>'
            yield f'<text x="{x + 18}" y="{y}" {font} fill="{_INK}">{_text(text)}</text>'
        if self._timeline.missing:
            told = f"Not shown: {self._timeline.missing} shorter runs."
            yield f'<text x="{_MARGIN}" y="{self._foot + 8}" {font} fill="{_QUIET}">{told}</text>'


def _indent(row: Row) -> int:
    return min(row.depth, _DEEPEST) * _INDENT


def _fill(phase: Phase, state: State) -> str:
    return _FILLS.get(phase) or _colour(state)


def _colour(state: State) -> str:
    return _COLOURS[state.type]


def _text(text: str) -> str:
    """Return a text as XML holds it; XML has no word for U+FFFE and U+FFFF."""
    return escape(text).replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")
