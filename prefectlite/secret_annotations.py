"""Whether what is annotated so may hold a secret: known before there is a value.

``parameters`` asks it of parameters, ``blocks`` and the command line of fields. It knows pydantic's
secrets by what they have, and never imports pydantic.
"""

from __future__ import annotations

import dataclasses
import typing


def holds_secret(annotation: object) -> bool:
    """Return whether a type of secrets stands anywhere in an annotation, fields of models included."""
    return _holds(annotation, set())


def _holds(annotation: object, seen: set[int]) -> bool:
    if id(annotation) in seen:
        return False
    seen.add(id(annotation))
    if hasattr(annotation, "get_secret_value"):
        return True
    parts: list[object] = [*typing.get_args(annotation)]
    owner = typing.get_origin(annotation) or annotation
    if isinstance(owner, type):
        parts += [owner] if owner is not annotation else []
        parts += [field.annotation for field in getattr(owner, "model_fields", {}).values()]
        if dataclasses.is_dataclass(owner) or typing.is_typeddict(owner):
            try:
                parts += typing.get_type_hints(owner).values()
            except Exception:  # noqa: BLE001 - an annotation is an expression of the user's, and may raise anything
                return True
    return any(_holds(part, seen) for part in parts)
