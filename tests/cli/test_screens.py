"""What ``flow-run watch`` and ``run`` show on a terminal, read from the screens of tmux."""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import prefectlite
from prefectlite.clock import now
from prefectlite.names import new_id
from prefectlite.records import FlowRun, Pause, TaskRun
from prefectlite.states import Completed, Failed, Paused, Pending, Running

SOURCES = str(Path(prefectlite.__file__).parents[1])
_CONFIGURATION = """
set -g status off
set -g default-terminal screen
"""
# What stays on the screen when the program has ended; Ctrl-C is for that alone.
_THEN = "trap : INT; {}; echo exit $?; exec sleep 300"
_PROGRAM = f"{shlex.quote(sys.executable)} -W error -m prefectlite"
#: Shown as ``2h00m`` for most of a minute.
_STARTED_AT = timedelta(hours=2, seconds=5)

pytestmark = pytest.mark.needs("tmux")


class Screen:
    """A terminal of so many columns and rows, and the program on it."""

    def __init__(self, folder, until):
        self._socket = folder / "tmux"
        self._until = until
        (folder / "tmux.conf").write_text(_CONFIGURATION)
        self._begin = ["tmux", "-f", str(folder / "tmux.conf"), "-S", str(self._socket)]

    def start(self, command, *, columns=80, rows=24):
        """Start a command on it."""
        size = ["-x", str(columns), "-y", str(rows)]
        words = [*size, "sh", "-c", _THEN.format(command)]
        subprocess.run([*self._begin, "new-session", "-d", *words], check=True, timeout=60)
        return self

    def do(self, *words):
        """Have tmux do something, and return what it prints."""
        done = subprocess.run(
            [*self._begin, *words], check=True, timeout=60, capture_output=True, text=True
        )
        return done.stdout

    def lines(self):
        """Return what is on it, down to the last line that has something; times of day are the same."""
        shown = self.do("capture-pane", "-p").rstrip("\n")
        shown = re.sub(r"\d\d:\d\d:\d\d\.\d\d\d", "21:31:37.513", shown)
        return [line.rstrip() for line in shown.split("\n")]

    def shows(self, text):
        """Wait until a text is on it, and return its lines."""
        self._until(lambda: text in "\n".join(self.lines()), text, told=self.lines)
        return self.lines()

    def property(self, name):
        """Return what tmux knows of it by this name."""
        return self.do("display-message", "-p", f"#{{{name}}}").strip()

    def ends(self, exit_code):
        """Wait until the command has ended with this exit code, and return the lines before that."""
        *shown, told = self.shows("exit ")
        assert told.endswith(f"exit {exit_code}")  # after the ^C that the terminal shows
        return shown

    def close(self):
        """End it, and all that is on it."""
        if self._socket.exists():
            self.do("kill-server")


@pytest.fixture
def screen(tmp_path, tmp_path_factory, until, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    folder = tmp_path_factory.mktemp("s")  # a socket's path may not be long
    screen = Screen(folder, until)
    yield screen
    screen.close()


@pytest.fixture
def going(seeds):
    """A flow run that goes on, and its task runs: three that completed, one that failed, two that run."""
    moment = now() - _STARTED_AT
    flow_run = FlowRun(
        id="0c1b7f0e-4a3e-4a53-a0c5-1f6b9a1c2d3e",
        name="fair-owl",
        flow_name="etl",
        state=Running(),
        run_count=1,
        created_at=moment,
        started_at=moment,
    )
    seeds.registry.create_flow_run(flow_run)
    runs = [
        TaskRun(
            id=new_id(),
            name=f"load-{number}",
            task_name="load",
            flow_run_id=flow_run.id,
            state=Running(),
            created_at=moment,
            started_at=moment,
        )
        for number in range(6)
    ]
    seeds.registry.create_task_runs(runs)
    for run, state in zip(runs, [*[Completed()] * 3, Failed("mine")], strict=False):
        seeds.registry.change_state(run, replace(state, timestamp=moment + timedelta(minutes=1)))
    seeds.log(flow_run, "hello")
    seeds.log(flow_run, "a warning\nof two lines", level=30)
    return flow_run


_WATCH = f"{_PROGRAM} flow-run watch fair-owl"


def test_watch_shows_the_tree_and_the_log_and_follows_what_changes(screen, seeds, going):
    screen.start(_WATCH)
    shown = screen.shows("a warning")
    assert shown == [
        "etl fair-owl  Running    2h00m  ███████████▒▒▒▒░░░░░░░ 4/6  2 running  1 failed",
        "  load-0      Completed  1m00s",
        "  load-1      Completed  1m00s",
        "  load-2      Completed  1m00s",
        "  load-3      Failed     1m00s",
        "  load-4      Running    2h00m",
        "  load-5      Running    2h00m",
        "",
        "21:31:37.513 | INFO    | Flow run 'fair-owl' - hello",
        "21:31:37.513 | WARNING | Flow run 'fair-owl' - a warning",
    ]
    seeds.log(going, "later")
    shown = screen.shows("later")
    assert shown[8:] == [*shown[8:10], "21:31:37.513 | INFO    | Flow run 'fair-owl' - later"]
    seeds.registry.change_state(going, Failed("1/6 states failed."))
    shown = screen.ends(1)
    assert shown[0].startswith("etl fair-owl  Failed     2h00m  ███████████▒▒▒▒░░░░░░░ 4/6")
    assert shown[11:] == [
        "error: flow run 'fair-owl' is Failed: 1/6 states failed.",
        "hint: see: prefectlite flow-run logs 0c1b7f0e",
    ]
    assert screen.property("cursor_flag") == "1"


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        (
            20,
            9,
            [
                "etl f…wl  Running",
                "  load    Running",
                "    l…-3  Failed",
                "    l…-4  Running",
                "",
                "21:31:37.513 | INF…",
                "21:31:37.513 | WAR…",
            ],
        ),
        (
            48,
            9,
            [
                "etl fair-owl  Running  2h00m  ██████▒▒▒░░░░ 4/6",
                "  load        Running         ██████▒▒▒░░░░ 4/6",
                "    load-3    Failed   1m00s",
                "    load-4    Running  2h00m",
                "",
                "21:31:37.513 | INFO    | Flow run 'fair-owl' -…",
                "21:31:37.513 | WARNING | Flow run 'fair-owl' -…",
            ],
        ),
    ],
)
def test_watch_fits_small_terminals(screen, going, columns, rows, expected):
    screen.start(_WATCH, columns=columns, rows=rows)
    assert screen.shows("WAR") == expected


def test_watch_uses_no_more_of_a_wide_terminal_than_it_needs(screen, going):
    shown = screen.start(_WATCH, columns=200, rows=50).shows("a warning")
    assert len(shown) == 10
    assert shown[0] == (
        "etl fair-owl  Running    2h00m  ████████████▒▒▒▒░░░░░░░░ 4/6  2 running  1 failed"
    )


def test_watch_follows_the_size_of_its_terminal_and_leaves_nothing_behind(screen, going):
    # With lines above it: those are what the terminal scrolls away when others need more room.
    before = screen.start(f"seq 12; {_WATCH}", columns=90, rows=30).shows("a warning")
    screen.do("resize-window", "-x", "44", "-y", "30")
    narrow = screen.shows("2h00m  4/6\n")
    assert [sum(text in line for line in narrow) for text in ("etl ", "WARNING")] == [1, 1]
    assert narrow[-11] == "12"
    screen.do("resize-window", "-x", "90", "-y", "30")
    assert screen.shows("1 failed")[-11:] == before[-11:]


def test_watch_of_a_paused_run_says_how_to_resume_it(screen, seeds, going):
    seeds.registry.pauses.pause_flow_run(going, Paused(), Pause())
    shown = screen.start(_WATCH).shows("to resume")
    assert shown[0].startswith("etl fair-owl  Paused ")
    assert shown[1] == "  to resume: prefectlite flow-run resume 0c1b7f0e"


@pytest.mark.parametrize(
    ("key", "number", "ending"), [("C-c", None, 130), (None, signal.SIGTERM, 143)]
)
def test_watch_that_is_ended_leaves_the_screen_and_the_cursor(screen, going, key, number, ending):
    before = screen.start(_WATCH).shows("a warning")
    if key:
        screen.do("send-keys", key)
    else:
        shell = screen.property("pane_pid")
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text()
        os.kill(int(children), number)
    shown = screen.ends(ending)
    assert shown[: len(before)] == before
    assert shown[len(before) :] in ([], ["Terminated"])
    assert screen.property("cursor_flag") == "1"


def test_watch_that_was_stopped_goes_on_below_what_the_shell_has_said(screen, going, until):
    screen.start("env PS1='$ ' bash --norc --noprofile -i", rows=40).shows("$")
    screen.do("send-keys", _WATCH, "Enter")
    screen.shows("a warning")
    screen.do("send-keys", "C-z")
    screen.shows("Stopped")
    screen.do("send-keys", "fg", "Enter")
    until(lambda: "\n".join(screen.lines()).count("- a warning") == 2, told=screen.lines)
    shown = screen.lines()
    stopped = next(number for number, line in enumerate(shown) if "Stopped" in line)
    assert sum("fair-owl  Running" in line for line in shown[:stopped]) == 1
    assert sum("fair-owl  Running" in line for line in shown[stopped:]) == 1


def test_watch_on_a_dumb_terminal_prints_lines(screen, seeds, going):
    screen.start(f"env TERM=dumb {_WATCH}").shows("of two lines")
    seeds.end(going)
    assert screen.ends(0) == [
        "2023-11-14 21:31:37.513 | INFO    | Flow run 'fair-owl' - hello",
        "2023-11-14 21:31:37.513 | WARNING | Flow run 'fair-owl' - a warning",
        "    of two lines",
        "21:31:37.513 | INFO    | Flow run 'fair-owl' - State Running()",
    ]


def test_watch_of_very_many_task_runs_stays_on_the_screen(screen, seeds, going):
    moment = now()
    seeds.registry.create_task_runs(
        [
            TaskRun(
                id=new_id(),
                name=f"part-{number}",
                task_name="part",
                flow_run_id=going.id,
                state=Pending(),
                created_at=moment,
            )
            for number in range(10_000)
        ]
    )
    shown = screen.start(_WATCH, rows=12).shows("a warning")
    assert (
        shown[:3]
        == [
            "etl fair-owl  Running         ░░░░░░░░░░░░░░░░░░░░░ 4/10006  2 running  1 failed".replace(
                "Running       ", "Running  2h00m"
            ),
            shown[1],
            "    load-3    Failed   1m00s",
        ]
        or shown
    )
    assert len(shown) <= 11
    assert any(line.startswith("  part        Pending") and "0/10000" in line for line in shown)


_FLOWS = """
import time
from pathlib import Path
from prefectlite import flow, task

@task
def waits(number):
    while not Path("go").exists():
        time.sleep(0.01)
    if number == 2:
        raise ValueError("as asked")

@flow(log_prints=True)
def counted():
    print("hello")
    waits.map([1, 2, 3])
    return "done"
"""


def test_run_shows_log_lines_above_a_line_that_says_how_far_it_is(screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(_FLOWS)
    screen.start(f"{_PROGRAM} run flows.py --name fair-owl", columns=100)
    shown = screen.shows("3 running")
    assert shown[:2] == [
        "21:31:37.513 | INFO    | prefectlite.engine - Created flow run 'fair-owl' for flow 'counted'",
        "21:31:37.513 | INFO    | Flow run 'fair-owl' - hello",
    ]
    assert re.fullmatch(r"flow run 'fair-owl': 3 running \(\d+(\.\d)?s\)", shown[2])
    assert len(shown) == 3
    (tmp_path / "go").touch()
    shown = screen.ends(0)
    assert (
        shown[-1] == "21:31:37.513 | INFO    | Flow run 'fair-owl' - Finished in state Completed()"
    )
    assert not any("running" in line for line in shown)
    assert sum("Task run 'waits-" in line and "Finished" in line for line in shown) == 3
