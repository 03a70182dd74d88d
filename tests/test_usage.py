"""The help of a command is made of its declaration, and fits its reader's lines."""

from enum import StrEnum
from typing import Annotated

import pytest

from prefectlite import cli
from prefectlite.commands import Argument, Group, Option, Seconds
from prefectlite.usage import Help


class Fruit(StrEnum):
    APPLE = "apple"
    PEAR = "pear"


_HALF_A_MINUTE = Seconds(30)


def peel(  # noqa: PLR0913 - a command's parameters are its options
    what: Annotated[list[str], Argument("What to peel.", metavar="FRUIT")],
    knife: Annotated[str | None, Argument("With which knife.")] = None,
    *,
    kind: Annotated[Fruit, Option("--kind", "-k", description="Of which kind.")] = Fruit.APPLE,
    into: Annotated[str, Option("--into", description="Where it goes.", metavar="BOWL")],
    within: Annotated[Seconds, Option("--within", description="In which time.")] = _HALF_A_MINUTE,
    neatly: Annotated[bool, Option("--neatly", description="Take care.")] = False,
    a_long_one: Annotated[
        str | None, Option("--a-long-one", description="Long.", metavar="THIS|THAT|THE-OTHER")
    ] = None,
) -> None:
    """Peel fruit, and keep the peel.

    It takes some time, which depends on
    the knife.

    Examples:
        prefectlite peel --into bowl apple
        prefectlite peel --into bowl apple pear cherry banana orange --neatly --kind pear
    """


_GROUP = Group("Treat fruit.", ["peel", "cut"], lambda word: peel if word == "peel" else _GROUP)


def test_the_help_of_a_command_says_all_that_it_declares():
    assert Help(columns=70).of_command(["peel"], peel).splitlines() == [
        "Usage:",
        "  prefectlite peel [OPTIONS] --into BOWL FRUIT... [KNIFE]",
        "",
        "Peel fruit, and keep the peel.",
        "",
        "It takes some time, which depends on the knife.",
        "",
        "Arguments:",
        "  FRUIT  What to peel.",
        "  KNIFE  With which knife.",
        "",
        "Options:",
        "  -k, --kind apple|pear  Of which kind. (default: apple)",
        "      --into BOWL        Where it goes. (required)",
        "      --within DURATION  In which time. (default: 30)",
        "      --neatly           Take care.",
        "      --a-long-one THIS|THAT|THE-OTHER",
        "                         Long.",
        "  -h, --help             Show this help and exit.",
        "",
        "Examples:",
        "  prefectlite peel --into bowl apple",
        "  prefectlite peel --into bowl apple pear cherry banana orange --neatly --kind pear",
    ]


def test_where_it_is_narrow_what_is_said_of_a_name_stands_below_it():
    lines = Help(columns=22).of_command(["peel"], peel).splitlines()
    assert lines[:5] == [
        "Usage:",
        "  prefectlite peel",
        "      [OPTIONS]",
        "      --into BOWL",
        "      FRUIT... [KNIFE]",
    ]
    start = lines.index("Options:")
    assert lines[start : start + 6] == [
        "Options:",
        "  -k, --kind",
        "  apple|pear",
        "      Of which kind.",
        "      (default: apple)",
        "  --into BOWL",
    ]


def test_an_example_is_never_broken_so_that_it_can_be_copied():
    shown = Help(columns=20).of_command(["peel"], peel)
    assert "\n  prefectlite peel --into bowl apple pear cherry banana orange --neatly" in shown


def test_what_a_person_types_in_one_go_stays_in_one_line():
    for columns in range(20, 80):
        shown = Help(columns=columns).of_command(["peel"], peel)
        assert "--into BOWL" in shown.partition("Peel")[0]


@pytest.mark.parametrize("columns", [-1, 0, 1, 7])
def test_no_terminal_is_too_narrow(columns):
    shown = Help(columns=columns).of_command(["peel"], peel)
    assert shown.split() == Help(columns=80).of_command(["peel"], peel).split()


def test_a_terminal_that_is_very_wide_is_not_filled():
    shown = Help(columns=300).of_program(cli.options, _GROUP, [("0", "done " * 100)])
    assert 90 < max(map(len, shown.splitlines())) <= 100


def test_the_help_of_a_group_names_commands_and_groups_in_it():
    assert Help(columns=60).of_group(["fruit"], _GROUP).splitlines() == [
        "Usage:",
        "  prefectlite fruit COMMAND ...",
        "",
        "Treat fruit.",
        "",
        "Commands:",
        "  peel  Peel fruit, and keep the peel.",
        "  cut   Treat fruit.",
        "",
        "prefectlite fruit COMMAND --help explains each.",
    ]


def test_headings_alone_stand_out():
    shown = Help(columns=80, emphasis=lambda text: f"<{text}>").of_command(["peel"], peel)
    headings = [line for line in shown.splitlines() if "<" in line]
    assert headings == ["<Usage:>", "<Arguments:>", "<Options:>", "<Examples:>"]
