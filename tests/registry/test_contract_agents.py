"""What is true of every registry: agents, their limits, and when their next run is due."""

from datetime import timedelta

import pytest

from prefectlite.clock import now
from prefectlite.deployment_records import Agent, WorkQueue
from prefectlite.names import new_id
from prefectlite.records import ProcessIdentity
from prefectlite.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Paused,
    Pending,
    Running,
    Scheduled,
)

HOSTILE_TEXTS = ["Grüße, 世界", "a b", "'; DROP TABLE agent; --", "%_\\", "a\0b", " "]


@pytest.fixture
def tables(store):
    return store.registry.deployments


@pytest.fixture
def add_due(store):
    """Put a run on record that is due in a queue, by default since one second."""

    def add(queue="default", *, seconds=1.0, state=None, **fields):
        at = now() - timedelta(seconds=seconds)
        return store.add_flow_run(state or Scheduled(), work_queue=queue, scheduled_at=at, **fields)

    return add


# Agents


def new_agent(name="a", *, limit=None, token="t", **fields):
    process = ProcessIdentity(
        token=token,
        hostname="h",
        machine_id="m",
        boot_id="b",
        pid_namespace="p",
        pid=7,
        start_ticks=70,
        lock_path="/l",
    )
    fields = {"work_queues": ("default",), "process": process, **fields}
    return Agent(id=new_id(), name=name, concurrency_limit=limit, **fields)


def taken(tables, agent, *queues, limit=100):
    queues = queues or ("default",)
    return tables.claim_due_flow_runs(queues, limit=limit, at=now(), agent=agent)


def test_an_agent_is_read_as_it_was_saved_until_it_is_deleted(store, tables):
    one = new_agent(work_queues=("b", "a"), limit=3)
    two = new_agent(token="u")
    tables.save_agent(one)
    tables.save_agent(two)
    found = store.open_again().deployments
    assert found.list_agents() == [one, two]
    found.delete_agent(one.id)
    found.delete_agent(one.id)
    assert found.list_agents() == [two]


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_an_agent_and_its_queues_may_have_any_name(tables, add_due, text):
    agent = new_agent(text, work_queues=(text, "x"), limit=1)
    tables.save_agent(agent)
    assert tables.list_agents() == [agent]
    run = add_due(text)
    add_due(text)
    assert [each.id for each in taken(tables, agent, text)] == [run.id]
    assert taken(tables, agent, text) == []


def test_a_run_says_who_took_it(store, tables, add_due):
    run = add_due()
    agent = new_agent("mine")
    (found,) = taken(tables, agent)
    assert (found.id, found.launcher, found.agent_name) == (run.id, agent.process, "mine")
    assert store.open_again().find_flow_run(run.id) == found
    assert found in store.registry.list_begun_flow_runs()


def test_a_run_that_nobody_claims_for_an_agent_has_none(tables, add_due):
    add_due()
    (found,) = tables.claim_due_flow_runs(["default"], limit=1, at=now())
    assert (found.launcher, found.agent_name) == (None, None)


def test_an_agents_limit_counts_the_runs_of_its_name_in_all_queues(store, tables, add_due):
    runs = [add_due(queue, seconds=9 - n) for n, queue in enumerate("aabbb")]
    one, again = new_agent(limit=2), new_agent(limit=2, token="after it")
    assert [run.id for run in taken(tables, one, "a", limit=1)] == [runs[0].id]
    assert [run.id for run in taken(tables, again, "b")] == [runs[2].id]
    assert taken(tables, one, "a", "b") == []
    assert taken(tables, again, "a", "b") == []
    assert len(taken(tables, new_agent("other", limit=1), "a")) == 1
    store.registry.change_state(store.registry.find_flow_run(runs[0].id), Cancelled())
    assert [run.id for run in taken(tables, again, "a", "b")] == [runs[3].id]
    assert [run.id for run in taken(tables, new_agent(), "b")] == [runs[4].id]


@pytest.mark.parametrize(
    "state",
    [Pending(), Running(), Paused(), Cancelling(), AwaitingRetry()],
    ids=lambda state: state.name,
)
def test_what_is_going_on_counts_against_the_limit_of_its_agent(tables, add_due, state):
    add_due(state=state, agent_name="a")
    add_due()
    assert taken(tables, new_agent(limit=1)) == []
    assert len(taken(tables, new_agent(limit=2))) == 1


def test_the_smaller_of_an_agents_limit_and_a_queues_holds(tables, add_due):
    tables.create_work_queue(WorkQueue(id=new_id(), name="default", concurrency_limit=1))
    for _ in range(3):
        add_due()
        add_due("other")
    agent = new_agent(limit=3)
    assert sorted(run.work_queue for run in taken(tables, agent, "default", "other")) == [
        "default",
        "other",
        "other",
    ]


AGENTS = """
from prefectlite.agent import new_agent
registry = open_registry(sys.argv[1])
agent = new_agent("one name", ["a", "b"], 3)
ready()
for _ in range(40):
    for run in registry.deployments.claim_due_flow_runs(["a", "b"], limit=9, at=now(), agent=agent):
        print(run.id)
"""


def test_processes_of_one_agents_name_keep_to_its_limit_together(store, tables, add_due, start):
    for number in range(20):
        add_due("ab"[number % 2])
    agents = [start(AGENTS, store.url) for _ in range(2)]
    for agent in agents:
        agent.line()
    for agent in agents:
        agent.tell()
    assert len({id_ for agent in agents for id_ in agent.end().split()}) == 3


# What is due, and when


def test_overdue_are_the_scheduled_runs_of_these_queues_that_were_due_by_then(tables, add_due):
    overdue = [add_due(seconds=seconds).id for seconds in (30, 20)]
    add_due(seconds=10)
    add_due(seconds=-60)
    add_due("other", seconds=30)
    for state in (Scheduled(name="Late"), AwaitingRetry(), Pending(), Running(), Completed()):
        add_due(seconds=30, state=state)

    def found(*queues, seconds):
        before = now() - timedelta(seconds=seconds)
        runs = tables.list_overdue_flow_runs(queues, before=before)
        return sorted(run.id for run in runs)

    assert found("default", seconds=15) == sorted(overdue)
    assert found("default", "default", seconds=25) == overdue[:1]
    assert found("default", seconds=40) == []
    assert found("nothing", seconds=0) == []
    assert found(seconds=0) == []


def test_the_next_due_run_is_the_soonest_after_a_moment_in_these_queues(tables, add_due):
    soon, later = add_due(seconds=-60), add_due("b", seconds=-120)
    add_due(seconds=60)
    add_due("other", seconds=-1)
    assert tables.next_due_at(["default", "b"], after=now()) == soon.scheduled_at
    assert tables.next_due_at(["default", "b"], after=soon.scheduled_at) == later.scheduled_at
    assert tables.next_due_at(["b"], after=later.scheduled_at) is None
    assert tables.next_due_at(["nothing"], after=now()) is None
    assert tables.next_due_at([], after=now()) is None


@pytest.mark.parametrize("state", [Pending(), Running(), Completed()], ids=lambda one: one.name)
def test_a_run_that_does_not_wait_is_not_due_next(tables, add_due, state):
    add_due(seconds=-60, state=state)
    assert tables.next_due_at(["default"], after=now()) is None
