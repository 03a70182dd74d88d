import signal

import pytest

from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

PRELUDE = """
import asyncio, os, signal, subprocess, sys, threading, time
from prefectlite import flow, task
from prefectlite.task_runners import SequentialTaskRunner

def ready():
    os.write(1, b"ready\\n")

def wait():
    ready()
    time.sleep(60)

def run_program():
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL) as program:
        try:
            ready()
            program.wait()
        finally:
            program.kill()

"""
SIGNALS = {
    signal.SIGINT: (-signal.SIGINT, "Execution was aborted by an interrupt signal (SIGINT)."),
    signal.SIGTERM: (143, "Execution was aborted by a termination signal (SIGTERM)."),
}


@pytest.fixture(params=SIGNALS, ids=[number.name for number in SIGNALS])
def number(request):
    """Each signal that asks a program to end."""
    return request.param


class Program:
    """A program that has come to the line ``ready()`` in its flow."""

    def __init__(self, started):
        self.started = started
        assert started.line() == "ready"

    def send(self, number):
        self.started.process.send_signal(number)

    def end(self, exit_code):
        """Wait until it ends; return its flow run, and the rest of its stdout."""
        out = self.started.end(exit_code)
        assert self.unfinished() == {}
        return self.top_run(), out

    def top_run(self):
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        (run,) = [run for run in registry.list_flow_runs() if run.parent_flow_run_id is None]
        return run

    def unfinished(self):
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        runs = [*registry.list_flow_runs(), *registry.list_task_runs()]
        return {run.name: run.state.name for run in runs if not run.state.is_final()}


@pytest.fixture
def start(start_script):
    def start_program(code, **options):
        return Program(start_script(PRELUDE + code, **options))

    return start_program


def in_flow(body, call="runs()", decorator="@flow"):
    """A program whose flow has this body, in a ``try`` whose ``finally`` prints ``tidied``."""
    return f"""
{decorator}
def runs():
    try:
        {body}
    finally:
        os.write(1, b"tidied\\n")

{call}
"""


WAITS = {
    "sleep": in_flow("wait()"),
    "loop": in_flow("ready()\n        while True: pass"),
    "program": in_flow("run_program()"),
    "lock": in_flow("lock = threading.Lock(); lock.acquire(); ready(); lock.acquire()"),
    "task": in_flow("task(wait)()"),
    "subflow": in_flow("flow(wait)()"),
    "cache_key": in_flow("task(cache_key_fn=lambda *_: wait())(wait)()"),
    "submitted_task": in_flow("task(wait).submit().result()"),
    "sequential_task": in_flow(
        "task(wait).submit()", decorator="@flow(task_runner=SequentialTaskRunner())"
    ),
    "submitted_task_at_the_end": """
@flow
def runs():
    task(wait).submit()

runs()
""",
    "async_flow": """
@flow
async def runs():
    try:
        ready()
        await asyncio.sleep(60)
    finally:
        os.write(1, b"tidied\\n")

asyncio.run(runs())
""",
    "blocked_loop": """
@task
async def blocks():
    wait()

@flow
async def runs():
    try:
        await asyncio.gather(blocks(), asyncio.sleep(60))
    finally:
        os.write(1, b"tidied\\n")

asyncio.run(runs())
""",
    "submitted_async_task": """
@task
async def waits():
    try:
        ready()
        await asyncio.sleep(60)
    finally:
        os.write(1, b"tidied\\n")

@flow
async def runs():
    await waits.submit()

asyncio.run(runs())
""",
    "hook": in_flow("return 1", decorator="@flow(on_running=[lambda *_: wait()])"),
}
#: In these, no code that could tidy up is running.
WITHOUT_FINALLY = {"submitted_task_at_the_end", "hook"}


@pytest.mark.parametrize("wait", WAITS)
def test_a_signal_ends_the_flow_and_is_its_reason(start, number, wait):
    program = start(WAITS[wait])
    program.send(number)
    exit_code, message = SIGNALS[number]
    run, out = program.end(exit_code)
    assert (run.state.name, run.state.message) == ("Crashed", message)
    assert out == ("" if wait in WITHOUT_FINALLY else "tidied\n")


@pytest.mark.parametrize("hook", ["plain", "async"])
def test_a_signal_in_a_hook_leaves_the_run_the_state_it_ended_in(start, number, hook):
    program = start(
        """
async def waits(*_):
    ready()
    await asyncio.sleep(60)

def plain(*_):
    wait()

@flow(on_completion=[HOOK])
def runs():
    return 1

runs()
""".replace("HOOK", "plain" if hook == "plain" else "waits")
    )
    program.send(number)
    run, _ = program.end(SIGNALS[number][0])
    assert run.state.name == "Completed"


def test_a_second_ctrl_c_ends_what_tidies_up(start):
    program = start("""
@flow
def runs():
    try:
        wait()
    finally:
        try:
            wait()
        finally:
            os.write(1, b"tidied")

runs()
""")
    program.send(signal.SIGINT)
    assert program.started.line() == "ready"
    program.send(signal.SIGINT)
    run, out = program.end(-signal.SIGINT)
    assert (run.state.name, out) == ("Crashed", "tidied")


def test_a_second_ctrl_c_ends_the_wait_for_tasks_and_leaves_none_unfinished(start):
    program = start("""
@task
async def stubborn():
    for _ in range(2):
        try:
            ready()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

@flow
async def runs():
    await stubborn.submit()

asyncio.run(runs())
""")
    program.send(signal.SIGINT)
    assert program.started.line() == "ready"
    program.send(signal.SIGINT)
    run, _ = program.end(-signal.SIGINT)
    assert run.state.name == "Crashed"


def test_a_signal_ends_tasks_in_threads_that_hang(start, number):
    program = start("""
@task
def hangs():
    import select
    inner()

@task
def inner():
    wait()

@flow
def runs():
    hangs.submit().result()

runs()
""")
    program.send(number)
    run, _ = program.end(SIGNALS[number][0])
    assert run.state.name == "Crashed"
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    assert {task_run.state.name for task_run in registry.list_task_runs()} == {"Crashed"}


def test_a_signal_ends_a_retry_that_is_waited_for(start, number):
    program = start("""
@flow(retries=1, retry_delay_seconds=60)
def runs():
    threading.Timer(0.2, ready).start()
    raise ValueError("x")

runs()
""")
    program.send(number)
    run, _ = program.end(SIGNALS[number][0])
    assert run.state.name == "Crashed"


def test_code_that_catches_a_termination_signal_may_go_on(start):
    program = start("""
@flow
def runs():
    try:
        wait()
    except SystemExit as error:
        return error.code

os.write(1, b"%d" % runs())
""")
    program.send(signal.SIGTERM)
    run, out = program.end(0)
    assert (run.state.name, out) == ("Completed", "143")


def test_a_signal_between_two_flows_is_the_programs_own(start):
    program = start("""
@flow
def runs():
    return 1

runs()
wait()
""")
    program.send(signal.SIGTERM)
    assert program.end(-signal.SIGTERM)[0].state.name == "Completed"


@pytest.mark.parametrize("handler", ["lambda *_: os.write(1, b'own')", "signal.SIG_IGN"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_handler_of_the_programs_own_is_respected(start, number, handler, kind):
    program = start(f"""
signal.signal({int(number)}, {handler})

@flow
def waits():
    ready()
    return sys.stdin.readline()

@flow
async def awaits():
    ready()
    return await asyncio.to_thread(sys.stdin.readline)

{"waits()" if kind == "sync" else "asyncio.run(awaits())"}
""")
    program.send(number)
    program.started.tell()
    run, out = program.end(0)
    assert run.state.name == "Completed"
    assert out == ("own" if "own" in handler else "")


def test_ctrl_c_in_a_program_with_a_loop_ends_the_flow_that_it_awaits(start):
    program = start("""
@flow
async def runs():
    ready()
    await asyncio.sleep(60)

async def main():
    try:
        await runs()
    except KeyboardInterrupt:
        os.write(1, b"caught")
        raise

asyncio.run(main())
""")
    program.send(signal.SIGINT)
    run, out = program.end(-signal.SIGINT)
    assert (run.state.name, out) == ("Crashed", "caught")


def test_sys_exit_in_a_flow_is_a_crash_with_its_code(start_script):
    program = start_script(f"""{PRELUDE}
@flow
def runs():
    sys.exit(7)

runs()
""")
    program.end(7)
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    (run,) = registry.list_flow_runs()
    told = "Execution was aborted by sys.exit(7)."
    assert (run.state.name, run.state.message) == ("Crashed", told)


def test_a_signal_that_came_just_before_a_long_wait_is_not_slept_through(start):
    # Python has noted the signal, and begins the wait without having run its handler: here, because
    # it reached another thread, whose kernel call alone it interrupts.
    program = start(
        in_flow(
            "threading.Thread(target=lambda: (time.sleep(0.2), signal.pthread_kill("
            "threading.get_ident(), signal.SIGTERM)), daemon=True).start(); wait()"
        )
    )
    run, out = program.end(143)
    assert (run.state.name, out) == ("Crashed", "tidied\n")


def test_the_wakeup_descriptor_is_as_it_was_after_the_flow(start_script):
    program = start_script("""
    import os, signal
    from prefectlite import flow

    @flow
    def runs():
        return signal.set_wakeup_fd(-1)  # and so it is not the flow's own any more

    _, own = os.pipe()
    os.set_blocking(own, False)
    print(runs() != -1, signal.set_wakeup_fd(own))
    print(runs() == own, signal.set_wakeup_fd(-1))
    """)
    assert program.end().splitlines() == ["True -1", "True -1"]
