"""The same flag means the same in every command, but where one of these tables says why not."""

from collections import defaultdict

import pytest

from prefectlite.cli import options
from prefectlite.command_tree import every_command
from prefectlite.commands import Group, parameters

_PREFECT = "as in Prefect 2"
#: Short letters that stand for other options than elsewhere: the command, the long name, and why.
_LETTERS = {
    ("agent start", "-q"): ("--queue", _PREFECT),
    ("deployment build", "-q"): ("--queue", _PREFECT),
    ("agent start", "-n"): ("--name", _PREFECT),
    ("deployment build", "-n"): ("--name", _PREFECT),
    ("block register", "-f"): ("--file", _PREFECT),
    ("flow-run logs", "-f"): ("--follow", "as in tail(1)"),
    ("task-run logs", "-f"): ("--follow", "as in tail(1)"),
    ("flow-run logs", "-n"): ("--tail", "as in tail(1)"),
    ("task-run logs", "-n"): ("--tail", "as in tail(1)"),
}
#: What each letter stands for everywhere else.
_USUAL = {
    "-b": "--block",
    "-f": "--flow",
    "-l": "--level",
    "-n": "--limit",
    "-q": "--quiet",
    "-t": "--tag",
}
#: Options that are given in another form than elsewhere, and why.
_FORMS = {
    ("deployment build", "--queue"): "a deployment has one queue; elsewhere there may be several",
}


def _commands(group=None, words=()):
    for word, one in (group or every_command()).items():
        if isinstance(one, Group):
            yield from _commands(one, (*words, word))
        else:
            yield " ".join([*words, word]), one


def _declared():
    """Yield every option: the command, its long name and what is declared."""
    for command, function in _commands():
        for parameter in parameters(function):
            if parameter.names:
                yield command, parameter.names[0], parameter


@pytest.mark.parametrize(("command", "function"), [*_commands()], ids=lambda one: one)
def test_each_parameter_and_each_name_of_a_command_stands_for_one_thing(command, function):
    declared = [*parameters(function), *parameters(options)]
    names = [name for parameter in declared for name in (*parameter.names, f" {parameter.name}")]
    assert len(names) == len({*names}), names
    assert not {"-h", "--help"} & {*names}
    for parameter in parameters(function):
        if parameter.names:
            assert parameter.names[0].startswith("--")
            assert all(len(name) == 2 for name in parameter.names[1:])


def test_an_option_takes_the_same_kind_of_value_in_every_command():
    forms = defaultdict(set)
    for command, name, parameter in _declared():
        if (command, name) not in _FORMS:
            metavar = "" if parameter.is_flag else parameter.metavar
            forms[name].add((str(parameter.value_type), parameter.is_list, metavar))
    assert {name: each for name, each in forms.items() if len(each) > 1} == {}


def test_a_letter_stands_for_the_same_option_in_every_command():
    for command, name, parameter in _declared():
        for letter in parameter.names[1:]:
            usual = _USUAL.get(letter, name)
            assert name == _LETTERS.get((command, letter), (usual,))[0], (command, letter)
    meanings = defaultdict(set)
    for command, name, parameter in _declared():
        for letter in parameter.names[1:]:
            if (command, letter) not in _LETTERS:
                meanings[letter].add(name)
    assert {letter: each for letter, each in meanings.items() if len(each) > 1} == {}


def test_the_letter_of_the_level_never_stands_for_a_limit():
    assert [name for _, name, option in _declared() if "-l" in option.names] == ["--level"] * 2


def test_an_exception_that_is_none_any_more_is_taken_off_the_tables():
    declared = {(command, name): parameter for command, name, parameter in _declared()}
    for (command, letter), (name, _) in _LETTERS.items():
        assert letter in declared[command, name].names
    assert {*_FORMS} <= {*declared}


def test_time_is_given_as_a_duration_and_never_as_a_bare_number():
    for command, name, parameter in _declared():
        if name in {"--timeout", "--grace", "--in"}:
            assert parameter.metavar == "DURATION", (command, name)
        assert parameter.metavar != "SECONDS", (command, name)
        assert parameter.value_type is not float, (command, name)
