"""Whether a run's process is alive, told by real processes that are killed, stopped and forked."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest

from prefectlite import liveness, settling
from prefectlite.errors import RegistryReadOnlyError
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import Cancelling, Completed, Running, StateType

DEADLINE_SECONDS = 60

#: A flow with a task and a subflow, that says so when it is in them, and waits.
WAITS = """
import os, sys, threading
from prefectlite import flow, task

begun = threading.Event()

@task
def waits():
    begun.set()
    threading.Event().wait()

@flow
def inner():
    print("ready", flush=True)
    sys.stdin.readline()

@flow
def outer():
    waits.submit()
    begun.wait()
    {begin}
    inner()
    os._exit(0)

outer()
"""

as_root = pytest.mark.skipif(
    os.getuid() != 0, reason="NOT TESTED: only root can make a PID namespace"
)


def started(start_python, begin="pass", **options):
    process = start_python(WAITS.format(begin=begin), **options)
    assert process.line() == "ready"
    return process


def seen(registry):
    """The state of each run, as a command that reads would show it."""
    assert settling.settle(registry, lambda: registry) == []
    runs = [*registry.list_flow_runs(), *registry.list_task_runs()]
    return {
        run.name.rpartition("-")[0] if run.name == "waits-0" else run.flow_name: run for run in runs
    }


def states(registry):
    return {name: run.state.name for name, run in seen(registry).items()}


def identity_of(registry):
    return seen(registry)["outer"].process


def add_run(registry, identity):
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running(), process=identity)
    registry.create_flow_run(run)


def test_the_runs_of_a_killed_process_are_crashed_for_whoever_looks_next(registry, start_python):
    process = started(start_python)
    assert states(registry) == {"outer": "Running", "inner": "Running", "waits": "Running"}
    process.kill()
    assert states(registry) == {"outer": "Crashed", "inner": "Crashed", "waits": "Crashed"}
    run = seen(registry)["outer"]
    assert run.state.message == (
        f"Its process {process.pid} on {os.uname().nodename} died before it ended."
    )
    assert run.infrastructure_pid == f"{os.uname().nodename}:{process.pid}"


def test_a_zombie_is_dead(registry, start_python):
    process = started(start_python)
    os.kill(process.pid, signal.SIGKILL)
    # Waited for, and not reaped: what is left is a zombie.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert states(registry)["outer"] == "Crashed"


def test_a_stopped_process_is_alive(registry, start_python):
    process = started(start_python)
    os.kill(process.pid, signal.SIGSTOP)
    assert states(registry)["outer"] == "Running"


def test_a_process_whose_forked_child_lives_on_is_dead_all_the_same(registry, start_python):
    begin = "read, write = os.pipe(); child = os.fork(); child or os.read(read, 1)"
    begin += "; print(child, flush=True)"
    process = start_python(WAITS.format(begin=begin), stderr=subprocess.DEVNULL)
    child = int(process.line())
    try:
        assert process.line() == "ready"
        process.process.kill()
        process.process.wait()
        assert states(registry)["outer"] == "Crashed"
        assert liveness.start_ticks(child) is not None
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_process_that_closes_the_files_of_others_is_alive(registry, start_python):
    names = "(*os.listdir('/proc/self/fd'),)"
    link = "os.path.realpath(f'/proc/self/fd/{n}')"
    started(start_python, f"[os.close(int(n)) for n in {names} if '/processes/' in {link}]")
    identity = identity_of(registry)
    assert liveness.is_alive(replace(identity, pid_namespace="another")) is False
    assert states(registry)["outer"] == "Running"


DAEMON = """
import os, sys
from prefectlite import flow
empty = flow(name="empty")(lambda: None)
empty()
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.setsid()
os.closerange(3, 1024)
own = [os.open(os.devnull, os.O_WRONLY) for _ in range({files})]
empty()
empty()
print([number for number in own if os.readlink(f"/proc/self/fd/{{number}}") != os.devnull])
"""


@pytest.mark.parametrize("files", [0, 100])
def test_a_daemon_closes_what_its_parent_had_open_and_runs_flows_and_keeps_its_files(
    registry, start_python, files
):
    assert start_python(DAEMON.format(files=files)).end() == "[]\n"
    assert [run.state.name for run in registry.list_flow_runs()] == ["Completed"] * 3


def test_a_forked_child_has_no_copy_of_the_lock_of_its_parent(start_python):
    program = start_python(
        """
        import os
        from prefectlite.liveness import own_identity

        def open_files():
            own_identity()
            return len(os.listdir("/proc/self/fd"))

        before = open_files()
        if os.fork():
            os.wait()
        else:
            print(open_files() - before)
        """
    )
    assert program.end() == "0\n"


def test_looking_does_not_let_go_of_ones_own_lock(registry, start_python):
    begin = (
        "from prefectlite import settling; from prefectlite.context import get_run_context;"
        "registry = get_run_context().registry; settling.settle(registry, lambda: registry)"
    )
    started(start_python, begin)
    identity = identity_of(registry)
    assert liveness.is_alive(replace(identity, pid_namespace="another")) is True


def test_two_who_look_at_once_do_not_take_each_other_for_the_owner(registry, start_python):
    process = started(start_python)
    identity = identity_of(registry)
    process.kill()
    looks = start_python(
        f"import fcntl; file = open({identity.lock_path!r});"
        "fcntl.lockf(file, fcntl.LOCK_SH); print('looking', flush=True); input()"
    )
    assert looks.line() == "looking"
    assert states(registry)["outer"] == "Crashed"


def test_a_restart_of_the_machine_is_seen_by_its_boot_id(registry, monkeypatch):
    monkeypatch.setattr(liveness, "machine_id", lambda: "this")
    identity = replace(liveness.own_identity(), machine_id="this", boot_id="an earlier one")
    add_run(registry, identity)
    run = seen(registry)["f"]
    assert run.state.name == "Crashed"
    assert run.state.message == (
        f"The machine {os.uname().nodename} was restarted before it ended."
    )


@pytest.mark.parametrize(
    "other",
    [
        {"boot_id": "other", "machine_id": "other"},
        {"boot_id": "other", "machine_id": None},
        {"boot_id": "other", "hostname": "other"},
        {"pid_namespace": "other", "lock_path": "/nowhere/x.lock"},
        {"pid_namespace": "other", "lock_path": None},
    ],
    ids=" ".join,
)
def test_the_run_of_a_process_that_cannot_be_seen_from_here_is_left_alone(registry, other):
    dead = liveness.start_ticks(1) or 1
    identity = replace(liveness.own_identity(), token="t", start_ticks=dead + 1, pid=1, **other)
    add_run(registry, identity)
    assert liveness.is_alive(identity) is None
    assert seen(registry)["f"].state.name == "Running"


def test_another_process_with_the_same_number_is_not_taken_for_it(start_python):
    other = start_python("print('ready', flush=True); input()")
    assert other.line() == "ready"
    own = liveness.own_identity()
    ticks = liveness.start_ticks(other.pid)
    identity = replace(own, token="t", pid=other.pid, lock_path=None, start_ticks=ticks)
    assert liveness.is_alive(identity) is True
    assert liveness.is_alive(replace(identity, start_ticks=ticks - 1)) is False


@as_root
def test_a_process_in_another_pid_namespace_is_seen_by_its_lock(registry, start_python):
    process = started(start_python, prefix=["unshare", "--pid", "--fork", "--kill-child"])
    identity = identity_of(registry)
    assert identity.pid_namespace != liveness.own_identity().pid_namespace
    assert states(registry)["outer"] == "Running"
    process.kill()  # of unshare, with which the kernel ends all that it holds
    deadline = time.monotonic() + DEADLINE_SECONDS
    while states(registry)["outer"] == "Running" and time.monotonic() < deadline:
        time.sleep(0.005)
    assert states(registry)["outer"] == "Crashed"


def test_a_run_that_was_being_cancelled_is_cancelled_when_its_process_dies(registry, start_python):
    process = started(start_python)
    registry.change_state(seen(registry)["outer"], Cancelling())
    process.kill()
    assert states(registry)["outer"] == "Cancelled"


def test_a_run_that_ended_before_its_process_did_keeps_its_state(registry, start_python):
    process = started(start_python)
    before = seen(registry)["outer"]
    process.kill()
    registry.change_state(before, Completed("in time"))
    liveness.record_dead(registry, before)
    assert registry.find_flow_run(before.id).state.message == "in time"


def test_a_subflow_run_in_a_process_that_lives_is_left_to_it(registry, start_python):
    process, other = started(start_python), started(start_python)
    outer, alive = (run for run in registry.list_flow_runs()[::-1] if run.flow_name == "outer")
    child = replace(alive, id=new_id(), flow_name="child", parent_flow_run_id=outer.id)
    registry.create_flow_run(child)
    process.kill()
    seen(registry)
    assert registry.find_flow_run(outer.id).state.name == "Crashed"
    assert registry.find_flow_run(child.id).state.name == "Running"
    other.kill()
    seen(registry)
    assert registry.find_flow_run(child.id).state.name == "Crashed"


def test_what_a_run_starts_carries_its_token_and_those_around_it(home, registry, start_python):
    code = """
    import os, subprocess, sys
    from prefectlite import flow

    @flow
    def runs(depth):
        print(os.environ["PREFECTLITE_RUN_TOKEN"])
        sys.stdout.flush()
        if depth:
            code = open(sys.argv[1]).read().replace("runs(1)", "runs(0)")
            subprocess.run([sys.executable, "-c", code, sys.argv[1]], check=True)

    runs(1)
    """
    path = home.with_suffix(".py")
    path.write_text(textwrap.dedent(code), encoding="utf-8")
    outer, inner = start_python(code, path).end().split()
    inner_run, outer_run = registry.list_flow_runs()
    assert outer == outer_run.process.token
    assert inner == f"{outer}:{inner_run.process.token}"


def test_a_process_that_ends_by_itself_leaves_no_lock_file(home, start_python):
    start_python("from prefectlite import flow; flow(lambda: None)()").end()
    assert [*(home / "processes").iterdir()] == []


def test_a_home_that_cannot_be_written_leaves_a_process_without_a_lock_and_runs(
    home, tmp_path, start_python, registry
):
    (home / "processes").touch()
    process = started(start_python)
    assert identity_of(registry).lock_path is None
    assert states(registry)["outer"] == "Running"
    process.kill()
    assert states(registry)["outer"] == "Crashed"


def test_where_the_registry_cannot_be_written_the_dead_are_named(registry, start_python):
    process = started(start_python)
    process.kill()

    def refuse():
        raise RegistryReadOnlyError("read-only")

    unrecorded = settling.settle(registry, refuse)
    assert sorted(run.flow_name for run in unrecorded) == ["inner", "outer"]
    assert {run.state.type for run in unrecorded} == {StateType.RUNNING}


@pytest.mark.parametrize("command", ["flow-run ls", "flow-run inspect outer", "task-run ls"])
def test_commands_that_read_show_no_dead_run_as_running(registry, start_python, command):
    process = started(start_python, "pass")
    process.kill()
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=["outer"]))
    words = command.replace("outer", run.id).split()
    shown = subprocess.run(
        [sys.executable, "-m", "prefectlite", *words, "--json"],
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    found = json.loads(shown.stdout)
    states = [one["state"]["name"] for one in (found if isinstance(found, list) else [found])]
    assert {*states} == {"Crashed"}
