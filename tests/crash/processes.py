"""The processes of a bench: found by a mark in their environment, known by what they run, killed.

Nothing is signalled that does not carry the mark: a process is opened first (pidfd_open(2)), looked at
then, and signalled by what was opened.
"""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.processes import pids

#: The variable that holds the mark, ``bench.round``.
MARK = "CRASH_BENCH"
_TOKEN = b"PREFECTLITE_RUN_TOKEN="
_FLOW_RUN = b"PREFECTLITE_FLOW_RUN_ID="
_END_SECONDS = 30.0
_START_TICKS = 22 - 3
_PROGRAMS = {
    "/supervisor.py": "supervisor",
    "work.py": "engine",
    "--multiprocessing-fork": "worker",
}
_MODULES = {
    "prefectlite.execute": "engine",
    "prefectlite.settling": "settler",
    "prefectlite.couriers": "courier",
}


@dataclass(frozen=True, slots=True)
class Process:
    """A process that carries the mark.

    Attributes:
        kind: ``engine``, ``supervisor``, ``agent``, ``command``, ``reader`` (a command that changes
            nothing by itself), ``settler``, ``courier``, ``worker`` (of a process pool), ``child`` (of a
            flow), or ``starting``, which is not any of these yet.
        words: What it runs, for a person.
        start_ticks: When it started, in ticks since the machine did.
        tokens: Those of the runs' processes that it descends from, or is.
        flow_run_id: The run that a supervisor was started for, in which this process is; or empty.
    """

    pid: int
    kind: str
    words: str
    start_ticks: int
    tokens: tuple[str, ...]
    flow_run_id: str


def marked(mark: str) -> list[Process]:
    """Return the processes whose mark begins so; without zombies, which have no environment."""
    found = []
    for pid in pids():
        process = look(pid, mark)
        if process is not None:
            found.append(process)
    return sorted(found, key=lambda one: (one.start_ticks, one.pid))


def look(pid: int, mark: str) -> Process | None:
    """Return a process whose mark begins so; None where it is gone, or is another one."""
    folder = Path(f"/proc/{pid}")
    try:
        variables = (folder / "environ").read_bytes().split(b"\0")
        if not any(one.startswith(f"{MARK}={mark}".encode()) for one in variables):
            return None
        arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(
        pid,
        _kind(arguments),
        " ".join(Path(word).name if word.startswith("/") else word for word in arguments),
        int(fields[_START_TICKS]),
        tuple(filter(None, _value(variables, _TOKEN).split(":"))),
        _value(variables, _FLOW_RUN),
    )


def _value(variables: list[bytes], name: bytes) -> str:
    for one in variables:
        if one.startswith(name):
            return one.removeprefix(name).decode(errors="replace")
    return ""


def _kind(arguments: list[str]) -> str:
    if not arguments:
        return "starting"
    for end, kind in _PROGRAMS.items():
        if any(word.endswith(end) for word in arguments[1:]):
            return kind
    if "-m" not in arguments[:-1]:
        return "child"
    module, *words = arguments[arguments.index("-m") + 1 :]
    return _kind_of_command(words) if module == "prefectlite" else _MODULES.get(module, "child")


def _kind_of_command(words: list[str]) -> str:
    if words[:2] == ["agent", "start"]:
        return "agent"
    if words[1:2] in (["ls"], ["wait"]):
        return "reader"
    return "engine" if words[:1] == ["run"] and "--detach" not in words else "command"


def kill(process: Process, mark: str) -> bool:
    """Kill this very process; return False where it is gone, or is not proven to be it."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        now = look(process.pid, mark)
        if now is None or now.start_ticks != process.start_ticks:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(1000)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def end_all(mark: str) -> None:
    """Kill whatever carries the mark, until nothing does."""
    deadline = time.monotonic() + _END_SECONDS
    while (left := marked(mark)) and time.monotonic() < deadline:
        for process in left:
            kill(process, mark)
