"""What an agent that is a service of systemd says of what its end would do to its runs."""

import os
from pathlib import Path

import pytest

from prefectlite import systemd
from prefectlite.systemd import kill_mode_warning

_V2 = "0::/system.slice/prefectlite-agent.service\n"
_V1 = "2:cpu,cpuacct:/\n1:name=systemd:/system.slice/prefectlite-agent.service\n"


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """Be a service's main process; make a systemctl that answers what is given to this."""
    folder = tmp_path / "bin"
    folder.mkdir()
    groups = tmp_path / "cgroup"
    groups.write_text(_V2)
    monkeypatch.setattr(systemd, "_CONTROL_GROUP", groups)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    asked = tmp_path / "asked"

    def make(script):
        program = folder / "systemctl"
        program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n{script}\n')
        program.chmod(0o755)

    make.asked, make.groups = asked, groups
    return make


@pytest.mark.parametrize("mode", ["control-group", "mixed"])
@pytest.mark.parametrize("groups", [_V1, _V2], ids=["v1", "v2"])
def test_a_mode_that_ends_every_process_is_warned_of(systemctl, mode, groups):
    systemctl(f"echo {mode}")
    systemctl.groups.write_text(groups)
    assert kill_mode_warning() == (
        f"the unit prefectlite-agent.service has KillMode={mode}: to stop it ends its runs, too;"
        " write KillMode=process into its [Service] section"
    )


@pytest.mark.parametrize("mode", ["process", "none"])
def test_a_mode_that_leaves_other_processes_alone_is_not(systemctl, mode):
    systemctl(f"echo {mode}")
    assert kill_mode_warning() is None
    assert systemctl.asked.exists()


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        (0, "show --value --property=KillMode prefectlite-agent.service\n"),
        (1000, "--user show --value --property=KillMode prefectlite-agent.service\n"),
    ],
)
def test_the_manager_that_is_asked_is_that_of_the_user(systemctl, monkeypatch, uid, words):
    systemctl("echo control-group")
    monkeypatch.setattr(os, "getuid", lambda: uid)
    assert kill_mode_warning() is not None
    assert systemctl.asked.read_text() == words


@pytest.mark.parametrize("pid", [None, "", "1", "x"])
def test_what_is_no_services_main_process_asks_nobody(systemctl, monkeypatch, pid):
    systemctl("echo control-group")
    if pid is None:
        monkeypatch.delenv("SYSTEMD_EXEC_PID")
    else:
        monkeypatch.setenv("SYSTEMD_EXEC_PID", pid)
    assert kill_mode_warning() is None
    assert not systemctl.asked.exists()


@pytest.mark.parametrize("groups", ["0::/user.slice/user-0.slice/session-1.scope\n", "0::/\n", ""])
def test_what_is_in_no_service_asks_nobody(systemctl, groups):
    systemctl("echo control-group")
    systemctl.groups.write_text(groups)
    assert kill_mode_warning() is None
    systemctl.groups.unlink()
    assert kill_mode_warning() is None
    assert not systemctl.asked.exists()


@pytest.mark.parametrize("script", ["echo control-group; exit 1", "echo", "exec sleep 60"])
def test_a_systemctl_that_does_not_answer_is_no_reason_to_warn_or_to_wait(
    systemctl, monkeypatch, script
):
    monkeypatch.setattr(systemd, "_SECONDS", 0.2)
    systemctl(script)
    assert kill_mode_warning() is None


def test_where_there_is_no_systemctl_nothing_is_said(systemctl, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kill_mode_warning() is None


def test_the_control_group_is_this_processes_own():
    assert Path("/proc/self/cgroup") == systemd._CONTROL_GROUP
