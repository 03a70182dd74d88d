"""Flow runs that stop for a while: ``prefectlite flow-run pause``."""

from __future__ import annotations

from typing import Annotated

from prefectlite import pauses
from prefectlite.commands import Option
from prefectlite.listings import FlowRunReferences, JsonListOption
from prefectlite.records import FlowRun, Pause
from prefectlite.registry import Registry
from prefectlite.run_orders import change_each


def pause(
    ids: FlowRunReferences,
    *,
    timeout: Annotated[
        float | None,
        Option(
            "--timeout",
            description="Fail a run that is not resumed within this time; never if not given.",
            metavar="SECONDS",
            minimum=0,
        ),
    ] = None,
    as_json: JsonListOption = False,
) -> int:
    """Pause running flow runs: each stops at its next task until it is resumed.

    Tasks that were submitted finish. A run that comes to its end without another task ends.

    Examples:
        prefectlite flow-run pause gigantic-cockatoo
        prefectlite flow-run pause 3f2a9c1e --timeout 3600
    """

    def pause_one(registry: Registry, flow_run: FlowRun) -> FlowRun:
        told = "It stops at its next task."
        return pauses.pause(registry, flow_run, told, timeout_seconds=timeout, pause=Pause())

    return change_each(ids, pause_one, done="Paused", as_json=as_json)


COMMANDS = (pause,)
