"""A flow that pauses itself: how it goes on, how it fails, and whose run is paused."""

import asyncio
import importlib
import os
import sys
import threading
from datetime import timedelta

import pytest
from pydantic import BaseModel

from prefectlite import flow, flow_engine, pause_flow_run, resume_flow_run, task
from prefectlite.errors import (
    FlowPauseTimeout,
    FlowRunNotRunningError,
    MissingContextError,
    RunFinalError,
    UsageError,
)
from prefectlite.run_filters import FlowRunFilter, TaskRunFilter
from prefectlite.states import Failed
from prefectlite.task_runners import ConcurrentTaskRunner, ProcessPoolTaskRunner

#: Much longer than any test may take: nothing here waits for the end of it.
LONG_SECONDS = 50
UNRESUMED = "The flow was paused and never resumed."
PAUSE = {"timeout": LONG_SECONDS}


def only(registry, name="runs"):
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=[name]))
    return run


def names(registry, name="runs"):
    return [change.state.name for change in registry.state_history(only(registry, name))]


def sync(told, options, pause):
    @flow(**options)
    def runs():
        try:
            told.append(pause_flow_run(**pause))
        finally:
            told.append("finally")

    return runs(return_state=True)


def in_coroutine(told, options, pause):
    @flow(**options)
    async def runs():
        try:
            told.append(await pause_flow_run(**pause))
        finally:
            told.append("finally")

    return asyncio.run(runs(return_state=True))


def state_of_generator(take, error=None):
    try:
        take()
    except FlowPauseTimeout as raised:
        error = raised
    return Failed(data=error) if error else None


def in_generator(told, options, pause):
    @flow(**options)
    def runs():
        yield 1
        try:
            told.append(pause_flow_run(**pause))
            yield 2
        finally:
            told.append("finally")

    return state_of_generator(lambda: list(runs()))


def in_async_generator(told, options, pause):
    @flow(**options)
    async def runs():
        yield 1
        try:
            told.append(await pause_flow_run(**pause))
            yield 2
        finally:
            told.append("finally")

    async def take():
        return [item async for item in runs()]

    return state_of_generator(lambda: asyncio.run(take()))


KINDS = [sync, in_coroutine, in_generator, in_async_generator]
every_kind = pytest.mark.parametrize("kind", KINDS)


# Going on


@every_kind
def test_a_paused_flow_goes_on_when_it_is_resumed(registry, resumes, kind):
    told, hooks = [], []
    resumes()
    kind(told, {"on_running": [lambda *_: hooks.append("running")]}, PAUSE)
    assert (told, hooks) == ([None, "finally"], ["running"])
    assert names(registry) == ["Running", "Paused", "Running", "Completed"]
    assert only(registry).run_count == 1


def test_the_record_says_who_has_paused_and_resumed_and_by_when_it_had_to_be(
    registry, meanwhile, paused, until, start_python
):
    resumer = []

    def resume():
        run = paused()
        pause = registry.pauses.find_pause(run.id)
        told = f"It waits to be resumed by {pause.resume_by:%Y-%m-%d %H:%M:%S} UTC."
        assert run.state.message == told
        assert pause.resume_by == run.state.timestamp + timedelta(seconds=LONG_SECONDS)
        how = f"Paused. To resume: prefectlite flow-run resume {run.id}"
        until(lambda: how in [line.message for line in registry.read_logs(run.id)])
        code = f"from prefectlite import resume_flow_run as r; r('{run.id}')"
        resumer.append(start_python(code))

    meanwhile(resume)
    assert sync([], {}, PAUSE).name == "Completed"
    resumer[0].end()
    changes = registry.state_history(only(registry))
    pids = [os.getpid(), os.getpid(), resumer[0].pid, os.getpid()]
    assert [change.actor.rpartition(":")[2] for change in changes] == [str(pid) for pid in pids]
    assert sorted(changes, key=lambda change: change.state.timestamp) == changes
    assert "Resumed" in [line.message for line in registry.read_logs(only(registry).id)]


def test_a_pause_without_a_timeout_waits_for_ever_and_the_default_is_five_minutes(
    registry, resumes
):
    resumes(None, None)

    @flow
    def runs():
        pause_flow_run(timeout=None)
        forever = registry.pauses.find_pause(only(registry).id)
        pause_flow_run()
        return forever, registry.pauses.find_pause(only(registry).id)

    forever, default = runs()
    assert forever.resume_by is None
    first, second = [c.state for c in registry.state_history(only(registry)) if c.state.is_paused()]
    assert first.message == "It waits to be resumed."
    assert default.resume_by == second.timestamp + timedelta(seconds=300)


@pytest.mark.parametrize(
    ("argument", "what"),
    [
        ({"timeout": -1}, "timeout=-1"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"timeout": True}, "timeout=True"),
        ({"timeout": "5"}, "timeout='5'"),
        ({"poll_interval": -0.1}, "poll_interval=-0.1"),
        ({"key": ""}, "key=''"),
        ({"key": 5}, "key=5"),
        ({"wait_for_input": dict}, "no pydantic model"),
        ({"wait_for_input": "Model"}, "no pydantic model"),
    ],
)
def test_a_wrong_argument_is_refused_before_the_run_is_paused(registry, argument, what):
    @flow
    def runs():
        with pytest.raises(UsageError, match=what):
            pause_flow_run(**argument)

    runs()
    assert names(registry) == ["Running", "Completed"]


def test_a_pause_outside_of_a_run_is_an_error():
    with pytest.raises(MissingContextError, match="outside of a flow or task"):
        pause_flow_run()


# Not resumed


@every_kind
def test_a_flow_that_is_not_resumed_in_time_fails_at_the_deadline(registry, kind):
    told = []
    options = {"on_failure": [lambda _, run, state: told.append((run.state.name, state.message))]}
    options["retries"] = 3
    state = kind(told, options, {"timeout": 0.05})
    assert told == ["finally", ("Failed", UNRESUMED)]
    with pytest.raises(FlowPauseTimeout, match=UNRESUMED):
        state.result()
    run = only(registry)
    assert (str(run.state), run.run_count) == (f"Failed('{UNRESUMED}')", 1)
    paused_at = registry.state_history(run)[1].state.timestamp
    assert run.state.timestamp == paused_at + timedelta(seconds=0.05)
    assert run.state.timestamp == registry.pauses.find_pause(run.id).resume_by
    assert run.ended_at == run.state.timestamp
    assert names(registry) == ["Running", "Paused", "Failed"]


def test_a_flow_that_catches_it_stays_failed_and_no_task_starts_in_it(registry):
    started, refused = [], []

    @task
    def works():
        started.append(1)

    @flow
    def inner():
        started.append(2)

    @flow
    def runs():
        with pytest.raises(FlowPauseTimeout):
            pause_flow_run(timeout=0)
        for begin in (works, works.submit, lambda: works.map([1]), inner, pause_flow_run):
            try:
                begin()
            except (FlowPauseTimeout, FlowRunNotRunningError) as error:
                refused.append(type(error).__name__)
        return "went on"

    assert str(runs(return_state=True)) == f"Failed('{UNRESUMED}')"
    assert (started, len(refused)) == ([], 5)
    assert registry.list_task_runs() == []
    assert names(registry) == ["Running", "Paused", "Failed"]


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("way", ["called", "submitted"])
def test_a_task_whose_pause_was_not_ended_fails_once_and_its_flow_with_it(registry, way, retries):
    @task(retries=retries)
    def asks():
        pause_flow_run(timeout=0)

    @flow(retries=2)
    def runs():
        asks() if way == "called" else asks.submit().result()

    with pytest.raises(FlowPauseTimeout):
        runs()
    (run,) = registry.list_task_runs()
    assert (run.state.name, run.run_count) == ("Failed", 1)
    assert UNRESUMED in run.state.message
    assert names(registry) == ["Running", "Paused", "Failed"]


def test_a_subflow_that_is_not_resumed_fails_and_its_parent_is_told(registry):
    @flow
    def inner():
        pause_flow_run(timeout=0)

    @flow
    def runs():
        with pytest.raises(FlowPauseTimeout):
            inner()
        return "went on"

    assert runs() == "went on"
    assert names(registry, "inner") == ["Running", "Paused", "Failed"]


# Where


def test_a_pause_in_a_subflow_is_of_that_run_alone(registry, resumes):
    seen = []

    @flow(on_completion=[lambda *_: seen.append(only(registry).state.name)])
    def inner():
        pause_flow_run(**PAUSE)

    @flow
    def runs():
        inner()

    resumes(flow_name="inner")
    runs()
    assert seen == ["Running"]
    assert names(registry) == ["Running", "Completed"]
    assert names(registry, "inner") == ["Running", "Paused", "Running", "Completed"]


@task
def asks():
    return pause_flow_run(**PAUSE)


@task
async def aasks():
    return await pause_flow_run(**PAUSE)


def called():
    asks()


def submitted():
    asks.submit().result()


async def awaited():
    await aasks()


async def submitted_on_loop():
    await (await aasks.submit()).result()


async def submitted_to_thread():
    asks.submit()


def in_own_thread():
    threads = [threading.Thread(target=pause_flow_run, kwargs=PAUSE)]
    threads[0].start()
    threads[0].join(LONG_SECONDS)


async def in_another_coroutine():
    await asyncio.gather(pause_flow_run(**PAUSE), asyncio.sleep(0))


@pytest.mark.parametrize(
    "body",
    [
        called,
        submitted,
        awaited,
        submitted_on_loop,
        submitted_to_thread,
        in_own_thread,
        in_another_coroutine,
    ],
)
def test_a_pause_in_a_task_or_thread_is_of_its_flow_run(registry, resumes, body):
    resumes()
    state = flow(name="runs")(body)(return_state=True)
    if asyncio.iscoroutine(state):
        state = asyncio.run(state)
    assert state.name == "Completed"
    assert names(registry) == ["Running", "Paused", "Running", "Completed"]
    for run in registry.list_task_runs():
        changes = [change.state.name for change in registry.state_history(run)]
        assert [name for name in changes if name != "Pending"] == ["Running", "Completed"]


@pytest.fixture
def pooled(tmp_path, monkeypatch):
    """A task that pauses, in a module which a process of the runner can import; how it pauses is given."""
    code = "from prefectlite import pause_flow_run, task\n@task\ndef asks(pause):\n    pause_flow_run(**pause)\n"
    (tmp_path / "pooled_tasks.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pooled_tasks", raising=False)
    asks = importlib.import_module("pooled_tasks").asks

    @flow(task_runner=ProcessPoolTaskRunner(1))
    def runs(pause, times=1):
        for _ in range(times):
            asks.submit(pause).result()

    return runs


def test_a_pause_in_a_process_of_the_runner_is_of_its_flow_run(registry, resumes, pooled):
    resumes(None, None)
    assert pooled(PAUSE, times=2, return_state=True).name == "Completed"
    assert names(registry) == ["Running", *["Paused", "Running"] * 2, "Completed"]


def test_a_pause_in_a_process_of_the_runner_that_is_not_ended_fails_its_flow(registry, pooled):
    with pytest.raises(FlowPauseTimeout):
        pooled({"timeout": 0.3})
    assert str(only(registry).state) == f"Failed('{UNRESUMED}')"


def test_a_thread_that_its_flow_does_not_wait_for_is_not_taken_for_resumed(registry, monkeypatch):
    told, ended = [], threading.Event()
    # Where the flow has let go of the thread, and its end is not on record yet.
    monkeypatch.setattr(flow_engine, "_let_go_of_runner", lambda _: ended.wait(0.2))

    class Approval(BaseModel):
        approved: bool = True

    def asks():
        try:
            told.append(pause_flow_run(wait_for_input=Approval, **PAUSE))
        except RunFinalError as error:
            told.append(error)
        ended.set()

    @flow
    def runs():
        threading.Thread(target=asks, daemon=True).start()
        while not only(registry).state.is_paused():
            pass

    assert runs(return_state=True).name == "Completed"
    assert ended.wait(LONG_SECONDS)
    assert [type(one) for one in told] == [RunFinalError]
    assert names(registry) == ["Running", "Paused", "Completed"]


def test_submitted_tasks_finish_while_the_flow_is_paused_and_no_new_one_starts(
    registry, meanwhile, paused, until
):
    may_end, order = threading.Event(), []

    @task
    def first():
        assert may_end.wait(LONG_SECONDS)
        return 1

    @task
    def second(x):
        order.append("second")
        late()  # a new one

    @task
    def third(x):
        order.append("third")

    @task
    def late():
        order.append("late")

    def done():
        return {
            run.task_name for run in registry.list_task_runs(TaskRunFilter(states=["completed"]))
        }

    def resume():
        run = paused()
        may_end.set()
        until(lambda: done() == {"first", "third"}, "submitted tasks have finished", told=done)
        order.append("resumed")
        resume_flow_run(run.id)

    @flow(task_runner=ConcurrentTaskRunner)
    def runs():
        upstream = first.submit()
        second.submit(upstream)
        third.submit(upstream)
        pause_flow_run(**PAUSE)

    meanwhile(resume)
    assert runs(return_state=True).name == "Completed"
    assert sorted(order[:2]) == ["second", "third"]
    assert order[2:] == ["resumed", "late"]


def test_a_pause_that_was_answered_before_says_nothing_more(registry, resumes):
    resumes(None)

    @flow
    def runs():
        for _ in range(3):
            pause_flow_run(key="once", **PAUSE)

    runs()
    registry.flush_logs()
    lines = [line.message for line in registry.read_logs(only(registry).id)]
    assert lines.count("Resumed") == 1
