"""What a run is doing, on the last line of a real terminal, and that it harms no other line."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import prefectlite

SOURCES = str(Path(prefectlite.__file__).parents[1])
DEADLINE_SECONDS = 60
_ERASE = "\x1b[K"

# A flow that is to be seen for a while waits for the test to make a file; the others outlast the
# moment from which on there is something to see, which comes sooner here than it would.
_FLOWS = """
import logging, os, sys, threading, time
from pathlib import Path
from prefectlite import flow, run_progress, task, get_run_logger

run_progress._FIRST_SECONDS, run_progress._INTERVAL_SECONDS = 0.1, 0.05
early = logging.StreamHandler(sys.stderr)

def wait():
    while not Path("go").exists():
        time.sleep(0.01)

@task
def waits(number):
    wait()
    if number == 2:
        raise ValueError("as asked")

@task
def quick(): ...

@flow
def counted():
    quick()
    waits.map([1, 2, 3])
    time.sleep(0.2)
    return "done"

@flow
def speaks():
    for number in range(30):
        print(f"printed {number}")
        get_run_logger().info("logged %s", number)
        sys.stderr.write(f"written {number}\\n")
        early.emit(logging.makeLogRecord({"msg": f"kept {number}"}))
        time.sleep(0.01)

@flow
def begins_a_line():
    print("begin", end=" ", flush=True)
    time.sleep(0.3)
    print("end")

@flow
def draws_a_bar():
    for percent in range(0, 101, 10):
        sys.stderr.write(f"\\r{percent} %")
        sys.stderr.flush()
        time.sleep(0.03)
    sys.stderr.write("\\n")

@flow
def asks():
    wait()
    print("it is", input("your name? "))

@flow
def forks():
    time.sleep(0.2)
    shown, = run_progress._entered
    held, may_go = threading.Event(), threading.Event()
    def hold():
        with shown._lock:
            held.set()
            may_go.wait(30)
    threading.Thread(target=hold).start()
    held.wait(30)
    pid = os.fork()
    if not pid:
        print("by the child", flush=True)
        os._exit(0)
    until = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.kill(pid, 9)
        time.sleep(0.01)
    may_go.set()
    print("by the parent")
"""


def _shown(text):
    """Return the lines that a terminal shows after these characters, as far as we use them."""
    lines, column = [""], 0
    for part in re.findall(r"\x1b\[K|\x1b\[[0-9;]*m|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            lines.append("")
        elif part == "\r":
            column = 0
        elif part == _ERASE:
            lines[-1] = lines[-1][:column]
        elif not part.startswith("\x1b"):
            lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part) :]
            column += len(part)
    return lines


class _Terminal:
    """A terminal with ``prefectlite run`` on it.

    Attributes:
        text: All that the terminal has got.
    """

    def __init__(self, *arguments, columns=100, env=None, **options):
        self._end, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal, **options}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "prefectlite", "run", *arguments],
            env={**os.environ, "PYTHONPATH": SOURCES, "TERM": "xterm", **(env or {})},
            start_new_session=True,
            **streams,
        )
        os.close(terminal)
        self.text = ""

    def read_until(self, pattern):
        """Read until a pattern has been seen, or, with None, to the end."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while pattern is None or not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            readable, _, _ = select.select([self._end], [], [], 1)
            try:
                data = os.read(self._end, 65536) if readable else b""
            except OSError:  # the last process that had it open is gone
                assert pattern is None, self.text
                return
            self.text += data.decode()

    def type(self, text):
        os.write(self._end, text.encode())

    def lines(self):
        """Wait for the end of the run, and return the lines that are then shown."""
        self.read_until(None)
        assert self.process.wait(DEADLINE_SECONDS) in (0, 1)
        return _shown(self.text)


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    (tmp_path / "flows.py").write_text(_FLOWS)
    monkeypatch.chdir(tmp_path)
    started = []

    def start(*arguments, **options):
        started.append(_Terminal(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        os.close(one._end)


@pytest.fixture
def go(tmp_path):
    return (tmp_path / "go").touch


def test_it_shows_how_many_task_runs_are_in_which_state_and_goes_away(terminal, go):
    screen = terminal("flows.py:counted")
    screen.read_until(r"flow run '[a-z-]+': 3 running, 1 done \([0-9.]+s\)")
    assert _shown(screen.text)[-1].startswith("flow run '")
    go()
    screen.read_until(r": 3 done, 1 failed \([0-9.]+s\)")
    lines = screen.lines()
    assert lines[-1] == ""
    assert not any(line.startswith("flow run '") for line in lines)
    assert lines[-2].endswith("Finished in state Completed()")


def test_what_the_flow_prints_and_logs_stays_in_whole_lines(terminal):
    screen = terminal("flows.py:speaks")
    lines = screen.lines()
    assert screen.text.count(": no task runs yet (") > 1
    expected = []
    for number in range(30):
        logged = f"INFO    | Flow run '...' - logged {number}"
        expected += [f"printed {number}", logged, f"written {number}", f"kept {number}"]
    shown = [re.sub(r"^[0-9:.]{12} \| |(?<=Flow run ')[a-z-]+", "...", line) for line in lines]
    assert [line.removeprefix("...") for line in shown[1:-2]] == expected


def test_a_line_that_is_not_ended_stays(terminal):
    assert "begin end" in terminal("flows.py:begins_a_line").lines()


def test_a_progress_bar_of_the_flows_own_is_left_alone(terminal):
    screen = terminal("flows.py:draws_a_bar")
    assert "100 %" in screen.lines()
    assert _ERASE not in screen.text.partition("\r0 %")[2].partition("100 %")[0]


def test_the_line_makes_room_for_a_question_and_its_answer(terminal, go):
    screen = terminal("flows.py:asks")
    screen.read_until("no task runs yet")
    go()
    screen.read_until("your name\\? ")
    before = len(screen.text)
    for character in "me":
        screen.type(character)
        screen.read_until(re.escape(screen.text) + character)
    # Longer than it would take to draw.
    assert not select.select([screen._end], [], [], 0.3)[0]
    screen.type("\n")
    assert "it is me" in screen.lines()
    assert screen.text[before : before + 2] == "me"


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["flows.py:begins_a_line", "--no-progress"], {}),
        (["flows.py:speaks", "--no-progress"], {}),
        (["flows.py:speaks"], {"TERM": "dumb"}),
        (["flows.py:speaks"], {"TERM": ""}),
    ],
)
def test_there_is_none_where_it_is_not_wanted_or_cannot_be(terminal, arguments, env):
    screen = terminal(*arguments, env=env)
    screen.lines()
    assert _ERASE not in screen.text
    assert "no task runs yet" not in screen.text


def test_there_is_none_in_a_pipe(terminal):
    screen = terminal("flows.py:speaks", stderr=subprocess.PIPE)
    error = screen.process.communicate(timeout=DEADLINE_SECONDS)[1].decode()
    assert "logged 29" in error
    assert "\x1b" not in error
    assert "no task runs yet" not in error
    assert "\x1b" not in "".join(screen.lines())


def test_stdout_in_a_pipe_gets_its_exact_bytes_while_the_line_is_shown(terminal):
    screen = terminal("flows.py:speaks", stdout=subprocess.PIPE)
    data = screen.process.communicate(timeout=DEADLINE_SECONDS)[0]
    lines = screen.lines()
    assert data == "".join(f"printed {number}\n" for number in range(30)).encode()
    assert "no task runs yet" in screen.text
    assert not any("printed" in line for line in lines)


def test_with_json_on_a_terminal_the_document_comes_last(terminal):
    screen = terminal("flows.py:begins_a_line", "--json")
    lines = screen.lines()
    assert "begin end" in lines
    assert lines[lines.index("{") :][-2:] == ["}", ""]


def test_the_line_is_cut_where_the_terminal_is_narrow(terminal, go):
    screen = terminal("flows.py:counted", "--name", "n" * 200, columns=40)
    screen.read_until(r"\x1b\[Kflow run 'n{29}$")
    go()
    assert not any(line.startswith("flow run '") for line in screen.lines())
    assert "flow run '" + "n" * 30 not in screen.text.replace("Created flow run '", "")


def test_a_name_cannot_act_on_the_terminal(terminal, go):
    screen = terminal(
        "flows.py:counted", "--name", "a\x1b[2Jb\nc", "--json", stdout=subprocess.PIPE
    )
    screen.read_until(r"3 running")
    drawn = screen.text[screen.text.rindex(_ERASE) :]
    go()
    screen.process.communicate(timeout=DEADLINE_SECONDS)
    assert "\x1b[2J" not in drawn
    assert "\n" not in drawn


def test_a_forked_child_prints_whatever_lock_was_held(terminal):
    lines = terminal("flows.py:forks").lines()
    assert any(line.endswith("by the child") for line in lines)
    assert "by the parent" in lines


def test_the_streams_are_as_they_were_when_it_has_ended(tmp_path, monkeypatch):
    import builtins

    from prefectlite.run_progress import Progress

    class Request:
        flow_run = None

    master, slave = pty.openpty()
    with open(slave, "w") as stream:  # noqa: PTH123 - a number
        monkeypatch.setattr(sys, "stderr", stream)
        ask = builtins.input
        with Progress(Request()):
            assert "write" in vars(stream)
            assert builtins.input is not ask
        assert "write" not in vars(stream)
        assert builtins.input is ask
    os.close(master)
