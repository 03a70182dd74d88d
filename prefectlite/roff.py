"""Man pages as text: what man(7) needs around headings, paragraphs, lists and examples.

``manuals`` and what it takes its pages from call it. mdoc(7) would say more of the meaning of words,
but has no place for the version of a program that is no part of a system. Nothing here knows a command.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

# What a shell must find as it is when it is copied, and what roff would read as its own.
_ESCAPES = str.maketrans(
    {
        "\\": r"\(rs",
        "-": r"\-",
        "'": r"\(aq",
        '"': r"\(dq",
        "`": r"\(ga",
        "^": r"\(ha",
        "~": r"\(ti",
    }
)
# Of the source, for who reads a change of it.
_COLUMNS = 78
_SENTENCE_END = re.compile(r"(?<=[a-zA-Z0-9)][.?!]) (?=[A-Z])", re.ASCII)
# What may be hyphenated.
_WORD = re.compile(r"\(?[A-Za-z][a-z]*[.,;:)]*", re.ASCII)
_BOLD = re.compile(
    r"`(?P<literal>[^`]+)`"
    r"|(?<![\w-])(?P<option>--?[a-z][a-z-]*)"
    r"|\b(?P<page>[a-z][\w.-]*)(?=\([1-8]\))",
    re.ASCII,
)


def bold(text: str) -> str:
    """Return a text in bold, to stand in what ``raw`` says is marked."""
    return rf"\fB{_escaped(text)}\fR"


def italic(text: str) -> str:
    """Return a text in italics, as ``bold``."""
    return rf"\fI{_escaped(text)}\fR"


def marked(text: str) -> str:
    r"""Return prose with its `literals`, options and names of other pages in bold."""
    parts, end = [], 0
    for found in _BOLD.finditer(text):
        parts += [_escaped(text[end : found.start()]), bold(found[found.lastgroup or 0])]
        end = found.end()
    return "".join([*parts, _escaped(text[end:])])


class ManPage:
    """One page, written from its first line to its last.

    Args:
        name: What ``man`` finds it by.
        section: Of the manual: 1, 5 or 7.
        summary: What it is about, in some words.
        source: The program and its version.
        date: Of this version, ``2024-02-29``.
        volume: What the section is called.
    """

    def __init__(
        self, name: str, section: int, *, summary: str, source: str, date: str, volume: str
    ) -> None:
        self.name = name
        self.section = section
        title = _escaped(name.upper())
        # Lines that are spaced out to one width are hard to read with such long names in them.
        self._lines = [f'.TH {title} {section} {date} "{source}" "{volume}"', ".ad l"]
        self.heading("Name")
        # What makes the index of pages reads this without formatting it.
        self._lines += _lines(rf"{_escaped(name)} \- {_escaped(summary)}")

    def heading(self, title: str) -> None:
        """Begin a section."""
        self._lines.append(f".SH {_escaped(title.upper())}")

    def subheading(self, title: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f".SS {_escaped(title)}")

    def paragraphs(self, *texts: str) -> None:
        """Write prose, one paragraph a text; see ``marked``."""
        for text in texts:
            # Right after a heading a paragraph has begun, and mandoc warns of another.
            if not self._lines[-1].startswith((".SH", ".SS")):
                self._lines.append(".PP")
            self._lines += _filled(text)

    def items(self, rows: Iterable[tuple[str, str]], *, width: int = 7) -> None:
        """Write a list.

        Args:
            rows: What each item is called, marked already, and what is said of it, as prose.
            width: The columns that names get before what is said of them.
        """
        for term, text in rows:
            self._lines += [f".TP {width}", _guarded(term), *_filled(text)]

    def literal(self, lines: Sequence[str]) -> None:
        """Write lines as they are, indented."""
        shown = [_guarded(_escaped(line)) for line in lines]
        self._lines += [".RS 4", ".EX", *shown, ".EE", ".RE"]

    def synopsis(self, command: str, parts: Sequence[str]) -> None:
        """Write how a command is called, with its parts marked already; none of them is broken."""
        # What ends with a full stop would end a sentence, which has two spaces after it.
        kept = [part.replace(" ", r"\~") + r"\&" * part.rstrip("]").endswith(".") for part in parts]
        self._lines += [f'.SY "{_escaped(command)}"', *_wrapped(" ".join(kept)), ".YS"]

    def text(self) -> str:
        """Return the source of the page."""
        return "\n".join([*self._lines, ""])


def _escaped(text: str) -> str:
    escaped = text.translate(_ESCAPES)
    return "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in escaped)


def _guarded(line: str) -> str:
    """Return a line that roff takes for a text; an empty one would be read as a break."""
    return rf"\&{line}" if line[:1] in {".", ""} else line


def _filled(text: str) -> list[str]:
    """Return prose as lines, each sentence on lines of its own."""
    return [line for sentence in _SENTENCE_END.split(text) for line in _wrapped(marked(sentence))]


def _wrapped(text: str) -> list[str]:
    """Return a marked text as lines whose names, options and values are not hyphenated."""
    words = (word if _WORD.fullmatch(word) else rf"\%{word}" for word in text.split())
    return _lines(" ".join(words))


def _lines(text: str) -> list[str]:
    lines = textwrap.wrap(text, _COLUMNS, break_long_words=False, break_on_hyphens=False)
    return [_guarded(line) for line in lines]
