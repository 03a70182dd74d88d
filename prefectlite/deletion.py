"""The one way in which flow runs are deleted: in short writes, and with the results that they stored.

``flow-run delete`` and ``registry prune`` come here. Others go on writing meanwhile. Who interrupts it
finds each run there or gone; only one with more than some hundred task runs or thousand log lines, which
takes several writes, can have lost a part of these, and is told of as unfinished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from prefectlite.registry import Registry
from prefectlite.results import delete_results
from prefectlite.upkeep_records import Deleted

# Who waits for the gate is woken when it becomes free, and would find it taken again.
_NAP_SECONDS = 0.005
# More than are ever deleted in one write.
_RUNS_AT_ONCE = 2_000


def delete_flow_runs(
    registry: Registry, flow_run_ids: Sequence[str], told: Callable[[Deleted], object]
) -> None:
    """Delete flow runs with their task runs, states, log lines and stored results.

    Their subflow runs stay. One that another process has deleted meanwhile is passed over.

    Args:
        registry: Where they are.
        flow_run_ids: Whole ids, in the order in which they are deleted.
        told: Called with what is gone, some runs at a time; also if this is interrupted.

    Raises:
        OutputError: They are deleted, but some of their results cannot be.
    """
    position, unfinished_id = 0, None
    while position < len(flow_run_ids):
        if position:
            time.sleep(_NAP_SECONDS)
        deleted = Deleted()
        try:
            some = flow_run_ids[position : position + _RUNS_AT_ONCE]
            position += registry.upkeep.delete_flow_runs(some, deleted)
        finally:
            if deleted.unfinished_id is None and not deleted.flow_run_ids:
                deleted.unfinished_id = unfinished_id  # this write came to nothing
            unfinished_id = deleted.unfinished_id
            # After the record: a result that is left over is harmless, one that is missed is not.
            told(deleted)
            delete_results([*deleted.flow_run_ids, *deleted.task_run_ids])
