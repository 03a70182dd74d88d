"""Completion in the real shells, on a terminal: what the line is after TAB, and what is shown.

Each shell reads the script from where ``prefectlite completion install`` has put it. The line is not
read off the screen: the shell itself writes down what it has. ``NO_SKIPS`` in the environment makes a
shell that is missing a failure, as CI does.
"""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import prefectlite
from prefectlite import cli
from prefectlite.completion_scripts import Shell, script

SOURCES = str(Path(prefectlite.__file__).parents[1])
_BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
_DEADLINE_SECONDS = 60
_PROMPT = "READY> "
_ANSI = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\(B)")
# Makes the terminal that it has for stdin that of its session, which a shell's line editor wants.
_LAUNCHER = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_BASH = r"""
PS1='READY> '
bind 'set bell-style none'
bind 'set enable-bracketed-paste off'
bind 'set page-completions off'
bind 'set completion-query-items 0'
bind '"\C-xd": "\C-a#\C-m"'
PROMPT_COMMAND='note=$((note + 1)); { fc -ln -1; printf "\0"; } > line; printf "<noted %s>" $note'
"""
_ZSH = r"""
PROMPT='READY> '
LISTMAX=1000
unsetopt beep
note() { print -rn -- "$BUFFER"$'\0' > line }
zle -N note
bindkey '^Xd' note
"""
_FISH = r"""
function fish_prompt; echo -n 'READY> '; end
function fish_greeting; end
bind \cxd 'commandline > line; printf "\0" >> line'
"""
_KINDS = ["bash", "bash-completion", "zsh", "fish"]


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, arguments, environment, folder):
        # bash enters a line as a comment, and notes it then; the others note what they have.
        self._is_bash = arguments[0] == "bash"
        self._entered = 1
        self._line = folder / "line"
        self._screen = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 70, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        os.close(slave)
        self._wait_for_prompt()

    def line(self, typed):
        """Type this, with TAB at its end, and return the line as it is then."""
        self._type(typed, times=1)
        text = self._line.read_text(encoding="utf-8").rstrip("\n\0")
        return text[3:] if self._is_bash else text  # after a tab, a space or star, and "#"

    def shown(self, typed, what):
        """Type this, with TAB twice, and return what is shown, once that has ``what``."""
        self._type(typed, times=2)
        self._wait(lambda: what in self._screen)
        return _ANSI.sub("", self._screen)

    def does(self, line):
        """Enter a line, and wait until the shell is ready again."""
        self._screen = ""
        self._send(f"\x15{line}\r")
        self._wait_for_prompt()

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _type(self, typed, *, times):
        self._screen = ""
        self._line.unlink(missing_ok=True)
        self._send("\x15" + typed + "\t" * times + "\x18d")  # Ctrl-U before it, Ctrl-X d after it
        if self._is_bash:
            self._wait_for_prompt()
        self._wait(lambda: self._line.exists() and self._line.read_bytes().endswith(b"\0"))

    def _wait_for_prompt(self):
        noted = f"<noted {self._entered}>" if self._is_bash else ""
        self._wait(
            lambda: (
                _PROMPT in self._screen.partition(noted)[2] if noted else _PROMPT in self._screen
            )
        )
        self._entered += 1

    def _send(self, text):
        os.write(self._master, text.encode())

    def _wait(self, condition):
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self._screen
            readable, _, _ = select.select([self._master], [], [], 0.01)
            if readable:
                self._screen += os.read(self._master, 65536).decode(errors="replace")


def _need(found, what):
    if not found:
        assert "NO_SKIPS" not in os.environ, f"{what} is not here"
        pytest.skip(f"NOT TESTED: {what} is not here")


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A folder of a person: a home with a command ``prefectlite`` on the path, and no more."""
    folder = tmp_path / "person"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "prefectlite"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={SOURCES} exec {sys.executable} -m prefectlite "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name)
    return folder


@pytest.fixture(params=_KINDS)
def kind(request):
    _need(shutil.which("bash" if request.param in _KINDS[:2] else request.param), request.param)
    if request.param == "bash-completion":
        _need(_BASH_COMPLETION.exists(), "the package bash-completion")
    return request.param


@pytest.fixture
def terminal(kind, user, home, capsys):
    """A terminal of a person who has just installed the completion, as they were told."""
    shell = kind.partition("-")[0]
    assert cli.main(["completion", "install", shell]) == 0
    told = capsys.readouterr().err
    environment = {
        "PATH": f"{user / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(user),
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
        "PREFECTLITE_HOME": str(home),
    }
    if shell == "bash":
        start = _BASH
        if kind == "bash":
            start += f". {user}/.local/share/bash-completion/completions/prefectlite\n"
        else:
            start += f". {_BASH_COMPLETION}\n"
        (user / ".bashrc").write_text(start)
        arguments = ["bash", "--noprofile", "-i"]
    elif shell == "zsh":
        lines = [line.strip() for line in told.splitlines() if line.startswith("    ")]
        (user / ".zshrc").write_text("\n".join([*lines, _ZSH]))
        arguments = ["zsh", "-d", "-i"]
    else:
        arguments = ["fish", "--private", "-i", "-C", _FISH]
    terminal = Terminal(arguments, environment, user)
    yield terminal
    terminal.close()


def test_commands_options_choices_and_what_is_on_record(terminal, record, user):
    record.flow_run("swift-otter")
    record.completed("done-run")
    (user / "my_flows.py").write_text("@flow\ndef etl(day): ...\n@flow\ndef load(): ...\n")
    (user / "my file.toml").write_text("")
    assert terminal.line("prefectlite flow-r") == "prefectlite flow-run "
    assert terminal.line("prefectlite flow-run can") == "prefectlite flow-run cancel "
    assert terminal.line("prefectlite flow-run ls --jso") == "prefectlite flow-run ls --json "
    assert terminal.line("prefectlite --color ne") == "prefectlite --color never "
    assert terminal.line("prefectlite --color=ne") == "prefectlite --color=never "
    # One of the two has ended, and cannot be cancelled.
    assert (
        terminal.line("prefectlite flow-run cancel ") == "prefectlite flow-run cancel swift-otter "
    )
    assert (
        terminal.line("prefectlite flow-run delete don") == "prefectlite flow-run delete done-run "
    )
    assert terminal.line("X=1 prefectlite flow-run pau") == "X=1 prefectlite flow-run pause "
    # What is to go on has no space after it.
    assert terminal.line("prefectlite config set PREFECTLITE_UI") == (
        "prefectlite config set PREFECTLITE_UI_URL="
    )
    assert terminal.line("prefectlite run my") == "prefectlite run my_flows.py:"
    assert terminal.line("prefectlite run my_flows.py:e") == "prefectlite run my_flows.py:etl "
    assert terminal.line("prefectlite run my_flows.py:etl -p ") == (
        "prefectlite run my_flows.py:etl -p day="
    )
    # Files are the shell's own affair; they differ in how they quote.
    assert terminal.line("prefectlite deployment apply my\\ f") in {
        "prefectlite deployment apply my\\ file.toml ",
        "prefectlite deployment apply 'my file.toml' ",
    }
    assert terminal.line("prefectlite deployment build x --output=my\\ f").rstrip(" ") in {
        "prefectlite deployment build x --output=my\\ file.toml",
        "prefectlite deployment build x '--output=my file.toml'",
    }


def test_what_there_is_to_choose_from_is_shown_newest_first_with_its_state(terminal, record):
    record.flow_run("an-old-run")
    record.paused("middle-run", asks_for={})
    record.flow_run("zz-new-run")
    shown = terminal.shown("prefectlite flow-run cancel ", "an-old-run")
    rows = re.findall(r"(\S+-run)\s.*?(Running|Paused), my-flow", shown)
    assert rows[:3] == [
        ("zz-new-run", "Running"),
        ("middle-run", "Paused"),
        ("an-old-run", "Running"),
    ]
    shown = terminal.shown("prefectlite ", "work-queue")
    assert "See flow runs, follow them" in shown


#: Names, and starts of them as a person may write these.
_HOSTILE = {
    "$(touch x)": ["\\$", "'$("],
    "`touch x`;touch x": ["'`t"],
    "a b'c": ["a", '"a b', "a\\ "],
    'd"e\\f&g': ["d", "'d"],
    "ünï:cödé": ["ün", "ünï:", "'ünï:c"],
    "~x*?[y]{z}#!": ["'~"],
}


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"], indirect=True)
def test_a_hostile_name_is_one_word_and_runs_nothing(terminal, record, user):
    for number, name in enumerate(_HOSTILE):
        record.flow_run(name, id=f"0{number}234567-0000-4000-8000-000000000000")
    unnamed = record.completed("-x\x1b]0;touch x\x07")
    (user / "names").mkdir()
    begun = [(name, text) for name, texts in _HOSTILE.items() for text in texts]
    lines = [("cancel", text, name) for name, text in begun] + [
        ("delete", unnamed.id[:5], unnamed.id)
    ]
    for number, (command, text, name) in enumerate(lines):
        line = terminal.line(f"prefectlite flow-run {command} {text}").strip()
        said = line.removeprefix(f"prefectlite flow-run {command} ")
        # What the line says is the shell's to say: it writes the word down.
        terminal.does(f"printf %s {said} > names/{number}")
        assert (user / "names" / str(number)).read_text(encoding="utf-8") == name, line
    assert not (user / "x").exists()


def test_the_program_that_stands_on_the_line_is_asked(terminal, user):
    other = user / "venv" / "bin"
    other.mkdir(parents=True)
    (other / "prefectlite").write_text("#!/bin/sh\necho words\nprintf 'another\\tanother\\n'\n")
    (other / "prefectlite").chmod(0o755)
    (user / "bin" / "prefectlite").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    # One that fails offers nothing. bash-completion has loaded it then; by a path it takes two TABs.
    assert terminal.line("prefectlite an").rstrip() == "prefectlite an"
    for program in ("venv/bin/prefectlite", "~/venv/bin/prefectlite"):
        assert terminal.line(f"{program} an").startswith(f"{program} another")


@pytest.mark.parametrize("shell", [*Shell])
def test_the_scripts_of_the_packages_are_those_that_are_shown(shell):
    name = {"bash": "prefectlite.bash", "zsh": "_prefectlite", "fish": "prefectlite.fish"}[shell]
    kept = Path(__file__).parents[2] / "completions" / name
    again = f"prefectlite completion show {shell} > completions/{name}"
    assert kept.read_text(encoding="utf-8") == script(shell), f"make it again: {again}"
