"""What the commands do that pause and resume runs: with each of them, and what they say of it.

``cli`` only; ``pauses`` does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from prefectlite import console
from prefectlite.errors import PrefectLiteError, UsageError
from prefectlite.flow_run_tables import print_runs
from prefectlite.listings import settled_registry
from prefectlite.pauses import is_refusal, resume
from prefectlite.records import FlowRun
from prefectlite.registry import Registry
from prefectlite.run_inputs import from_texts
from prefectlite.selections import FlowRunSelection
from prefectlite.states import StateType
from prefectlite.waiting import wait_for_flow_run

# The run's process is awake within some milliseconds, and says at once what it does not take.
_ANSWER_SECONDS = 0.3


class Change(NamedTuple):
    """Something that is done with flow runs.

    Attributes:
        do: Does it with one, and returns the run as it then is.
        types: The types of states in which a run must be so that it can be done.
        done: What is said of each then, such as ``Paused``.
    """

    do: Callable[[Registry, FlowRun], FlowRun]
    types: Collection[StateType]
    done: str


def change_each(
    selection: FlowRunSelection, change: Change, *, dry_run: bool, as_json: bool
) -> int:
    """Do something with each flow run, also after one with which that cannot be done.

    Args:
        selection: Which flow runs.
        change: What is done.
        dry_run: Only show which they are.
        as_json: Print those with which it was done, as a JSON list.

    Returns:
        The exit code: that of the last one with which it could not be done.
    """
    registry = settled_registry(to_write=not dry_run)
    chosen = selection.choose(registry, change.types)
    if dry_run:
        print_runs(chosen, as_json=as_json)
        return 0
    changed, exit_code = [], 0
    for flow_run in chosen:
        try:
            now = change.do(registry, flow_run)
        except PrefectLiteError as error:
            console.error(error)
            exit_code = error.exit_code
        else:
            changed.append(now)
            why = f" {now.state.message}" if now.state.is_paused() else ""
            console.say(console.escaped(f"{change.done} flow run '{now.name}' ({now.id}).{why}"))
    if as_json:
        console.out_json([flow_run.dict() for flow_run in changed])
    return exit_code


def resume_one(
    registry: Registry, flow_run: FlowRun, given: Mapping[str, object], texts: Mapping[str, str]
) -> FlowRun:
    """Resume a run, and return it as it then is.

    Args:
        given: Answers, by name.
        texts: Answers as a person has typed them, which win over the others.

    Raises:
        NotPausedError, FlowPauseTimeout: As ``pauses.resume``.
        UsageError: The run asks for something else, or its own check refuses the answer.
    """
    pause = registry.pauses.find_pause(flow_run.id, state_version=flow_run.state_version)
    schema = pause.input_schema if pause else None
    answer = {**given, **from_texts(schema or {}, texts)}
    resumed = resume(registry, flow_run, answer)
    if schema is None:
        return resumed
    later = wait_for_flow_run(
        registry,
        flow_run.id,
        until=is_refusal,
        timeout_seconds=_ANSWER_SECONDS,
    )
    if is_refusal(later.state):
        raise UsageError(
            f"flow run {flow_run.name!r} is paused again: {later.state.message}",
            hint=f"what it asks for: prefectlite flow-run inspect {flow_run.id[:8]}",
        )
    return resumed
