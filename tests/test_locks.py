"""The write gate: one at a time, in line, with a deadline, and never left behind."""

import fcntl
import os
import subprocess
import threading
from pathlib import Path

import pytest

from prefectlite import locks
from prefectlite.errors import RegistryLockTimeoutError
from prefectlite.locks import WriteGate, gate_holder

DEADLINE_SECONDS = 60


@pytest.fixture
def gates(tmp_path):
    """Make gates on one file; as open file descriptions they exclude each other like processes."""
    made = []

    def gate(timeout_seconds=DEADLINE_SECONDS):
        made.append(WriteGate(tmp_path / "registry.lock", timeout_seconds=timeout_seconds))
        return made[-1]

    yield gate
    for each in made:
        each.close()
    join_claims()


def claims():
    return [each for each in threading.enumerate() if each.name == "prefectlite-gate"]


def join_claims():
    for claim in claims():
        claim.join(timeout=DEADLINE_SECONDS)
    assert claims() == []


def test_one_at_a_time_is_in_the_gate(gates):
    one, two = gates(), gates()
    one.enter()
    assert not two.try_enter()
    one.leave()
    assert two.try_enter()
    assert not one.try_enter()


def test_closing_a_gate_gives_it_back(gates, tmp_path):
    one = WriteGate(tmp_path / "registry.lock", timeout_seconds=0)
    one.enter()
    one.close()
    assert gates().try_enter()


@pytest.mark.parametrize("end", [WriteGate.close, WriteGate.forget])
def test_a_file_that_has_got_the_number_of_a_closed_gate_is_not_touched(gates, tmp_path, end):
    gate = gates()
    with (tmp_path / "of a daemon").open("wb") as mine, (tmp_path / "of a daemon").open() as other:
        number = gate._descriptor
        os.dup2(mine.fileno(), number)
        fcntl.flock(number, fcntl.LOCK_EX)
        end(gate)
        os.write(number, b"it is open")
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(number)


def test_leaving_a_gate_that_is_not_held_is_nothing(gates):
    one, two = gates(), gates()
    one.leave()
    two.enter()
    one.leave()
    assert not one.try_enter()


def test_who_waits_in_line_gets_it_and_holds_it_and_gives_it_back(gates):
    one, two, three = gates(), gates(), gates()
    one.enter()
    entered = threading.Event()

    def wait():
        two.enter()
        entered.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_for(claims)
    assert not entered.is_set()
    one.leave()
    assert entered.wait(DEADLINE_SECONDS)
    waiter.join()
    assert not three.try_enter()
    two.leave()
    assert three.try_enter()


def test_who_waits_too_long_is_told_who_holds_it(gates):
    one, two = gates(), gates(timeout_seconds=0.05)
    one.enter()
    with pytest.raises(RegistryLockTimeoutError) as caught:
        two.enter()
    assert "0.05 seconds" in str(caught.value)
    assert f"process {os.getpid()}" in str(caught.value)
    assert f"ps -p {os.getpid()}" in caught.value.hint
    one.leave()


def test_a_wait_that_was_given_up_keeps_nobody_out_when_its_turn_comes(gates):
    one, two, three = gates(), gates(timeout_seconds=0.05), gates()
    one.enter()
    with pytest.raises(RegistryLockTimeoutError):
        two.enter()
    one.leave()
    join_claims()
    three.enter()
    with pytest.raises(RegistryLockTimeoutError):
        two.enter()
    three.leave()
    join_claims()
    two.enter()
    assert not three.try_enter()


def descriptors(tmp_path):
    """How often this process has the file of the gate open."""
    opened = [each.resolve() for each in Path("/proc/self/fd").iterdir()]
    return opened.count(tmp_path / "registry.lock")


def test_who_gives_up_again_and_again_leaves_one_thread_and_one_descriptor(gates, tmp_path):
    one, two = gates(), gates(timeout_seconds=0.02)
    one.enter()
    for _ in range(5):
        with pytest.raises(RegistryLockTimeoutError):
            two.enter()
    assert len(claims()) == 1
    assert descriptors(tmp_path) == 3
    one.leave()
    join_claims()
    assert descriptors(tmp_path) == 2


def test_a_wait_that_is_taken_up_again_wins_like_a_new_one(gates):
    one, two, three = gates(), gates(timeout_seconds=0.02), gates()
    one.enter()
    with pytest.raises(RegistryLockTimeoutError):
        two.enter()
    two.timeout_seconds = DEADLINE_SECONDS
    winner = threading.Thread(target=two.enter)
    winner.start()
    one.leave()
    winner.join(timeout=DEADLINE_SECONDS)
    assert not winner.is_alive()
    assert not three.try_enter()
    two.leave()
    assert three.try_enter()


class NoThread:
    def __init__(self, **_):
        pass

    def start(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")


def test_where_no_thread_can_be_had_the_gate_is_waited_for_all_the_same(gates, monkeypatch):
    one, two = gates(), gates()
    one.enter()
    monkeypatch.setattr(locks.threading, "Thread", NoThread)
    naps = []

    def nap(_):
        naps.append(1)
        if len(naps) == 100:
            one.leave()

    monkeypatch.setattr(locks.time, "sleep", nap)
    two.enter()
    assert not one.try_enter()


def test_where_no_thread_can_be_had_the_wait_has_its_deadline_too(gates, tmp_path, monkeypatch):
    one, two = gates(), gates(timeout_seconds=0.05)
    one.enter()
    monkeypatch.setattr(locks.threading, "Thread", NoThread)
    with pytest.raises(RegistryLockTimeoutError):
        two.enter()
    assert descriptors(tmp_path) == 2


def test_an_interrupted_wait_leaves_the_gate_to_others(gates, monkeypatch):
    one, two, three = gates(), gates(), gates()
    one.enter()

    class Interrupted(threading.Semaphore):
        def acquire(self, *arguments, **named):
            raise KeyboardInterrupt

    monkeypatch.setattr(locks.threading, "Semaphore", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        two.enter()
    one.leave()
    join_claims()
    assert three.try_enter()


COUNTER = """
import sys
from pathlib import Path
from prefectlite.locks import WriteGate, gate_holder
folder = Path(sys.argv[1])
gate = WriteGate(folder / "registry.lock", timeout_seconds=60)
counter = folder / "counter"
print("ready", flush=True)
sys.stdin.readline()
for _ in range(400):
    gate.enter()
    counter.write_text(str(int(counter.read_text()) + 1))
    gate.leave()
"""


def test_processes_take_turns(tmp_path, start_python):
    (tmp_path / "counter").write_text("0")
    processes = [start_python(COUNTER, tmp_path) for _ in range(4)]
    for process in processes:
        process.line()
    for process in processes:
        process.tell()
    for process in processes:
        process.end()
    assert (tmp_path / "counter").read_text() == "1600"


HOLDER = """
import os, sys
from pathlib import Path
from prefectlite.locks import WriteGate, gate_holder
gate = WriteGate(Path(sys.argv[1]), timeout_seconds=60)
gate.enter()
print(os.getpid(), flush=True)
sys.stdin.readline()
"""


def test_a_process_that_dies_in_the_gate_lets_go_of_it(tmp_path, start_python, gates):
    holder = start_python(HOLDER, tmp_path / "registry.lock")
    holder.line()
    gate = gates()
    assert not gate.try_enter()
    holder.kill()
    gate.enter()


def test_a_program_that_is_started_does_not_inherit_the_gate(gates):
    gate = gates()
    gate.enter()
    assert fcntl.fcntl(gate._descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def wait_for(condition):
    """Let other threads run until the condition holds."""
    turn = threading.Event()
    for _ in range(DEADLINE_SECONDS * 1000):
        if condition():
            return
        turn.wait(0.001)
    raise AssertionError("it never came")


def test_who_keeps_others_from_a_gate_is_known(gates, tmp_path):
    gate = gates()
    path = tmp_path / "registry.lock"
    assert gate_holder(path, patience_seconds=0) is None
    gate.enter()
    assert gate_holder(path, patience_seconds=0) == os.getpid()
    gate.leave()
    assert gate_holder(path, patience_seconds=0) is None
    assert gates().try_enter()


def test_who_has_a_gate_for_a_moment_keeps_nobody_from_it(gates, tmp_path, monkeypatch):
    gate = gates()
    gate.enter()
    monkeypatch.setattr(locks.time, "sleep", lambda _: gate.leave())
    assert gate_holder(tmp_path / "registry.lock", patience_seconds=DEADLINE_SECONDS) is None


def test_to_ask_for_a_gate_that_is_not_there_does_not_make_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        gate_holder(tmp_path / "missing.lock", patience_seconds=0)
    assert not (tmp_path / "missing.lock").exists()


def test_a_holder_that_lets_go_at_the_deadline_is_not_one_that_cannot_be_seen(gates, monkeypatch):
    one, two = gates(), gates(timeout_seconds=0.05)
    one.enter()
    monkeypatch.setattr(locks, "_holder", lambda _: one.leave())
    two.enter()
    assert not one.try_enter()


_CODE = "import secrets; hunter2()"


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("tail", ["tail", "--password=hunter2", "-f", "x"], "tail"),
        ("tail", ["/opt/a hunter2/tail", "hunter2"], "tail"),
        ("worker", ["worker --broker=amqp://me:hunter2@host/hunter2"], "worker"),
        ("python3", ["/usr/bin/python3"], "python3"),
        ("python3", ["python3", "-"], "python3"),
        ("python3", ["python3", "-", "hunter2"], "python3"),
        ("python3", ["python3", "-W", "error", "-c", _CODE, "hunter2"], "python3 -c"),
        ("python3", ["python3", f"-Ic{_CODE}", "hunter2"], "python3 -c"),
        ("python3", ["python3", "-X", "dev", "-Werror", "-uB", "/my/flow.py", "hunter2"], "python3 flow.py"),
        ("python3", ["python3", "-Im", "my.flows", "--password=hunter2"], "python3 -m my.flows"),
        ("python3", ["python3", "--password=hunter2", "hunter2"], "python3"),
        ("python3", ["python3", "-zhunter2", "hunter2"], "python3"),
        ("python3", ["python3", "-m", "prefectlite", "run", "hunter2"], "python3 -m prefectlite run"),
        ("prefectlite", ["/v/bin/python", "/v/bin/prefectlite", "agent", "start"], "prefectlite agent"),
        ("prefectlite", ["python", "prefectlite", "--profile=hunter2", "agent"], "prefectlite"),
        ("prefectlite", ["python", "prefectlite", "flow-run", "hunter"], "prefectlite flow-run"),
        ("prefectlite", ["python", "prefectlite", "hunter", "agent"], "prefectlite"),
        ("a_long_name_of_", ["python", "/bin/a_long_name_of_a_flow.py"], "a_long_name_of_a_flow.py"),
        ("py\x1b[31m", ["sh", "hunter2"], "py [31m"),
        ("python3", ["python3", "x" * 100], f"python3 {'x' * 52}..."),
        ("kworker", [], "kworker"),
    ],
)  # fmt: skip
def test_of_who_holds_a_gate_no_word_is_told_that_could_be_a_secret(name, words, told):
    command_line = "".join(f"{word}\0" for word in words)
    assert locks._program(name, command_line.encode()) == told


def test_a_real_process_is_called_by_its_name_alone():
    command = ["tail", f"--pid={os.getpid()}", "-f", os.devnull]
    with subprocess.Popen(command) as process:
        try:
            wait_for(Path(f"/proc/{process.pid}/cmdline").read_bytes)  # it is past its execve(2)
            assert locks.describe_holder(process.pid)[0] == f"process {process.pid} (tail)"
        finally:
            process.kill()
