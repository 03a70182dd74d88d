"""Entrypoints: from ``module:flow`` or ``path.py:flow`` to the flow itself.

The command line, deployments and execute load flows here. What is loaded is a person's code: it is
imported, and nothing in it is called. What that code raises is reported as theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from prefectlite.errors import EntrypointError
from prefectlite.names import near_names
from prefectlite.user_code import is_path, load_module

if TYPE_CHECKING:
    from prefectlite.flows import Flow

_FORMS = "an entrypoint is module:flow or path.py:flow"


def load_flow(entrypoint: str, *, folder: Path | None = None) -> Flow[..., object]:
    """Import what an entrypoint names and return its flow.

    Args:
        entrypoint: ``module:flow``, ``path.py:flow``, or either without ``:flow`` when one flow
            is defined there. Flows that are imported from elsewhere count if there are no others.
        folder: Where modules and relative paths are looked for; None for the current folder.

    Raises:
        EntrypointError: There is no such module, file or flow, or not one alone; or its code
            failed. Only then ``__cause__`` is set, to what the code raised, and its traceback
            begins in that code.
    """
    target, name = _parted(entrypoint)
    module = load_module(target, folder=folder)
    return _only_flow(module, target) if name is None else _named_flow(module, target, name)


def absolute(entrypoint: str, folder: Path) -> str:
    """Return an entrypoint that does not depend on the current folder; a module's stays as it is.

    Args:
        entrypoint: As ``load_flow`` takes it.
        folder: Where a relative path is looked for.
    """
    target, name = _parted(entrypoint)
    if is_path(target):
        target = str(folder / target)
    return target if name is None else f"{target}:{name}"


def is_running_program(entrypoint: str, folder: Path) -> bool:
    """Return whether an entrypoint names the very script that this process runs.

    To load it would run it once more, beside itself, with all that it does at its top.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    target, _ = _parted(entrypoint)
    path = target if is_path(target) else f"{target.replace('.', '/')}.py"
    return script is not None and Path(script).resolve() == (folder / path).resolve()


def _parted(entrypoint: str) -> tuple[str, str | None]:
    target, colon, name = entrypoint.rpartition(":")
    # A colon may also be part of a path.
    if not colon or is_path(name):
        target, name = entrypoint, ""
    if not target or (colon and not name and target != entrypoint):
        raise EntrypointError(f"{entrypoint!r} is not an entrypoint", hint=_FORMS)
    return target, name or None


def _flows(module: ModuleType) -> dict[str, Flow[..., object]]:
    """Return a module's flows by name: its own, or the imported ones if there are no others."""
    from prefectlite.flows import Flow

    found: dict[int, tuple[str, Flow[..., object]]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Flow):
            found.setdefault(id(value), (name, value))
    flows = dict(found.values())
    own = {
        name: flow
        for name, flow in flows.items()
        if getattr(flow.fn, "__module__", None) == module.__name__
    }
    return own or flows


def _only_flow(module: ModuleType, target: str) -> Flow[..., object]:
    flows = _flows(module)
    if not flows:
        raise EntrypointError(
            f"there is no flow in {target}", hint="decorate a function in it with @flow"
        )
    if len(flows) > 1:
        raise EntrypointError(
            f"there are {len(flows)} flows in {target}: {', '.join(flows)}",
            hint=f"say which one, such as {target}:{next(iter(flows))}",
        )
    return next(iter(flows.values()))


def _named_flow(module: ModuleType, target: str, name: str) -> Flow[..., object]:
    from prefectlite.flows import Flow

    if name not in vars(module):
        raise EntrypointError(
            f"there is no {name!r} in {target}", hint=_near_flow(name, _flows(module), target)
        )
    value = vars(module)[name]
    if not isinstance(value, Flow):
        what, hint = _what_instead(value, name)
        raise EntrypointError(f"{name!r} in {target} is {what}, not a flow", hint=hint)
    return value


def _near_flow(name: str, flows: Mapping[str, Flow[..., object]], target: str) -> str:
    # A flow's own name is what listings show, so it is what a person may give.
    known = {flow.name: variable for variable, flow in flows.items()}
    known |= {variable: variable for variable in flows}
    for near in near_names(name, known)[:1]:
        return f"did you mean {target}:{known[near]}?"
    return f"its flows are: {', '.join(flows)}" if flows else "no flow is defined in it"


def _what_instead(value: object, name: str) -> tuple[str, str]:
    from prefectlite.tasks import Task

    kind = type(value)
    if isinstance(value, Task):
        return "a task", f"call {name}() from a function that is decorated with @flow"
    if kind.__module__.partition(".")[0] == "prefect":
        return f"a {kind.__name__} of Prefect", "change prefect to prefectlite in its imports"
    if isinstance(value, type):
        return "a class", "decorate a function with @flow"
    if callable(value):
        return "a plain function", f"decorate {name} with @flow"
    return f"of type {kind.__name__}", "decorate a function with @flow"
