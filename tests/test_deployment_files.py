"""Deployments as TOML files: written, read back, refused."""

from pathlib import Path

import pytest

from prefectlite.deployments import Deployment
from prefectlite.errors import OutputError, UsageError

pytestmark = pytest.mark.usefixtures("flows_folder")


def deployment(**fields):
    fields = {"name": "nightly", "flow_name": "the flow", **fields}
    return Deployment(**{"entrypoint": "deployed_flows.py:etl", **fields})


def loaded(name):
    from prefectlite.entrypoints import load_flow

    return load_flow(f"deployed_flows.py:{name}")


FULL = {
    "description": 'say "hi"\n\ttwice \\ é 世界',
    "version": "1",
    "parameters": {"a": [1, {"b": 2.5, "c d": True}], "q'\"": "x", "text": "\x01"},
    "tags": ["a b", "é"],
    "work_queue_name": "slow queue",
    "infra_overrides": {"env": {"A": "1"}, "grace_seconds": 5, "stream_output": False},
}


def _same(one, other):
    unlike = {"id", "created_at", "updated_at"}
    return {key: value for key, value in one.record().dict().items() if key not in unlike} == {
        key: value for key, value in other.record().dict().items() if key not in unlike
    }


@pytest.mark.parametrize("fields", [{}, FULL], ids=["least", "full"])
@pytest.mark.parametrize("name", ["nightly", "two words", "世界", "'q' \"r\" # [x]", "-x", ".."])
def test_what_is_written_is_read_back_the_same(tmp_path, fields, name):
    written = deployment(name=name, **fields)
    path = tmp_path / "d.toml"
    path.write_text(written.to_toml(), encoding="utf-8")
    assert _same(Deployment.from_toml(path), written)


def test_a_file_begins_with_comments_that_explain_it():
    lines = deployment().to_toml().splitlines()
    assert lines[0].startswith("# A deployment")
    assert any("deployment apply" in line for line in lines if line.startswith("#"))


def test_a_file_that_moves_with_its_code_stays_right(tmp_path, flows_folder):
    (flows_folder / "deploy").mkdir()
    built = Deployment.build_from_flow(loaded("etl"), "n", output="deploy/n.toml")
    assert str(tmp_path) not in (flows_folder / "deploy/n.toml").read_text()
    assert _same(Deployment.from_toml("deploy/n.toml"), built)
    moved = tmp_path / "elsewhere"
    flows_folder.rename(moved)
    found = Deployment.from_toml(moved / "deploy/n.toml").record()
    assert found.working_directory == str(moved)


def test_building_again_replaces_the_file(flows_folder):
    for version in ("1", "2"):
        Deployment.build_from_flow(loaded("etl"), "n", output="n.toml", version=version)
    assert Deployment.from_toml("n.toml").version == "2"
    with pytest.raises(OutputError, match=r"nothing/n\.toml"):
        Deployment.build_from_flow(loaded("etl"), "n", output="nothing/n.toml")


def test_times_of_toml_are_parameters_too(tmp_path):
    path = tmp_path / "d.toml"
    path.write_text(f"{HEAD}[parameters]\nday = 2024-02-29\nat = 2024-02-29T01:02:03Z\n")
    assert Deployment.from_toml(path).record().parameters == {
        "day": "2024-02-29",
        "at": "2024-02-29T01:02:03+00:00",
    }


@pytest.mark.parametrize("value", [None, [None], {"a": {"b": [None]}}])
def test_a_null_cannot_be_written_but_be_applied(value):
    made = deployment(parameters={"x": value})
    with pytest.raises(UsageError, match="'x' has a null"):
        made.to_toml()
    assert made.apply()


def test_a_text_that_utf8_cannot_hold_is_refused():
    with pytest.raises(UsageError, match="UTF-8"):
        deployment(parameters={"x": "caf\udce9"}).to_toml()


HEAD = 'name = "n"\nflow_name = "f"\nentrypoint = "f.py"\n'


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "'name' is missing"),
        ('name = "n"\nflow_name = "f"\n', "'entrypoint' is missing"),
        (f"{HEAD}nme = 1\n", "no key 'nme'"),
        (f"{HEAD}[schedule]\ncron = '* * * * *'\n", "no key 'schedule'"),
        (f"{HEAD}'' = 1\n", "no key ''"),
        (f"{HEAD}version = 1\n", "'version' must be a text"),
        (f"{HEAD}tags = 'a'\n", "'tags' must be a list of texts"),
        (f"{HEAD}tags = [1]\n", "'tags' must be a list of texts"),
        (f"{HEAD}parameters = []\n", "'parameters' must be a table"),
        (f"{HEAD}[infrastructure]\nnonsense = 1\n", "'nonsense'"),
        (f"{HEAD}[infrastructure.environment]\nA = 1\n", "A is none"),
        (f"{HEAD}working_directory = 1\n", "'working_directory' must be a text"),
        (HEAD.replace('"n"', '"a/b"'), "contains '/'"),
        (HEAD.replace('"n"', '""'), "name"),
        (HEAD.replace('"n"', r'"\u001b[2J"'), "name"),
        (HEAD * 2, "cannot be read"),
        ("not toml", "cannot be read"),
        ("a = " + "[" * 100_000, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"\0", "cannot be read"),
    ],
    ids=range(20),
)
def test_a_file_that_is_not_right_is_refused_by_its_name_and_the_fault(tmp_path, text, match):
    path = tmp_path / "d.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=match) as caught:
        Deployment.from_toml(path)
    assert str(path) in str(caught.value)


def test_a_key_that_is_nearly_right_has_a_hint(tmp_path):
    path = tmp_path / "d.toml"
    path.write_text(f"{HEAD}parameter = 1\n")
    with pytest.raises(UsageError) as caught:
        Deployment.from_toml(path)
    assert caught.value.hint == "did you mean 'parameters'?"


def test_a_file_that_is_not_there_or_a_folder_is_a_usage_error(tmp_path):
    for path in (tmp_path / "nothing.toml", tmp_path, Path("a\0b")):
        with pytest.raises(UsageError, match="cannot be read"):
            Deployment.from_toml(path)
