"""The processes of a load: prefectlite's commands, agents and flows, and what they weigh."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from prefectlite.registry import Registry
from tests.benchmarks.measuring import DEADLINE_SECONDS, SOURCES, environment, killed_after
from tests.load.trials import TooLateError, wait_until
from tests.processes import pids, with_text

#: What supervisors and the agent's next look take, on a busy machine.
_ENDING_SECONDS = 30.0
_NANOSECONDS = 1e9
# A command, and then the most memory that it has had, in kB, to a descriptor.
_MEASURED = """
import os, sys
told = int(sys.argv.pop(1))
from prefectlite.__main__ import main
try:
    code = main()
finally:
    with open("/proc/self/status") as status:
        (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    os.write(told, peak.encode())
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended.

    Attributes:
        peak_bytes: The most memory that it has had at once.
        errors: Its standard error.
    """

    exit_code: int
    seconds: float
    peak_bytes: int
    errors: str


def start_python(arguments: Sequence[str], **options: object) -> subprocess.Popen[str]:
    """Start Python with these arguments; its outputs go nowhere unless options say where."""
    chosen: dict[str, object] = {
        "env": environment(),
        "cwd": SOURCES,
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        **options,
    }
    return subprocess.Popen([sys.executable, *arguments], text=True, **chosen)  # type: ignore[call-overload, no-any-return] # options of Popen


def start_command(*words: str, **options: object) -> subprocess.Popen[str]:
    """Start a command of prefectlite's."""
    return start_python(["-m", "prefectlite", *words], **options)


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of prefectlite's, and return its exit code and outputs."""
    command = [sys.executable, "-m", "prefectlite", *words]
    return subprocess.run(
        command,
        env=environment(),
        cwd=SOURCES,
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )


def deploy(file: Path, *flows: str) -> None:
    """Put a deployment ``load`` of each of a file's flows on record."""
    for flow in flows:
        output = str(file.with_name(f"{flow}.toml"))
        words = ["deployment", "build", f"{file}:{flow}", "-n", "load", "-o", output, "--apply"]
        done = run_command(*words)
        if done.returncode:
            raise AssertionError(done.stderr)


class Measured:
    """A command whose standard output goes to a file, and whose memory is measured."""

    def __init__(self, words: Sequence[str], output: Path) -> None:
        self._reading, writing = os.pipe()
        self._errors = TemporaryFile("w+")  # noqa: SIM115 - closed at its end
        self._began = time.perf_counter()
        with output.open("wb") as file:
            self.process = start_python(
                ["-c", _MEASURED, str(writing), *words],
                stdout=file,
                stderr=self._errors,
                pass_fds=[writing],
            )
        os.close(writing)

    def end(self) -> Ended:
        """Wait until it has ended."""
        with killed_after(self.process):
            exit_code = self.process.wait()
        seconds = time.perf_counter() - self._began
        with open(self._reading) as reading:  # noqa: PTH123 - a descriptor
            peak = reading.read()
        with self._errors as errors:
            errors.seek(0)
            return Ended(exit_code, seconds, int(peak or 0) * 1024, errors.read())


def measured(words: Sequence[str], output: Path = Path(os.devnull)) -> Ended:
    """Run a command to its end, its standard output in a file."""
    return Measured(words, output).end()


@contextmanager
def agent(registry: Registry, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Start an agent with these options, and yield its process once it is at work."""
    process = start_command("agent", "start", *words)
    try:
        wait_until(
            lambda: process.poll() is not None or registry.deployments.list_agents(),
            "an agent on record",
            seconds=DEADLINE_SECONDS,
        )
        if process.poll() is not None:
            raise AssertionError(f"the agent ended with {process.returncode}")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_SECONDS)


def left_of_runs(folder: Path, launcher: int) -> list[str]:
    """Return what runs have left behind in a home folder, once there has been time to see to it.

    Args:
        folder: The home folder.
        launcher: The PID of the agent that has launched them, and goes on.
    """

    def left() -> list[str]:
        processes = [f"process {pid}" for pid in with_text(str(folder)) if pid != launcher]
        files = [str(path) for path in (folder / "runs").glob("*")]
        return [*processes, *files, *(f"zombie {pid}" for pid in zombies_of([launcher]))]

    with suppress(TooLateError):
        wait_until(lambda: not left(), "nothing left", seconds=_ENDING_SECONDS)
    return left()


def zombies_of(parents: Iterable[int]) -> set[int]:
    """Return the PIDs of the dead children that these processes have not waited for."""
    wanted, found = {*parents}, set()
    for pid in pids():
        with suppress(OSError):
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            state, parent, *_ = text[text.rindex(")") + 2 :].split()
            if state == "Z" and int(parent) in wanted:
                found.add(pid)
    return found


def memory_bytes(pid: int, kind: str) -> int:
    """Return the memory of a process: its ``Rss``, or its ``Pss``, its share of what is shared."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    (kilobytes,) = (line.split()[1] for line in text.splitlines() if line.startswith(f"{kind}:"))
    return int(kilobytes) * 1024


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len([*Path(f"/proc/{pid}/task").iterdir()])


def processor_seconds(pids: Iterable[int]) -> float:
    """Return how long all threads of these processes have been on a processor.

    By the scheduler's count, in nanoseconds (proc_pid_stat(5) counts in hundredths of a second).
    """
    files = [file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(file.read_text(encoding="ascii").split()[0]) for file in files) / _NANOSECONDS
