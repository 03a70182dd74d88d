"""Find an implementation by its kind and name: our own module first, else an entry point.

A kind is a package of prefectlite (``registry``, ``infrastructure``, ``blocks``), a name is a file
in it; another distribution offers more through the entry point group ``prefectlite.KIND``. Nothing
is imported before it is asked for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from prefectlite.errors import SettingError


def load(kind: str, name: str) -> Any:  # noqa: ANN401 - a module, whose names its kind defines
    """Return the module, or the object of an entry point, that implements ``name``.

    Raises:
        SettingError: There is none.
    """
    path = f"prefectlite.{kind}.{name}"
    module = _import(path) if name.isidentifier() and not name.startswith("_") else None
    if module is not None:
        return module
    from importlib.metadata import entry_points

    for entry_point in entry_points(group=f"prefectlite.{kind}", name=name):
        return entry_point.load()
    raise SettingError(
        f"there is no {kind} called {name!r}", hint=f"there are: {', '.join(names(kind))}"
    )


def exists(kind: str, name: str) -> bool:
    """Return whether something implements ``name``, or says so; imports nothing of it."""
    if name.isidentifier() and (Path(__file__).parent / kind / f"{name}.py").is_file():
        return not name.startswith("_")
    from importlib.metadata import entry_points

    return bool(entry_points(group=f"prefectlite.{kind}", name=name))


def names(kind: str) -> list[str]:
    """Return the names of our own implementations of a kind; imports none."""
    files = (Path(__file__).parent / kind).glob("[a-z]*.py")
    return sorted(file.stem for file in files)


def _import(path: str) -> ModuleType | None:
    try:
        __import__(path)
    except ModuleNotFoundError as error:
        # The module, or the package of a kind that has no implementation of ours yet.
        if error.name not in {path, path.rpartition(".")[0]}:
            raise
        return None
    module = sys.modules[path]
    # A folder without code, such as migrations, can be imported too.
    return module if module.__file__ else None
