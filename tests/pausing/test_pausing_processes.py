"""Paused flows in processes of their own: what wakes them, and what ends them."""

import os
import signal

import pytest

from prefectlite import resume_flow_run
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import Cancelling, Running

#: In a thread of its own, which no signal reaches, beside a main thread that waits.
THREAD = """

def in_thread(name, pause):
    thread = threading.Thread(target=run, args=(name, pause))
    thread.start()
    thread.join()
"""


def state(registry, name="called"):
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=[name]))
    return run.state.name, run.state.message


# Waking


KINDS = ["called", "awaited", "generated", "submitted", "nested", "parent", "held"]


@pytest.mark.parametrize("name", KINDS)
def test_a_resume_wakes_the_process_without_a_look_of_its_own(begin, name):
    # The watch thread looks no more than once an hour: only the signal helps.
    paused = "called" if name == "parent" else name
    program, run = begin(f"watches.TICK_SECONDS = 3600; run({name!r}, UNTOLD)", paused)
    resume_flow_run(run.id)
    assert "went on" in program.end()


@pytest.mark.parametrize("name", ["called", "awaited"])
def test_a_resume_wakes_a_flow_in_another_thread_than_the_main_one(begin, name):
    code = f"{THREAD}flow(lambda: 1)(); watches.TICK_SECONDS = 3600; in_thread({name!r}, UNTOLD)"
    program, run = begin(code, name)
    resume_flow_run(run.id)
    assert "went on" in program.end()


def test_where_no_signal_is_heard_the_next_look_finds_a_resume(begin):
    # The main thread has run no flow, and so listens to nothing.
    program, run = begin(f"{THREAD}in_thread('called', UNTOLD)")
    resume_flow_run(run.id)
    assert "went on" in program.end()


@pytest.mark.parametrize("name", KINDS[:-1])
def test_a_resume_that_nobody_tells_of_is_found_by_the_next_look(registry, begin, name):
    pause = {"timeout": None, "poll_interval": 0.05}
    paused = "called" if name == "parent" else name
    program, run = begin(f"run({name!r}, {pause})", paused)
    registry.pauses.resume_flow_run(run, Running())
    assert "went on" in program.end()


#: A flow that is paused, beside which another one begins once the watch thread sleeps for an hour.
BESIDE = """
from prefectlite.interruptions import watch

sleeps, tick, told = threading.Event(), watch.on_tick, []

def on_tick():
    seconds = tick()
    if seconds == 3600:
        sleeps.set()
    if seconds == 0.05 and not told:
        told.append(say("looks often"))
    return seconds

def first():
    def pauses():
        watch.on_tick = on_tick
        pause_flow_run(**UNTOLD)

    flow(pauses)()

"""


def test_a_run_that_looks_often_is_not_kept_from_it_by_one_that_does_not(registry, begin):
    program, run = begin(
        BESIDE
        + """
def later():
    sleeps.wait()
    run("called", {"timeout": None, "poll_interval": 0.05})
    os._exit(0)

threading.Thread(target=later).start()
first()
"""
    )
    registry.pauses.resume_flow_run(run, Running())
    assert "went on" in program.end()


def test_a_pause_that_looks_often_is_not_kept_from_it_by_one_in_the_same_run(registry, begin):
    program, run = begin(
        BESIDE
        + """
@flow
def both():
    watch.on_tick = on_tick
    asks.submit({**UNTOLD, "key": "a"})
    sleeps.wait()
    pause_flow_run(timeout=None, poll_interval=0.05, key="a")
    os._exit(0)

both()
""",
        "both",
    )
    assert program.line() == "looks often"
    registry.pauses.resume_flow_run(run, Running())
    program.end()


def test_a_run_beside_a_paused_one_is_looked_at_as_often_as_ever(registry, start_program):
    program = start_program(
        BESIDE
        + """
@flow
def hangs():
    say("hangs")
    while True:
        threading.Event().wait(0.01)

def later():
    sleeps.wait()
    say(hangs(return_state=True).name)
    os._exit(0)

threading.Thread(target=later).start()
first()
"""
    )
    assert program.line() == "hangs"
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=["hangs"]))
    registry.change_state(run, Cancelling())
    assert program.end() == "Cancelled\n"


def test_a_run_in_a_process_of_the_runner_is_found_by_its_next_look(registry, begin):
    program, run = begin(
        """
from prefectlite.task_runners import ProcessPoolTaskRunner

if __name__ == "__main__":
    run_in_processes = submitted.with_options(task_runner=ProcessPoolTaskRunner(1))
    run_in_processes(**UNTOLD)
""",
        "submitted",
    )
    resume_flow_run(run.id)
    assert "went on" in program.end()


# Ending


def left_behind(registry):
    """The words about threads that were given up on."""
    (run,) = registry.list_flow_runs(limit=1)
    return [line for line in registry.read_logs(run.id) if "did not stop" in line.message]


def ends(program, exit_code=0):
    """What a program said until it ended."""
    return program.end(exit_code).split("\n")[:-1]


@pytest.mark.parametrize("name", KINDS)
def test_a_paused_flow_that_is_cancelled_runs_its_finally_and_is_cancelled(
    registry, begin, run_command, name
):
    paused = "called" if name == "parent" else name
    program, run = begin(f"state = run({name!r}, UNTOLD); say(state and state.name)", paused)
    run_command("flow-run", "cancel", run.id, "--wait")
    said = program.end(1 if name == "generated" else 0)
    assert "finally" in said
    assert "went on" not in said
    assert state(registry, paused) == ("Cancelled", "It ended by itself, as it was asked to.")
    for task_run in registry.list_task_runs():
        assert task_run.state.name == "Cancelled"


@pytest.mark.parametrize("name", ["called", "awaited"])
def test_a_flow_in_a_thread_is_cancelled_while_it_is_paused(registry, begin, run_command, name):
    program, run = begin(f"{THREAD}in_thread({name!r}, UNTOLD)", name)
    run_command("flow-run", "cancel", run.id, "--wait")
    assert ends(program) == ["finally"]
    assert state(registry, name)[0] == "Cancelled"


def test_a_flow_that_is_cancelled_takes_its_paused_subflow_along(registry, begin, run_command):
    program, _ = begin("say(run('parent', UNTOLD).name)")
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=["parent"]))
    run_command("flow-run", "cancel", run.id, "--wait")
    assert ends(program) == ["finally", "Cancelled"]
    assert state(registry, "parent")[0] == "Cancelled"
    assert state(registry) == ("Cancelled", "Its flow run was cancelled.")


def test_an_async_flow_can_be_cancelled_after_a_pause(registry, begin, until):
    program, run = begin(
        """
@flow
async def later():
    try:
        await pause_flow_run(**UNTOLD)
        say("went on")
        await asyncio.sleep(40)
    finally:
        say("finally")

say(asyncio.run(later(return_state=True)).name)
""",
        "later",
    )
    resume_flow_run(run.id)
    assert program.line() == "went on"
    registry.change_state(registry.find_flow_run(run.id), Cancelling())
    assert ends(program) == ["finally", "Cancelled"]


SIGNALS = [(name, number) for name in KINDS for number in (signal.SIGINT, signal.SIGTERM)]
# A generator flow leaves signals to the program: SIGTERM has its default action.
SIGNALS.remove(("generated", signal.SIGTERM))


@pytest.mark.parametrize(("name", "number"), SIGNALS)
def test_a_signal_ends_a_paused_flow_as_any_other(registry, begin, name, number):
    paused = "called" if name == "parent" else name
    program, _ = begin(f"run({name!r}, UNTOLD)", paused)
    os.kill(program.pid, number)
    assert ends(program, -2 if number == signal.SIGINT else 143) == ["finally"]
    assert state(registry, paused)[0] == "Crashed"
    assert number.name in state(registry, paused)[1]
    assert not left_behind(registry)


TIMED = [(name, "flow") for name in KINDS if name != "parent"]
TIMED += [("submitted", "task"), ("nested", "task")]


@pytest.mark.parametrize(("name", "whose"), TIMED)
def test_a_timeout_goes_on_while_a_flow_is_paused(registry, start_program, name, whose):
    made = name if whose == "flow" else "asks"
    program = start_program(
        f"""
{made} = {made}.with_options(timeout_seconds=0.3)
try:
    state = run({name!r}, UNTOLD)
except TimeoutError as error:
    state = None
say(state and state.name)
os._exit(0)
"""
    )
    said = ends(program)
    assert "went on" not in said
    assert "finally" in said
    assert state(registry, name)[0] == ("TimedOut" if whose == "flow" else "Failed")
    if whose == "task":
        assert registry.list_task_runs()[0].state.name == "TimedOut"
    assert not left_behind(registry)
