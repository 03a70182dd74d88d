"""The supervisor of a run, started for real: what it passes on, keeps, enforces and reports."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a subreaper")

DEADLINE_SECONDS = 30
CAREFUL = """
def leave(*_):
    raise SystemExit(7)
signal.signal(signal.SIGTERM, leave)
try:
    tell("ready")
    stay()
finally:
    tell("told")
    wait_until_told("go")
    tell("finally")
"""
DEAF = "signal.signal(signal.SIGTERM, lambda *_: tell('told'))\ntell('ready')\nstay()"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_engine_has_its_grace_to_end(supervise, number):
    run = supervise(CAREFUL).has("ready").send(number).has("told").tell("go")
    report, code = run.end()
    assert (run.folder / "finally").exists()
    assert (report["reason"], report["exit_code"], report["signal"], code) == (
        "terminated",
        7,
        None,
        7,
    )


def test_the_grace_of_a_stop_is_its_own(supervise):
    report, _ = supervise(DEAF, grace_seconds=600).has("ready").stop(grace_seconds=0.2).end()
    assert report["reason"] == "killed"


def test_a_second_stop_shortens_the_grace(supervise):
    run = supervise(DEAF, grace_seconds=600).has("ready").stop().has("told")
    assert run.stop(grace_seconds=0.1).end()[0]["reason"] == "killed"


def test_a_second_stop_never_lengthens_the_grace(supervise):
    run = supervise(DEAF).has("ready").stop(grace_seconds=0.5).has("told")
    assert run.stop(grace_seconds=600).end()[0]["reason"] == "killed"


def test_a_stop_order_that_cannot_be_read_leaves_the_grace_as_it_was(supervise):
    run = supervise(CAREFUL).has("ready")
    (run.folder / "stop.json").write_text("{", encoding="utf-8")
    assert run.stop().has("told").tell("go").end()[0]["exit_code"] == 7


@pytest.mark.parametrize(("program", "grace_seconds"), [(CAREFUL, 20.0), (DEAF, 0.5)])
def test_a_stopped_engine_is_continued_to_end(supervise, program, grace_seconds):
    run = supervise(program, grace_seconds=grace_seconds).has("ready")
    (pid,) = run.pids()
    os.kill(pid, signal.SIGSTOP)
    supervise.until(lambda: b") T " in Path(f"/proc/{pid}/stat").read_bytes(), "the engine stopped")
    report, _ = run.stop().has("told").tell("go").end()
    assert report["reason"] == ("terminated" if program is CAREFUL else "killed")


def test_a_deadline_ends_an_engine_that_ignores_sigterm(supervise):
    report, code = supervise(DEAF, timeout_seconds=0.3, grace_seconds=0.2).end()
    assert (report["reason"], report["signal"], code) == ("timed_out", 9, 137)


def test_an_engine_that_can_writes_its_stacks_at_the_deadline(supervise):
    program = """
import faulthandler
faulthandler.register(signal.SIGRTMIN + 5, all_threads=True)
def some_function():
    tell("stack_ready")
    stay()
some_function()
"""
    run = supervise(program, timeout_seconds=0.6)
    report, _ = run.end()
    assert (report["reason"], report["signal"]) == ("timed_out", signal.SIGTERM)
    assert any("in some_function" in text for _, text in run.lines())


def test_an_engine_that_never_said_it_can_gets_no_stack_signal(supervise):
    report, _ = supervise("tell('ready')\nstay()", timeout_seconds=0.5).end()
    assert report["signal"] == signal.SIGTERM


def test_an_engine_dies_with_its_supervisor(supervise):
    run = supervise(f"signal.alarm(90)  # not what ends it here\n{DEAF}").has("ready")
    run.process.kill()
    supervise.until(lambda: not supervise.with_token(run.token), "the engine's end")
    run.process.communicate(timeout=DEADLINE_SECONDS)
    assert not (run.folder / "exit.json").exists()


def test_a_hangup_is_ignored_and_user_signals_are_passed_on(supervise):
    program = """
signal.signal(signal.SIGUSR1, lambda *_: tell("one"))
signal.signal(signal.SIGUSR2, lambda *_: os._exit(5))
tell("ready")
stay()
"""
    run = supervise(program).has("ready").send(signal.SIGHUP, signal.SIGUSR1).has("one")
    report, code = run.send(signal.SIGUSR2).end()
    assert (report["reason"], report["exit_code"], code) == ("ended", 5, 5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_that_ended_the_engine_is_told(supervise, number):
    report, code = supervise(f"os.kill(os.getpid(), {int(number)})").end()
    assert (report["reason"], report["exit_code"], report["signal"]) == ("ended", None, number)
    assert code == 128 + number


def test_how_a_run_went_is_reported(supervise):
    before = time.time_ns() // 1000
    report, code = supervise("sys.exit(3)").end()
    assert (report["reason"], report["exit_code"], report["signal"], code) == ("ended", 3, None, 3)
    assert before <= report["started_at"] < report["ended_at"] <= time.time_ns() // 1000
    assert (report["swept"], report["survivors"], report["lost_output_bytes"]) == (0, [], 0)
    assert report["message"] is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"command": ["/no/such/command"]}, "/no/such/command"),
        ({"command": []}, "cannot start"),
        ({"working_directory": "/no/such/folder"}, "/no/such/folder"),
        ({"token": 5}, "cannot start"),
        ({"environment": None}, "spec.json"),
        ({"text": "{"}, "spec.json"),
        ({"text": "{}"}, "command"),
        ({"text": "[]"}, "spec.json"),
    ],
)
def test_an_engine_that_cannot_start_is_reported(supervise, spec, words):
    report, code = supervise(**spec).end()
    assert (report["reason"], report["exit_code"], code) == ("not_started", None, 127)
    assert words in report["message"]


def test_a_folder_that_is_not_there_is_an_error_at_once(supervise, tmp_path):
    command = [sys.executable, "-I", "-S", str(supervise.program), str(tmp_path / "none")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 127
    assert str(tmp_path / "none") in done.stderr


def test_all_output_is_kept_by_line_and_stream(supervise):
    program = r"""
import subprocess
os.write(1, b"one\ntwo\r\n")
os.write(2, b"to stderr\n")
subprocess.run(["/bin/echo", "from a child"])
os.write(1, b"\xff\xfe \xe2\x82\xac\n\n")
os.write(1, b"no end")
"""
    run = supervise(program)
    run.end()
    stdout = [text for stream, text in run.lines() if stream == "stdout"]
    assert stdout == ["one", "two", "from a child", "\\xff\\xfe €", "", "no end"]
    assert ("stderr", "to stderr") in run.lines()
    assert (run.out, run.error) == (b"", b"")


def test_a_huge_line_is_cut_and_kept_whole(supervise):
    run = supervise("for _ in range(50): os.write(1, b'x' * 60_000)\nprint()")
    report, _ = run.end()
    texts = [text for _, text in run.lines()]
    assert "".join(texts) == "x" * 3_000_000
    assert max(map(len, texts)) <= 1_000_000
    assert report["lost_output_bytes"] == 0


# Each part is a read of its own: the engine waits until there is nothing left in the pipe.
PARTS = """
import array, fcntl, termios
def write(*parts):
    for part in parts:
        os.write(2, part)
        unread = array.array("i", [1])
        while unread[0]:
            fcntl.ioctl(2, termios.FIONREAD, unread)
"""


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_line_that_is_on_record_already_is_copied_and_not_kept(supervise, size):
    text = b"\x1elog\nmine\n\x1elog\r\n50% done \x1elog\n\n\x1e\n\x1e\x1etwo\n\x1e no end"
    parts = [text[place : place + size] for place in range(0, len(text), size)]
    run = supervise(f"{PARTS}\nwrite(*{parts})", is_streamed=True)
    report, _ = run.end()
    assert run.lines() == [("stderr", one) for one in ("mine", "50% done ", "")]
    assert run.error == b"log\nmine\nlog\r\n50% done log\n\n\ntwo\n no end"
    assert report["lost_output_bytes"] == 0


def test_stdout_has_no_marks_and_is_kept_and_copied_as_it_is(supervise):
    text = b'\x1e{"a": 1}\n\n\n\x1e{"b": 2}\n'  # JSON text sequences begin so (RFC 7464)
    run = supervise(f"os.write(1, {text!r})", is_streamed=True)
    run.end()
    assert run.lines() == [("stdout", one) for one in ('\x1e{"a": 1}', "", "", '\x1e{"b": 2}')]
    assert run.out == text


def test_a_cut_does_not_change_what_is_on_record_already(supervise):
    part = b"x" * 4096  # of those 229 are cut off, not one more or less
    parts = f"*[{part!r}] * 229"
    unmarked, marked = f"{parts}, b'y\\n'", f"b'\\x1e', {parts}, b'y\\nmine\\n'"
    run = supervise(f"{PARTS}\nwrite({unmarked}, {marked})", is_streamed=True)
    run.end()
    line = "x" * 4096 * 229
    assert [text for _, text in run.lines()] == [line, "y", "mine"]
    assert run.error.decode() == f"{line}y\n{line}y\nmine\n"


def test_streamed_output_arrives_as_it_was_written(supervise):
    run = supervise("os.write(2, b'bad')\nos.write(1, b'\\xff\\n' * 100_000)", is_streamed=True)
    run.end()
    assert (run.out, run.error) == (b"\xff\n" * 100_000, b"bad")
    assert len(run.lines()) == 100_001


def test_output_that_nobody_reads_any_more_does_not_hurt_the_run(supervise):
    run = supervise("for n in range(2000): os.write(1, b'%d\\n' % n)", is_streamed=True)
    run.process.stdout.close()
    run.process.stdout = None
    assert run.end()[0]["exit_code"] == 0
    assert len(run.lines()) == 2000


def test_output_that_does_not_fit_is_counted_and_the_run_goes_on(supervise):
    program = "for n in range(20_000): os.write(1, b'%06d\\n' % n)\ntell('done')"
    prefix = ["/bin/sh", "-c", 'ulimit -f 40; exec "$@"', "sh"]  # blocks of 512 or 1,024 bytes
    run = supervise(program, {"prefix": prefix})
    report, code = run.end()
    assert (run.folder / "done").exists()
    assert code == 0
    assert report["lost_output_bytes"] == (20_000 - len(run.lines())) * 7 > 0


def test_the_engine_begins_with_a_clean_slate(supervise, tmp_path):
    program = """
names = ("SigBlk", "SigIgn")
masks = [line.split()[1] for line in open("/proc/self/status") if line.startswith(names)]
print(sorted(map(int, os.listdir("/proc/self/fd")))[:-1], os.readlink("/proc/self/fd/0"))
print(os.getpgrp() == os.getpid(), os.getsid(0) == os.getppid(), os.getcwd())
print(os.environ["PREFECTLITE_RUN_TOKEN"], masks[0])
"""
    command = [sys.executable, "-I", "-S", "-c", supervise.prelude + program]
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # noqa: FBT003 - it takes no keyword
    options = {"pass_fds": [writer]}
    run = supervise(options=options, command=command, working_directory=str(tmp_path))
    run.end()
    os.close(reader)
    os.close(writer)
    assert [text for _, text in run.lines()] == [
        "[0, 1, 2] /dev/null",
        f"True True {tmp_path}",
        f"{run.token} {'0' * 16}",
    ]


def test_the_supervisor_says_who_it_is_before_the_engine_starts(supervise):
    program = """
import json
who = json.load(open(f"{FOLDER}/supervisor.json"))
assert who["pid"] == os.getppid()
tell("ready")
stay()
"""
    run = supervise(program).has("ready")
    who = json.loads((run.folder / "supervisor.json").read_text(encoding="utf-8"))
    ticks = Path(f"/proc/{run.process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    assert who["start_ticks"] == int(ticks)
    assert who["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert who["pid_namespace"] == str(Path("/proc/self/ns/pid").readlink())
    assert who["hostname"] == os.uname().nodename


def test_the_lock_is_held_for_life_and_by_one(supervise):
    run = supervise("tell('ready')\nstay()").has("ready")
    command = run.process.args
    assert subprocess.run(command, check=False, timeout=DEADLINE_SECONDS).returncode == 126
    assert not (run.folder / "exit.json").exists()
    with (run.folder / "supervisor.lock").open("r+b") as lock:
        with pytest.raises(OSError, match=r"."):
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.stop().end()
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_settle_command_sees_how_the_run_ended(supervise):
    settle = ["/bin/sh", "-c", 'cat "$FOLDER/exit.json"; echo "${PREFECTLITE_RUN_TOKEN:-none}" >&2']
    run = supervise("sys.exit(4)", settle_command=settle)
    report, code = run.end()
    seen, token = (run.folder / "settle.log").read_text(encoding="utf-8").rsplit("}", 1)
    assert json.loads(seen + "}") == report
    assert token.strip() == "none"  # or what looks for what is left of the run would find it
    assert code == 4


def test_a_settle_command_that_is_not_there_is_logged(supervise):
    run = supervise("sys.exit(4)", settle_command=["/no/such/command"])
    assert run.end()[1] == 4
    assert "/no/such/command" in (run.folder / "settle.log").read_text(encoding="utf-8")


def test_an_idle_supervisor_does_not_wake_up(supervise):
    run = supervise(
        "tell('ready')\ntime.sleep(0.2)\ntell('half')\ntime.sleep(0.5)\ntell('done')\nstay()"
    )

    def switches():
        text = Path(f"/proc/{run.process.pid}/status").read_text(encoding="utf-8")
        return text.partition("voluntary_ctxt_switches:")[2].split()[0]

    run.has("half")
    before = switches()
    run.has("done")
    assert switches() == before
    run.stop().end()


def test_its_imports_are_light_and_nothing_of_ours(supervise, tmp_path):
    command = [
        sys.executable,
        "-I",
        "-S",
        "-X",
        "importtime",
        str(supervise.program),
        str(tmp_path / "none"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"subprocess", "logging", "asyncio", "threading", "pathlib", "typing", "prefectlite"}
    assert "ctypes" in modules
    assert modules & heavy == set()
