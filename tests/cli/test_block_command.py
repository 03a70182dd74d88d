"""prefectlite block: ls, inspect, create, set, delete."""

import json
import os
import pty
import select
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import prefectlite
from prefectlite import block_types
from prefectlite.blocks import Block
from prefectlite.blocks.notifications import CustomWebhook
from prefectlite.blocks.system import JSON, Secret, String
from prefectlite.infrastructure.process import Process

SOURCES = str(Path(prefectlite.__file__).parents[1])
DEADLINE_SECONDS = 60
_KEYS = {"id", "type", "name", "fields", "secrets", "blocks", "created_at", "updated_at"}
_PLANTED = "pl4nted-s3cret"
# Ctrl-C is for the processes of a session's own terminal.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, '-m', 'prefectlite', *sys.argv[1:]])"
)


@pytest.fixture
def piped(start):
    """Run a command line in a process of its own that gets a text through stdin."""

    def start_command(line, text=b"", **options):
        return start(*line.split(), input=text, **options)

    return start_command


# ls, inspect.


def test_ls_shows_blocks_by_type_and_name(run):
    String(value="x").save("b")
    Secret(value=_PLANTED).save("z")
    Secret(value=_PLANTED).save("a")
    ended = run("block ls")
    assert (ended.exit_code, ended.stderr) == (0, "")
    rows = [line.split()[:2] for line in ended.stdout.splitlines()]
    assert rows == [["BLOCK", "SECRETS"], ["secret/a", "1"], ["secret/z", "1"], ["string/b", "0"]]
    assert [line.split()[0] for line in run("block ls --type string").stdout.splitlines()[1:]] == [
        "string/b"
    ]


def test_ls_gives_a_json_list(run):
    assert json.loads(run("block ls --json").stdout) == []
    Secret(value=_PLANTED).save("a")
    (one,) = json.loads(run("block ls --json --type secret").stdout)
    assert set(one) == _KEYS
    assert (one["fields"], one["secrets"]) == ({"value": "**********"}, ["value"])
    assert json.loads(run("block ls --json --type nonesuch").stdout) == []


def test_inspect_shows_a_block_and_its_secrets_only_if_they_are_asked_for(run):
    JSON(value={"open": "door", "key": Secret(value=_PLANTED)}).save("a")
    for line in ("block inspect json/a", "block inspect json/a --json"):
        shown = run(line)
        assert _PLANTED not in shown.stdout + shown.stderr
        assert "**********" in shown.stdout
        assert "door" in shown.stdout
        assert "value.key.value" in shown.stdout
        assert _PLANTED in run(f"{line} --show-secrets").stdout
    document = json.loads(run("block inspect json/a --json").stdout)
    assert set(document) == _KEYS
    assert document["blocks"] == [{"field": "value.key", "type": "secret", "name": None}]
    revealed = json.loads(run("block inspect json/a --json --show-secrets").stdout)
    assert revealed["fields"] == {"value": {"open": "door", "key": {"value": _PLANTED}}}


def test_inspect_needs_no_class(run, mine, registry):
    run("block create warehouse prod host=h")
    (mine / "my_blocks.py").unlink()
    block_types.known.pop("warehouse")
    assert json.loads(run("block inspect warehouse/prod --json").stdout)["fields"]["host"] == "h"


def test_a_field_cannot_act_on_the_terminal(run):
    JSON(value={"\x1b[2J": "\x1b[1A\x9b"}).save("a")
    for line in ("block ls", "block inspect json/a", "block inspect json/a --json --show-secrets"):
        assert not {"\x1b", "\x9b"} & {*run(line).stdout}


# create.


def test_create_reads_values_as_the_fields_are_declared(run, mine):
    words = ["host=7", "retries=5", "login.user=8", 'login.password={"a": 1}', "tokens.x=1"]
    ended = run("block create warehouse prod --json", *words)
    assert ended.exit_code == 0
    block = Block.load("warehouse/prod")
    assert (block.host, block.retries, block.login.user) == ("7", 5, "8")
    assert block.login.password.get_secret_value() == '{"a": 1}'
    assert block.tokens["x"].get_secret_value() == "1"
    document = json.loads(ended.stdout)
    assert set(document) == _KEYS
    assert ended.stderr.endswith(f"Saved block 'warehouse/prod' ({document['id']})\n")
    assert document["fields"]["login"] == {"user": "8", "password": "**********"}


def test_create_takes_a_table_as_json_and_a_block_by_its_name(run, mine):
    Secret(value=_PLANTED).save("key")
    words = ['login={"user": "u"}', "other=secret/key"]
    assert run("block create warehouse prod host=h", *words).exit_code == 0
    assert Block.load("warehouse/prod").other.get() == _PLANTED
    assert run("block create warehouse two host=h other=secret/none").exit_code == 3
    assert run("block create warehouse two host=h other=secret").exit_code == 2


def test_create_replaces_only_what_it_may(run):
    first = run("block create string a value=1 --json")
    refused = run("block create string a value=2")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert refused.stderr.startswith("error: there is a block 'string/a' already\nhint: ")
    assert String.load("a").value == "1"
    second = run("block create string a value=2 --overwrite --json")
    assert json.loads(second.stdout)["id"] == json.loads(first.stdout)["id"]
    assert String.load("a").value == "2"


def test_a_secret_comes_from_the_environment_or_from_stdin_without_a_word(piped, home):
    environment = {"VALUE": "one\n", "API_KEY": "two"}
    lines = {
        "block create secret a --from-env value": "one\n",
        "block create secret b --from-env value=API_KEY": "two",
        "block create secret c --stdin value": "three\n",
    }
    for line, secret in lines.items():
        ended = piped(line, b"three\n\n", env=environment)
        assert (ended.returncode, ended.stdout) == (0, b"")
        assert ended.stderr.startswith(b"Saved block 'secret/")
        assert Secret.load(line.split()[3]).get() == secret


def test_a_secret_on_the_command_line_is_taken_with_a_warning(run, mine):
    ended = run(f"block create secret a value={_PLANTED}")
    assert ended.exit_code == 0
    first, second, _ = ended.stderr.split("\n", 2)
    assert first.startswith("warning: value came as an argument, which ps shows to others")
    assert second == "hint: better: --stdin value, or --from-env value=VARIABLE"
    assert _PLANTED not in ended.stderr

    warned = run("block create warehouse a host=h tokens.b=1 login.user=c login.password=d")
    assert warned.stderr.startswith("warning: tokens.b, login.password came as an argument")
    whole = run("block create warehouse b host=h", 'login={"password": "d"}')
    assert whole.stderr.startswith("warning: login came as an argument")
    assert "warning" not in run("block create warehouse c host=h login.user=c retries=1").stderr


@pytest.fixture
def answer(home):
    """Answer the question of a command on a terminal of its own; return its exit code and what was shown."""
    started = []

    def run_command(line, keys):
        controller, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *line.split()],
            env={**os.environ, "PYTHONPATH": SOURCES, "TERM": "dumb"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        started.append((process, controller))
        os.close(terminal)
        shown, deadline = b"", time.monotonic() + DEADLINE_SECONDS
        while not shown.endswith(b": "):
            assert select.select([controller], [], [], DEADLINE_SECONDS)[0], shown
            shown += os.read(controller, 100)
        shown += Path(f"/proc/{process.pid}/cmdline").read_bytes()
        os.write(controller, keys)
        try:
            while True:
                assert time.monotonic() < deadline, shown
                if not select.select([controller], [], [], 5)[0]:
                    # A Ctrl-C between the question and the read is Python's to see after the read:
                    # a person presses it again.
                    os.write(controller, keys)
                elif data := os.read(controller, 1000):
                    shown += data
                else:
                    break
        except OSError:  # it has ended
            pass
        return process.wait(DEADLINE_SECONDS), shown.decode()

    yield run_command
    for process, controller in started:
        process.kill()
        process.wait()
        os.close(controller)


def test_a_secret_is_asked_for_without_echo_on_a_terminal(answer):
    exit_code, shown = answer("block create secret a --stdin value", f"{_PLANTED}\n".encode())
    assert exit_code == 0
    assert "Saved block 'secret/a'" in shown
    assert _PLANTED not in shown
    assert Secret.load("a").get() == _PLANTED


@pytest.mark.parametrize(
    ("keys", "exit_code", "told"),
    [
        (b"\n", 2, "\r\nerror: 'value' cannot be read from stdin: it is empty\r\n"),
        (b"\x04", 2, "\r\nerror: 'value' cannot be read from stdin\r\n"),
        (b"\x03", 130, "\r\n"),
    ],
    ids=["enter", "ctrl-d", "ctrl-c"],
)
def test_a_question_without_an_answer_ends_its_line_and_saves_nothing(
    answer, registry, keys, exit_code, told
):
    ended, shown = answer("block create secret a --stdin value", keys)
    assert ended == exit_code
    assert shown.endswith(told)
    assert "Traceback" not in shown
    assert registry.blocks.list_blocks() == []


def test_create_makes_a_process_whose_environment_is_hidden(run, home):
    ended = run(
        "block create process big-box working_directory=/srv grace_seconds=5 env.B=2 --json",
        f"environment.A={_PLANTED}",
        "command=nice -n 10 python",
    )
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["fields"]["environment"] == {
        "A": "**********",
        "B": "**********",
    }
    process = Process.load("big-box")
    assert process.environment == {"A": _PLANTED, "B": "2"}
    assert (process.working_directory, process.grace_seconds) == ("/srv", 5)
    assert process.command == ["nice", "-n", "10", "python"]
    for line in ("block ls --json", "block inspect process/big-box"):
        assert _PLANTED not in run(line).stdout
    assert _PLANTED in run("block inspect process/big-box --show-secrets").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["secret"], "NAME"),
        (["secret", "a"], "value: it is missing"),
        (["secret", "A", "value=x"], "cannot be the name of a block"),
        (["secret", "", "value=x"], "cannot be the name of a block"),
        (["secret", "a", _PLANTED], "argument 3 is not KEY=VALUE"),
        (["secret", "a", "=" + _PLANTED], "argument 3 is not KEY=VALUE"),
        (["secret", "a", "value=" + _PLANTED, "value=x"], "'value' is given twice"),
        (["secret", "a", "value=x", "--from-env", "value=HOME"], "'value' is given twice"),
        (["secret", "a", "--from-env", "value=NONE_SUCH"], "has no 'NONE_SUCH'"),
        (["secret", "a", "--stdin", "value", "--stdin", "b"], "--stdin can be given once"),
        (["secret", "a", "--stdin", "value"], "it is empty"),
        (["secret", "a", "valu=" + _PLANTED], "valu: there is no such field"),
        (["date-time", "a", "value=" + _PLANTED], "value: input should be a valid datetime"),
        (["warehouse", "a", "host=h", "retries=" + _PLANTED], "retries: input should be"),
        (["warehouse", "a", "host=h", "other=" + _PLANTED], "given as TYPE/NAME"),
        (["warehouse", "a", "host=h", "login=x", "login.user=y"], "a part, or a whole"),
        (["warehouse", "a", "host=h", "login.user=y", "login=x"], "a part, or a whole"),
        (
            ["warehouse", "a", "host=h", "login.user=root", "login.password=" + _PLANTED],
            "login: it is not valid",
        ),
        (["process", "a", "comand=" + _PLANTED], "did you mean 'command'"),
        (["process", "a", "grace_seconds=" + _PLANTED], "grace_seconds must be"),
        (["process", "a", "type=docker"], "docker"),
    ],
)
def test_what_create_cannot_take_exits_2_and_does_not_repeat_it(run, mine, words, told, registry):
    saved = sys.stdin
    with open(os.devnull) as sys.stdin:  # noqa: PTH123 - the shortest way to an empty stdin
        ended = run("block create", *words)
    sys.stdin = saved
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert _PLANTED not in ended.stderr
    assert registry.blocks.list_blocks() == []


def test_how_a_list_is_written_is_said_where_one_is_wanted(run, mine):
    ended = run("block create warehouse a host=h", f"tags={_PLANTED}")
    assert ended.exit_code == 2
    assert "tags: input should be a valid list" in ended.stderr
    assert ended.stderr.endswith("""hint: a list is written as JSON: tags='["...", "..."]'\n""")
    assert _PLANTED not in ended.stderr
    assert run("block create warehouse a host=h", 'tags=["x"]').exit_code == 0


def test_a_stdin_that_cannot_be_read_exits_2(piped, home):
    ended = piped("block create secret a --stdin value")
    assert ended.returncode == 2
    assert b"cannot be read from stdin" in ended.stderr
    closed = piped("block create secret a --stdin value", None, preexec_fn=lambda: os.close(0))
    assert (closed.returncode, b"Traceback" in closed.stderr) == (2, False)


def test_a_type_that_is_unknown_exits_3_with_a_hint(run, home):
    for line in ("block create nonesuch a b=1", "block type inspect nonesuch"):
        ended = run(line)
        assert (ended.exit_code, ended.stdout) == (3, "")
        assert ended.stderr.startswith("error: there is no block type 'nonesuch'\nhint: see: ")


# set.


def test_set_changes_some_fields_and_keeps_the_rest_with_its_secrets(run, piped, mine):
    Secret(value="k").save("key")
    words = ["host=h", "login.user=u", "login.password=p", "tokens.a=1", "other=secret/key"]
    before = json.loads(run("block create warehouse prod --json", *words).stdout)
    ended = run("block set warehouse/prod host=h2 login.user=u2 tokens.b=2 --json")
    assert ended.exit_code == 0
    assert f"Changed block 'warehouse/prod' ({before['id']})" in ended.stderr
    assert json.loads(ended.stdout)["id"] == before["id"]
    block = Block.load("warehouse/prod")
    assert (block.host, block.login.user, block.retries) == ("h2", "u2", 3)
    assert block.login.password.get_secret_value() == "p"
    assert [block.tokens[name].get_secret_value() for name in "ab"] == ["1", "2"]
    assert block.other.get() == "k"
    run("block set warehouse/prod", 'login={"user": "u3"}')
    assert Block.load("warehouse/prod").login.password is None
    assert piped("block set secret/key --stdin value", b"k2\n").returncode == 0
    assert Block.load("warehouse/prod").other.get() == "k2"


def test_set_changes_entries_of_tables_alone(run, home):
    JSON(value={"a": {"b": 1, "c": 2}, "block": String(value="s"), "list": [1]}).save("x")
    assert run("block set json/x value.a.b=3 value.d.e=4").exit_code == 0
    assert JSON.load("x").value["a"] == {"b": 3, "c": 2}
    assert JSON.load("x").value["d"] == {"e": 4}
    for key in ("block.value", "list.0", "a.c.d"):
        ended = run(f"block set json/x value.{key}=5")
        assert ended.exit_code == 2
        assert f"what 'value.{key}' is to be an entry of is no table" in ended.stderr
    assert JSON.load("x").value["block"].value == "s"


def test_set_mends_a_block_that_does_not_fit_its_class_any_more(run, mine, registry):
    run("block create warehouse prod host=h login.password=p")
    path = mine / "my_blocks.py"
    path.write_text(path.read_text().replace("    host: str\n", "    host: str\n    port: int\n"))
    block_types.known.pop("warehouse")
    sys.modules.pop("my_blocks")
    assert "port: it is missing" in run("block set warehouse/prod host=h2").stderr
    assert run("block set warehouse/prod port=5").exit_code == 0
    block = Block.load("warehouse/prod")
    assert (block.host, block.port, block.login.password.get_secret_value()) == ("h", 5, "p")


def test_set_changes_a_process_and_keeps_its_environment(run, home):
    run(f"block create process box env.A={_PLANTED} grace_seconds=5")
    assert run("block set process/box env.B=2 working_directory=/srv").exit_code == 0
    process = Process.load("box")
    assert process.environment == {"A": _PLANTED, "B": "2"}
    assert (process.working_directory, process.grace_seconds) == ("/srv", 5)


@pytest.mark.parametrize(
    ("words", "exit_code", "told"),
    [
        (["secret/a"], 2, "error: nothing is given to change\nhint: give KEY=VALUE, --from-env or"),
        (["secret/a", "--from-env", "value=NONE_SUCH"], 2, "has no 'NONE_SUCH'"),
        (["secret/a", "valu=" + _PLANTED], 2, "valu: there is no such field"),
        (["secret/a", _PLANTED], 2, "argument 2 is not KEY=VALUE"),
        (["secret/b", "value=x"], 3, "there is no block 'secret/b'"),
        (["nonesuch/b", "value=x"], 3, "there is no block type 'nonesuch'"),
        (["process/b", "grace_seconds=1"], 3, "there is no block 'process/b'"),
        (["secret", "value=x"], 2, "TYPE/NAME"),
    ],
)
def test_what_set_cannot_do_changes_nothing(run, home, words, exit_code, told):
    Secret(value="kept").save("a")
    ended = run("block set", *words)
    assert (ended.exit_code, ended.stdout) == (exit_code, "")
    assert told in ended.stderr
    assert _PLANTED not in ended.stderr
    assert Secret.load("a").get() == "kept"


# delete.


def test_delete_says_what_still_names_the_block(run, flows_folder, registry):
    Secret(value="s").save("key")
    JSON(value=Secret.load("key")).save("outer")
    CustomWebhook(url="http://127.0.0.1").save("chat")
    Process().save("box")
    rule = run("notification create -b custom-webhook/chat").stdout.strip()
    words = "deployed_flows.py:etl -n nightly --infra-block process/box --apply"
    assert run(f"deployment build {words}").exit_code == 0
    ended = run("block delete secret/key custom-webhook/chat process/box")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert [line for line in ended.stderr.splitlines() if line.startswith("note: ")] == [
        "note: block 'secret/key' is still named by: block 'json/outer'",
        f"note: block 'custom-webhook/chat' is still named by: notification rule {rule}",
        "note: block 'process/box' is still named by: deployment 'the flow/nightly'",
    ]
    assert "note" not in run("block delete json/outer").stderr


def test_delete_takes_blocks_with_their_secrets(run, home):
    for name in "abc":
        Secret(value=_PLANTED).save(name)
    ended = run("block delete secret/a secret/b secret/a --json")
    assert ended.exit_code == 0
    assert [one["name"] for one in json.loads(ended.stdout)] == ["a", "b"]
    assert ended.stderr.count("Deleted block 'secret/") == 2
    assert len([path for path in (home / "secrets").iterdir() if path.name != "lock"]) == 1


def test_delete_takes_nothing_unless_all_are_there(run):
    Secret(value=_PLANTED).save("a")
    ended = run("block delete secret/a secret/none")
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert (
        ended.stderr == "error: there is no block 'secret/none'\nhint: see: prefectlite block ls\n"
    )
    assert Secret.load("a").get() == _PLANTED


@pytest.mark.parametrize("reference", ["a", "secret/", "/a", "Secret/a", "secret/a/b", "\x1b/a"])
def test_what_is_no_reference_exits_2(run, reference, home):
    for line in ("block inspect", "block delete"):
        ended = run(line, reference)
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert "Traceback" not in ended.stderr
        assert "\x1b" not in ended.stderr


# All of them.


def test_no_command_shows_a_secret_or_puts_it_anywhere_but_in_its_file(piped, mine, home):
    secret = _PLANTED.encode()
    environment = {"KEY": _PLANTED}
    lines = [
        "block create warehouse prod host=h --stdin login.password --from-env tokens.a=KEY --json",
        "block create warehouse prod host=h --stdin raw --overwrite",
        "block create warehouse prod host=h --stdin login.password",
        "block create warehouse bad --stdin login.password",
        "block create warehouse bad host=h --stdin retries",
        "block create warehouse bad host=h login.user=root --stdin login.password",
        "block create process box --from-env environment.A=KEY --json",
        "--color always block ls",
        "block ls --json",
        "block inspect warehouse/prod",
        "block inspect warehouse/prod --json",
        "block inspect process/box --json",
        "block type inspect warehouse --json",
        "block type ls",
        "block delete warehouse/prod warehouse/none",
        "block delete warehouse/prod --json",
    ]
    codes = []
    for line in lines:
        ended = piped(line, secret, env=environment)
        codes.append(ended.returncode)
        assert secret not in ended.stdout + ended.stderr, line
        assert b"Traceback" not in ended.stderr, line
    assert codes == [0, 0, 4, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]
    holding = [path for path in home.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert [path.parent for path in holding] == [home / "secrets"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600


def test_a_registry_that_cannot_be_read_exits_5(run, home):
    home.mkdir()
    (home / "registry.db").write_bytes(b"not a registry, but a text that is long enough" * 100)
    for line in ("ls", "inspect secret/a", "create string a value=1", "delete secret/a"):
        ended = run(f"block {line}")
        assert (ended.exit_code, ended.stdout) == (5, "")
        assert "Traceback" not in ended.stderr


def test_secrets_that_are_gone_exit_4_where_they_are_asked_for(run, home):
    Secret(value="s").save("a")
    for path in (home / "secrets").iterdir():
        path.unlink()
    assert run("block inspect secret/a").exit_code == 0
    ended = run("block inspect secret/a --show-secrets")
    assert (ended.exit_code, ended.stdout) == (4, "")
    assert "is gone" in ended.stderr
    assert run("block delete secret/a").exit_code == 0
