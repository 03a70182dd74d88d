"""What others do to a flow run: pause it from outside, resume it, and come too late."""

import asyncio
import contextvars
import threading
from datetime import timedelta

import pytest

from prefectlite import flow, pause_flow_run, resume_flow_run, task
from prefectlite.clock import now
from prefectlite.context import get_run_context
from prefectlite.errors import FlowPauseTimeout
from prefectlite.liveness import own_identity
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import Running

#: Much longer than any test may take: nothing here waits for the end of it.
LONG_SECONDS = 50
UNRESUMED = "The flow was paused and never resumed."


def outside(function, *arguments, **keywords):
    """Call a function as code that is in no run would."""
    return contextvars.Context().run(lambda: function(*arguments, **keywords))


def pause(registry, name="runs", *, timeout=LONG_SECONDS):
    """Pause the run of a flow from outside."""
    assert outside(pause_flow_run, only(registry, name).id, timeout=timeout) is None


def only(registry, name="runs"):
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=[name]))
    return run


def names(registry, name="runs"):
    return [change.state.name for change in registry.state_history(only(registry, name))]


# Where it stops

started = []


@task
def works(x=0):
    started.append(get_run_context().flow_run_context.flow_run.state.name)


@task
async def aworks(x=0):
    works.fn()


@task
def yields():
    works.fn()
    yield 1


@task(cache_key_fn=lambda *_: "the key")
def cached():
    works.fn()


@flow
def inner():
    started.append("Running")


@flow
async def ainner():
    started.append("Running")


async def acall():
    await aworks()


async def asubmit():
    await (await aworks.submit()).wait()


async def amap():
    for future in await aworks.map([1]):
        await future.wait()


async def call_from_coroutine():
    works()


async def submit_from_coroutine():
    works.submit()


async def subflow_from_coroutine():
    await ainner()


def in_own_thread():
    thread = threading.Thread(target=works)
    thread.start()
    thread.join(LONG_SECONDS)


def submit():
    works.submit().wait()


def map_():
    works.map([1])[0].wait()


def generate():
    list(yields())


WAYS = {
    "call": works,
    "submit": submit,
    "map": map_,
    "generator": generate,
    "cached": cached,
    "subflow": inner,
    "thread": in_own_thread,
    "async call": acall,
    "async submit": asubmit,
    "async map": amap,
    "call in coroutine": call_from_coroutine,
    "submit in coroutine": submit_from_coroutine,
    "async subflow": subflow_from_coroutine,
}


@pytest.fixture(autouse=True)
def _nothing_has_started():
    started.clear()


@pytest.mark.parametrize("way", WAYS)
def test_a_flow_that_is_paused_from_outside_stops_at_its_next_task(registry, meanwhile, held, way):
    body = WAYS[way]

    def resume():
        run = held()
        assert (run.state.name, started, registry.list_task_runs()) == ("Paused", [], [])
        assert run.state.message.startswith("It stops at its next task. It waits to be resumed by")
        resumed_at.append(now())
        resume_flow_run(run.id)

    resumed_at = []
    meanwhile(resume)
    if asyncio.iscoroutinefunction(body):

        @flow
        async def runs():
            pause(registry)
            await body()

        state = asyncio.run(runs(return_state=True))
    else:

        @flow
        def runs():
            pause(registry)
            body()

        state = runs(return_state=True)
    assert (state.name, started) == ("Completed", ["Running"])
    assert names(registry) == ["Running", "Paused", "Running", "Completed"]
    for run in registry.list_task_runs():
        assert run.created_at >= resumed_at[0]
        assert run.created_at <= run.started_at <= run.ended_at


def test_a_task_that_calls_a_task_stops_there_too(registry, meanwhile, held):
    @task
    def outer():
        pause(registry)
        works()

    def resume():
        run = held()
        assert started == []
        resume_flow_run(run.id)

    meanwhile(resume)
    flow(lambda: outer(), name="runs")()  # noqa: PLW0108 - not the task itself
    assert names(registry) == ["Running", "Paused", "Running", "Completed"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_generator_flows_stop_at_their_next_task_too(registry, meanwhile, held, kind):
    @flow(name="runs")
    def runs():
        yield pause(registry)
        yield works()

    @flow(name="runs")
    async def aruns():
        yield pause(registry)
        yield await aworks()

    async def take():
        return [item async for item in aruns()]

    meanwhile(lambda: resume_flow_run(held().id))
    assert (list(runs()) if kind == "sync" else asyncio.run(take())) == [None, None]
    assert len(started) == 1
    assert names(registry) == ["Running", "Paused", "Running", "Completed"]


def test_other_coroutines_go_on_while_an_async_flow_is_held(registry, meanwhile, held):
    async def other():
        await asyncio.sleep(0)
        run = await asyncio.to_thread(held)
        resume_flow_run(run.id)

    @flow
    async def runs():
        pause(registry)
        await aworks()

    async def both():
        other_one = contextvars.Context().run(asyncio.ensure_future, other())
        await runs()
        await other_one

    asyncio.run(both())
    assert names(registry) == ["Running", "Paused", "Running", "Completed"]


def test_tasks_that_were_submitted_finish_with_their_retries(registry, meanwhile, held):
    told, is_paused = [], threading.Event()

    @task(retries=1)
    def flaky():
        assert is_paused.wait(LONG_SECONDS)
        told.append(only(registry).state.name)
        if len(told) == 1:
            raise ValueError

    @task
    def later(x):
        told.append("later")
        is_done.set()

    @flow
    def runs():
        later.submit(flaky.submit())
        pause(registry)
        is_paused.set()
        works()

    def resume():
        assert is_done.wait(LONG_SECONDS)
        assert (told, started) == (["Paused", "Paused", "later"], [])
        resume_flow_run(held().id)

    is_done = threading.Event()
    meanwhile(resume)
    assert runs(return_state=True).name == "Completed"


@pytest.mark.parametrize("ending", ["Completed", "Failed"])
def test_a_flow_that_comes_to_no_other_task_ends_while_it_is_paused(registry, ending):
    may_end = threading.Event()

    @task
    def first():
        assert may_end.wait(LONG_SECONDS)

    @flow
    def runs():
        first.submit()
        pause(registry)
        may_end.set()
        if ending == "Failed":
            raise ValueError

    assert runs(return_state=True).name == ending
    assert names(registry) == ["Running", "Paused", ending]
    assert registry.list_task_runs()[0].state.name == "Completed"


def test_a_flow_that_was_resumed_before_it_came_to_a_task_does_not_stop(registry):
    @flow
    def runs():
        pause(registry)
        outside(resume_flow_run, only(registry).id)
        works()

    assert runs(return_state=True).name == "Completed"
    assert names(registry) == ["Running", "Paused", "Running", "Completed"]


def test_a_flow_may_be_paused_and_resumed_again_and_again_between_two_tasks(
    registry, meanwhile, held, monkeypatch
):
    attempts, is_paused_again = [], threading.Event()
    create = registry.create_task_runs

    def create_late(task_runs):
        attempts.append(1)
        if len(attempts) > 2:  # those of the first task, and of the second before it was held
            assert is_paused_again.wait(LONG_SECONDS)
        return create(task_runs)

    monkeypatch.setattr(registry, "create_task_runs", create_late)

    def resume():
        run = held()
        assert started == ["Running"]
        resume_flow_run(run.id)
        pause_flow_run(run.id, timeout=LONG_SECONDS)
        is_paused_again.set()
        run = held(but=[run.state_version])
        assert started == ["Running"]
        resume_flow_run(run.id)

    @flow
    def runs():
        works()
        for _ in range(2):
            pause(registry)
            outside(resume_flow_run, only(registry).id)
        pause(registry)
        works()

    meanwhile(resume)
    assert runs(return_state=True).name == "Completed"
    assert names(registry) == ["Running", *["Paused", "Running"] * 4, "Completed"]
    assert started == ["Running", "Running"]


def test_a_pause_of_its_own_waits_for_the_one_from_outside_first(registry, meanwhile, held, paused):
    def resume():
        resume_flow_run(held().id)
        resume_flow_run(paused(but=[2]).id)

    @flow
    def runs():
        pause(registry)
        pause_flow_run(timeout=LONG_SECONDS)

    meanwhile(resume)
    runs()
    assert names(registry) == ["Running", *["Paused", "Running"] * 2, "Completed"]


def test_a_parent_that_is_paused_leaves_its_subflow_alone(registry, meanwhile, held):
    @flow
    def child():
        pause(registry)
        works()

    @flow
    def runs():
        child()
        works()

    def resume():
        run = held()
        assert (started, only(registry, "child").state.name) == (["Running"], "Completed")
        resume_flow_run(run.id)

    meanwhile(resume)
    assert runs(return_state=True).name == "Completed"
    assert names(registry, "child") == ["Running", "Completed"]


# Not resumed


@pytest.mark.parametrize("way", ["call", "submit", "map", "cached", "subflow", "async call"])
def test_a_flow_that_nobody_resumes_after_a_pause_from_outside_fails_at_its_next_task(
    registry, way
):
    body = WAYS[way]

    @flow(retries=2, name="runs")
    def runs():
        pause(registry, timeout=0.05)
        body()

    @flow(retries=2, name="runs")
    async def aruns():
        pause(registry, timeout=0.05)
        await body()

    is_async = asyncio.iscoroutinefunction(body)
    state = asyncio.run(aruns(return_state=True)) if is_async else runs(return_state=True)
    assert str(state) == f"Failed('{UNRESUMED}')"
    with pytest.raises(FlowPauseTimeout, match=UNRESUMED):
        state.result()
    assert (started, registry.list_task_runs()) == ([], [])
    changes = [change.state for change in registry.state_history(only(registry))]
    assert [change.name for change in changes] == ["Running", "Paused", "Failed"]
    assert changes[2].timestamp == changes[1].timestamp + timedelta(seconds=0.05)


def test_a_flow_that_computes_past_the_deadline_of_its_pause_has_failed(registry, until):
    @flow
    def runs():
        pause(registry, timeout=0.01)
        until(lambda: now() > registry.pauses.find_pause(only(registry).id).resume_by)
        with pytest.raises(FlowPauseTimeout):
            outside(resume_flow_run, only(registry).id)
        return 1

    with pytest.raises(Exception, match=UNRESUMED):
        runs()
    assert names(registry) == ["Running", "Paused", "Failed"]


def test_a_coroutine_may_await_what_it_does_to_another_run(registry):
    run = FlowRun(id=new_id(), name="b", flow_name="runs", state=Running(), process=own_identity())
    registry.create_flow_run(run)

    async def changes():
        assert await pause_flow_run(run.id) is None
        assert await resume_flow_run(run.id) is None

    asyncio.run(changes())
    assert names(registry) == ["Running", "Paused", "Running"]
