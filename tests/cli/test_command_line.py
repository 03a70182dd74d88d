"""What every command shares: how it is found, its help, its errors, its streams, its weight."""

import errno
import inspect
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefectlite import __version__, cli, commands
from prefectlite.command_tree import every_command
from prefectlite.infrastructure.process import Process

SOURCES = str(Path(cli.__file__).parents[2])
DEADLINE_SECONDS = 60
FULL = Path("/dev/full")
_COMMANDS = ["block", "deployment", "flow-run", "task-run", "version", "work-queue"]
_READS = [
    ["flow-run", "ls"],
    ["flow-run", "inspect", "a-name"],
    ["flow-run", "logs", "a-name"],
    ["task-run", "ls"],
    ["task-run", "inspect", "my_task-0"],
    ["deployment", "ls"],
    ["work-queue", "ls"],
    ["block", "ls"],
    ["block", "inspect", "process/big-box"],
    ["--color", "never", "flow-run", "ls", "--json"],
]
_TOO_HEAVY = {"typer", "click", "pydantic", "rich", "psutil", "asyncio", "logging", "platformdirs"}
_TOO_HEAVY |= {"tomllib", "tomli_w"}


def _every_command_line(group=None, words=()):
    for word, command in (group or every_command()).items():
        if callable(command):
            yield [*words, word]
        else:
            yield from _every_command_line(command, [*words, word])


# Finding and reading.


def test_version_says_the_version(start):
    ended = start("--version")
    assert (ended.returncode, ended.stdout.decode()) == (0, f"prefectlite {__version__}\n")


def test_version_is_an_option_of_the_long_way_too(run):
    assert run("--color never --version").stdout == f"prefectlite {__version__}\n"
    assert run("--version flow-run").stdout == f"prefectlite {__version__}\n"


def test_no_command_is_a_usage_error_with_the_help_on_stderr(run):
    ended = run("")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("Usage:\n  prefectlite ")


def test_the_help_names_every_command_and_the_exit_codes(run):
    ended = run("--help")
    assert (ended.exit_code, ended.stderr) == (0, "")
    for word in [*_COMMANDS, "124", "141", "--color"]:
        assert word in ended.stdout


@pytest.mark.parametrize("line", [*_every_command_line()], ids=" ".join)
def test_the_help_of_every_command_shows_an_example_of_it(run, line):
    ended = run("", *line, "--help")
    assert ended.exit_code == 0
    examples = ended.stdout.partition("Examples:")[2].split("\n")
    assert any(example.strip().startswith(f"prefectlite {' '.join(line)}") for example in examples)


@pytest.mark.parametrize("line", [*_every_command_line()], ids=" ".join)
def test_every_example_of_the_help_is_right(run, line):
    for example in run("", *line, "-h").stdout.partition("Examples:")[2].strip().split("\n"):
        words = shlex.split(example.partition(" | ")[0])[1:]  # of a pipe the first command
        assert cli.read_calls(words)[-1][0].__name__ == line[-1].replace("-", "_"), example


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("flow-run lss", "error: no such command: flow-run lss\nhint: did you mean ls?\n"),
        ("flow-rum ls", "hint: did you mean flow-run"),
        ("flow_run ls", "hint: did you mean flow-run"),
        ("Flow-run ls", "hint: did you mean flow-run"),
        ("quite-another", "hint: see: prefectlite --help\n"),
        ("flow-run", "Usage:\n  prefectlite flow-run COMMAND"),
        ("flow-run ls --profile ci", "hint: it stands before the command, right after prefectl"),
        ("flow-run ls --color=never", "hint: it stands before the command, right after prefe"),
        ("flow-run --color=never ls", "hint: it stands before the command, right after prefe"),
        ("flow-run --nothing ls", "hint: see: prefectlite flow-run --help\n"),
        ("flow-run ls --stat x", "error: no such option: --stat\nhint: did you mean --state?\n"),
        ("flow-run ls --limit 0", "error: --limit: 0 is less than 1"),
        ("flow-run ls --limit many", "error: --limit: 'many' is not a whole number"),
        ("flow-run ls extra", "error: unexpected argument: 'extra'"),
        ("flow-run inspect", "error: missing argument: ID"),
        ("flow-run logs x --level loud", "error: --level: 'loud' is none of debug, info, war"),
        ("--color pink flow-run ls", "error: --color: 'pink' is none of auto, always, never"),
        ("--nonsense", "error: no such option: --nonsense"),
        ("__init__", "error: no such command: __init__"),
        ("version.py", "hint: did you mean version?"),
        ("block type", "Usage:\n  prefectlite block type COMMAND"),
        ("block type lss", "hint: did you mean ls?"),
        ("block-type ls", "error: no such command: block-type"),
        ("block_type ls", "error: no such command: block_type"),
        ("flow run ls", "error: no such command: flow"),
        ("flow-run nothing --help", "error: no such command: flow-run nothing"),
    ],
)
def test_a_usage_error_exits_2_and_says_why_on_stderr(run, line, words):
    ended = run(line)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "words", [["flow-run", "ls", "\x1b[2J"], ["\x1b[2J"], ["flow-run", "inspect", "\udcff\x9b"]]
)
def test_hostile_arguments_do_not_act_on_the_terminal(run, words):
    ended = run("", *words)
    assert ended.exit_code in {2, 3}
    assert "\x1b" not in ended.stderr
    assert "\x9b" not in ended.stderr


# Weight.


@pytest.mark.parametrize("arguments", [["--version"], ["version"], *_READS], ids=" ".join)
def test_a_command_that_reads_imports_nothing_heavy(seeds, arguments):
    Process().save("big-box")
    flow_run = seeds.flow_run("a-name", end=False)
    seeds.log(flow_run, "hello", task_run=seeds.task_run(flow_run))
    seeds.end(flow_run)
    program = (
        "import sys; from prefectlite.__main__ import main; code = main();"
        "print(*sys.modules, sep='\\n', file=sys.stderr); sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stdout.strip() != "") == (0, True), ended.stderr
    modules = {*ended.stderr.split()}
    imported = {name.partition(".")[0] for name in modules}
    assert "prefectlite" in imported
    assert imported.isdisjoint(_TOO_HEAVY)
    if "block" not in arguments:
        assert not any("block" in name for name in modules if name.startswith("prefectlite."))


def test_version_is_answered_before_anything_is_imported():
    program = (
        "import sys; before = {*sys.modules}; sys.argv = ['prefectlite', '--version'];"
        "from prefectlite.__main__ import main; main();"
        "print(*({*sys.modules} - before), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    assert set(ended.stderr.split()) <= {"prefectlite", "prefectlite.__main__", "__future__"}


# Exit codes.


def test_nothing_wrong_exits_0(run, seeds):
    seeds.flow_run()
    assert run("flow-run ls").exit_code == 0


def test_what_is_not_there_exits_3_with_a_hint(run):
    ended = run("flow-run inspect nothing")
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert ended.stderr.splitlines() == [
        "error: there is no flow run 'nothing'",
        "hint: see: prefectlite flow-run ls",
    ]


def test_an_ambiguous_name_exits_4_and_lists_the_candidates(run, seeds):
    twins = [seeds.flow_run("twin"), seeds.flow_run("twin")]
    ended = run("flow-run inspect twin")
    assert ended.exit_code == 4
    for twin in twins:
        assert twin.id in ended.stderr


def test_a_registry_that_cannot_be_read_exits_5(run, home):
    home.mkdir()
    (home / "registry.db").write_bytes(b"this is no database, but it is long enough" * 100)
    ended = run("flow-run ls")
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert ended.stderr.startswith("error: ")
    assert "\nhint: " in ended.stderr


def test_a_setting_that_cannot_be_understood_exits_2(run, monkeypatch):
    monkeypatch.setenv("PREFECTLITE_REGISTRY", "nonsense")
    ended = run("flow-run ls")
    assert ended.exit_code == 2
    assert "nonsense" in ended.stderr


def test_a_fault_of_our_own_exits_1_in_one_line_and_a_hint(run, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(cli, "read_calls", fail)
    ended = run("flow-run ls")
    assert ended.exit_code == 1
    error, hint = ended.stderr.splitlines()
    assert error == r"error: internal error: ZeroDivisionError: two\nlines"
    assert "PREFECTLITE_DEBUG=1" in hint


def test_a_fault_of_our_own_has_its_traceback_when_debugging(run, monkeypatch):
    monkeypatch.setenv("PREFECTLITE_DEBUG", "1")
    monkeypatch.setattr(cli, "read_calls", lambda _: 1 / 0)
    ended = run("flow-run ls")
    assert ended.exit_code == 1
    assert "Traceback" in ended.stderr
    monkeypatch.setenv("PREFECTLITE_DEBUG", "perhaps")
    assert "Traceback" not in run("flow-run ls").stderr


@pytest.mark.parametrize(
    ("number", "path", "told"),
    [
        (errno.EIO, None, (5, "a file cannot be used: Input/output error", "is its disk whole")),
        (errno.ENOSPC, "/x", (5, "/x cannot be used: No space left", "is its disk whole")),
        (errno.EACCES, "/x", (5, "/x cannot be used: Permission denied", "may you read and write")),
        (errno.EMFILE, "/x", (5, "/x cannot be used: Too many open files", "ulimit -a")),
        (errno.ENOMEM, None, (5, "Cannot allocate memory", "is a limit reached?")),
        (errno.ENOENT, "/x", (5, "/x cannot be used: No such file", "did somebody change that")),
        (errno.ENOENT, None, (5, "the current folder cannot be used: No such", "cd to one that")),
        (errno.EPERM, None, (1, "internal error: PermissionError: ", "a fault of prefectlite")),
        (errno.EBADF, None, (1, "internal error: OSError: [Errno 9]", "a fault of prefectlite")),
        (errno.ECONNREFUSED, None, (1, "internal error: Conn", "a fault of prefectlite")),
    ],
)
def test_what_the_system_refuses_is_told_for_what_it_is(run, monkeypatch, number, path, told):
    def fail(*_):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(cli, "read_calls", fail)
    ended = run("flow-run ls")
    error, hint = ended.stderr.splitlines()
    assert ended.exit_code == told[0]
    assert told[1] in error
    assert told[2] in hint
    assert "PREFECTLITE_DEBUG=1" in hint


def test_interrupted_exits_130_without_a_traceback(start, tmp_path):
    # Opening a FIFO for reading waits for a writer: the command is interrupted while it blocks.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = (
        "import sys; from prefectlite import cli, __main__;"
        f"cli.read_calls = lambda _: (print('ready', flush=True), open({str(fifo)!r}));"
        "sys.exit(__main__.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "flow-run", "ls"],
        env={**os.environ, "PYTHONPATH": SOURCES},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, stdout, stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("flow-run inspect gigantic-cockato", "did you mean gigantic-cockatoo?"),
        ("flow-run cancel gigantc-cockatoo", "did you mean gigantic-cockatoo?"),
        ("work-queue inspect slwo", "did you mean slow?"),
        ("block inspect process/bigbox", "did you mean process/big-box?"),
        ("flow-run inspect quite-another", "see: prefectlite flow-run ls"),
    ],
)
def test_a_name_that_is_not_on_record_brings_up_those_that_are_near(run, seeds, line, hint):
    seeds.flow_run()
    Process().save("big-box")
    run("work-queue create slow")
    ended = run(line)
    assert (ended.exit_code, ended.stderr.splitlines()[-1]) == (3, f"hint: {hint}")


def test_the_declaration_of_a_command_is_evaluated_once(monkeypatch):
    evaluated, signature = [], inspect.signature

    def counted(function, **options):
        evaluated.append(function)
        return signature(function, **options)

    commands._declared.cache_clear()
    monkeypatch.setattr(inspect, "signature", counted)
    cli.read_calls(["flow-run", "ls"])
    assert len(evaluated) == len({*evaluated}) == 4
