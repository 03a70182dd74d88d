import threading
from contextvars import ContextVar, copy_context

import pytest

from prefectlite import flow, get_run_logger, tags, task
from prefectlite.context import FlowRunContext, TaskRunContext, get_run_context
from prefectlite.errors import MissingContextError
from prefectlite.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

pytestmark = pytest.mark.usefixtures("home")
place = ContextVar("place", default="nowhere")


@pytest.mark.parametrize("ask", [get_run_context, get_run_logger])
def test_outside_of_a_run_there_is_no_context_and_the_error_says_where_there_is(ask):
    with pytest.raises(MissingContextError, match="outside of a flow or task") as caught:
        ask()
    assert caught.value.hint
    assert isinstance(caught.value, RuntimeError)


def test_outside_of_a_run_get_gives_none():
    assert FlowRunContext.get() is None
    assert TaskRunContext.get() is None


def test_after_a_run_there_is_no_context_again():
    @task
    def fails():
        raise ValueError

    @flow
    def calls():
        fails(return_state=True)
        assert TaskRunContext.get() is None
        raise ValueError

    calls(return_state=True)
    assert FlowRunContext.get() is None


def test_a_subflow_is_its_own_context_and_the_flow_has_its_own_back_afterwards():
    @flow
    def inner():
        return get_run_context().flow_run.id

    @flow
    def outer():
        before = get_run_context().flow_run.id
        during = inner()
        return before, during, get_run_context().flow_run.id

    before, during, after = outer()
    assert before == after != during


def test_a_thread_belongs_to_the_run_that_started_it_and_no_other():
    seen = {}

    def look(name):
        seen[name] = FlowRunContext.get() and FlowRunContext.get().flow_run.name

    def in_thread(name):
        thread = threading.Thread(target=look, args=(name,))
        thread.start()
        thread.join()

    @flow(flow_run_name="first")
    def first():
        in_thread("inside")

    first()
    in_thread("outside")
    assert seen == {"inside": "first", "outside": None}


@pytest.mark.parametrize("runner", [ConcurrentTaskRunner, SequentialTaskRunner])
def test_a_context_variable_of_the_users_reaches_submitted_tasks(runner):
    @task
    def look(_):
        return place.get()

    @flow(task_runner=runner)
    def calls():
        place.set("flow")
        first = look.submit(0)
        place.set("later")
        mapped = look.map(range(3))
        return first.result(), {future.result() for future in mapped}

    assert copy_context().run(calls) == ("flow", {"later"})


@pytest.mark.parametrize("runner", [ConcurrentTaskRunner(1), SequentialTaskRunner])
def test_what_a_submitted_task_sets_in_a_context_variable_is_seen_by_no_other(runner):
    @task
    def move():
        before = place.get()
        place.set("moved")
        return before

    @flow(task_runner=runner)
    def calls():
        befores = [move.submit().result() for _ in range(3)]
        return befores, place.get()

    assert copy_context().run(calls) == (["nowhere"] * 3, "nowhere")


def test_tags_end_where_they_end_even_after_an_error():
    with pytest.raises(ValueError, match="x"), tags("a"):
        raise ValueError("x")
    with tags() as current:
        assert current == frozenset()


def test_a_worker_thread_belongs_to_no_run_between_tasks():
    seen = []

    class Looks:
        def __del__(self):
            seen.append((threading.current_thread().name, TaskRunContext.get()))

    @task
    def use(_):
        pass

    @flow(task_runner=ConcurrentTaskRunner(1))
    def calls():
        use.submit(Looks()).wait()
        use.submit(1).wait()

    calls()
    assert [context for _, context in seen] == [None]
