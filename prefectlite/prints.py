"""``print`` as a log record of the run that prints.

``builtins.print`` is replaced once, when the first run asks for it; what is printed outside of such a
run, or to a file of its own, goes to the original unchanged. ``sys.stdout`` is never touched.
"""

from __future__ import annotations

import builtins
import logging
import sys
import threading
from typing import Any

from prefectlite import logs
from prefectlite.context import RunContext, current

_plain_print = builtins.print


def capture() -> None:
    """Begin to look at prints. Safe to call again."""
    if builtins.print is not _print:
        builtins.print = _print


def _print(*values: object, **options: Any) -> None:  # noqa: ANN401 - print's own keywords
    context = current()
    file = options.get("file")
    if context is None or not context.log_prints or (file is not None and file is not sys.stdout):
        _plain_print(*values, **options)
        return
    _record(context, *values, **options)


def _record(
    context: RunContext,
    *values: object,
    sep: str | None = " ",
    end: str | None = "\n",
    file: object = None,
    flush: bool = False,
) -> None:
    """Add what is printed to the run's line, and log the line once it has ended.

    Args:
        flush: Changes nothing: a line that has ended is written at once, one that has not waits.
        file: Standard output; the caller has looked.
    """
    del file, flush
    text = (" " if sep is None else sep).join(map(str, values)) + ("\n" if end is None else end)
    thread = threading.get_ident()
    if context.partial_lines:
        begun = context.partial_lines.pop(thread, "")
        # A carriage return begins the line again, as on a terminal.
        text = text if begun.endswith("\r") or text.startswith("\r") else begun + text
    if text.endswith("\n"):
        logs.record(context, logging.INFO, text[:-1].strip("\r"))
    elif text:
        context.partial_lines[thread] = text


def finish(context: RunContext) -> None:
    """Log the lines that the run began and did not end."""
    while context.partial_lines:
        logs.record(context, logging.INFO, context.partial_lines.popitem()[1].strip("\r"))
