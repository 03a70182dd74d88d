"""The secrets of blocks: in files that are whole or not there, and nowhere else."""

import json
import os
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, SecretBytes, SecretStr, ValidationError, model_validator

import prefectlite
from prefectlite import block_documents, secret_files
from prefectlite.block_tables import BlockTables
from prefectlite.blocks import Block
from prefectlite.blocks.system import Secret, String
from prefectlite.errors import (
    BlockNotLoadedError,
    ConflictError,
    OutputError,
    PrefectLiteError,
    RegistryLockTimeoutError,
)

_PLANTED = "pl4nted-sup3r-s3cret"


class Login(BaseModel):
    user: str
    password: SecretStr


class Vault(Block):
    name: str
    key: SecretStr | None = None
    raw: SecretBytes = SecretBytes(b"")
    logins: dict[str, list[Login]] = Field(default_factory=dict)
    inner: Block | None = None
    number: int = 0


def vault(**fields):
    logins = {"a": [Login(user="me", password=_PLANTED)]}
    fields = {"key": _PLANTED, "raw": _PLANTED.encode(), "logins": logins, **fields}
    return Vault(name="v", inner=Secret(value=_PLANTED), **fields)


# Where they are.


def test_secrets_are_in_one_file_a_block_for_its_owner_alone(home, secrets, stored):
    old = os.umask(0)
    try:
        vault().save("one")
        Secret(value=_PLANTED).save("two")
        String(value="public").save("three")
    finally:
        os.umask(old)
    assert len(secrets()) == 2
    assert stat.S_IMODE((home / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets().values()} == {0o600}
    assert any(_PLANTED in path.read_text() for path in secrets().values())
    assert _PLANTED.encode() not in stored()
    assert b"public" in stored()


def test_a_folder_that_others_could_read_is_theirs_no_longer(home, secrets):
    (home / "secrets").mkdir(parents=True, mode=0o755)
    Secret(value="s").save("a")
    assert stat.S_IMODE((home / "secrets").stat().st_mode) == 0o700


def test_each_save_has_a_file_of_its_own_and_the_one_before_goes(secrets):
    seen = set()
    for number in range(5):
        Secret(value=str(number)).save("a", overwrite=True)
        (name,) = secrets()
        seen.add(name)
    assert len(seen) == 5
    Secret.delete("a")
    assert secrets() == {}


def test_a_block_that_has_no_secret_any_more_has_no_file(secrets):
    Vault(name="v", key="s", raw=b"").save("a")

    class Plain(Block):
        _block_type_slug = "vault"
        name: str

    Plain(name="v").save("a", overwrite=True)
    assert secrets() == {}


def test_a_save_that_is_refused_leaves_nothing(secrets, registry):
    Secret(value="s").save("a")
    before = secrets()
    with pytest.raises(ConflictError):
        Secret(value="t").save("a")
    assert secrets() == before
    assert registry.blocks.unused_secrets_files() == []


# Who dies in between, and who saves at once.


_SAVE = """
    import os, sys
    from prefectlite import block_documents, secret_files
    from prefectlite.block_tables import BlockTables
    from prefectlite.blocks.system import Secret

    def die(*_, **__):
        os._exit(9)

    {plant}
    Secret(value=sys.argv[1]).save("a", overwrite=True)
"""
_PLANTS = {
    "before the file": "block_documents.write_secrets = die",
    "in the file": "secret_files.os.fsync = die",
    "before the row": "BlockTables.save_block = die",
    "after the row": "block_documents.remove_secrets = die",
}


@pytest.mark.parametrize("where", _PLANTS)
def test_who_dies_while_saving_leaves_the_old_or_the_new_and_at_most_an_orphan(
    where, start_python, secrets, registry
):
    Secret(value="old").save("a")
    start_python(_SAVE.format(plant=_PLANTS[where]), "new").end(9)
    assert Secret.load("a").get() == ("new" if where == "after the row" else "old")
    assert len(registry.blocks.unused_secrets_files()) == 1
    assert len(secrets()) == (1 if where == "before the file" else 2)

    String(value="any other").save("b")
    assert len(secrets()) == 1
    assert registry.blocks.unused_secrets_files() == []
    assert Secret.load("a").get() == ("new" if where == "after the row" else "old")


def test_a_file_is_on_the_disk_whole_with_its_name_before_a_row_names_it(monkeypatch, home):
    done = []
    fsync, save = os.fsync, BlockTables.save_block

    def note(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append(path if path.is_dir() else path.read_text())
        fsync(descriptor)

    def noted(*arguments, **keywords):
        done.append("row")
        return save(*arguments, **keywords)

    monkeypatch.setattr(secret_files.os, "fsync", note)
    monkeypatch.setattr(BlockTables, "save_block", noted)
    Secret(value="s").save("a")
    done = done[done.index('[{"value": "s"}]') :]
    assert (done[1], done[-1]) == (home / "secrets", "row")


def test_a_block_that_is_replaced_while_it_is_loaded_is_loaded_as_it_is_then(monkeypatch):
    Secret(value="old").save("a")
    read, calls = block_documents.read_secrets, []

    def replace_first(name):
        calls.append(name)
        if len(calls) == 1:
            Secret(value="new").save("a", overwrite=True)
        return read(name)

    monkeypatch.setattr(block_documents, "read_secrets", replace_first)
    assert Secret.load("a").get() == "new"
    assert len(calls) == 2


def test_what_another_process_is_about_to_name_is_not_removed(start_python, secrets, until):
    program = """
        import sys, time
        from prefectlite.block_tables import BlockTables
        from prefectlite.blocks.system import Secret
        save = BlockTables.save_block

        def wait(*arguments, **keywords):
            print("written", flush=True)
            sys.stdin.readline()
            return save(*arguments, **keywords)

        BlockTables.save_block = wait
        Secret(value="slow").save("slow")
    """
    slow = start_python(program)
    assert slow.line() == "written"
    others = [start_python(_SAVE.format(plant=""), "quick"), start_python(_DELETE)]
    threads = [threading.Thread(target=other.end) for other in others]
    for thread in threads:
        thread.start()
    # They wait for it, and must not take its file for an orphan.
    gates = [Path(f"/proc/{other.pid}/fd") for other in others]
    until(lambda: all(_has_open(gate, "secrets/lock") for gate in gates), "they come to the lock")
    assert len(secrets()) == 1
    slow.tell()
    slow.end()
    for thread in threads:
        thread.join()
    assert Secret.load("slow").get() == "slow"
    assert Secret.load("a").get() == "quick"


_DELETE = """
    from contextlib import suppress
    from prefectlite.blocks.system import Secret
    from prefectlite.errors import NotFoundError
    with suppress(NotFoundError):
        Secret.delete("none")
"""


def _has_open(folder, name):
    found = []
    for link in folder.iterdir():
        with suppress(FileNotFoundError):  # it was closed just now
            found.append(str(link.readlink()))
    return any(path.endswith(name) for path in found)


def test_many_who_save_load_and_delete_at_once_lose_and_mix_nothing(
    start_python, secrets, registry
):
    program = """
        import sys
        from contextlib import suppress
        from prefectlite.blocks.system import JSON, Secret
        from prefectlite.errors import NotFoundError
        from pydantic import SecretStr
        me = sys.argv[1]
        for number in range(12):
            mine = [SecretStr(f"{me}-{number}-{part}") for part in range(3)]
            JSON(value={"who": f"{me}-{number}", "parts": mine}).save("shared", overwrite=True)
            with suppress(NotFoundError):
                found = JSON.load("shared").value
                parts = [part.get_secret_value() for part in found["parts"]]
                assert parts == [f"{found['who']}-{part}" for part in range(3)], parts
            if number % 6 == 4:
                with suppress(NotFoundError):
                    JSON.delete("shared")
            Secret(value=me).save(f"own-{me}-{number}")
    """
    started = [start_python(program, who) for who in "abcd"]
    for process in started:
        process.end()
    assert [Secret.load(f"own-{who}-11").get() for who in "abcd"] == [*"abcd"]
    assert {*secrets()} == {one.secrets_file for one in registry.blocks.list_blocks()}


def test_a_process_that_is_stopped_while_saving_holds_others_up_for_so_long_only(
    monkeypatch, secrets
):
    monkeypatch.setenv("PREFECTLITE_REGISTRY_LOCK_SECONDS", "0.1")
    with (
        secret_files.writing(),
        pytest.raises(RegistryLockTimeoutError),
    ):
        Secret(value="s").save("a")
    Secret(value="s").save("a")


def test_another_registry_of_the_same_home_keeps_its_secrets(home, secrets, monkeypatch):
    Secret(value="first").save("a")
    monkeypatch.setenv("PREFECTLITE_REGISTRY", f"sqlite:///{home / 'other.db'}")
    Secret(value="second").save("a")
    Secret.delete("a")
    monkeypatch.delenv("PREFECTLITE_REGISTRY")
    assert Secret.load("a").get() == "first"
    assert len(secrets()) == 1


# Files that are gone or spoiled.


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(b""), "it is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "it is damaged"),
        (lambda path: path.write_text("{}"), "it is damaged"),
        (lambda path: path.write_text("[1]"), "it is damaged"),
        (lambda path: path.write_text('[{"value": "a"}]'), "it is damaged"),
        (lambda path: path.write_text('[{"base64": "%"}]'), "it is damaged"),
        (lambda path: path.write_bytes(b"\xff"), "it is damaged"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
def test_secrets_that_are_gone_or_spoiled_are_an_error_that_says_which_and_what_to_do(
    spoil, told, secrets
):
    vault().save("a")
    (path,) = secrets().values()
    spoil(path)
    with pytest.raises(BlockNotLoadedError, match=told) as caught:
        Vault.load("a")
    message = str(caught.value)
    assert "'vault/a' has secrets (key, raw, logins.a.0.password, inner.value)" in message
    assert str(path) in message
    assert "overwrite" in caught.value.hint
    assert _PLANTED not in message
    if path.is_dir():
        path.rmdir()
    vault().save("a", overwrite=True)
    assert Vault.load("a").logins == vault().logins


def test_secrets_that_cannot_be_written_are_an_error_and_nothing_is_saved(home, registry):
    home.mkdir(exist_ok=True)
    (home / "secrets").write_text("a file")
    with pytest.raises(OutputError, match="secrets cannot be kept in") as caught:
        Secret(value=_PLANTED).save("a")
    assert _PLANTED not in str(caught.value)
    assert registry.blocks.list_blocks() == []


def test_a_file_that_cannot_be_removed_is_told_and_tried_again(secrets, monkeypatch, registry):
    Secret(value="s").save("a")
    (path,) = secrets().values()

    def fail(name):
        raise PermissionError(13, "Permission denied", name)

    with monkeypatch.context() as context:
        context.setattr("prefectlite.block_documents.remove_secrets", fail)
        with pytest.raises(OutputError, match="old secrets cannot be removed"):
            Secret.delete("a")
    assert registry.blocks.list_blocks() == []
    assert path.exists()
    String(value="x").save("b")
    assert not path.exists()


# No text shows one.


def _tree_of_texts(error):
    import traceback

    lines = traceback.format_exception(error)
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        lines += [str(error), repr(error), str(getattr(error, "hint", ""))]
        error = error.__cause__
    return "".join(lines)


class Picky(Block):
    key: SecretStr
    pin: SecretStr = SecretStr("")
    number: int = 0

    @model_validator(mode="after")
    def refuse(self):
        if self.number:
            raise ValueError(f"with {self.key.get_secret_value()}")
        return self


@pytest.mark.parametrize(
    "act",
    [
        lambda: Vault(name=[_PLANTED], key=[_PLANTED], number=_PLANTED),
        lambda: setattr(vault(), "key", [_PLANTED]),
        lambda: setattr(vault(), "number", _PLANTED),
        lambda: vault(nonesuch=_PLANTED),
        lambda: vault(logins={"a": [{"user": 1, "password": [_PLANTED]}]}),
        lambda: Vault.model_construct(name=_PLANTED, key=_PLANTED).save("a"),
        lambda: Vault.model_construct(name=[_PLANTED], key=SecretStr(_PLANTED)).save("a"),
        lambda: vault(raw=SecretBytes(_PLANTED.encode())).save("BAD"),
        lambda: (vault().save("a"), vault().save("a")),
        lambda: Picky.model_construct(key=SecretStr(_PLANTED), number=1).save("a"),
    ],
)
def test_no_error_shows_a_secret(act):
    with pytest.raises((ValidationError, PrefectLiteError)) as caught:
        act()
    assert _PLANTED not in _tree_of_texts(caught.value)


def test_no_way_to_show_a_block_shows_its_secrets():
    block = vault()
    shown = f"{block} {block!r} {[block]} {block.model_dump()} {block.model_dump_json()}"
    assert _PLANTED not in shown
    assert shown.count("***") >= 5


def test_a_flow_that_fails_while_it_holds_a_block_tells_no_secret(home, tmp_path, stored):
    (tmp_path / "holds.py").write_text(
        textwrap.dedent("""
            import logging
            from prefectlite import flow, get_run_logger, task
            from prefectlite.blocks import Block
            from pydantic import SecretStr

            class Hold(Block):
                key: SecretStr
                keys: list[SecretStr] = []

            @task(log_prints=True)
            def fails(hold, number):
                print("in the task", hold, hold.keys)
                raise ValueError(hold, hold.key, [hold.keys])

            @flow(log_prints=True)
            def holds(name: str):
                hold = Block.load(f"hold/{name}")
                print(hold, repr(hold), [hold], {"hold": hold}, hold.key)
                get_run_logger().warning("with %s and %r", hold, hold.keys)
                try:
                    hold.keys = [object()]
                except ValueError:
                    logging.getLogger("prefectlite").exception("as expected")
                Hold(key=[hold.key], other=hold.key.get_secret_value()) if name == "b" else 0
                fails(hold, 1)

            if __name__ == "__main__":
                import sys
                key = sys.stdin.read()
                for name in "ab":
                    Hold(key=key, keys=[key]).save(name)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(prefectlite.__path__[0]) + "/.."}

    def run(*words, **options):
        return subprocess.run(
            [sys.executable, *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    assert run("holds.py", input=_PLANTED).returncode == 0
    texts = []
    for name in "ab":
        ended = run("-m", "prefectlite", "run", "holds.py", "-p", f"name={name}")
        assert ended.returncode == 1, ended.stderr
        assert "SecretStr('**********')" in ended.stderr
        texts += [ended.stdout, ended.stderr]
    for words in ("flow-run ls --json", "task-run ls --json", "block ls --json"):
        texts.append(run("-m", "prefectlite", *words.split()).stdout)
    for one in json.loads(texts[-3]):
        texts.append(run("-m", "prefectlite", "flow-run", "logs", one["id"]).stdout)
        texts.append(run("-m", "prefectlite", "flow-run", "inspect", one["id"]).stdout)
    assert "in the task" in "".join(texts)
    assert _PLANTED not in "".join(texts)
    assert _PLANTED.encode() not in stored()
    found = [
        path for path in home.rglob("*") if path.is_file() and _PLANTED in path.read_text("latin-1")
    ]
    assert {path.parent.name for path in found} == {"secrets"}
    assert len(found) == 2


def test_the_tables_of_a_registry_never_see_a_secret(monkeypatch):
    seen = []
    save = BlockTables.save_block
    monkeypatch.setattr(
        BlockTables,
        "save_block",
        lambda self, document, **keywords: (
            seen.append(document) or save(self, document, **keywords)
        ),
    )
    vault().save("a")
    assert _PLANTED not in repr(seen)
    assert "'**********'" in repr(seen)
