"""Pauses and retries of a flow: no attempt begins while it is paused, nor after it was given up."""

import contextvars
import threading

import pytest

from prefectlite import flow, pause_flow_run, pausing, resume_flow_run, task
from prefectlite.holds import hold
from prefectlite.run_filters import FlowRunFilter

#: Much longer than any test may take: nothing here waits for the end of it.
LONG_SECONDS = 50
UNRESUMED = "The flow was paused and never resumed."


def outside(function, *arguments, **keywords):
    """Call a function as code that is in no run would."""
    return contextvars.Context().run(lambda: function(*arguments, **keywords))


def pause(registry, name="runs", *, timeout=LONG_SECONDS):
    """Pause the run of a flow from outside."""
    assert outside(pause_flow_run, only(registry, name).id, timeout=timeout) is None


def only(registry, name="runs"):
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=[name]))
    return run


def names(registry, name="runs"):
    return [change.state.name for change in registry.state_history(only(registry, name))]


@task
def works():
    raise AssertionError


def test_a_failed_attempt_is_followed_by_the_next_once_the_run_is_resumed(
    registry, meanwhile, held
):
    attempts = []

    @flow(retries=1)
    def runs():
        attempts.append(1)
        if len(attempts) == 1:
            pause(registry)
            raise ValueError

    def resume():
        run = held()
        assert (run.state.name, attempts) == ("Paused", [1])
        resume_flow_run(run.id)

    meanwhile(resume)
    assert runs(return_state=True).name == "Completed"
    assert names(registry)[1:4] == ["Paused", "Running", "AwaitingRetry"]
    assert only(registry).run_count == 2


def test_a_pause_in_a_thread_is_not_undone_by_another_attempt(registry, meanwhile, held, until):
    attempts, threads = [], []

    @flow(retries=1)
    def runs():
        attempts.append(1)
        if len(attempts) == 1:
            threads.append(threading.Thread(target=pause_flow_run, kwargs={"timeout": 40}))
            threads[0].start()
            until(lambda: "Paused" in names(registry))
            raise ValueError
        threads[0].join(LONG_SECONDS)

    def resume():
        run = held(2)
        assert attempts == [1]
        resume_flow_run(run.id)

    meanwhile(resume)
    assert runs(return_state=True).name == "Completed"
    assert names(registry)[1:4] == ["Paused", "Running", "AwaitingRetry"]


def test_a_thread_that_was_resumed_goes_on_though_its_flow_is_tried_again(
    registry, resumes, until, monkeypatch
):
    attempts, threads, told = [], [], []

    def lingers(context, found, **options):
        """Look only when the flow is between two attempts."""
        yield from hold(context, found, **options)
        until(lambda: names(registry)[-1] in ("AwaitingRetry", "Retrying", "Completed"))
        return registry.find_flow_run(context.flow_run.id)

    monkeypatch.setattr(pausing, "hold", lingers)

    @flow(retries=1, retry_delay_seconds=0.2)
    def runs():
        attempts.append(1)
        if len(attempts) == 1:
            threads.append(threading.Thread(target=lambda: told.append(pause_flow_run(timeout=40))))
            threads[0].start()
            until(lambda: "Paused" in names(registry))
            raise ValueError
        threads[0].join(LONG_SECONDS)

    resumes()
    assert runs(return_state=True).name == "Completed"
    assert told == [None]


@pytest.mark.parametrize("where", ["in the body", "between attempts"])
def test_hooks_run_and_no_attempt_follows_where_a_pause_from_outside_is_not_ended(registry, where):
    told = []

    def hook(_, run, state):
        told.append(str(state))

    @flow(retries=2, on_failure=[hook])
    def runs():
        told.append("attempt")
        pause(registry, timeout=0.05)
        if where == "in the body":
            works()
        raise ValueError

    runs(return_state=True)
    assert told == ["attempt", f"Failed('{UNRESUMED}')"]
    assert names(registry) == ["Running", "Paused", "Failed"]
