"""A command line as bash reads it, and words as bash is to write them.

For completion alone. bash hands a completion the words split at ``:``, ``=`` and quotes, and inserts
what it gets as it is, in the place of the last piece; so the line is read here as bash would, and every
word that comes from the registry is quoted here. It must never let one be more than a word.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]", re.ASCII)
_ESCAPED_IN_DOUBLE = re.compile(r'[\\"$`]')


class BashLine(NamedTuple):
    """A command line up to the cursor.

    Attributes:
        words: The arguments without the program; the last one is under the cursor, and may be empty.
        kept: How many characters of that bash leaves as they are: those before its last piece.
        quote: The quote that is open at the cursor; empty where none is.
        is_redirected: Whether the last word is what a stream is redirected to.
    """

    words: list[str]
    kept: int
    quote: str
    is_redirected: bool


class _Reading:
    def __init__(self, breaks: str) -> None:
        self.breaks = breaks
        self.words: list[str] = []
        self.characters: list[str] = []
        self.is_word = False
        self.kept = self.kept_before_quote = 0
        self.quote = ""
        self.is_redirected = False

    def take(self, character: str, following: str) -> bool:
        """Read one character, and return whether the one after it is read with it."""
        if self.quote:
            return self._take_quoted(character, following)
        if character in " \t\n":
            self.end_word()
        elif character in "<>":
            if "".join(self.characters).isdigit():  # 2>file
                self.characters, self.is_word = [], False
            self.end_word()
            self.is_redirected = True
        elif character in "'\"":
            self.kept_before_quote, self.kept = self.kept, len(self.characters)
            self.quote, self.is_word = character, True
        elif character == "\\":
            return self._take_escaped(following)
        else:
            self._add(character)
            if character in self.breaks:
                self.kept = len(self.characters)
        return False

    def end_word(self) -> None:
        if self.is_word and not self.is_redirected:
            self.words.append("".join(self.characters))
        if self.is_word:
            self.is_redirected = False
        self.characters, self.is_word, self.kept = [], False, 0

    def _take_quoted(self, character: str, following: str) -> bool:
        if character == self.quote:
            self.quote, self.kept = "", self.kept_before_quote
            return False
        if character == "\\" and self.quote == '"' and following and following in '\\"$`\n':
            return self._take_escaped(following)
        self._add(character)
        return False

    def _take_escaped(self, following: str) -> bool:
        if following != "\n":
            self._add(following)
        return True

    def _add(self, characters: str) -> None:
        self.characters.append(characters)
        self.is_word = True


def read_line(line: str, breaks: str) -> BashLine:
    """Return what a command line says.

    Args:
        line: From the program's name to the cursor.
        breaks: ``COMP_WORDBREAKS``.
    """
    reading = _Reading(breaks)
    index = 0
    while index < len(line):
        is_pair = reading.take(line[index], line[index + 1 : index + 2])
        index += 1 + is_pair
    words = [*reading.words, "".join(reading.characters)]
    return BashLine(words[1:], reading.kept, reading.quote, reading.is_redirected)


def quoted(text: str, quote: str) -> str | None:
    """Return a text as it is inserted after a quote; None where it cannot be said in such quotes.

    Args:
        text: What the shell is to take it for; it has no control characters.
        quote: ``'``, ``"``, or nothing.
    """
    if quote == "'":
        return text.replace("'", r"'\''")
    if quote == '"':
        # Neither bare nor escaped is an exclamation mark one: the history, or a backslash too many.
        return None if "!" in text else _ESCAPED_IN_DOUBLE.sub(r"\\\g<0>", text)
    return "".join(one if one > "\x7f" or _PLAIN.match(one) else f"\\{one}" for one in text)
