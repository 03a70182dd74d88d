import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from prefectlite import State, flow, get_run_logger, tags, task
from prefectlite.context import FlowRunContext, TaskRunContext, get_run_context
from prefectlite.errors import FlowRunNotRunningError, MissingContextError, UsageError
from prefectlite.states import StateType


def task_names(registry):
    return sorted(run.name for run in registry.list_task_runs())


def history(registry, run):
    return [change.state.name for change in registry.state_history(run)]


@task
def double(x):
    return x * 2


def test_a_task_returns_what_its_function_returns_and_is_on_record(registry):
    @flow
    def doubles():
        return double(3)

    assert doubles() == 6
    (run,), (flow_run,) = registry.list_task_runs(), registry.list_flow_runs()
    assert (run.task_name, run.name, run.flow_run_id) == ("double", "double-0", flow_run.id)
    assert history(registry, run) == ["Running", "Completed"]
    assert run.run_count == 1
    assert run.created_at <= run.started_at <= run.ended_at


def test_a_submitted_task_is_on_record_as_pending_before_it_runs(registry):
    @flow
    def doubles():
        return double.submit(3).result()

    assert doubles() == 6
    (run,) = registry.list_task_runs()
    assert history(registry, run) == ["Pending", "Running", "Completed"]


def test_a_task_outside_of_a_flow_says_what_to_do(registry):
    for call in (double, double.submit, double.map):
        with pytest.raises(MissingContextError, match="outside of a flow") as caught:
            call([3])
        assert "task.fn" in caught.value.hint


def test_the_function_itself_can_be_called_anywhere(registry):
    assert double.fn(3) == 6
    assert registry.list_task_runs() == []


def test_an_error_is_raised_itself_with_its_traceback_and_is_on_record(registry):
    error = ValueError("bad luck")

    @task
    def fails():
        raise error

    @flow
    def calls(*, submit):
        with pytest.raises(ValueError, match="bad luck") as caught:
            fails.submit().result() if submit else fails()
        assert caught.value is error
        assert caught.traceback[-1].name == "fails"
        return "caught"

    assert calls(submit=False) == "caught"
    assert calls(submit=True) == "caught"
    for run in registry.list_task_runs():
        assert run.state.type is StateType.FAILED
        assert "ValueError: bad luck" in run.state.message


def test_return_state_gives_the_state(registry):
    @task
    def fails():
        raise ValueError("bad luck")

    @flow
    def calls():
        states = [
            fails(return_state=True),
            fails.submit(return_state=True),
            double(3, return_state=True),
            *double.map([4, 5], return_state=True),
        ]
        assert all(isinstance(state, State) for state in states)
        return [str(state.type) for state in states], [state.result() for state in states[2:]]

    assert calls() == (["FAILED", "FAILED", "COMPLETED", "COMPLETED", "COMPLETED"], [6, 8, 10])


def test_a_stop_iteration_comes_out_as_it_is(registry):
    @task
    def takes_from_nothing():
        return next(iter([]))

    @flow
    def calls():
        with pytest.raises(StopIteration):
            takes_from_nothing()
        with pytest.raises(StopIteration):
            takes_from_nothing.submit().result()
        return "done"

    assert calls() == "done"
    assert {run.state.name for run in registry.list_task_runs()} == {"Failed"}


def test_a_call_that_the_signature_refuses_is_a_failed_run(registry):
    @flow
    def calls():
        with pytest.raises(TypeError, match="y"):
            double(y=1)
        with pytest.raises(TypeError):
            double.submit(1, 2).result()
        return "done"

    assert calls() == "done"
    assert {run.state.name for run in registry.list_task_runs()} == {"Failed"}


def test_runs_of_a_task_are_numbered_within_their_flow_run(registry):
    @task
    def my_task():
        pass

    @flow
    def calls():
        my_task()
        my_task.submit()
        double.map([1, 2])

    calls()
    calls()
    assert task_names(registry) == sorted(
        ["my_task-0", "my_task-1", "double-0", "double-1"] * 2,
    )


def test_a_run_name_can_be_a_template_or_a_function(registry):
    @task(task_run_name="load {table} of {day}")
    def load(table, day=1):
        return get_run_context().task_run.name

    @flow
    def calls():
        assert load("users") == "load users of 1"
        load.submit("items", day=double.submit(1).wait())
        load.with_options(task_run_name=lambda: "by hand")("x")

    calls()
    assert task_names(registry) == ["by hand", "double-0", "load items of 2", "load users of 1"]


def test_a_template_over_a_result_that_is_not_there_yet_is_left_alone(registry):
    may_end = threading.Event()

    @task
    def slow():
        assert may_end.wait(30)
        return "users"

    @task(task_run_name="load {table}")
    def load(table):
        return table

    @flow
    def calls():
        future = load.submit(slow.submit())
        may_end.set()
        return future.result()

    assert calls() == "users"
    assert task_names(registry) == ["load-0", "slow-0"]


@pytest.mark.parametrize("name", ["load {nothing}", "load {table", lambda: 1 / 0, lambda: 3])
def test_a_run_name_that_cannot_be_made_is_a_failed_run(registry, name):
    called = []

    @task(task_run_name=name)
    def load(table):
        called.append(table)

    @flow
    def calls():
        states = [load("a", return_state=True), load.submit("b").wait()]
        states += load.map(["c"], return_state=True)
        assert all("task_run_name" in state.message for state in states)
        return [state.name for state in states]

    assert calls() == ["Failed"] * 3
    assert called == []
    assert task_names(registry) == ["load-0", "load-1", "load-2"]
    assert {run.state.name for run in registry.list_task_runs()} == {"Failed"}


def test_tags_come_from_the_task_and_from_around_the_call(registry):
    @task(tags=["own"])
    def tagged():
        pass

    @flow
    def calls():
        tagged()
        with tags("around"):
            tagged.submit()
            tagged.map([])

    with tags("outer"):
        calls()
    first, second = reversed(registry.list_task_runs())
    assert (first.tags, second.tags) == (("outer", "own"), ("around", "outer", "own"))


def test_tags_around_a_call_reach_what_the_called_task_calls(registry):
    @task
    def inner():
        pass

    @task
    def outer():
        inner()

    @flow
    def calls():
        with tags("around"):
            outer()
            outer.submit()

    calls()
    assert {run.tags for run in registry.list_task_runs()} == {("around",)}


def test_a_task_in_a_task_is_on_record_with_its_parent(registry):
    @task
    def outer(x):
        return double(x) + double.submit(x).result()

    @flow
    def calls():
        return outer(1) + outer.submit(2).result()

    assert calls() == 12
    runs = {run.id: run for run in registry.list_task_runs()}
    inner = [run for run in runs.values() if run.task_name == "double"]
    outer_runs = [run for run in runs.values() if run.task_name == "outer"]
    assert sorted(run.name for run in inner) == [f"double-{n}" for n in range(4)]
    assert {run.parent_task_run_id for run in inner} == {run.id for run in outer_runs}
    assert {run.parent_task_run_id for run in outer_runs} == {None}
    assert len({run.flow_run_id for run in runs.values()}) == 1


def test_the_run_can_be_seen_from_inside(registry):
    @task
    def looks():
        context = get_run_context()
        assert isinstance(context, TaskRunContext)
        assert TaskRunContext.get() is context
        assert FlowRunContext.get().flow_run.id == context.flow_run.id
        assert registry.find_task_run(context.task_run.id).state.name == "Running"
        get_run_logger().info("seen")
        return context.task_run.id, context.task_run.dict()["state"]["name"]

    @flow
    def calls():
        return looks(), looks.submit().result(), TaskRunContext.get()

    direct, submitted, none = calls()
    assert (direct[1], submitted[1], none) == ("Running", "Running", None)
    (flow_run,) = registry.list_flow_runs()
    registry.flush_logs()
    for id_, _ in (direct, submitted):
        lines = [line.message for line in registry.read_logs(flow_run.id, task_run_id=id_)]
        assert lines == ["seen", "Finished in state Completed()"]


def test_tasks_can_be_called_from_threads_of_the_user(registry):
    @flow
    def calls():
        results = []
        threads = [threading.Thread(target=lambda x=x: results.append(double(x))) for x in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with ThreadPoolExecutor(3) as pool:
            results += pool.map(lambda x: double.submit(x).result(), range(8, 16))
        return sorted(results)

    assert calls() == [x * 2 for x in range(16)]
    assert task_names(registry) == sorted(f"double-{n}" for n in range(16))
    assert {run.state.name for run in registry.list_task_runs()} == {"Completed"}


def test_a_thread_that_outlives_its_flow_run_cannot_start_a_task(registry):
    has_ended, caught = threading.Event(), []

    def late():
        assert has_ended.wait(30)
        for call in (double, double.submit):
            try:
                call(1)
            except FlowRunNotRunningError as error:
                caught.append(error.current.name)

    @flow
    def calls():
        thread = threading.Thread(target=late)
        thread.start()
        return thread

    thread = calls()
    has_ended.set()
    thread.join()
    assert caught == ["Completed", "Completed"]
    assert registry.list_task_runs() == []


class Store:
    def __init__(self, name):
        self.name = name

    @task
    def read(self, key):
        return self.name, key

    @classmethod
    @task
    def outer_class(cls, key):
        return cls, key

    @task
    @classmethod
    def inner_class(cls, key):
        return cls, key

    @staticmethod
    @task
    def outer_static(key):
        return key

    @task
    @staticmethod
    def inner_static(key):
        return key


class Shop(Store):
    pass


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_methods_of_every_kind_can_be_tasks(registry, way):
    def use(bound, key):
        if way == "call":
            return bound(key)
        if way == "submit":
            return bound.submit(key).result()
        (future,) = bound.map([key])
        return future.result()

    @flow
    def calls():
        shop = Shop("a")
        assert use(shop.read, 1) == ("a", 1)
        assert use(shop.read.with_options(retries=1), 1) == ("a", 1)
        for owner in (Shop, shop):
            assert use(owner.outer_class, 2) == (Shop, 2)
            assert use(owner.inner_class, 3) == (Shop, 3)
            assert use(owner.outer_static, 4) == 4
            assert use(owner.inner_static, 5) == 5
        return "done"

    assert calls() == "done"
    assert {run.state.name for run in registry.list_task_runs()} == {"Completed"}


def test_a_task_pickles_by_name_with_its_options_and_its_object():
    changed = pickle.loads(pickle.dumps(double.with_options(retries=3)))
    assert (changed.options.retries, changed.fn) == (3, double.fn)
    assert pickle.loads(pickle.dumps(double)) is double
    assert pickle.loads(pickle.dumps(Store("a").read)).fn(2) == ("a", 2)
    with pytest.raises(pickle.PicklingError, match="top of a module"):
        pickle.dumps(task(lambda: None))


def test_a_direct_task_leaves_nothing_in_memory(start_python):
    code = """
        import gc, os, sys, tracemalloc
        from prefectlite import flow, task

        @task
        def double(x):
            return x * 2

        @flow
        def calls():
            def used_after(number):
                for x in range(number):
                    double(x)
                gc.collect()
                return tracemalloc.get_traced_memory()[0]

            used_after(500)
            tracemalloc.start()
            before = used_after(500)
            return used_after(3000) - before

        sys.stderr = open(os.devnull, "w")
        print(calls())
    """
    grown = int(start_python(code).end())
    assert grown < 90_000, f"{grown / 3000:.0f} bytes a task"


def test_an_unknown_keyword_is_the_functions_and_not_the_engines(registry):
    @task
    def shows(**kwargs):
        return kwargs

    @flow
    def calls():
        return shows(retries=3, name="x")

    assert calls() == {"retries": 3, "name": "x"}


def test_an_option_by_position_is_refused():
    with pytest.raises(UsageError, match="not a function"):
        task("my name")
