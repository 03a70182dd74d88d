"""Keys and inputs of pauses: what is asked once, what is answered, and what is refused."""

import asyncio
import threading

import pytest
from pydantic import BaseModel, SecretStr, field_validator

from prefectlite import flow, pause_flow_run, resume_flow_run, task
from prefectlite.errors import FlowPauseTimeout, UsageError
from prefectlite.run_filters import FlowRunFilter

#: Much longer than any test may take: nothing here waits for the end of it.
LONG_SECONDS = 50
PAUSE = {"timeout": LONG_SECONDS}


def only(registry, name="runs"):
    (run,) = registry.list_flow_runs(FlowRunFilter(flow_names=[name]))
    return run


def names(registry, name="runs"):
    return [change.state.name for change in registry.state_history(only(registry, name))]


class Number(BaseModel):
    number: int = 0


# Keys


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_pause_with_a_key_is_in_a_run_once_also_when_the_flow_is_tried_again(
    registry, resumes, kind
):
    attempts = []

    def fails_once(*_):
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError

    resumes({"number": 7})

    @flow(retries=1, name="runs")
    def runs():
        first = pause_flow_run(key="a", wait_for_input=Number, **PAUSE)
        again = pause_flow_run(key="a", wait_for_input=Number, **PAUSE)
        fails_once()
        return first.number, again.number

    @flow(retries=1, name="runs")
    async def in_loop():
        first = await pause_flow_run(key="a", wait_for_input=Number, **PAUSE)
        again = await pause_flow_run(key="a", wait_for_input=Number, **PAUSE)
        fails_once()
        return first.number, again.number

    found = runs() if kind == "sync" else asyncio.run(in_loop())
    assert (found, len(attempts)) == ((7, 7), 2)
    assert names(registry) == [
        *("Running", "Paused", "Running"),
        *("AwaitingRetry", "Retrying", "Completed"),
    ]


def test_a_key_is_of_one_run_and_another_key_is_another_pause(registry, resumes):
    @flow
    def runs():
        pause_flow_run(key="a", **PAUSE)
        pause_flow_run(key="b", **PAUSE)

    for _ in range(2):
        resumes(None, None)
        runs()
    histories = [registry.state_history(run) for run in registry.list_flow_runs()]
    assert [len(history) for history in histories] == [6, 6]


def test_two_tasks_with_one_key_join_one_pause_and_get_the_same_answer(registry, resumes):
    both = threading.Barrier(2, timeout=LONG_SECONDS)

    @task
    def asks():
        both.wait()
        return pause_flow_run(key="a", wait_for_input=Number, **PAUSE).number

    @flow
    def runs():
        return [future.result() for future in (asks.submit(), asks.submit())]

    resumes({"number": 7})
    assert runs() == [7, 7]
    assert names(registry) == ["Running", "Paused", "Running", "Completed"]


def test_tasks_without_a_key_pause_one_after_the_other_and_each_is_resumed_on_its_own(
    registry, resumes
):
    both = threading.Barrier(3, timeout=LONG_SECONDS)

    @task
    def asks():
        both.wait()
        return pause_flow_run(wait_for_input=Number, **PAUSE).number

    @flow
    def runs():
        return sorted(future.result() for future in [asks.submit() for _ in range(3)])

    resumes({"number": 1}, {"number": 2}, {"number": 3})
    assert runs() == [1, 2, 3]
    assert names(registry) == ["Running", *["Paused", "Running"] * 3, "Completed"]


def test_coroutines_without_a_key_pause_one_after_the_other(registry, resumes):
    @flow
    async def runs():
        first = pause_flow_run(wait_for_input=Number, **PAUSE)
        second = pause_flow_run(wait_for_input=Number, **PAUSE)
        return sorted(one.number for one in await asyncio.gather(first, second))

    resumes({"number": 1}, {"number": 2})
    assert asyncio.run(runs()) == [1, 2]
    assert names(registry) == ["Running", *["Paused", "Running"] * 2, "Completed"]


# Inputs


class Approval(BaseModel):
    approved: bool
    comment: str = "none"

    @field_validator("comment")
    @classmethod
    def _is_polite(cls, comment):
        if comment == "rude":
            raise ValueError("be polite")
        return comment


def approve():
    @flow
    def runs():
        return pause_flow_run(wait_for_input=Approval, **PAUSE)

    return runs()


def approve_in_coroutine():
    @flow
    async def runs():
        return await pause_flow_run(wait_for_input=Approval, **PAUSE)

    return asyncio.run(runs())


@pytest.mark.parametrize("ask", [approve, approve_in_coroutine])
@pytest.mark.parametrize(
    ("answer", "given"),
    [
        ({"approved": True}, Approval(approved=True)),
        ({"approved": "no", "comment": "later"}, Approval(approved=False, comment="later")),
        (Approval(approved=True, comment="fine"), Approval(approved=True, comment="fine")),
    ],
)
def test_a_flow_gets_an_instance_of_the_model_that_it_waits_for(resumes, ask, answer, given):
    resumes(answer)
    found = ask()
    assert (type(found), found) == (Approval, given)


def test_what_is_asked_for_and_answered_is_on_record(registry, resumes):
    resumes({"approved": True})
    approve()
    pause = registry.pauses.find_pause(only(registry).id)
    assert pause.input_schema == Approval.model_json_schema()
    assert pause.run_input == {"approved": True}
    (how,) = [
        line.message for line in registry.read_logs(only(registry).id) if "To" in line.message
    ]
    assert how.endswith(f"flow-run resume {only(registry).id} --input approved=BOOLEAN")


def test_a_model_of_defaults_needs_no_answer(resumes):
    @flow
    def runs():
        return pause_flow_run(wait_for_input=Number, **PAUSE)

    resumes(None)
    assert runs() == Number(number=0)


@pytest.mark.parametrize(
    ("answer", "error", "what"),
    [
        (None, UsageError, "approved: field required"),
        ({}, UsageError, "approved: field required"),
        ({"approved": "perhaps"}, UsageError, "approved: input should be a valid boolean"),
        ({"approved": True, "coment": "x"}, UsageError, "does not ask for 'coment'"),
    ],
)
def test_an_answer_that_is_not_what_is_asked_for_is_refused_where_it_is_given(
    registry, meanwhile, paused, answer, error, what
):
    def resume():
        run = paused()
        with pytest.raises(error, match=what) as caught:
            resume_flow_run(run.id, answer)
        assert "approved (BOOLEAN)" in caught.value.hint
        assert registry.find_flow_run(run.id) == run
        resume_flow_run(run.id, {"approved": True})

    meanwhile(resume)
    assert approve().approved
    assert names(registry) == ["Running", "Paused", "Running", "Completed"]


def test_an_answer_that_nobody_asks_for_is_refused(registry, meanwhile, paused):
    def resume():
        run = paused()
        with pytest.raises(UsageError, match="asks for nothing"):
            resume_flow_run(run.id, {"approved": True})
        assert registry.find_flow_run(run.id) == run
        resume_flow_run(run.id, {})

    @flow
    def runs():
        return pause_flow_run(**PAUSE)

    meanwhile(resume)
    assert runs() is None


@pytest.mark.parametrize("ask", [approve, approve_in_coroutine])
def test_an_answer_that_the_flows_own_check_refuses_pauses_it_again_until_one_is_taken(
    registry, resumes, ask
):
    rude = {"approved": True, "comment": "rude"}
    resumes(rude, rude, {"approved": True})
    assert ask() == Approval(approved=True)
    assert names(registry) == ["Running", *["Paused", "Running"] * 3, "Completed"]
    changes = registry.state_history(only(registry))
    told = [change.state.message for change in changes if change.state.is_paused()]
    assert told[0].startswith("It waits to be resumed by")
    refused = "The answer was refused: comment: value error, be polite."
    assert told[1:] == [f"{refused} {told[0]}"] * 2  # with the same deadline
    pauses = [
        registry.pauses.find_pause(only(registry).id, state_version=version)
        for version in (2, 4, 6)
    ]
    assert len({pause.resume_by for pause in pauses}) == 1
    assert [pause.run_input for pause in pauses] == [rude, rude, {"approved": True}]
    logged = [line.message for line in registry.read_logs(only(registry).id)]
    assert logged.count(refused) == 2


def test_a_refused_answer_gives_the_key_to_the_next_pause(registry, resumes):
    resumes({"approved": True, "comment": "rude"}, {"approved": False})
    attempts = []

    @flow(retries=1)
    def runs():
        answer = pause_flow_run(key="ok", wait_for_input=Approval, **PAUSE)
        attempts.append(answer)
        if len(attempts) == 1:
            raise ValueError
        return answer

    assert runs() == Approval(approved=False)
    assert attempts == [Approval(approved=False)] * 2
    keys = [
        registry.pauses.find_pause(only(registry).id, state_version=version).key
        for version in (2, 4)
    ]
    assert keys == [None, "ok"]


def test_two_tasks_with_one_key_are_refused_together_and_then_answered(registry, resumes):
    both = threading.Barrier(2, timeout=LONG_SECONDS)

    @task
    def asks():
        both.wait()
        return pause_flow_run(key="a", wait_for_input=Approval, **PAUSE)

    @flow
    def runs():
        return [future.result() for future in (asks.submit(), asks.submit())]

    resumes({"approved": True, "comment": "rude"}, {"approved": True})
    assert runs() == [Approval(approved=True)] * 2
    assert names(registry) == ["Running", *["Paused", "Running"] * 2, "Completed"]


def test_a_refused_answer_does_not_put_the_deadline_off(registry, resumes):
    @flow
    def runs():
        pause_flow_run(timeout=1, wait_for_input=Approval)

    resumes({"approved": True, "comment": "rude"})
    with pytest.raises(FlowPauseTimeout):
        runs()
    changes = [change.state for change in registry.state_history(only(registry))]
    assert [state.name for state in changes] == ["Running", "Paused", "Running", "Paused", "Failed"]
    assert (changes[-1].timestamp - changes[1].timestamp).total_seconds() == 1


class Nested(BaseModel):
    password: SecretStr


class Secret(BaseModel):
    inner: list[Nested]


@pytest.mark.parametrize("model", [Nested, Secret])
def test_a_model_that_asks_for_a_secret_is_refused(registry, model):
    @flow
    def runs():
        with pytest.raises(UsageError, match="asks for a secret"):
            pause_flow_run(wait_for_input=model)

    runs()
    assert names(registry) == ["Running", "Completed"]
