"""Turn a year of hourly temperatures into a table of months: extract, transform, load.

::

    prefectlite run prefectlite.examples.etl -p output=months.json

The input ships with the example: 8,759 hourly temperatures of Seattle in 2010, in degrees
Fahrenheit, drawn from public-domain data of NOAA, the United States weather service. One hour is
missing in it, which the flow finds. ``extract`` has a timeout; the months are mapped over, each a
task run; ``load`` is retried, and with ``hiccups`` its first attempts fail, to see that happen.
"""

from __future__ import annotations

import csv
import json
import os
from calendar import month_name, monthrange
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean

from prefectlite import flow, get_run_logger, task
from prefectlite.context import TaskRunContext

DATA = Path(__file__).parent / "data" / "seattle_2010.csv"


@dataclass(frozen=True)
class Hour:
    """The temperature at one hour, in degrees Celsius."""

    at: datetime
    celsius: float


@dataclass(frozen=True)
class Month:
    """What is known of one month; temperatures are in degrees Celsius."""

    month: str
    hours: int
    missing_hours: int
    mean: float
    lowest: float
    highest: float
    warmest_day: int


@task(timeout_seconds=30)
def extract(path: Path) -> list[list[Hour]]:
    """Read the file and return its hours by month."""
    months: dict[tuple[int, int], list[Hour]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["hour"])
            hour = Hour(at, (float(row["fahrenheit"]) - 32) / 1.8)
            months.setdefault((at.year, at.month), []).append(hour)
    return [months[key] for key in sorted(months)]


@task(task_run_name="transform {hours[0].at:%Y-%m}")
def transform(hours: list[Hour]) -> Month:
    """Sum up one month."""
    first = hours[0].at
    days: dict[int, list[float]] = {}
    for hour in hours:
        days.setdefault(hour.at.day, []).append(hour.celsius)
    temperatures = [hour.celsius for hour in hours]
    expected = 24 * monthrange(first.year, first.month)[1]
    if len(hours) < expected:
        get_run_logger().warning("%s hour(s) are missing", expected - len(hours))
    return Month(
        month=month_name[first.month],
        hours=len(hours),
        missing_hours=expected - len(hours),
        mean=round(fmean(temperatures), 1),
        lowest=round(min(temperatures), 1),
        highest=round(max(temperatures), 1),
        warmest_day=max(days, key=lambda day: fmean(days[day])),
    )


@task(retries=2, retry_delay_seconds=0.2)
def load(months: list[Month], output: Path | None, hiccups: int) -> None:
    """Write the table as JSON, all of it or nothing; without an output, say it in the log."""
    context = TaskRunContext.get()
    if context is not None and context.task_run.run_count <= hiccups:
        raise ConnectionError("a hiccup, as was asked for")
    if output is None:
        for month in months:
            print(f"{month.month:<9} {month.mean:5.1f} °C  {month.lowest:5.1f} to {month.highest}")
        return
    draft = output.with_name(output.name + ".new")
    draft.write_text(json.dumps([asdict(month) for month in months], indent=2), encoding="utf-8")
    os.replace(draft, output)  # noqa: PTH105 - a draft and its target are one idea
    print(f"wrote {len(months)} months to {output}")


@flow(log_prints=True, timeout_seconds=300)
def etl(path: Path = DATA, output: Path | None = None, hiccups: int = 1) -> dict[str, float]:
    """Make a table of months from hourly temperatures; return the mean of each month.

    Args:
        path: A CSV file with the columns ``hour`` (ISO 8601) and ``fahrenheit``.
        output: Where to write the table as JSON; None to say it in the log.
        hiccups: How many of the first attempts of ``load`` are to fail.
    """
    futures = transform.map(extract(path))
    months = [future.result() for future in futures]
    load(months, output, hiccups)
    return {month.month: month.mean for month in months}


if __name__ == "__main__":
    etl()
