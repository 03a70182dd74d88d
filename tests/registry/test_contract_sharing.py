"""What is true of every registry: opening, closing, and many threads and processes on one."""

import threading

import pytest

from prefectlite.errors import (
    RegistryReadOnlyError,
    SettingError,
    StateConflictError,
)
from prefectlite.registry import open_registry
from prefectlite.run_filters import TaskRunFilter
from prefectlite.states import (
    Completed,
    Pending,
    Running,
    Scheduled,
)
from prefectlite.upkeep_records import Deleted

# Opening and closing, threads and processes


def test_one_address_is_one_object_until_it_is_closed(store):
    assert open_registry(store.url) is store.registry
    closed = store.registry
    assert store.open_again() is not closed


def test_closing_twice_is_nothing_and_a_later_use_opens_again(store):
    run = store.add_flow_run()
    store.registry.close()
    store.registry.close()
    assert store.registry.change_state(run, Completed()).state.is_completed()
    assert store.registry.find_flow_run(run.id).state.is_completed()


def test_a_registry_that_is_opened_for_reading_refuses_every_write(store, flow_run, line):
    run = store.add_flow_run()
    reader = open_registry(store.url, read_only=True)
    try:
        assert reader.find_flow_run(run.id) == run
        for write in (
            lambda: reader.create_flow_run(flow_run()),
            lambda: reader.change_state(run, Completed()),
            lambda: reader.upkeep.delete_flow_runs([run.id], Deleted()),
        ):
            with pytest.raises(RegistryReadOnlyError):
                write()
        # A reader sees what others write afterwards.
        store.registry.change_state(run, Completed())
        assert reader.find_flow_run(run.id).state.is_completed()
    finally:
        reader.close()


@pytest.mark.parametrize("url", ["", "registry.db", "nothing:x", "migrations:x", "__init__:x"])
def test_an_address_that_means_no_registry_is_an_error_of_the_settings(url):
    with pytest.raises(SettingError):
        open_registry(url)


def test_of_threads_that_race_for_one_change_exactly_one_wins(store, in_threads):
    for _ in range(20):
        run = store.add_flow_run(Scheduled())
        wins, losses = [], []
        barrier = threading.Barrier(4)

        def claim(name, run=run, wins=wins, losses=losses, barrier=barrier):
            barrier.wait()
            try:
                wins.append(store.registry.change_state(run, Pending(name)))
            except StateConflictError as conflict:
                losses.append(conflict.current)

        in_threads(claim, "abcd")
        assert len(wins) == 1
        assert losses == [wins[0].state] * 3


def test_threads_that_hammer_one_registry_lose_nothing(store, line, in_threads):
    def work(_):
        for _ in range(10):
            flow_run = store.add_flow_run()
            store.registry.add_log_line(line(flow_run, "hello"))
            run = store.registry.change_state(store.add_task_run(flow_run, Pending()), Running())
            store.registry.change_state(run, Completed())
            assert store.registry.list_task_runs(TaskRunFilter(flow_run_ids=[flow_run.id]))[
                0
            ].state.is_completed()
            store.registry.change_state(flow_run, Completed())

    in_threads(work, range(6))
    runs = store.open_again().list_flow_runs(limit=None)
    assert len(runs) == 60
    assert all(run.state.is_completed() for run in runs)
    assert all(store.messages(run) == ["hello"] for run in runs)


RACE = """
registry = open_registry(sys.argv[1])
runs = [registry.find_flow_run(id_) for id_ in sys.argv[3:]]
ready()
for run in runs:
    try:
        registry.change_state(run, Pending(sys.argv[2]))
    except StateConflictError as conflict:
        print("lost", conflict.current.message)
    else:
        print("won", sys.argv[2])
"""


def test_of_processes_that_race_for_one_change_exactly_one_wins(store, start):
    runs = [store.add_flow_run(Scheduled()) for _ in range(300)]
    racers = [start(RACE, store.url, name, *(run.id for run in runs)) for name in ("one", "two")]
    for racer in racers:
        racer.line()
    for racer in racers:
        racer.tell()
    results = [racer.end().split("\n")[:-1] for racer in racers]
    for run, one, two in zip(runs, *results, strict=True):
        winner = store.registry.find_flow_run(run.id).state.message
        assert sorted([one, two]) == [f"lost {winner}", f"won {winner}"]
        assert len(store.registry.state_history(run)) == 2
