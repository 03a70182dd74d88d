"""Lines that change in place on a terminal, below what was there before.

The view stays on the screen when it ends; nothing of the terminal is changed that would have to be put
right again, so that it can be killed or stopped at any moment. It knows nothing of what it shows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prefectlite import console, terminals
from prefectlite.text_tables import width

# ECMA-48: CUU, up so many lines; EL, clear to the end of the line; ED, clear all below.
_UP, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[{}A", "\x1b[K", "\x1b[J"


class LiveView:
    """What is on the terminal that stdout is."""

    def __init__(self) -> None:
        self._drawn: list[int] = []
        self._last: tuple[object, ...] = ()

    @staticmethod
    def size() -> tuple[int, int]:
        """Return how many columns and rows a view may have, so that nothing wraps or scrolls."""
        columns, rows = terminals.size(sys.stdout)
        return max(1, columns - 1), max(1, rows - 1)

    def draw(self, lines: Sequence[Sequence[str]]) -> None:
        """Show lines in the place of those that were shown before.

        Args:
            lines: Each as texts to be shown one after the other; no wider than ``size`` says.

        Raises:
            OutputClosedError: The terminal has gone.
        """
        columns, _ = self.size()
        shown = (columns, *(tuple(line) for line in lines))
        if shown == self._last:
            return
        was_resized = self._last[:1] not in ((), (columns,))
        self._last = shown
        up = sum(self._rows(cells, columns) for cells in self._drawn)
        texts = [console.painted(line) + _CLEAR_LINE for line in lines]
        begin = "\r" + (_UP.format(up) if up else "")
        if was_resized:  # or a terminal would go on to take two rows for a line that it has wrapped
            begin += _CLEAR_BELOW
        # In one piece, and each line cleared only behind its text, so that nothing flickers.
        console.out(begin + "\n".join([*texts, _CLEAR_BELOW]).removesuffix("\n"), end="")
        console.flush()
        self._drawn = [sum(map(width, line)) for line in lines]

    def begin_below(self) -> None:
        """Leave on the screen what is there, since a shell has written below it."""
        self._drawn, self._last = [], ()

    @staticmethod
    def _rows(cells: int, columns: int) -> int:
        """Return how many rows a line takes since the terminal became narrower: terminals reflow it."""
        return max(1, -(-cells // (columns + 1)))
