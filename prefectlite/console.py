"""The only place that prints: data to stdout, words to stderr.

Commands and the log handler call it. It must never let a text from the registry act on a terminal:
control characters are shown escaped, in tables and lines alike. What each reader gets:

- A terminal: a table as wide as it is, ids cut to their first characters (8, or as many as tell
  them apart), states in colour, JSON indented.
- A pipe or a file: plain columns two spaces apart under a header, nothing cut, ids in full, because
  a program reads it, and the first characters of an id may not be unique tomorrow. ``-`` stands for
  nothing. JSON is one line.

Colour follows ``--color``; ``auto`` means a terminal that says what it is, and that is not ``dumb``, without ``NO_COLOR``.
Times are local ones. A reader that goes away (``| head -1``) ends the command silently with exit
code 141, as a shell reports SIGPIPE; where stdout was closed from the start nothing is printed and
nothing fails; a disk that is full is an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import TextIO

from prefectlite.clock import duration_text, now
from prefectlite.errors import OutputClosedError, OutputError, PrefectLiteError
from prefectlite.records import StateChange
from prefectlite.states import State
from prefectlite.terminals import columns, has_color
from prefectlite.text_tables import GAP, layout, width
from prefectlite.text_tables import cut as cut_text

_ID_CHARACTERS = 8
_ANSI = {"bold": 1, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
_STATE_STYLES = {
    "SCHEDULED": "yellow",
    "PENDING": "yellow",
    "RUNNING": "blue",
    "PAUSED": "cyan",
    "CANCELLING": "yellow",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "CRASHED": "magenta",
}
# The names of the levels of logging, which costs too much to import for them alone.
_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
_ERROR_LEVEL = 40
_WARNING_LEVEL = 30
_KILO = 1000
# From here on, a size of three digits says nothing more than one of two.
_ONE_DECIMAL = 9.95

# C0, DEL and C1 can move the cursor or start a sequence; U+2028 and U+2029 break lines; the others
# reorder what is shown after them (Unicode TR 9).
_UNSAFE = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
_UNSAFE += [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in _UNSAFE}
_MESSAGE_ESCAPES: dict[int, str] = {**_ESCAPES, 0x09: "\t", 0x0A: "\n    "}
# json.dumps has escaped those below by itself, and an indent's line ends are no part of a string.
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in _UNSAFE if code >= ord(" ")}


class Color(StrEnum):
    """When to use colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Styled(str):
    """A cell of a table with the name of its colour.

    Attributes:
        style: A colour's name, empty for none.
    """

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str) -> Styled:
        """Return ``text``, to be shown in a colour where there is colour."""
        cell = super().__new__(cls, text)
        cell.style = style
        return cell


_choice = {"color": Color.AUTO}


def prepare() -> None:
    """Make stdin, stdout and stderr safe to use, whatever this process was started with.

    A stream that was closed becomes the null device: else the next file to be opened, such as the
    registry's lock, would get its number, and be written to by whatever prints.

    Raises:
        OutputError: Something was printed before, and cannot be written.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - the only form
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # By its number, which is the null device now, and which must stay open.
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
            setattr(sys, name, stream)
    for name in ("stdout", "stderr"):
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            try:
                reconfigure(errors="backslashreplace")
            except OSError as error:  # it writes what is waiting first
                raise _unwritable(error) from error


def use_color(color: Color) -> None:
    """Set when to use colour, for the rest of this process."""
    _choice["color"] = color


def out(text: str = "", *, end: str = "\n") -> None:
    """Print data: one or more lines to stdout, as they are.

    Raises:
        OutputClosedError: The reader has gone.
        OutputError: They cannot be written.
    """
    try:
        sys.stdout.write(f"{text}{end}")
    except OSError as error:
        raise _unwritable(error) from error


def flush() -> None:
    """Bring to their reader the lines that were printed; raises what ``out`` does."""
    try:
        if not sys.stdout.closed:  # by a flow
            sys.stdout.flush()
    except OSError as error:
        raise _unwritable(error) from error


def out_json(value: object) -> None:
    """Print a JSON document: indented on a terminal, one line elsewhere."""
    out(json_text(value, indent=2 if _is_terminal(sys.stdout) else None))


def out_json_list(values: Iterable[object]) -> None:
    """Print a JSON list as ``out_json`` does, one value after the other: there may be many."""
    is_indented = _is_terminal(sys.stdout)
    indent, line_end, gap = (2, "\n", "\n  ") if is_indented else (None, "", "")
    between = f"[{gap}"
    for value in values:
        # In a string of JSON there is no end of a line.
        out(between + json_text(value, indent=indent).replace("\n", gap), end="")
        between = f",{gap}" if is_indented else ", "
    out(f"{line_end}]" if between[0] == "," else "[]")


def out_json_line(value: object) -> None:
    """Print one line of JSON, of a stream of them."""
    out(json_text(value))


def out_csv(rows: Iterable[Sequence[object]]) -> None:
    """Print rows as RFC 4180 has them, but for the ends of lines, which are those of Unix.

    A value is as it is, except on a terminal, where it is escaped. None is an empty one.
    """
    import csv  # few listings are printed so

    is_shown = _is_terminal(sys.stdout)
    shown = (
        [escaped(value) if is_shown and isinstance(value, str) else value for value in row]
        for row in rows
    )
    try:
        csv.writer(sys.stdout, lineterminator="\n").writerows(shown)
    except OSError as error:
        raise _unwritable(error) from error


def out_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    cut: Collection[str] = (),
    keep: Sequence[str] = (),
) -> None:
    """Print a table; the cells are escaped here.

    On a terminal it is no wider than that: a note says which columns there was no room for.

    Args:
        header: One title a column.
        rows: As many cells a row; a ``Styled`` one has a colour.
        cut: The titles of columns that are cut where a terminal is too narrow for all.
        keep: The titles of columns that are left out last, the most important first.
    """
    shown = [[_cell(cell) for cell in row] for row in rows]
    is_cut = _is_terminal(sys.stdout)
    titles = [Styled(title, "bold") if is_cut else title for title in header]
    widths = [max(map(width, column)) for column in zip(header, *shown, strict=True)]
    if is_cut:
        fitting = layout(
            widths,
            columns=columns(sys.stdout),
            cut={number for number, title in enumerate(header) if title in cut},
            keep=[header.index(title) for title in keep if title in header],
        )
    else:
        fitting = dict(enumerate(widths))
    mark = "\N{HORIZONTAL ELLIPSIS}" if shows_unicode(sys.stdout) else ">"
    is_colored = _has_color(sys.stdout)
    lines = []
    for row in [titles, *shown]:
        line = ""
        for number, most in fitting.items():
            cell = row[number]
            text = cut_text(cell, most, mark=mark) if is_cut else cell
            line += _styled(text, cell) if is_colored else text
            line += " " * (most - width(text) + GAP)
        lines.append(line.rstrip())
    out("\n".join(lines))
    if len(fitting) < len(header):
        missing = [title for number, title in enumerate(header) if number not in fitting]
        note(f"this terminal is too narrow for: {', '.join(missing)}")


def out_line(texts: Sequence[str]) -> None:
    """Print texts as one line of data, each ``Styled`` one in its colour; they are escaped already."""
    out(painted(texts).rstrip())


def painted(texts: Sequence[str]) -> str:
    """Return texts as one, each ``Styled`` one in its colour where stdout has colour."""
    return "".join(_painted(text) for text in texts)


def out_fields(fields: Mapping[str, str]) -> None:
    """Print names and values, one pair a line; an empty value is left out."""
    longest = max(map(len, fields)) + GAP
    for name, value in fields.items():
        if value:
            out(f"{name:{longest}}{_painted(_cell(value))}")


def out_history(history: Sequence[StateChange]) -> None:
    """Print the states that a run has had, oldest first: when, which, who made it, why."""
    out_table(
        ["TIME", "STATE", "BY", "MESSAGE"],
        [
            [
                moment_text(change.state.timestamp),
                state_text(change.state),
                change.actor,
                change.state.message or "",
            ]
            for change in history
        ],
        cut=["BY", "MESSAGE"],
        keep=["STATE", "TIME", "MESSAGE"],
    )


def say(text: str) -> None:
    """Print words for the person, to stderr. Where that is impossible, nobody is told.

    The data that was printed before comes first where both go to the same place.
    """
    with suppress(OSError, ValueError):  # told when it is flushed at the end
        sys.stdout.flush()
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def settle_words() -> None:
    """Give up words that were said and cannot be written: they must not change an exit code.

    Python's own last flush would fail on them, and exit with 120.
    """
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _discard(sys.stderr)


def note(text: str) -> None:
    """Say something that is not an error, but that the person should know."""
    say(f"note: {escaped(text)}")


def error(problem: PrefectLiteError | str, *, hint: str | None = None) -> None:
    """Say what went wrong in one line, and in another what to do next."""
    if isinstance(problem, PrefectLiteError):
        hint = problem.hint
    label = "error:"
    say(f"{_paint(label, 'red') if _has_color(sys.stderr) else label} {escaped(str(problem))}")
    if hint:
        say(f"hint: {escaped(hint)}")


def discard_output() -> None:
    """Give up stdout after a failed write, so that Python's own last flush does not fail too."""
    _discard(sys.stdout)


def escaped(text: str) -> str:
    """Return a text as one line that cannot act on a terminal."""
    return text if text.isprintable() else text.translate(_ESCAPES)


def shown_on_stdout(text: str) -> str:
    """Return an escaped text as stdout will show it, so that it can be measured."""
    shown = escaped(text)
    if shown.isascii() or shows_unicode(sys.stdout):
        return shown
    encoding = sys.stdout.encoding or "ascii"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def id_texts(ids: Sequence[str]) -> list[str]:
    """Return ids as they are shown in a table: cut on a terminal, in full elsewhere."""
    if not _is_terminal(sys.stdout):
        return [*ids]
    length = _ID_CHARACTERS
    distinct = len({*ids})
    while len({id_[:length] for id_ in ids}) < distinct:
        length += 1
    return [id_[:length] for id_ in ids]


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON, in ASCII where stdout cannot show more.

    Args:
        value: Dicts, lists, strings, numbers, booleans and None.
        indent: Spaces a level; None for one line.
    """
    import json

    is_unicode = shows_unicode(sys.stdout)
    try:
        text = json.dumps(value, ensure_ascii=not is_unicode, allow_nan=False, indent=indent)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=not is_unicode, indent=indent)
    # Outside a string JSON has none of these, and inside one it may have their escape.
    return text if text.isascii() and "\x7f" not in text else text.translate(_JSON_ESCAPES)


def emphasized(text: str, stream: TextIO) -> str:
    """Return a text that stands out, where a stream has colour."""
    return _paint(text, "bold") if _has_color(stream) else text


def shows_unicode(stream: TextIO) -> bool:
    """Return whether a stream takes more than ASCII."""
    return (stream.encoding or "").lower().replace("-", "").replace("_", "") in {"utf8", "utf8sig"}


def state_text(state: State) -> Styled:
    """Return a state's name in its colour."""
    return Styled(state.name, _STATE_STYLES.get(state.type, ""))


def moment_text(moment: datetime | None) -> str:
    """Return a time as a person reads it, in the local zone: ``2024-02-29 21:31:37``."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def seconds_text(seconds: float | None) -> str:
    """Return a duration as a person reads it; nothing for None."""
    return "" if seconds is None else duration_text(seconds)


def bytes_text(count: int) -> str:
    """Return a size as a person reads it: ``512 bytes``, ``1.2 kB``, ``437 MB``."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if round(size) < _KILO:
            break
        size, unit = size / _KILO, larger
    return f"{size:.{int(unit != 'bytes' and size < _ONE_DECIMAL)}f} {unit}"


def log_text(moment: datetime, level: int, source: str, message: str) -> str:
    """Return a log line: ``21:31:37.513 | INFO    | Flow run 'gigantic-cockatoo' - hello``.

    A message of several lines is continued with an indent, so that none of them can pass for
    another log line; tabs stay. Before the time stands the date, where it is not that of today.

    Args:
        moment: When it was logged, aware.
        level: As in ``logging``.
        source: The run or the logger that it comes from.
        message: What was logged.
    """
    if not message.isprintable():
        message = message.translate(_MESSAGE_ESCAPES)
    local = moment.astimezone()
    date = "" if local.date() == now().astimezone().date() else f"{local:%Y-%m-%d} "
    return painted([date, *log_heading(moment, level, source), message])


def log_heading(moment: datetime, level: int, source: str) -> list[str]:
    """Return what stands before the message of a log line, without the date."""
    local = moment.astimezone()
    time = f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"
    style = "" if level < _WARNING_LEVEL else "yellow" if level < _ERROR_LEVEL else "red"
    name = Styled(f"{_LEVELS.get(level, str(level)):<7}", style)
    return [f"{time} | ", name, f" | {escaped(source)} - "]


def _cell(text: str) -> str:
    if text and text.isascii() and text.isprintable():  # as nearly all are
        return text
    shown = shown_on_stdout(text) or "-"
    return Styled(shown, text.style) if isinstance(text, Styled) else shown


def _painted(cell: str) -> str:
    return _styled(cell, cell)


def _styled(text: str, cell: str) -> str:
    """Return a text in the colour of a cell."""
    style = getattr(cell, "style", "")
    return _paint(text, style) if style and _has_color(sys.stdout) else str(text)


def _paint(text: str, style: str) -> str:
    return f"\x1b[{_ANSI[style]}m{text}\x1b[0m"


def _finite(value: object) -> object:
    """Return the value with each NaN and infinity, which JSON cannot say, as a string."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in {float("inf"), float("-inf")}):  # noqa: PLR0124 - only NaN differs from itself
        return repr(value)
    return value


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def _has_color(stream: TextIO) -> bool:
    color = _choice["color"]
    if color is Color.ALWAYS or color is Color.NEVER:
        return color is Color.ALWAYS
    return has_color(stream)


def _unwritable(problem: OSError) -> OutputError:
    if isinstance(problem, BrokenPipeError):
        return OutputClosedError("the reader of the output has gone")
    return OutputError(f"cannot write the output: {problem.strerror or problem}")


def _discard(stream: TextIO) -> None:
    try:
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
    except (OSError, ValueError):
        return
