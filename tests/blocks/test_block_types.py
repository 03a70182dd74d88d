"""Where the class of a type is found, and documents that do not fit the class that is there."""

import sys
from datetime import date

import pytest
from pydantic import BaseModel, SecretStr, field_validator, model_validator

from prefectlite import block_types, plugins
from prefectlite.blocks import Block
from prefectlite.blocks.system import Secret
from prefectlite.errors import BlockNotLoadedError, ConflictError, EntrypointError, NotFoundError
from prefectlite.infrastructure.process import Process

_PLANTED = "pl4nted-s3cret"
_MINE = """
from prefectlite.blocks import Block
from prefectlite.blocks.system import Secret
from pydantic import SecretStr

class Warehouse(Block):
    host: str
    password: SecretStr
"""


@pytest.fixture
def mine(flows_folder):
    """A file with a type of blocks, registered, and a block of it; and the class is forgotten."""
    path = flows_folder / "my_blocks.py"
    path.write_text(_MINE)
    block_types.register_types(str(path))
    block_types.known["warehouse"](host="h", password=_PLANTED).save("prod")
    forget(path)
    return path


def forget(path):
    sys.modules.pop(path.stem, None)
    block_types.known.pop("warehouse", None)


# Found.


def test_a_registered_type_is_imported_when_a_block_of_it_is_loaded(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = [path for path in sys.path if path != str(mine.parent)]
    monkeypatch.setattr(sys, "path", [*before])
    block = Block.load("warehouse/prod")
    assert (block.host, block.password.get_secret_value()) == ("h", _PLANTED)
    assert sys.path == before


def test_a_module_that_has_its_types_from_elsewhere_registers_those(mine, registry):
    (mine.parent / "my_package.py").write_text("from my_blocks import Warehouse")
    assert [one.type for one in block_types.register_types("my_package")] == ["warehouse"]
    forget(mine)
    del sys.modules["my_package"]
    assert registry.blocks.list_block_types()[0].entrypoint == "my_package"
    assert Block.load("warehouse/prod").host == "h"


def test_a_type_that_another_package_offers_is_found_by_its_entry_point(monkeypatch, mine):
    class Offered(Block):
        value: int = 1

    Offered(value=2).save("a")
    del block_types.known["offered"]
    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda kind, name: Offered if name == "offered" else load(kind, name)
    )
    assert Block.load("offered/a").value == 2


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1", "defines no block type"),
        ("import nonesuch_module", "it needs 'nonesuch_module'"),
        ("1 / 0", "ZeroDivisionError"),
        ("from prefectlite.blocks import Block\nclass Größe(Block): ...", "cannot be the name"),
    ],
)
def test_what_defines_no_type_cannot_be_registered(flows_folder, source, told, registry):
    path = flows_folder / "wrong_blocks.py"
    path.write_text(source)
    with pytest.raises(EntrypointError, match=told):
        block_types.register_types(str(path))
    assert registry.blocks.list_block_types() == []


@pytest.mark.parametrize("name", ["Secret", "Process"])
def test_a_type_of_ones_own_cannot_take_the_name_of_one_of_ours(flows_folder, name, registry):
    path = flows_folder / "own_blocks.py"
    path.write_text(f"from prefectlite.blocks import Block\nclass {name}(Block): ...")
    with pytest.raises(ConflictError, match="has the name of one of prefectlite's") as caught:
        block_types.register_types(str(path))
    assert "_block_type_slug" in caught.value.hint
    assert registry.blocks.list_block_types() == []


def test_types_are_listed_with_where_they_come_from(mine):
    sources = {one.type: (one.source, one.entrypoint) for one in block_types.list_types()}
    assert sources["secret"] == ("built in", "prefectlite.blocks.system")
    assert sources["process"] == ("infrastructure", "prefectlite.infrastructure.process")
    assert sources["warehouse"] == ("registered", str(mine))
    assert "my_blocks" not in sys.modules


# Unknown, older, newer.


def test_a_type_that_is_gone_says_where_it_was_registered(mine):
    mine.unlink()
    with pytest.raises(EntrypointError) as caught:
        Block.load("warehouse/prod")
    message = str(caught.value)
    assert message.startswith("the block type 'warehouse' is registered as defined in")
    assert "there is no file" in message
    assert "prefectlite block register" in caught.value.hint


def test_a_file_that_does_not_define_its_type_any_more_is_an_unknown_type(mine):
    mine.write_text("x = 1")
    with pytest.raises(NotFoundError, match="there is no block type 'warehouse'") as caught:
        Block.load("warehouse/prod")
    assert "prefectlite block register" in caught.value.hint


def test_an_unknown_type_in_a_block_says_which_block_and_where(mine):
    class Holder(Block):
        inner: Block

    Holder(inner=Block.load("warehouse/prod")).save("named")
    unnamed = Block.load("warehouse/prod").model_copy()
    unnamed._block_document_name = None
    Holder(inner=unnamed).save("unnamed")
    forget(mine)
    mine.write_text("x = 1")
    for name in ("named", "unnamed"):
        with pytest.raises(BlockNotLoadedError) as caught:
            Holder.load(name)
        assert f"'holder/{name}' has another as 'inner'" in str(caught.value)
        assert "there is no block type 'warehouse'" in str(caught.value)


_NEWER = """
from datetime import date
from prefectlite.blocks import Block
from pydantic import BaseModel, SecretStr, field_validator, model_validator

class Login(BaseModel):
    user: str

class Warehouse(Block):
    {0}
"""
_HEAD = "host: str\n    password: SecretStr\n    "


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (_HEAD + "port: int", "port: it is missing"),
        ("host: str", "password: there is no such field"),
        ("password: SecretStr\n    hosts: str = ''", "host: there is no such field"),
        ("host: int\n    password: SecretStr", "host: input should be a valid integer"),
        ("host: date\n    password: SecretStr", "host: input should be a valid date"),
        ("host: Login\n    password: SecretStr", "host: input should be a valid dictionary"),
        ("host: str\n    password: int", "password: input should be a valid integer"),
        ("host: str\n    password: list[SecretStr]", "password: input should be a valid list"),
        (
            _HEAD
            + "@field_validator('host')\n    def no(cls, value): raise ValueError('too small')",
            "host: value error, too small",
        ),
        (
            _HEAD + "@field_validator('password')\n    def no(cls, value):\n"
            "        raise ValueError(value.get_secret_value())",
            "password: it is not valid",
        ),
        (
            _HEAD + "@model_validator(mode='before')\n    def no(cls, value):\n"
            "        raise ValueError(value['password'].get_secret_value())",
            "it is not valid",
        ),
        (
            _HEAD + "@model_validator(mode='before')\n    def no(cls, value):\n"
            "        raise KeyError(value['password'].get_secret_value())",
            "KeyError in a validator",
        ),
    ],
)
def test_a_block_of_an_older_or_newer_class_says_what_does_not_fit(mine, fields, told):
    mine.write_text(_NEWER.format(fields))
    with pytest.raises(BlockNotLoadedError) as caught:
        Block.load("warehouse/prod")
    message = str(caught.value)
    assert message.startswith("the block 'warehouse/prod' does not fit its class Warehouse: ")
    assert told in message
    assert "prefectlite block inspect warehouse/prod" in caught.value.hint
    assert caught.value.__cause__ is None
    assert _PLANTED not in message
    assert "pydantic" not in message


def test_all_that_does_not_fit_is_said_at_once(mine):
    mine.write_text(_NEWER.format("port: int\n    password: SecretStr"))
    with pytest.raises(BlockNotLoadedError) as caught:
        Block.load("warehouse/prod")
    assert str(caught.value).endswith(": port: it is missing; host: there is no such field")


def test_a_newer_class_with_more_defaults_or_another_type_of_secret_fits(mine):
    mine.write_text(_NEWER.format("host: str\n    password: SecretStr | None\n    port: int = 5"))
    block = Block.load("warehouse/prod")
    assert (block.port, block.password.get_secret_value()) == (5, _PLANTED)


def test_a_class_can_take_care_of_its_older_documents_itself(mine):
    mine.write_text(
        _NEWER.format(
            "server: str\n    password: SecretStr\n    @model_validator(mode='before')\n"
            "    def rename(cls, values):\n"
            "        return {'server': values.pop('host'), **values} if 'host' in values else values"
        )
    )
    assert Block.load("warehouse/prod").server == "h"


def test_a_strict_class_still_takes_what_json_holds_as_text():
    class Strict(Block, strict=True):
        day: date
        numbers: set[int]

    block = Strict(day=date(2024, 2, 29), numbers={1})
    block.save("a")
    assert Strict.load("a") == block


# Infrastructure.


def test_a_process_is_a_block_too(registry, stored):
    process = Process(environment={"KEY": _PLANTED}, working_directory="/srv", grace_seconds=5)
    process.save("big-box")
    assert Process.load("big-box") == Block.load("process/big-box") == process
    with pytest.raises(ConflictError):
        process.save("big-box")
    Process().save("big-box", overwrite=True)
    assert Process.load("big-box") == Process()
    assert _PLANTED.encode() not in stored()
    Process.delete("big-box")
    assert registry.blocks.list_blocks() == []


def test_a_process_that_does_not_fit_says_so(registry):
    from prefectlite.block_documents import save_document
    from prefectlite.block_records import BlockDocument

    document = BlockDocument(id="1", type="process", name="a", fields={})
    save_document(document, {"cpus": 3}, overwrite=False)
    for load in (lambda: Process.load("a"), lambda: Block.load("process/a")):
        with pytest.raises(BlockNotLoadedError) as caught:
            load()
        assert "'process/a' does not fit its type: infrastructure: there is no 'cpus'" in str(
            caught.value
        )


def test_a_field_may_be_a_model_of_secrets(secrets):
    class Login(BaseModel):
        user: str
        password: SecretStr

        @field_validator("user")
        @classmethod
        def check(cls, value):
            assert value != "root"
            return value

        @model_validator(mode="after")
        def check_all(self):
            return self

    class Has(Block):
        login: Login

    Has(login=Login(user="a", password="b")).save("a")
    assert Has.load("a").login.password == SecretStr("b")
    Secret(value="s").save("a")
    assert len(secrets()) == 2
