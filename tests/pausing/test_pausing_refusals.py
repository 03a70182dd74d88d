"""Which runs may be paused and resumed, by what name, and until when."""

import asyncio
from uuid import UUID

import pytest
from pydantic import BaseModel

from prefectlite import flow, pause_flow_run, pauses, resume_flow_run
from prefectlite.clock import now
from prefectlite.context import get_run_context
from prefectlite.errors import (
    FlowPauseTimeout,
    NotFoundError,
    NotPausedError,
    StateConflictError,
    UsageError,
)
from prefectlite.names import new_id
from prefectlite.pauses import fail_overdue
from prefectlite.records import FlowRun
from prefectlite.run_filters import FlowRunFilter
from prefectlite.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
)

#: Much longer than any test may take: nothing here waits for the end of it.
LONG_SECONDS = 50
UNRESUMED = "The flow was paused and never resumed."


def names(registry, name="runs"):
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=[name]))
    return [change.state.name for change in registry.state_history(run)]


@pytest.fixture
def add(registry):
    """Put a run on record that is in the last of these states."""

    def add_run(*states):
        run = FlowRun(id=new_id(), name=new_id(), flow_name="f", state=Pending())
        registry.create_flow_run(run)
        for state in states:
            run = registry.change_state(run, state)
        return run

    return add_run


STATES = {
    "Scheduled": [Scheduled()],
    "Pending": [],
    "AwaitingRetry": [Running(), AwaitingRetry()],
    "Paused": [Running(), Paused()],
    "Cancelling": [Running(), Cancelling()],
    "Completed": [Running(), Completed()],
    "Failed": [Running(), Failed()],
    "Cancelled": [Cancelled()],
    "Crashed": [Crashed()],
}


@pytest.mark.parametrize("name", STATES)
def test_only_a_running_flow_run_may_be_paused(registry, add, name):
    run = add(*STATES[name])
    with pytest.raises(StateConflictError, match=f"is {name}"):
        pause_flow_run(run.id)
    assert registry.find_flow_run(run.id) == run


@pytest.mark.parametrize("name", ["Running", *(name for name in STATES if name != "Paused")])
def test_only_a_paused_flow_run_may_be_resumed(registry, add, name):
    run = add(*STATES.get(name, [Running()]))
    with pytest.raises(NotPausedError, match=f"is {name}, not Paused"):
        resume_flow_run(run.name)
    assert registry.find_flow_run(run.id) == run


def test_a_run_that_does_not_exist_cannot_be_paused_or_resumed():
    for function in (pause_flow_run, resume_flow_run):
        with pytest.raises(NotFoundError, match="nobody"):
            function("nobody")


def test_a_flow_run_is_named_by_its_id_as_text_or_uuid_by_a_prefix_or_its_name(registry, add):
    run = add(Running())
    for reference in (run.id, UUID(run.id), run.id[:13], run.name):
        pause_flow_run(reference)
        assert registry.find_flow_run(run.id).state.is_paused()
        resume_flow_run(reference)
        assert registry.find_flow_run(run.id).state.is_running()


def test_it_is_too_late_to_resume_also_where_nobody_has_looked_since(registry, add):
    run = add(Running())
    pause_flow_run(run.id, timeout=0)
    assert registry.find_flow_run(run.id).state.is_paused()
    for _ in range(2):
        with pytest.raises(FlowPauseTimeout, match="should have been resumed by"):
            resume_flow_run(run.id)
        assert str(registry.find_flow_run(run.id).state) == f"Failed('{UNRESUMED}')"


def test_it_is_too_late_where_the_deadline_passes_while_somebody_resumes(
    registry, add, monkeypatch
):
    run = add(Running())
    pause_flow_run(run.id, timeout=0.2)
    deadline = registry.pauses.find_pause(run.id).resume_by

    def fail_and_linger(registry):
        fail_overdue(registry)
        while now() < deadline:
            pass

    monkeypatch.setattr(pauses, "fail_overdue", fail_and_linger)
    with pytest.raises(FlowPauseTimeout):
        resume_flow_run(run.id)
    assert str(registry.find_flow_run(run.id).state) == f"Failed('{UNRESUMED}')"


def test_an_earlier_pause_says_nothing_about_a_later_one(registry, add):
    run = add(Running())
    pause_flow_run(run.id, timeout=0.2)
    resume_flow_run(run.id)
    run = registry.change_state(registry.find_flow_run(run.id), Paused("without a word"))
    deadline = registry.pauses.find_pause(run.id).resume_by
    while now() <= deadline:
        pass
    resume_flow_run(run.id)
    assert registry.find_flow_run(run.id).state.is_running()


def test_another_run_cannot_be_made_to_wait_for_an_input(registry, add):
    run = add(Running())
    with pytest.raises(UsageError, match="another flow run"):
        pause_flow_run(run.id, wait_for_input=BaseModel)
    assert registry.find_flow_run(run.id) == run


def test_a_flow_that_names_itself_pauses_itself(registry, resumes):
    @flow
    def runs():
        pause_flow_run(get_run_context().flow_run.id, timeout=LONG_SECONDS)
        return registry.find_flow_run(get_run_context().flow_run.id).state.name

    resumes()
    assert runs() == "Running"


def test_a_flow_pauses_and_resumes_another_run(registry, add):
    other = add(Running())

    @flow
    async def runs():
        pause_flow_run(other.id)
        assert registry.find_flow_run(other.id).state.is_paused()
        resume_flow_run(other.id)

    asyncio.run(runs())
    assert names(registry) == ["Running", "Completed"]
    assert registry.find_flow_run(other.id).state.is_running()
