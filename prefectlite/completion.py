"""Answers a shell that asks what may stand at the cursor: ``prefectlite __complete SHELL -- WORD...``.

The scripts of ``completion_scripts`` ask, with the words so far and the one under the cursor. The answer
is a line that says what it is, and then one line for each offer; or the line ``files``, where the shell is
to offer these. fish is given a word and what it is, with a tab between; zsh a word and how it is shown,
likewise, below ``described`` where one is to stand in a line; bash what it is to insert, quoted. bash sends,
instead of the words, why it asks, its width, ``COMP_WORDBREAKS`` and the line.

A person waits, in the middle of a line. So it must never say what is wrong, exit with anything but 0,
read more than the registry has on record, or write anywhere but to stdout.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from prefectlite.argument_reading import HELP
from prefectlite.bash_words import BashLine, quoted, read_line
from prefectlite.cli import options as leading_options
from prefectlite.command_tree import every_command, outline
from prefectlite.commands import Function, Group, Parameter, documentation, parameters
from prefectlite.completion_values import Offer, Typed, offers_of
from prefectlite.setting_sources import use_profile

# What COMP_TYPE says where bash shows what there is, and inserts no more than all of it begin with:
# TAB twice, and TAB once where the person has set show-all-if-ambiguous, or -unmodified (bash(1)).
_SHOWING = {ord("?"), ord("!"), ord("@")}
_GAP = "  "
# Words that are to go on: KEY=, folder/, file.py:
_GOES_ON = ("=", "/", ":", "@")
_LEAST_COLUMNS = 20
_HELP_TEXT = "Show help and exit"


class _Answer(NamedTuple):
    """What may stand at the cursor; ``is_files`` where that is any file."""

    offers: Sequence[Offer] = ()
    is_files: bool = False


def answer(arguments: Sequence[str]) -> int:
    """Print what may stand at the cursor, and return 0, whatever happens.

    Args:
        arguments: The shell's name, ``--``, and what its script sends.
    """
    lines: Iterable[str] = ()
    try:
        shell, _, *sent = arguments
        lines = _ANSWERS[shell](sent)
    except BaseException:  # noqa: BLE001, S110 - whatever it is, a prompt is no place to say it
        pass
    try:
        text = "".join(f"{line}\n" for line in lines)
        # As bytes: the words are the shell's, and its locale may be another than Python's.
        os.write(1, text.encode("utf-8", "surrogateescape"))
    except (OSError, ValueError):
        pass
    return 0


def _for_fish(words: Sequence[str]) -> list[str]:
    found = _answer(words)
    if found.is_files:
        return ["files"]
    return ["words", *(f"{one.value}\t{one.description}" for one in found.offers)]


def _for_zsh(words: Sequence[str]) -> list[str]:
    found = _answer(words)
    if found.is_files:
        return ["files"]
    longest = max((len(one.value) for one in found.offers), default=0)
    lines = [
        f"{one.value}\t{one.value:{longest}}{_GAP}-- {one.description}"
        if one.description
        else f"{one.value}\t{one.value}"
        for one in found.offers
    ]
    return ["described" if any(one.description for one in found.offers) else "words", *lines]


def _for_bash(sent: Sequence[str]) -> list[str]:
    asked, columns, breaks, text = sent
    line = read_line(text, breaks)
    found = _Answer(is_files=True) if line.is_redirected else _answer(line.words)
    if found.is_files:
        return ["files"]
    word = line.words[-1]
    # bash has no matching of its own. What it replaces may differ in case, but must be there.
    begun = [one for one in found.offers if one.value.casefold().startswith(word.casefold())]
    exact = [one for one in begun if one.value.startswith(word)] or begun
    texts = [(_inserted(one, line), one) for one in exact]
    inserted = [(text, one) for text, one in texts if text is not None]
    if len(inserted) > 1 and asked.isdigit() and int(asked) in _SHOWING:
        width = int(columns) if columns.isdigit() else 0
        return ["words", *_listed(inserted, max(width, _LEAST_COLUMNS))]
    return ["words", *(_ended(text, one, line) for text, one in inserted)]


def _inserted(offer: Offer, line: BashLine) -> str | None:
    return quoted(offer.value[line.kept :], line.quote)


def _ended(text: str, offer: Offer, line: BashLine) -> str:
    """Return what is inserted, with a space after a word that is complete.

    By bash itself it would come after ``folder/`` too. A quote is closed by bash.
    """
    return text if line.quote or offer.value.endswith(_GOES_ON) else f"{text} "


def _listed(inserted: Sequence[tuple[str, Offer]], columns: int) -> list[str]:
    """Return the words with what they are beside them, no wider than the terminal."""
    longest = max(len(text) for text, _ in inserted)
    room = columns - longest - 2 * len(_GAP) - 1
    lines = []
    for text, offer in inserted:
        told = offer.description
        if len(told) > room:
            told = f"{told[: max(room - 3, 0)]}..."
        line = f"{text:{longest}}{_GAP}({told})" if told and room > 3 else text  # noqa: PLR2004 - the dots
        # Where two would fit, bash would have two in a line, and the newest beside an old one.
        lines.append(f"{line:{columns // 2}}" if told else line)
    return lines


_ANSWERS = {"bash": _for_bash, "zsh": _for_zsh, "fish": _for_fish}


def _answer(words: Sequence[str]) -> _Answer:
    """Return what may stand for the last of these words, which follow the program's name."""
    *before, word = words
    command = _Command(leading_options, "", is_leading=True)
    position = command.read(before)
    if command.texts("profile"):
        use_profile(command.texts("profile")[-1])
    found: Group | Function = every_command()
    named: list[str] = []
    while isinstance(found, Group) and position < len(before):
        inner = found.find(before[position])
        if inner is None:
            return _Answer()
        named.append(before[position])
        found, position = inner, position + 1
    if not isinstance(found, Group):
        command = _Command(found, " ".join(named))
        command.read(before[position:])
    elif command.waits_for is None and not word.startswith("-"):
        return _Answer(_commands(found, is_root=not named))
    elif named:
        return _Answer([Offer(name, _HELP_TEXT) for name in HELP])
    return command.complete(word)


def _commands(group: Group, *, is_root: bool) -> list[Offer]:
    if is_root:  # to import them all takes longer than a person waits
        return [Offer(word, _short(outline(word))) for word in group.words]
    return [
        Offer(
            word, _short(one.description if isinstance(one, Group) else documentation(one).summary)
        )
        for word, one in group.items()
    ]


def _short(description: str) -> str:
    """Return the first sentence of a description, as there is one line for it."""
    return description.partition(". ")[0].removesuffix(".")


class _Command:
    """The arguments of a command so far; wrong ones are passed over.

    Attributes:
        waits_for: The option whose value comes next; None where none waits.
    """

    def __init__(
        self, function: Callable[..., object], words: str, *, is_leading: bool = False
    ) -> None:
        self._function = function
        self._words = words
        self._is_leading = is_leading
        self._parameters = parameters(function)
        self._options = {name: option for option in self._parameters for name in option.names}
        self._given: dict[str, list[str]] = {}
        self._placed: list[str] = []
        self._is_placed_only = False
        self.waits_for: Parameter | None = None

    def texts(self, name: str) -> list[str]:
        """Return the texts that a parameter was given so far."""
        return self._given.get(name, [])

    def read(self, arguments: Sequence[str]) -> int:
        """Take arguments, up to the first that is none of the leading ones; return their number."""
        for index, argument in enumerate(arguments):
            if self.waits_for is not None:
                self._given[self.waits_for.name].append(argument)
                self.waits_for = None
            elif self._is_placed_only or argument[:1] != "-" or argument == "-":
                if self._is_leading:
                    return index
                self._placed.append(argument)
            elif argument == "--":
                self._is_placed_only = True
            else:
                self._read_option(argument)
        return len(arguments)

    def complete(self, word: str) -> _Answer:
        """Return what may stand at the cursor."""
        if self.waits_for is not None:
            return self._values(self.waits_for, word)
        if word[:1] == "-" and not self._is_placed_only:
            option, head = self._joined(word)
            if option is None:
                return _Answer(self._option_offers(word))
            found = self._values(option, word[len(head) :])
            return found._replace(offers=[one.after(head) for one in found.offers])
        parameter = self._next_placed()
        if parameter is not None:
            return self._values(parameter, word)
        return _Answer([] if self._is_placed_only else self._option_offers(word))

    def _read_option(self, argument: str) -> None:
        option, head = self._joined(argument)
        if option is not None:
            self._given.setdefault(option.name, []).append(argument[len(head) :])
            return
        names = [argument] if argument.startswith("--") else [f"-{one}" for one in argument[1:]]
        for option in filter(None, map(self._options.get, names)):
            self._given.setdefault(option.name, [])
            self.waits_for = None if option.is_flag else option

    def _joined(self, word: str) -> tuple[Parameter | None, str]:
        """Return the option whose value is joined to its name, and what stands before the value."""
        name, equals, _ = word.partition("=")
        head = f"{name}{equals}" if word.startswith("--") else word[:2]
        option = self._options.get(head.removesuffix("="))
        if option is None or option.is_flag or (head == word and not equals):
            return None, ""
        return option, head

    def _option_offers(self, word: str) -> list[Offer]:
        offers = []
        for option in self._parameters:
            if option.name in self._given and not option.is_list:
                continue
            shown = [name for name in option.names if word or name.startswith("--")]
            offers += [Offer(name, _short(option.marker.description)) for name in shown]
        return [*offers, *(Offer(name, _HELP_TEXT) for name in HELP if word or len(name) > 2)]  # noqa: PLR2004 - the short one

    def _next_placed(self) -> Parameter | None:
        count = len(self._placed)
        for parameter in (one for one in self._parameters if not one.names):
            if parameter.is_list or not count:
                return parameter
            count -= 1
        return None

    def _values(self, parameter: Parameter, word: str) -> _Answer:
        if parameter.choices:
            return _Answer([Offer(choice) for choice in parameter.choices])
        kind = parameter.marker.complete
        if kind is None:
            return _Answer(is_files=parameter.value_type is Path)
        typed = Typed(word, self._placed, self._given, self._words, self._function)
        offers = offers_of(kind, typed)
        if offers is None:
            return _Answer(is_files=True)
        used = self._given.get(parameter.name, []) if parameter.names else self._placed
        # By its place, what begins with a hyphen would be an option.
        refused = "" if parameter.names or self._is_placed_only else "-"
        return _Answer(
            [
                one
                for one in offers
                if not (parameter.is_list and one.value in used)
                and not (refused and one.value.startswith(refused))
            ]
        )
