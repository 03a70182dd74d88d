"""Where the rounds happen: a home folder that each of them finds the same, and its processes."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.processes import end_all, with_text

#: The checkout, which the commands import from.
SOURCES = Path(__file__).parents[2]
#: What a command may take at most, also where it waits for another process; it is a hang beyond.
HANG_SECONDS = 60.0
_LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code; None where it did not end in time and was killed.
    """

    code: int | None
    out: str
    error: str


class Place:
    """A folder with the home, the settings and the output of one command after the other.

    Args:
        folder: An empty folder, on a disk of its own where that is to become full.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: What each round finds in the folder, kept elsewhere.
        self._first = Path(tempfile.mkdtemp(prefix="prefectlite-faults-"))

    @property
    def home(self) -> Path:
        """The home folder of prefectlite."""
        return self.folder / "home"

    @property
    def profiles(self) -> Path:
        """The file of settings."""
        return self.folder / "config" / "profiles.toml"

    @property
    def database(self) -> Path:
        """The registry's file."""
        return self.home / "registry.db"

    @property
    def backup(self) -> Path:
        """Where a backup is to be written."""
        return self.folder / "registry.backup"

    def keep(self) -> None:
        """Have each round begin with what there is now."""
        shutil.copytree(self.folder, self._first, dirs_exist_ok=True)

    def reset(self, *, is_empty: bool = False) -> None:
        """Make the folder what it was, or empty."""
        for entry in self.folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not is_empty:
            shutil.copytree(self._first, self.folder, dirs_exist_ok=True)

    def close(self) -> None:
        """Remove what was kept."""
        shutil.rmtree(self._first, ignore_errors=True)

    def run(
        self,
        arguments: Sequence[str],
        *,
        prefix: Sequence[str] = (),
        file_bytes: int | None = None,
    ) -> Ended:
        """Run a command of prefectlite, and wait for all of its processes.

        Args:
            arguments: What stands behind ``prefectlite``.
            prefix: A command that starts it.
            file_bytes: No file may become longer.
        """
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "prefectlite", *arguments],
            env=self._environment(),
            cwd=SOURCES,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=None if file_bytes is None else _limit(file_bytes),  # noqa: PLW1509 - one thread
        )
        deadline = time.monotonic() + HANG_SECONDS
        try:
            out, error = process.communicate(timeout=HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self.end_all()
            out, error = process.communicate()
            return Ended(None, out, error)
        while self.pids():
            if time.monotonic() > deadline:
                self.end_all()
                return Ended(None, out, error)
            time.sleep(_LOOK_SECONDS)
        return Ended(process.returncode, out, error)

    def pids(self) -> list[int]:
        """Return the processes that work in this place."""
        return with_text(self._mark)

    def end_all(self) -> None:
        """Kill the processes that work in this place."""
        end_all(self._mark)

    @property
    def _mark(self) -> str:
        return f"PREFECTLITE_HOME={self.home}\0"

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PREFECT", "_PREFECT", "GITHUB_"))
        }
        cache = Path(tempfile.gettempdir()) / f"prefectlite-faults-bytecode-{os.getuid()}"
        return {
            **kept,
            "PYTHONPATH": str(SOURCES),
            "PYTHONPYCACHEPREFIX": str(cache),
            "PREFECTLITE_HOME": str(self.home),
            "PREFECTLITE_PROFILES_PATH": str(self.profiles),
            "FAULTS_SECRET": "sesame",
        }


def _limit(file_bytes: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return limit
