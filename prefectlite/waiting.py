"""Wait until a flow run has come to a state that another process brings it to.

``run_deployment`` and the commands that wait call it. It asks the registry again and again whether it
was changed, which costs next to nothing, and reads the runs only then. It records nothing but that a
run's process has died.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefectlite.clock import monotonic
from prefectlite.errors import RegistryReadOnlyError
from prefectlite.interruptions import sleep
from prefectlite.records import FlowRun
from prefectlite.registry import Registry, open_registry
from prefectlite.settling import settle, unrecorded_text
from prefectlite.states import State

#: Between two looks, at first: a person does not notice it.
SHORTEST_SECONDS = 0.02
#: Later: a look costs less than a thousandth of it.
LONGEST_SECONDS = 0.1
#: How the one becomes the other, from look to look.
GROWTH = 1.2
#: How often to look whether the runs' processes live, of which no change of the registry tells.
SETTLE_SECONDS = 1.0


def wait_for_flow_run(
    registry: Registry,
    flow_run_id: str,
    *,
    until: Callable[[State], bool] = State.is_final,
    timeout_seconds: float | None = None,
    poll_seconds: float | None = None,
) -> FlowRun:
    """Block until a flow run's state is what was asked for; return the run as it then is.

    Args:
        registry: Where to look; one for reading suffices.
        flow_run_id: The whole id.
        until: Says of a state whether it is the one. A final state always ends the waiting, since
            nothing follows it.
        timeout_seconds: How long to wait at most; the run is then returned as it is. None for ever.
        poll_seconds: Between two looks; None for 20 ms at first, growing to 100 ms.

    Raises:
        NotFoundError: There is no such run, or it was deleted meanwhile.
    """
    (flow_run,) = wait_for_flow_runs(
        registry,
        [flow_run_id],
        until=until,
        timeout_seconds=timeout_seconds,
        poll_seconds=poll_seconds,
    )
    return flow_run


def wait_for_flow_runs(
    registry: Registry,
    flow_run_ids: Sequence[str],
    *,
    until: Callable[[State], bool] = State.is_final,
    timeout_seconds: float | None = None,
    poll_seconds: float | None = None,
    needed: int = 1,
) -> list[FlowRun]:
    """Block until so many flow runs have come to a state; return all of them as they then are.

    Args:
        needed: How many of them must have; the others are as in ``wait_for_flow_run``.

    Raises:
        NotFoundError: There is no such run, or it was deleted meanwhile.
        RegistryReadOnlyError: One is waited for whose process is dead, and that cannot be recorded.
    """
    deadline = None if timeout_seconds is None else monotonic() + timeout_seconds
    pause = SHORTEST_SECONDS if poll_seconds is None else poll_seconds
    unrecorded: list[FlowRun] = []
    flow_runs: list[FlowRun] = []
    settle_at = 0.0  # at once: one may have died long ago
    read: object = None
    while True:
        mark = registry.change_mark()
        if monotonic() >= settle_at:
            unrecorded = settle(registry, lambda: open_registry(registry.url))
            settle_at = monotonic() + SETTLE_SECONDS
            read = None  # the mark does not tell of what this process has changed
        if mark != read:
            flow_runs = [registry.find_flow_run(flow_run_id) for flow_run_id in flow_run_ids]
            if sum(run.state.is_final() or until(run.state) for run in flow_runs) >= needed:
                return flow_runs
            refuse_unrecorded(unrecorded, flow_run_ids)
            read = mark
        left = pause if deadline is None else min(pause, deadline - monotonic())
        if left <= 0:
            return flow_runs
        # Not time.sleep: a flow that waits for another may itself be cancelled, or over its time.
        sleep(left)
        if poll_seconds is None:
            pause = min(pause * GROWTH, LONGEST_SECONDS)


def refuse_unrecorded(unrecorded: Sequence[FlowRun], flow_run_ids: Sequence[str]) -> None:
    """Refuse to wait for runs that will never end on record.

    Args:
        unrecorded: What ``settle`` returned.
        flow_run_ids: Whole ids of those that are waited for.

    Raises:
        RegistryReadOnlyError: One of these is dead, and that cannot be recorded.
    """
    for dead in unrecorded:
        if dead.id in flow_run_ids:
            raise RegistryReadOnlyError(unrecorded_text(dead))
