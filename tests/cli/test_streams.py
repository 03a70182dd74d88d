"""What a command does with the streams, the terminal and the environment it is given."""

import errno
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from prefectlite import cli, console
from prefectlite.registry import open_registry
from prefectlite.states import Failed

SOURCES = str(Path(cli.__file__).parents[2])
DEADLINE_SECONDS = 60
FULL = Path("/dev/full")


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
    assert "ms" in shown
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
