"""What must not grow, counted: no stopwatch can fail these."""

import json
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]

#: Counts what is executed on the registry's connection. Log lines are left out, because a thread
#: writes them whenever it comes to it, and so are the looks of the watch thread, by the clock.
COUNTING = """
import json, os
os.environ["PREFECTLITE_LOGGING_LEVEL"] = "CRITICAL"
from prefectlite import flow, task, watches
watches.TICK_SECONDS = 600
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks.bare import recording

def counts(work):
    first = len(record.statements)
    work()
    words = [sql.split(None, 1)[0] for sql, _, _ in record.statements[first:]]
    return {word: words.count(word) for word in sorted(set(words))}

@task
def double(number):
    return 2 * number

@flow
def empty():
    pass

def of_flow(work):
    told = {}

    @flow
    def around():
        told.update(counts(work))

    around()
    return told

with recording() as record:
    open_registry(PREFECTLITE_REGISTRY.value())
"""


@pytest.fixture
def counted(start_python):
    """Count what an expression of ``COUNTING`` executes, in a process of its own."""

    def count(expression):
        code = f"{COUNTING}\nprint(json.dumps({expression}))"
        return json.loads(start_python(code, cwd=SOURCES).end())

    return count


def _transactions(number, **statements):
    return {"BEGIN": number, "COMMIT": number, **statements}


def test_an_empty_flow_is_two_durable_transactions_of_one_statement(counted):
    # The pragmas make the commits durable, and those of others fast again; each of the two also looks
    # whether a notification is due.
    assert counted("counts(empty)") == _transactions(2, INSERT=1, UPDATE=1, SELECT=2, PRAGMA=4)


def test_a_called_task_is_two_transactions_of_one_statement(counted):
    executed = counted("of_flow(lambda: [double(number) for number in range(10)])")
    assert executed == _transactions(20, INSERT=10, UPDATE=10)


def test_a_submitted_task_is_three_transactions_of_one_statement(counted):
    executed = counted("of_flow(lambda: [double.submit(n).result() for n in range(10)])")
    assert executed == _transactions(30, INSERT=10, UPDATE=20)


def test_mapped_tasks_are_created_a_hundred_in_a_transaction(counted):
    executed = counted("of_flow(lambda: [each.result() for each in double.map(range(200))])")
    assert executed == _transactions(402, INSERT=2, UPDATE=400, PRAGMA=1)


#: Counts which of our own functions some work goes through, for each of a hundred times.
CALLS = """
import sys, prefectlite
OURS = prefectlite.__file__.removesuffix("__init__.py")

def calls(work):
    work()
    count = 0
    def note(frame, event, _):
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(OURS)
    sys.setprofile(note)
    for _ in range(100):
        work()
    sys.setprofile(None)
    return round(count / 100)
"""


@pytest.mark.parametrize(
    ("expression", "most"),
    [("in_flow(lambda: calls(lambda: double(1)))", 115), ("calls(empty)", 210)],
    ids=["task", "flow"],
)
def test_a_run_goes_through_no_more_of_our_functions_than_it_did(start_python, expression, most):
    # Each costs about half a microsecond: a task of 200 would be a task of twice the time.
    code = f"{COUNTING}{CALLS}\ndef in_flow(work):\n    return flow(work)()\nprint({expression})"
    called = int(start_python(code, cwd=SOURCES).end())
    assert most / 2 < called <= most


def test_a_checkpoint_comes_once_in_300_commits(counted):
    executed = counted("of_flow(lambda: [double(number) for number in range(600)])")
    # 1,200 commits, less or more what was committed before.
    assert executed == _transactions(1200, INSERT=600, UPDATE=600, PRAGMA=4)


HELLO = """
import _thread, sys, threading

threads = []

def noted(start):
    def start_noted(*args, **options):
        threads.append(args)
        return start(*args, **options)
    return start_noted

for name in ("start_new_thread", "start_joinable_thread"):  # the second is Python 3.13's
    if hasattr(_thread, name):
        setattr(_thread, name, noted(getattr(_thread, name)))
        setattr(threading, "_" + name, getattr(_thread, name))

from prefectlite import flow, task, get_run_logger

@task
def greet(name: str) -> str:
    return f"hello, {name}"

@flow
def hello(name: str = "world"):
    print(greet(name))
    get_run_logger().info("said")
"""


def test_a_plain_flow_imports_nothing_heavy(start_python):
    heavy = {
        "asyncio",
        "concurrent.futures",
        "multiprocessing",
        "platformdirs",
        "psutil",
        "pydantic",
        "rich",
        "typer",
    }
    process = start_python(f"{HELLO}\nhello()\nprint(*sys.modules)")
    imported = set(process.end().splitlines()[-1].split())
    assert "prefectlite.task_engine" in imported
    assert not imported & heavy


def test_a_second_run_starts_no_thread(start_python):
    process = start_python(
        f"{HELLO}\nhello()\nfirst = len(threads)\nhello()\nprint(first, len(threads))"
    )
    first, after = map(int, process.end().splitlines()[-1].split())
    # Two for the whole process: one puts log lines on record, one watches for signals.
    assert (first, after) == (2, 2)


def test_a_second_run_opens_one_file(start_python):
    process = start_python(
        f"""{HELLO}
hello()
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(args[0]))
hello()
print(*opened)
"""
    )
    # It says which processes are older than the run.
    assert process.end().splitlines()[-1] == "/proc/loadavg"


def test_a_flow_that_logs_nothing_starts_one_thread_which_watches_for_signals(start_python):
    process = start_python(
        f"{HELLO}\nhello()\nprint(len(threads))", env={"PREFECTLITE_LOGGING_LEVEL": "CRITICAL"}
    )
    assert process.end().splitlines()[-1] == "1"


def test_the_benchmarks_print_a_table_and_write_json(bench, tmp_path):
    file = tmp_path / "rows.json"
    done = bench("tests.benchmarks", "empty-flow", "version", "--quick", "--json", file)
    assert done.returncode == 0
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["BENCHMARK", "UNIT", "OURS", "LIMIT", "RATIO", "TARGET"]
    rows = json.loads(file.read_text())["rows"]
    assert [row["name"] for row in rows] == ["flow, empty", "prefectlite --version"]
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(row["name"])
        assert line.rpartition(" ")[2] in ("ok", "short")
        assert row["ratio"]["median"] > 0
        assert len(row["ours"]["values"]) == len(row["limit"]["values"])
    assert "targets" in rows[0]


def test_a_benchmark_that_does_not_exist_is_a_usage_error(bench):
    done = bench("tests.benchmarks", "no-such")
    assert done.returncode == 2
    assert "no such benchmark: no-such" in done.stderr
