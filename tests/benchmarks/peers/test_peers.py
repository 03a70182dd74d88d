"""What can be checked of the comparison where no peer is installed."""

import ast
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

PEERS = Path(__file__).parent
SOURCES = PEERS.parents[2]
DEADLINE_SECONDS = 60


def _work(home, *arguments):
    """Have our own program do some work, and return what it tells."""
    done = subprocess.run(
        [sys.executable, str(PEERS / "prefectlite_work.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCES), "PREFECTLITE_HOME": str(home)},
        timeout=DEADLINE_SECONDS,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = {}
    for line in done.stdout.splitlines():
        told |= json.loads(line)
    return told


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (["costs", "2", "2", "2"], {"task", "flow", "mapped"}),
        pytest.param(["first"], {"peak", "server"}, marks=pytest.mark.long),
        pytest.param(["seed", "2"], set(), marks=pytest.mark.long),
        pytest.param(["resume", "0", ""], {"resume"}, marks=pytest.mark.long),
        pytest.param(["cancel", "0"], {"cancel"}, marks=pytest.mark.long),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_work_of_our_program_tells_its_rows(home, arguments, rows):
    told = _work(home, *arguments)
    assert set(told) == rows
    assert all(value > 0 for row, value in told.items() if row != "server")


def test_a_venv_that_has_no_peer_is_said_so(bench, tmp_path):
    venv.create(tmp_path / "empty")
    done = bench("tests.benchmarks.peers", "--venv", tmp_path / "empty")
    assert done.returncode == 1
    assert f"{tmp_path / 'empty'}: no peer" in done.stderr
    for name in ("prefect", "dbos", "luigi"):
        assert f"NOT THERE: {name} " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "is not a venv"),
        ("#!/bin/sh\necho no stdlib >&2; exit 3", "does not run: no stdlib"),
        pytest.param("#!/no/such/python", "does not run: ", marks=pytest.mark.long),
        pytest.param("#!/bin/sh\necho hello", "does not run: ", marks=pytest.mark.long),
    ],
    ids=["no venv", "fails", "interpreter gone", "no Python"],
)
def test_a_broken_venv_is_a_usage_error(bench, tmp_path, script, said):
    python = tmp_path / "bin" / "python"
    if script is not None:
        python.parent.mkdir()
        python.write_text(script)
        python.chmod(0o755)
    done = bench("tests.benchmarks.peers", "--venv", tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def _function(name, file):
    (function,) = (
        one
        for one in ast.parse((PEERS / file).read_text(encoding="utf-8")).body
        if isinstance(one, ast.FunctionDef) and one.name == name
    )
    return ast.unparse(function)


@pytest.mark.parametrize("name", ["nothing", "empty", "hello", "calls", "maps", "costs", "first"])
def test_prefect_does_the_very_same_as_we_do_where_it_can(name):
    assert _function(name, "prefect_work.py") == _function(name, "prefectlite_work.py")


#: Two contenders, three rounds, and one that is three times as slow; the sheet of it.
SHEET = """
from pathlib import Path
from tests.benchmarks.peers.contenders import Contender
from tests.benchmarks.peers.measures import Extent, Results
from tests.benchmarks.peers.sheets import Sheet, document, markdown, table

def contender(name, **options):
    return Contender(name, f"The {name}", Path("python"), "", Path(), {}, "", **options)

results = Results()
results.values["task", "prefectlite"] = [0.001, 0.002, 0.009]
results.values["task", "slow"] = [0.003, 0.006, 0.027]
results.values["server", "prefectlite"] = [0.0]
results.values["server", "slow"] = [250e6]
results.failures["mapped", "slow"] = "exit code 1: it broke"
both = [contender("prefectlite"), contender("slow", missing={"cancel": "It cannot be cancelled."})]
sheet = Sheet(both, results, Extent(rounds=3), is_offline=False, command="the command")
"""


def _printed(start_python, code):
    return start_python(code, cwd=SOURCES).end()


def test_the_table_has_medians_and_ratios_and_says_what_is_missing(start_python):
    text = _printed(start_python, f"{SHEET}\nprint(table(sheet))")
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines() if line}
    assert rows["one sequential task"][-4:] == ["ms", "2", "6", "(3x)"]
    assert rows["memory of the server that it needs"][-3:] == ["MB", "0", "250"]
    assert rows["one of 1,000 mapped tasks"][-2:] == ["-", "failed"]
    assert rows["one empty flow"][-2:] == ["-", "-"]
    assert "FAILED: mapped of slow: exit code 1: it broke" in text
    assert "The slow: It cannot be cancelled." in text
    assert "The network was not cut off" in text


def test_markdown_has_the_same_columns_in_every_row_and_the_command(start_python):
    text = _printed(start_python, f"{SHEET}\nprint(markdown(sheet))")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}
    assert "| one sequential task | ms | 2 | 6 (3x) |" in rows
    assert "```sh\nthe command\n```" in text


def test_json_has_every_value(start_python):
    told = json.loads(
        _printed(start_python, f"{SHEET}\nimport json; print(json.dumps(document(sheet)))")
    )
    (task,) = (row for row in told["rows"] if row["name"] == "task")
    assert task["cells"]["slow"]["values"] == [0.003, 0.006, 0.027]
    assert task["cells"]["slow"]["ratio"] == pytest.approx(3)
    assert told["contenders"][1]["missing"] == {"cancel": "It cannot be cancelled."}


#: Ours and one that cannot be imported, in the turns of one measure; it tells who was measured.
TURNS = """
import json, sys
from dataclasses import replace
from pathlib import Path
from tests.benchmarks.peers.contenders import ours
from tests.benchmarks.peers.measures import MEASURES, Extent, take_turns

us = ours(Path(sys.argv[1]))
broken = replace(us, name="broken", import_code="import no_such_peer")
without = replace(us, name="without", import_code="import no_such_peer", missing={"import": "no"})
results = take_turns([us, broken, without], [MEASURES["import"]], Extent(rounds=2))
print(json.dumps({
    "values": {name: len(values) for (_, name), values in results.values.items()},
    "failures": {name: said for (_, name), said in results.failures.items()},
}))
"""


def test_a_contender_that_fails_has_no_figures_and_the_others_theirs(start_python, tmp_path):
    told = json.loads(start_python(TURNS, tmp_path, cwd=SOURCES).end())
    assert told["values"] == {"prefectlite": 2}
    assert list(told["failures"]) == ["broken"]
    assert "exit code 1: " in told["failures"]["broken"]
    assert "no_such_peer" in told["failures"]["broken"]


OFFLINE = """
import errno, socket
from tests.benchmarks.peers.offline import go_offline

if not go_offline():
    print("impossible")
else:
    for address in ("192.0.2.1", "127.0.0.1"):  # the first is of documentation: RFC 5737
        with socket.socket() as tried:
            tried.settimeout(5)
            print(errno.errorcode[tried.connect_ex((address, 9))])
"""


def test_nothing_but_this_machine_can_be_reached_in_a_comparison(start_python):
    answers = _printed(start_python, OFFLINE).split()
    if answers == ["impossible"]:
        pytest.skip("NOT TESTED: network namespaces are not for this user")
    # Nobody listens here; but the machine itself answers.
    assert answers == ["ENETUNREACH", "ECONNREFUSED"]


def test_a_server_that_does_not_start_is_told_with_its_words(start_python, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho the port is taken; exit 1")
    python.chmod(0o755)
    code = f"""
from pathlib import Path
from tests.benchmarks.peers.prefect_server import ServerError, running

folder = Path({str(tmp_path)!r})
try:
    with running(folder / "python", {{}}, folder):
        print("it is there")
except ServerError as error:
    print(error)
"""
    assert _printed(start_python, code).splitlines()[1:] == ["the port is taken"]
