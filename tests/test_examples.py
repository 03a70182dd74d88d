"""The examples that ship: each runs as its docstring says, and does what it says."""

import csv
import importlib
import json
import os
import pkgutil
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from prefectlite import examples
from prefectlite.examples.etl import DATA

SOURCES = str(Path(examples.__file__).parents[2])
DEADLINE_SECONDS = 60
# The approval example waits for a person, and has tests of its own.
NAMES = [each.name for each in pkgutil.iter_modules(examples.__path__) if each.name != "approval"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "somewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _start(*arguments, module="prefectlite"):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def _run(name, *options):
    """Run an example; return its exit code, its document and what it said."""
    ended = _start("run", f"prefectlite.examples.{name}", "--json", *options)
    return ended.returncode, json.loads(ended.stdout), ended.stderr


def _command_lines():
    for name in NAMES:
        doc = importlib.import_module(f"prefectlite.examples.{name}").__doc__
        lines = [line.strip() for line in doc.splitlines() if line.startswith("    prefectlite ")]
        assert lines, f"{name} does not say how to run it"
        yield from lines


@pytest.mark.parametrize("line", [*_command_lines()])
def test_the_command_line_of_its_docstring_runs_an_example(line):
    ended = _start(*shlex.split(line)[1:])
    assert ended.returncode == 0, ended.stderr
    assert "Finished in state Completed" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_a_program_too(name):
    ended = _start(module=f"prefectlite.examples.{name}")
    assert ended.returncode == 0, ended.stderr
    (flow_run,) = json.loads(_start("flow-run", "ls", "--json").stdout)
    assert flow_run["state"]["name"] == "Completed"


def test_hello_greets_by_name_in_the_log():
    exit_code, document, said = _run("hello", "-p", "name=you")
    assert (exit_code, document["result"]) == (0, "hello, you")
    assert " - hello, you\n" in said
    assert document["task_run_counts"] == {"Completed": 1}


def test_etl_writes_a_table_of_months(folder):
    exit_code, document, _ = _run("etl", "-p", "output=months.json", "-p", "hiccups=0")
    assert exit_code == 0
    months = json.loads((folder / "months.json").read_text(encoding="utf-8"))
    assert len(months) == 12
    assert months[0] == {
        "month": "January",
        "hours": 744,
        "missing_hours": 0,
        "mean": 5.4,
        "lowest": 3.7,
        "highest": 7.9,
        "warmest_day": 25,
    }
    assert (months[2]["month"], months[2]["hours"], months[2]["missing_hours"]) == ("March", 743, 1)
    assert (months[6]["month"], months[6]["mean"], months[6]["highest"]) == ("July", 18.3, 24.4)
    assert document["result"] == {month["month"]: month["mean"] for month in months}
    assert document["task_run_counts"] == {"Completed": 14}


def test_etl_counts_every_hour_of_its_input_once(folder):
    _run("etl", "-p", "output=months.json", "-p", "hiccups=0")
    months = json.loads((folder / "months.json").read_text(encoding="utf-8"))
    hours = {}
    with DATA.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            celsius = (float(row["fahrenheit"]) - 32) / 1.8
            hours.setdefault(row["hour"][:7], []).append(celsius)
    assert sum(map(len, hours.values())) == 8_759
    assert sorted(hours) == [f"2010-{number:02}" for number in range(1, 13)]
    assert [(month["hours"], month["mean"]) for month in months] == [
        (len(hours[key]), round(fmean(hours[key]), 1)) for key in sorted(hours)
    ]


def test_etl_finds_the_missing_hour_and_says_so():
    _, _, said = _run("etl", "-p", "hiccups=0")
    (warning,) = [line for line in said.splitlines() if "WARNING" in line]
    assert "Task run 'transform 2010-03' - 1 hour(s) are missing" in warning
    assert "January     5.4" in said


@pytest.mark.parametrize(("hiccups", "exit_code", "attempts"), [(0, 0, 1), (1, 0, 2), (3, 1, 3)])
def test_etl_retries_its_hiccups_and_leaves_all_or_nothing(folder, hiccups, exit_code, attempts):
    ended, document, said = _run("etl", "-p", "output=out.json", "-p", f"hiccups={hiccups}")
    assert ended == exit_code
    assert said.count("ConnectionError: a hiccup, as was asked for\n") >= attempts - 1
    load = json.loads(_start("task-run", "inspect", "load-0", "--json").stdout)
    assert load["run_count"] == attempts
    assert (folder / "out.json").exists() is (exit_code == 0)
    assert [path.name for path in folder.iterdir()] == ["out.json"] * (exit_code == 0)
    assert document["state"]["name"] == ("Failed" if exit_code else "Completed")


def test_etl_refuses_a_file_that_is_not_there():
    exit_code, document, said = _run("etl", "-p", "path=nowhere.csv")
    assert exit_code == 1
    assert "FileNotFoundError" in document["state"]["message"]
    assert said.count("Traceback") == 1


def test_probe_sees_an_answer_a_late_answer_and_none():
    exit_code, document, said = _run("probe")
    assert exit_code == 0
    answers = document["result"]
    assert list(answers.values()) == ["hello", "hello", "TimedOut"]
    assert all(address.startswith("127.0.0.1:") for address in answers)
    assert document["task_run_counts"] == {"Completed": 2, "TimedOut": 1}
    assert said.count("Task run exceeded timeout of 1.0 seconds\n") == 2  # it is retried once
