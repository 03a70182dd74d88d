"""A progress bar is for a person at a terminal, and leaves nothing behind."""

import fcntl
import io
import os
import struct
import sys
import termios

import pytest

from prefectlite import progress_bars
from prefectlite.progress_bars import ProgressBar


class Clock:
    """Time that passes when a test says so."""

    at = 100.0

    def __call__(self):
        return self.at


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_bars, "monotonic", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch):
    """Make stderr a terminal of so many columns; returns what was written to it."""
    opened = []

    def make(columns=80, encoding="utf-8"):
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        stream = io.TextIOWrapper(os.fdopen(slave, "wb"), encoding=encoding, write_through=True)
        opened.append((master, stream))
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        os.set_blocking(master, False)

        def written():
            try:
                return os.read(master, 65_536).decode(encoding)
            except BlockingIOError:
                return ""

        return written

    yield make
    for master, stream in opened:
        stream.close()
        os.close(master)


def bar_of(columns, terminal, *, done=45, seconds=9.0, encoding="utf-8", unit="flow runs"):
    terminal(columns, encoding)
    return ProgressBar("Deleting", unit=unit).text(done, 100, seconds=seconds)


def test_of_work_whose_amount_nobody_knows_the_time_is_shown(terminal, clock):
    written = terminal()
    with ProgressBar("Checking") as bar:
        bar.tick()
        clock.at += 0.4
        bar.tick()
        assert written() == ""
        clock.at += 1.2
        bar.tick()
        bar.tick()
        assert written() == "\r\x1b[KChecking  1.6s"
    assert written() == "\r\x1b[K"


def test_work_that_is_over_in_a_moment_shows_nothing(terminal, clock):
    written = terminal()
    with ProgressBar("Deleting") as bar:
        bar.update(1, 2)
        clock.at += 0.4
        bar.update(2, 2)
    assert written() == ""


def test_what_is_shown_is_cleared_when_the_work_ends_however_it_ends(terminal, clock):
    written = terminal()
    with pytest.raises(KeyboardInterrupt), ProgressBar("Deleting") as bar:  # noqa: PT012 - within it
        clock.at += 1
        bar.update(1, 2)
        assert "50%" in written()
        raise KeyboardInterrupt
    assert written() == "\r\x1b[K"


def test_it_is_drawn_no_more_than_ten_times_a_second(terminal, clock):
    written = terminal()
    with ProgressBar("Deleting") as bar:
        clock.at += 1
        for done in range(100):
            bar.update(done, 100)
        assert written().count("\r") == 1
        clock.at += 0.11
        bar.update(99, 100)
        assert written().count("\r") == 1


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_dumb_terminal_is_left_alone(terminal, clock, monkeypatch, term):
    written = terminal()
    monkeypatch.setenv("TERM", term)
    with ProgressBar("Deleting") as bar:
        clock.at += 1
        bar.update(1, 2)
        assert bool(written()) == (term != "dumb")


def test_a_pipe_gets_nothing(clock, capsys):
    with ProgressBar("Deleting") as bar:
        clock.at += 1
        bar.update(1, 2)
    assert capsys.readouterr().err == ""


def test_a_terminal_that_is_gone_does_not_stop_the_work(terminal, clock):
    terminal()
    with ProgressBar("Deleting") as bar:
        clock.at += 1
        sys.stderr.close()
        bar.update(1, 2)
        clock.at += 1
        bar.update(2, 2)


def test_of_nothing_there_is_no_share(terminal, clock):
    written = terminal()
    with ProgressBar("Deleting") as bar:
        clock.at += 1
        bar.update(0, 0)
    assert written() == ""


def test_the_line_says_how_much_is_done_and_how_long_the_rest_takes(terminal):
    assert bar_of(80, terminal) == (
        "Deleting " + "━" * 15 + "─" * 19 + "  45%  11s left  45 of 100 flow runs"
    )


@pytest.mark.parametrize("columns", [*range(20, 100), 300])
def test_the_line_is_never_wider_than_the_terminal(terminal, columns):
    line = bar_of(columns, terminal)
    assert len(line) < columns
    assert line.startswith("Deleting")
    assert "45%" in line


def test_where_there_is_little_room_the_time_comes_before_the_count_and_the_bar(terminal):
    assert bar_of(20, terminal) == "Deleting  45%"
    assert bar_of(30, terminal) == "Deleting  45%  11s left"


def test_a_bar_for_ascii_is_of_ascii(terminal):
    assert bar_of(40, terminal, encoding="ascii", unit=None).isascii()


def test_what_is_left_is_not_guessed_too_soon(terminal):
    assert "left" not in bar_of(80, terminal, seconds=0.9)
    assert "left" not in bar_of(80, terminal, done=0)


def test_more_than_all_is_all(terminal):
    assert "100%" in bar_of(80, terminal, done=101)
