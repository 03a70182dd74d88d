"""The work, done by Prefect 3: run by the Python of a venv that has it.

With a server of its own where ``PREFECT_API_URL`` says so, else with the one that each process
starts for itself. ``map`` is on the default task runner (threads). Its log lines also go to a file,
as everyone's do. What is on record when the clock stops: the flow run. The states of its task runs are
sent to the server in the background, and are on record some time later. What only some of the work
needs is imported there, so that the others do not pay for it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from uuid import UUID

from prefect import flow, get_client, task
from programs import (
    beside,
    latency,
    main,
    mark,
    marked_at,
    marks,
    peak_bytes,
    peak_bytes_of_children,
    seconds_each,
    tell,
    until,
)

_DEPLOYMENT = "benchmark"


@task
def nothing(number: int) -> int:
    """Return the number."""
    return number


@flow
def empty() -> None:
    """Do nothing."""


@flow
def hello() -> None:
    """Call one task."""
    nothing(1)


@flow
def calls(count: int) -> float:
    """Return the seconds of each of so many calls, after one that is not counted."""
    nothing(0)
    return seconds_each(count, lambda: [nothing(number) for number in range(count)])


@flow
def maps(count: int) -> float:
    """Return the seconds of each of so many tasks, mapped and waited for."""
    started = perf_counter()
    for future in nothing.map(range(count)):
        future.result()
    return (perf_counter() - started) / count


def costs(tasks: str, flows: str, mapped: str) -> None:
    """Tell what each of so many tasks, flows and mapped tasks takes in a process that is warm."""
    empty()
    tell(flow=seconds_each(int(flows), lambda: [empty() for _ in range(int(flows))]))
    tell(task=calls(int(tasks)))
    tell(mapped=maps(int(mapped)))


def first() -> None:
    """Run a flow with one task; the driver times the whole process."""
    hello()
    tell(peak=peak_bytes(), server=peak_bytes_of_children())


def seed(count: str) -> None:
    """Put so many flow runs on record, by the client: running them would take a second each."""
    from prefect.states import Completed

    with get_client(sync_client=True) as client:
        for _ in range(int(count)):
            client.create_flow_run(empty, state=Completed())


def resume(wait: str, poll: str) -> None:
    """Resume a flow so long after it has paused, and tell how soon it goes on."""
    from prefect.flow_runs import resume_flow_run

    with marks() as (ready, reached), beside("paused", ready, reached, poll):
        marked_at(ready)
        flow_run_id = UUID(Path(f"{ready}.id").read_text(encoding="ascii"))
        with get_client(sync_client=True) as client:
            until(lambda: client.read_flow_run(flow_run_id).state.is_paused(), "a paused run")  # noqa: PLW0108 - asked anew each time
        time.sleep(float(wait))
        began = time.monotonic_ns()
        resume_flow_run(flow_run_id)
        tell(resume=latency(began, reached))


def paused(ready: str, reached: str, poll: str) -> None:
    """Pause, looking for its end every so often (an empty text: as often as by default)."""
    from prefect.flow_runs import pause_flow_run
    from prefect.runtime import flow_run

    options = {"poll_interval": float(poll)} if poll else {}

    @flow
    def waits() -> None:
        Path(f"{ready}.id").write_text(str(flow_run.id), encoding="ascii")
        mark(ready)
        pause_flow_run(timeout=600, **options)
        mark(reached)

    waits()


def cancel(wait: str) -> None:
    """Cancel a flow, and tell how soon its code sees it.

    Only a flow that a runner or worker has launched can be cancelled: this is one of ``serve``, which
    hears of it from the server. It calls no tasks: what these tell the server would be in the way.
    """
    from prefect.states import Cancelling

    with marks() as (ready, reached), beside("served"):
        flow_run_id = deployed(ready, reached)
        marked_at(ready)
        time.sleep(float(wait))
        with get_client(sync_client=True) as client:
            began = time.monotonic_ns()
            client.set_flow_run_state(flow_run_id, Cancelling())
            tell(cancel=latency(began, reached))


def served() -> None:
    """Launch the runs of a deployment until terminated."""
    sleeps.serve(name=_DEPLOYMENT, print_starting_message=False)


def deployed(ready: str, reached: str) -> UUID:
    """Make a run of the deployment as soon as it is there, and return its id."""
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    name, parameters = f"sleeps/{_DEPLOYMENT}", {"ready": ready, "reached": reached}

    def made() -> UUID | None:
        with suppress(ObjectNotFound):
            return run_deployment(name, parameters=parameters, timeout=0).id
        return None

    return until(made, "the deployment")


@flow
def sleeps(ready: str, reached: str) -> None:
    """Sleep until cancelled, and mark when."""
    try:
        mark(ready)
        while True:
            time.sleep(0.01)
    finally:
        mark(reached)


if __name__ == "__main__":
    main({work.__name__: work for work in (costs, first, seed, resume, paused, cancel, served)})
