"""The strict reader takes what is right beyond doubt, and never differs from Typer."""

import inspect
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefectlite import cli, usage
from prefectlite.commands import Argument, Option, read_arguments, read_leading_options


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
    timeout: Annotated[float | None, Option("--timeout", description="Seconds.", minimum=0)] = None,
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


def _no_options() -> None:
    """Have none."""


def _typer_reads(function, arguments):
    """What Typer makes of the arguments: the values, or None where it refuses or helps."""
    reading = usage.read(_no_options, {"x": function}, ["x", *arguments])
    return reading.calls[-1][1] if len(reading.calls) == 2 else None


_WORDS = st.sampled_from(
    [
        "",
        "-",
        "--",
        "0",
        "1",
        "-1",
        "7.5",
        "-0",
        "007",
        "1_0",
        "1e3",
        " 3",
        "3 ",
        "nan",
        "inf",
        "٣",
        "apple",
        "Pear",
        "PEAR",
        "now",
        "NOW",
        "x=y",
        "=",
        "a b",
        "--help",
        "-h",
        "--json=1",
        "é",
        "--param",
        "-p",
        "-pa=b",
        "-p=a",
        "--param=a=b",
        "--par",
        "--params",
        "--params=-",
        "--name",
        "--name=",
        "--tag",
        "--tag=--x",
        "--timeout",
        "--timeout=1.5",
        "--json",
        "-j",
        "--limit",
        "--limit=2",
        "-n",
        "-n3",
        "-n=3",
        "-n0",
        "--count",
        "-c4",
        "-q",
        "-a",
        "-qa",
        "-qan2",
        "-qn",
        "-qx",
        "--quiet",
        "--no-quiet",
        "--quiet=true",
        "--fruit",
        "--fruit=Pear",
        "-fPEAR",
        "-f",
        "--any-fruit",
        "--when=later",
        "--when",
        "-fq",
        "---",
        "--=x",
        "-=",
        ".",
    ]
)
# Right pieces, so that the strict reader takes a good part of what is made of them.
_PLACED = {_run: "f.py", _kinds: "4", _no_options: "--"}
_OPTIONS = {
    _run: ["-p|a=1", "-pb=2", "--param=c", "--tag|t", "--timeout|3", "--json", "--name=n"],
    _kinds: ["5", "-n3", "-c|2", "-c1", "-qa", "-qn|7", "--fruit|Pear", "-fPEAR", "--when=later"],
    _no_options: ["--"],
}


def _arguments(function):
    """Return a strategy for argument lists: mostly right pieces in any order."""
    right = st.sampled_from(_OPTIONS[function]).map(lambda words: words.split("|"))
    doubtful = st.lists(_WORDS | st.text(max_size=3), min_size=1, max_size=2)
    placed = st.just([[_PLACED[function]]])
    some_right = st.lists(right, max_size=5)
    some_doubtful = st.lists(doubtful, max_size=2)
    pieces = st.one_of(
        st.tuples(placed, some_right),
        st.tuples(placed, some_right, some_doubtful),
        st.tuples(some_doubtful),
    )
    return (
        pieces.map(lambda groups: [piece for group in groups for piece in group])
        .flatmap(st.permutations)
        .map(lambda chosen: [word for words in chosen for word in words])
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["1", "-c", "7"],
        ["1", "--", "-q", "--"],
        ["1", "-n", "x", "-n2"],
        ["1", "-qn", "4"],
        ["1", "--limit", "2", "--limit=3"],
        ["1", ""],
        ["1", "-c", "1", "-c", "2"],
    ],
)
def test_getopts_corners_are_read_as_typer_reads_them(arguments):
    values = read_arguments(_kinds, arguments)
    assert values is not None
    assert values == _typer_reads(_kinds, arguments)


@pytest.mark.parametrize("function", [_run, _kinds, _no_options])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_the_strict_reader_takes_typer_reads_in_the_same_way(function, data):
    arguments = data.draw(_arguments(function))
    values = read_arguments(function, arguments)
    if values is not None:
        expected = _typer_reads(function, arguments)
        assert values == expected
        assert repr(values) == repr(expected)


@settings(max_examples=150, deadline=None)
@given(
    arguments=st.lists(
        st.sampled_from(
            [
                "flow-run",
                "task-run",
                "version",
                "block",
                "type",
                "ls",
                "inspect",
                "logs",
                "delete",
                "--json",
                "--",
                "--color",
                "never",
                "--color=always",
                "--colour",
                "--state",
                "-sfailed",
                "failed",
                "--limit",
                "3",
                "-n",
                "0",
                "--level",
                "WARNING",
                "--tail=2",
                "abc",
                "--force",
                "",
                "--flow",
                "f",
                "flow_run",
                "Version",
                "--flow-run",
                "-h",
            ]
        ),
        max_size=6,
    )
)
def test_the_real_command_line_is_read_in_the_same_way_by_both_readers(arguments):
    calls = cli.read_calls(arguments)
    if calls is not None:
        assert calls == usage.read(cli.options, cli.every_command(), arguments).calls


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
        ("f.py --timeout=2", {"timeout": 2.0}),
        ("--json -- -f.py", {"as_json": True, "entrypoint": "-f.py"}),
    ],
)
def test_an_ordinary_command_line_needs_no_typer(arguments, expected):
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(_run).parameters.items()
    }
    assert read_arguments(_run, arguments.split()) == {
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
    values = read_arguments(_kinds, arguments.split())
    assert values is not None
    assert {name: values[name] for name in expected} == expected
    assert values["number"] == 4


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "x",
        "4 --limit",
        "4 -n0",
        "4 -n x",
        "4 --quiet=1",
        "4 --lim 3",
        "4 --fruit PEAR",
        "4 -x",
        "4 --help",
        "4 --when never",
        "4 -n 1_0",
        "4 -c 1 -c x",
    ],
)
def test_what_is_wrong_or_doubtful_is_left_to_typer(arguments):
    assert read_arguments(_kinds, arguments.split()) is None


def test_a_positional_argument_too_many_is_left_to_typer():
    assert read_arguments(_run, ["a", "b"]) is None


def test_leading_options_end_at_the_first_other_argument():
    def options(
        *, quiet: Annotated[bool, Option("--quiet", description="Quiet.")] = False
    ) -> None: ...

    assert read_leading_options(options, ["--quiet", "ls", "--quiet"]) == (
        {"quiet": True},
        ["ls", "--quiet"],
    )
    assert read_leading_options(options, ["--loud", "ls"]) is None


def test_a_parameter_without_a_marker_is_refused():
    def wrong(*, limit: int = 3) -> None: ...

    with pytest.raises(TypeError, match="limit"):
        read_arguments(wrong, [])
