"""Very many log lines of one flow, and a very long one: all there, in order, and read by a small process."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path

from prefectlite.registry import Registry, open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks.measuring import DEADLINE_SECONDS, home, killed_after
from tests.load.programs import Ended, Measured, measured, start_python
from tests.load.trials import Load, Trial, wait_until

_FLOW = """
import json, signal, sys
from time import perf_counter
from prefectlite import flow

signal.alarm(3600)  # whatever becomes of the load, nothing outlives it for long
COUNT, LENGTH = map(int, sys.argv[1:])
sizes = []

def size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

@flow(log_prints=True)
def talks():
    for number in range(COUNT):
        print("line", number)
        if number % (COUNT // 30) == 0:
            sizes.append(size())

@flow(log_prints=True)
def drawls():
    print("x" * LENGTH)

started = perf_counter()
talks()
seconds = perf_counter() - started
drawls()
print(json.dumps({"seconds": seconds, "sizes": sizes}))
"""
_LENGTH = 10_000_000
_TAIL = 10
_LINES_A_SECOND = 100_000
# What a process may grow by while it goes on: pages of the interpreter and of SQLite.
_SLACK_BYTES = 8_000_000
# As much as a command that lists runs, and some pages of the registry.
_READER_BYTES = 60_000_000
# The line itself, as text, as bytes for the terminal, and as SQLite gives it.
_COPIES = 8


def lines(trial: Trial) -> None:
    """Let a flow print, and read all of it meanwhile and afterwards."""
    count = trial.scale.pick(1_000_000, 20_000)
    with home() as folder:
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        process = start_python(["-c", _FLOW, str(count), str(_LENGTH)], stdout=subprocess.PIPE)
        run_id = _wait_for_run(registry)
        follower = Measured(["flow-run", "logs", run_id, "--follow"], folder / "followed.txt")
        with killed_after(process):
            told = json.loads(process.communicate()[0])
        followed = follower.end()
        _claim_read(trial, f"logs -f of {count:,} lines", followed, folder / "followed.txt", count)
        all_of_it = measured(["flow-run", "logs", run_id], folder / "all.txt")
        _claim_read(trial, f"logs of {count:,} lines", all_of_it, folder / "all.txt", count)
        _claim_tail(trial, run_id, folder / "tail.txt", count)
        _claim_long_line(trial, registry, folder / "long.txt")
    name = f"a flow that prints {count:,} lines"
    trial.show(f"{name}: on record", "s", told["seconds"], count / _LINES_A_SECOND, ratio_at_most=1)
    _claim_flat(trial, f"{name}: its memory is flat", told["sizes"])
    trial.show(f"logs of {count:,} lines", "s", all_of_it.seconds)


def _wait_for_run(registry: Registry) -> str:
    def found() -> str:
        return next((run.id for run in registry.list_flow_runs() if run.flow_name == "talks"), "")

    return wait_until(found, "a flow run", seconds=DEADLINE_SECONDS)


def _claim_read(trial: Trial, name: str, ended: Ended, path: Path, count: int) -> None:
    trial.claim_equal(f"{name}: exit code", ended.exit_code, 0)
    trial.claim_equal(f"{name}: lines in order, each once", _in_order(path, "line "), count)
    told = f"{ended.peak_bytes / 1e6:.1f} MB"
    trial.claim(f"{name}: memory of the reader", ended.peak_bytes <= _READER_BYTES, told)


def _in_order(path: Path, marker: str) -> int:
    """Return how many of the numbered lines of a file follow each other without a gap."""
    wanted = 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            _, found, number = line.partition(f" - {marker}")
            if found:
                if int(number) != wanted:
                    return wanted
                wanted += 1
    return wanted


def _claim_tail(trial: Trial, run_id: str, path: Path, count: int) -> None:
    ended = measured(["flow-run", "logs", run_id, "--tail", str(_TAIL)], path)
    text = path.read_text(encoding="utf-8")
    trial.claim_equal("logs --tail: how many", len(text.splitlines()), _TAIL)
    trial.claim("logs --tail: the last one", f" - line {count - 1}\n" in text, text[-200:])
    trial.show(f"logs --tail {_TAIL} of {count:,} lines", "ms", ended.seconds * 1e3)


def _claim_long_line(trial: Trial, registry: Registry, path: Path) -> None:
    name = f"a line of {_LENGTH / 1e6:.0f} MB"
    (flow_run,) = (run for run in registry.list_flow_runs() if run.flow_name == "drawls")
    ended = measured(["flow-run", "logs", flow_run.id], path)
    longest = max(path.read_text(encoding="utf-8").split(" - "), key=len).partition("\n")[0]
    trial.claim(f"{name}: as it was printed", longest == "x" * _LENGTH, f"{len(longest):,}")
    told = f"{ended.peak_bytes / 1e6:.0f} MB"
    trial.claim(
        f"{name}: memory of the reader",
        ended.peak_bytes <= _READER_BYTES + _COPIES * _LENGTH,
        told,
    )


def _claim_flat(trial: Trial, name: str, sizes: list[int]) -> None:
    third = len(sizes) // 3
    second, last = (sum(some) / len(some) for some in (sizes[third:-third], sizes[-third:]))
    steps = sum(after > before for before, after in pairwise(sizes))
    told = f"{second / 1e6:.1f} and {last / 1e6:.1f} MB, {steps} steps up"
    trial.claim(name, last - second <= _SLACK_BYTES, told)


LOADS: dict[str, Load] = {"lines": lines}
