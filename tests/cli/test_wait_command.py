"""``flow-run wait``: when it returns, and with which code."""

import json
import threading

import pytest

from prefectlite.states import Cancelled, Completed, Crashed, Failed, Paused, TimedOut


@pytest.mark.parametrize(
    ("state", "code"),
    [(Completed(), 0), (Failed("why"), 1), (Crashed(), 1), (TimedOut(), 124), (Cancelled(), 143)],
    ids=lambda value: getattr(value, "name", value),
)
def test_it_exits_with_the_code_of_the_run(run, seeds, state, code):
    seeds.flow_run("ended", end=state)
    ended = run("flow-run wait ended")
    assert ended.exit_code == code
    assert ("flow run 'ended' is" in ended.stderr) == bool(code)


def later(work):
    threading.Timer(0.1, work).start()


def test_it_returns_when_another_process_ends_the_run(run, seeds):
    flow_run = seeds.flow_run("slow", end=False)
    later(lambda: seeds.end(flow_run))
    ended = run("flow-run wait slow --json")
    assert ended.exit_code == 0
    assert [each["state"]["name"] for each in json.loads(ended.stdout)] == ["Completed"]


def test_it_waits_for_all_unless_any_will_do(run, seeds):
    seeds.flow_run("over")
    slow = seeds.flow_run("slow", end=False)
    assert run("flow-run wait slow over --any").exit_code == 0
    assert run("flow-run wait slow over --timeout 0.1").exit_code == 124
    later(lambda: seeds.end(slow, Failed()))
    assert run("flow-run wait over slow").exit_code == 1


def test_it_waits_for_a_state_by_name_or_type(run, seeds):
    paused = seeds.flow_run("paused", end=False)
    later(lambda: seeds.end(paused, Paused()))
    assert run("flow-run wait paused --for PAUSED").exit_code == 0
    assert run("flow-run wait paused --for paused").exit_code == 0
    seeds.flow_run("over", end=TimedOut())
    assert run("flow-run wait over --for failed").exit_code == 0
    assert run("flow-run wait over --for timedout").exit_code == 0
    assert run("flow-run wait over --for completed").exit_code == 124
    seeds.flow_run("done")
    assert run("flow-run wait done --for paused").exit_code == 1


def test_a_run_that_does_not_exist_is_not_found(run):
    assert run("flow-run wait nobody").exit_code == 3


def test_a_run_whose_process_dies_is_waited_for_no_longer(run, registry, start_python):
    process = start_python("""
        import threading
        from prefectlite import flow

        @flow
        def runs():
            print("ready", flush=True)
            threading.Event().wait()

        runs()
        """)
    assert process.line() == "ready"
    later(process.process.kill)
    ended = run("flow-run wait", registry.list_flow_runs()[0].id)
    assert ended.exit_code == 1
    assert "died before it ended" in ended.stderr
