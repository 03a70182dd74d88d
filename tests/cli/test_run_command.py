"""prefectlite run: what it runs, with which parameters, what it prints and how it exits."""

import io
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

SOURCES = str(Path(__file__).parents[2])
DEADLINE_SECONDS = 60
_DOCUMENT_KEYS = {
    "id", "name", "flow_name", "state", "parameters", "tags", "version", "entrypoint",
    "infrastructure_pid", "deployment_id", "work_queue", "agent_name", "infrastructure",
    "scheduled_at", "kill_at",
    "parent_flow_run_id", "parent_task_run_id", "run_count", "created_at", "started_at",
    "ended_at", "duration_seconds", "task_run_counts", "result",
}  # fmt: skip

_FLOWS = """
import asyncio, os, subprocess, sys, time
from prefectlite import flow, task, get_run_logger
from prefectlite.states import Cancelled, Crashed, Failed

@task
def double(x):
    return 2 * x

@flow
def add(a: int = 1, b: int = 2):
    return double(a) + b

@flow
def takes(text: str = "", anything=None, number: float = 0.0):
    return [text, anything, number]

@flow
def needs(a: int, b: str): ...

@flow(timeout_seconds=0.05)
def hasty():
    time.sleep(0.2)

@flow
def hangs():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)

@flow
async def hangs_async():
    try:
        print("ready", flush=True)
        await asyncio.sleep(60)
    finally:
        print("cleaned up", flush=True)

def innermost():
    raise ValueError("two\\nlines")

@flow
def fails():
    innermost()

@flow
def one_of_two_fails():
    double.submit(1)
    double.submit(None)

@flow
def exits(code=None):
    sys.exit(code)

class Odd(BaseException): ...

@flow
def aborts():
    raise Odd("enough")

@flow
def returns(what: str):
    return {"cancelled": Cancelled(), "crashed": Crashed("hit"), "failed": Failed("ill")}[what]

@flow
def prints():
    print("printed")
    os.write(1, b"written\\n")
    subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    return 5

@flow
def sync_flow(fail: bool = False):
    if fail: raise ValueError("as asked")
    return "done"

@flow
async def async_flow(fail: bool = False):
    await asyncio.sleep(0)
    if fail: raise ValueError("as asked")
    return "done"

@flow
def generator_flow(fail: bool = False):
    print("item")
    yield 1
    if fail: raise ValueError("as asked")

@flow
async def async_generator_flow(fail: bool = False):
    print("item")
    yield 1
    if fail: raise ValueError("as asked")
"""
_ONE = """
from my_flows import add
from prefectlite import flow

@flow(name="the only one", log_prints=True)
def only():
    print("hello")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current folder with flows; what a test imports is forgotten when it ends."""
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "my_flows.py").write_text(_FLOWS)
    (folder / "one.py").write_text(_ONE)
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name not in before and file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def _recorded():
    (flow_run,) = open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs()
    return flow_run


def _result(ended):
    assert ended.exit_code == 0, ended.stderr
    return json.loads(ended.stdout)["result"]


# What is run.


@pytest.mark.parametrize(
    ("entrypoint", "flow_name"),
    [
        ("my_flows:add", "add"),
        ("my_flows.py:add", "add"),
        ("./my_flows.py:add", "add"),
        ("one", "the only one"),
        ("one.py", "the only one"),
        ("one.py:add", "add"),
    ],
)
def test_a_flow_is_named_by_module_or_file(run, entrypoint, flow_name):
    assert run("run", entrypoint).exit_code == 0
    flow_run = _recorded()
    assert (flow_run.flow_name, flow_run.entrypoint) == (flow_name, entrypoint)
    assert flow_run.state.is_completed()


@pytest.mark.parametrize("name", ["sync", "async", "generator", "async_generator"])
def test_a_flow_of_every_kind_runs_to_its_end_and_fails_with_code_1(run, name):
    assert run("run", f"my_flows:{name}_flow").exit_code == 0
    ended = run("run", f"my_flows:{name}_flow", "-p", "fail=true")
    assert ended.exit_code == 1
    assert "ValueError: as asked" in ended.stderr


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("anything=5", ["", 5, 0.0]),
        ("anything=[1, null]", ["", [1, None], 0.0]),
        ('anything="5"', ["", "5", 0.0]),
        ("anything=plain text", ["", "plain text", 0.0]),
        ("anything=", ["", "", 0.0]),
        ("anything=a=b", ["", "a=b", 0.0]),
        ("text=5", ["5", None, 0.0]),
        ("text=null", ["null", None, 0.0]),
        ("number=5", ["", None, 5.0]),
        ("number=1e3", ["", None, 1000.0]),
    ],
)
def test_a_parameter_is_json_or_else_text_and_text_where_it_is_annotated_so(run, option, expected):
    assert _result(run("run my_flows:takes --json -p", option)) == expected


@pytest.mark.parametrize("where", ["argument", "file", "stdin"])
def test_all_parameters_come_as_one_document(run, folder, monkeypatch, where):
    text = '{"text": "käse", "anything": {"deep": [1]}}'
    (folder / "my parameters.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    given = {"argument": text, "file": "@my parameters.json", "stdin": "-"}[where]
    expected = ["käse", {"deep": [1]}, 0.0]
    assert _result(run("run my_flows:takes --json --params", given)) == expected


def test_a_single_parameter_wins_over_the_document(run):
    ended = run("run my_flows:add --json -p b=40", "--params", '{"a": 1, "b": 2}')
    assert _result(ended) == 42


def test_of_one_parameter_given_twice_the_last_counts(run):
    assert _result(run("run my_flows:add --json -p a=1 -p a=4")) == 10


def test_a_run_gets_its_name_and_tags(run):
    assert run("run my_flows:add --name my-run --tag b --tag a --tag b --tag", "").exit_code == 0
    assert (_recorded().name, _recorded().tags) == ("my-run", ("a", "b"))


def test_a_run_is_on_record_for_every_other_process(start):
    assert start("run", "one.py", "--name", "nightly").returncode == 0
    listed = start("flow-run", "ls").stdout.decode()
    assert "the only one  nightly  Completed" in listed
    inspected = json.loads(start("flow-run", "inspect", "nightly", "--json").stdout)
    assert inspected["state"]["name"] == "Completed"
    logs = start("flow-run", "logs", "nightly").stdout.decode().splitlines()
    assert [line.partition(" - ")[2] for line in logs] == [
        "Created flow run 'nightly' for flow 'the only one'",
        "hello",
        "Finished in state Completed()",
    ]


# What it prints.


def test_stdout_is_the_flows_own(start):
    ended = start("run", "my_flows.py:prints", env={"PYTHONUNBUFFERED": "1"})
    assert ended.returncode == 0
    assert ended.stdout == b"printed\nwritten\nby a child\n"
    assert b"Created flow run" in ended.stderr


def test_with_json_stdout_is_the_document_alone(start):
    ended = start("run", "my_flows.py:prints", "--json")
    document = json.loads(ended.stdout)
    assert document["result"] == 5
    for line in (b"printed\n", b"written\n", b"by a child\n"):
        assert line in ended.stderr
    assert ended.stderr.index(b"printed") < ended.stderr.index(b"Finished in state")


def test_the_document_says_all_about_the_run(run):
    document = json.loads(run("run my_flows:add --json --name x --tag t").stdout)
    assert document.keys() == _DOCUMENT_KEYS
    assert document["state"].keys() == {"type", "name", "message", "timestamp"}
    assert (document["name"], document["tags"]) == ("x", ["t"])
    assert document["parameters"] == {"a": 1, "b": 2}
    assert document["task_run_counts"] == {"Completed": 1}
    assert document["result"] == 4
    inspected = json.loads(run("flow-run inspect x --json").stdout)
    assert {key: inspected[key] for key in inspected.keys() & _DOCUMENT_KEYS} == {
        key: document[key] for key in inspected.keys() & _DOCUMENT_KEYS
    }


def test_a_run_that_failed_has_a_document_too(run):
    ended = run("run my_flows:one_of_two_fails --json")
    assert ended.exit_code == 1
    document = json.loads(ended.stdout)
    assert document["state"]["message"] == "1/2 states failed."
    assert document["task_run_counts"] == {"Completed": 1, "Failed": 1}
    assert document["result"] is None


def test_the_flows_own_exception_is_shown_once_from_its_own_frames_on(run, folder):
    ended = run("run my_flows.py:fails")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.count("Traceback") == 1
    trace = ended.stderr.partition("Traceback (most recent call last):\n")[2].splitlines()
    files = [line.split('"')[1] for line in trace if line.startswith("  File")]
    assert files == [str(folder / "my_flows.py")] * 2
    assert "in fails" in trace[0]
    error, hint = ended.stderr.splitlines()[-2:]
    assert error.startswith("error: flow run ")
    assert error.endswith(r"is Failed: Flow run encountered an exception. ValueError: two\nlines")
    assert hint == f"hint: see: prefectlite flow-run logs {_recorded().id[:8]}"


# How it exits.


@pytest.mark.parametrize(
    ("words", "exit_code", "state", "told"),
    [
        ("add", 0, "Completed", None),
        ("fails", 1, "Failed", "ValueError"),
        ("one_of_two_fails", 1, "Failed", "1/2 states failed."),
        ("returns -p what=failed", 1, "Failed", "is Failed: ill"),
        ("returns -p what=crashed", 1, "Crashed", "is Crashed: hit"),
        ("returns -p what=cancelled", 143, "Cancelled", "is Cancelled\n"),
        ("hasty", 124, "TimedOut", "exceeded timeout of 0.05 seconds"),
        ("hangs --timeout 0.05", 124, "TimedOut", "exceeded timeout of 0.05 seconds"),
        ("hasty --timeout 0", 0, "Completed", None),
        ("hasty --timeout inf", 0, "Completed", None),
        # Those who exit did not complete, whatever they say: their tasks may not have run.
        ("exits", 1, "Crashed", "sys.exit(None)"),
        ("exits -p code=0", 1, "Crashed", "sys.exit(0)"),
        ("exits -p code=3", 1, "Crashed", "sys.exit(3)"),
        ("exits -p code=143", 1, "Crashed", "sys.exit(143)"),
        ("exits -p code=words", 1, "Crashed", "sys.exit('words')"),
        ("aborts", 1, "Crashed", "Odd: enough"),
    ],
)
def test_the_exit_code_says_how_the_run_ended(run, words, exit_code, state, told):
    ended = run(f"run my_flows:{words}")
    assert ended.exit_code == exit_code
    assert _recorded().state.name == state
    said = ended.stderr.rpartition("error: ")[2]
    assert told in said if told else "error: " not in ended.stderr


@pytest.mark.parametrize("flow", ["hangs", "hangs_async"])
@pytest.mark.parametrize(
    ("number", "exit_code", "why"),
    [(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_a_signal_ends_the_flow_cleanly_with_its_own_code(run, flow, number, exit_code, why):
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "prefectlite", "run", f"my_flows.py:{flow}"],
        env={**os.environ, "PYTHONPATH": SOURCES},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        readable, _, _ = select.select([process.stdout], [], [], DEADLINE_SECONDS)
        assert readable
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == exit_code
    assert stdout == "cleaned up\n"
    assert "Traceback" not in stderr
    assert _recorded().state.name == "Crashed"
    assert f"({why})" in _recorded().state.message
    assert f"({why})" in stderr.splitlines()[-2]


def test_a_signal_does_not_take_the_document_away(run, folder):
    source = """
        import os, signal, time
        from prefectlite import flow
        @flow
        def hit():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
    """
    (folder / "hit.py").write_text(textwrap.dedent(source))
    ended = run("run hit.py --json")
    assert ended.exit_code == 143
    assert json.loads(ended.stdout)["state"]["name"] == "Crashed"


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("nowhere", "there is no module 'nowhere'", "it is not installed, nor in"),
        ("zzz.py", "there is no file 'zzz.py'", "it was looked for in"),
        ("my_flow.py:add", "there is no file 'my_flow.py'", "did you mean my_flows.py?"),
        ("my_flows.py:ad", "there is no 'ad' in my_flows.py", "did you mean my_flows.py:add?"),
        ("my_flows.py", "there are 16 flows in my_flows.py: add, takes", "such as my_flows.py:add"),
        ("my_flows:add -p c=1", "add(): there is no parameter 'c'", "its parameters are a (opt"),
        ("my_flows:add -p a", "-p 'a' is not KEY=VALUE", "such as: -p name=you"),
        ("my_flows:add -p =1", "-p '=1' is not KEY=VALUE", "such as: -p name=you"),
        ("my_flows:add -p a=x", "add(): a: expected int, got 'x'", "its parameters are a (opti"),
        ("my_flows:needs -p a=1", "needs(): missing a required argument: 'b'", "are a, b"),
        ("my_flows:add --params [1]", "the values in --params are no JSON", "such as: --par"),
        ("my_flows:add --params {", "the values in --params cannot be read", "they are a JSON"),
        ("my_flows:add --params @no", "the values in no cannot be read", "they are a JSON ob"),
        ("my_flows:add --params @.", "the values in . cannot be read", "they are a JSON obje"),
        ("my_flows:add --params @deep", "the values in deep cannot be read", "they are a JSON"),
        ("my_flows:add --params @latin", "the values in latin cannot be read", "they are a J"),
        ('my_flows:add --params {"c":1}', "unexpected keyword argument 'c'", "its parameters are"),
        ('my_flows:takes --params {"text":5}', "text: expected str, got 5", "its parameters are"),
    ],
)
def test_wrong_usage_is_one_line_a_hint_and_code_2(run, folder, words, error, hint):
    (folder / "deep").write_text('{"a": ' + "[" * 100_000)
    (folder / "latin").write_bytes(b'{"a": "\xe4"}')
    ended = run(f"run {words}")
    assert (ended.exit_code, ended.stdout) == (2, "")
    said = ended.stderr.splitlines()[-2:]
    assert said[0].startswith("error: ")
    assert error in said[0]
    assert said[1].startswith("hint: ")
    assert hint in said[1]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("options", ["", "--timeout -1", "--timeout soon", "--nonsense", "more"])
def test_wrong_options_are_code_2_before_anything_is_imported(run, folder, options):
    (folder / "loud.py").write_text("raise SystemError('imported')")
    ended = run(f"run {'loud.py ' if options else ''}{options}")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "imported" not in ended.stderr


def test_a_refused_value_is_a_failed_run_and_an_unknown_parameter_is_none(run):
    run("run my_flows:add -p c=1")
    assert open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs() == []
    run("run my_flows:add -p a=x")
    assert _recorded().state.name == "Failed"
    assert _recorded().run_count == 0
    assert _recorded().parameters == {"a": "x", "b": 2}
