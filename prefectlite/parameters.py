"""A call's parameters: bound, checked, copied for the registry, read from text, described.

The engine binds and validates a call here, the registry's record of it is copied here, and the
command line turns ``-p key=value`` into values here. Nothing here calls the function, or imports
pydantic before there is a value that only pydantic can check.
"""

from __future__ import annotations

import enum
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from weakref import WeakKeyDictionary

from prefectlite.errors import ParameterTypeError
from prefectlite.json_values import MASK, json_or_text, shown, to_json_value
from prefectlite.names import near_names
from prefectlite.secret_annotations import holds_secret

if typing.TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

Function = Callable[..., object]

_EMPTY = inspect.Parameter.empty
_ORDINARY = inspect.Parameter.POSITIONAL_OR_KEYWORD
_STARS: dict[object, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}
_UNIONS = (typing.Union, types.UnionType)
#: A subclass of one of these can mean something else than the class: bool is an int, and a
#: datetime a date. So only the exact type passes unseen.
_EXACT_MODULES = frozenset({"builtins", "datetime", "decimal", "uuid"})
_RAW_VALUES = (str, bytes, dict, list, tuple, set, frozenset)
_SHOWN_CHARACTERS = 100


class _Call:
    """What is known of one function's parameters.

    Attributes:
        ordinary: Every name in order, where all may be given by position and by name; else None.
        defaults: The parameters that have one.
    """

    __slots__ = ("_checks", "_secrets", "defaults", "ordinary", "signature")

    def __init__(self, function: Function) -> None:
        self.signature = inspect.signature(function)
        parameters = self.signature.parameters
        plain = all(parameter.kind is _ORDINARY for parameter in parameters.values())
        self.ordinary = tuple(parameters) if plain else None
        self.defaults: dict[str, object] = {
            name: parameter.default
            for name, parameter in parameters.items()
            if parameter.default is not _EMPTY
        }
        self._checks: dict[str, _Check] | None = None
        self._secrets: frozenset[str] | None = None

    def checks(self, function: Function) -> dict[str, _Check]:
        """Return how to check each parameter that has an annotation to check it by."""
        if self._checks is None:
            self._checks = {
                name: _Check(annotation, self.signature.parameters[name])
                for name, annotation in _annotations(function, self.signature).items()
                if annotation is not object and annotation is not typing.Any
            }
        return self._checks

    def secrets(self, function: Function) -> frozenset[str]:
        """Return the parameters that hold, or have somewhere in them, a secret."""
        if self._secrets is None:
            checks = self.checks(function)
            self._secrets = frozenset(name for name in checks if checks[name].has_secret())
        return self._secrets


# Weak, so that a function which is made in a loop can be collected with all that it closes over.
_calls: WeakKeyDictionary[Function, _Call] = WeakKeyDictionary()


def _call_of(function: Function) -> _Call:
    try:
        return _calls[function]
    except KeyError:
        call = _calls[function] = _Call(function)
        return call
    except TypeError:  # a callable object that cannot be hashed, or not be referred to weakly
        return _Call(function)


def signature_of(function: Function) -> inspect.Signature:
    """Return the function's signature, computed once."""
    return _call_of(function).signature


def bind(
    function: Function, args: Sequence[object], kwargs: Mapping[str, object]
) -> dict[str, object]:
    """Return the parameters of a call by name, in the signature's order, defaults applied.

    Those of ``*args`` are one tuple, and those of ``**kwargs`` one dict, under their names.

    Raises:
        ParameterTypeError: Python would refuse the call.
    """
    call = _call_of(function)
    names = call.ordinary
    if names is not None:
        if not (args or kwargs or names):
            return {}
        values = {**call.defaults, **kwargs, **dict(zip(names, args, strict=False))}
        given_once = len(args) <= len(names) and kwargs.keys().isdisjoint(names[: len(args)])
        if (
            given_once
            and len(values) == len(names)
            and values.keys() == call.signature.parameters.keys()
        ):
            return {name: values[name] for name in names}
    try:
        bound = call.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise _refusal(function, str(error)) from None
    bound.apply_defaults()
    return bound.arguments


def call_arguments(
    function: Function, parameters: Mapping[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return the arguments of the call that ``bind`` turns into ``parameters``: its inverse.

    Parameters may be left out where the function has a default. One that the function does not
    have goes into the keywords: to its ``**kwargs``, or to be refused when it is called.
    """
    call = _call_of(function)
    names = call.ordinary
    if names is not None and len(names) == len(parameters):
        try:
            return tuple([parameters[name] for name in names]), {}
        except KeyError:
            pass
    known = call.signature.parameters
    arguments = {name: parameters[name] for name in known if name in parameters}
    bound = inspect.BoundArguments(call.signature, arguments)
    rest = {name: value for name, value in parameters.items() if name not in known}
    return bound.args, {**bound.kwargs, **rest}


def validate(function: Function, parameters: dict[str, object]) -> dict[str, object]:
    """Coerce and check the annotated parameters with pydantic, as Prefect 2.8 does (lax mode).

    A parameter passes as it is if it was left at its default, if it has no annotation (nor one
    that can be resolved), or if it already is an instance of what the annotation asks for; for the
    built-in types, and those of ``datetime``, ``decimal`` and ``uuid``, of exactly that type. What
    a list holds is looked at only if the annotation says what that is. ``self`` is never checked.

    Args:
        function: The function that is to be called.
        parameters: As ``bind`` gives them.

    Returns:
        The same dict where nothing had to be changed, else a new one.

    Raises:
        ParameterTypeError: A line for each parameter that is not valid.
    """
    changed: dict[str, object] = {}
    faults: list[str] = []
    for name, check in _call_of(function).checks(function).items():
        value = parameters.get(name, check.default)
        if value is check.default or check.passes(value):
            continue
        try:
            changed[name] = check.coerced(value)
        except _NotValid as fault:
            faults.append(f"{name}: {fault}")
    if faults:
        count = [f"{len(faults)} parameters are not valid"] if len(faults) > 1 else []
        raise _refusal(function, "\n  ".join(count + faults))
    return {**parameters, **changed} if changed else parameters


def to_json_values(
    parameters: Mapping[str, object], *, function: Function | None = None
) -> dict[str, object]:
    """Return copies of the parameters that JSON can hold, for the registry and for people.

    See ``json_values.to_json_value`` for what becomes of a value.

    Args:
        parameters: As ``bind`` or ``validate`` gives them.
        function: Where it is known, a parameter that its annotation makes a secret is masked even
            while it is plain text: before it was validated, or because it was refused.
    """
    copies = {name: to_json_value(value) for name, value in parameters.items()}
    if function is not None and copies:
        for name in _call_of(function).secrets(function):
            if isinstance(parameters.get(name), _RAW_VALUES):
                copies[name] = MASK
    return copies


def from_text(function: Function, texts: Mapping[str, str]) -> dict[str, object]:
    """Return the values that a person means by ``key=value``, by name; not validated yet.

    A parameter that is annotated as something which is written as text (``str``, a path, a secret,
    ``Decimal``, an enum of texts, any of these or None) keeps its text. Any other text is a value
    if it is JSON, and else itself.

    Raises:
        ParameterTypeError: The function has no parameter of such a name, nor ``**kwargs``.
    """
    call = _call_of(function)
    kinds = {parameter.kind for parameter in call.signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in texts:
            if not _is_named(call.signature, name):
                raise _refusal(function, f"there is no parameter {name!r}", unknown=name)
    checks = call.checks(function)
    return {
        name: _from_text(text, checks[name].members if name in checks else ())
        for name, text in texts.items()
    }


def value_from_text(text: str, annotation: object) -> object:
    """Return the value that a person means by a text, for what is annotated so; see ``from_text``."""
    return _from_text(text, _members(annotation))


def schema(function: Function) -> dict[str, object]:
    """Return the JSON schema of the parameters: an object with ``properties`` and ``required``.

    A parameter without an annotation, or with one that JSON schema cannot express, may be anything.
    """
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Lenient(GenerateJsonSchema):
        """Allow anything where there is no JSON schema, as for a class of the user's."""

        def handle_invalid_for_json_schema(self, *_: object) -> dict[str, typing.Any]:
            return {}

    call = _call_of(function)
    adapters = {
        name: adapter
        for name, check in call.checks(function).items()
        if (adapter := check.adapter()) is not None
    }
    described, definitions = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in adapters.items()],
        schema_generator=Lenient,
    )
    properties: dict[str, object] = {}
    required: list[str] = []
    names = [name for name in call.signature.parameters if _is_named(call.signature, name)]
    for name in names:
        entry = {"title": name, **described.get((name, "validation"), {})}
        if name in call.defaults:
            entry["default"] = to_json_value(call.defaults[name])
        else:
            required.append(name)
        properties[name] = entry
    kinds = {parameter.kind for parameter in call.signature.parameters.values()}
    return {
        "title": "Parameters",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": inspect.Parameter.VAR_KEYWORD in kinds,
        **definitions,
    }


class _NotValid(Exception):  # noqa: N818 - never leaves this module
    """A value that its annotation refuses; the message says what was expected, and what came."""


class _Check:
    """One parameter's annotation, and what it allows.

    Attributes:
        annotation: What one value must be.
        members: The parts of a union, else the annotation alone.
        default: What passes unseen because nobody gave it; ``_EMPTY`` where there is none.
    """

    __slots__ = ("_adapter", "_classes", "_exact", "_stars", "annotation", "default", "members")

    def __init__(self, annotation: object, parameter: inspect.Parameter) -> None:
        self.annotation = annotation
        self.default = parameter.default
        self.members = _members(annotation)
        plain = [member for member in self.members if _is_plain_class(member)]
        self._exact = frozenset(plain)
        self._classes = tuple(one for one in plain if one.__module__ not in _EXACT_MODULES)
        self._stars = _STARS.get(parameter.kind, "")
        self._adapter: TypeAdapter[object] | bool | None = False

    def passes(self, value: object) -> bool:
        """Return whether the value is, beyond doubt, what was asked for."""
        if not self._stars:
            return type(value) in self._exact or isinstance(value, self._classes)
        values: Iterable[object] = value.values() if isinstance(value, dict) else value  # type: ignore[assignment] # a tuple, by bind
        return all(type(one) in self._exact or isinstance(one, self._classes) for one in values)

    def coerced(self, value: object) -> object:
        """Return the value as pydantic makes it.

        An annotation that pydantic cannot read still refuses what is no instance of its classes; one
        that has no classes refuses nothing.

        Raises:
            _NotValid: It cannot.
        """
        adapter = self.adapter()
        if adapter is None:
            if len(self._exact) == len(self.members):
                raise self._fault(value, "")
            return value
        from pydantic import ValidationError

        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise self._fault(value, _detail(error)) from None

    def _fault(self, value: object, detail: str) -> _NotValid:
        expected = f"expected {_annotation_text(self.annotation)}"
        if self.has_secret():
            # What a validator says may repeat the value, so that is left out too.
            return _NotValid(f"{expected}, got {MASK}")
        return _NotValid(f"{expected}, got {shown(value, _SHOWN_CHARACTERS)}{detail}")

    def adapter(self) -> TypeAdapter[object] | None:
        """Return pydantic's reading of the annotation, made once; None if it cannot read it."""
        if isinstance(self._adapter, bool):
            self._adapter = self._make_adapter()
        return self._adapter

    def _make_adapter(self) -> TypeAdapter[object] | None:
        from pydantic import ConfigDict, PydanticUserError, TypeAdapter
        from pydantic_core import SchemaError

        asked: typing.Any = self.annotation
        if self._stars == "*":
            asked = tuple[asked, ...]
        elif self._stars == "**":
            asked = dict[str, asked]
        # A model has a configuration of its own and refuses another.
        for config in (ConfigDict(arbitrary_types_allowed=True), None):
            try:
                return TypeAdapter(asked, config=config)
            except (PydanticUserError, SchemaError, TypeError):
                continue
        return None

    def has_secret(self) -> bool:
        """Return whether a value of this annotation holds a secret anywhere."""
        return holds_secret(self.annotation)


def _members(annotation: object) -> tuple[object, ...]:
    if typing.get_origin(annotation) in _UNIONS:
        return tuple(types.NoneType if one is None else one for one in typing.get_args(annotation))
    return (types.NoneType if annotation is None else annotation,)


def _is_plain_class(annotation: object) -> typing.TypeGuard[type]:
    if not isinstance(annotation, type) or typing.get_origin(annotation) is not None:
        return False
    return not typing.is_typeddict(annotation) and not _is_static_protocol(annotation)


def _is_static_protocol(annotation: type) -> bool:
    is_protocol = getattr(annotation, "_is_protocol", False)
    return is_protocol and not getattr(annotation, "_is_runtime_protocol", False)


def _annotations(function: Function, signature: inspect.Signature) -> dict[str, object]:
    """Return the annotations that can be resolved; each by itself, so that one cannot spoil all."""
    known = getattr(_plain_function(function), "__globals__", {})
    found: dict[str, object] = {}
    for position, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.annotation is _EMPTY or (position == 0 and name in {"self", "cls"}):
            continue
        holder = types.SimpleNamespace(__annotations__={name: parameter.annotation})
        try:
            found[name] = typing.get_type_hints(holder, known, include_extras=True)[name]
        except Exception:  # noqa: BLE001, S112 - an annotation is an expression of the user's, and may raise anything
            continue
    return found


def _plain_function(function: Function) -> object:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if isinstance(function, types.FunctionType | types.MethodType):
        return getattr(function, "__func__", function)
    return inspect.unwrap(type(function).__call__)


def _annotation_text(annotation: object) -> str:
    return inspect.formatannotation(annotation, base_module="__main__")


def _detail(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(str(step) for step in first["loc"])
    more = f", and {len(others)} more" if others else ""
    return f" ({where + ': ' if where else ''}{first['msg'][:1].lower()}{first['msg'][1:]}{more})"


def _refusal(function: Function, fault: str, *, unknown: str | None = None) -> ParameterTypeError:
    signature = signature_of(function)
    names = [_outline(parameter) for parameter in signature.parameters.values()]
    hint = f"its parameters are {', '.join(names)}" if names else "it has no parameters"
    if unknown is not None:
        for name in near_names(unknown, signature.parameters)[:1]:
            hint = f"did you mean {name!r}? {hint}"
    called = getattr(function, "__name__", type(function).__name__)
    return ParameterTypeError(f"{called}(): {fault}", hint=hint)


def _outline(parameter: inspect.Parameter) -> str:
    optional = "" if parameter.default is _EMPTY else " (optional)"
    return f"{_STARS.get(parameter.kind, '')}{parameter.name}{optional}"


def _is_named(signature: inspect.Signature, name: str) -> bool:
    parameter = signature.parameters.get(name)
    return parameter is not None and parameter.kind not in _STARS


def _is_textual(annotation: object) -> bool:
    """Return whether a value of this type is written as text, whatever that text looks like."""
    if typing.get_origin(annotation) is typing.Literal:
        return all(isinstance(one, str) for one in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        return _is_textual(typing.get_args(annotation)[0])
    if not isinstance(annotation, type):
        return False
    if issubclass(annotation, enum.Enum):
        return all(isinstance(member.value, str) for member in annotation)
    if hasattr(annotation, "get_secret_value") or issubclass(annotation, str | bytes | PurePath):
        return True
    # By name, because importing decimal for this would cost every start.
    return (annotation.__module__, annotation.__qualname__) == ("decimal", "Decimal")


def _from_text(text: str, members: Sequence[object]) -> object:
    wanted = [member for member in members if member is not types.NoneType]
    if wanted and all(_is_textual(member) for member in wanted):
        return text
    value = json_or_text(text)
    # ``str | list[str]`` given 5 means "5"; ``str | int`` means 5.
    is_scalar = not isinstance(value, list | dict)
    return text if str in wanted and is_scalar and type(value) not in members else value
