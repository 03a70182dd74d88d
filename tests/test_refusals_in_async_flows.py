"""What an async flow is told that calls a task or a subflow while it is being cancelled."""

import asyncio
import threading
import time

import pytest

from prefectlite import flow, task
from prefectlite.context import get_run_context
from prefectlite.states import Cancelling

LONG_SECONDS = 20
#: How long the code of a flow cleans up in which a second interruption would land at once.
CLEAN_UP_SECONDS = 0.3
ENDED = "It ended by itself, as it was asked to."


@task
def step():
    return 1


@task
async def astep():
    return 1


@flow
def inner():
    return 1


def cancel():
    """Put on record that the flow run which this code is in is being cancelled."""
    context = get_run_context().flow_run_context
    return context.registry.change_state(context.flow_run, Cancelling("asked by a test"))


async def clean_up():
    until = time.monotonic() + CLEAN_UP_SECONDS
    while time.monotonic() < until:
        await asyncio.sleep(0)


def name_of(error):
    return type(error).__name__


def call_in_thread(function):
    outcome = []

    def call():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(LONG_SECONDS)
    return outcome[0]


def states(registry):
    flow_runs = {run.flow_name: run.state.name for run in registry.list_flow_runs()}
    return flow_runs | {run.task_name: run.state.name for run in registry.list_task_runs()}


ASYNC_WAYS = {
    "awaited": astep,
    "submitted": astep.submit,
    "gathered": lambda: asyncio.gather(astep(), astep()),
    "blocking": lambda: asyncio.sleep(0, step()),
    "in a thread": lambda: asyncio.to_thread(step),
    "a subflow": lambda: asyncio.sleep(0, inner()),
}


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_an_async_flow_whose_call_is_refused_is_cancelled_once(registry, way, where):
    told = []

    @flow
    async def runs():
        try:
            cancel()
            await ASYNC_WAYS[way]()
            told.append("went on")
        except BaseException as error:
            told.append(name_of(error))
            raise
        finally:
            await clean_up()
            told.append("finally")

    async def main():
        state = await runs(return_state=True)
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0
        return state

    def call():
        return asyncio.run(main())

    state = call() if where == "main" else call_in_thread(call)
    assert (state.name, state.message) == ("Cancelled", ENDED)
    blocks = way in ("blocking", "a subflow")
    assert told == ["CancelInterrupt" if blocks else "CancelledError", "finally"]
    assert states(registry) == {"runs": "Cancelled"}


@pytest.mark.parametrize("blocks", [False, True])
def test_an_async_flow_that_swallows_it_is_cancelled_again(registry, monkeypatch, blocks):
    monkeypatch.setattr("prefectlite.stops.REPEAT_SECONDS", 0.2)
    told = []

    @flow
    async def runs():
        until = time.monotonic() + LONG_SECONDS
        while len(told) < 3 and time.monotonic() < until:
            try:
                if not told:
                    cancel()
                    await astep()
                while time.monotonic() < until:
                    await asyncio.sleep(0) if not blocks else time.sleep(0.001)
            except BaseException as error:
                told.append(name_of(error))

    asyncio.run(runs(return_state=True))
    repeats = ["CancelInterrupt"] if blocks else ["CancelledError"]
    assert told == ["CancelledError"] + repeats * 2


def test_a_submitted_async_task_ends_where_it_calls_one_and_nothing_is_left_untold(
    registry, capsys
):
    @task
    async def works():
        cancel()
        await astep()

    @flow
    async def runs():
        future = await works.submit()
        await future.result()

    assert asyncio.run(runs(return_state=True)).message == ENDED
    assert states(registry) == {"runs": "Cancelled", "works": "Cancelled"}
    assert "never retrieved" not in capsys.readouterr().err
