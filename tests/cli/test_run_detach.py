"""``run --detach``: what it prints, what outlives it, and what becomes of that."""

import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import prefectlite
from prefectlite import launching
from prefectlite.infrastructure import process
from prefectlite.registry import open_registry

SOURCES = str(Path(prefectlite.__file__).parents[1])
DEADLINE_SECONDS = 20
#: Flows of every kind; the alarm bounds the life of those that know no timeout of their own.
FLOWS = """
import itertools, json, os, signal, subprocess, sys, time
from pathlib import Path
from prefectlite import flow, get_run_logger

print("printed as it is imported")
HERE = Path(__file__).parent

@flow(version="3")
def works(number: int = 1, text: str = ""):
    get_run_logger().info("in %s with %r %r", os.getcwd(), number, text)

@flow
def leaves():
    os.write(2, b"50% done, without an end")
    subprocess.Popen(["sleep", "50"], start_new_session=True)

@flow
def fails():
    raise ValueError("mine")

@flow
def sleeps():
    time.sleep(50)

@flow(timeout_seconds=0.2)
def short():
    time.sleep(0.4)

@flow(timeout_seconds=0.2)
def hangs():
    sum(itertools.repeat(1, 10**10))  # no exception reaches it: it is one call of C

@flow
def waits():
    signal.alarm(50)
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        (HERE / "began").write_text("a terminal")
    except OSError:
        (HERE / "began").write_text("no terminal")
    while not (HERE / "go").exists():
        time.sleep(0.005)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with the flows."""
    made = tmp_path / "flows"
    made.mkdir()
    (made / "many_flows.py").write_text(FLOWS)
    monkeypatch.chdir(made)
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    return made


@pytest.fixture
def detach(start):
    """Leave a run in the background; return what is on record of it then."""

    def detach_run(*arguments, **options):
        done = start("run", *arguments, "--detach", "--json", **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return detach_run


@pytest.fixture
def wait(start):
    """Wait until a run is over; return the exit code and the run."""

    def wait_for(id_, **options):
        done = start(
            "flow-run", "wait", id_, "--json", "--timeout", str(DEADLINE_SECONDS), **options
        )
        (found,) = json.loads(done.stdout)
        return done.returncode, found

    return wait_for


def messages(registry, id_):
    return [line.message for line in registry.read_logs(id_)]


def test_it_prints_the_id_and_returns_while_the_run_goes_on(start, wait, registry, folder, until):
    done = start("run", "many_flows.py:waits", "--detach", text=True)
    assert done.returncode == 0
    (flow_run,) = registry.list_flow_runs()
    assert done.stdout == f"{flow_run.id}\n"
    assert f"prefectlite flow-run wait {flow_run.id[:8]}" in done.stderr
    assert not flow_run.state.is_final()
    until((folder / "began").exists, "its beginning")
    (folder / "go").touch()
    assert wait(flow_run.id)[0] == 0


def test_with_json_it_prints_the_run_as_it_begins(detach, wait, registry, until):
    flow_run = detach(
        "many_flows.py:works", "-p", "number=7", "--name", "my run", "--tag", "b", "--tag", "a"
    )
    assert flow_run["state"]["name"] in {"Pending", "Running", "Completed"}
    assert (flow_run["name"], flow_run["tags"], flow_run["version"]) == ("my run", ["a", "b"], "3")
    assert flow_run["parameters"] == {"number": 7}
    assert flow_run["infrastructure_pid"].startswith(f"{os.uname().nodename}:")
    code, ended = wait(flow_run["id"])
    assert (code, ended["infrastructure_pid"]) == (0, flow_run["infrastructure_pid"])
    assert any(line.endswith("with 7 ''") for line in messages(registry, flow_run["id"]))
    text = "printed as it is imported"  # what it prints comes to its log when it has ended, at last
    until(lambda: messages(registry, flow_run["id"]).count(text) == 1, "its output")


def test_who_has_waited_finds_nothing_left_and_all_output_in_the_log(detach, wait, registry, home):
    flow_run = detach("many_flows.py:leaves")
    assert wait(flow_run["id"])[0] == 0
    assert [*(home / "runs").iterdir()] == []
    assert {
        "50% done, without an end",
        "What it had left running was ended: 1 process.",
    } < {*messages(registry, flow_run["id"])}


@pytest.mark.parametrize(
    "arguments",
    [
        ["many_flows.py:works", "-p", "number=many"],
        ["many_flows.py:works", "-p", "nothing=1"],
        ["many_flows.py:works", "-p", "number"],
        ["many_flows.py:works", "--params", "[]"],
        ["many_flows.py:works", "--timeout", "-1"],
        ["many_flows.py:nothing"],
        ["many_flows.py"],
        ["nothing.py:works"],
        ["no_such_module:works"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_run_is_refused_before_anything_is_on_record(run, registry, home, arguments):
    ended = run("run --detach", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr
    assert registry.list_flow_runs() == []
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("flow", "code", "name"), [("works", 0, "Completed"), ("fails", 1, "Failed")]
)
def test_who_waits_exits_as_the_run_ended(detach, wait, flow, code, name):
    found = wait(detach(f"many_flows.py:{flow}")["id"])
    assert (found[0], found[1]["state"]["name"]) == (code, name)


#: A login: what a terminal is the controlling one of.
LOGIN = """
import fcntl, os, signal, sys, termios
signal.alarm(30)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp("sh", ["sh", "-c", sys.argv[1] + '; echo "(left with $?)"; read line'])
"""


def read_until(descriptor, text):
    """Read what is shown on a terminal until this text is."""
    shown = b""
    while text not in shown:
        readable, _, _ = select.select([descriptor], [], [], DEADLINE_SECONDS)
        assert readable, shown
        shown += os.read(descriptor, 4096)


@pytest.fixture
def login(folder, until):
    """Let a run begin, detached in a shell on a terminal; return the shell, and the terminal."""
    ours, theirs = pty.openpty()
    command = f"{sys.executable} -m prefectlite run many_flows.py:waits --detach"
    shell = subprocess.Popen(
        [sys.executable, "-c", LOGIN, command],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        start_new_session=True,
    )
    os.close(theirs)
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        read_until(ours, b"(left with 0)")
        until((folder / "began").exists, "its beginning")
        yield shell, terminal
    shell.kill()
    shell.wait()


@pytest.mark.parametrize(
    ("end", "codes"),
    [
        (lambda terminal: terminal.write(b"\x03"), {-signal.SIGINT, 130}),
        (lambda terminal: terminal.close(), {-signal.SIGHUP, 129}),
    ],
    ids=["Ctrl-C", "closed"],
)
def test_it_outlives_its_terminal(login, end, codes, wait, registry, folder):
    shell, terminal = login
    end(terminal)
    assert shell.wait(DEADLINE_SECONDS) in codes
    (flow_run,) = registry.list_flow_runs()
    assert flow_run.state.is_running()
    assert (folder / "began").read_text() == "no terminal"
    (folder / "go").touch()
    assert wait(flow_run.id)[0] == 0


def test_a_run_that_is_over_the_time_it_was_given_is_timed_out(detach, wait, registry):
    flow_run = detach("many_flows.py:sleeps", "--timeout", "0.5")
    code, ended = wait(flow_run["id"])
    assert code == 124
    assert ended["state"]["name"] == "TimedOut"
    assert ended["state"]["message"] == "Flow run exceeded timeout of 0.5 seconds"
    # Where it was is in its log.
    assert any("in sleeps" in line for line in messages(registry, flow_run["id"]))


@pytest.mark.parametrize(
    ("timeout", "code"), [(["--timeout", "0"], 0), (["--timeout", "20"], 0), ([], 124)]
)
def test_the_timeout_is_instead_of_the_flows_own_as_without_detach(detach, wait, timeout, code):
    flow_run = detach("many_flows.py:short", *timeout)
    assert wait(flow_run["id"])[0] == code


def test_a_flow_that_hangs_past_its_own_timeout_is_timed_out_and_its_log_says_where(
    run, wait, registry, monkeypatch
):
    new_run = launching.new_detached_run

    def with_little_grace(*arguments, **options):
        made = new_run(*arguments, **options)
        return replace(made, infrastructure={**made.infrastructure, "grace_seconds": 0.2})

    monkeypatch.setattr(launching, "new_detached_run", with_little_grace)
    id_ = run("run many_flows.py:hangs --detach").stdout.strip()
    try:
        code, ended = wait(id_)
    finally:
        for pid in [*process._started]:
            os.waitpid(pid, 0)
            process._started.discard(pid)
    assert code == 124
    assert ended["state"]["name"] == "TimedOut"
    told = "Flow run exceeded timeout of 0.2 seconds and did not heed it; it was killed."
    assert ended["state"]["message"] == told
    (stacks,) = [line for line in messages(registry, id_) if "Its threads were at" in line]
    assert "many_flows.py" in stacks
    assert "in hangs" in stacks


def test_a_detached_run_is_cancelled_as_any_other(detach, start, wait, folder, until):
    flow_run = detach("many_flows.py:waits")
    until((folder / "began").exists, "its beginning")
    done = start("flow-run", "cancel", flow_run["id"][:8], "--wait")
    assert done.returncode == 0, done.stderr
    assert wait(flow_run["id"])[0] == 143


@pytest.mark.parametrize(
    "entrypoint", ["{folder}/many_flows.py:works", "../flows/many_flows.py:works"]
)
def test_it_runs_in_the_folder_that_it_was_left_from(
    detach, wait, registry, tmp_path, folder, entrypoint
):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    flow_run = detach(entrypoint.format(folder=folder), cwd=elsewhere)
    assert wait(flow_run["id"])[0] == 0
    logged = messages(registry, flow_run["id"])
    assert any(line.startswith(f"in {elsewhere} with") for line in logged)


def test_a_module_of_the_current_folder_is_found(detach, wait):
    assert wait(detach("many_flows:works")["id"])[0] == 0


def test_a_home_elsewhere_is_where_it_is_on_record(detach, wait, registry, tmp_path):
    env = {"PREFECTLITE_HOME": str(tmp_path / "other home")}
    flow_run = detach("many_flows.py:works", env=env)
    assert wait(flow_run["id"], env=env)[0] == 0
    assert registry.list_flow_runs() == []
    other = open_registry(f"sqlite:///{tmp_path / 'other home' / 'registry.db'}")
    assert other.find_flow_run(flow_run["id"]).state.is_completed()


def test_a_home_that_it_makes_is_for_nobody_elses_eyes(detach, wait, home):
    before = os.umask(0o022)
    try:
        flow_run = detach("many_flows.py:works")
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert wait(flow_run["id"])[0] == 0


def test_a_run_that_cannot_be_started_is_crashed_and_it_is_said_why(run, registry, home):
    registry.list_flow_runs()
    (home / "runs").write_text("no folder")
    ended = run("run many_flows.py:works --detach")
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert "could not be started" in ended.stderr
    (flow_run,) = registry.list_flow_runs()
    assert flow_run.state.is_crashed()
    assert "could not be started" in flow_run.state.message
