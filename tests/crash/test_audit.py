"""Each rule of the audit finds what is against it: in a real registry and journal that are doctored."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]
pytestmark = pytest.mark.long

#: Makes a site with one real run of a flow with subflows, then copies and doctors it for each case.
CODE = """
import fcntl, json, os, shutil, sqlite3, subprocess, sys
from pathlib import Path
from tests.crash.audit import AT_REST, WHEN_PRUNED, Evidence, findings
from tests.crash.journal import Fact, Journal
from tests.crash.processes import end_all, marked
from tests.crash.records import read
from tests.crash.site import Site

base, copy = Path(sys.argv[1]) / "base", Path(sys.argv[1]) / "copy"
site = Site(base)
for name, flow in (("r0", "nest"), ("r1", "store")):
    done = site.finish(site.start("work.py", flow, name))
    assert done.code == 0, done.error

def look(site):
    evidence = Evidence(site.journal.facts(), read(site.home), site.processes(), site.home, True)
    return findings(evidence, (*AT_REST, *WHEN_PRUNED))

def ids():
    connection = sqlite3.connect(site.home / "registry.db")
    run, process = connection.execute(
        "SELECT id, process FROM flow_run WHERE name = 'r0'").fetchone()
    (task,) = connection.execute("SELECT task_run.id FROM task_run JOIN flow_run"
        " ON flow_run.seq = flow_run_seq WHERE flow_run.name = 'r1'").fetchone()
    connection.close()
    return {"<run>": run, "<task>": task, "<token>": json.loads(process)["token"]}

def filled(value):
    for name, id_ in ids().items():
        value = value.replace(name, id_)
    return value

def doctored(case):
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(base, copy)
    other = Site(copy)
    connection = sqlite3.connect(other.home / "registry.db", isolation_level=None)
    for sql in case.get("sql", ()):
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(filled(sql))
    connection.close()
    for line in case.get("journal", ()):
        other.journal.note(Fact(**json.loads(filled(json.dumps(line)))))
    for file in case.get("files", ()):
        path = other.home / filled(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for file in case.get("without", ()):
        (other.home / filled(file)).unlink()
    gate = os.open(other.home / "registry.lock", os.O_RDWR)
    if "gate" in case:
        fcntl.flock(gate, fcntl.LOCK_EX)
    if "process" in case:
        environment = {name: filled(text) for name, text in case["process"].items()}
        environment["CRASH_BENCH"] = other.mark + ".0."
        child = subprocess.Popen(
            ["cat"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdin.write(b".")
        child.stdin.flush()
        child.stdout.read(1)  # before it runs, its environment cannot be read
    found = look(other)
    if "process" in case:
        child.communicate()
    os.close(gate)
    return found

cases = json.loads(sys.stdin.readline())
print(json.dumps({name: doctored(case) for name, case in cases.items()}))
"""

_RUNNING = "SET state_type = 'RUNNING', state_name = 'Running', state_version = state_version + 1"

#: The rule that a case is against, what it is, and how it is made.
CASES = {
    "right": {},
    "right: what was erased may be gone": {
        "journal": [
            {"fact": "flow_began", "run": "x", "attempt": 1, "text": "fleeting"},
            {"fact": "task_began", "run": "x", "task": "y", "attempt": 1},
            {"fact": "created", "run": "x"},
            {"fact": "seen", "run": "x", "types": ["COMPLETED"], "attempt": 2},
        ]
    },
    "right: a program without a supervisor leaves a child": {
        "process": {"PREFECTLITE_FLOW_RUN_ID": "<run>"}
    },
    "right: a task that can never run waits for nothing": {
        "sql": [
            "CREATE TEMP TABLE copy AS SELECT * FROM task_run WHERE id = '<task>'",
            "UPDATE copy SET seq = 999, id = 'x', state_type = 'PENDING', state_version = 1",
            "UPDATE copy SET state_name = 'NotReady'",
            "INSERT INTO task_run SELECT * FROM copy",
        ]
    },
    "registry_is_whole: a row refers to none": {"sql": ["DELETE FROM flow_run WHERE name = 'r0'"]},
    "registry_is_whole: an index is not that of its table": {
        "sql": [
            (
                "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema"
                " WHERE name = 'task_run_by_flow_run') WHERE name = 'log_by_flow_run'"
            )
        ]
    },
    "acknowledged_tasks_are_on_record: one is gone": {
        "journal": [{"fact": "task_returned", "task": "x"}]
    },
    "acknowledged_tasks_are_on_record: an attempt is not there": {
        "journal": [{"fact": "task_began", "task": "<task>", "attempt": 2}]
    },
    "acknowledged_tasks_are_on_record: it was never Running": {
        "sql": ["DELETE FROM task_run_state"],
        "journal": [{"fact": "task_began", "task": "<task>"}],
    },
    "acknowledged_tasks_are_on_record: it returned, and Failed": {
        "sql": ["UPDATE task_run SET state_type = 'FAILED' WHERE id = '<task>'"]
    },
    "acknowledged_tasks_are_on_record: its line is gone": {
        "sql": ["DELETE FROM log WHERE task_run_id = '<task>'"]
    },
    "acknowledged_tasks_are_on_record: its result is gone": {"without": ["results/<task>"]},
    "acknowledged_runs_are_on_record: one is gone": {"journal": [{"fact": "created", "run": "r9"}]},
    "acknowledged_runs_are_on_record: it ended otherwise": {
        "journal": [{"fact": "ended", "run": "r0", "types": ["CANCELLED", "FAILED"]}]
    },
    "acknowledged_runs_are_on_record: it was never paused": {
        "journal": [{"fact": "had", "run": "r0", "types": ["PAUSED"]}]
    },
    "acknowledged_runs_are_on_record: it was never resumed": {
        "journal": [{"fact": "resumed", "run": "r0"}]
    },
    "acknowledged_runs_are_on_record: it has no process": {
        "sql": ["UPDATE flow_run SET process = NULL WHERE name = 'r0'"]
    },
    "acknowledged_runs_are_on_record: an attempt is not there": {
        "journal": [{"fact": "flow_began", "run": "<run>", "attempt": 2}]
    },
    "acknowledged_runs_are_on_record: it was never Running": {
        "sql": ["DELETE FROM flow_run_state"]
    },
    "acknowledged_runs_are_on_record: it did not go on": {
        "journal": [{"fact": "went_on", "run": "<run>"}]
    },
    "acknowledged_runs_are_on_record: it was deleted": {
        "journal": [{"fact": "deleted", "run": "r0"}]
    },
    "final_states_stay: it had Failed": {
        "journal": [{"fact": "seen", "run": "<run>", "types": ["FAILED"], "attempt": 2}]
    },
    "final_states_stay: it has ended once more": {
        "journal": [{"fact": "seen", "run": "<run>", "types": ["COMPLETED"], "attempt": 1}]
    },
    "final_states_stay: it is gone": {
        "journal": [{"fact": "seen", "run": "x", "types": ["FAILED"], "attempt": 2}]
    },
    "histories_are_legal: it went on after its end": {
        "sql": [f"UPDATE flow_run {_RUNNING} WHERE name = 'r0'"]
    },
    "histories_are_legal: a state is missing": {
        "sql": ["UPDATE flow_run SET state_version = 9, state_type = 'CRASHED'"]
    },
    "histories_are_legal: a task ended before it began": {
        "sql": ["DELETE FROM task_run_state", "DELETE FROM flow_run_state"]
    },
    "nothing_is_started_twice: an attempt of a flow": {
        "journal": [{"fact": "flow_began", "run": "<run>", "attempt": 1, "pid": 1}]
    },
    "nothing_is_started_twice: an attempt of a task": {
        "journal": [{"fact": "task_began", "task": "<task>", "attempt": 1}]
    },
    "nothing_is_started_twice: a flow, in two processes": {
        "journal": [{"fact": "flow_began", "run": "<run>", "attempt": 2, "pid": 1}]
    },
    "nothing_is_started_twice: two runs of a name": {
        "sql": ["UPDATE flow_run SET name = 'r0' WHERE name = 'r1'"]
    },
    "what_goes_on_has_a_process: it is dead": {
        "sql": [f"UPDATE flow_run {_RUNNING} WHERE name = 'r0'"]
    },
    "what_goes_on_has_a_process: there is none": {
        "sql": [f"UPDATE flow_run {_RUNNING}, process = NULL WHERE name = 'r0'"]
    },
    "what_goes_on_has_a_process: its supervisor is dead": {
        "sql": [
            f"UPDATE flow_run {_RUNNING}, supervisor = process, process = NULL WHERE name = 'r0'"
        ]
    },
    "what_goes_on_has_a_process: who had taken it is dead": {
        "sql": [
            "UPDATE flow_run SET launcher = process WHERE name = 'r0'",
            "UPDATE flow_run SET process = NULL, infrastructure_pid = NULL WHERE name = 'r0'",
            "UPDATE flow_run SET state_type = 'SCHEDULED' WHERE name = 'r0'",
        ]
    },
    "what_goes_on_has_a_process: it was launched, and lost": {
        "sql": [
            "UPDATE flow_run SET launcher = process WHERE name = 'r0'",
            "UPDATE flow_run SET process = NULL, state_type = 'PENDING' WHERE name = 'r0'",
        ]
    },
    "what_is_over_has_no_process: of no run": {"process": {}},
    "what_is_over_has_no_process: of a cancelled one": {
        "sql": ["UPDATE flow_run SET state_type = 'CANCELLED' WHERE name = 'r0'"],
        "process": {"PREFECTLITE_FLOW_RUN_ID": "<run>"},
    },
    "what_is_over_has_no_process: of a cancelled one, by its token": {
        "sql": ["UPDATE flow_run SET state_type = 'CANCELLED' WHERE name = 'r0'"],
        "process": {"PREFECTLITE_RUN_TOKEN": "<token>"},
    },
    "what_is_over_has_no_process: of a supervised one": {
        "sql": ["UPDATE flow_run SET supervisor = process WHERE name = 'r0'"],
        "process": {"PREFECTLITE_FLOW_RUN_ID": "<run>"},
    },
    "cancelled_runs_leave_no_process: one lived on": {
        "journal": [{"fact": "survived", "run": "r0"}]
    },
    "nothing_outlives_its_flow_run: a task run": {
        "sql": [
            "UPDATE task_run SET state_type = 'RUNNING', state_name = 'Running' WHERE id = '<task>'"
        ]
    },
    "nothing_outlives_its_flow_run: a subflow run": {
        "sql": [f"UPDATE flow_run {_RUNNING} WHERE parent_flow_run_id = '<run>'"]
    },
    "gate_is_free: it is held": {"gate": True},
    "no_file_is_left_over: a run's folder": {"files": ["runs/x.y.gone/exit.json"]},
    "no_file_is_left_over: the lock of a crashed process": {
        "sql": ["UPDATE flow_run SET state_type = 'CRASHED' WHERE name = 'r0'"],
        "files": ["processes/<token>.lock"],
    },
    "no_file_of_the_dead_is_left: a lock": {"files": [f"processes/{'ab' * 16}.lock"]},
    "no_file_of_the_dead_is_left: a part of a result": {"files": [f"results/.<task>.{'ab' * 8}"]},
    "no_file_is_left_over: nobody knows what": {"files": ["registry.db-journal"]},
    "commands_work: one hung": {"journal": [{"fact": "hung", "text": "ls"}]},
    "commands_work: one failed": {"journal": [{"fact": "complained", "text": "ls"}]},
    "nobody_else_is_killed: a command was": {"journal": [{"fact": "was_killed", "text": "ls"}]},
    "nobody_else_is_killed: it is not Cancelled": {
        "journal": [{"fact": "was_killed", "run": "r0"}]
    },
    "everything_comes_to_its_end: a run waits": {
        "sql": ["UPDATE flow_run SET state_type = 'SCHEDULED' WHERE name = 'r0'"]
    },
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the audit finds in each case, made by one process."""
    folder = tmp_path_factory.mktemp("audit")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE, str(folder)],
        cwd=SOURCES,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        input=json.dumps(CASES) + "\n",
        timeout=100,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("right")])
def test_a_rule_finds_what_is_against_it(found, case):
    assert case.partition(":")[0] in {one.partition(":")[0] for one in found[case]}, found[case]


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("right")])
def test_nothing_is_found_where_nothing_is_wrong(found, case):
    assert found[case] == []
