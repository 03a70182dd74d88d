"""A small disk, and commands that are run on it."""

import errno
import itertools
import os
import subprocess
from pathlib import Path

import pytest

import prefectlite
from prefectlite import flow, task
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

_SOURCES = str(Path(prefectlite.__file__).parents[1])
_DEADLINE_SECONDS = 60
_DISK_BYTES, _PAGE_BYTES = 4_000_000, 4096


class Disk:
    """A filesystem in memory."""

    def __init__(self, folder):
        self.folder, self.ballast = folder, folder / "ballast"

    def fill(self, *, but_pages=0):
        """Leave so many pages of 4096 bytes free; what is written over stays possible."""
        with self.ballast.open("wb") as file:
            for position in itertools.count(0, _PAGE_BYTES):  # until no more is to be had
                try:
                    os.posix_fallocate(file.fileno(), position, _PAGE_BYTES)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    file.truncate(position - but_pages * _PAGE_BYTES)
                    return

    def make_room(self):
        """Take back what ``fill`` did."""
        self.ballast.unlink(missing_ok=True)

    def remount(self, options):
        """Mount it with other options, such as ``ro``; nobody may have a file open to write."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A disk of four megabytes, with the home folder on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "none", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True, text=True, timeout=20)
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: no filesystem can be mounted here: {mounted.stderr}")
    monkeypatch.setenv("PREFECTLITE_HOME", str(folder / "home"))
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


@pytest.fixture
def flow_file(tmp_path):
    """A file with a flow of one task, whose result is kept."""
    path = tmp_path / "flows.py"
    path.write_text(
        "from prefectlite import flow, task\n\n"
        "@task(persist_result=True)\n"
        "def double(number):\n    return 2 * number\n\n"
        "@flow\n"
        "def total():\n    return double(1) + double(2)\n"
    )
    return path


@pytest.fixture
def record_run():
    """Put a run on record that is over, as this process does that then lets go of the registry."""

    def record(name):
        @task(persist_result=True)
        def double(number):
            return 2 * number

        @flow(flow_run_name=name)
        def total():
            return double(1)

        assert total() == 2
        open_registry(PREFECTLITE_REGISTRY.value()).close()

    return record


class Command:
    """How a command ended."""

    def __init__(self, process):
        self.out, self.error = process.communicate(timeout=_DEADLINE_SECONDS)
        self.code = process.returncode
        #: What it said went wrong: the one line of error, then what to do.
        self.told = [line for line in self.error.splitlines() if line.startswith(("error", "hint"))]


@pytest.fixture
def command(start_command):
    """Run a command of prefectlite to its end; ``prefix`` starts it. It may say no traceback of ours."""

    def run(*words, **options):
        ended = Command(start_command(*words, **options))
        assert f'File "{_SOURCES}' not in ended.error, ended.error
        assert "internal error" not in ended.error, ended.error
        return ended

    return run
