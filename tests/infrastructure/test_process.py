"""Runs in processes of their own: how they are started, and how they are ended."""

import json
import os
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prefectlite import liveness
from prefectlite.errors import (
    InfrastructureError,
    InfrastructureNotAvailable,
    InfrastructureNotFound,
    UsageError,
)
from prefectlite.infrastructure import load_infrastructure, process
from prefectlite.infrastructure.process import Process
from prefectlite.launching import launch
from prefectlite.run_folders import RunFolder, run_folders
from prefectlite.states import Cancelled

HOST = os.uname().nodename
#: Ends when it is told to, and says so.
HEEDS = """
tell(os.getpid(), "ready")
try:
    wait_for("go")
finally:
    tell("by itself")
"""
#: Swallows whatever is raised in it.
STUBBORN = """
tell(os.getpid(), "ready")
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""


def is_there(pid):
    return Path(f"/proc/{pid}").exists()


# How it is started


def test_a_run_is_launched_runs_and_leaves_nothing_but_its_record(launches):
    run = launches.launch("tell(os.getpid()); wait_for('go')")
    pid = launches.told(run)
    assert run.infrastructure_pid == f"{HOST}:{run.supervisor.pid}"
    assert os.getsid(run.supervisor.pid) == run.supervisor.pid  # the leader of its own session
    running = launches.find(run)
    assert (running.state.name, running.process.pid) == ("Running", pid)
    assert running.supervisor == run.supervisor
    assert running.infrastructure_pid == run.infrastructure_pid
    launches.tell(run)
    ended = launches.ended(run)
    assert str(ended.state) == "Completed()"
    history = [change.state.name for change in launches.registry.state_history(ended)]
    assert history == ["Pending", "Running", "Completed"]
    assert not is_there(pid)
    assert launches.with_token(run.supervisor.token) == []


def test_the_environment_is_the_launchers_with_what_is_given_and_what_must_be(
    launches, home, monkeypatch, tmp_path
):
    monkeypatch.setenv("OF_THE_LAUNCHER", "a")
    monkeypatch.setenv("GIVEN", "not this")
    monkeypatch.setenv("PREFECTLITE_RUN_TOKEN", "of-who-launches-it")
    monkeypatch.setenv("_PREFECTLITE_RUN_FOLDER", "/of/who/launches/it")
    run = launches.launch(
        """
        tell([dict(os.environ), os.getcwd(), list(signal.pthread_sigmask(signal.SIG_BLOCK, []))])
        wait_for("go")
        """,
        environment={
            "GIVEN": "ü = $HOME\n",
            "PREFECTLITE_HOME": "/nowhere",
            "PREFECTLITE_REGISTRY": "sqlite:////nowhere/registry.db",
            "PREFECTLITE_FLOW_RUN_ID": "another",
            "PREFECTLITE_RUN_TOKEN": "another",
            "_PREFECTLITE_RUN_FOLDER": "/nowhere",
        },
        working_directory=str(tmp_path),
    )
    environment, folder, blocked = launches.told(run)
    assert environment["GIVEN"] == "ü = $HOME\n"
    assert environment["OF_THE_LAUNCHER"] == "a"
    assert environment["PREFECTLITE_FLOW_RUN_ID"] == run.id
    assert environment["PREFECTLITE_HOME"] == str(home)
    assert environment["PREFECTLITE_REGISTRY"] == launches.registry.url
    assert environment["PYTHONUNBUFFERED"] == "1"
    # What the flow itself starts is not supervised so.
    assert "_PREFECTLITE_RUN_FOLDER" not in environment
    # What settles the run is none of its processes, nor of those that launched it.
    spec = json.loads((RunFolder.of(run.supervisor).path / "spec.json").read_text())
    assert "PREFECTLITE_RUN_TOKEN" not in spec["environment"]
    launches.tell(run)
    ended = launches.ended(run)
    tokens = [run.supervisor.token, ended.process.token]
    assert environment["PREFECTLITE_RUN_TOKEN"].split(":") == tokens
    assert (folder, blocked) == (str(tmp_path), [])
    assert ended.state.is_completed()


def test_a_run_begins_where_its_launcher_is_unless_it_is_said(launches, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = launches.launch("tell(os.getcwd())")
    assert launches.told(run) == str(tmp_path)
    launches.ended(run)


def test_no_descriptor_of_the_launcher_is_inherited(launches):
    ends = os.pipe()
    try:
        for end in ends:
            os.set_inheritable(end, True)  # noqa: FBT003 - its only way
        run = launches.launch(
            """
            tell([os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)], "std")
            tell([os.readlink(f"/proc/{pid}/fd/{number}") for pid in ("self", os.getppid())
                  for number in os.listdir(f"/proc/{pid}/fd")
                  if os.path.lexists(f"/proc/{pid}/fd/{number}")])
            """
        )
        ours = {str(Path(f"/proc/self/fd/{end}").readlink()) for end in ends}
        assert ours.isdisjoint(launches.told(run))
        std = launches.told(run, "std")
        assert std[0] == "/dev/null"
        assert all(path.startswith("pipe:") for path in std[1:])
        launches.ended(run)
    finally:
        for end in ends:
            os.close(end)


def test_a_working_directory_that_is_not_there_crashes_the_run_and_is_named(launches):
    run = launches.ended(launches.launch(working_directory="/nowhere/at all"))
    assert run.state.name == "Crashed"
    assert run.state.message.startswith("It could not be started: ")
    assert "'/nowhere/at all'" in run.state.message


EXECUTE = f"{sys.executable} -m prefectlite.execute"


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "prefectlite.execute"],
        ["sh", "-c", f"echo from the shell; exec {EXECUTE}"],
        ["sh", "-c", f"echo from the shell; {EXECUTE}; exit $?"],
    ],
    ids=["python", "a shell that becomes it", "a shell that waits for it"],
)
def test_a_command_of_ones_own_runs_the_flow(launches, command):
    run = launches.launch("get_run_logger().info('in the flow')", command=command)
    ended = launches.ended(run)
    assert ended.state.is_completed()
    assert ended.supervisor == run.supervisor
    messages = launches.messages(run)
    assert messages.count("in the flow") == 1
    assert messages.count("from the shell") == ("sh" in command)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["no-such-command"], "It could not be started: "),
        (["true"], "Its command ended with exit code 0, and had not run the flow."),
        (
            ["sh", "-c", "exec no-such-command"],
            "Its command ended with exit code 127 (the command was not found),",
        ),
        (
            ["sh", "-c", "kill -9 $$"],
            "Its command ended by SIGKILL (for want of memory, perhaps, or by someone's kill -9),",
        ),
    ],
    ids=["not found", "does nothing", "not found by the shell", "killed"],
)
def test_a_command_that_does_not_run_the_flow_crashes_the_run_and_it_is_said_why(
    launches, command, told
):
    run = launches.ended(launches.launch(command=command))
    assert run.state.name == "Crashed"
    assert run.state.message.startswith(told)
    if "no-such-command" in command[-1]:
        # By the shell it is told on its stderr, which is in the run's log.
        assert "no-such-command" in " ".join([run.state.message, *launches.messages(run)])


STREAMS = """
import sys
from prefectlite.infrastructure.process import Process
from prefectlite.launching import launch
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.liveness import own_identity
from dataclasses import replace

registry = open_registry(PREFECTLITE_REGISTRY.value())
run = replace(registry.find_flow_run(sys.argv[1]), id=sys.argv[2], launcher=own_identity())
registry.create_flow_run(run)
launch(registry, run)
sys.stdin.readline()
"""


@pytest.mark.parametrize("is_streamed", [True, False])
def test_what_is_streamed_is_shown_by_the_launcher_and_in_the_log_once(
    launches, start_python, is_streamed
):
    made = launches.add(
        """
        get_run_logger().info("by the logger")
        print("by print")
        print("to stderr", file=sys.stderr)
        subprocess.run(["sh", "-c", "echo by a child; echo its error >&2"])
        os.write(2, b"\\x1ea mark of its own\\n")
        """,
        stream_output=is_streamed,
    )
    run = replace(made, id=made.id[:-4] + "beef")
    launcher = start_python(STREAMS, made.id, run.id)
    runs = launches.registry.list_flow_runs
    launches.until(lambda: any(one.ended_at for one in runs()), "its end")
    assert launches.ended(run).state.is_completed()
    out, error = launcher.process.communicate("go\n", timeout=30)
    assert launcher.process.returncode == 0, error
    messages = launches.messages(run)
    for text in ("by print", "by a child"):
        assert (out.splitlines().count(text), messages.count(text)) == (is_streamed, 1)
    for text in ("to stderr", "its error"):
        assert (error.splitlines().count(text), messages.count(text)) == (is_streamed, 1)
    assert [text for text in messages if "by the logger" in text] == ["by the logger"]
    assert error.count("'calm-otter' - by the logger") == is_streamed
    assert error.count("Finished in state Completed()") == is_streamed
    assert "\x1e" not in error + out
    assert not is_streamed or error.count("a mark of its own") == 1
    assert is_streamed or (out, error) == ("", "")
    assert sorted(messages) == sorted({*messages})  # nothing twice


# What stands in its way

NOT_STARTED = {
    "reason": "not_started",
    "message": "why",
    "ended_at": 1,
    "swept": 0,
    "survivors": [],
    "lost_output_bytes": 0,
    **dict.fromkeys(("exit_code", "signal")),
}


def test_a_home_that_cannot_be_written_is_an_error_and_leaves_nothing(launches, home):
    run = launches.add()
    (home / "runs").write_text("not a folder")
    with pytest.raises(InfrastructureError, match="'calm-otter' could not be started: "):
        launch(launches.registry, run)
    assert launches.find(run) == run


def test_a_folder_that_cannot_be_written_to_is_removed(launches, monkeypatch):
    run = launches.add()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "write", full)
    with pytest.raises(InfrastructureError, match="No space left on device"):
        launch(launches.registry, run)
    assert launches.find(run) == run
    assert [*run_folders()] == []


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "its supervisor did not begin"),
        ("signal.pause()", "its supervisor did not begin"),
        ("open(sys.argv[1] + '/exit.json', 'w').write(EXIT)", "why"),
    ],
    ids=["is killed", "never begins", "says why"],
)
def test_a_supervisor_that_does_not_begin_is_an_error_and_leaves_nothing(
    launches, monkeypatch, tmp_path, code, told
):
    script = tmp_path / "supervisor.py"
    script.write_text(
        "import os, signal, sys\n"
        "blocked = signal.SIGTERM in signal.pthread_sigmask(signal.SIG_SETMASK, ())\n"
        "signal.alarm(50)\n"
        f"with open({str(tmp_path / 'began')!r}, 'w') as file:\n"
        "    file.write(f'{os.getpid()} {os.getsid(0)} {blocked}')\n"
        f"EXIT = {json.dumps(NOT_STARTED)!r}\n{code}\n"
    )
    monkeypatch.setattr(process, "_SUPERVISOR", script)
    if "pause" in code:
        monkeypatch.setattr(process, "_START_SECONDS", 0.5)
    run = launches.add()
    with pytest.raises(InfrastructureError, match=f"could not be started: {told}"):
        launch(launches.registry, run)
    pid, session, is_blocked = (tmp_path / "began").read_text().split()
    launches.until(lambda: liveness.start_ticks(int(pid)) is None, "the supervisor's end")
    # From its first moment on, what is sent to who launches it does not reach it, nor ends it.
    assert (session, is_blocked) == (pid, "True")
    assert launches.find(run) == run
    assert [*run_folders()] == []


def test_one_whose_infrastructure_is_described_wrongly_is_crashed(launches):
    run = launch(launches.registry, launches.add(grace_seconds=-1))
    assert str(run.state) == (
        "Crashed('It could not be started: infrastructure: grace_seconds must be a number of"
        " seconds, at least 0')"
    )
    assert [*run_folders()] == []


def test_one_that_was_cancelled_before_it_was_started_does_not_run(launches):
    run = launches.add("tell('it ran')")
    launches.registry.change_state(run, Cancelled("first"))
    launched = launch(launches.registry, run)
    launches.tokens.add(launched.supervisor.token)
    assert launches.ended(run).state.message == "first"
    assert not launches.path(run, "told").exists()


def test_what_remains_of_a_supervisor_that_has_ended_is_reaped_by_the_next_launch(launches):
    run = launches.launch(command=["true"])
    pid = run.supervisor.pid
    launches.ended(run)
    assert is_there(pid)  # a zombie: its number is nobody else's
    launches.ended(launches.launch(command=["true"]))
    assert not is_there(pid)
    assert pid not in process._started


# How it is ended


def test_a_run_that_is_told_to_end_gets_its_time_and_is_then_gone(launches):
    run = launches.launch(HEEDS)
    launches.told(run, "ready")
    launches.kill(run, 30, by=run.supervisor)
    ended = launches.ended(run)
    assert launches.told(run) == "by itself"
    assert ended.state.name == "Crashed"
    with pytest.raises(InfrastructureNotFound):
        launches.kill(run, 30, by=run.supervisor)


def test_told_again_it_is_killed_at_the_sooner_of_the_two_ends_of_its_grace_period(launches):
    run = launches.launch(STUBBORN)
    pid = launches.told(run, "ready")
    launches.kill(run, 600)  # its supervisor is found by its folder
    launches.kill(run, 0.2)
    ended = launches.ended(run)
    assert ended.state.message.startswith("Its process ended by SIGKILL")
    assert not is_there(pid)
    with pytest.raises(InfrastructureNotFound):
        launches.kill(run, 0)


def test_a_stopped_run_and_its_stopped_supervisor_are_ended(launches, stop_process):
    run = launches.launch(STUBBORN)
    pid = launches.told(run, "ready")
    stop_process(pid)
    os.kill(run.supervisor.pid, signal.SIGSTOP)
    launches.kill(run, 0.1)
    assert launches.ended(run).state.name == "Crashed"
    assert not is_there(pid)


@pytest.mark.parametrize("identifier", [f"not-{HOST}:1", ":1", "1", "", f"{HOST}:1:1"])
def test_what_is_of_another_host_is_left_to_it(identifier):
    with pytest.raises(InfrastructureNotAvailable, match="is a process on another host"):
        Process().kill(identifier, 0)


@pytest.mark.parametrize("number", ["", "x", "0", "4194305", "²"])
def test_what_is_no_process_is_not_found(number):
    with pytest.raises(InfrastructureNotFound):
        Process().kill(f"{HOST}:{number}", 0)


def test_a_stranger_of_that_number_is_not_signalled(start_python):
    stranger = start_python("print('ready', flush=True); input()")
    assert stranger.line() == "ready"
    with pytest.raises(InfrastructureError, match="cannot be proven") as caught:
        Process().kill(f"{HOST}:{stranger.pid}", 0)
    assert type(caught.value) is InfrastructureError
    stranger.tell()
    stranger.end()


def test_a_stranger_that_has_the_number_of_a_dead_supervisor_is_not_signalled(
    launches, start_python
):
    stranger = start_python("print('ready', flush=True); input()")
    assert stranger.line() == "ready"
    run = launches.launch(STUBBORN)
    pid = launches.told(run, "ready")
    ticks = liveness.start_ticks(stranger.pid)
    reused = replace(run.supervisor, pid=stranger.pid, start_ticks=ticks - 1)
    with pytest.raises(InfrastructureNotFound):  # by its record, though a lock is held
        Process().kill(f"{HOST}:{stranger.pid}", 0, supervisor=reused)
    # By the folder, of which someone says that it is the stranger's.
    folder = RunFolder.of(run.supervisor)
    folder.write("supervisor.json", {"pid": stranger.pid, "hostname": HOST})
    with pytest.raises(InfrastructureError):
        Process().kill(f"{HOST}:{stranger.pid}", 0)
    assert is_there(pid)
    launches.kill(run, 0, by=run.supervisor)
    launches.until(lambda: not is_there(pid), "its end")
    stranger.tell()
    stranger.end()


# How it is described


def test_a_preview_shows_what_would_be_started_and_hides_the_values_of_variables():
    variables = {"PASSWORD": "hunter2"}
    made = Process(environment=variables, working_directory="/a b", command=["run it", "--now"])
    assert made.preview("7f3") == (
        "cd '/a b' && PASSWORD=... PREFECTLITE_FLOW_RUN_ID=7f3 'run it' --now"
    )
    usual = Process().preview("7f3")
    assert usual.startswith("PREFECTLITE_FLOW_RUN_ID=7f3 ")
    assert shlex.split(usual)[-1] == "prefectlite.execute"
    assert [*run_folders()] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "process"},
        {"type": "process", "command": ["a", "b c"], "stream_output": True},
        {"type": "process", "environment": {"A": ""}, "working_directory": "/w"},
        {"type": "process", "grace_seconds": 0, "timeout_seconds": 0.5},
    ],
)
def test_what_describes_a_process_is_what_it_says_of_itself(fields):
    assert load_infrastructure(fields).fields() == fields


def test_a_command_may_be_written_as_for_a_shell():
    made = load_infrastructure({"command": "nice -n 5 'a b'"})
    assert made.command == ["nice", "-n", "5", "a b"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("command", ""),
        ("command", []),
        ("command", "'"),
        ("command", ["a", 1]),
        ("command", ["a\0"]),
        ("environment", ["A=secret"]),
        ("environment", {"A=B": "secret"}),
        ("environment", {"": "secret"}),
        ("environment", {"A": 12345}),
        ("environment", {"A": "secret\0"}),
        ("working_directory", ""),
        ("working_directory", 7),
        ("stream_output", "yes"),
        ("grace_seconds", -1),
        ("grace_seconds", "5"),
        ("grace_seconds", True),
        ("grace_seconds", float("inf")),
        ("grace_seconds", float("nan")),
        ("timeout_seconds", 0),
        ("timeout_seconds", None),
        ("type", 7),
    ],
    ids=str,
)
def test_a_field_that_is_not_what_it_must_be_is_refused_without_showing_it(name, value):
    with pytest.raises(UsageError, match=f"infrastructure: {name} ") as caught:
        load_infrastructure({name: value})
    assert "secret" not in str(caught.value)
    assert "12345" not in str(caught.value)


def test_a_field_that_does_not_exist_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match="there is no 'enviroment'") as caught:
        load_infrastructure({"enviroment": {}})
    assert caught.value.hint == "did you mean 'environment'?"
