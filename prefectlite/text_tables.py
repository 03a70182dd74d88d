"""How wide a text is on a terminal, and which columns of a table fit into its lines.

``console`` only, which prints them. Of a terminal nothing is known here but how many columns it has.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

#: Between two columns of a table.
GAP = 2
# A column that may be cut says something down to this width; then another is better left out.
_LEAST_CUT = 8
# The last but one that is left is cut down to this width before it is left out too.
_LEAST = 4
# Of a name that is cut, so much is its end: what tells the runs of a task apart.
_END_SHARE = 4
_EMOJI_STYLE = "\ufe0f"
_WIDE = frozenset("WF")
_WITHOUT_WIDTH = frozenset({"Mn", "Me", "Cf"})


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes.

    Where terminals differ, as for emoji that are made of several, it is rather more than less: a
    line that is too short breaks no table.
    """
    return len(text) if text.isascii() else sum(_widths(text))


def cut(text: str, columns: int, *, mark: str) -> str:
    """Return a text as it fits into so many columns; where it was cut it ends with a mark."""
    if width(text) <= columns:
        return text
    left, kept = columns - width(mark), 0
    if text.isascii():
        return text[:left] + mark
    for one in _widths(text):
        left -= one
        if left < 0:
            break
        kept += 1
    return text[:kept] + mark


def short_name(name: str, columns: int, *, mark: str) -> str:
    """Return a name that takes no more than so many columns, cut before its end, which tells most."""
    if width(name) <= columns:
        return name
    end = name[-(columns // _END_SHARE) :] if columns >= _END_SHARE else ""
    return cut(name, columns - width(end), mark=mark) + end


def layout(
    widths: Sequence[int], *, columns: int, cut: Set[int], keep: Sequence[int]
) -> dict[int, int]:
    """Return how wide each column of a table is so that a line takes no more than the terminal has.

    What does not fit is cut, the widest first; when that says too little, columns are left out.

    Args:
        widths: How wide each would be.
        columns: How many columns the terminal has, at least 1.
        cut: The numbers of those that may be cut.
        keep: The numbers of those that are left out last, the last one first; before them go the
            others, from the right.
    """
    others = [number for number in range(len(widths)) if number not in keep]
    kept = [*keep, *others]
    while True:
        fitting = {number: widths[number] for number in sorted(kept)}
        room = columns - GAP * (len(kept) - 1)
        _shrink(fitting, cut, room)
        left = room - sum(fitting.values())
        if left >= 0:
            return fitting
        last = kept[-1]
        if len(kept) == 1 or (len(kept) == len(keep[:2]) and fitting[last] + left >= _LEAST):
            fitting[last] += left
            return fitting
        kept.pop()


def _shrink(fitting: dict[int, int], cut: Set[int], room: int) -> None:
    """Make columns that may be cut narrower, until all have room or that would say too little."""
    left = room - sum(most for number, most in fitting.items() if number not in cut)
    narrowest_first = sorted(cut & fitting.keys(), key=fitting.__getitem__)
    for position, number in enumerate(narrowest_first):
        # What a narrow one does not need is for the wider ones.
        share = max(left // (len(narrowest_first) - position), _LEAST_CUT)
        fitting[number] = min(fitting[number], share)
        left -= fitting[number]


def _widths(text: str) -> list[int]:
    """Return how many columns each character takes."""
    from unicodedata import category, east_asian_width  # most texts are ASCII

    widths: list[int] = []
    for character in text:
        if character == _EMOJI_STYLE and widths and widths[-1] == 1:
            widths.append(1)
        elif category(character) in _WITHOUT_WIDTH:
            widths.append(0)
        else:
            widths.append(2 if east_asian_width(character) in _WIDE else 1)
    return widths
