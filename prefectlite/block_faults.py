"""What pydantic refuses in a block, in words that show no value: one may be a secret.

``blocks`` and the command line say with it what is wrong with fields. pydantic's own errors are never
shown, nor kept as the cause of ours: they hold what was given.
"""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from prefectlite.block_records import place_text
from prefectlite.secret_annotations import holds_secret

_LISTS = {"list_type", "tuple_type", "set_type", "frozen_set_type"}
# Raised by validators of the user's, or with a value in the text; of these secrets may be a part.
_TELLING = {"value_error", "assertion_error", "union_tag_invalid", "get_attribute_error"}
# What pydantic says by itself; it may be asked for other kinds, with texts of the user's.
_SAFE = frozenset(get_args(ErrorType)) - _TELLING


def faults_of(error: ValidationError, class_: type[BaseModel]) -> list[str]:
    """Return what is wrong with each field, such as ``retries: input should be a valid integer``."""
    found = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        place, kind, text = fault["loc"], fault["type"], fault["msg"]
        if kind == "missing":
            text = "it is missing"
        elif kind == "extra_forbidden":
            text = "there is no such field"
        elif kind not in _SAFE and _may_tell(class_, place):
            text = "it is not valid"
        where = place_text(place)
        text = text[:1].lower() + text[1:]
        found.append(f"{where}: {text}" if where else text)
    return found


def list_in(error: ValidationError) -> str | None:
    """Return where a list was wanted and none was given, in ``a.b`` form; None where that is nowhere."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    places = (place_text(fault["loc"]) for fault in faults if fault["type"] in _LISTS)
    return next(places, None)


def _may_tell(class_: type[BaseModel], place: tuple[str | int, ...]) -> bool:
    """Return whether a validator at this place is given a secret."""
    field = class_.model_fields.get(str(place[0])) if place else None
    return holds_secret(class_ if field is None else field.annotation)
