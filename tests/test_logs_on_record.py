"""When log lines get on record: in time, whole, in order, once."""

import os
import signal
import threading
import time

import pytest

from prefectlite import flow, get_run_logger, logs, task
from prefectlite.clock import now
from prefectlite.context import get_run_context
from prefectlite.errors import RegistryFullError
from prefectlite.names import new_id
from prefectlite.records import FlowRun, LogLine
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Running

DEADLINE_SECONDS = 20


def messages(registry):
    """The messages on record of the only flow run, without those of the engine."""
    (run,) = registry.list_flow_runs()
    registry.flush_logs()
    found = [line.message for line in registry.read_logs(run.id)]
    return [text for text in found if not text.startswith(("Created flow", "Finished in"))]


def test_a_line_survives_a_kill_after_50_milliseconds(start_script):
    # Nothing promises a busy machine to run the writer's thread in time: one of three will do.
    code = """
        import os, threading
        from prefectlite import flow
        @flow(log_prints=True)
        def runs():
            print("hello")
            threading.Event().wait(0.06)
            os.write(1, b"60 ms later\\n")
            threading.Event().wait()
        runs()
        """
    found = []
    for _ in range(3):
        program = start_script(code)
        assert program.line() == "60 ms later"
        os.kill(program.pid, signal.SIGKILL)
        program.end(-signal.SIGKILL)
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        found = [line.message for line in registry.read_logs(registry.list_flow_runs()[0].id)]
        if "hello" in found:
            break
    assert "hello" in found


def test_the_last_of_very_many_lines_are_on_record_while_the_flow_runs_on(registry):
    missing = []

    @flow(log_prints=True)
    def runs():
        for number in range(1_203):
            print(number)
        deadline = time.monotonic() + DEADLINE_SECONDS
        run_id = get_run_context().flow_run.id
        while time.monotonic() < deadline:
            found = [line.message for line in registry.read_logs(run_id)]
            if "1202" in found:
                missing.append({*map(str, range(1_203))} - {*found})
                return
            time.sleep(0.01)

    runs()
    assert missing == [set()]


def test_every_line_is_on_record_before_the_final_state_is_seen(registry, monkeypatch):
    seen = []
    change_state = type(registry).change_state

    def looking(self, run, state):
        changed = change_state(self, run, state)
        if state.is_final():
            other = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)
            flow_run_id = other.list_flow_runs()[0].id
            seen.append([line.message for line in other.read_logs(flow_run_id)])
        return changed

    monkeypatch.setattr(type(registry), "change_state", looking)

    @task
    def prints():
        print("in the task", end="")

    @flow(log_prints=True)
    def runs():
        prints()
        for number in range(100):
            print(number)
        print("the last", end="")

    runs()
    assert seen[0][-1] == "in the task"
    assert seen[1][-101:] == [*map(str, range(100)), "the last"]


def test_a_registry_that_refuses_lines_is_reported_once_and_breaks_nothing(
    registry, monkeypatch, capsys
):
    refused = threading.Event()

    def full(self):
        refused.set()
        raise RegistryFullError("the disk is full")

    monkeypatch.setattr(logs, "_reported", set())
    flush = type(registry).flush_logs

    @flow
    def runs():
        monkeypatch.setattr(type(registry), "flush_logs", full)
        for number in range(3):
            refused.clear()
            get_run_logger().info("number %d", number)
            assert refused.wait(DEADLINE_SECONDS)
        monkeypatch.setattr(type(registry), "flush_logs", flush)
        return "done"

    assert runs() == "done"
    told = "log lines are not being recorded: the disk is full"
    assert capsys.readouterr().err.count(told) == 1
    assert messages(registry) == ["number 0", "number 1", "number 2"]


FORKS = {
    "fork": """
        child = os.fork()
        if not child:
            tell()
            os._exit(0)
        os.waitpid(child, 0)
""",
    "multiprocessing": """
        child = multiprocessing.get_context("fork").Process(target=tell)
        child.start()
        child.join()
""",
}


@pytest.mark.parametrize("how", FORKS)
def test_a_forked_child_logs_for_the_run_and_doubles_nothing(start_script, how):
    program = start_script(f"""
    import multiprocessing, os
    from prefectlite import flow, get_run_logger

    def tell():
        get_run_logger().info("by the child")
        print("by the child too")

    @flow(log_prints=True)
    def runs():
        print("before")
{FORKS[how]}
        print("after")

    runs()
    """)
    program.end(0)
    assert messages(open_registry(PREFECTLITE_REGISTRY.value())) == [
        "before",
        "by the child",
        "by the child too",
        "after",
    ]


def test_lines_of_many_threads_are_each_recorded_once(registry):
    @task
    def logs_many(number):
        for index in range(50):
            get_run_logger().info("%d/%d", number, index)

    @flow
    def runs():
        logs_many.map(range(8))

    runs()
    told = messages(registry)
    assert sorted(told) == sorted(f"{task_}/{line}" for task_ in range(8) for line in range(50))
    for number in range(8):
        own = [text for text in told if text.startswith(f"{number}/")]
        assert own == [f"{number}/{index}" for index in range(50)]


def test_lines_of_two_registries_of_one_process_are_both_recorded(tmp_path, until):
    run = FlowRun(id=new_id(), name="both", flow_name="both", state=Running())
    registries = [open_registry(f"sqlite:///{tmp_path / name}.db") for name in ("a", "b")]
    for registry in registries:
        registry.create_flow_run(run)
    for registry in registries:  # the second while the first is to be flushed in a moment
        registry.add_log_line(LogLine(run.id, None, 20, "mine", "a line", now()))
        logs._writer.wake(registry)
    until(lambda: all(registry.read_logs(run.id) for registry in registries), "the lines")
