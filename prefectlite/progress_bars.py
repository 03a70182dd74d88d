"""How far long work has come, on the last line of a terminal.

Commands that delete, prune, check and back up use it. It writes to stderr alone, and only where that is a
terminal which can clear a line; work that is over in a moment shows nothing, and what it has shown is
gone when the work ends, however it ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from prefectlite import console, terminals
from prefectlite.clock import duration_text, monotonic
from prefectlite.terminals import ERASE

_FIRST_SECONDS = 0.5
# A person reads no faster, and each time costs a write to the terminal.
_INTERVAL_SECONDS = 0.1
# Sooner, what is left would be a guess that is wrong.
_GUESS_SECONDS = 1.0
# A bar of fewer columns says nothing that the percentage does not; one of more says no more.
_NARROWEST, _WIDEST = 6, 40


class ProgressBar:
    """While it is entered, the last line of the terminal says how far the work has come.

    Args:
        label: What is done, such as ``Deleting``.
        unit: What is counted, in the plural; None where the numbers mean nothing to a person.
    """

    def __init__(self, label: str, *, unit: str | None = None) -> None:
        self._label = label
        self._unit = unit
        self._terminal = sys.stderr
        self._is_shown = terminals.can_redraw(self._terminal)
        self._has_drawn = False
        self._began_at = monotonic()
        self._draw_at = self._began_at + _FIRST_SECONDS

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def update(self, done: int, total: int) -> None:
        """Say how much of all is done; as often as one likes."""
        if total > 0:
            self._draw(lambda seconds: self.text(done, total, seconds=seconds))

    def tick(self) -> None:
        """Say only for how long the work goes on, where nobody knows how much there is."""
        self._draw(lambda seconds: f"{self._label}  {duration_text(seconds)}")

    def clear(self) -> None:
        """Take the line away, so that something else can be said; the next update draws it again."""
        if self._has_drawn:
            self._has_drawn = False
            self._write(ERASE)

    def text(self, done: int, total: int, *, seconds: float) -> str:
        """Return the line, as much of it as fits: first what counts most.

        Args:
            done: How much is done.
            total: Of how much.
            seconds: For how long the work goes on.
        """
        share = min(done / total, 1.0)
        percentage = f"{share:4.0%}"
        # The last column stays free: some terminals begin a new line when it is filled.
        room = terminals.columns(self._terminal) - 1 - len(self._label) - 1 - len(percentage)
        parts = []
        if seconds >= _GUESS_SECONDS and share:
            parts.append(f"{duration_text(seconds / share - seconds)} left")
        if self._unit is not None:
            parts.append(f"{done} of {total} {self._unit}")
        tail = ""
        for part in parts:
            if len(tail) + 2 + len(part) <= room:
                tail += f"  {part}"
        bar = self._bar(share, min(room - len(tail) - 1, _WIDEST))
        return f"{self._label} {bar}{percentage}{tail}"

    def _draw(self, text: Callable[[float], str]) -> None:
        at = monotonic()
        if not self._is_shown or at < self._draw_at:
            return
        self._draw_at = at + _INTERVAL_SECONDS
        if terminals.is_in_foreground(self._terminal):
            self._write(f"{ERASE}{text(at - self._began_at)}")
            self._has_drawn = True

    def _bar(self, share: float, width: int) -> str:
        if width < _NARROWEST:
            return ""
        full, empty = ("━", "─") if console.shows_unicode(self._terminal) else ("#", "-")
        filled = round(share * width)
        return full * filled + empty * (width - filled) + " "

    def _write(self, text: str) -> None:
        try:
            self._terminal.write(text)
            self._terminal.flush()
        except (OSError, ValueError):  # the terminal is gone
            self._is_shown = False
