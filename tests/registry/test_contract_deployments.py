"""What is true of every registry: deployments, work queues, and runs that are claimed once."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite.clock import now
from prefectlite.deployment_records import DEFAULT_PRIORITY, Deployment, WorkQueue
from prefectlite.errors import (
    AmbiguousReferenceError,
    ConflictError,
    NotFoundError,
    RegistryReadOnlyError,
    StateConflictError,
)
from prefectlite.names import new_id
from prefectlite.registry import open_registry
from prefectlite.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Paused,
    Pending,
    Running,
    Scheduled,
    StateType,
)

HOSTILE_TEXTS = ["Grüße, 世界", "a b", "'; DROP TABLE deployment; --", "%_\\", "a\0b", " "]


def new_deployment(name="nightly", **fields):
    fields = {"flow_name": "etl", "entrypoint": "f.py:etl", "working_directory": "/w", **fields}
    return Deployment(id=new_id(), name=name, **fields)


def new_queue(name="slow", **fields):
    return WorkQueue(id=new_id(), name=name, **fields)


@pytest.fixture
def tables(store):
    return store.registry.deployments


@pytest.fixture
def add_due(store):
    """Put a run on record that is due in a queue, by default since one second."""

    def add(queue="default", *, seconds=1.0, state=None, **fields):
        at = now() - timedelta(seconds=seconds)
        state = state or Scheduled()
        return store.add_flow_run(state, work_queue=queue, scheduled_at=at, **fields)

    return add


def claimed(tables, *queues, limit=100):
    return [run.id for run in tables.claim_due_flow_runs(queues, limit=limit, at=now())]


# Deployments


def test_a_deployment_is_read_as_it_was_saved(store, tables):
    deployment = new_deployment(
        description="d",
        version="1",
        parameters={"x": [1, None, {"y": 1.5}]},
        tags=("a", "b"),
        work_queue="slow",
        infrastructure={"type": "process", "environment": {"A": "1"}},
    )
    assert tables.save_deployment(deployment) == deployment
    assert store.open_again().deployments.find_deployment(deployment.id) == deployment


def test_saving_again_replaces_all_but_the_id_and_the_time_of_creation(tables):
    first = tables.save_deployment(new_deployment(parameters={"x": 1}))
    later = now() + timedelta(days=1)
    again = new_deployment(entrypoint="g.py", tags=("t",), created_at=later, updated_at=later)
    saved = tables.save_deployment(again)
    assert saved == replace(again, id=first.id, created_at=first.created_at)
    assert tables.list_deployments() == [saved]


def test_a_deployment_is_found_by_id_prefix_full_name_and_unique_name(tables):
    deployment = tables.save_deployment(new_deployment())
    tables.save_deployment(new_deployment("other"))
    for reference in (deployment.id, deployment.id[:8].upper(), "etl/nightly", "nightly"):
        assert tables.find_deployment(reference) == deployment


@pytest.mark.parametrize(
    "reference", ["", "night", "etl", "etl/", "/nightly", "etl/other", "%", "g"]
)
def test_what_means_no_deployment_is_not_found(tables, reference):
    tables.save_deployment(new_deployment())
    with pytest.raises(NotFoundError, match="deployment"):
        tables.find_deployment(reference)


def test_a_name_of_several_flows_is_ambiguous_and_the_full_name_is_not(tables):
    one = tables.save_deployment(new_deployment(flow_name="one"))
    tables.save_deployment(new_deployment(flow_name="two"))
    with pytest.raises(AmbiguousReferenceError, match="more than one deployment") as caught:
        tables.find_deployment("nightly")
    assert sorted(text.partition(" ")[0] for text in caught.value.candidates) == [
        "one/nightly",
        "two/nightly",
    ]
    assert tables.find_deployment("one/nightly") == one


def test_a_flow_name_may_contain_a_slash(tables):
    deployment = tables.save_deployment(new_deployment(flow_name="a/b"))
    assert tables.find_deployment("a/b/nightly") == deployment


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_any_text_is_kept_as_it_is(tables, text):
    deployment = new_deployment(text, flow_name=text, work_queue=text, description=text)
    assert tables.save_deployment(deployment) == deployment
    assert tables.find_deployment(f"{text}/{text}") == deployment
    tables.create_work_queue(new_queue(text))
    assert tables.find_work_queue(text).name == text


def test_deployments_are_listed_by_flow_and_name_and_only_those_asked_for(tables):
    for flow_name, name, queue in (("b", "x", "q"), ("a", "y", "q"), ("a", "x", "r")):
        tables.save_deployment(new_deployment(name, flow_name=flow_name, work_queue=queue))

    def names(**only):
        return [deployment.full_name for deployment in tables.list_deployments(**only)]

    assert names() == ["a/x", "a/y", "b/x"]
    assert names(flow_names=["a"]) == ["a/x", "a/y"]
    assert names(work_queue="q") == ["a/y", "b/x"]
    assert names(flow_names=["a"], work_queue="q") == ["a/y"]
    assert names(flow_names=["nothing"]) == []


def test_deleting_a_deployment_leaves_its_runs(store, tables, add_due):
    deployment = tables.save_deployment(new_deployment())
    run = add_due(deployment_id=deployment.id, infrastructure={"type": "process"})
    tables.delete_deployment(deployment.id)
    with pytest.raises(NotFoundError):
        tables.delete_deployment(deployment.id)
    assert store.registry.find_flow_run(run.id) == run
    assert claimed(tables, "default") == [run.id]


def test_a_run_keeps_what_it_was_scheduled_with(store, tables, add_due):
    run = add_due(deployment_id="d", infrastructure={"type": "process", "environment": {"A": "1"}})
    assert store.open_again().find_flow_run(run.id) == run


# Work queues


def test_a_work_queue_is_read_as_it_was_created(store, tables):
    queue = new_queue(description="d", priority=3, concurrency_limit=0, is_paused=True)
    tables.create_work_queue(queue)
    found = store.open_again().deployments
    assert found.find_work_queue("slow") == found.find_work_queue(queue.id[:8]) == queue


def test_a_second_queue_of_a_name_is_a_conflict(tables):
    tables.create_work_queue(new_queue(priority=1))
    with pytest.raises(ConflictError, match="slow"):
        tables.create_work_queue(new_queue())
    assert [queue.priority for queue in tables.list_work_queues()] == [1]


def test_changing_a_queue_changes_what_is_named_and_no_more(tables):
    queue = new_queue(priority=3, concurrency_limit=2)
    tables.create_work_queue(queue)
    assert tables.change_work_queue(queue.id, is_paused=True) == replace(queue, is_paused=True)
    changed = tables.change_work_queue(queue.id, concurrency_limit=None)
    assert changed == replace(queue, is_paused=True, concurrency_limit=None)
    assert tables.change_work_queue(queue.id) == changed == tables.find_work_queue("slow")
    with pytest.raises(NotFoundError):
        tables.change_work_queue("nothing", is_paused=True)


def test_what_means_no_work_queue_is_not_found(tables):
    tables.create_work_queue(new_queue())
    for reference in ("", "slo", "g"):
        with pytest.raises(NotFoundError, match="work queue"):
            tables.find_work_queue(reference)
    with pytest.raises(NotFoundError):
        tables.delete_work_queue("nothing")


def test_a_queues_name_comes_before_the_start_of_anothers_id(tables):
    other = new_queue("other")
    tables.create_work_queue(other)
    named = new_queue(other.id[:4])
    tables.create_work_queue(named)
    assert tables.find_work_queue(other.id[:4]) == named


def test_work_queues_are_listed_as_they_are_served(tables):
    for name, priority in (("c", 5), ("b", 1), ("a", 5)):
        tables.create_work_queue(new_queue(name, priority=priority))
    assert [queue.name for queue in tables.list_work_queues()] == ["b", "a", "c"]


def test_runs_that_are_not_final_are_counted_by_queue_and_state(store, tables, add_due):
    add_due("a")
    add_due("a", seconds=-60)
    add_due("b", state=Running())
    add_due("b", state=Completed())
    store.add_flow_run()
    assert tables.count_queued_flow_runs() == {"a": {"Scheduled": 2}, "b": {"Running": 1}}


def test_a_registry_for_reading_refuses_to_write_these_too(store, tables):
    tables.save_deployment(new_deployment())
    reader = open_registry(store.url, read_only=True)
    try:
        found = reader.deployments.find_deployment("nightly")
        for write in (
            lambda: reader.deployments.save_deployment(found),
            lambda: reader.deployments.delete_deployment(found.id),
            lambda: reader.deployments.create_work_queue(new_queue()),
            lambda: reader.deployments.change_work_queue("x", is_paused=True),
        ):
            with pytest.raises(RegistryReadOnlyError):
                write()
    finally:
        reader.close()


# Claims


def test_a_claimed_run_is_pending_with_its_history_and_is_not_claimed_again(store, tables, add_due):
    run = add_due()
    (pending,) = tables.claim_due_flow_runs(["default"], limit=5, at=now())
    assert (pending.id, pending.state.type, pending.state_version) == (run.id, StateType.PENDING, 2)
    assert store.registry.find_flow_run(run.id) == pending
    names = [change.state.name for change in store.registry.state_history(pending)]
    assert names == ["Scheduled", "Pending"]
    assert claimed(tables, "default") == []
    with pytest.raises(StateConflictError):  # whoever rests on what was before has lost
        store.registry.change_state(run, Cancelled())


@pytest.mark.parametrize(
    "state",
    [Pending(), Running(), Paused(), Cancelling(), Completed(), Cancelled(), AwaitingRetry()],
    ids=lambda state: state.name,
)
def test_only_a_scheduled_run_is_claimed_and_no_retry_of_a_living_process(tables, add_due, state):
    add_due(state=state)
    assert claimed(tables, "default") == []


def test_a_late_run_is_claimed(tables, add_due):
    run = add_due(state=Scheduled(name="Late"))
    assert claimed(tables, "default") == [run.id]


def test_a_run_is_due_from_its_time_on(tables, add_due, store):
    run = add_due(seconds=-3600)
    for at, expected in (
        (run.scheduled_at - timedelta(microseconds=1), []),
        (run.scheduled_at, [run.id]),
    ):
        found = tables.claim_due_flow_runs(["default"], limit=1, at=at)
        assert [each.id for each in found] == expected
    store.add_flow_run(Scheduled())  # of no deployment
    store.add_flow_run(Scheduled(), work_queue="default")  # at no time
    assert claimed(tables, "default") == []


def test_only_the_queues_that_are_named_are_served_and_a_name_twice_is_once(tables, add_due):
    a, b = add_due("a"), add_due("b")
    assert claimed(tables) == []
    assert claimed(tables, "nothing") == []
    assert claimed(tables, "a", "a") == [a.id]
    assert claimed(tables, "a", "b") == [b.id]


def test_urgent_queues_come_first_then_what_is_due_for_longest(tables, add_due):
    tables.create_work_queue(new_queue("urgent", priority=1))
    tables.create_work_queue(new_queue("idle", priority=DEFAULT_PRIORITY + 1))
    tables.create_work_queue(new_queue("usual"))
    idle = add_due("idle", seconds=500)
    usual = [add_due("usual", seconds=seconds).id for seconds in (30, 10)]
    unknown = add_due("not on record", seconds=20)
    urgent = [add_due("urgent", seconds=seconds).id for seconds in (1, 2)]
    order = [urgent[1], urgent[0], usual[0], unknown.id, usual[1], idle.id]
    queues = ("idle", "usual", "not on record", "urgent")
    assert claimed(tables, *queues, limit=3) == order[:3]
    assert claimed(tables, *queues) == order[3:]


def test_no_more_than_the_limit_is_claimed_and_none_of_zero(tables, add_due):
    for _ in range(5):
        add_due()
    assert claimed(tables, "default", limit=0) == []
    assert claimed(tables, "default", limit=-1) == []
    assert len(claimed(tables, "default", limit=2)) == 2
    assert len(claimed(tables, "default")) == 3


def test_a_paused_queue_is_not_served_until_it_is_resumed(tables, add_due):
    queue = new_queue("default", is_paused=True)
    tables.create_work_queue(queue)
    run, other = add_due(), add_due("other")
    assert claimed(tables, "default", "other") == [other.id]
    tables.change_work_queue(queue.id, is_paused=False)
    assert claimed(tables, "default") == [run.id]


@pytest.mark.parametrize(
    "state",
    [Pending(), Running(), Paused(), Cancelling(), AwaitingRetry()],
    ids=lambda state: state.name,
)
def test_what_is_going_on_counts_against_the_limit_of_its_queue(store, tables, add_due, state):
    tables.create_work_queue(new_queue("default", concurrency_limit=2))
    active = add_due(state=state)
    waiting = [add_due(seconds=seconds).id for seconds in (30, 20, 10)]
    add_due("other", state=Running())
    assert claimed(tables, "default") == waiting[:1]
    assert claimed(tables, "default") == []
    if state.type is StateType.SCHEDULED:
        active = store.registry.change_state(active, Running())
    store.registry.change_state(active, Cancelled())
    assert claimed(tables, "default") == waiting[1:2]


def test_a_limit_of_zero_lets_nothing_begin_and_a_lowered_one_takes_nothing_back(tables, add_due):
    queue = new_queue("default", concurrency_limit=0)
    tables.create_work_queue(queue)
    runs = [add_due().id for _ in range(3)]
    assert claimed(tables, "default") == []
    tables.change_work_queue(queue.id, concurrency_limit=2)
    assert claimed(tables, "default") == runs[:2]
    tables.change_work_queue(queue.id, concurrency_limit=1)
    assert claimed(tables, "default") == []


def test_threads_that_claim_at_once_get_different_runs(tables, add_due, in_threads):
    runs = {add_due().id for _ in range(40)}
    found, barrier = [], threading.Barrier(4)

    def claim(_):
        barrier.wait()
        while batch := claimed(tables, "default", limit=3):
            found.extend(batch)

    in_threads(claim, range(4))
    assert len(found) == 40
    assert set(found) == runs


CLAIM = """
registry = open_registry(sys.argv[1])
ready()
idle = 0
while idle < 3:
    runs = registry.deployments.claim_due_flow_runs(["a", "b"], limit=3, at=now())
    for run in runs:
        assert run.state.is_pending()
        print(run.id)
        registry.change_state(registry.change_state(run, Running()), Completed())
    idle = 0 if runs else idle + 1
"""


def test_of_two_processes_each_of_200_runs_is_claimed_by_exactly_one(store, tables, add_due, start):
    tables.create_work_queue(new_queue("a", concurrency_limit=1000, priority=1))
    runs = [add_due("ab"[number % 2]) for number in range(200)]
    agents = [start(CLAIM, store.url) for _ in range(2)]
    for agent in agents:
        agent.line()
    for agent in agents:
        agent.tell()
    one, two = (agent.end().split() for agent in agents)
    assert sorted(one + two) == sorted(run.id for run in runs)
    for run in runs:
        found = store.registry.find_flow_run(run.id)
        assert (found.state.type, found.state_version) == (StateType.COMPLETED, 4)


LIMITED = """
registry = open_registry(sys.argv[1])
ready()
for _ in range(60):
    for run in registry.deployments.claim_due_flow_runs(["a"], limit=9, at=now()):
        print(run.id)
"""


def test_processes_that_claim_at_once_keep_to_the_limit_together(store, tables, add_due, start):
    tables.create_work_queue(new_queue("a", concurrency_limit=3))
    for _ in range(20):
        add_due("a")
    agents = [start(LIMITED, store.url) for _ in range(2)]
    for agent in agents:
        agent.line()
    for agent in agents:
        agent.tell()
    assert len({id_ for agent in agents for id_ in agent.end().split()}) == 3
