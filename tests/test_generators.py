import asyncio
import gc

import pytest

from prefectlite import flow, get_run_logger, task
from prefectlite.context import TaskRunContext, get_run_context
from prefectlite.run_filters import TaskRunFilter


@task
def count(n):
    yield from range(n)
    return "end"


@task
async def acount(n):
    for x in range(n):
        await asyncio.sleep(0)
        yield x


def only_task(registry):
    (run,) = registry.list_task_runs()
    return run


def test_a_generator_flow_gives_its_items_while_it_runs(registry):
    @flow
    def items(n: int):
        for x in range(n):
            yield x, registry.find_flow_run(get_run_context().flow_run.id).state.name
        return "end"

    def consume():
        result = yield from items("2")
        assert result == "end"

    assert list(consume()) == [(0, "Running"), (1, "Running")]
    (run,) = registry.list_flow_runs()
    assert str(run.state) == "Completed()"


def test_nothing_is_on_record_before_the_first_item_is_asked_for(registry):
    @flow
    def items():
        yield 1

    made = items()
    assert registry.list_flow_runs() == []
    assert next(made) == 1
    assert len(registry.list_flow_runs()) == 1
    made.close()


def test_a_generator_task_gives_its_items_and_its_value(registry):
    @flow
    def calls():
        def consume():
            seen.append((yield from count(3)))

        seen = []
        return list(consume()), seen

    assert calls() == ([0, 1, 2], ["end"])
    assert only_task(registry).state.is_completed()


def test_submitted_and_mapped_a_generator_task_gives_the_list_of_its_items(registry):
    @flow
    def calls():
        return [count.submit(2).result(), *[one.result() for one in count.map([1, 0])]]

    assert calls() == [[0, 1], [0], []]


def test_between_items_the_code_belongs_to_the_caller(registry):
    @task
    def looks():
        for _ in range(2):
            yield TaskRunContext.get().task_run.name

    @flow
    def calls():
        seen = []
        for inside in looks():
            seen += [inside, TaskRunContext.get()]
        return seen

    assert calls() == ["looks-0", None, "looks-0", None]


def test_two_generators_can_be_walked_in_step(registry):
    @flow
    def calls():
        return list(zip(count(3), count(3), strict=True))

    assert calls() == [(0, 0), (1, 1), (2, 2)]
    assert {run.state.name for run in registry.list_task_runs()} == {"Completed"}


def test_a_generator_that_fails_is_failed_and_raises_after_its_items(registry):
    error = ValueError("x")

    @task
    def fails():
        yield 1
        raise error

    @flow
    def calls():
        items = fails()
        assert next(items) == 1
        with pytest.raises(ValueError, match="x") as caught:
            next(items)
        return caught.value is error

    assert calls() is True
    assert only_task(registry).state.is_failed()


def test_a_generator_that_is_not_walked_to_its_end_is_completed_and_cleaned_up(registry):
    cleaned = []

    @task
    def items():
        try:
            yield 1
            yield 2
        finally:
            cleaned.append(TaskRunContext.get().task_run.name)

    @flow
    def calls():
        for _ in items():
            break
        gc.collect()

    calls()
    assert cleaned == ["items-0"]
    state = only_task(registry).state
    assert state.is_completed()
    assert "no more" in state.message


def test_what_is_sent_and_thrown_reaches_the_function(registry):
    @task
    def echoes():
        got = []
        try:
            while True:
                got.append((yield len(got)))
        except KeyError:
            got.append("thrown")
            yield got

    @flow
    def calls():
        items = echoes()
        assert next(items) == 0
        assert items.send("a") == 1
        assert items.throw(KeyError("b")) == ["a", "thrown"]
        items.close()

    calls()
    assert only_task(registry).state.is_completed()


def test_a_generator_that_is_tried_again_begins_again(registry):
    attempts = []

    @task(retries=1)
    def flaky():
        attempts.append(1)
        yield "one"
        if len(attempts) == 1:
            raise ValueError("x")
        yield "two"

    @flow
    def calls():
        return list(flaky())

    assert calls() == ["one", "one", "two"]
    assert only_task(registry).run_count == 2


def test_tasks_in_a_generator_flow_belong_to_it_and_count(registry):
    @flow
    def items():
        yield from count(2)
        yield count.submit(1).result()

    assert list(items()) == [0, 1, [0]]
    (run,) = registry.list_flow_runs()
    assert len(registry.list_task_runs(TaskRunFilter(flow_run_ids=[run.id]))) == 2


def test_async_generators_give_their_items_as_flow_and_as_task(registry):
    @flow
    async def items(n):
        async for x in acount(n):
            yield x * 10

    async def main():
        return [x async for x in items(3)]

    assert asyncio.run(main()) == [0, 10, 20]
    assert registry.list_flow_runs()[0].state.is_completed()
    assert only_task(registry).state.is_completed()


def test_an_async_generator_task_submitted_gives_a_list(registry):
    @flow
    async def calls():
        future = await acount.submit(2)
        return await future.result()

    @flow
    def sync_calls():
        return acount.submit(2).result()

    assert asyncio.run(calls()) == [0, 1]
    assert sync_calls() == [0, 1]


def test_an_async_generator_that_fails_is_failed(registry):
    @task
    async def fails():
        yield 1
        raise ValueError("x")

    @flow
    async def calls():
        items = fails()
        first = await anext(items)
        with pytest.raises(ValueError, match="x"):
            await anext(items)
        return first

    assert asyncio.run(calls()) == 1
    assert only_task(registry).state.is_failed()


def test_an_async_generator_flow_that_fails_is_failed_and_raises(registry):
    @flow
    async def fails():
        yield 1
        raise ValueError("x")

    async def main():
        items = fails()
        assert await anext(items) == 1
        with pytest.raises(ValueError, match="x"):
            await anext(items)

    asyncio.run(main())
    assert registry.list_flow_runs()[0].state.is_failed()


def test_an_async_generator_that_is_closed_early_is_completed_and_cleaned_up_in_its_run(registry):
    cleaned = []

    @task
    async def items():
        try:
            yield 1
            yield 2
        finally:
            get_run_logger().info("cleaning")
            cleaned.append(TaskRunContext.get().task_run.name)

    @flow
    async def calls():
        made = items()
        async for _ in made:
            break
        await made.aclose()
        return "done"

    assert asyncio.run(calls()) == "done"
    assert cleaned == ["items-0"]
    assert only_task(registry).state.is_completed()
