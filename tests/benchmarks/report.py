"""Rows as a plain table for people and as JSON for programs."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Sequence

import prefectlite
from tests.benchmarks.measuring import Row, Sample, Target

_HEADINGS = ("BENCHMARK", "UNIT", "OURS", "LIMIT", "RATIO", "TARGET", "")


def table(rows: Sequence[Row]) -> str:
    """Return the rows in columns: medians, and in brackets the least and the greatest."""
    lines = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join(padded) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.unit,
        _sample_text(row.ours),
        _sample_text(row.limit),
        _sample_text(row.ratio),
        ", ".join(_target_text(target, row.unit) for target in row.targets),
        ", ".join("ok" if row.reaches(target) else "short" for target in row.targets),
    )


def _sample_text(sample: Sample | None) -> str:
    if sample is None:
        return "-"
    if len(sample.values) == 1:
        return _number(sample.median)
    return (
        f"{_number(sample.median)} [{_number(min(sample.values))}..{_number(max(sample.values))}]"
    )


def _target_text(target: Target, unit: str) -> str:
    sign = ">=" if target.at_least else "<="
    return f"{sign} {_number(target.value)} {'x' if target.of_ratio else unit}".rstrip()


def _number(value: float) -> str:
    """Return three significant digits, and every digit before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def document(rows: Sequence[Row]) -> dict[str, object]:
    """Return everything that was measured, as JSON can hold it.

    Shape: ``{"prefectlite", "python", "sqlite", "machine": text, "rows": [{"name", "unit", "ours",
    "limit", "ratio", "targets"}]}``, where ``limit`` and ``ratio`` may be None, a sample is
    ``{"median", "values"}`` and a target ``{"value", "of", "at_least", "is_reached"}``.
    """
    return {
        "prefectlite": prefectlite.__version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
        "rows": [
            {
                "name": row.name,
                "unit": row.unit,
                "ours": _sample_fields(row.ours),
                "limit": _sample_fields(row.limit),
                "ratio": _sample_fields(row.ratio),
                "targets": [
                    {
                        "value": target.value,
                        "of": "ratio" if target.of_ratio else "ours",
                        "at_least": target.at_least,
                        "is_reached": row.reaches(target),
                    }
                    for target in row.targets
                ],
            }
            for row in rows
        ],
    }


def _sample_fields(sample: Sample | None) -> dict[str, object] | None:
    return None if sample is None else {"median": sample.median, "values": [*sample.values]}
