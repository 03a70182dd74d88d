"""A supervisor where the machine is against it: an early signal, a full disk, a refused signal."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefectlite.process_trees import end_cgroup

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a subreaper")

DISK_BYTES = 1_000_000
FILL = """
def fill():
    with open(f"{FOLDER}/ballast", "wb", buffering=0) as file:
        try:
            while file.write(b"." * 4096):
                pass
        except OSError:
            return
"""
# From here on the engine is another user's to everybody who may not signal them all (kill(2)).
# It still is root to the files.
REFUSE = "os.setresuid(65534, 0, 65534)\ntell('ready')\n"


def run_or_skip(command, what):
    """Run a command that needs the rights of root; where it fails, skip with its words."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    if done.returncode:
        pytest.skip(f"{what}, which this user or machine does not allow: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """Make the folder of the test a disk that is soon full; to be named before ``supervise``."""
    size = f"size={DISK_BYTES}"
    run_or_skip(["mount", "-t", "tmpfs", "-o", size, "none", str(tmp_path)], "needs mount(8)")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True, timeout=20)


@pytest.fixture
def powerless(without_cgroups):
    """What starts a root who may signal only their own processes, and finds no control groups."""
    if not without_cgroups or not shutil.which("setpriv"):
        pytest.skip("needs a root who may mount, and setpriv(1), to make an engine refuse signals")
    prefix = [*without_cgroups, "setpriv", "--bounding-set=-kill"]
    run_or_skip([*prefix, "true"], "needs to give up CAP_KILL")
    return prefix


def supervise_blocked(supervise, number, program):
    """Start a supervisor with all signals blocked, and this one sent before it is Python."""
    prefix = ["/bin/sh", "-c", f'kill -{int(number)} $$; exec "$@"', "sh"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return supervise(program, {"prefix": prefix})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_comes_before_the_supervisor_runs_is_obeyed(supervise, number):
    report, code = supervise_blocked(supervise, number, "stay()").end()
    assert (report["reason"], report["signal"], code) == ("terminated", signal.SIGTERM, 143)


def test_a_hangup_that_comes_before_the_supervisor_runs_is_ignored(supervise):
    report, code = supervise_blocked(supervise, signal.SIGHUP, "sys.exit(3)").end()
    assert (report["reason"], code) == ("ended", 3)


def test_how_a_run_went_is_written_on_a_full_disk(small_disk, supervise):
    run = supervise(f"{FILL}\nfill()\nprint('lost')\nsys.exit(3)")
    report, code = run.end()
    assert (report["reason"], report["exit_code"], code) == ("ended", 3, 3)
    assert (report["lost_output_bytes"], run.lines()) == (5, [])


def test_how_a_run_went_is_written_as_soon_as_the_disk_has_room(small_disk, supervise):
    reserved = "exit.json.tmp"
    take = f"os.rename(f'{{FOLDER}}/{reserved}', f'{{FOLDER}}/taken')"
    run = supervise(f"{FILL}\n{take}\nfill()\nsys.exit(3)").has("taken").has(reserved)
    assert not (run.folder / "exit.json").exists()
    (run.folder / "ballast").unlink()
    report, code = run.end()
    assert (report["exit_code"], code) == (3, 3)


def test_an_engine_that_refuses_signals_may_end_by_itself(supervise, powerless):
    daemon = "fork(lambda: (os.setsid(), fork(lambda: (here(), stay())))); wait_for(2)"
    run = supervise(f"{daemon}\n{REFUSE}wait_until_told('go')\nsys.exit(4)", {"prefix": powerless})
    engine, child = run.has("ready").pids()
    run.stop(grace_seconds=0)
    supervise.until(lambda: not Path(f"/proc/{child}").exists(), "the end of what refuses nothing")
    assert Path(f"/proc/{engine}").exists()
    report, code = run.tell("go").end()
    assert (report["reason"], report["exit_code"], code) == ("terminated", 4, 4)
    assert (report["message"], report["survivors"]) == (None, [])


def test_an_engine_that_cannot_be_killed_is_named_as_a_survivor(supervise, powerless, tmp_path):
    program, seconds = tmp_path / "supervisor.py", "KILL_SECONDS = 10.0"
    text = supervise.program.read_text(encoding="utf-8")
    assert seconds in text
    program.write_text(text.replace(seconds, "KILL_SECONDS = 0.5"), encoding="utf-8")
    run = supervise(f"{REFUSE}stay()", {"prefix": powerless, "program": program})
    report, code = run.has("ready").stop(grace_seconds=0).end()
    assert [pid for pid, _ in report["survivors"]] == run.pids()
    assert all(ticks > 0 for _, ticks in report["survivors"])
    assert (report["reason"], report["exit_code"], report["signal"]) == ("killed", None, None)
    assert "SIGKILL did not end" in report["message"]
    assert code == 137


@pytest.fixture
def cgroups(supervise):
    """The folder in which a supervisor makes control groups."""
    run = supervise()
    run.end()
    cgroup = json.loads((run.folder / "supervisor.json").read_text(encoding="utf-8"))["cgroup"]
    try:
        Path(cgroup or "").mkdir()
    except OSError as error:
        pytest.skip(f"NOT TESTED: there are no control groups that this user may make: {error}")
    Path(cgroup).rmdir()
    return Path(cgroup).parent


def test_a_control_group_is_made_only_when_others_know_of_it(cgroups, supervise, tmp_path):
    # It stops where it would say who it is: nobody reads what it writes to.
    prefix = ["/bin/sh", "-c", f'mkfifo {tmp_path}/run-1/supervisor.json.tmp; exec "$@"', "sh"]
    before = {*cgroups.glob("prefectlite-*")}  # of an earlier process with the same PID, perhaps
    run = supervise("", {"prefix": prefix}).has("output.jsonl")
    made = {*cgroups.glob(f"prefectlite-{run.process.pid}-*")} - before
    for group in made:
        group.rmdir()
    assert made == set()


def test_a_control_group_that_cannot_be_made_is_not_named(cgroups, supervise):
    own = cgroups / f"prefectlite-test-{os.getpid()}"
    # Nothing can be made inside of it (cgroups(7)).
    script = 'mkdir "$1" && echo 0 > "$1/cgroup.max.descendants" && echo $$ > "$1/cgroup.procs"'
    try:
        prefix = ["/bin/sh", "-c", f'{script} && shift && exec "$@"', "sh", str(own)]
        run = supervise("", {"prefix": prefix})
        report, code = run.end()
        record = json.loads((run.folder / "supervisor.json").read_text(encoding="utf-8"))
        assert (report["reason"], code, record["cgroup"]) == ("ended", 0, None)
    finally:
        own.rmdir()


#: Ends a control group that it is in itself.
IN_ITS_GROUP = """
import os, sys
from pathlib import Path
from prefectlite.process_trees import end_cgroup

group = Path(sys.argv[1])
group.mkdir()
(group / "cgroup.procs").write_text(str(os.getpid()))
end_cgroup(str(group))
print("there", flush=True)
"""


def test_who_ends_a_control_group_that_it_is_in_lives_on(cgroups, start_python):
    group = cgroups / f"prefectlite-test-{os.getpid()}"
    try:
        program = start_python(IN_ITS_GROUP, group)
        assert program.line() == "there"
        program.end()
    finally:
        end_cgroup(str(group))
    assert not group.exists()
