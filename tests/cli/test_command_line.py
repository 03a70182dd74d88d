"""What every command shares: how it is found, its help, its errors, its streams, its weight."""

import errno
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from prefectlite import __version__, cli, console
from prefectlite.registry import open_registry
from prefectlite.states import Failed

SOURCES = str(Path(cli.__file__).parents[2])
DEADLINE_SECONDS = 60
FULL = Path("/dev/full")
_COMMANDS = ["flow-run", "task-run", "version"]
_READS = [
    ["flow-run", "ls"],
    ["flow-run", "inspect", "a-name"],
    ["flow-run", "logs", "a-name"],
    ["task-run", "ls"],
    ["task-run", "inspect", "my_task-0"],
    ["--color", "never", "flow-run", "ls", "--json"],
]
_TOO_HEAVY = {"typer", "click", "pydantic", "rich", "psutil", "asyncio", "logging", "platformdirs"}


def _every_command_line():
    for word, command in cli.every_command().items():
        names = [""] if callable(command) else command.commands
        for name in names:
            yield [word, name] if name else [word]


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
    assert "Usage: prefectlite" in ended.stderr


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
def test_every_example_of_the_help_is_read_without_typer(run, line):
    for example in run("", *line, "-h").stdout.partition("Examples:")[2].strip().split("\n"):
        words = example.strip().split()[1:]
        assert cli.read_calls(words) is not None, example


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("flow-run lss", "Did you mean 'ls'?"),
        ("flow-rum ls", "Did you mean 'flow-run'"),
        ("flow_run ls", "No such command"),
        ("Flow-run ls", "No such command"),
        ("flow-run", "Usage:"),
        ("flow-run ls --stat x", "--state"),
        ("flow-run ls --limit 0", "--limit"),
        ("flow-run ls --limit many", "--limit"),
        ("flow-run ls extra", "extra"),
        ("flow-run inspect", "ID"),
        ("flow-run logs x --level loud", "loud"),
        ("flow-run delete", "ID"),
        ("--color pink flow-run ls", "pink"),
        ("--nonsense", "--nonsense"),
        ("__init__", "No such command"),
        ("version.py", "No such command"),
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


def test_a_shell_is_told_how_to_complete_a_command(start):
    environment = {
        "_PREFECTLITE_COMPLETE": "complete_bash",
        "COMP_WORDS": "prefectlite flow-r",
        "COMP_CWORD": "1",
    }
    ended = start(env=environment)
    assert (ended.returncode, ended.stdout.decode().split()) == (0, ["flow-run"])


def test_the_completion_variable_is_heard_where_the_arguments_are_right(start, seeds):
    seeds.flow_run()
    environment = {
        "_PREFECTLITE_COMPLETE": "complete_bash",
        "COMP_WORDS": "prefectlite flow-run ls --js",
        "COMP_CWORD": "3",
    }
    ended = start("flow-run", "ls", env=environment)
    assert ended.stdout.decode().split() == ["--json"]


# Weight.


@pytest.mark.parametrize("arguments", [["--version"], ["version"], *_READS], ids=" ".join)
def test_a_command_that_reads_imports_nothing_heavy(seeds, arguments):
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
    imported = {name.partition(".")[0] for name in ended.stderr.split()}
    assert "prefectlite" in imported
    assert imported.isdisjoint(_TOO_HEAVY)


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


# Streams.


def _fill(seeds, runs=30):
    for number in range(runs):
        seeds.flow_run(f"run-{number}")


@pytest.mark.parametrize("arguments", [["flow-run", "ls"], ["--help"], ["--version"]], ids=" ".join)
def test_a_reader_that_has_gone_ends_it_silently_with_141(start, seeds, arguments):
    _fill(seeds)
    reading, writing = os.pipe()
    os.close(reading)
    ended = start(*arguments, stdout=writing)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("arguments", ["flow-run ls", "--help", "--version"])
def test_a_stream_that_was_closed_from_the_start_is_no_error(seeds, arguments, redirection):
    _fill(seeds, runs=3)
    ended = subprocess.run(
        ["sh", "-c", f'exec "$0" -m prefectlite {arguments} {redirection}', sys.executable],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (ended.stdout == "") == redirection.startswith(">&-")


def test_no_file_takes_the_number_of_a_stream_that_was_closed(tmp_path):
    # An opened file with number 1 would be written to by whatever prints, here or in a child.
    program = (
        "import sys; from prefectlite import console; console.prepare();"
        "opened = open(sys.argv[1], 'w'); opened.write(str(opened.fileno()))"
    )
    path = tmp_path / "number"
    subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" "$2" >&- 2>&- <&-', sys.executable, program, str(path)],
        env={**os.environ, "PYTHONPATH": SOURCES},
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    assert int(path.read_text()) > 2


def test_the_registry_is_whole_after_a_write_with_all_streams_closed(seeds):
    flow_run = seeds.flow_run()
    subprocess.run(
        [
            "sh",
            "-c",
            f'exec "$0" -m prefectlite flow-run delete {flow_run.id} >&- 2>&- <&-',
            sys.executable,
        ],
        env={**os.environ, "PYTHONPATH": SOURCES},
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    assert seeds.registry.list_flow_runs() == []


@pytest.mark.skipif(
    not FULL.exists(), reason="no /dev/full on this system to stand for a full disk"
)
@pytest.mark.parametrize("arguments", [["flow-run", "ls"], ["--help"], ["--version"]], ids=" ".join)
def test_a_full_disk_under_stdout_exits_5_and_says_so(start, seeds, arguments):
    _fill(seeds, runs=1)
    with FULL.open("wb") as full:
        ended = start(*arguments, stdout=full)
    assert ended.returncode == 5
    assert ended.stderr.decode().splitlines() == [
        f"error: cannot write the output: {os.strerror(errno.ENOSPC)}"
    ]


@pytest.mark.skipif(
    not FULL.exists(), reason="no /dev/full on this system to stand for a full disk"
)
def test_a_full_disk_under_stderr_does_not_change_the_exit_code(start):
    with FULL.open("wb") as full:
        ended = start("flow-run", "inspect", "nothing", stderr=full)
    assert ended.returncode == 3


def test_an_exit_code_that_is_known_survives_a_reader_that_has_gone(monkeypatch, capsys):
    def failing() -> int:
        return 1

    def gone():
        raise console.OutputClosedError("gone")

    monkeypatch.setattr(cli, "read_calls", lambda _: [(failing, {})])
    monkeypatch.setattr(console, "flush", gone)
    assert cli.main(["flow-run", "ls"]) == 1


def test_a_terminal_that_only_knows_ascii_gets_escapes_and_valid_json(start, seeds):
    seeds.flow_run("café-☕-\U0001f600", end=Failed("ñ"))
    environment = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    table = start("flow-run", "ls", env=environment)
    assert (table.returncode, table.stderr) == (0, b"")
    assert rb"caf\xe9-\u2615-\U0001f600" in table.stdout
    document = start("flow-run", "ls", "--json", env=environment)
    assert document.stdout.isascii()
    (flow_run,) = json.loads(document.stdout)
    assert flow_run["name"] == "café-☕-\U0001f600"


def test_utf8_output_is_readable(start, seeds):
    seeds.flow_run("café")
    for arguments in (["flow-run", "ls"], ["flow-run", "ls", "--json"]):
        assert "café".encode() in start(*arguments, env={"PYTHONUTF8": "1"}).stdout


def test_a_person_without_a_home_is_told_what_to_set(run, monkeypatch):
    def nobody(_):
        raise KeyError("no such user")

    for name in ("HOME", "XDG_DATA_HOME", "PREFECTLITE_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    ended = run("flow-run ls")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[1] == "hint: set PREFECTLITE_HOME"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere platformdirs itself is asked")
def test_the_usual_home_is_where_platformdirs_says_without_importing_it(start, monkeypatch):
    import platformdirs

    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("PREFECTLITE_HOME")
    shown = json.loads(start("version", "--json").stdout)
    expected = platformdirs.user_data_dir("prefectlite", appauthor=False)
    assert shown["registry"] == f"sqlite:///{expected}/registry.db"
    assert expected.startswith(os.environ["HOME"])


def test_no_home_in_the_environment_is_no_traceback(start, tmp_path):
    absent = {"HOME": None, "XDG_DATA_HOME": None, "PREFECTLITE_HOME": None}
    # What stands in for the person's home without HOME is in the password database: not touched.
    registry = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    ended = start("flow-run", "ls", env={**absent, "PREFECTLITE_REGISTRY": registry})
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_an_empty_environment_is_enough(seeds):
    seeds.flow_run()
    ended = subprocess.run(
        [sys.executable, "-m", "prefectlite", "flow-run", "ls"],
        env={"PYTHONPATH": SOURCES, "PREFECTLITE_HOME": os.environ["PREFECTLITE_HOME"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"gigantic-cockatoo" in ended.stdout


# Terminals.


def _on_terminal(*arguments, columns=80, **environment):
    """Run a command on a pseudo-terminal and return what it shows there."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = []

    def read():
        try:
            while data := os.read(controller, 65536):
                shown.append(data)
        except OSError:  # Linux says EIO when the last writer has closed the terminal
            return

    reader = threading.Thread(target=read)
    reader.start()
    environment = {"TERM": "xterm-256color", "PYTHONUTF8": "1", **environment}
    process = subprocess.run(
        [sys.executable, "-m", "prefectlite", *arguments],
        env={**os.environ, "PYTHONPATH": SOURCES, **environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    os.close(terminal)
    reader.join(DEADLINE_SECONDS)
    os.close(controller)
    assert process.returncode == 0, b"".join(shown)
    return b"".join(shown).decode().replace("\r\n", "\n")


def test_a_terminal_gets_a_table_that_fits_with_colour_and_short_ids(seeds):
    flow_run = seeds.flow_run("a-very-" + "long-" * 30 + "name")
    shown = _on_terminal("flow-run", "ls", columns=70)
    assert flow_run.id[:8] in shown
    assert flow_run.id not in shown
    assert "\x1b[32mCompleted" in shown
    assert "…" in shown
    assert "0.0s" in shown
    plain = _on_terminal("flow-run", "ls", columns=70, NO_COLOR="1")
    assert len(plain.splitlines()) == 2
    assert max(map(len, plain.splitlines())) <= 70


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["flow-run", "ls"], {"NO_COLOR": "1"}),
        (["flow-run", "ls"], {"TERM": "dumb"}),
        (["--color", "never", "flow-run", "ls"], {}),
        (["--color=never", "flow-run", "inspect", "gigantic-cockatoo"], {}),
        (["--color=never", "flow-run", "logs", "gigantic-cockatoo"], {}),
    ],
)
def test_a_terminal_gets_no_colour_where_none_is_wanted(seeds, arguments, environment):
    flow_run = seeds.flow_run()
    seeds.log(flow_run, "careful", level=30)
    assert "\x1b" not in _on_terminal(*arguments, **environment)


def test_colour_that_is_asked_for_by_option_beats_no_color(seeds):
    seeds.flow_run()
    assert "\x1b[32m" in _on_terminal("--color", "always", "flow-run", "ls", NO_COLOR="1")


def test_a_pipe_gets_colour_only_when_asked(run, seeds):
    seeds.flow_run()
    assert "\x1b" not in run("flow-run ls").stdout
    assert "\x1b[32mCompleted\x1b[0m" in run("--color always flow-run ls").stdout
    assert "\x1b" not in run("flow-run ls").stdout


def test_a_terminal_gets_indented_json(seeds):
    seeds.flow_run()
    shown = _on_terminal("flow-run", "ls", "--json")
    assert len(json.loads(shown)) == 1
    assert '\n    "id": ' in shown


def test_what_the_registry_holds_cannot_act_on_a_terminal(seeds):
    evil = "\x1b]0;owned\x07\x9b2J\u202e\r\n"
    flow_run = seeds.flow_run(f"name{evil}", end=Failed(evil), flow_name=evil, tags=(evil,))
    seeds.log(flow_run, evil, logger=evil)
    for arguments in (
        ["flow-run", "ls"],
        ["flow-run", "ls", "--json"],
        ["flow-run", "inspect", flow_run.id],
        ["flow-run", "logs", flow_run.id],
        ["flow-run", "logs", flow_run.id, "--json"],
    ):
        shown = _on_terminal("--color", "never", *arguments)
        assert not {*"\x1b\x07\x9b\r\u202e"} & {*shown}, arguments


def test_no_command_writes_in_the_folder_it_only_reads(run, home):
    assert run("flow-run ls").exit_code == 0
    assert run("version").exit_code == 0
    assert not home.exists()


def test_a_registry_that_is_opened_twice_is_the_same(seeds):
    assert open_registry(seeds.registry.url) is seeds.registry
