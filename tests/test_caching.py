import json
import threading
from datetime import timedelta

import pytest

from prefectlite import flow, task
from prefectlite.errors import ResultNotStoredError
from prefectlite.results import delete_results, hash_objects, load_result


@pytest.fixture
def calls():
    return []


def by_parameters(_, parameters):
    return hash_objects(parameters)


def cached(calls, **options):
    @task(**{"cache_key_fn": by_parameters, **options})
    def add(x, y=1):
        calls.append((x, y))
        return x + y

    return add


def states(registry):
    return [run.state.name for run in reversed(registry.list_task_runs())]


def test_a_second_call_with_the_same_key_takes_the_stored_result(registry, calls):
    add = cached(calls)

    @flow
    def twice():
        return add(1), add(1), add(x=1, y=1), add.submit(1).result(), add(2)

    assert twice() == (2, 2, 2, 2, 3)
    assert twice() == (2, 2, 2, 2, 3)
    assert calls == [(1, 1), (2, 1)]
    assert states(registry) == ["Completed", *["Cached"] * 3, "Completed", *["Cached"] * 5]


def test_a_cached_run_never_started(registry, calls):
    add = cached(calls)
    flow(lambda: (add(1), add(1)))()
    run = registry.list_task_runs()[0]
    history = [change.state.name for change in registry.state_history(run)]
    assert history == ["Pending", "Cached"]
    assert (run.run_count, run.started_at) == (0, None)
    assert run.ended_at is not None


def test_another_process_hits_the_cache(registry, start_python):
    code = """
        import json, sys
        from prefectlite import flow, task
        from prefectlite.results import task_input_hash

        @task(cache_key_fn=task_input_hash)
        def add(x):
            print("called")
            return {"sum": x + 1}

        @flow
        def calls():
            return add(1), add(1, return_state=True).name

        print(json.dumps(calls()))
    """
    first = start_python(code).end().split("\n")
    second = start_python(code).end().split("\n")
    assert first[0] == "called"
    assert json.loads(first[1]) == json.loads(second[0]) == [{"sum": 2}, "Cached"]
    assert states(registry) == ["Completed", "Cached", "Cached", "Cached"]


def test_a_result_that_has_expired_is_not_taken(registry, calls, monkeypatch):
    from prefectlite.clock import now

    add = cached(calls, cache_expiration=timedelta(hours=1))
    run = flow(lambda: add(1, return_state=True).name)
    assert [run(), run()] == ["Completed", "Cached"]
    later = now() + timedelta(minutes=61)
    monkeypatch.setattr("prefectlite.task_engine.now", lambda: later)
    assert run() == "Completed"
    assert len(calls) == 2


def test_a_refreshed_result_replaces_the_stored_one(registry, calls):
    values = iter([10, 20])

    @task(cache_key_fn=lambda *_: "key")
    def take():
        return next(values)

    @flow
    def run():
        return take(), take(), take.with_options(refresh_cache=True)(), take()

    assert run() == (10, 10, 20, 20)


def test_without_a_key_the_task_always_runs(registry, calls):
    add = cached(calls, cache_key_fn=lambda *_: None)
    flow(lambda: (add(1), add(1)))()
    assert len(calls) == 2


def test_with_persist_result_false_nothing_is_stored_and_nothing_found(registry, calls):
    add = cached(calls, persist_result=False)
    flow(lambda: (add(1), add(1)))()
    assert len(calls) == 2
    with pytest.raises(ResultNotStoredError):
        load_result(registry.list_task_runs()[0].id)
    registry.flush_logs()
    (run,) = registry.list_flow_runs()
    assert not any("cache" in line.message for line in registry.read_logs(run.id))


def test_with_persist_result_the_result_of_a_task_and_a_flow_is_stored(registry):
    @task(persist_result=True)
    def one():
        return [1]

    @flow(persist_result=True)
    def run():
        return {"a": one()}

    run()
    (task_run,), (flow_run,) = registry.list_task_runs(), registry.list_flow_runs()
    assert load_result(task_run.id) == [1]
    assert load_result(flow_run.id) == {"a": [1]}


def test_a_result_that_cannot_be_stored_is_a_failure_that_says_so(registry):
    @task(persist_result=True)
    def lock():
        return threading.Lock()

    @flow(persist_result=True)
    def run():
        with pytest.raises(ResultNotStoredError, match="pickled"):
            lock()
        with pytest.raises(ResultNotStoredError, match="pickled"):
            lock.submit().result()
        return threading.Lock()

    state = run(return_state=True)
    assert "ResultNotStoredError" in state.message
    assert states(registry) == ["Failed", "Failed"]


def test_a_failed_run_is_not_remembered(registry):
    values = iter([ValueError("x"), 2])

    @task(cache_key_fn=lambda *_: "key")
    def take():
        value = next(values)
        if isinstance(value, Exception):
            raise value
        return value

    @flow
    def run():
        take(return_state=True)
        return take()

    assert run() == 2


def test_a_stored_result_that_is_gone_is_made_again(registry, calls):
    add = cached(calls)
    run = flow(lambda: add(1))
    assert run() == 2
    delete_results([registry.list_task_runs()[0].id])
    assert run() == 2
    assert run() == 2
    assert len(calls) == 2
    assert states(registry) == ["Completed", "Completed", "Cached"]


def test_the_key_function_sees_the_run_and_the_parameters_with_defaults(registry):
    seen = []

    def key(context, parameters):
        seen.append((context.task_run.name, context.task_run.flow_run_id, parameters))
        return f"{context.task.name}-{parameters['x']}"

    @task(cache_key_fn=key)
    def add(x, y=5):
        return x

    @flow
    def run():
        return add(1), add.submit(2).result()

    assert run() == (1, 2)
    (flow_run,) = registry.list_flow_runs()
    assert seen == [
        ("add-0", flow_run.id, {"x": 1, "y": 5}),
        ("add-1", flow_run.id, {"x": 2, "y": 5}),
    ]


def test_the_key_is_made_of_results_and_not_of_futures(registry, calls):
    add = cached(calls)

    @task
    def one():
        return 1

    @flow
    def run():
        return add.submit(one.submit()).result(), add.submit(one.submit()).result()

    assert run() == (2, 2)
    assert len(calls) == 1


@pytest.mark.parametrize("key", [lambda *_: 1 / 0, lambda: "x", lambda *_: 3])
def test_a_key_function_that_fails_is_a_failed_run(registry, calls, key):
    add = cached(calls, cache_key_fn=key)

    @flow
    def run():
        assert add(1, return_state=True).is_failed()
        assert add.submit(1).wait().is_failed()

    assert str(run(return_state=True)) == "Failed('2/2 states failed.')"
    assert states(registry) == ["Failed", "Failed"]
    assert calls == []


def test_a_call_that_the_signature_refuses_is_a_failed_run_here_too(registry, calls):
    add = cached(calls)

    @flow
    def run():
        assert add(return_state=True).is_failed()
        assert add.submit(1, 2, 3).wait().is_failed()
        return "done"

    assert run() == "done"
    assert states(registry) == ["Failed", "Failed"]
