"""Flow runs that stop for a while: ``prefectlite flow-run pause``."""

from __future__ import annotations

import math
from typing import Annotated

from prefectlite import pauses
from prefectlite.commands import Option, Seconds
from prefectlite.listings import JsonListOption
from prefectlite.records import FlowRun, Pause
from prefectlite.registry import Registry
from prefectlite.run_orders import Change, change_each
from prefectlite.selections import DryRunOption, FlowRunSelection
from prefectlite.states import StateType


def pause(
    selection: FlowRunSelection,
    *,
    timeout: Annotated[
        Seconds | None,
        Option(
            "--timeout",
            description="Fail a run that is not resumed within this time; never if not given.",
            minimum=0,
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonListOption = False,
) -> int:
    """Pause running flow runs: each stops at its next task until it is resumed.

    Tasks that were submitted finish. A run that comes to its end without another task ends. Of those
    that options describe, it is done with each that is running.

    Examples:
        prefectlite flow-run pause gigantic-cockatoo
        prefectlite flow-run pause --flow my-flow --timeout 1h
    """
    seconds = None if timeout is None or math.isinf(timeout) else timeout

    def pause_one(registry: Registry, flow_run: FlowRun) -> FlowRun:
        told = "It stops at its next task."
        return pauses.pause(registry, flow_run, told, timeout_seconds=seconds, pause=Pause())

    change = Change(pause_one, types={StateType.RUNNING}, done="Paused")
    return change_each(selection, change, dry_run=dry_run, as_json=as_json)


COMMANDS = (pause,)
