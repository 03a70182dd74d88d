"""A flow run and what is below it as lines of text, with bars of how far it is.

``flow-run watch`` shows them, at any width. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prefectlite import console
from prefectlite.console import Styled
from prefectlite.run_trees import Entry, RunTree, Tally
from prefectlite.text_tables import cut, short_name, width

_GAP = 2
_MOST_BAR, _LEAST_BAR = 24, 8
# A narrower line says a name and a state; one of the second width how many are done, too.
_LEAST_WITH_TIMES, _LEAST_WITH_BARS = 32, 56
_NAME_SHARE, _LEAST_NAME = 0.45, 8
# What completed, what did not, what has not ended; and what a text that was cut ends with.
_BLOCKS = ("█", "▒", "░", "…")
_ASCII = ("#", "x", ".", ">")


def tree_lines(tree: RunTree, *, columns: int, is_unicode: bool) -> Iterator[list[str]]:
    """Yield lines, each as texts to be shown one after the other; some are ``Styled``.

    Args:
        columns: How wide a line may be, at least 1.
        is_unicode: Whether more than ASCII can be shown.
    """
    marks = _BLOCKS if is_unicode else _ASCII
    named = [entry for entry in tree.entries if entry.state is not None]
    longest = max((width(_name(entry)) for entry in named), default=0)
    name_columns = min(longest, max(_LEAST_NAME, int(columns * _NAME_SHARE)))
    state_columns = max((len(_state(entry)) for entry in named), default=0)
    time_columns = max((len(_time(entry)) for entry in named), default=0)
    for entry in tree.entries:
        if entry.state is None:
            yield fitted([Styled(_name(entry), "cyan")], columns, mark=marks[-1])
            continue
        name = short_name(_name(entry), name_columns, mark=marks[-1])
        line = [_padded(name, name_columns + _GAP)]
        line += [_state(entry), " " * (state_columns - len(_state(entry)))]
        if columns >= _LEAST_WITH_TIMES:
            line.append(f"  {_time(entry):>{time_columns}}")
        taken = sum(map(width, line)) + _GAP
        if entry.tally.total() > 1 and columns >= _LEAST_WITH_TIMES:
            line += [" " * _GAP, *_progress(entry.tally, columns - taken, marks)]
        yield fitted(line, columns, mark=marks[-1])
    missing = _missing(tree)
    if missing:
        yield fitted(
            [f"{marks[-1] if is_unicode else '...'} and {missing}"], columns, mark=marks[-1]
        )


def fitted(texts: Sequence[str], columns: int, *, mark: str) -> list[str]:
    """Return the texts of a line as far as they fit into so many columns."""
    left = cut("".join(texts), columns, mark=mark)
    line = []
    for text in texts:
        shown, left = left[: len(text)], left[len(text) :]
        line.append(Styled(shown, text.style) if isinstance(text, Styled) else shown)
    return line


def _name(entry: Entry) -> str:
    return "  " * entry.depth + console.shown_on_stdout(entry.name)


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def _state(entry: Entry) -> str:
    if entry.state is None:
        return ""
    shown = console.state_text(entry.state)
    return Styled(console.shown_on_stdout(shown), shown.style)


def _time(entry: Entry) -> str:
    return console.seconds_text(entry.duration_seconds)


def _progress(tally: Tally, columns: int, marks: Sequence[str]) -> Iterator[str]:
    """Yield a bar, how many of how many have ended, and what else is to be said; as there is room."""
    total, ended = tally.total(), tally.completed + tally.unwanted
    count = f"{ended}/{total}"
    if columns < _LEAST_BAR + 1 + len(count):
        yield cut(count, max(0, columns), mark=marks[-1])
        return
    rest = [f"{number} {word}" for number, word in ((tally.active, "running"),) if number]
    failed = f"{tally.unwanted} failed" if tally.unwanted else ""
    told = sum(len(text) + 2 for text in (*rest, failed) if text)
    size = min(_MOST_BAR, columns - 1 - len(count))
    if size - told >= _LEAST_BAR or columns - 1 - len(count) - told >= _LEAST_BAR:
        size = min(_MOST_BAR, columns - 1 - len(count) - told)
    else:
        rest, failed = [], ""
    done = size * tally.completed // total
    failing = -(-size * tally.unwanted // total)
    failing = min(failing, size - done)
    completed, unwanted, left = marks[:3]
    yield Styled(completed * done, "green")
    yield Styled(unwanted * failing, "red")
    yield left * (size - done - failing)
    yield f" {count}"
    for text in rest:
        yield f"  {text}"
    if failed:
        yield "  "
        yield Styled(failed, "red")


def _missing(tree: RunTree) -> str:
    """Return how many runs no line stands for, and how they are."""
    parts = []
    total = tree.missing.total()
    if total:
        numbers = {name: number for (_, name), number in tree.missing.most_common()}
        states = ", ".join(f"{number} {name}" for name, number in numbers.items())
        parts.append(f"{total} more task runs: {console.shown_on_stdout(states)}")
    if tree.missing_flow_runs:
        parts.append(f"{tree.missing_flow_runs} more subflow runs")
    return "; ".join(parts)
