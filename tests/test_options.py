from datetime import timedelta

import pytest

from prefectlite import Flow, Task, flow, task
from prefectlite.errors import UsageError
from prefectlite.options import Kind
from prefectlite.task_runners import ConcurrentTaskRunner, SequentialTaskRunner


def nothing():
    pass


def test_a_bare_flow_has_the_functions_name_with_hyphens_and_its_docstring():
    @flow
    def load_all_tables():
        """Load them."""

    assert isinstance(load_all_tables, Flow)
    assert load_all_tables.name == "load-all-tables"
    assert load_all_tables.options.description == "Load them."
    assert load_all_tables.__name__ == "load_all_tables"
    assert load_all_tables.__doc__ == "Load them."


def test_a_bare_task_has_the_functions_name_and_its_docstring():
    @task
    def load_table():
        """Load it."""

    assert isinstance(load_table, Task)
    assert load_table.name == "load_table"
    assert load_table.options.description == "Load it."


def test_a_called_decorator_without_options_is_as_good_as_a_bare_one():
    assert flow()(nothing).options == flow(nothing).options
    assert task()(nothing).options == task(nothing).options


def test_a_flow_keeps_every_option_that_it_is_given():
    def hook(*_):
        return None

    options = flow(
        name="a",
        version="2",
        description="what",
        flow_run_name="run",
        retries=3,
        retry_delay_seconds=1.5,
        timeout_seconds=9,
        task_runner=SequentialTaskRunner,
        validate_parameters=False,
        persist_result=True,
        log_prints=True,
        on_completion=[hook],
        on_failure=[hook],
        on_cancellation=[hook],
        on_crashed=[hook],
        on_running=[hook],
    )(nothing).options
    assert (options.name, options.version, options.description) == ("a", "2", "what")
    assert (options.retries, options.retry_delay_seconds, options.timeout_seconds) == (3, 1.5, 9.0)
    assert options.task_runner is SequentialTaskRunner
    assert (options.flow_run_name, options.validate_parameters) == ("run", False)
    assert (options.persist_result, options.log_prints) == (True, True)
    hooks = (options.on_completion, options.on_failure, options.on_cancellation)
    assert (*hooks, options.on_crashed, options.on_running) == ((hook,),) * 5


def test_a_task_keeps_every_option_that_it_is_given():
    def hook(*_):
        return None

    options = task(
        name="a",
        description="what",
        tags=["x", "y"],
        task_run_name="run",
        retries=2,
        retry_delay_seconds=[1, 2],
        retry_jitter_factor=0.5,
        timeout_seconds=0.5,
        cache_key_fn=hook,
        cache_expiration=timedelta(1),
        refresh_cache=True,
        persist_result=True,
        log_prints=False,
        on_completion=[hook],
        on_failure=[hook],
    )(nothing).options
    assert (options.name, options.description, options.tags) == ("a", "what", {"x", "y"})
    assert (options.retries, options.retry_delay_seconds) == (2, (1, 2))
    assert (options.retry_jitter_factor, options.timeout_seconds) == (0.5, 0.5)
    assert (options.cache_key_fn, options.cache_expiration) == (hook, timedelta(1))
    assert (options.refresh_cache, options.persist_result, options.log_prints) == (
        True,
        True,
        False,
    )
    assert (options.on_completion, options.on_failure) == ((hook,), (hook,))


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize(
    "wrong",
    [
        {"retires": 3},
        {"retries": -1},
        {"retries": 1.5},
        {"retries": True},
        {"retry_delay_seconds": -1},
        {"retry_delay_seconds": "1"},
        {"retry_delay_seconds": [1, None]},
        {"retry_delay_seconds": float("nan")},
        {"retry_delay_seconds": float("inf")},
        {"timeout_seconds": -1},
        {"timeout_seconds": "1"},
        {"on_failure": [1]},
        {"on_completion": lambda: None},
    ],
    ids="-".join,
)
def test_an_option_that_cannot_be_is_refused_where_it_is_written(decorate, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        decorate(**wrong)(nothing)


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_runner": "threads"},
        {"task_runner": dict},
        {"flow_run_name": 3},
    ],
    ids="-".join,
)
def test_an_option_of_flows_that_cannot_be_is_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        flow(**wrong)(nothing)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tags": "one"},
        {"tags": [1]},
        {"task_run_name": 3},
        {"retry_jitter_factor": -0.1},
        {"retry_jitter_factor": "x"},
        {"cache_key_fn": "key"},
        {"cache_expiration": 60},
    ],
    ids="-".join,
)
def test_an_option_of_tasks_that_cannot_be_is_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        task(**wrong)(nothing)


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize("name", ["return_state", "wait_for"])
def test_a_reserved_parameter_name_is_refused(decorate, name):
    namespace = {}
    exec(f"def function({name}): pass", namespace)
    with pytest.raises(UsageError, match=name):
        decorate(namespace["function"])


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize("thing", ["a name", 3, dict])
def test_what_is_not_a_function_is_refused_with_a_hint(decorate, thing):
    with pytest.raises(UsageError, match="not a function") as caught:
        decorate(thing)
    assert "by keyword" in caught.value.hint


@pytest.mark.parametrize("outer", [flow, task])
@pytest.mark.parametrize("inner", [flow, task])
def test_what_is_decorated_already_is_refused(outer, inner):
    with pytest.raises(UsageError, match="already"):
        outer(inner(nothing))


def test_the_kind_of_a_function_is_seen():
    async def coroutine():
        pass

    def generator():
        yield

    async def async_generator():
        yield

    kinds = [task(one).kind for one in (lambda: 1, coroutine, generator, async_generator)]
    assert kinds == [Kind.SYNC, Kind.ASYNC, Kind.GENERATOR, Kind.ASYNC_GENERATOR]


@pytest.mark.parametrize("decorate", [flow, task])
def test_with_options_changes_what_is_named_and_nothing_else(decorate):
    @decorate(name="before", retries=2, retry_delay_seconds=[1, 2])
    def function():
        pass

    changed = function.with_options(name="after")
    assert changed.name == "after"
    assert (changed.options.retries, changed.options.retry_delay_seconds) == (2, (1, 2))
    assert changed.fn is function.fn
    assert function.name == "before"


@pytest.mark.parametrize("decorate", [flow, task])
def test_with_options_checks_what_it_is_given(decorate):
    with pytest.raises(UsageError, match="retires"):
        decorate(nothing).with_options(retires=1)
    with pytest.raises(UsageError, match="retries"):
        decorate(nothing).with_options(retries=-1)


def test_a_timeout_of_none_or_0_is_none():
    assert task(timeout_seconds=0)(nothing).options.timeout_seconds is None
    assert flow(timeout_seconds=None)(nothing).options.timeout_seconds is None


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
def test_a_number_of_workers_must_be_a_positive_whole_one(wrong):
    with pytest.raises(UsageError, match="max_workers"):
        ConcurrentTaskRunner(max_workers=wrong)


def test_a_callable_without_a_name_can_be_a_task_and_a_flow():
    class Callable:
        def __call__(self, x):
            return x + 1

    assert task(Callable()).name == "Callable"
    assert flow(Callable()).name == "Callable"
