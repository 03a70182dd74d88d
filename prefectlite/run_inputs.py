"""What a paused flow run asks for, as a JSON schema on its record, and the answers that it gets.

The model is the flow's, and whoever answers may have no more than the schema of it. So an answer is
checked twice: against a model that is made of the schema, where it is given, and against the flow's own,
where it arrives. Secrets are not asked for: the answer is on record in plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union

from prefectlite.errors import UsageError
from prefectlite.json_values import json_or_text
from prefectlite.names import near_names

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound="BaseModel")
Schema = Mapping[str, Any]

# Deeper than this, whatever JSON holds is taken: a schema may refer to itself.
_DEEPEST = 8
_CONSTRAINTS = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minItems": "min_length",
    "maxItems": "max_length",
}


def schema_of(model: object) -> dict[str, object]:
    """Return the JSON schema of the model that a flow waits for.

    Raises:
        UsageError: It is no pydantic model, or asks for a secret.
    """
    from pydantic import BaseModel
    from pydantic.errors import PydanticUserError

    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise UsageError(
            f"wait_for_input={model!r} is no pydantic model",
            hint="such as: class Approval(BaseModel): approved: bool",
        )
    try:
        schema = model.model_json_schema()
    except PydanticUserError as error:
        raise UsageError(f"{model.__name__} has no JSON schema: {error}") from error
    if any(part.get("format") == "password" for part in _parts(schema)):
        raise UsageError(
            f"{model.__name__} asks for a secret, and the answer would be on record in plain text",
            hint="keep the secret in a block, and ask for its name",
        )
    # Of a model that contains itself, the schema is a reference.
    return {**schema, **_resolved(schema, schema)}


def parsed(model: type[M], run_input: Mapping[str, object] | None) -> M:
    """Return what a flow gets for an answer.

    Raises:
        UsageError: The flow's model refuses it.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate({**(run_input or {})})
    except ValidationError as error:
        raise UsageError(_detail(error)) from error


def check(schema: Schema, run_input: Mapping[str, object]) -> None:
    """Refuse an answer that is not what a run asks for.

    Raises:
        UsageError: It is not; the hint says what is wanted.
    """
    from pydantic import ValidationError

    properties: Schema = schema.get("properties", {})
    hint = f"it asks for: {', '.join(f'{name} ({kind})' for name, kind, _, _ in fields(schema))}"
    for name in run_input:
        if name not in properties and not schema.get("additionalProperties"):
            near = near_names(name, properties)
            raise UsageError(
                f"the run does not ask for {name!r}",
                hint=f"did you mean {near[0]!r}? {hint}" if near else hint,
            )
    try:
        _Models(schema).model(schema).model_validate({**run_input})
    except ValidationError as error:
        raise UsageError(
            f"this is not what the run asks for: {_detail(error)}", hint=hint
        ) from error


def from_texts(schema: Schema, texts: Mapping[str, str]) -> dict[str, object]:
    """Return what a person means by ``KEY=TEXT``: JSON, and text where a text is asked for."""
    properties: Schema = schema.get("properties", {})
    return {
        name: text if properties.get(name, {}).get("type") == "string" else json_or_text(text)
        for name, text in texts.items()
    }


def usage(schema: Schema) -> str:
    """Return the options that an answer must have, for a shell; a person puts in the values.

    As it stands it is refused, or answers nothing: it can be pasted without harm.
    """
    import shlex

    required = schema.get("required", ())
    texts = [
        f"{name}={_type_text(part, schema)}"
        for name, part in schema.get("properties", {}).items()
        if name in required
    ]
    return " ".join(f"--input {shlex.quote(text)}" for text in texts)


def fields(schema: Schema) -> list[tuple[str, str, str, str]]:
    """Return what is asked for: of each field its name, type, default as JSON, and what it means.

    The default is empty where the field must be given.
    """
    required = schema.get("required", ())
    found = []
    for name, part in schema.get("properties", {}).items():
        limits = [f"{word} {part[word]}" for word in _CONSTRAINTS if word in part]
        default = "" if name in required else json.dumps(part.get("default"))
        type_text = ", ".join([_type_text(part, schema), *limits])
        found.append((name, type_text, default, str(part.get("description", ""))))
    return found


def _type_text(part: Schema, schema: Schema) -> str:
    """Return what one field is, for a person: ``BOOLEAN``, ``yes|no``, ``TEXT``."""
    part = _resolved(part, schema)
    if "enum" in part:
        return "|".join(str(value) for value in part["enum"])
    if "const" in part:
        return str(part["const"])
    kinds = [_type_text(each, schema) for each in part.get("anyOf") or part.get("allOf", ())]
    if kinds:
        return "|".join(dict.fromkeys(kind for kind in kinds if kind != "NULL"))
    kind = part.get("format") or part.get("type") or "JSON"
    return {"string": "TEXT", "array": "JSON", "object": "JSON"}.get(kind, str(kind).upper())


def _resolved(part: Schema, schema: Schema) -> Schema:
    """Return what a part of a schema refers to; itself where it refers to nothing."""
    reference = str(part.get("$ref", ""))
    if not reference:
        return part
    found: Schema = schema.get("$defs", {}).get(reference.rpartition("/")[2], {})
    return found


def _detail(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    )


def _parts(schema: object) -> Iterator[Schema]:
    """Yield every schema inside a schema, and itself."""
    if isinstance(schema, Mapping):
        yield schema
        for value in schema.values():
            yield from _parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _parts(value)


class _Models:
    """Makes types that pydantic can check of the parts of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._depth = 0

    def model(self, schema: Schema) -> type[BaseModel]:
        """Return a model that takes what an object's schema describes."""
        from pydantic import ConfigDict, Field, create_model

        required = schema.get("required", ())
        fields: dict[str, Any] = {}
        for index, (name, part) in enumerate(schema.get("properties", {}).items()):
            default = ... if name in required else None
            # A name of a field could be one of BaseModel's own.
            fields[f"field_{index}"] = (self.type(part), Field(default, alias=name))
        extra: Literal["forbid", "allow"] = (
            "forbid" if schema.get("additionalProperties") is False else "allow"
        )
        name = str(schema.get("title", "Input"))
        return create_model(name, __config__=ConfigDict(extra=extra), **fields)

    def type(self, schema: object) -> Any:  # noqa: ANN401 - any type
        """Return the type of a part; what is not understood may be anything."""
        if not isinstance(schema, Mapping) or self._depth > _DEEPEST:
            return Any
        self._depth += 1
        try:
            return self._constrained(self._type(schema), schema)
        finally:
            self._depth -= 1

    def _type(self, schema: Schema) -> Any:  # noqa: ANN401 - any type
        if "$ref" in schema:
            return self.type(_resolved(schema, self._schema))
        if "const" in schema or "enum" in schema:
            values = schema["enum"] if "enum" in schema else [schema["const"]]
            is_plain = all(isinstance(value, str | int | bool | None) for value in values)
            return Literal[tuple(values)] if values and is_plain else Any
        either = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if either:
            return Union[tuple(self.type(part) for part in either)]  # noqa: UP007 - of any number
        return self._of_kind(schema)

    def _of_kind(self, schema: Schema) -> Any:  # noqa: ANN401 - any type
        kind = schema.get("type")
        if kind == "array":
            return list[self.type(schema.get("items"))]  # type: ignore[misc] # made of a schema
        if kind == "object":
            if "properties" in schema:
                return self.model(schema)
            return dict[str, self.type(schema.get("additionalProperties"))]  # type: ignore[misc] # made of a schema
        if kind == "string":
            return _text_type(schema.get("format"))
        kinds: dict[object, object] = {
            "integer": int,
            "number": float,
            "boolean": bool,
            "null": None,
        }
        return kinds.get(kind, Any)

    def _constrained(self, type_: Any, schema: Schema) -> Any:  # noqa: ANN401 - any type
        from pydantic import Field

        found = {ours: schema[word] for word, ours in _CONSTRAINTS.items() if word in schema}
        is_sized = type_ in {int, float, str} or schema.get("type") == "array"
        return Annotated[type_, Field(**found)] if found and is_sized else type_


def _text_type(format_: object) -> Any:  # noqa: ANN401 - any type
    from datetime import date, datetime, time, timedelta
    from uuid import UUID

    formats: dict[object, type] = {
        "date-time": datetime,
        "date": date,
        "time": time,
        "duration": timedelta,
        "uuid": UUID,
    }
    return formats.get(format_, str)
