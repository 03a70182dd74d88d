"""What was measured, as a plain table, as Markdown for the README, and as JSON."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefectlite.clock import now
from tests.benchmarks.measuring import Sample
from tests.benchmarks.peers.contenders import LISTED, OURS, Contender
from tests.benchmarks.peers.measures import POLLING_SECONDS, Extent, Results

#: By name: what the row says, its unit, and how many of these are in a second or byte.
_ROWS: dict[str, tuple[str, str, float]] = {
    "task": ("one sequential task", "ms", 1e3),
    "mapped": ("one of {mapped:,} mapped tasks", "ms", 1e3),
    "flow": ("one empty flow", "ms", 1e3),
    "first": ("a program with one flow, whole process", "s", 1),
    "import": ("importing the library, whole process", "s", 1),
    "list": (f"the command that lists {LISTED} runs", "s", 1),
    "peak": ("memory of that program's process", "MB", 1e-6),
    "server": ("memory of the server that it needs", "MB", 1e-6),
    "resume": ("resume to the flow's next line, as by default", "s", 1),
    "resume-polling": (
        f"the same, polling every {POLLING_SECONDS} s where there is polling",
        "s",
        1,
    ),
    "cancel": ("cancel to the first sign of it in the flow's code", "s", 1),
}
#: What a figure does not say by itself, by contender.
_NOTES = {
    "prefect-server": (
        "Prefect's tasks are on record some time after the flow has gone on: their states are sent"
        " to the server in the background. Only a flow that a runner serves can be cancelled. The"
        " server's memory is the most that it has had, read once, after all rounds."
    ),
    "dbos": "DBOS records steps with their results, and neither states of theirs nor log lines.",
    "luigi": (
        "Luigi's record is the files that its tasks make: there are no runs, states, times or logs."
    ),
}
_FAILED = "failed"
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that there is to report: who, what came of it, and how it was measured.

    Attributes:
        is_offline: Whether there was no network but 127.0.0.1.
        command: The command line that makes it.
    """

    contenders: Sequence[Contender]
    results: Results
    extent: Extent
    is_offline: bool
    command: str


def table(sheet: Sheet) -> str:
    """Return columns of medians; after each of a peer's, how many times ours it is."""
    lines = _lines(sheet)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join([*padded, "", *_notes(sheet), _machine_text(sheet)]) + "\n"


def markdown(sheet: Sheet) -> str:
    """Return the same as a Markdown table, with the command that makes it."""
    heading, *lines = _lines(sheet)
    rows = [heading, ("---",) * len(heading), *lines]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    notes = "\n".join(f"- {note}" for note in _notes(sheet))
    command = f"```sh\n{sheet.command}\n```"
    return f"{text}\n\n{notes}\n\n{_machine_text(sheet)}\n\n{command}\n"


def document(sheet: Sheet) -> dict[str, object]:
    """Return everything that was measured, as JSON can hold it.

    Shape: ``{"date", "python", "sqlite", "machine", "is_offline", "rounds", "contenders": [{"name",
    "title", "missing"}], "rows": [{"name", "title", "unit", "cells": {contender: {"median",
    "values", "ratio", "failure"}}}]}``. Values are seconds or bytes; ``ratio`` is a median.
    """
    rows = []
    for name, (title, _, _) in _ROWS.items():
        cells = {each.name: _fields(sheet.results, name, each.name) for each in sheet.contenders}
        unit = "bytes" if name in ("peak", "server") else "seconds"
        rows.append({"name": name, "title": _filled(title, sheet), "unit": unit, "cells": cells})
    return {
        "date": now().date().isoformat(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": _machine(),
        "is_offline": sheet.is_offline,
        "rounds": sheet.extent.rounds,
        "contenders": [
            {"name": each.name, "title": each.title, "missing": dict(each.missing)}
            for each in sheet.contenders
        ],
        "rows": rows,
    }


def _lines(sheet: Sheet) -> list[tuple[str, ...]]:
    lines = [("", "", *(each.title for each in sheet.contenders))]
    for name, (title, unit, _) in _ROWS.items():
        cells = (_cell(sheet.results, name, each) for each in sheet.contenders)
        lines.append((_filled(title, sheet), unit, *cells))
    return lines


def _filled(title: str, sheet: Sheet) -> str:
    return title.format(mapped=sheet.extent.mapped)


def _cell(results: Results, row: str, contender: Contender) -> str:
    sample = results.sample(row, contender.name)
    if (row, contender.name) in results.failures:
        return _FAILED
    if sample is None:
        return _NOTHING
    value = _number(sample.median * _ROWS[row][2])
    ratio = results.ratio(row, contender.name, OURS)
    if contender.name == OURS or ratio is None:
        return value
    return f"{value} ({_number(ratio.median, digits=2)}x)"


def _number(value: float, *, digits: int = 3) -> str:
    """Return so many significant digits, and every digit before the point."""
    return (
        f"{value:,.0f}" if value == 0 or abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"
    )


def _notes(sheet: Sheet) -> list[str]:
    """Return what the figures do not say, and why there is none where there is none."""
    notes = [
        "Medians; in brackets how many times ours, of values of the same round.",
        *(_NOTES[each.name] for each in sheet.contenders if each.name in _NOTES),
    ]
    for each in sheet.contenders:
        reasons = " ".join(dict.fromkeys(each.missing.values()))
        notes += [f"{each.title}: {reasons}"] if reasons else []
    failures = sheet.results.failures.items()
    notes += [f"FAILED: {row} of {name}: {said}" for (row, name), said in failures]
    if not sheet.is_offline:
        notes.append("The network was not cut off: only settings kept the peers off it.")
    return notes


def _machine_text(sheet: Sheet) -> str:
    return (
        f"{now().date().isoformat()}, {_machine()}, Python {platform.python_version()},"
        f" SQLite {sqlite3.sqlite_version}; {sheet.extent.rounds} rounds in turns."
    )


def _machine() -> str:
    """Return the processor, how many of it, and the system."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}"


def _fields(results: Results, row: str, contender: str) -> dict[str, object]:
    sample: Sample | None = results.sample(row, contender)
    ratio = results.ratio(row, contender, OURS)
    return {
        "median": sample.median if sample else None,
        "values": [*sample.values] if sample else [],
        "ratio": ratio.median if ratio else None,
        "failure": results.failures.get((row, contender)),
    }
