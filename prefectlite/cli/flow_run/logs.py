"""What a flow run has said: ``prefectlite flow-run logs``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from itertools import islice
from typing import Annotated

from prefectlite import console
from prefectlite.commands import Option
from prefectlite.listings import FlowRunReference, settled_registry
from prefectlite.records import LogLine
from prefectlite.settling import wait_for_supervisor


class Level(StrEnum):
    """The levels of log lines, by name."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def number(self) -> int:
        """The level as ``logging`` counts: 10 for debug, 10 more for each of the next."""
        return 10 * (1 + [*Level].index(self))


def logs(
    id: FlowRunReference,  # noqa: A002 - the name of the argument
    *,
    level: Annotated[
        Level,
        Option(
            "--level", "-l", description="Only lines of this level and above.", ignore_case=True
        ),
    ] = Level.DEBUG,
    limit: Annotated[
        int | None,
        Option("--limit", description="Only the first N lines.", metavar="N", minimum=1),
    ] = None,
    tail: Annotated[
        int | None,
        Option("--tail", "-n", description="Only the last N lines.", metavar="N", minimum=1),
    ] = None,
    as_json: Annotated[bool, Option("--json", description="Print one JSON object a line.")] = False,
) -> None:
    """Print the log lines of a flow run and its task runs.

    They come in the order in which they reached the record, which for the output of child processes
    is a little later than they were written.

    Examples:
        prefectlite flow-run logs gigantic-cockatoo --level warning
        prefectlite flow-run logs 3f2a9c1e --tail 20
    """
    from prefectlite.log_listings import Sources, read_lines

    registry = settled_registry()
    flow_run = registry.find_flow_run(id)
    wait_for_supervisor(flow_run)
    lines = (line for line in read_lines(registry, flow_run.id) if line.level >= level.number)
    chosen: Iterable[LogLine] = islice(lines, limit)
    if tail is not None:
        chosen = deque(chosen, maxlen=tail)
    if as_json:
        for line in chosen:
            console.out_json_line(line.dict())
        return
    sources = Sources(registry, flow_run)
    for line in chosen:
        source = sources.name(line)
        console.out(console.log_text(line.timestamp, line.level, source, line.message))


COMMANDS = (logs,)
