import asyncio
import threading

import pytest

from prefectlite import allow_failure, flow, task, unmapped
from prefectlite.context import get_run_context
from prefectlite.errors import UpstreamTaskError, UsageError
from prefectlite.futures import AsyncTaskFuture, TaskFuture
from prefectlite.task_runners import SequentialTaskRunner

WAIT_SECONDS = 30


@task
async def double(x):
    await asyncio.sleep(0)
    return x * 2


@task
def triple(x):
    return x * 3


@task
async def fails(*_):
    await asyncio.sleep(0)
    raise ValueError("bad luck")


def history(registry, run):
    return [change.state.name for change in registry.state_history(run)]


def test_an_async_flow_and_task_give_what_they_return_and_are_on_record(registry):
    @flow
    async def calls(x: int):
        return await double(x)

    assert asyncio.run(calls("3")) == 6
    (flow_run,), (task_run,) = registry.list_flow_runs(), registry.list_task_runs()
    assert history(registry, flow_run) == ["Running", "Completed"]
    assert history(registry, task_run) == ["Running", "Completed"]


def test_return_state_and_errors_are_as_in_sync_code(registry):
    @flow
    async def calls():
        assert (await double(1, return_state=True)).result() == 2
        assert (await fails(return_state=True)).is_failed()
        assert (await double.submit(1, return_state=True)).result() == 2
        states = await double.map([1, 2], return_state=True)
        assert [state.result() for state in states] == [2, 4]
        with pytest.raises(ValueError, match="bad luck"):
            await fails()
        raise KeyError("mine")

    state = asyncio.run(calls(return_state=True))
    assert state.is_failed()
    with pytest.raises(KeyError):
        asyncio.run(calls())


def test_gathered_calls_run_at_the_same_time_in_contexts_of_their_own(registry):
    @flow
    async def calls():
        meeting = asyncio.Barrier(5)

        @task
        async def meet(x):
            before = get_run_context().task_run.name
            async with asyncio.timeout(WAIT_SECONDS):
                await meeting.wait()
            assert get_run_context().task_run.name == before
            return before

        return set(await asyncio.gather(*[meet(x) for x in range(5)]))

    assert asyncio.run(calls()) == {f"meet-{n}" for n in range(5)}


def test_submitted_and_mapped_tasks_run_at_the_same_time(registry):
    @flow
    async def calls():
        meeting = asyncio.Barrier(6)

        @task
        async def meet(x):
            async with asyncio.timeout(WAIT_SECONDS):
                await meeting.wait()
            return x

        futures = [await meet.submit(0), *await meet.map([1, 2, 3, 4, 5])]
        assert all(isinstance(future, AsyncTaskFuture) for future in futures)
        assert not any(future.is_done for future in futures)
        return [await future.result() for future in futures]

    assert asyncio.run(calls()) == [0, 1, 2, 3, 4, 5]
    assert registry.count_task_runs(registry.list_flow_runs()[0].id) == {"Completed": 6}


def test_an_async_future_is_awaited_in_every_way(registry):
    @flow
    async def calls():
        may_end = asyncio.Event()

        @task
        async def waits():
            await may_end.wait()
            return 5

        future = await waits.submit()
        assert await future.wait(timeout=0.01) is None
        with pytest.raises(TimeoutError, match="waits-0"):
            await future.result(timeout=0.01)
        may_end.set()
        assert (await future.wait()).is_completed()
        assert future.get_state().is_completed()
        bad = await fails.submit()
        assert isinstance(await bad.result(raise_on_failure=False), ValueError)
        return await future, await future.result(timeout=0)

    assert asyncio.run(calls()) == (5, 5)


def test_futures_as_arguments_are_resolved_on_the_loop(registry):
    @flow
    async def calls():
        first = await double.submit(1)
        second = await double.submit(first)
        third = await double.map([first, second], wait_for=[second])
        fourth = await double.map(await pair.submit(2))
        mixed = await double.submit(triple.submit(2))
        whole = await show.map([1, 2], unmapped(first))
        return (
            await second.result(),
            [await future.result() for future in (*third, *fourth)],
            await mixed.result(),
            await double(first),
            [await future.result() for future in whole],
        )

    @task
    async def show(*args):
        return args

    @task
    async def pair(x):
        return [x, x * 2]

    assert asyncio.run(calls()) == (4, [4, 8, 4, 8], 12, 4, [(1, 2), (2, 2)])


def test_an_upstream_failure_is_not_ready_here_too(registry):
    @task
    async def kind(value):
        return type(value).__name__

    @flow
    async def calls():
        bad = await fails.submit()
        with pytest.raises(UpstreamTaskError, match="fails-0"):
            await (await double.submit(bad)).result()
        with pytest.raises(UpstreamTaskError, match="fails-0"):
            await double(bad)
        assert (await double.submit(bad, return_state=True)).name == "NotReady"
        return await (await kind.submit(allow_failure(bad))).result()

    assert asyncio.run(calls()) == "ValueError"
    (flow_run,) = registry.list_flow_runs()
    assert registry.count_task_runs(flow_run.id) == {"Completed": 1, "Failed": 1, "NotReady": 3}


def test_sync_tasks_work_in_an_async_flow(registry):
    @flow
    async def calls():
        direct = triple(1)
        future = triple.submit(2)
        assert type(future) is TaskFuture
        mapped = [one.result() for one in triple.map([3, 4])]
        return direct, future.result(), mapped

    assert asyncio.run(calls()) == (3, 6, [9, 12])


def test_an_unfinished_async_future_in_a_sync_call_is_an_error_and_no_deadlock(registry):
    @flow
    async def calls():
        future = await double.submit(1)
        with pytest.raises(UsageError, match="double-0"):
            triple(future)
        with pytest.raises(UsageError, match="double-0"):
            triple.map(future)
        await future
        return triple(future)

    assert asyncio.run(calls()) == 6


def test_async_tasks_work_in_a_sync_flow_when_submitted(registry):
    @flow
    def calls():
        future = double.submit(1)
        assert type(future) is TaskFuture
        mapped = double.map([2, future])
        return future.result(), [one.result() for one in mapped], triple.submit(future).result()

    assert calls() == (2, [4, 4], 6)


def test_an_async_task_can_be_run_by_a_loop_of_the_users_in_a_sync_flow(registry):
    @flow
    def calls():
        return asyncio.run(double(4))

    assert calls() == 8


def test_async_and_sync_subflows_work_in_an_async_flow(registry):
    @flow
    async def async_child(x):
        return await double(x)

    @flow
    def sync_child(x):
        return triple.submit(x).result()

    @flow
    async def parent():
        first, second = await asyncio.gather(async_child(1), async_child(2))
        return first, second, sync_child(3)

    assert asyncio.run(parent()) == (2, 4, 9)
    runs = registry.list_flow_runs()
    (parent_run,) = [run for run in runs if run.flow_name == "parent"]
    assert [run.parent_flow_run_id for run in runs].count(parent_run.id) == 3


def test_nested_async_tasks_have_their_parent(registry):
    @task
    async def outer(x):
        return await double(x) + await (await double.submit(x)).result()

    @flow
    async def calls():
        return await outer(1) + await (await outer.submit(1)).result()

    assert asyncio.run(calls()) == 8
    outers = {run.id for run in registry.list_task_runs() if run.task_name == "outer"}
    inner = [run for run in registry.list_task_runs() if run.task_name == "double"]
    assert {run.parent_task_run_id for run in inner} == outers


def test_retries_work(registry):
    attempts = []

    @task(retries=2, retry_delay_seconds=0.001)
    async def flaky():
        attempts.append(1)
        if len(attempts) % 3:
            raise ValueError("x")
        return len(attempts)

    @flow
    async def calls():
        return await flaky(), await (await flaky.submit()).result()

    assert asyncio.run(calls()) == (3, 6)
    assert {run.run_count for run in registry.list_task_runs()} == {3}


def test_the_flows_state_rests_on_all_its_tasks_though_nobody_waits(registry):
    @flow
    async def calls():
        await double.map(range(10))
        await fails.submit()
        await double(1)

    state = asyncio.run(calls(return_state=True))
    assert str(state) == "Failed('1/12 states failed.')"


def test_a_returned_async_future_is_waited_for(registry):
    @flow
    async def one():
        return await double.submit(2)

    @flow
    async def many():
        return await double.map([1, 2])

    assert asyncio.run(one()) == 4
    assert [state.result() for state in asyncio.run(many())] == [2, 4]


def test_a_sequential_runner_runs_async_tasks_one_after_the_other(registry):
    order = []

    @task
    async def note(x):
        order.append(f"{x} begins")
        await asyncio.sleep(0)
        order.append(f"{x} ends")

    @flow(task_runner=SequentialTaskRunner)
    async def calls():
        await note.map([1, 2])
        order.append("after")

    asyncio.run(calls())
    assert order == ["1 begins", "1 ends", "2 begins", "2 ends", "after"]


def test_an_async_flow_works_in_any_thread_and_twice_on_one_loop(registry):
    @flow
    async def calls(x):
        return await (await double.submit(x)).result()

    async def twice():
        return await asyncio.gather(calls(1), calls(2))

    results = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(twice())))
    thread.start()
    thread.join(WAIT_SECONDS)
    assert results == [[2, 4]]
    assert {run.parent_flow_run_id for run in registry.list_flow_runs()} == {None}


def test_a_flow_whose_asyncio_task_is_cancelled_is_crashed_with_its_tasks(registry):
    @flow
    async def calls():
        await waits.submit()
        dependent = await double.submit(await waits.submit())
        started.set()
        await dependent

    @task
    async def waits():
        await asyncio.Event().wait()

    async def main():
        running = asyncio.ensure_future(calls())
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    started = asyncio.Event()
    asyncio.run(main())
    (flow_run,) = registry.list_flow_runs()
    assert flow_run.state.name == "Crashed"
    assert "event loop" in flow_run.state.message
    assert all(run.state.is_final() for run in registry.list_task_runs())


def test_a_future_that_settles_after_its_waiter_has_gone_harms_nobody(registry):
    may_end = threading.Event()

    @task
    def slow():
        assert may_end.wait(WAIT_SECONDS)
        return 1

    async def gives_up(future):
        async with asyncio.timeout(0.01):
            await double(future)

    @flow
    def calls():
        future = slow.submit()
        with pytest.raises(TimeoutError):
            asyncio.run(gives_up(future))
        dependent = triple.submit(future)
        may_end.set()
        return future.result(), dependent.result()

    assert calls() == (1, 3)
