"""Flow runs as the commands show them.

``cli`` only.
"""

from __future__ import annotations

from prefectlite import console
from prefectlite.records import FlowRun


def print_table(flow_runs: list[FlowRun]) -> None:
    """Print a table of flow runs."""
    ids = console.id_texts([flow_run.id for flow_run in flow_runs])
    console.out_table(
        ["ID", "FLOW", "NAME", "STATE", "STARTED", "DURATION"],
        [
            [
                id_,
                flow_run.flow_name,
                flow_run.name,
                console.state_text(flow_run.state),
                console.moment_text(flow_run.started_at),
                console.seconds_text(flow_run.duration_seconds),
            ]
            for id_, flow_run in zip(ids, flow_runs, strict=True)
        ],
        cut=["FLOW", "NAME"],
    )
