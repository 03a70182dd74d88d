"""Whatever a command line is given, and wherever it is started, it ends as documented, without a traceback."""

import contextlib
import fcntl
import io
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefectlite import cli
from prefectlite.command_tree import every_command
from prefectlite.commands import parameters
from prefectlite.setting_sources import PREFECTLITE_PROFILE, forget_profile

SOURCES = str(Path(cli.__file__).parents[2])
DEADLINE_SECONDS = 60
_DOCUMENTED = {int(code) for code, _ in cli.EXIT_CODES}
_NAME = "gigantic-cockatoo"
# What a person, a script or a stranger may give.
_HOSTILE = [
    "",
    "-",
    "--",
    " ",
    "\n",
    "\x00",
    "\x1b[2J",
    "\x9b31m",
    "\u202eabc",
    "\udcff",
    "é",
    "人" * 50,
]
_HOSTILE += [
    "a" * 70_000,
    "%s%n",
    "'; DROP TABLE flow_run; --",
    "$(touch x)",
    "../..",
    "/",
    "/dev/null",
]
_HOSTILE += [
    "~",
    "*",
    "0",
    "-1",
    "9" * 400,
    "1e999",
    "nan",
    "inf",
    "٣",
    "=",
    "a=",
    "=b",
    "a=b",
    "{}",
    "[1",
]
_HOSTILE += ["@", "@/", "@/dev/null", "9999-12-31", "0001-01-01", "99999999d", "sqlite:///", _NAME]


def _every_command(group=None, words=()):
    for word, command in (group or every_command()).items():
        if callable(command):
            yield [*words, word], command
        else:
            yield from _every_command(command, [*words, word])


_COMMANDS = {" ".join(words): function for words, function in _every_command()}
# Without it, nothing else is looked at.
_RIGHT = {("block create", "type_"): "secret"}
# An agent goes on until it is ended.
_ENDS = {"agent start": ["--run-once"]}


def _texts(parameter):
    """Return a strategy for the value of a parameter: often right, often not."""
    right = [*parameter.choices, "1", _NAME, "my-flow"]
    return st.sampled_from(right) | st.sampled_from(_HOSTILE) | st.text(max_size=5)


@st.composite
def _arguments(draw, function):
    words = []
    for parameter in parameters(function):
        if not parameter.names:
            most = 3 if parameter.is_list else 1
            words += draw(
                st.lists(_texts(parameter), min_size=parameter.is_required, max_size=most)
            )
        elif draw(st.integers(0, 2)) == 0 or (parameter.is_required and draw(st.booleans())):
            name = draw(st.sampled_from(parameter.names))
            words.append(name if parameter.is_flag else f"{_begun(name)}{draw(_texts(parameter))}")
    return draw(st.permutations(words))


def _word(parameter, text):
    return f"{_begun(parameter.names[0])}{text}" if parameter.names else text


def _begun(name):
    return f"{name}=" if name.startswith("--") else name


def _ended(words):
    """Run a command line in this process, as the one of a new process; return its code and words."""
    PREFECTLITE_PROFILE.forget()
    forget_profile()
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        exit_code = cli.main(words)
    return exit_code, stderr.getvalue()


@pytest.fixture
def check(seeds, tmp_path, monkeypatch):
    """Run a command with some words where there is a run, and see that it ends as it is documented."""
    seeds.task_run(flow_run := seeds.flow_run(_NAME, end=False))
    seeds.end(flow_run)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def end(line, words):
        exit_code, told = _ended([*line.split(), *_ENDS.get(line, []), *words])
        assert exit_code in _DOCUMENTED, (words, told)
        assert "internal error" not in told, (words, told)
        assert "Traceback" not in told, (words, told)
        assert "\x1b" not in told, (words, told)
        assert Path(os.devnull).is_char_device()

    return end


@pytest.mark.parametrize("line", sorted(_COMMANDS))
def test_no_arguments_bring_a_command_to_an_end_that_is_not_documented(line, check):
    @settings(max_examples=25, deadline=None, suppress_health_check=[*HealthCheck], database=None)
    @given(_arguments(_COMMANDS[line]))
    def draw(words):
        check(line, words)

    draw()


@pytest.mark.parametrize("line", sorted(_COMMANDS))
def test_nothing_that_is_given_for_one_parameter_brings_a_command_to_another_end(line, check):
    takes = [parameter for parameter in parameters(_COMMANDS[line]) if not parameter.is_flag]
    for parameter in takes:
        for text in _HOSTILE:
            given = {other: _RIGHT.get((line, other.name), _NAME) for other in takes}
            given[parameter] = text
            wanted = [other for other in takes if other.is_required or other is parameter]
            check(line, [_word(other, given[other]) for other in wanted])


# Wherever it is started.

#: Runs command lines in one process after the other, and says in a file how each has ended.
_DRIVER = """
import json, os, sys
lines, path = json.loads(sys.argv[1]), sys.argv[2]
ended = []
from prefectlite.__main__ import main
from prefectlite.command_tree import every_command
import prefectlite.cli, prefectlite.registry.sqlite
for line in lines:  # once, and not in every child
    every_command().find(line[0])
for words in lines:
    pid = os.fork()
    if not pid:
        sys.argv = ["prefectlite", *words]
        sys.exit(main())
    ended.append([words, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])])
with open(path, "w") as file:
    json.dump(ended, file)
"""
# What asks for one of them, beside the commands that ask for none.
_ONE = {
    "flow-run": _NAME,
    "task-run": "my_task-0",
    "work-queue": "default",
    "block type": "secret",
    "profile": "default",
}


def _reads():
    """Return a line for each command that only reads and that ends by itself."""
    for line in _COMMANDS:
        group, _, word = line.rpartition(" ")
        if word in {"inspect", "logs", "wait", "watch", "timeline"} and group in _ONE:
            yield [*line.split(), _ONE[group]]
        if word in {"ls", "view", "info", "path", "check", "version", "doctor", "validate"}:
            yield line.split()
    yield from [["--help"], ["flow-run"], ["flow-run", "inspect", "nothing"], ["flow-run", "lss"]]


_READS = [*_reads()]
_PLAIN = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": "/dev/null/nobody"}
_PLACES = {
    "a terminal of 20 columns": ({"TERM": "xterm"}, "", 20),
    "a terminal of 300 columns": ({"TERM": "xterm"}, "", 300),
    "a terminal of no columns": ({"TERM": "xterm"}, "", 0),
    "a dumb terminal": ({"TERM": "dumb"}, "", 80),
    "a terminal that is unknown": ({"TERM": "no-such-terminal"}, "", 80),
    "an ASCII terminal": ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "", 80),
    "a pipe": ({}, "</dev/null", None),
    "a Latin-1 pipe": ({"PYTHONIOENCODING": "latin-1"}, "", None),
    "closed streams": ({}, "<&- >&- 2>&-", None),
    "a closed stdout": ({}, ">&-", None),
    "an environment without HOME": ({"HOME": None}, "", None),
    "a home that cannot be written": ({"PREFECTLITE_HOME": "/proc/nobody"}, "", None),
    "a home that is a file": ({"PREFECTLITE_HOME": "/dev/null"}, "", None),
    "an empty environment": (dict.fromkeys([*_PLAIN, "PREFECTLITE_HOME"]), "", None),
}


def _shown(command, environment, columns):
    """Run a command on a terminal, or on pipes where columns is None; return what it shows."""
    options = {"env": environment, "timeout": DEADLINE_SECONDS}
    if columns is None:
        ended = subprocess.run(command, check=False, capture_output=True, **options)
        return ended.stdout + ended.stderr
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = []

    def read():
        with contextlib.suppress(OSError):  # EIO when the last writer has closed it
            while data := os.read(controller, 65536):
                shown.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    subprocess.run(command, check=False, **streams, **options)
    os.close(terminal)
    reader.join(DEADLINE_SECONDS)
    os.close(controller)
    return b"".join(shown)


@pytest.mark.parametrize("place", _PLACES)
def test_a_command_ends_as_documented_wherever_it_is_started(place, seeds, home, tmp_path):
    changes, redirection, columns = _PLACES[place]
    flow_run = seeds.flow_run(_NAME, end=False, parameters={"text": "\x1b[2J人" * 40})
    seeds.log(flow_run, "careful\n\x1b[2J", level=30, task_run=seeds.task_run(flow_run))
    seeds.end(flow_run)
    environment = {**_PLAIN, "PREFECTLITE_HOME": str(home), "PYTHONPATH": SOURCES, **changes}
    environment = {name: value for name, value in environment.items() if value is not None}
    result = tmp_path / "ended.json"
    command = [sys.executable, "-W", "error", "-c", _DRIVER, json.dumps(_READS), str(result)]
    shown = _shown(["sh", "-c", f'exec "$@" {redirection}', "sh", *command], environment, columns)
    told = shown.decode(errors="replace")
    for words, exit_code in json.loads(result.read_text()):
        assert exit_code in _DOCUMENTED, (words, exit_code, told)
    assert "Traceback" not in told
    assert "internal error" not in told
    assert "\x1b[2J" not in told
