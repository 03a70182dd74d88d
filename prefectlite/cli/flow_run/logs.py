"""What a flow run has said, and says: ``prefectlite flow-run logs``."""

from __future__ import annotations

from typing import Annotated

from prefectlite.commands import Option
from prefectlite.listings import FlowRunReference, settled_registry
from prefectlite.log_listings import LogOptions, show_logs
from prefectlite.records import LogQuery
from prefectlite.references import find_one
from prefectlite.settling import wait_for_supervisor


def logs(
    id: FlowRunReference,  # noqa: A002 - the name of the argument
    *,
    options: LogOptions,
    task: Annotated[
        list[str] | None,
        Option(
            "--task",
            description="Only lines of this task's runs, or of this task run; may be repeated.",
            metavar="NAME",
        ),
    ] = None,
    subflows: Annotated[
        bool, Option("--subflows", "-r", description="The lines of its subflow runs, too.")
    ] = False,
) -> int:
    """Print the log lines of a flow run and its task runs.

    They come in the order in which they reached the record, which for the output of child processes
    is a little later than they were written. With --follow, a run that has not begun is waited for,
    and the exit code is that of the run, as for wait.

    Examples:
        prefectlite flow-run logs gigantic-cockatoo --level warning
        prefectlite flow-run logs gigantic-cockatoo --follow --tail 20
        prefectlite flow-run logs gigantic-cockatoo --task my_task --since 2h
    """
    registry = settled_registry()
    flow_run = find_one(id, registry.find_flow_run)
    if not options.follow:
        wait_for_supervisor(flow_run)
    query = LogQuery(with_subflows=subflows)
    if task:
        query["tasks"] = task
    return show_logs(registry, flow_run, options, query)


COMMANDS = (logs,)
