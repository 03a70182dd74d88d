"""What a paused run asks for, and how an answer is checked without the flow's own model."""

import datetime as dt
import shlex
from enum import Enum
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from prefectlite.errors import UsageError
from prefectlite.run_inputs import check, fields, from_texts, parsed, schema_of, usage


class Level(Enum):
    LOW = "low"
    HIGH = "high"


class Where(BaseModel):
    host: str
    port: int = 22


class Approval(BaseModel):
    approved: bool
    level: Level = Level.LOW
    mode: Literal["fast", "safe"] = "safe"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    count: Optional[int] = None  # noqa: UP045 - both ways of writing it
    day: dt.date | None = None
    id: UUID | None = None
    words: Annotated[list[str], Field(max_length=2)] = []
    where: Where | None = None
    by_host: dict[str, Where] = {}
    name: Annotated[str, Field(pattern="^[a-z]+$", max_length=5)] = "me"
    anything: Any = None


GOOD = [
    {"approved": True},
    {"approved": "yes", "level": "high", "mode": "fast", "threshold": "0.25"},
    {"approved": False, "count": None, "day": "2024-02-29", "words": ["a", "b"]},
    {"approved": 1, "where": {"host": "a", "port": "23"}, "by_host": {"b": {"host": "c"}}},
    {"approved": True, "id": "7b5fbd5c-0b7f-4b3f-9d83-6a5a5f5f1a6b", "anything": [1, {"a": None}]},
]
BAD = [
    ({}, "approved: field required"),
    ({"approved": "perhaps"}, "approved: input should be a valid boolean"),
    ({"approved": True, "level": "middle"}, "level: input should be 'low' or 'high'"),
    ({"approved": True, "mode": 3}, "mode: input should be 'fast' or 'safe'"),
    ({"approved": True, "threshold": 1.5}, "threshold: input should be less than or equal to 1"),
    ({"approved": True, "count": "many"}, "count"),
    ({"approved": True, "day": "31 June"}, "day"),
    ({"approved": True, "words": ["a", "b", "c"]}, "words: list should have at most 2 items"),
    ({"approved": True, "where": {"port": 1}}, "host: field required"),
    ({"approved": True, "by_host": {"b": 3}}, "by_host.b"),
    ({"approved": True, "name": "UPPER"}, "name: string should match pattern"),
    ({"approved": True, "name": "lowercase"}, "name: string should have at most 5 characters"),
]


@pytest.mark.parametrize("answer", GOOD)
def test_what_the_model_takes_its_schema_takes(answer):
    check(schema_of(Approval), answer)
    assert isinstance(parsed(Approval, answer), Approval)


@pytest.mark.parametrize(("answer", "fault"), BAD)
def test_what_the_model_refuses_its_schema_refuses_and_says_why(answer, fault):
    with pytest.raises(ValidationError):
        Approval.model_validate(answer)
    with pytest.raises(UsageError, match="not what the run asks for") as refused:
        check(schema_of(Approval), answer)
    assert fault in str(refused.value)
    assert refused.value.hint.startswith("it asks for: approved (BOOLEAN), level (low|high), mode")
    with pytest.raises(UsageError):
        parsed(Approval, answer)


_VALUES = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["low", "safe", "1", "x"])
)


@given(st.dictionaries(st.sampled_from([*Approval.model_fields]), _VALUES))
def test_the_schema_never_refuses_what_the_model_takes(answer):
    try:
        Approval.model_validate(answer)
    except ValidationError:
        return
    check(schema_of(Approval), answer)


def test_a_name_that_is_not_asked_for_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match="does not ask for 'aproved'") as refused:
        check(schema_of(Approval), {"aproved": True})
    assert "did you mean 'approved'?" in refused.value.hint


def test_a_model_that_takes_any_name_is_given_any():
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int = 0

    check(schema_of(Open), {"b": "c"})
    assert parsed(Open, {"b": "c"}).b == "c"


def test_names_of_pydantic_itself_can_be_asked_for():
    class Awkward(BaseModel):
        model_config = ConfigDict(protected_namespaces=(), populate_by_name=True)
        model_name: str
        field_0: int = 0
        also_copy: str = Field("x", alias="copy")

    schema = schema_of(Awkward)
    check(schema, {"model_name": "m", "copy": "c"})
    with pytest.raises(UsageError, match="model_name: field required"):
        check(schema, {"copy": "c"})


def test_a_model_that_contains_itself_is_checked_as_deep_as_people_type():
    class Tree(BaseModel):
        name: str
        children: list["Tree"] = []

    schema = schema_of(Tree)
    deep = {"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}]}
    check(schema, deep)


@pytest.mark.parametrize("model", [int, "Approval", Approval(approved=True), None.__class__, dict])
def test_what_is_no_model_cannot_be_waited_for(model):
    with pytest.raises(UsageError, match="is no pydantic model"):
        schema_of(model)


def test_a_secret_is_not_asked_for_at_any_depth():
    class Inner(BaseModel):
        passwords: list[SecretStr | None] = []

    class Outer(BaseModel):
        inner: Inner | None = None

    with pytest.raises(UsageError, match="asks for a secret"):
        schema_of(Outer)


def test_a_model_without_a_schema_is_refused():
    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        thread: object = Field(default_factory=object)
        call: type(lambda: 0)

    with pytest.raises(UsageError, match="Odd has no JSON schema"):
        schema_of(Odd)


def test_texts_are_json_unless_a_text_is_asked_for():
    class Mixed(BaseModel):
        text: str = ""
        number: int = 0
        either: str | int = 0
        flag: bool = False

    texts = {"text": "5", "number": "5", "either": "5", "flag": "yes", "unknown": "[1]"}
    found = from_texts(schema_of(Mixed), texts)
    assert found == {"text": "5", "number": 5, "either": 5, "flag": "yes", "unknown": [1]}


class Small(BaseModel):
    approved: bool
    env: Literal["prod", "dev"]
    note: str | None = Field(None, description="Why.")
    limits: list[int] = []
    share: float = Field(0.5, ge=0, le=1)


def test_usage_shows_what_must_be_given_and_can_be_pasted_without_harm():
    text = usage(schema_of(Small))
    assert text == "--input approved=BOOLEAN --input 'env=prod|dev'"
    options = dict(word.split("=") for word in shlex.split(text)[1::2])
    with pytest.raises(UsageError):
        check(schema_of(Small), options)


def test_fields_show_types_limits_defaults_and_meanings():
    assert fields(schema_of(Small)) == [
        ("approved", "BOOLEAN", "", ""),
        ("env", "prod|dev", "", ""),
        ("note", "TEXT", "null", "Why."),
        ("limits", "JSON", "[]", ""),
        ("share", "NUMBER, minimum 0, maximum 1", "0.5", ""),
    ]
