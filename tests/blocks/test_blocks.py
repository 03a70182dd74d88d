"""Blocks: their types, what is kept of every kind of value, names, and blocks in blocks."""

import asyncio
import dataclasses
import enum
import uuid
from collections import deque
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import pydantic
import pytest
from pydantic import (
    AliasChoices,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretBytes,
    SecretStr,
    ValidationError,
    field_serializer,
)
from pydantic_core import core_schema
from typing_extensions import TypedDict  # as pydantic asks for before Python 3.12

from prefectlite import flow
from prefectlite.block_documents import find_document
from prefectlite.blocks import Block
from prefectlite.blocks.system import JSON, DateTime, Secret, String
from prefectlite.errors import BlockNotLoadedError, ConflictError, NotFoundError, UsageError

T = TypeVar("T")


class Size(enum.Enum):
    BIG = "big"


class Point(NamedTuple):
    x: int
    y: float


class Options(TypedDict):
    deep: dict[str, list[SecretStr]]


@dataclasses.dataclass
class Login:
    user: str
    password: SecretStr


class Celsius:
    """A class of the user's that pydantic can read and write."""

    def __init__(self, degrees):
        self.degrees = degrees

    def __eq__(self, other):
        return self.degrees == other.degrees

    __hash__ = None

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(value["degrees"]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: {"degrees": value.degrees}
            ),
        )


class Server(BaseModel):
    host: str = Field(alias="hostName")
    token: SecretStr | None = Field(None, validation_alias=AliasChoices("key", "secretKey"))


class Names(RootModel[list[str]]):
    pass


class Warehouse(Block):
    """Where things are."""

    host: str
    password: SecretStr
    retries: int = 3


class Holder(Block):
    inner: Warehouse | None = None
    others: list[Block] = Field(default_factory=list)
    by_name: dict[str, Block] = Field(default_factory=dict)


# Types.


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Warehouse", "warehouse"),
        ("SlackHook", "slack-hook"),
        ("AWSCredentials", "aws-credentials"),
        ("MyS3Bucket", "my-s3-bucket"),
        ("TwilioSMS", "twilio-sms"),
        ("snake_case", "snake-case"),
        ("_Hidden", "hidden"),
    ],
)
def test_a_type_is_named_as_its_class_in_kebab_case(name, slug):
    assert type(name, (Block,), {}).get_block_type_slug() == slug


def test_a_type_may_name_itself_and_its_subclass_does_not_inherit_that():
    class Special(Block):
        _block_type_slug = "very-own"

    class Other(Special):
        pass

    assert (Special.get_block_type_slug(), Other.get_block_type_slug()) == ("very-own", "other")


@pytest.mark.parametrize("slug", ["Upper", "a b", "a/b", "größe", "-a", "a\n", "x" * 101])
def test_a_type_with_a_name_that_is_none_cannot_be_defined(slug):
    with pytest.raises(UsageError, match="cannot be the name of a block type"):
        type("Wrong", (Block,), {"_block_type_slug": slug})


def test_a_generic_block_is_of_one_type_whatever_it_is_of():
    class Pair(Block, Generic[T]):
        left: T

    Pair[int](left=1).save("one")
    assert Pair[int].load("one").left == Pair.load("one").left == Block.load("pair/one").left == 1


# Round trips.


_VALUES = [
    (str, "Grüße, 世界\n"),
    (str, "\0"),
    (int, 10**30),
    (float, 0.1),
    (float, float("inf")),
    (bool, True),
    (bytes, b"text"),
    (datetime, datetime(2024, 2, 29, 21, 31, 37, 513, tzinfo=UTC)),
    (datetime, datetime(2024, 2, 29)),  # noqa: DTZ001 - a naive one, as users have
    (date, date(2024, 2, 29)),
    (timedelta, timedelta(days=3, microseconds=1)),
    (Decimal, Decimal("1.10")),
    (uuid.UUID, uuid.UUID(int=7)),
    (Path, Path("/tmp/ä")),
    (AnyUrl, AnyUrl("https://example.org/a?b=c")),
    (IPv4Address, IPv4Address("127.0.0.1")),
    (Size, Size.BIG),
    (Celsius, Celsius(20)),
    (tuple[int, str], (1, "a")),
    (set[int], {3, 1, 2}),
    (frozenset[str], frozenset("abc")),
    (deque[int], deque([1, 2])),
    (dict[int, date], {1: date(2024, 1, 1)}),
    (dict[Size, str], {Size.BIG: "x"}),
    (Point, Point(1, 2.5)),
    (Names, Names(["a", "b"])),
    (Login, Login("me", SecretStr("login-secret"))),
    (Options, {"deep": {"a": [SecretStr("x"), SecretStr("y")]}}),
    (Server, Server(hostName="h", secretKey="server-secret")),
    (list[Server], [Server(hostName="h"), Server(hostName="i", secretKey="s")]),
    (SecretStr, SecretStr("s")),
    (SecretStr, SecretStr("")),
    (SecretBytes, SecretBytes(b"\xff\0")),
    (pydantic.Secret[date], pydantic.Secret[date](date(2024, 1, 1))),
    (pydantic.Secret[dict[str, int]], pydantic.Secret[dict[str, int]]({"a": 1})),
    (SecretStr | str, SecretStr("stays secret")),
    (SecretStr | str, "stays plain"),
    (str | SecretBytes | SecretStr | None, SecretStr("s")),
    (set[SecretStr], {SecretStr("a"), SecretStr("b"), SecretStr("c")}),
    (dict[str, Any], {"a": [1, None, {"b": "c"}], "s": SecretStr("in any")}),
    (Any, {"place": ["taken", SecretStr("deep")]}),
    (None | int, None),
]


@pytest.mark.parametrize(("annotation", "value"), _VALUES)
def test_a_value_comes_back_as_it_was_in_the_same_type(annotation, value):
    class Thing(Block):
        value: annotation

    thing = Thing(value=value)
    thing.save("one")
    loaded = Thing.load("one")
    assert loaded == thing
    assert type(loaded.value) is type(thing.value)
    assert Block.load("thing/one") == thing


def test_a_set_is_the_same_whatever_order_it_has_here():
    class Thing(Block):
        numbers: set[int]

    thing = Thing(numbers={9, 16})
    # As large as it was made by these, it keeps another order than one of two numbers.
    thing.numbers.update(range(100))
    for number in set(range(100)) - {9, 16}:
        thing.numbers.discard(number)
    assert [*thing.numbers] != [*{*thing.numbers}]
    thing.save("one")
    assert Thing.load("one").numbers == {9, 16}


def test_the_blocks_of_prefect_have_a_value(registry):
    moment = datetime(2024, 2, 29, 21, 31, tzinfo=UTC)
    Secret(value="s3cret").save("a")
    JSON(value={"a": [1, None]}).save("a")
    String(value="text").save("a")
    DateTime(value=moment).save("a")
    assert Secret.load("a").get() == "s3cret"
    assert "s3cret" not in repr(Secret.load("a"))
    assert JSON.load("a").value == {"a": [1, None]}
    assert String.load("a").value == "text"
    assert DateTime.load("a").value == moment
    assert [one.full_name for one in registry.blocks.list_blocks()] == [
        "date-time/a",
        "json/a",
        "secret/a",
        "string/a",
    ]


def test_what_save_and_load_return_may_be_awaited_as_in_prefect():
    async def main():
        id_ = await Secret(value="s").save("a")
        assert isinstance(id_, str)
        loaded = await Secret.load("a")
        again = await Block.load("secret/a")
        assert await again.save("a", overwrite=True) == id_
        return loaded.get()

    assert asyncio.run(main()) == "s"


def test_a_coroutine_saves_and_loads_without_awaiting():
    async def main():
        Secret(value="s").save("a")
        return Secret.load("a").get()

    assert asyncio.run(main()) == "s"


def test_a_flow_is_given_a_block_and_the_record_of_that_shows_no_secret(registry, stored):
    @flow
    def uses(warehouse: Warehouse, name: str):
        return Block.load(f"warehouse/{name}").password.get_secret_value()

    warehouse = Warehouse(host="h", password="planted-1")
    warehouse.save("prod")
    assert uses(warehouse, "prod") == "planted-1"
    assert registry.list_flow_runs()[0].parameters["warehouse"]["password"] == "**********"
    assert b"planted-1" not in stored()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (lambda: 1, "JSON cannot hold a function"),
        (object(), "JSON cannot hold a object"),
        ((SecretStr("x") for _ in "ab"), "JSON cannot hold a generator"),
        (b"\xff", "UTF-8"),
        ({1: "a", "1": "b"}, "the key is there twice"),
        ({SecretStr("k"): 1}, "a secret cannot be a key"),
        (SecretStr, "JSON cannot hold a"),
    ],
)
def test_what_json_cannot_hold_is_refused_where_it_stands(value, told, registry):
    with pytest.raises(UsageError, match=r"'value.*cannot be kept") as caught:
        JSON(value=[value]).save("a")
    assert told in str(caught.value)
    assert registry.blocks.list_blocks() == []


def test_what_contains_itself_or_is_too_deep_is_refused():
    itself = []
    itself.append(itself)
    with pytest.raises(UsageError, match="contains itself"):
        JSON(value=itself).save("a")
    deep = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(UsageError, match="nested too deep"):
        JSON.model_construct(value=deep).save("a")


def test_a_whole_number_may_stand_for_a_fraction():
    class Slow(Block):
        timeout_seconds: float = 10

    Slow().save("a")
    assert Slow.load("a").timeout_seconds == 10.0


def test_what_would_not_come_back_as_it_is_is_not_saved():
    class Base(BaseModel):
        a: int = 1

    class More(Base):
        b: int = 2

    class Loses(Block):
        base: Base

    with pytest.raises(UsageError, match="would not come back as it is: base"):
        Loses(base=More()).save("a")
    # A text in the place of a secret would else be in the registry.
    with pytest.raises(UsageError, match="would not come back as it is: password"):
        Warehouse.model_construct(host="h", password="plain", retries=1).save("a")
    with pytest.raises(UsageError, match="it is missing"):
        Warehouse.model_construct(host="h").save("a")


def test_a_serializer_of_the_users_that_reveals_a_secret_reveals_none(stored):
    class Reveals(Block):
        password: SecretStr

        @field_serializer("password")
        def reveal(self, password):
            return password.get_secret_value()

    Reveals(password="planted-2").save("a")
    assert Reveals.load("a").password == SecretStr("planted-2")
    assert b"planted-2" not in stored()


def test_extra_fields_are_kept_where_the_class_allows_them_and_refused_elsewhere():
    class Open(Block):
        model_config = ConfigDict(extra="allow")

    Open(a=1, b=SecretStr("s")).save("a")
    assert Open.load("a").model_extra == {"a": 1, "b": SecretStr("s")}
    with pytest.raises(ValidationError):
        Warehouse(host="h", password="p", prot=1)


def test_what_is_assigned_to_a_secret_becomes_one():
    warehouse = Warehouse(host="h", password="a")
    warehouse.password = "planted"
    assert "planted" not in repr(warehouse)


# Names.


def test_a_name_is_taken_once_unless_it_is_overwritten():
    first = Warehouse(host="a", password="p").save("prod")
    with pytest.raises(ConflictError, match="a block 'warehouse/prod' already") as caught:
        Warehouse(host="b", password="q").save("prod")
    assert "overwrite=True" in caught.value.hint
    assert Warehouse.load("prod").host == "a"
    assert Warehouse(host="b", password="q").save("prod", overwrite=True) == first
    loaded = Warehouse.load("prod")
    assert (loaded.host, loaded.password.get_secret_value()) == ("b", "q")
    Secret(value="another type").save("prod")


@pytest.mark.parametrize("name", ["", "Prod", "a b", "a/b", "../a", "ä", "-", "a\n", "x" * 101, 5])
def test_a_name_that_is_none_is_refused_everywhere(name):
    for act in (Secret(value="s").save, Secret.load, Secret.delete):
        with pytest.raises(UsageError, match="cannot be the name of a block"):
            act(name)


@pytest.mark.parametrize("reference", ["a", "/a", "a/", "A/b", "a/b/c", "../b", ""])
def test_of_block_itself_a_name_is_type_and_name(reference):
    for act in (Block.load, Block.delete):
        with pytest.raises(UsageError):
            act(reference)


def test_what_was_deleted_or_never_there_is_not_found():
    Warehouse(host="a", password="p").save("prod")
    Warehouse.delete("prod")
    Warehouse(host="a", password="p").save("prod")
    Block.delete("warehouse/prod")
    for act in (Warehouse.load, Warehouse.delete):
        with pytest.raises(NotFoundError, match="no block 'warehouse/prod'") as caught:
            act("prod")
        assert caught.value.hint == "see: prefectlite block ls"
    with pytest.raises(NotFoundError, match="no block type 'nonesuch'"):
        Block.load("nonesuch/prod")


# Blocks in blocks.


def test_a_block_on_record_is_kept_as_a_reference_and_another_with_the_rest(secrets):
    named, unnamed = Warehouse(host="n", password="p"), Warehouse(host="u", password="q")
    named.save("named")
    holder = Holder(inner=unnamed, others=[named, Secret(value="s")], by_name={"x": named})
    holder.save("all")
    document, _ = find_document("holder", "all")
    assert document.fields["others"][0] == document.fields["by_name"]["x"] == "warehouse/named"
    assert document.fields["inner"] == {"host": "u", "password": "**********", "retries": 3}
    assert Holder.load("all") == Block.load("holder/all") == holder
    assert type(Holder.load("all").others[1]) is Secret

    Warehouse(host="new", password="p").save("named", overwrite=True)
    assert Holder.load("all").by_name["x"].host == "new"
    assert len(secrets()) == 2


def test_blocks_in_blocks_in_blocks_come_back_whole():
    inmost = Warehouse(host="i", password="p")
    inmost.save("inmost")
    middle = Holder(inner=inmost, others=[Holder(inner=Warehouse(host="j", password="q"))])
    outer = Holder(others=[Holder(others=[middle])])
    outer.save("outer")
    assert Holder.load("outer") == outer
    middle.save("middle")
    outer.save("outer", overwrite=True)
    assert Holder.load("outer") == outer


def test_a_reference_to_a_deleted_block_says_which_and_where():
    named = Warehouse(host="n", password="p")
    named.save("named")
    holder = Holder(others=[named])
    holder.save("all")
    Warehouse.delete("named")
    with pytest.raises(BlockNotLoadedError) as caught:
        Holder.load("all")
    assert str(caught.value) == (
        "the block 'holder/all' has another as 'others.0', and there is no block 'warehouse/named'"
    )
    with pytest.raises(NotFoundError, match="no block 'warehouse/named'"):
        holder.save("again")
    named.save("named")
    assert Holder.load("all").others == [named]


def test_a_reference_is_not_kept_to_what_was_changed_since():
    named = Warehouse(host="n", password="p")
    named.save("named")
    for name, value in [("host", "other"), ("password", "other")]:
        changed = Warehouse.load("named")
        setattr(changed, name, value)
        with pytest.raises(ConflictError, match="is not as 'warehouse/named' is on record"):
            Holder(inner=changed).save("all")
        changed.save("named", overwrite=True)
        Holder(inner=changed).save("all", overwrite=True)


def test_a_block_cannot_come_to_contain_itself():
    first, second, third = Holder(), Holder(), Holder()
    first.save("first")
    second.others = [first]
    second.save("second")
    third.others = [second]
    third.save("third")
    with pytest.raises(ConflictError, match="'holder/first' would contain itself") as caught:
        Holder(others=[third]).save("first", overwrite=True)
    assert "holder/first > holder/third > holder/second > holder/first" in str(caught.value)
    assert Holder.load("third") == third
    first.others = [first]
    with pytest.raises(ConflictError, match="is not as 'holder/first' is on record"):
        first.save("first", overwrite=True)


def test_a_circle_that_two_processes_made_at_once_is_told_when_it_is_loaded(registry):
    first, second = Holder(), Holder()
    first.save("first")
    second.save("second")
    Holder(others=[first]).save("second", overwrite=True)
    document = registry.blocks.find_block("holder", "second")
    turned = [dataclasses.replace(document.blocks[0], name="second")]
    registry.blocks.save_block(
        dataclasses.replace(document, name="first", blocks=tuple(turned)), overwrite=True
    )
    with pytest.raises(BlockNotLoadedError, match="'holder/first' contains itself") as caught:
        Holder.load("first")
    assert "holder/first > holder/second > holder/first" in str(caught.value)
