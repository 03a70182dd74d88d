"""prefectlite flow-run logs and task-run logs: which lines, and following a run to its end."""

import json
import signal
import threading

import pytest

from prefectlite import following
from prefectlite.clock import now
from prefectlite.liveness import own_identity
from prefectlite.log_listings import LogReader
from prefectlite.names import new_id
from prefectlite.records import FlowRun, LogLine, LogQuery
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import (
    AwaitingRetry,
    Cancelled,
    Completed,
    Failed,
    Running,
    Scheduled,
    TimedOut,
)
from prefectlite.upkeep_records import Deleted

DEADLINE_SECONDS = 60


@pytest.fixture(autouse=True)
def _deadline():
    """End a test whose following never ends."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("following did not end"))
    signal.alarm(DEADLINE_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def later():
    """Do something in a thread once a condition holds; the test waits for it."""
    threads = []

    def start(work):
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


def _messages(ended):
    return [json.loads(line)["message"] for line in ended.stdout.splitlines()]


@pytest.mark.parametrize(
    ("state", "code"),
    [(Completed(), 0), (Failed("mine"), 1), (TimedOut(), 124), (Cancelled(), 143)],
)
def test_following_a_run_that_has_ended_prints_it_and_exits_as_it_ended(run, seeds, state, code):
    flow_run = seeds.flow_run(end=state)
    seeds.log(flow_run, "hello")
    ended = run("flow-run logs -f", flow_run.id)
    assert (ended.exit_code, ended.stdout.count("hello")) == (code, 1)
    assert ("error: flow run 'gigantic-cockatoo' is " in ended.stderr) == bool(code)
    assert run("flow-run logs", flow_run.id).exit_code == 0


def test_following_goes_on_from_what_is_there_until_the_process_of_the_run_has_ended(
    run, seeds, later, monkeypatch
):
    has_ended = threading.Event()
    monkeypatch.setattr(following, "is_alive", lambda _: not has_ended.is_set())
    monkeypatch.setattr(following, "_PROCESS_SECONDS", DEADLINE_SECONDS)
    flow_run = seeds.flow_run(end=False, process=own_identity())
    for number in range(5):
        seeds.log(flow_run, str(number))
    looks = []
    look = following._look

    def look_and_count(*arguments):
        look(*arguments)
        looks.append(1)

    monkeypatch.setattr(following, "_look", look_and_count)

    def go_on():
        until_looked(looks)
        seeds.log(flow_run, "later")
        seeds.end(flow_run, Failed("mine"))
        seeds.log(flow_run, "last")
        has_ended.set()

    later(go_on)
    ended = run("flow-run logs --follow --tail 2 --json", flow_run.id)
    assert (ended.exit_code, _messages(ended)) == (1, ["3", "4", "later", "last"])


def until_looked(looks):
    waited = threading.Event()
    for _ in range(2_000):
        if looks:
            return
        waited.wait(0.01)
    raise AssertionError("it never looked")


def test_following_a_run_that_has_not_begun_waits_for_it(run, seeds, later, monkeypatch):
    flow_run = FlowRun(id=new_id(), name="later", flow_name="f", state=Scheduled())
    seeds.registry.create_flow_run(flow_run)
    looks = []
    monkeypatch.setattr(following, "_settle", lambda *_: looks.append(1))

    def go_on():
        until_looked(looks)
        begun = seeds.registry.change_state(flow_run, Running())
        seeds.log(begun, "hello")
        seeds.end(begun)

    later(go_on)
    ended = run("flow-run logs -f later")
    assert (ended.exit_code, ended.stdout.count("hello")) == (0, 1)
    assert ended.stderr == "note: flow run 'later' is Scheduled; its lines come when it begins\n"


def test_following_what_is_not_on_record_is_not_found_and_does_not_wait(run):
    assert run("flow-run logs -f nothing").exit_code == 3


def test_following_ends_where_the_run_is_deleted(run, seeds, later, monkeypatch):
    flow_run = seeds.flow_run(end=False)
    looks = []
    monkeypatch.setattr(following, "_settle", lambda *_: looks.append(1))

    def delete():
        until_looked(looks)
        seeds.registry.upkeep.delete_flow_runs([flow_run.id], Deleted())

    later(delete)
    ended = run("flow-run logs -f", flow_run.id)
    assert (ended.exit_code, "was deleted meanwhile" in ended.stderr) == (3, True)


def test_following_ends_where_the_process_of_the_run_is_killed(run, start_script, registry, until):
    program = start_script(
        """
        import signal, time
        from prefectlite import flow
        @flow(log_prints=True)
        def waits():
            print("hello")
            time.sleep(100)
        waits()
        """
    )
    flow_run = until(registry.list_flow_runs)[0]
    until(lambda: len(registry.read_logs(flow_run.id)) == 2)
    thread = threading.Timer(0.2, program.process.kill)
    thread.start()
    ended = run("flow-run logs -f", flow_run.id)
    thread.join()
    assert ended.exit_code == 1
    assert "hello" in ended.stdout
    assert "Finished in state Crashed(" in ended.stdout
    assert "is Crashed: Its process" in ended.stderr


def test_what_a_supervised_run_wrote_last_comes_before_following_ends(run, start, tmp_path):
    (tmp_path / "work.py").write_text(
        "import os\nfrom prefectlite import flow\n@flow\ndef writes():\n    os.write(1, b'from C\\n')\n"
    )
    begun = start("run", "work.py:writes", "--detach", cwd=tmp_path)
    ended = run("flow-run logs -f", begun.stdout.decode().strip())
    assert ended.exit_code == 0
    assert ended.stdout.count("from C") == 1


@pytest.mark.parametrize(
    "words", [("flow-run", "logs", "-f"), ("flow-run", "watch"), ("flow-run", "watch", "--json")]
)
def test_a_reader_that_goes_away_ends_following_though_nothing_is_said(start_command, seeds, words):
    flow_run = seeds.flow_run(end=False)
    seeds.log(flow_run, "hello")
    process = start_command(*words, flow_run.id)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(DEADLINE_SECONDS) == 141
    assert process.stderr.read() == ""


@pytest.mark.parametrize("words", [("flow-run", "logs", "-f"), ("flow-run", "watch")])
def test_ctrl_c_ends_following_without_a_word(start_command, seeds, words):
    flow_run = seeds.flow_run(end=False)
    seeds.log(flow_run, "hello")
    process = start_command(*words, flow_run.id)
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_SECONDS) == 130
    assert process.stderr.read() == ""


def test_since_leaves_out_what_is_older(run, seeds):
    flow_run = seeds.flow_run()
    seeds.log(flow_run, "old")
    for since, count in (("2h", 0), ("2023-11-14T22:13:20+00:00", 1), ("2023-11-14T22:13:21Z", 0)):
        assert run("flow-run logs --since", since, flow_run.id).stdout.count("old") == count
    assert run("flow-run logs --since yesterday", flow_run.id).exit_code == 2


def test_task_leaves_the_lines_of_some_task_runs_and_knows_what_is_none(run, seeds):
    flow_run = seeds.flow_run(end=False)
    one, two = seeds.task_run(flow_run, "my_task-0"), seeds.task_run(flow_run, "my_task-1")
    seeds.log(flow_run, "of the flow")
    seeds.log(flow_run, "of one", task_run=one)
    seeds.log(flow_run, "of two", task_run=two)
    logs = f"flow-run logs {flow_run.id} --json --task"
    assert _messages(run(logs, "my_task")) == ["of one", "of two"]
    assert _messages(run(logs, one.id[:13])) == ["of one"]
    assert _messages(run(f"{logs} my_task-1 --task my_task-0")) == ["of one", "of two"]
    ended = run(logs, "my_taks")
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert "'gigantic-cockatoo' has no task run 'my_taks'" in ended.stderr


def test_subflows_adds_the_lines_of_subflow_runs_by_their_names(run, seeds):
    flow_run = seeds.flow_run(end=False)
    child = seeds.flow_run("child", parent_flow_run_id=flow_run.id)
    seeds.log(flow_run, "before")
    seeds.log(child, "inside")
    seeds.log(flow_run, "after")
    assert "inside" not in run("flow-run logs", flow_run.id).stdout
    lines = run("flow-run logs --subflows", flow_run.id).stdout.splitlines()
    assert [line.split(" | ")[2] for line in lines] == [
        "Flow run 'gigantic-cockatoo' - before",
        "Flow run 'child' - inside",
        "Flow run 'gigantic-cockatoo' - after",
    ]


@pytest.mark.parametrize("options", ["--limit 1 --tail 1", "--limit 1 --follow"])
def test_the_first_lines_are_not_asked_for_with_the_last_ones(run, seeds, options):
    ended = run(f"flow-run logs {options}", seeds.flow_run().id)
    assert (ended.exit_code, "--limit takes the first lines" in ended.stderr) == (2, True)


def test_task_run_logs_are_the_lines_of_that_task_run_alone(run, seeds):
    flow_run = seeds.flow_run(end=False)
    task_run = seeds.task_run(flow_run)
    seeds.log(flow_run, "of the flow")
    seeds.log(flow_run, "of the task", task_run=task_run)
    seeds.log(flow_run, "of its error", task_run=task_run, level=40)
    shown = run("task-run logs my_task-0").stdout.splitlines()
    assert [line.partition(" - ")[2] for line in shown] == ["of the task", "of its error"]
    assert _messages(run("task-run logs my_task-0 --json -l error")) == ["of its error"]
    assert run("task-run logs nothing").exit_code == 3


@pytest.mark.parametrize(("end", "code"), [(None, 0), (Failed("mine"), 1), (TimedOut(), 124)])
def test_following_a_task_run_ends_with_it_while_its_flow_run_goes_on(run, seeds, end, code):
    flow_run = seeds.flow_run(end=False)
    task_run = seeds.task_run(flow_run, end=end)
    seeds.log(flow_run, "hello", task_run=task_run)
    ended = run("task-run logs -f", task_run.id)
    assert (ended.exit_code, ended.stdout.count("hello")) == (code, 1)
    if code:
        assert "error: task run 'my_task-0' is " in ended.stderr


def test_following_a_task_run_ends_with_its_flow_run_at_the_latest(run, seeds):
    flow_run = seeds.flow_run(end=False)
    task_run = seeds.task_run(flow_run, end=AwaitingRetry())
    seeds.end(flow_run, Failed())
    ended = run("task-run logs -f", task_run.id)
    assert ended.exit_code == 1
    assert "'my_task-0' is AwaitingRetry" in ended.stderr


def test_a_look_settles_only_runs_whose_process_does_not_live(seeds, monkeypatch):
    settled = []
    monkeypatch.setattr(following, "settle", lambda *_, **__: settled.append(1) or [])
    registry = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)
    own = following.is_alive
    monkeypatch.setattr(following, "is_alive", lambda _: True)
    flow_run = seeds.flow_run(end=False, process=own_identity())
    following._settle(registry, flow_run)
    assert settled == []
    monkeypatch.setattr(following, "is_alive", own)
    following._settle(registry, seeds.flow_run(end=False))
    assert settled == [1]


@pytest.mark.parametrize("with_subflows", [False, True])
def test_what_a_filter_has_left_out_is_not_looked_at_again(seeds, with_subflows):
    flow_run = seeds.flow_run(end=False)
    line = LogLine(flow_run.id, None, 20, "mine", "nothing", now())
    for _ in range(2_000):
        seeds.registry.add_log_line(line)
    seeds.registry.flush_logs()
    query = LogQuery(least_level=30, with_subflows=with_subflows)
    reader = LogReader(seeds.registry, flow_run.id, query)
    assert [*reader.lines()] == []
    steps = []
    seeds.registry._database._connection.set_progress_handler(lambda: steps.append(1), 100)
    assert [*reader.lines()] == []
    assert len(steps) < 10
    seeds.log(flow_run, "at last", level=40)
    assert [line.message for line in reader.lines()] == ["at last"]


def test_long_lines_are_not_read_many_at_once(seeds, monkeypatch):
    monkeypatch.setattr("prefectlite.log_listings._CHARACTERS_AT_ONCE", 10)
    flow_run = seeds.flow_run()
    lengths = [3, 3, 30, 4, 6, 1]
    for length in lengths:
        seeds.log(flow_run, "x" * length)
    reader, pieces = LogReader(seeds.registry, flow_run.id, LogQuery()), []
    read_logs = seeds.registry.read_logs

    def read(*arguments, **query):
        pieces.append(read_logs(*arguments, **query))
        return pieces[-1]

    monkeypatch.setattr(seeds.registry, "read_logs", read)
    assert [len(line.message) for line in reader.lines()] == lengths
    assert [len(piece) for piece in pieces] == [3, 2, 1, 0]
