"""Arguments are read as getopt(3) reads them, and what is wrong with them is said in a line and a hint."""

import getopt
import inspect
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prefectlite.argument_reading import read_arguments, read_leading_options
from prefectlite.commands import Argument, Option, Seconds
from prefectlite.errors import UsageError


class Fruit(StrEnum):
    APPLE = "apple"
    PEAR = "Pear"


def _run(  # noqa: PLR0913 - a command's parameters are its options
    entrypoint: Annotated[str, Argument("What to run.", metavar="ENTRYPOINT")],
    *,
    parameter: Annotated[
        list[str] | None, Option("--param", "-p", description="A parameter.", metavar="KEY=VALUE")
    ] = None,
    params: Annotated[str | None, Option("--params", description="All parameters.")] = None,
    name: Annotated[str | None, Option("--name", description="The run's name.")] = None,
    tag: Annotated[list[str] | None, Option("--tag", description="A tag.")] = None,
    timeout: Annotated[Seconds | None, Option("--timeout", description="Long.", minimum=0)] = None,
    as_json: Annotated[bool, Option("--json", description="JSON.")] = False,
) -> None:
    """Stand in for the command with the most kinds of options."""


def _kinds(  # noqa: PLR0913 - a command's parameters are its options
    number: Annotated[int, Argument("A number.")],
    files: Annotated[list[Path] | None, Argument("Files.")] = None,
    *,
    limit: Annotated[int, Option("--limit", "-n", description="A limit.", minimum=1)] = 5,
    counts: Annotated[list[int] | None, Option("--count", "-c", description="Counts.")] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", description="Quiet.")] = False,
    all_: Annotated[bool, Option("--all", "-a", description="All.")] = False,
    fruit: Annotated[Fruit, Option("--fruit", description="A fruit.")] = Fruit.APPLE,
    any_fruit: Annotated[
        Fruit | None, Option("--any-fruit", "-f", description="In any case.", ignore_case=True)
    ] = None,
    when: Annotated[Literal["now", "later"], Option("--when", description="When.")] = "now",
) -> None:
    """Have a parameter of every kind."""


def _texts(
    placed: Annotated[list[str] | None, Argument("Texts.")] = None,
    *,
    one: Annotated[list[str] | None, Option("--one", "-o", description="One.")] = None,
    other: Annotated[list[str] | None, Option("--other", description="Other.")] = None,
    flag: Annotated[bool, Option("--flag", "-f", description="Flag.")] = False,
    every: Annotated[bool, Option("--all", "-a", description="All.")] = False,
) -> None:
    """Take texts as they are."""


def _read(function, arguments, **more):
    return read_arguments(function, arguments.split(), command="x", **more)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("f.py", {}),
        ("f.py --json", {"as_json": True}),
        ("--json f.py", {"as_json": True}),
        ("f.py -p a=1 -pb=2 --param=c=3", {"parameter": ["a=1", "b=2", "c=3"]}),
        ("f.py --params {}", {"params": "{}"}),
        ("f.py --params -", {"params": "-"}),
        ("f.py --name --json", {"name": "--json"}),
        ("f.py --name a --name b", {"name": "b"}),
        ("f.py --tag a --tag b", {"tag": ["a", "b"]}),
        ("f.py --timeout 1.5", {"timeout": 1.5}),
        ("f.py --timeout=2m", {"timeout": 120.0}),
        ("--json -- -f.py", {"as_json": True, "entrypoint": "-f.py"}),
    ],
)
def test_options_and_arguments_are_read_in_any_order(arguments, expected):
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(_run).parameters.items()
    }
    assert _read(_run, arguments) == {
        **defaults,
        "entrypoint": "f.py",
        **expected,
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("4", {}),
        ("4 a b", {"files": [Path("a"), Path("b")]}),
        ("4 -qan2", {"quiet": True, "all_": True, "limit": 2}),
        ("4 -n1", {"limit": 1}),
        ("4 -c1 --count 2", {"counts": [1, 2]}),
        ("4 --fruit Pear -fAPPLE", {"fruit": Fruit.PEAR, "any_fruit": Fruit.APPLE}),
        ("4 --when later", {"when": "later"}),
    ],
)
def test_every_kind_of_value_is_read(arguments, expected):
    values = _read(_kinds, arguments)
    assert {name: values[name] for name in expected} == expected
    assert values["number"] == 4


_PIECES = [
    "-o",
    "-ox",
    "-o=x",
    "--one",
    "--one=x",
    "--one=",
    "--other",
    "--flag",
    "-f",
    "-fa",
    "-fo",
]
_PIECES += ["-afoy", "--all", "-", "--", "", "x", "-x", "--flag=1", "--nothing", "---", "-fx", "é"]


@settings(max_examples=300, deadline=None)
@given(arguments=st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=6))
def test_arguments_are_read_as_getopt_reads_them(arguments):
    try:
        read = read_arguments(_texts, arguments, command="x")
    except UsageError:
        names = [argument.partition("=")[0] for argument in arguments]
        assume(not any(len(name) > 2 and name in _BEGINNINGS for name in names))
        with pytest.raises(getopt.GetoptError):
            _getopt(arguments)
    else:
        if read is not None:
            assert read == _getopt(arguments)


# getopt takes these, too.
_BEGINNINGS = [
    name[:end] for name in ("--one", "--other", "--flag", "--all") for end in range(len(name))
]


def _getopt(arguments):
    found, placed = getopt.gnu_getopt(arguments, "o:fa", ["one=", "other=", "flag", "all"])
    return {
        "placed": placed or None,
        "one": [text for name, text in found if name in {"-o", "--one"}] or None,
        "other": [text for name, text in found if name == "--other"] or None,
        "flag": any(name in {"-f", "--flag"} for name, _ in found),
        "every": any(name in {"-a", "--all"} for name, _ in found),
    }


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ("", "missing argument: NUMBER", "see: prefectlite x --help"),
        ("x", "NUMBER: 'x' is not a whole number", "see: prefectlite x --help"),
        ("4 --limit", "--limit needs a value: --limit N", "see: prefectlite x --help"),
        ("4 -n", "-n needs a value: -n N", "see: prefectlite x --help"),
        ("4 -n0", "--limit: 0 is less than 1", "see: prefectlite x --help"),
        ("4 --limit=x", "--limit: 'x' is not a whole number", "see: prefectlite x --help"),
        ("4 -n 1_0", "--limit: '1_0' is not a whole number", "see: prefectlite x --help"),
        ("4 -c 1 -c x", "--count: 'x' is not a whole number", "see: prefectlite x --help"),
        ("4 --quiet=1", "--quiet takes no value", "see: prefectlite x --help"),
        ("4 --lim 3", "no such option: --lim", "did you mean --limit?"),
        ("4 --nothing", "no such option: --nothing", "see: prefectlite x --help"),
        ("4 -x", "no such option: -x", "see: prefectlite x --help"),
        ("4 -qx", "no such option: -x", "see: prefectlite x --help"),
        ("4 --fruit PEAR", "--fruit: 'PEAR' is none of apple, Pear", "see: prefectlite x --help"),
        ("4 --when latr", "--when: 'latr' is none of now, later", "did you mean later?"),
        ("4 --outer", "no such option: --outer", "it stands before the command"),
        ("4 --outer=1", "no such option: --outer", "it stands before the command"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(arguments, message, hint):
    with pytest.raises(UsageError) as caught:
        _read(_kinds, arguments, leading=["--outer"])
    assert str(caught.value) == message
    assert caught.value.hint.startswith(hint)


def test_a_positional_argument_too_many_is_named():
    with pytest.raises(UsageError, match="unexpected argument: 'b'"):
        read_arguments(_run, ["a", "b"], command="run")


def test_a_long_argument_is_not_repeated_whole():
    with pytest.raises(UsageError) as caught:
        read_arguments(_run, ["a", "b" * 1_000_000], command="run")
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("arguments", ["--help", "-h", "4 --limit 3 --help --nothing", "-q -h"])
def test_help_is_asked_for_wherever_an_option_may_stand(arguments):
    assert _read(_kinds, arguments) is None


def test_the_word_for_help_may_be_a_value_or_an_argument():
    assert _read(_run, "f.py --name --help")["name"] == "--help"
    assert _read(_run, "-- -h")["entrypoint"] == "-h"


def test_leading_options_end_at_the_first_other_argument():
    def options(
        *, quiet: Annotated[bool, Option("--quiet", description="Quiet.")] = False
    ) -> None: ...

    assert read_leading_options(options, ["--quiet", "ls", "--quiet"]) == (
        {"quiet": True},
        ["ls", "--quiet"],
    )
    assert read_leading_options(options, ["--help", "ls"]) is None
    with pytest.raises(UsageError, match="no such option: --loud"):
        read_leading_options(options, ["--loud", "ls"])


@dataclass(frozen=True)
class _Shared:
    """Options of several commands."""

    limit: Annotated[int, Option("--limit", description="A limit.")] = 3
    flag: Annotated[bool, Option("--flag", description="A flag.")] = False


def test_options_that_several_commands_share_come_as_one_value():
    def command(
        name: Annotated[str, Argument("A name.")],
        shared: _Shared,
        *,
        other: Annotated[bool, Option("--other", description="Another.")] = False,
    ) -> None: ...

    assert _read(command, "--limit 5 a --other") == {
        "name": "a",
        "shared": _Shared(limit=5),
        "other": True,
    }


@pytest.mark.parametrize("annotation", [int, "int", inspect.Parameter.empty])
def test_a_parameter_without_a_marker_is_refused(annotation):
    def wrong(limit=3): ...

    if annotation is not inspect.Parameter.empty:
        wrong.__annotations__["limit"] = annotation
    with pytest.raises(TypeError, match="limit"):
        read_arguments(wrong, [], command="x")


def test_two_parameters_of_one_name_are_refused():
    def wrong(
        shared: _Shared,
        *,
        limit: Annotated[int, Option("--least", description="Another limit.")] = 1,
    ) -> None: ...

    with pytest.raises(TypeError, match="two parameters of one name"):
        read_arguments(wrong, [], command="x")
