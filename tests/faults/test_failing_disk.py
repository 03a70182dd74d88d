"""A disk that fails, becomes read-only, or is another user's: nothing is acknowledged that is not so."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from prefectlite import cli, launching
from prefectlite.blocks.system import Secret
from prefectlite.errors import InfrastructureError, RegistryUnavailableError
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Crashed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: needs Linux")


def _states():
    registry = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)
    return {run.name: run.state.name for run in registry.list_flow_runs()}


def _failing(call, error, when):
    inject = f"inject={call}:error={error}:when={when}"
    trace = ["-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
    return ["strace", "-f", "-qq", "--seccomp-bpf", *trace]


@pytest.fixture
def can_trace():
    """Skip where nobody may trace."""
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: strace may not trace here: {done.stderr!r}")


@pytest.mark.needs("strace")
@pytest.mark.parametrize("is_begun", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_change_that_cannot_be_synced_is_never_acknowledged(
    can_trace, command, flow_file, record_run, is_begun
):
    record_run("old")
    # The log's first page is synced, its folder, the run's creation, then its end.
    prefix = _failing("fdatasync", "EIO", "4+" if is_begun else "1+")
    ended = command("run", flow_file, "--name", "new", prefix=prefix)
    assert (ended.code, len(ended.told)) == (5, 2), ended.error
    assert "disk I/O error" in ended.told[0]
    assert ("Created flow run 'new'" in ended.error) == is_begun
    assert "Flow run 'new' - Finished" not in ended.error
    assert command("flow-run", "ls").code == 0
    states = _states()
    # What was written, not synced and not acknowledged, is there all the same where nothing was written
    # over it: the end of a run that has done all its work. Else nothing is known of that end.
    assert states.pop("new", None) in ({"Completed", "Crashed"} if is_begun else {None})
    assert states == {"old": "Completed"}


@pytest.mark.needs("strace")
def test_results_that_cannot_be_deleted_are_told_of_with_the_exit_code_5(
    can_trace, command, home, record_run
):
    record_run("old")
    assert len([*(home / "results").iterdir()]) == 1
    ended = command("flow-run", "delete", "old", prefix=_failing("unlink", "EROFS", "1"))
    assert (ended.code, len(ended.told)) == (5, 2), ended.error
    assert "cannot be deleted: Read-only file system" in ended.told[0]
    assert _states() == {}


def test_on_a_disk_that_is_read_only_runs_are_shown_and_none_begins(small_disk, command, flow_file):
    # Not by this process, whose lock would keep a file of the disk open.
    assert command("run", flow_file, "--name", "old").code == 0
    small_disk.remount("ro")
    refused = command("run", flow_file)
    assert (refused.code, len(refused.told)) == (5, 2), refused.error
    assert "cannot be written" in refused.told[0]
    assert "old" in command("flow-run", "ls").out
    small_disk.remount("rw")
    assert _states() == {"old": "Completed"}


@pytest.mark.long
@pytest.mark.needs("setpriv")
@pytest.mark.skipif(os.getuid() != 0, reason="NOT TESTED: only root can be without its powers")
@pytest.mark.parametrize(
    "words",
    [("run", "{file}"), ("flow-run", "delete", "old"), ("registry", "prune", "--keep", "1")],
)
def test_a_folder_that_may_not_be_written_to_is_refused_with_a_hint(
    command, flow_file, home, record_run, words
):
    record_run("old")
    for path in home.rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    home.chmod(0o500)
    powers = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
    ended = command(*(word.format(file=flow_file) for word in words), prefix=powers)
    assert (ended.code, len(ended.told)) == (5, 2), ended.error
    assert _states() == {"old": "Completed"}


def test_a_lock_that_is_not_to_be_had_is_an_error_of_the_registry_and_none_at_the_end(
    registry, record_run, monkeypatch
):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    record_run("old")
    assert registry.list_flow_runs()
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RegistryUnavailableError, match="No locks available"):
        registry.deployments.delete_agent("nobody")
    with pytest.raises(RegistryUnavailableError, match="No locks available"):
        Secret(value="sesame").save("new")
    registry.close()


def test_an_error_of_the_system_that_nobody_expected_is_no_fault_of_ours(monkeypatch, capsys):
    def failing():
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/mnt/home/secrets")

    monkeypatch.setattr(cli, "read_calls", lambda _: [(failing, {})])
    assert cli.main(["flow-run", "ls"]) == 5
    assert capsys.readouterr().err == (
        "error: /mnt/home/secrets cannot be used: Input/output error\n"
        "hint: is its disk whole, and may you read and write there?"
        " PREFECTLITE_DEBUG=1 shows where\n"
    )


def test_a_detached_run_that_could_not_be_started_is_told_so_whoever_recorded_it(
    flow_file, monkeypatch, capsys
):
    def launch(registry, flow_run):
        registry.change_state(flow_run, Crashed("its supervisor could say so itself"))
        raise InfrastructureError("it could not be started: no room")

    monkeypatch.setattr(launching, "launch", launch)
    assert cli.main(["run", str(flow_file), "--detach", "--name", "new"]) == 5
    assert capsys.readouterr().err == "error: it could not be started: no room\n"
    assert _states() == {"new": "Crashed"}
