"""The help of everything, word for word, and at any width.

The files in ``help/`` are what a person sees in 80 columns. ``UPDATE_HELP=1 pytest -n 0
tests/cli/test_help.py`` writes them anew; what changed is then read in the difference.
"""

import os
from pathlib import Path

import pytest

from prefectlite import cli
from prefectlite.command_tree import every_command
from prefectlite.commands import Group, parameters
from prefectlite.usage import Help

_FOLDER = Path(__file__).parent / "help"
_WIDTHS = (1, 20, 40, 79, 300)


def _everything(found, words=()):
    """Yield the words that lead to the program, to each group and to each command, and what is there."""
    yield list(words), found
    if isinstance(found, Group):
        for word, inner in found.items():
            yield from _everything(inner, (*words, word))


def _shown(words, found, *, columns):
    help_ = Help(columns=columns)
    if not words:
        return help_.of_program(cli.options, found, cli.EXIT_CODES)
    show = help_.of_group if isinstance(found, Group) else help_.of_command
    return show(words, found)


_EVERYTHING = [*_everything(every_command())]
_FIRST_WORDS = ["prefectlite", *every_command().words]


@pytest.mark.parametrize("first", _FIRST_WORDS)
def test_the_help_is_what_it_was(run, first):
    path = _FOLDER / f"{first}.txt"
    shown = ""
    for words, _ in _EVERYTHING:
        if (words[0] if words else "prefectlite") == first:
            ended = run("", *words, "--help")
            assert (ended.exit_code, ended.stderr) == (0, "")
            shown += f"$ {' '.join(['prefectlite', *words, '--help'])}\n{ended.stdout}\n"
    if os.environ.get("UPDATE_HELP"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown)
    assert shown.isascii()
    assert path.read_text() == shown, "see what this file says at its top"


def test_there_is_no_help_of_commands_that_are_no_more():
    for path in _FOLDER.iterdir():
        if path.stem not in _FIRST_WORDS and os.environ.get("UPDATE_HELP"):
            path.unlink()
    assert sorted(path.stem for path in _FOLDER.iterdir()) == sorted(_FIRST_WORDS)


def test_no_width_takes_a_word_from_any_help():
    for words, found in _EVERYTHING:
        expected = _shown(words, found, columns=80).split()
        for columns in _WIDTHS:
            assert _shown(words, found, columns=columns).split() == expected, words


def test_no_line_of_any_help_is_wider_than_the_terminal_where_it_can_be_broken():
    for words, found in _EVERYTHING:
        for columns in (20, 40, 44, 79, 80, 100, 300):
            text, _, _ = _shown(words, found, columns=columns).partition("Examples:")
            for line in text.splitlines():
                assert len(line) <= min(columns, 100) or " " not in line.strip(), words


def test_no_line_of_any_help_ends_in_spaces():
    for words, found in _EVERYTHING:
        for line in _shown(words, found, columns=30).splitlines():
            assert line == line.rstrip()


def test_no_command_has_two_parameters_of_one_name():
    for words, found in _EVERYTHING:
        if not isinstance(found, Group):
            declared = parameters(found)
            for names in ([p.name for p in declared], [n for p in declared for n in p.names]):
                assert len(names) == len({*names}), words
