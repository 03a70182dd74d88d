"""prefectlite block register, and prefectlite block type: ls, inspect."""

import json

import pytest


def test_register_takes_a_file_or_a_module(run, blocks_folder):
    (blocks_folder / "other_blocks.py").write_text("from my_blocks import *")
    ended = run("block register -f my_blocks.py --json")
    path = str(blocks_folder / "my_blocks.py")
    (one,) = json.loads(ended.stdout)
    assert (one["type"], one["entrypoint"]) == ("warehouse", path)
    assert set(one) == {"type", "entrypoint", "registered_at"}
    assert f"Registered block type 'warehouse' of {path}\n" in ended.stderr
    ended = run("block register --module other_blocks")
    assert ended.exit_code == 0
    assert f"'warehouse' of other_blocks, instead of {path}\n" in ended.stderr
    assert "instead of" not in run("block register --module other_blocks").stderr
    (listed,) = [
        one for one in json.loads(run("block type ls --json").stdout) if one["type"] == "warehouse"
    ]
    assert listed == {"type": "warehouse", "source": "registered", "entrypoint": "other_blocks"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "give either --module or --file"),
        ("-m a -f b.py", "give either --module or --file"),
        ("-m none_such", "there is no module 'none_such'"),
        ("-m a/b.py", "'a/b.py' is a file"),
        ("-m my-blocks", "neither a module nor a Python file"),
        ("-f none_such.py", "there is no file"),
        ("-f .", "is a folder"),
        ("-f notes", "is not a Python file"),
        ("-f empty.py", "defines no block type"),
        ("-f broken.py", "broken.py:1"),
        ("-m deployed_flows", "defines no block type"),
    ],
)
def test_what_cannot_be_registered_exits_2(run, flows_folder, line, told):
    (flows_folder / "notes").write_text("")
    (flows_folder / "empty.py").write_text("")
    (flows_folder / "broken.py").write_text("class")
    ended = run(f"block register {line}")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_module_that_raises_when_it_is_registered_shows_its_own_traceback(run, flows_folder):
    (flows_folder / "raises.py").write_text("def fail():\n    raise KeyError(1)\nfail()")
    ended = run("block register -f raises.py")
    assert ended.exit_code == 2
    assert "in fail" in ended.stderr
    assert "prefectlite/" not in ended.stderr


def test_type_ls_shows_types_and_where_they_come_from(run, mine):
    ended = run("block type ls")
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert rows[0] == ["TYPE", "SOURCE", "DEFINED", "IN"]
    assert ["secret", "built", "in", "prefectlite.blocks.system"] in rows
    assert ["warehouse", "registered", str(mine / "my_blocks.py")] in rows
    assert rows[1:] == sorted(rows[1:])


def test_type_inspect_shows_fields_and_which_are_secret(run, mine):
    ended = run("block type inspect warehouse --json")
    document = json.loads(ended.stdout)
    assert document["description"] == "Where things are."
    assert document["class"] == "my_blocks.Warehouse"
    fields = {field["name"]: field for field in document["fields"]}
    assert fields["host"] == {
        "name": "host",
        "type": "str",
        "is_required": True,
        "default": None,
        "is_secret": False,
        "description": "The server's name, which is long enough to go on in a second line.",
    }
    assert fields["retries"]["description"] == "How often to try."
    assert fields["login"]["description"] == fields["raw"]["description"] == "Two in one."
    assert (fields["login"]["type"], fields["tags"]["type"]) == ("Login", "list[str] | None")
    assert (fields["tokens"]["type"], fields["tokens"]["is_secret"]) == (
        "dict[str, SecretStr]",
        True,
    )
    assert (fields["retries"]["default"], fields["raw"]["default"]) == (3, "**********")
    assert fields["login"]["is_secret"]
    lines = [line.split() for line in run("block type inspect warehouse").stdout.splitlines()]
    assert lines[0] == ["FIELD", "TYPE", "DEFAULT", "SECRET"]
    assert ["host", "str", "required", "-"] in lines
    assert ["retries", "int", "3", "-"] in lines
    assert ["retries", "How", "often", "to", "try."] in lines


def test_every_field_of_our_own_types_is_described_in_plain_words(run, home):
    found = []
    for one in json.loads(run("block type ls --json").stdout):
        fields = json.loads(run(f"block type inspect {one['type']} --json").stdout)["fields"]
        found += [{**field, "of": one["type"]} for field in fields]
    assert [(field["of"], field["name"]) for field in found if not field["description"]] == []
    for field in found:
        assert not {"Annotated", "``"} & {*field["type"].split("["), *field["description"].split()}
    types = {field["of"]: field["type"] for field in found if field["name"] == "recipients"}
    assert types == {"email-server": "list[str]"}


def test_type_inspect_shows_the_fields_of_infrastructure(run, home):
    document = json.loads(run("block type inspect process --json").stdout)
    fields = {field["name"]: field for field in document["fields"]}
    assert fields["grace_seconds"]["default"] == 30.0
    assert [name for name, field in fields.items() if field["is_secret"]] == ["environment"]
