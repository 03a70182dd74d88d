import re

import pytest

from prefectlite import State, flow, get_run_logger, tags, task
from prefectlite.context import FlowRunContext, get_run_context
from prefectlite.errors import ParameterTypeError
from prefectlite.states import StateType


def only_run(registry):
    (run,) = registry.list_flow_runs()
    return run


def names(registry, run):
    return [change.state.name for change in registry.state_history(run)]


def test_a_flow_returns_what_its_function_returns_and_is_on_record(registry):
    @flow(version="7")
    def add(a, b=2):
        return a + b

    assert add(1) == 3
    run = only_run(registry)
    assert (run.flow_name, run.version, run.parameters) == ("add", "7", {"a": 1, "b": 2})
    assert names(registry, run) == ["Running", "Completed"]
    assert run.run_count == 1
    assert run.created_at <= run.started_at <= run.ended_at


def test_the_function_itself_can_be_called_without_a_record(registry):
    @flow
    def add(a, b):
        return a + b

    assert add.fn(1, 2) == 3
    assert registry.list_flow_runs() == []


def test_each_call_is_a_run_of_its_own(registry):
    @flow
    def nothing():
        pass

    nothing()
    nothing()
    assert len({run.id for run in registry.list_flow_runs()}) == 2


def test_return_state_gives_the_final_state_with_the_result(registry):
    @flow
    def one():
        return 1

    state = one(return_state=True)
    assert isinstance(state, State)
    assert state.is_completed()
    assert state.result() == 1
    assert only_run(registry).state == state


def test_an_error_is_raised_itself_with_its_traceback_and_is_on_record(registry):
    error = ValueError("bad luck")

    @flow
    def fails():
        def deep():
            raise error

        deep()

    with pytest.raises(ValueError, match="bad luck") as caught:
        fails()
    assert caught.value is error
    assert caught.traceback[-1].name == "deep"
    run = only_run(registry)
    assert (run.state.type, run.state.name) == (StateType.FAILED, "Failed")
    assert "ValueError: bad luck" in run.state.message


def test_with_return_state_an_error_is_not_raised(registry):
    error = ValueError("bad luck")

    @flow
    def fails():
        raise error

    state = fails(return_state=True)
    assert state.is_failed()
    assert state.result(raise_on_failure=False) is error
    with pytest.raises(ValueError, match="bad luck"):
        state.result()


def test_a_stop_iteration_comes_out_as_it_is(registry):
    @flow
    def takes_from_nothing():
        return next(iter([]))

    with pytest.raises(StopIteration):
        takes_from_nothing()
    assert only_run(registry).state.is_failed()


def test_the_traceback_on_record_shows_user_code_alone(registry):
    @flow
    def fails():
        raise ValueError("bad luck")

    fails(return_state=True)
    registry.flush_logs()
    lines = [line.message for line in registry.read_logs(only_run(registry).id)]
    (told,) = [line for line in lines if "Traceback" in line]
    assert "in fails" in told
    assert "flow_engine" not in told
    assert "drivers" not in told


def test_parameters_are_coerced_by_their_annotations(registry):
    @flow
    def shows(number: int, names: list[str], other):
        return number, names, other

    assert shows("3", ("a", "b"), "4") == (3, ["a", "b"], "4")
    assert only_run(registry).parameters == {"number": 3, "names": ["a", "b"], "other": "4"}


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2), {}), ((1,), {"y": 1}), (("three",), {})]
)
def test_a_bad_call_is_a_failed_run_and_a_parameter_type_error(registry, args, kwargs):
    called = []

    @flow(retries=2)
    def shows(x: int):
        called.append(x)

    with pytest.raises(ParameterTypeError):
        shows(*args, **kwargs)
    run = only_run(registry)
    assert run.state.type is StateType.FAILED
    assert "ParameterTypeError" in run.state.message
    assert run.run_count == 0
    assert called == []


def test_a_refused_call_keeps_its_parameters_on_record_given_by_position_too(registry):
    @flow
    def shows(x: int, y: int = 2):
        pass

    shows("three", return_state=True)
    assert only_run(registry).parameters == {"x": "three", "y": 2}


def test_a_secret_is_on_record_as_a_mask_even_where_it_is_refused(registry):
    from pydantic import SecretStr

    @flow
    def logs_in(password: SecretStr, tries: int):
        return password.get_secret_value()

    assert logs_in("hunter2", 3) == "hunter2"
    logs_in("hunter2", "many", return_state=True)
    registry.flush_logs()
    for run in registry.list_flow_runs():
        assert "hunter2" not in repr(run.dict())
        assert "hunter2" not in repr(registry.read_logs(run.id))
        assert "hunter2" not in repr(registry.state_history(run))


def test_with_return_state_a_bad_call_is_a_failed_state(registry):
    @flow
    def shows(x: int):
        pass

    state = shows("three", return_state=True)
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), ParameterTypeError)


def test_without_validation_parameters_pass_as_they_are(registry):
    @flow(validate_parameters=False)
    def shows(x: int):
        return x

    assert shows("three") == "three"
    with pytest.raises(ParameterTypeError):
        shows()


def test_a_run_gets_a_random_name_of_two_words(registry):
    @flow
    def nothing():
        pass

    nothing()
    assert re.fullmatch(r"[a-z]+-[a-z]+", only_run(registry).name)


def test_a_run_name_can_be_a_template_over_the_parameters(registry):
    @flow(flow_run_name="load {table} of {day:>4}")
    def load(table, day: int = 7):
        return get_run_context().flow_run.name

    assert load("users", "31") == "load users of   31"
    assert only_run(registry).name == "load users of   31"


def test_a_run_name_can_be_a_function(registry):
    @flow(flow_run_name=lambda: "by hand")
    def load():
        pass

    load()
    assert only_run(registry).name == "by hand"


@pytest.mark.parametrize("name", ["load {nothing}", "load {table", lambda: 1 / 0, lambda: 3])
def test_a_run_name_that_cannot_be_made_is_a_failed_run(registry, name):
    called = []

    @flow(flow_run_name=name)
    def load(table):
        called.append(table)

    state = load("users", return_state=True)
    assert state.is_failed()
    assert "flow_run_name" in state.message
    assert called == []
    assert only_run(registry).state == state


def test_tags_around_a_call_are_the_runs(registry):
    @flow
    def nothing():
        pass

    with tags("b", "a"), tags("c"):
        nothing()
    nothing()
    first, second = reversed(registry.list_flow_runs())
    assert (first.tags, second.tags) == (("a", "b", "c"), ())


def test_the_run_can_be_seen_from_inside(registry):
    @flow
    def looks(x, y):
        context = get_run_context()
        assert context is FlowRunContext.get()
        run = context.flow_run
        assert registry.find_flow_run(run.id).state == run.state
        return run.id, run.name, run.state.name, dict(run.parameters), run.dict(), context.flow

    id_, name, state, parameters, shown, owner = looks(1, {"k": 2})
    run = only_run(registry)
    assert (id_, name, state, parameters) == (run.id, run.name, "Running", {"x": 1, "y": {"k": 2}})
    assert shown["state"]["name"] == "Running"
    assert shown["parameters"] == {"x": 1, "y": {"k": 2}}
    assert (shown["id"], shown["name"], shown["ended_at"]) == (run.id, run.name, None)
    assert owner is looks


def test_log_lines_of_a_flow_are_on_record_in_order(registry):
    @flow
    def tells():
        logger = get_run_logger()
        for number in range(5):
            logger.info("line %d", number)

    tells()
    registry.flush_logs()
    lines = [line.message for line in registry.read_logs(only_run(registry).id)]
    assert lines[0].startswith("Created flow run")
    assert lines[1:-1] == [f"line {number}" for number in range(5)]
    assert lines[-1] == "Finished in state Completed()"


class Store:
    kind = "none"

    def __init__(self, name):
        self.name = name

    @flow
    def read(self, key: int):
        return self.name, key

    @classmethod
    @flow
    def outer_class(cls, key):
        return cls, key

    @flow
    @classmethod
    def inner_class(cls, key):
        return cls, key

    @staticmethod
    @flow
    def outer_static(key):
        return key

    @flow
    @staticmethod
    def inner_static(key):
        return key


class Shop(Store):
    pass


def test_a_method_can_be_a_flow(registry):
    assert Shop("a").read("3") == ("a", 3)
    assert Shop.read(Shop("b"), 4) == ("b", 4)
    assert Shop("c").read.with_options(name="other")(5) == ("c", 5)
    assert [run.flow_name for run in registry.list_flow_runs()] == ["other", "read", "read"]
    assert registry.list_flow_runs()[0].parameters == {"key": 5}


@pytest.mark.parametrize("name", ["outer_class", "inner_class"])
def test_a_class_method_can_be_a_flow_in_both_orders(registry, name):
    assert getattr(Shop, name)(1) == (Shop, 1)
    assert getattr(Shop("a"), name)(key=2) == (Shop, 2)


@pytest.mark.parametrize("name", ["outer_static", "inner_static"])
def test_a_static_method_can_be_a_flow_in_both_orders(registry, name):
    assert getattr(Shop, name)(1) == 1
    assert getattr(Shop("a"), name)(key=2) == 2


def test_a_run_outside_of_the_main_thread_is_like_any_other(registry):
    from concurrent.futures import ThreadPoolExecutor

    @task
    def double(x):
        return x * 2

    @flow
    def doubles(x):
        return double(x) + double.submit(x).result()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(doubles, range(12))) == [x * 4 for x in range(12)]
    assert {run.state.name for run in registry.list_flow_runs()} == {"Completed"}
    assert {run.state.name for run in registry.list_task_runs()} == {"Completed"}
    assert len(registry.list_task_runs()) == 24
