"""What may stand at the cursor, by the declarations of the commands."""

import sys

import pytest

from prefectlite import completion
from prefectlite.command_tree import every_command
from prefectlite.commands import Group, documentation, parameters
from prefectlite.completion_values import _KINDS

_HEAVY = {"pydantic", "rich", "typer", "click", "asyncio", "psutil", "platformdirs", "tomllib"}
_HEAVY |= {"logging", "subprocess", "multiprocessing", "concurrent", "difflib", "tomli_w"}
_OURS_TOO_HEAVY = {"prefectlite.database", "prefectlite.registry.sqlite", "prefectlite.agent"}
_BASH = ("9", "80", " \t\n\"'@><=;|&(:")


def _every_command(group=None, words=()):
    for word, one in (group or every_command()).items():
        if isinstance(one, Group):
            yield from _every_command(one, (*words, word))
        else:
            yield (*words, word), one


# Commands and options.


def test_every_command_is_offered_with_what_it_is_about(offered):
    found = offered("")
    assert [*found] == every_command().words
    assert all(found.values())
    assert found["run"] == "Run a flow here and now, and exit as it ended"


def test_the_commands_of_a_group_are_offered_in_the_order_of_the_help(offered):
    group = every_command().find("flow-run")
    found = offered("flow-run", "")
    assert [*found] == [*group.words]
    assert found["ls"] == documentation(group.find("ls")).summary.rstrip(".")
    assert [*offered("block", "type", "")] == ["ls", "inspect"]


def test_options_of_the_program_are_offered_before_the_command_alone(offered):
    assert {"--color", "--profile", "--version", "--help"} <= offered("-").keys()
    assert [*offered("--color", "")] == ["auto", "always", "never"]
    assert "flow-run" in offered("--color", "never", "")
    assert "--color" not in offered("flow-run", "ls", "--")
    assert [*offered("flow-run", "-")] == ["-h", "--help"]


def test_an_option_is_offered_with_what_it_does_until_it_is_given(offered):
    options = offered("flow-run", "cancel", "-")
    assert options["--wait"] != ""
    assert {"--grace", "-w", "-h", "--help"} <= options.keys()
    left = offered("flow-run", "cancel", "-w", "--grace=5", "--state", "x", "-")
    assert {"--wait", "-w", "--grace"}.isdisjoint(left)
    assert {"--state", "-s"} <= left.keys(), "it may be repeated"


def test_options_are_offered_by_their_long_names_where_nothing_else_may_stand(offered):
    options = offered("flow-run", "ls", "")
    assert "--state" in options
    assert "-s" not in options


def test_no_option_is_offered_after_two_hyphens(offered, record):
    record.flow_run("swift-otter")
    assert [*offered("flow-run", "cancel", "--", "")] == ["swift-otter"]
    assert offered("flow-run", "cancel", "--", "-") == {}


def test_the_choices_of_an_option_are_offered_in_each_way_to_give_it(offered):
    levels = ["debug", "info", "warning", "error", "critical"]
    assert [*offered("flow-run", "logs", "x", "--level", "")] == levels
    assert [*offered("flow-run", "logs", "x", "--level=")] == [f"--level={one}" for one in levels]
    assert "--limit" in offered("flow-run", "logs", "x", "-l"), "not a value yet"
    assert [*offered("flow-run", "logs", "x", "-lw")] == [f"-l{one}" for one in levels]


def test_a_value_that_may_be_anything_is_not_an_option(offered):
    assert offered("flow-run", "ls", "--text", "") == {}
    assert offered("flow-run", "ls", "--text", "--") == {}


def test_what_joined_short_options_wait_for_is_offered(offered):
    assert "Failed" in offered("flow-run", "ls", "-qs", "")


def test_files_are_left_to_the_shell(ask):
    assert ask("deployment", "apply", "") == ["files"]
    assert ask("deployment", "build", "x", "-o", "") == ["files"]
    assert ask("deployment", "build", "x", "--output=fi") == ["files"]


@pytest.mark.parametrize(
    "words", [["nonsense", ""], ["flow-run", "nonsense", ""], ["flow-run", "ls", "--nonsense="]]
)
def test_after_nonsense_nothing_is_offered(offered, words):
    assert offered(*words) in ({}, offered("flow-run", "ls", "--"))


def test_what_every_declaration_completes_is_known_and_nothing_else_is():
    used = {
        parameter.marker.complete
        for _, command in _every_command()
        for parameter in [*parameters(command), *parameters(completion.leading_options)]
    }
    assert used - {None} == {*_KINDS}


@pytest.mark.parametrize("words", [words for words, _ in _every_command()], ids=" ".join)
def test_every_argument_of_every_command_can_be_completed(ask, words):
    command = dict(_every_command())[words]
    assert ask(*words, "")[:1] != []
    for parameter in parameters(command):
        if parameter.names and not parameter.is_flag:
            assert ask(*words, parameter.names[0], "")[:1] != [], parameter.name


# bash.


def test_bash_is_given_what_it_inserts_after_its_last_break(ask):
    line = "prefectlite flow-run logs x --level=wa"
    assert ask(*_BASH, line, shell="bash") == ["words", "warning "]
    assert ask(*_BASH[:2], " \t\n", line, shell="bash") == ["words", "--level=warning "]


def test_bash_is_given_what_agrees_but_for_the_case(ask):
    line = "prefectlite flow-run ls --state time"
    assert ask(*_BASH, line, shell="bash") == ["words", "TimedOut "]


def test_bash_is_told_to_offer_files_after_a_redirection(ask):
    assert ask(*_BASH, "prefectlite flow-run ls > ou", shell="bash") == ["files"]
    assert ask(*_BASH, "prefectlite flow-run ls 2>", shell="bash") == ["files"]
    answer = ask(*_BASH, "prefectlite flow-run ls >out --js", shell="bash")
    assert answer == ["words", "--json "]


@pytest.mark.parametrize("columns", ["20", "80", "nonsense"])
def test_bash_shows_what_is_what_within_the_width_of_the_terminal(ask, columns):
    answer = ask("63", columns, _BASH[2], "prefectlite ", shell="bash")
    width = int(columns) if columns.isdigit() else 20
    assert len(answer) == 1 + len(every_command().words)
    assert max(map(len, answer)) < width
    if columns == "80":
        assert "(See flow runs, follow them" in "\n".join(answer)


# Whatever happens.


@pytest.mark.parametrize(
    "sent",
    [
        [],
        ["bash"],
        ["bash", "--"],
        ["bash", "--", "x", "y", "z", ""],
        ["tcsh", "--", "flow-r"],
        ["fish", "--"],
        ["zsh", "--", "\udcff\x00\x1b[2J", "\n"],
        ["zsh", "--", "--profile", "\x00", "flow-run", "cancel", ""],
        ["fish", "--", "run", "\udcff:"],
        ["zsh", "--"],
        ["fish", "--", "run", "x" * 5_000],
        ["fish", "--", "run", "/dev/stdin:"],
        ["fish", "--", "run", "/proc/self/mem:"],
    ],
)
def test_nothing_that_is_sent_is_an_error(capfd, sent):
    assert completion.answer(sent) == 0
    assert capfd.readouterr().err == ""


def test_a_profile_that_is_broken_leaves_what_needs_none(offered, write_profiles, record):
    record.flow_run("swift-otter")
    write_profiles("this is [no TOML")
    assert offered("flow-run", "cancel", "") == {}
    assert "cancel" in offered("flow-run", "")
    assert "Failed" in offered("flow-run", "ls", "--state", "")


def test_the_registry_is_that_of_the_profile_on_the_line(
    offered, write_profiles, monkeypatch, home, record
):
    record.flow_run("swift-otter")
    monkeypatch.delenv("PREFECTLITE_HOME")
    write_profiles(f'[profiles.ci]\nPREFECTLITE_HOME = "{home}"\n')
    assert [*offered("--profile", "")] == ["default", "ci"]
    assert offered("flow-run", "cancel", "") == {}
    for words in (["--profile", "ci"], ["--profile=ci"]):
        assert [*offered(*words, "flow-run", "cancel", "")] == ["swift-otter"]
    assert offered("--profile", "none", "flow-run", "cancel", "") == {}


def test_a_stdout_that_is_closed_is_no_error(start_python):
    start_python(
        """
        import os, sys
        os.close(1)
        from prefectlite import completion
        sys.exit(completion.answer(["fish", "--", "flow-run", ""]))
        """
    ).end()


@pytest.mark.parametrize(
    "words",
    [
        ["flow-r"],
        ["flow-run", ""],
        ["flow-run", "cancel", ""],
        ["flow-run", "ls", "--state", ""],
        ["flow-run", "ls", "--columns", ""],
        ["run", "my_flows.py:"],
        ["run", "my_flows.py", "-p", ""],
        ["deployment", "run", ""],
        ["block", "create", ""],
        ["config", "set", ""],
    ],
    ids=" ".join,
)
def test_a_tab_imports_no_more_than_it_needs(start_python, record, words, tmp_path, monkeypatch):
    record.flow_run("swift-otter")
    record.deployment()
    (tmp_path / "my_flows.py").write_text("@flow\ndef etl(day): ...\n")
    monkeypatch.chdir(tmp_path)
    out = start_python(
        """
        import sys
        sys.argv[1:1] = ["__complete", "fish", "--"]
        from prefectlite.__main__ import main
        assert main() == 0
        print("modules", *sys.modules)
        """,
        *words,
    ).end()
    answer, _, modules = out.partition("modules ")
    assert len(answer.splitlines()) > 1, answer
    imported = {*modules.split()}
    assert imported.isdisjoint(_OURS_TOO_HEAVY | ({"sqlite3"} if words == ["flow-r"] else set()))
    # run.py itself needs logging, to run flows.
    allowed = {"logging"} if words[0] == "run" else set()
    assert {name.partition(".")[0] for name in imported} & _HEAVY <= allowed


def test_python_finds_the_completion_before_any_command(start_python):
    out = start_python(
        "import sys; from prefectlite import __main__; print(*sys.modules, sep='\\n')"
    ).end()
    assert {name for name in out.split() if name.startswith("prefectlite")} == {
        "prefectlite",
        "prefectlite.__main__",
    }
    assert sys.modules["prefectlite.completion"]
