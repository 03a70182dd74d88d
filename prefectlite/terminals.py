"""What a stream that may be a terminal can do, and how large it is.

Whatever prints or draws asks here. Nothing here writes.
"""

from __future__ import annotations

import os
from typing import TextIO

from prefectlite.settings import NO_COLOR, TERM

#: To the first column, and clear to the end of the line (ECMA-48: CR, EL).
ERASE = "\r\x1b[K"
# As most terminals are, and what is none is treated.
_COLUMNS, _ROWS = 80, 24


def can_redraw(stream: TextIO) -> bool:
    """Return whether what is shown can be changed in place: a terminal that knows how to."""
    return stream.isatty() and TERM.value() not in {"", "dumb"}


def has_color(stream: TextIO) -> bool:
    """Return whether to use colour where nobody has said so: a terminal of a person who wants it."""
    return can_redraw(stream) and not NO_COLOR.value()


def columns(stream: TextIO) -> int:
    """Return how many columns the lines have."""
    return size(stream)[0]


def size(stream: TextIO) -> tuple[int, int]:
    """Return how many columns and rows there are."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return _COLUMNS, _ROWS
    return found.columns or _COLUMNS, found.lines or _ROWS


def is_in_foreground(stream: TextIO) -> bool:
    """Return whether nobody else is to have the terminal, such as the shell."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # it does not control this process, or it is closed
        return True
