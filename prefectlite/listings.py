"""What the commands that show runs have in common: how they name one, and open the registry.

``cli`` only. A run whose process is dead is recorded as Crashed before it is shown.
"""

from __future__ import annotations

from typing import Annotated

from prefectlite import console
from prefectlite.commands import Argument, Option
from prefectlite.registry import Registry, open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.settling import settle, unrecorded_text

FlowRunReference = Annotated[
    str,
    Argument(
        "The flow run's id, the start of it, or its name; - reads it from stdin.",
        metavar="ID",
        complete="flow-run",
    ),
]
DeploymentReference = Annotated[
    str,
    Argument(
        "The deployment: flow-name/name, its name alone, its id, or the start of that; - reads it from"
        " stdin.",
        metavar="DEPLOYMENT",
        complete="deployment",
    ),
]
JsonListOption = Annotated[bool, Option("--json", description="Print a JSON list.")]
JsonOption = Annotated[bool, Option("--json", description="Print one JSON object.")]


def writable_registry() -> Registry:
    """Return the registry, to change something in it."""
    return open_registry(PREFECTLITE_REGISTRY.value())


def settled_registry(*, to_write: bool = False) -> Registry:
    """Return the registry, once it says which runs' processes are dead.

    Where that cannot be written, a note says which runs these are.

    Args:
        to_write: Whether it is to be changed; else it is not even made where there is none.
    """
    registry = open_registry(PREFECTLITE_REGISTRY.value(), read_only=not to_write)
    for flow_run in settle(registry, writable_registry):
        console.note(unrecorded_text(flow_run))
    return registry
