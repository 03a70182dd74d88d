"""A process is stopped in the middle of a write, and keeps all others from writing.

Who wants to write gives up at its deadline, and says who is in the way; who reads does not notice; and
when the process goes on, or dies, nothing is lost and nothing is there twice.
"""

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from prefectlite import flow, get_run_logger, task
from prefectlite.errors import RegistryLockTimeoutError
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

DEADLINE_SECONDS = 60
UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

# For each line that it is told, it writes a run, and stands still in the middle of that.
HOLDER = """
import sys
from prefectlite import flow
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

class Held:
    def __init__(self, connection):
        self.connection = connection

    def execute(self, sql, *values):
        if sql == "COMMIT":
            print("in", flush=True)
            sys.stdin.readline()
        return self.connection.execute(sql, *values)

    def __getattr__(self, name):
        return getattr(self.connection, name)

registry = open_registry(PREFECTLITE_REGISTRY.value())
run = registry.list_flow_runs()[0]
print("ready", flush=True)
for number, _ in enumerate(sys.stdin):
    database = registry._database
    connection, database._connection = database._connection, Held(database._connection)
    from dataclasses import replace
    from prefectlite.names import new_id
    registry.create_flow_run(replace(run, id=new_id(), name=f"held-{number}"))
    database._connection = connection
    print("out", flush=True)
"""


@pytest.fixture
def holder(start_python):
    """A process that is stopped in the middle of a write; there is one run beside."""
    flow(name="first", flow_run_name="first")(lambda: None)()
    open_registry(url()).close()
    process = start_python(HOLDER)
    assert process.line() == "ready"
    process.tell()
    assert process.line() == "in"
    process.process.send_signal(signal.SIGSTOP)
    yield process
    process.process.send_signal(signal.SIGCONT)


def let_go(holder):
    """Let it go on, to the end of its write."""
    holder.process.send_signal(signal.SIGCONT)
    holder.tell()
    assert holder.line() == "out"


@pytest.fixture(autouse=True)
def deadline(monkeypatch):
    monkeypatch.setenv("PREFECTLITE_REGISTRY_LOCK_SECONDS", "0.3")


def url():
    return PREFECTLITE_REGISTRY.value()


def names():
    with closing(open_registry(url(), read_only=True)) as registry:
        return sorted(run.name for run in registry.list_flow_runs(limit=None))


def ended(process):
    out, error = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, out, error


def test_who_wants_to_write_gives_up_and_says_who_is_in_the_way_and_what_to_do(
    holder, start_command
):
    code, out, error = ended(start_command("flow-run", "delete", "first"))
    assert (code, out) == (5, "")
    assert f"held for 0.3 seconds by process {holder.pid} (python" in error
    assert "which is stopped" in error
    assert f"kill -CONT {holder.pid}" in error
    assert "Traceback" not in error
    let_go(holder)
    assert names() == ["first", "held-0"]


@pytest.mark.long
def test_a_holder_that_is_not_stopped_is_not_said_to_be(holder):
    holder.process.send_signal(signal.SIGCONT)
    with pytest.raises(RegistryLockTimeoutError) as caught:
        flow(lambda: None)()
    assert f"process {holder.pid} (python" in str(caught.value)
    assert "stopped" not in str(caught.value)
    assert f"ps -p {holder.pid}" in caught.value.hint


@pytest.mark.long
def test_no_argument_of_the_holder_is_told_which_could_be_a_secret(start_python, monkeypatch):
    flow(name="first")(lambda: None)()
    holder = start_python(HOLDER, "--password", "hunter2")
    holder.line()
    holder.tell()
    holder.line()
    with pytest.raises(RegistryLockTimeoutError) as caught:
        flow(lambda: None)()
    program = Path(sys.executable).name
    assert str(caught.value).endswith(f"process {holder.pid} ({program} -c)")
    holder.tell()
    holder.line()


def test_a_task_that_ends_meanwhile_is_not_running_for_ever(holder, monkeypatch):
    caught = []
    holder.process.send_signal(signal.SIGCONT)
    holder.tell()
    holder.line()

    @task
    def ends_too_late():
        get_run_logger().info("one")
        holder.tell()
        assert holder.line() == "in"
        holder.process.send_signal(signal.SIGSTOP)

    @task
    def follows():
        get_run_logger().info("two")

    @flow(flow_run_name="goes-on")
    def goes_on():
        try:
            ends_too_late()
        except RegistryLockTimeoutError as error:
            caught.append(error)
        let_go(holder)
        follows()
        return "done"

    assert goes_on() == "done"
    assert f"process {holder.pid}" in str(caught[0])
    with closing(open_registry(url(), read_only=True)) as registry:
        run = registry.find_flow_run("goes-on")
        states = {each.task_name: each.state for each in registry.list_task_runs()}
        assert states["ends_too_late"].is_crashed()
        assert states["ends_too_late"].message.endswith("its own end is not on record.")
        assert states["follows"].is_completed()
        messages = [line.message for line in registry.read_logs(run.id)]
        assert messages.index("one") < messages.index("two")
        assert messages.count("one") == 1


@pytest.mark.long
def test_who_reads_does_not_notice(holder, start_command):
    for arguments in (
        ["flow-run", "ls", "--json"],
        ["flow-run", "inspect", "first", "--json"],
        ["flow-run", "logs", "first"],
        ["flow-run", "wait", "first"],
        ["flow-run", "watch", "first"],
        ["flow", "ls"],
        ["registry", "check"],
    ):
        code, _, error = ended(start_command(*arguments))
        assert code == 0, f"{arguments}: {error}"
    code, out, error = ended(start_command("doctor"))
    assert code == 5
    assert f"process {holder.pid} (python" in out + error
    assert f"kill -CONT {holder.pid}" in out + error
    let_go(holder)


@pytest.mark.long
def test_of_many_who_wait_each_is_told_and_nothing_is_lost_or_doubled(
    holder, start_command, tmp_path
):
    (tmp_path / "flows.py").write_text("from prefectlite import flow\n@flow\ndef hello(): ...\n")
    hello = f"{tmp_path / 'flows.py'}:hello"
    waiters = [start_command("run", hello, "--name", f"in-vain-{n}", "--quiet") for n in range(6)]
    for waiter in waiters:
        code, _, error = ended(waiter)
        assert code == 5
        assert f"process {holder.pid}" in error
    patient = [
        start_command(
            *("run", hello, "--name", f"patient-{n}", "--quiet"),
            env={"PREFECTLITE_REGISTRY_LOCK_SECONDS": "60"},
        )
        for n in range(3)
    ]
    let_go(holder)
    for waiter in patient:
        assert ended(waiter)[0] == 0
    assert names() == ["first", "held-0", *(f"patient-{n}" for n in range(3))]


@pytest.mark.long
def test_a_holder_that_is_killed_frees_who_waits_at_once_and_leaves_nothing(
    holder, start_command, until, tmp_path
):
    (tmp_path / "flows.py").write_text("from prefectlite import flow\n@flow\ndef hello(): ...\n")
    waiter = start_command(
        *("run", f"{tmp_path / 'flows.py'}:hello", "--name", "waiter", "--quiet"),
        env={"PREFECTLITE_REGISTRY_LOCK_SECONDS": "600"},
    )
    until(lambda: is_waiting(waiter.pid))
    holder.process.send_signal(signal.SIGKILL)
    assert ended(waiter)[0] == 0
    assert names() == ["first", "waiter"]


def is_waiting(pid):
    """Return whether a process waits for a flock, by proc_locks(5)."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f" {pid} " in line and "FLOCK" in line for line in lines)


OPENER = """
import sys
from prefectlite.registry import open_registry
from prefectlite.schemas import Schema
from prefectlite.settings import PREFECTLITE_REGISTRY
migrate = Schema.migrate
def held(*arguments):
    print("in", flush=True)
    sys.stdin.readline()
    migrate(*arguments)
Schema.migrate = held
open_registry(PREFECTLITE_REGISTRY.value())
print("out", flush=True)
"""


@pytest.mark.long
def test_who_is_stopped_while_it_makes_the_registry_is_named_too(start_python, start_command):
    holder = start_python(OPENER)
    holder.line()
    holder.process.send_signal(signal.SIGSTOP)
    for arguments in (["flow-run", "ls"], ["run", "prefectlite.examples.etl"]):
        code, _, error = ended(start_command(*arguments))
        assert code == 5, error
        assert f"process {holder.pid} (python" in error
    holder.process.send_signal(signal.SIGCONT)
    holder.tell()
    assert holder.line() == "out"
    holder.end()
    code, out, _ = ended(start_command("flow-run", "ls", "--json"))
    assert (code, json.loads(out)) == (0, [])


@pytest.mark.long
def test_who_cannot_see_the_holder_is_told_where_to_look(holder, start_python):
    probe = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"NOT TESTED: there can be no PID namespace here: {probe.stderr!r}")
    waiter = start_python(
        "from prefectlite import flow\n"
        "from prefectlite.errors import RegistryLockTimeoutError\n"
        "try:\n    flow(lambda: None)()\n"
        "except RegistryLockTimeoutError as error:\n    print(error, error.hint, sep='; ')\n",
        prefix=UNSHARE,
    )
    told = waiter.end()
    assert "by a process that cannot be seen from here; look for it" in told
    let_go(holder)


@pytest.mark.long
def test_an_agent_tells_who_is_in_the_way_and_goes_on_when_nobody_is(
    holder, start_command, until, tmp_path
):
    holder.process.send_signal(signal.SIGCONT)
    holder.tell()
    holder.line()
    (tmp_path / "flows.py").write_text("from prefectlite import flow\n@flow\ndef hello(): ...\n")
    built = start_command(
        *("deployment", "build", f"{tmp_path / 'flows.py'}:hello", "-n", "it"),
        *("-o", str(tmp_path / "it.toml"), "--apply"),
    )
    assert ended(built)[0] == 0
    agent = start_command("agent", "start")
    assert "takes runs from" in agent.stderr.readline()
    assert (
        ended(start_command("deployment", "run", "hello/it", "--name", "due", "--in", "2s"))[0] == 0
    )
    holder.tell()
    holder.line()
    holder.process.send_signal(signal.SIGSTOP)
    told = agent.stderr.readline()
    assert f"process {holder.pid} (python" in told
    assert "trying again" in told
    let_go(holder)
    while "Launched flow run 'due'" not in agent.stderr.readline():
        assert agent.poll() is None
    assert ended(start_command("flow-run", "wait", "due"))[0] == 0
    agent.terminate()
    assert agent.wait(DEADLINE_SECONDS) == 0
