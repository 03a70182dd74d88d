"""What a flow and its subflow are told that are cancelled one after the other: once each, as they end."""

import asyncio
import os
import signal
import threading
import time

import pytest

from prefectlite import flow, stops, task
from prefectlite.context import get_run_context
from prefectlite.errors import CancelledRun
from prefectlite.states import Cancelling

LONG_SECONDS = 20
#: How long the code of a flow cleans up in which a second interruption would land at once.
CLEAN_UP_SECONDS = 0.3
ENDED = "It ended by itself, as it was asked to."
ORDERS = ["the flow first", "the subflow first"]


@task
def step():
    return 1


def cancel(context):
    context.registry.change_state(context.flow_run, Cancelling("asked by a test"))


def runs_in_order(order):
    """Return the contexts of the flow around this one and of this one, as they are to be cancelled."""
    contexts = [get_run_context().parent, get_run_context()]
    return contexts if order == "the flow first" else contexts[::-1]


def until(condition):
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline


def is_over(seconds):
    moment = time.monotonic() + seconds
    return lambda: time.monotonic() >= moment


async def auntil(condition):
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


def called(function, where):
    """Call it here, or in another thread; return the outcome."""
    if where == "main":
        return function()
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(function()))
    thread.start()
    thread.join(LONG_SECONDS)
    return outcomes[0]


def name_of(error):
    return type(error).__name__


def assert_cancelled(registry, names):
    found = {
        run.flow_name: (run.state.name, run.state.message) for run in registry.list_flow_runs()
    }
    assert found == dict.fromkeys(names, ("Cancelled", ENDED))


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_flow_and_its_subflow_that_are_cancelled_one_after_the_other_are_told_once(
    registry, order, where
):
    told = []

    @flow
    def sub():
        first, second = runs_in_order(order)
        try:
            cancel(first)
            until(lambda: False)
        except BaseException as error:
            told.append(f"sub: {name_of(error)}")
            cancel(second)
            until(lambda: second.is_cancelled)
            until(is_over(CLEAN_UP_SECONDS))
            told.append("sub has cleaned up")
            raise

    @flow
    def runs():
        try:
            sub()
        except BaseException as error:
            told.append(f"runs: {name_of(error)}")
            until(is_over(CLEAN_UP_SECONDS))
            told.append("runs has cleaned up")
            raise

    assert called(lambda: runs(return_state=True), where).message == ENDED
    interrupted = "CancelInterrupt"
    assert told == [
        f"sub: {interrupted}", "sub has cleaned up", f"runs: {interrupted}", "runs has cleaned up"
    ]  # fmt: skip
    assert_cancelled(registry, ["runs", "sub"])


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize(
    ("order", "how"),
    # One that is gathered, and cleans up, gets its flow's cancellation all the same, as the others do.
    [(ORDERS[0], "awaited"), (ORDERS[0], "gathered"), (ORDERS[1], "awaited")],
)
def test_an_async_flow_and_its_subflow_that_are_cancelled_one_after_the_other_are_told_once(
    registry, order, how, where
):
    told = []

    @flow
    async def sub():
        first, second = runs_in_order(order)
        try:
            cancel(first)
            await auntil(lambda: False)
        except BaseException as error:
            told.append(f"sub: {name_of(error)}")
            cancel(second)
            await auntil(lambda: second.is_cancelled)
            await auntil(is_over(CLEAN_UP_SECONDS))
            told.append("sub has cleaned up")
            raise

    @flow
    async def runs():
        try:
            await (sub() if how == "awaited" else asyncio.gather(sub()))
        except BaseException as error:
            told.append(f"runs: {name_of(error)}")
            await auntil(is_over(CLEAN_UP_SECONDS))
            told.append("runs has cleaned up")
            raise

    async def main():
        state = await runs(return_state=True)
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0
        return state

    assert called(lambda: asyncio.run(main()), where).message == ENDED
    interrupted = "CancelledError"
    assert told == [
        f"sub: {interrupted}", "sub has cleaned up", f"runs: {interrupted}", "runs has cleaned up"
    ]  # fmt: skip
    assert_cancelled(registry, ["runs", "sub"])


def test_what_an_async_flow_gathers_is_cancelled_with_it_though_one_of_them_cleans_up(
    registry, monkeypatch
):
    monkeypatch.setattr(stops, "REPEAT_SECONDS", 3 * LONG_SECONDS)
    told, contexts = [], []

    @flow
    async def sub(number):
        contexts.append(get_run_context())
        try:
            await auntil(lambda: False)
        except asyncio.CancelledError:
            told.append(number)
            if number == 1:
                await auntil(lambda: 2 in told)
            raise

    async def conduct(context):
        await auntil(lambda: len(contexts) == 2)
        cancel(contexts[0])
        await auntil(lambda: told)
        cancel(context)

    @flow
    async def runs():
        await asyncio.gather(sub(1), sub(2), conduct(get_run_context()))

    assert asyncio.run(runs(return_state=True)).message == ENDED
    assert told == [1, 2]
    assert {run.state.name for run in registry.list_flow_runs()} == {"Cancelled"}


@pytest.mark.parametrize("order", ORDERS)
def test_a_flow_and_its_subflow_that_are_cancelled_at_once_are_told_once(registry, order):
    told = []

    @flow
    def sub():
        try:
            for context in runs_in_order(order):
                cancel(context)
            step()
        except BaseException as error:
            until(is_over(CLEAN_UP_SECONDS))
            told.append(name_of(error))
            raise

    @flow
    def runs():
        sub()

    assert runs(return_state=True).message == ENDED
    assert told == ["CancelInterrupt"]


def test_a_flow_whose_subflow_was_cancelled_too_and_swallows_it_is_told_when_that_has_ended(
    registry, monkeypatch
):
    monkeypatch.setattr(stops, "REPEAT_SECONDS", 3 * LONG_SECONDS)
    told = []

    @flow
    def sub():
        try:
            cancel(get_run_context())
            until(lambda: False)
        except BaseException:
            cancel(get_run_context().parent)
            until(lambda: get_run_context().parent.is_cancelled)
            until(is_over(CLEAN_UP_SECONDS))
            return "swallowed"

    @flow
    def runs():
        told.append(sub())
        try:
            until(lambda: False)
        except BaseException as error:
            told.append(name_of(error))
            raise

    assert runs(return_state=True).message == ENDED
    assert told == ["swallowed", "CancelInterrupt"]


@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_flow_that_is_cancelled_just_after_its_subflow_was_is_told_at_once(
    registry, monkeypatch, where
):
    monkeypatch.setattr(stops, "REPEAT_SECONDS", 3 * LONG_SECONDS)
    told = []

    @flow
    def sub():
        cancel(get_run_context())
        until(lambda: False)

    @flow
    def runs():
        try:
            sub()
        except CancelledRun as error:
            told.append(name_of(error))
        cancel(get_run_context())
        try:
            step()
            until(lambda: False)
        except BaseException as error:
            told.append(name_of(error))
            raise

    assert called(lambda: runs(return_state=True), where).message == ENDED
    assert told == ["CancelledRun", "CancelInterrupt"]


def test_what_else_ends_a_subflow_does_not_count_as_the_cancellation_of_its_flow(
    registry, monkeypatch
):
    monkeypatch.setattr(stops, "REPEAT_SECONDS", 3 * LONG_SECONDS)
    told, poke = [], stops.poke_main_thread

    @flow
    def sub():
        monkeypatch.setattr(stops, "poke_main_thread", lambda: None)
        cancel(get_run_context().parent)
        until(lambda: get_run_context().parent.is_cancelled)
        raise SystemExit(3)

    @flow
    def runs():
        try:
            sub()
        except SystemExit as error:
            told.append(name_of(error))
        poke()
        try:
            until(lambda: False)
        except BaseException as error:
            told.append(name_of(error))
            raise

    assert runs(return_state=True).message == ENDED
    assert told == ["SystemExit", "CancelInterrupt"]


@pytest.fixture
def stuck():
    """Return a task with a subflow that has a run cancelled, and then ends with the test; and when it is told."""
    has_ended = threading.Event()

    def make(find):
        is_told = threading.Event()

        @flow
        def sub():
            try:
                cancel(find(get_run_context()))
                until(lambda: False)
            finally:
                is_told.set()
                has_ended.wait(LONG_SECONDS)

        @task
        def calls():
            sub()

        return calls, is_told

    yield make
    has_ended.set()


def test_a_subflow_in_a_thread_that_takes_too_long_to_clean_up_is_cancelled_with_its_flow(
    registry, stuck
):
    calls, _ = stuck(lambda context: context.parent.flow_run_context)

    @flow
    def runs():
        calls.submit()

    assert runs(return_state=True).message == ENDED
    assert {run.state.name for run in registry.list_flow_runs()} == {"Cancelled"}
    assert {run.state.name for run in registry.list_task_runs()} == {"Cancelled"}


def test_a_subflow_whose_thread_was_given_up_on_keeps_sigterm_from_no_later_flow(registry, stuck):
    calls, is_told = stuck(lambda context: context)

    @flow
    def runs():
        calls.submit()
        assert is_told.wait(LONG_SECONDS)
        raise KeyboardInterrupt

    @flow
    def later():
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: False)

    with pytest.raises(KeyboardInterrupt):
        runs()
    with pytest.raises(SystemExit):
        later()


@pytest.mark.parametrize("where", ["main", "thread"])
def test_who_takes_the_items_of_a_flow_that_is_cancelled_between_two_is_not_interrupted(
    registry, where
):
    told = []

    @flow
    def sub():
        context = get_run_context()
        yield lambda: cancel(context)
        try:
            yield lambda: until(lambda: context.is_cancelled) or until(is_over(CLEAN_UP_SECONDS))
            until(lambda: False)
        except BaseException as error:
            told.append(f"sub: {name_of(error)}")
            raise

    @flow
    def runs():
        try:
            for do in sub():
                do()
        except BaseException as error:
            told.append(f"runs: {name_of(error)}")
        return "went on"

    assert called(lambda: runs(return_state=True), where).is_completed()
    assert told == ["sub: CancelInterrupt", "runs: CancelledRun"]
    found = {run.flow_name: run.state.name for run in registry.list_flow_runs()}
    assert found == {"runs": "Completed", "sub": "Cancelled"}
