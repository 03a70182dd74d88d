"""What flows a file of Python seems to have, by a look at its text.

For a shell's completion, which must not import a person's code. It may miss a flow that is made in
another way than by a decorator called ``flow``; it must never execute anything or raise.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# A person waits, and nobody writes a file of flows this long.
_MOST_BYTES = 500_000
_DECORATOR = "flow"


class FlowOutline(NamedTuple):
    """A flow, as its source shows it.

    Attributes:
        name: The name of its function.
        summary: The first line of its docstring; empty where it has none.
        parameters: The names of its parameters, and each annotation with the default: ``int = 3``.
    """

    name: str
    summary: str
    parameters: dict[str, str]


def file_of(target: str, folder: Path) -> Path | None:
    """Return the file of an entrypoint without its ``:flow``; None where there is none.

    Args:
        target: A path, or the name of a module, which is looked for as Python does.
        folder: Where relative paths and modules are looked for.
    """
    if target.endswith(".py") or "/" in target:
        return folder / Path(target).expanduser()
    if not all(part.isidentifier() for part in target.split(".")):
        return None
    parts = Path(*target.split("."))
    for base in (folder, *map(Path, sys.path)):
        for path in (base / parts.with_suffix(".py"), base / parts / "__init__.py"):
            if path.is_file():
                return path
    return None


def flows_in(path: Path) -> list[FlowOutline]:
    """Return the flows of a file, in their order; nothing where it cannot be read or understood."""
    try:
        if path.stat().st_size > _MOST_BYTES or not path.is_file():
            return []
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    return [
        FlowOutline(one.name, (ast.get_docstring(one) or "").partition("\n")[0], _parameters(one))
        for one in tree.body
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(map(_is_flow, one.decorator_list))
    ]


def _is_flow(decorator: ast.expr) -> bool:
    while isinstance(decorator, ast.Call):  # flow(...)(...) too
        decorator = decorator.func
    name = getattr(decorator, "attr", getattr(decorator, "id", ""))
    return str(name) == _DECORATOR


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    return dict(_parameter_texts(function.args))


def _parameter_texts(arguments: ast.arguments) -> Iterator[tuple[str, str]]:
    placed = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(placed) - len(arguments.defaults)) + arguments.defaults
    for one, default in zip(
        [*placed, *arguments.kwonlyargs], [*defaults, *arguments.kw_defaults], strict=True
    ):
        texts = ["" if part is None else ast.unparse(part) for part in (one.annotation, default)]
        yield one.arg, " = ".join(texts) if texts[1] else texts[0]
