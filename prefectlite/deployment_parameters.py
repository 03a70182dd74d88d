"""The parameters of deployments: kept as JSON, checked before a run is made of them.

``deployments`` and its commands call it. A run that another process begins has nothing but what the
registry keeps, so a value that JSON cannot give back is refused, and so is a secret.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from collections.abc import Mapping
from datetime import date, time, timedelta
from pathlib import PurePath

from prefectlite.errors import UsageError
from prefectlite.json_values import MASK, to_json_value
from prefectlite.options import FlowLike
from prefectlite.parameters import bind, from_text, to_json_values, validate

_AS_TEXT = (date, time, timedelta, PurePath)
_AS_LIST = (set, frozenset)
_TEXT_CLASSES = frozenset({("uuid", "UUID"), ("decimal", "Decimal")})


def json_parameters(parameters: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters as JSON holds them, such that a flow's annotations make them again.

    Raises:
        UsageError: A value is of a class that JSON cannot hold.
    """
    given: object = parameters
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise UsageError("parameters are a dict of values by name")
    copies: dict[str, object] = {}
    for name, value in parameters.items():
        try:
            copies[name] = json.loads(json.dumps(value, default=_plain))
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(
                f"the parameter {name!r} cannot be kept in the registry: {error}",
                hint="give what JSON can say: texts, numbers, lists, dicts",
            ) from error
    return copies


def check_parameters(flow: FlowLike, parameters: Mapping[str, object]) -> None:
    """Refuse parameters with which a run of the flow would fail before it begins.

    Raises:
        ParameterTypeError: The signature or an annotation refuses them.
        UsageError: One of them is a secret.
    """
    check_given(flow, parameters)
    bind(flow.fn, (), parameters)


def check_given(flow: FlowLike, parameters: Mapping[str, object]) -> None:
    """Refuse parameters that are wrong whatever others are added; raises what the other raises."""
    from_text(flow.fn, dict.fromkeys(parameters, ""))  # for its refusal of unknown names
    if flow.options.validate_parameters:
        validate(flow.fn, {**parameters})
    for name, copy in to_json_values(parameters, function=flow.fn).items():
        if copy == MASK:
            raise UsageError(
                f"the parameter {name!r} is a secret, and a deployment would keep it in plain text",
                hint="let the flow read it from its environment or from a file",
            )


def _plain(value: object) -> object:
    kind = type(value)
    if isinstance(value, _AS_TEXT) or (kind.__module__, kind.__qualname__) in _TEXT_CLASSES:
        return to_json_value(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, _AS_LIST):
        return [*value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"JSON cannot hold a {kind.__name__}")
