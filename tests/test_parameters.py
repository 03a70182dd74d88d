"""A call's parameters: bound, checked, read from text, described."""

from __future__ import annotations

import functools
import gc
import inspect
import json
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, field_validator

from prefectlite.errors import ParameterTypeError, UsageError
from prefectlite.json_values import MASK
from prefectlite.parameters import (
    bind,
    call_arguments,
    from_text,
    schema,
    signature_of,
    to_json_values,
    validate,
)

if TYPE_CHECKING:
    from nowhere import Missing


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Model(BaseModel):
    count: int = 0


class Login(BaseModel):
    user: str
    password: SecretStr

    @field_validator("user")
    @classmethod
    def user_is_known(cls, user: str) -> str:
        raise ValueError(f"{user} is unknown")


@dataclass
class Point:
    x: int
    y: int = 0


class Plain:
    """A class that pydantic knows nothing of."""


@dataclass
class Holder:
    plain: Plain


class Sized(Protocol):
    def size(self) -> int: ...


def nothing(): ...


def plain(x, y=2): ...


def everything(a, b=1, /, c=2, *rest, d, e=5, **more): ...


class Worker:
    def method(self, x: int, *, y: int = 1): ...


def test_the_signature_is_computed_once():
    assert signature_of(plain) is signature_of(plain)
    assert signature_of(plain) == inspect.signature(plain)


def test_a_function_is_not_kept_alive_by_what_is_known_of_it():
    def short_lived(x: int): ...

    validate(short_lived, bind(short_lived, (1,), {}))
    reference = weakref.ref(short_lived)
    del short_lived
    gc.collect()
    assert reference() is None


def test_a_callable_that_cannot_be_hashed_can_be_bound():
    class Odd:
        __hash__ = None

        def __call__(self, x: int): ...

    odd = Odd()
    assert validate(odd, bind(odd, ("1",), {})) == {"x": 1}


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (nothing, (), {}, {}),
        (plain, (1,), {}, {"x": 1, "y": 2}),
        (plain, (), {"y": 3, "x": 1}, {"x": 1, "y": 3}),
        (plain, (1, 3), {}, {"x": 1, "y": 3}),
        (
            everything,
            (0, 1, 2, 3, 4),
            {"d": 9, "a": "also", "z": 8},
            {"a": 0, "b": 1, "c": 2, "rest": (3, 4), "d": 9, "e": 5, "more": {"a": "also", "z": 8}},
        ),
        (Worker().method, (1,), {}, {"x": 1, "y": 1}),
        (functools.partial(plain, 1), (), {}, {"y": 2}),
    ],
)
def test_parameters_are_named_ordered_and_have_their_defaults(function, args, kwargs, expected):
    parameters = bind(function, args, kwargs)
    assert list(parameters.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("args", "kwargs", "fault"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"x": 2}, "multiple values for argument 'x'"),
        ((1,), {"z": 2}, "got an unexpected keyword argument 'z'"),
        ((), {"y": 1, "z": 2}, "missing a required argument: 'x'"),
    ],
)
def test_a_call_that_python_would_refuse_is_refused_in_its_words(args, kwargs, fault):
    with pytest.raises(ParameterTypeError) as caught:
        bind(plain, args, kwargs)
    assert str(caught.value) == f"plain(): {fault}"
    assert caught.value.hint == "its parameters are x, y (optional)"
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, UsageError)
    with pytest.raises(TypeError):
        plain(*args, **kwargs)


values = st.integers()


@given(
    args=st.lists(values, max_size=6),
    kwargs=st.dictionaries(st.sampled_from("abcdexyz"), values, max_size=5),
)
def test_call_arguments_is_the_inverse_of_bind(args, kwargs):
    for function in (nothing, plain, everything, Worker.method):
        try:
            parameters = bind(function, args, kwargs)
        except ParameterTypeError:
            with pytest.raises(TypeError):
                inspect.signature(function).bind(*args, **kwargs)
            continue
        again_args, again_kwargs = call_arguments(function, parameters)
        assert bind(function, again_args, again_kwargs) == parameters
        function(*again_args, **again_kwargs)


def test_positional_only_parameters_can_be_called_from_their_names():
    assert call_arguments(everything, {"a": 0, "d": 1}) == ((0,), {"d": 1})
    assert call_arguments(plain, {"y": 5, "x": 1}) == ((1, 5), {})


def test_a_name_that_is_no_parameter_is_passed_by_keyword():
    assert call_arguments(everything, {"a": 0, "d": 1, "z": 2}) == ((0,), {"d": 1, "z": 2})
    args, kwargs = call_arguments(plain, {"x": 1, "z": 2})
    with pytest.raises(ParameterTypeError, match="'z'"):
        bind(plain, args, kwargs)


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (int, "5", 5),
        (int, True, 1),
        (float, 3, 3.0),
        (bool, "yes", True),
        (str, "as it is", "as it is"),
        (Path, "/tmp/x", Path("/tmp/x")),
        (datetime, "2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (date, datetime(2024, 1, 2, tzinfo=UTC), date(2024, 1, 2)),
        (Decimal, "1.10", Decimal("1.10")),
        (list[int], ["1", 2], [1, 2]),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (int | None, "5", 5),
        (int | None, None, None),
        (Optional[float], 1, 1.0),  # noqa: UP045 - the spelling is the case
        (int | str, "5", "5"),
        (list[int] | str, "5", "5"),
        (Literal["a", "b"], "a", "a"),
        (Annotated[int, Field(gt=1)], "2", 2),
        (Colour, "red", Colour.RED),
        (Model, {"count": "3"}, Model(count=3)),
        (Point, {"x": "1"}, Point(1)),
        (Any, "5", "5"),
        (object, "5", "5"),
        (None, None, None),
    ],
)
def test_an_annotated_value_is_coerced_as_pydantic_does(annotation, given, expected):
    def function(x): ...

    function.__annotations__ = {"x": annotation}
    result = validate(function, {"x": given})["x"]
    assert result == expected
    assert type(result) is type(expected)


def test_a_value_that_already_fits_is_not_replaced():
    def function(a: list, b: Plain, c: Model, d: Path, e: Callable, f: Mapping | None): ...

    parameters = bind(function, ([1], Plain(), Model(), Path(), len, {}), {})
    assert validate(function, parameters) is parameters


def test_a_default_is_not_validated():
    def function(x: int = None, y: list[int] = ()): ...  # noqa: RUF013 - what users write

    assert validate(function, bind(function, (), {})) == {"x": None, "y": ()}


def test_an_annotation_that_cannot_be_resolved_is_as_if_there_were_none():
    def function(x: Missing, y: int): ...

    assert validate(function, {"x": "5", "y": "5"}) == {"x": "5", "y": 5}


def test_an_annotation_that_pydantic_cannot_read_is_checked_by_its_class_if_at_all():
    def function(x: Sized, y: Plain | Sized, z: Holder): ...

    holder = Holder(Plain())
    assert validate(function, {"x": 1, "y": 2, "z": holder}) == {"x": 1, "y": 2, "z": holder}
    with pytest.raises(ParameterTypeError, match=r"z: expected .*Holder, got {}"):
        validate(function, {"x": 1, "y": 2, "z": {}})


def test_self_is_not_validated():
    assert validate(Worker.method, {"self": "anything", "x": "1", "y": 1})["x"] == 1

    def method(self: int, x: int): ...

    assert validate(method, {"self": "anything", "x": "1"}) == {"self": "anything", "x": 1}


def test_each_of_many_arguments_is_validated():
    def function(*numbers: int, **named: float): ...

    parameters = bind(function, ("1", 2), {"a": 1})
    assert validate(function, parameters) == {"numbers": (1, 2), "named": {"a": 1.0}}
    with pytest.raises(ParameterTypeError, match=r"numbers: expected int, got \(1, 'x'\) \(1: "):
        validate(function, bind(function, (1, "x"), {}))


def test_a_bad_value_is_said_in_one_line():
    def function(count: int, y: str = ""): ...

    with pytest.raises(ParameterTypeError) as caught:
        validate(function, {"count": "x" * 1000, "y": ""})
    message = str(caught.value)
    assert message.startswith("function(): count: expected int, got 'xxx")
    assert "unable to parse string as an integer" in message
    assert "\n" not in message
    assert len(message) < 260
    assert caught.value.hint == "its parameters are count, y (optional)"


def test_every_bad_value_has_its_line():
    def function(a: int, b: list[int], c: Plain, d: str): ...

    with pytest.raises(ParameterTypeError) as caught:
        validate(function, {"a": "x", "b": ["x", "y"], "c": 1, "d": "fine"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "function(): 3 parameters are not valid"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["a", "b", "c"]
    assert "(0: " in lines[2]
    assert lines[2].endswith(", and 1 more)")


def test_a_value_whose_repr_fails_can_be_refused():
    class Broken:
        def __repr__(self):
            raise RuntimeError("broken")

    def function(x: int): ...

    with pytest.raises(ParameterTypeError, match="<Broken without a repr>"):
        validate(function, {"x": Broken()})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (SecretStr, ["hunter2"]),
        (list[SecretStr], "hunter2"),
        (SecretStr | None, 1.5),
        (Login, {"user": "hunter2", "password": "hunter2"}),
        (dict[str, Login], {"a": {"user": "x", "password": "hunter2"}}),
    ],
)
def test_no_secret_is_in_an_error_or_a_record(annotation, value):
    def function(x): ...

    function.__annotations__ = {"x": annotation}
    with pytest.raises(ParameterTypeError) as caught:
        validate(function, {"x": value})
    assert "hunter2" not in str(caught.value)
    assert "1.5" not in str(caught.value)
    record = to_json_values({"x": value}, function=function)
    assert "hunter2" not in json.dumps(record)


def test_a_secret_in_plain_text_is_masked_by_its_annotation():
    def function(password: SecretStr, user: str): ...

    texts = {"password": "hunter2", "user": "me"}
    assert to_json_values(texts, function=function) == {"password": MASK, "user": "me"}
    checked = validate(function, dict(texts))
    assert checked["password"] == SecretStr("hunter2")
    assert to_json_values(checked) == {"password": MASK, "user": "me"}


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (None, "5", 5),
        (None, "a b", "a b"),
        (None, '{"a": [1, null]}', {"a": [1, None]}),
        (None, "NaN", "NaN"),
        (None, "", ""),
        (None, "[" * 100_000, "[" * 100_000),
        (None, "9" * 5000, "9" * 5000),
        ("int", "5", 5),
        ("str", "5", "5"),
        ("str", '["a"]', '["a"]'),
        ("str | None", "null", "null"),
        ("Annotated[str, Field(min_length=1)]", "5", "5"),
        ("int | str", "5", 5),
        ("str | list[str]", "5", "5"),
        ("str | list[str]", '["5"]', ["5"]),
        ("str | None | list[str]", "null", None),
        ("Path", "5", "5"),
        ("SecretStr", "123456", "123456"),
        ("Decimal", "1.10", "1.10"),
        ("Colour", "1", "1"),
        ("Level", "1", 1),
        ("Literal['1', '2']", "1", "1"),
        ("Missing", "5", 5),
    ],
)
def test_text_is_json_unless_the_parameter_is_written_as_text(annotation, text, expected):
    def function(x): ...

    function.__annotations__ = {} if annotation is None else {"x": annotation}
    value = from_text(function, {"x": text})["x"]
    assert value == expected
    assert type(value) is type(expected)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ParameterTypeError) as caught:
        from_text(lambda count, name=1: 0, {"nmae": "5"})
    assert "there is no parameter 'nmae'" in str(caught.value)
    assert caught.value.hint == "did you mean 'name'? its parameters are count, name (optional)"
    with pytest.raises(ParameterTypeError) as caught:
        from_text(nothing, {"x": "5"})
    assert caught.value.hint == "it has no parameters"


def test_any_name_is_taken_where_there_are_keywords():
    assert from_text(everything, {"a": "1", "zebra": "2"}) == {"a": 1, "zebra": 2}


def test_the_schema_has_what_a_form_needs():
    def function(a: int, model: Model, other: Plain, json, copy: str = "x", *rest: int): ...

    described = schema(function)
    properties = described["properties"]
    assert json.loads(json.dumps(described)) == described
    assert list(properties) == ["a", "model", "other", "json", "copy"]
    assert properties["a"] == {"title": "a", "type": "integer"}
    assert properties["model"] == {"title": "model", "$ref": "#/$defs/Model"}
    assert described["$defs"]["Model"]["properties"]["count"]["type"] == "integer"
    assert properties["other"] == {"title": "other"}
    assert properties["copy"]["default"] == "x"
    assert described["required"] == ["a", "model", "other", "json"]
    assert described["additionalProperties"] is False
    assert schema(lambda **more: 0)["additionalProperties"] is True


def test_pydantic_is_not_imported_where_there_is_nothing_to_coerce(start_python):
    script = """
        import sys
        from datetime import datetime
        from pathlib import Path
        from prefectlite.parameters import bind, validate, to_json_values, from_text
        def f(a, b: int, c: str | None, d: Path, e: datetime, g: list, *h: int, i: float = 1): ...
        parameters = bind(f, (1, 2, None, Path(), datetime.now(), [1], 3, 4), {})
        assert validate(f, parameters) is parameters
        to_json_values(parameters, function=f)
        from_text(f, {"b": "5"})
        heavy = {"pydantic", "asyncio", "uuid", "decimal", "difflib"} & set(sys.modules)
        assert not heavy, heavy
        validate(f, parameters | {"b": "5"})
        assert "pydantic" in sys.modules
    """
    start_python(script).end()
