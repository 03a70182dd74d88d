import asyncio
import time

import pytest

from prefectlite import flow, task, timeouts

LONG_SECONDS = 20
SHORT_SECONDS = 0.1


def ends_early(flow_):
    """Run an async flow and return its state; it must not have taken its whole time."""
    started = time.monotonic()
    state = asyncio.run(flow_(return_state=True))
    assert time.monotonic() - started < LONG_SECONDS - 5
    return state


def recorded(registry):
    runs = [*registry.list_flow_runs(limit=None), *registry.list_task_runs(limit=None)]
    return {run.name: run.state.name for run in runs}


def test_a_coroutine_is_cancelled_at_its_deadline(registry):
    @flow(timeout_seconds=SHORT_SECONDS)
    async def waits():
        await asyncio.sleep(LONG_SECONDS)

    state = ends_early(waits)
    assert (state.name, state.message) == ("TimedOut", "Flow run exceeded timeout of 0.1 seconds")
    with pytest.raises(TimeoutError, match=r"^Flow run exceeded timeout of 0\.1 seconds$"):
        asyncio.run(waits())


def test_a_coroutine_that_blocks_its_loop_is_interrupted(registry):
    @flow(timeout_seconds=SHORT_SECONDS)
    async def blocks():
        time.sleep(LONG_SECONDS)

    assert ends_early(blocks).name == "TimedOut"


@pytest.mark.parametrize("blocking_first", [True, False])
def test_a_task_that_blocks_the_loop_is_interrupted_beside_others(registry, blocking_first):
    @task(timeout_seconds=SHORT_SECONDS)
    async def blocks():
        time.sleep(LONG_SECONDS)

    @task(timeout_seconds=SHORT_SECONDS)
    async def waits():
        await asyncio.sleep(LONG_SECONDS)

    @flow
    async def both():
        runs = [blocks(return_state=True), waits(return_state=True)]
        return await asyncio.gather(*(runs if blocking_first else reversed(runs)))

    assert ends_early(both).name == "Failed"
    assert sorted(recorded(registry).values()) == ["Failed", "TimedOut", "TimedOut"]


def test_a_deadline_of_the_flow_reaches_a_task_that_blocks_its_loop(registry):
    @task
    async def blocks():
        time.sleep(LONG_SECONDS)

    @flow(timeout_seconds=SHORT_SECONDS)
    async def gathers():
        await asyncio.gather(blocks(), asyncio.sleep(LONG_SECONDS))

    state = ends_early(gathers)
    assert state.name == "TimedOut"
    assert recorded(registry)["blocks-0"] == "Crashed"


def test_a_coroutine_that_swallows_its_cancellation_has_timed_out_all_the_same(registry):
    @flow(timeout_seconds=SHORT_SECONDS)
    async def stubborn():
        try:
            await asyncio.sleep(LONG_SECONDS)
        except asyncio.CancelledError:
            return 1

    assert ends_early(stubborn).name == "TimedOut"


def test_a_coroutine_that_goes_on_is_cancelled_again(registry, monkeypatch):
    monkeypatch.setattr(timeouts, "REPEAT_SECONDS", 0.2)
    caught = []

    @flow(timeout_seconds=SHORT_SECONDS)
    async def stubborn():
        while len(caught) < 3:
            try:
                await asyncio.sleep(LONG_SECONDS)
            except asyncio.CancelledError:
                caught.append(True)
        await asyncio.sleep(LONG_SECONDS)

    assert ends_early(stubborn).name == ("TimedOut")
    assert caught == [True] * 3


def test_a_finally_of_a_coroutine_gets_its_time(registry):
    tidied = []

    @flow(timeout_seconds=SHORT_SECONDS)
    async def tidies():
        try:
            await asyncio.sleep(LONG_SECONDS)
        finally:
            until = time.monotonic() + 0.4
            while time.monotonic() < until:
                await asyncio.sleep(0)
            time.sleep(0.1)
            tidied.append(True)

    assert ends_early(tidies).name == "TimedOut"
    assert tidied == [True]


def test_a_timeout_of_asyncio_inside_a_flow_is_the_users_own(registry):
    @flow(timeout_seconds=LONG_SECONDS)
    async def waits():
        async with asyncio.timeout(SHORT_SECONDS):
            await asyncio.sleep(LONG_SECONDS)

    assert ends_early(waits).name == "Failed"


def test_gathered_tasks_time_out_one_by_one(registry):
    @task(timeout_seconds=SHORT_SECONDS)
    async def waits(seconds):
        await asyncio.sleep(seconds)
        return seconds

    @flow
    async def gathers():
        states = await asyncio.gather(
            waits(0, return_state=True), waits(LONG_SECONDS, return_state=True)
        )
        return [state.name for state in states]

    assert asyncio.run(gathers()) == ["Completed", "TimedOut"]


def test_submitted_async_tasks_are_cancelled_when_their_flow_is_over_its_time(registry):
    cancelled = []

    @task
    async def waits():
        try:
            await asyncio.sleep(LONG_SECONDS)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    @flow(timeout_seconds=0.2)
    async def submits():
        await waits.submit()
        await waits.submit()

    assert ends_early(submits).name == "TimedOut"
    assert cancelled == [True, True]
    assert sorted(recorded(registry).values()) == ["Crashed", "Crashed", "TimedOut"]
