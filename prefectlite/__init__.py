"""Orchestrate Python functions from the shell: flows, tasks and a record of every run.

The public names live here and are loaded on first use (PEP 562), so that ``import prefectlite``
costs nothing and a command pays only for what it uses. This module must never import another at
the top.
"""

from __future__ import annotations

__version__ = "0.1.0"

_HOMES = {
    "Flow": "prefectlite.flows",
    "State": "prefectlite.states",
    "Task": "prefectlite.tasks",
    "allow_failure": "prefectlite.inputs",
    "flow": "prefectlite.flows",
    "get_run_logger": "prefectlite.logs",
    "pause_flow_run": "prefectlite.pausing",
    "quote": "prefectlite.inputs",
    "resume_flow_run": "prefectlite.pausing",
    "tags": "prefectlite.context",
    "task": "prefectlite.tasks",
    "unmapped": "prefectlite.inputs",
}

__all__ = [  # noqa: PLE0604 - the names are the table's, so that there is one list and not two
    "__version__",
    *_HOMES,
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prefectlite.context import tags as tags
    from prefectlite.flows import Flow as Flow
    from prefectlite.flows import flow as flow
    from prefectlite.inputs import allow_failure as allow_failure
    from prefectlite.inputs import quote as quote
    from prefectlite.inputs import unmapped as unmapped
    from prefectlite.logs import get_run_logger as get_run_logger
    from prefectlite.pausing import pause_flow_run as pause_flow_run
    from prefectlite.pausing import resume_flow_run as resume_flow_run
    from prefectlite.states import State as State
    from prefectlite.tasks import Task as Task
    from prefectlite.tasks import task as task


def __getattr__(name: str) -> object:
    """Import the module that owns a public name, and keep the name here."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'prefectlite' has no attribute {name!r}")
    import sys

    __import__(home)
    value: object = getattr(sys.modules[home], name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
