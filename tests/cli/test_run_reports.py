"""prefectlite run --junit: what the file says of every way in which a run ends, and where it goes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from prefectlite.junit import write_junit
from prefectlite.registry import open_registry
from prefectlite.run_reports import read_reports
from prefectlite.settings import PREFECTLITE_REGISTRY

SOURCES = str(Path(__file__).parents[2])
DEADLINE_SECONDS = 60
# As the schemas of Jenkins and Ant have it: what an element may have, and its children in order.
_SHAPE = {
    "testsuites": ({"name", "tests", "failures", "errors", "time"}, ["testsuite*"]),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id"},
        ["properties", "testcase*", "system-out?"],
    ),
    "properties": (set(), ["property*"]),
    "property": ({"name", "value"}, []),
    "testcase": ({"name", "classname", "time"}, ["failure?", "error?", "skipped?", "system-out?"]),
    "failure": ({"message", "type"}, []),
    "error": ({"message", "type"}, []),
    "skipped": ({"message"}, []),
    "system-out": (set(), []),
}

_FLOWS = r"""
import os, shutil, signal, sys, time
from prefectlite import flow, task, get_run_logger
from prefectlite.states import Cancelled, Crashed, Failed
from prefectlite.task_runners import ProcessPoolTaskRunner

EVIL = "]]> <b a='\"'>&amp; \x00\x1b[31m\uffff\u2028\r\n\t end"

@task
def extract(day): return day

@task
def load(day):
    get_run_logger().info("loading %s", day)
    inner(day)

def inner(day):
    raise ValueError(f"no {day}")

@task
def publish(what): ...

@flow
def region(day: str):
    load.submit(day)

@flow
def etl(day: str = "today", n: int = 2):
    get_run_logger().info("begin")
    rows = extract(day)
    publish.submit(load.submit(rows))
    region("north", return_state=True)

@flow
def good():
    extract("today")

@flow
def bare(): ...

@flow
def plain():
    extract("today")
    raise RuntimeError("own")

@flow
def also_own():
    load("today", return_state=True)
    raise RuntimeError("own")

@flow
def passed_through():
    load("today")

@flow
def returns(what: str):
    extract("today")
    return {"cancelled": Cancelled("why"), "crashed": Crashed("hit"), "failed": Failed("ill")}[what]

@flow(timeout_seconds=0.05)
def hasty():
    time.sleep(0.2)

@flow
def exits():
    sys.exit(3)

@flow
def evil(text: str = ""):
    get_run_logger().warning(EVIL)
    extract.with_options(task_run_name=EVIL)("today")
    raise ValueError(EVIL)

count = []

@task(retries=1)
def second_time():
    count.append(1)
    if len(count) == 1:
        raise ValueError("at first")

@task(retries=1)
def in_vain():
    count.append(1)
    raise ValueError(f"attempt {len(count)}")

@flow
def retried():
    second_time()

@flow(retries=1)
def retried_flow():
    count.append(1)
    if len(count) == 1:
        raise ValueError("at first")
    load.submit("today")

@flow
def retried_in_vain():
    in_vain()

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def pooled():
    load.submit("today")

@flow
def removes(folder: str, fail: bool = False):
    shutil.rmtree(folder)
    if fail: raise ValueError("as asked")

@task
def hangs():
    print("ready", flush=True)
    time.sleep(60)

@flow
def interrupted():
    hangs()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current folder with flows; what a test imports is forgotten when it ends."""
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "ci_flows.py").write_text(_FLOWS)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    sys.modules.pop("ci_flows", None)


@pytest.fixture
def report(run):
    """Run a flow with --junit; return how it ended and the root of the file, whose shape is checked."""

    def run_flow(line, *more):
        ended = run(f"run ci_flows:{line} --junit out.xml", *more)
        return ended, _read("out.xml")

    return run_flow


def _read(path):
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    _check_shape(root)
    for counted in (root, *root):
        cases = [*counted.iter("testcase")]
        assert int(counted.get("tests")) == len(cases)
        for attribute, tag in (
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
        ):
            assert counted.get(attribute) in (None, str(len([*counted.iter(tag)])))
    return root


def _check_shape(element):
    attributes, children = _SHAPE[element.tag]
    assert set(element.keys()) == attributes, element.tag
    left = [child.tag for child in element]
    for kind in children:
        name = kind.rstrip("*?")
        found = left.count(name)
        assert left[:found] == [name] * found
        assert found == 1 or kind[-1] in "*?", name
        assert found < 2 or kind[-1] == "*", name
        left = left[found:]
    assert left == []
    for child in element:
        _check_shape(child)


def _cases(root):
    """Return the outcome of each test case by suite and name."""
    return {
        (suite.get("name"), case.get("name")): next(
            (child.tag for child in case if child.tag != "system-out"), "passed"
        )
        for suite in root
        for case in suite.iter("testcase")
    }


def _failure(root):
    (found,) = [*root.iter("failure"), *root.iter("error")]
    return found


def _recorded():
    (flow_run,) = open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs()
    return flow_run


def test_every_task_run_is_a_test_case_and_every_flow_run_a_suite(report):
    ended, root = report("etl --name nightly --tag ci")
    assert ended.exit_code == 1
    assert _cases(root) == {
        ("etl", "extract-0"): "passed",
        ("etl", "load-0"): "failure",
        ("etl", "publish-0"): "skipped",
        ("region", "load-0"): "failure",
    }
    suite, subflow = root
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert json.loads(properties.pop("parameters")) == {"day": "today", "n": 2}
    assert properties.pop("id") == properties_of(subflow)["parent_flow_run_id"]
    assert properties == {
        "name": "nightly",
        "state": "Failed",
        "state_message": "2/4 states failed.",
        "tags": "ci",
    }
    assert suite.find("system-out").text.count("begin\n") == 1
    assert {case.get("classname") for case in suite.iter("testcase")} == {"etl"}
    assert float(suite.get("time")) >= float(subflow.get("time")) > 0


def properties_of(suite):
    return {one.get("name"): one.get("value") for one in suite.iter("property")}


@pytest.mark.parametrize("flow", ["passed_through", "pooled"])
def test_a_failure_has_its_message_traceback_and_log(report, flow):
    _, root = report(flow)
    failure = _failure(root)
    assert failure.get("message") == "Task run encountered an exception. ValueError: no today"
    assert failure.get("type") == "Failed"
    assert "Traceback (most recent call last):\n" in failure.text
    lines = failure.text.splitlines()
    assert any("in inner" in line for line in lines)
    assert not any("prefectlite" in line for line in lines)
    (case,) = root.iter("testcase")
    told = [line[15:] for line in case.find("system-out").text.splitlines() if " | " in line]
    assert told[0] == "INFO    | loading today"
    assert told[1] == "ERROR   | Encountered exception during execution:"
    assert told[-1].startswith("ERROR   | Finished in state Failed(")


@pytest.mark.parametrize(
    ("line", "exit_code", "tag", "kind", "message"),
    [
        ("plain", 1, "failure", "Failed", "Flow run encountered an exception. RuntimeError: own"),
        ("returns -p what=failed", 1, "failure", "Failed", "ill"),
        ("returns -p what=crashed", 1, "error", "Crashed", "hit"),
        ("returns -p what=cancelled", 143, "error", "Cancelled", "why"),
        ("hasty", 124, "failure", "TimedOut", "Flow run exceeded timeout of 0.05 seconds"),
        ("exits", 1, "error", "Crashed", "Execution was aborted by sys.exit(3)."),
        ("etl -p n=x", 2, "failure", "Failed", None),
    ],
)
def test_a_flow_that_fails_without_a_failed_task_is_a_case_itself(
    report, line, exit_code, tag, kind, message
):
    ended, root = report(line)
    assert ended.exit_code == exit_code
    failure = _failure(root)
    assert (failure.tag, failure.get("type")) == (tag, kind)
    assert message is None or failure.get("message") == message
    name = line.split()[0]
    assert _cases(root)[name, name] == tag


def test_a_flow_that_fails_by_its_tasks_is_no_case_and_one_that_fails_besides_is(report):
    _, root = report("passed_through")
    assert _cases(root) == {("passed-through", "load-0"): "failure"}
    _, root = report("also_own")
    assert _cases(root) == {("also-own", "load-0"): "failure", ("also-own", "also-own"): "failure"}
    assert [*root.iter("failure")][1].text.endswith("RuntimeError: own")


def test_what_completes_passes_and_a_flow_without_tasks_stands_for_itself(report):
    ended, root = report("good")
    assert (ended.exit_code, _cases(root)) == (0, {("good", "extract-0"): "passed"})
    assert _cases(report("bare")[1]) == {("bare", "bare"): "passed"}


def test_an_attempt_that_was_followed_by_a_better_one_is_no_failure(report):
    _, root = report("retried")
    assert _cases(root) == {("retried", "second_time-0"): "passed"}


def test_the_traceback_is_that_of_the_last_attempt(report):
    _, root = report("retried_in_vain")
    assert _failure(root).text.endswith("ValueError: attempt 2")


def test_the_traceback_of_an_earlier_attempt_makes_no_failure_of_the_flow(report):
    _, root = report("retried_flow")
    assert _cases(root) == {("retried-flow", "load-0"): "failure"}


def test_whatever_a_message_holds_the_file_can_be_read(report):
    ended, root = report("evil", "-p", "text=\x1b\x01 ]]>")
    assert ended.exit_code == 1
    shown = "]]> <b a='\"'>&amp; \\x00\\x1b[31m\\uffff\u2028\r\n\t end"
    failure = _failure(root)
    assert failure.get("message") == f"Flow run encountered an exception. ValueError: {shown}"
    assert f"ValueError: {shown}" in failure.text
    case = next(root.iter("testcase"))
    assert case.get("name") == shown
    assert failure.text in {one.text for one in root.iter("failure")}
    assert f"WARNING | {shown}\n" in "".join(one.text for one in root.iter("system-out"))
    assert json.loads(properties_of(root[0])["parameters"]) == {"text": "\x1b\x01 ]]>"}


def test_half_a_character_is_escaped_too(seeds, folder):
    (report,) = read_reports(seeds.registry, seeds.flow_run().id)
    flow_run = replace(report.flow_run, flow_name="a\ud800b")
    write_junit(folder / "out.xml", [replace(report, flow_run=flow_run)])
    assert _read("out.xml").get("name") == "a\\ud800b"


def test_an_earlier_file_is_replaced_and_never_written_into(report, folder):
    (folder / "out.xml").write_text("earlier")
    os.link("out.xml", "kept")
    (folder / "link.xml").symlink_to("out.xml")
    ended, _ = report("good --junit link.xml --junit out.xml")
    assert ended.exit_code == 0
    assert (folder / "kept").read_text() == "earlier"
    assert not [path.name for path in folder.iterdir() if path.name.endswith(".part")]


def test_a_symbolic_link_is_followed_and_stays(run, folder):
    (folder / "link.xml").symlink_to("real.xml")
    assert run("run ci_flows:good --junit link.xml").exit_code == 0
    assert (folder / "link.xml").is_symlink()
    assert _read(folder / "real.xml").get("name") == "good"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nowhere/out.xml", "there is no folder"),
        (".", "it is a folder"),
        ("", "it is a folder"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
        ("ci_flows.py/out.xml", "there is no folder"),
    ],
)
def test_a_file_that_cannot_be_is_an_error_before_the_run_begins(run, path, why):
    ended = run("run ci_flows:good --junit", path)
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert ended.stderr.startswith("error: cannot write '")
    assert why in ended.stderr
    assert open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs() == []


@pytest.mark.parametrize(("fail", "exit_code"), [("false", 5), ("true", 1)])
def test_a_file_that_cannot_be_any_more_exits_5_unless_the_run_has_a_code(
    run, folder, fail, exit_code
):
    (folder / "reports").mkdir()
    ended = run(f"run ci_flows:removes -p folder=reports -p fail={fail} --junit reports/out.xml")
    assert ended.exit_code == exit_code
    assert "error: cannot write '" in ended.stderr
    assert _recorded().state.is_completed() == (fail == "false")


def test_what_is_no_plain_file_stays_what_it_is(run, folder):
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert run("run ci_flows:good --junit pipe").exit_code == 0
    text = os.read(reader, 65536).decode()
    os.close(reader)
    assert (folder / "pipe").is_fifo()
    assert text.endswith("</testsuites>\n")


def test_what_stdout_holds_already_stays(start, folder):
    (folder / "log").write_text("earlier\n")
    with (folder / "log").open("a") as log:
        ended = start("run", "ci_flows.py:bare", "--junit", "/dev/stdout", stdout=log)
    assert ended.returncode == 0
    assert (folder / "log").read_text().startswith('earlier\n<?xml version="1.0"')


@pytest.mark.parametrize(
    ("number", "exit_code", "why"),
    [(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_a_run_that_is_interrupted_has_a_file(number, exit_code, why):
    command = ["run", "ci_flows.py:interrupted", "--junit", "out.xml"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "prefectlite", *command],
        env={**os.environ, "PYTHONPATH": SOURCES},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == exit_code, stderr
    root = _read("out.xml")
    assert _cases(root) == {("interrupted", "hangs-0"): "error"}
    assert f"({why})" in _failure(root).get("message")
    assert properties_of(root[0])["state"] == "Crashed"


def test_of_many_lines_the_last_are_kept(seeds):
    flow_run = seeds.flow_run(end=False)
    task_run = seeds.task_run(flow_run)
    for number in range(1_200):
        seeds.log(flow_run, f"line {number}", task_run=task_run)
    seeds.end(flow_run)
    ((report,),) = [read_reports(seeds.registry, flow_run.id)]
    messages = [line.message for line in report.task_runs[0].lines]
    assert (len(messages), messages[0], messages[-1]) == (1_000, "line 200", "line 1199")


def test_detach_takes_no_report(run):
    for option in ("--junit out.xml", "--events out.jsonl"):
        ended = run(f"run ci_flows:good --detach {option}")
        assert ended.exit_code == 2
        assert ended.stderr.splitlines()[0].startswith(f"error: {option.split()[0]} needs the end")
        assert "\nhint: " in ended.stderr


def test_a_plain_run_imports_nothing_of_a_report():
    program = """
        import sys
        from prefectlite.__main__ import main
        code = main()
        print(*sys.modules, file=sys.stderr)
        sys.exit(code)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), "run", "ci_flows.py:bare"],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    modules = {*ended.stderr.split()}
    assert "prefectlite.cli.run" in modules
    reports = {f"prefectlite.{name}" for name in ("junit", "github", "run_events", "run_reports")}
    assert modules.isdisjoint(reports)
