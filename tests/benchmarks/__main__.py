"""Run benchmarks by name and report them; see the package."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.benchmarks import agents, cancels, flows, lines, pauses, starts, tasks, writers
from tests.benchmarks.measuring import Benchmark, Row, Scale, quiet
from tests.benchmarks.report import document, table

_BENCHMARKS: dict[str, Benchmark] = {
    name: benchmark
    for group in (tasks, flows, starts, cancels, agents, pauses, lines, writers)
    for name, benchmark in group.BENCHMARKS.items()
}


def main() -> None:
    """Measure what the arguments name, print a table, and write JSON where it is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of: {', '.join(_BENCHMARKS)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there, too")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in _BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    rows: list[Row] = []
    for name in arguments.names or _BENCHMARKS:
        sys.stderr.write(f"measuring {name} ...\n")
        with quiet():
            rows += _BENCHMARKS[name](Scale(arguments.quick))
    sys.stdout.write(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(document(rows), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
