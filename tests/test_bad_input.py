"""Bad input to ``run``: a clear line, a hint, the documented exit code, and nothing lost.

What is wrong with an entrypoint, an option or a parameter is in ``cli/test_run_command.py``; here is
what is wrong around it: the file's own code, the registry, the streams, the environment.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import prefectlite
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Completed

SOURCES = str(Path(prefectlite.__file__).parents[1])
DEADLINE_SECONDS = 60
IS_ROOT = os.getuid() == 0
_LINUX = sys.platform == "linux"

_FLOWS = """
import os, shutil, sys
from pathlib import Path
from prefectlite import flow, task

home = Path(os.environ.get("PREFECTLITE_HOME", "/nowhere"))

@task
def work(number): ...

@task(persist_result=True)
def makes(what):
    return {"lambda": lambda: 1, "file": sys.stdin}[what]

@flow
def hello(text: str = "world", anything=None):
    print("hello", text)
    return text

@flow
def fails():
    raise ValueError("as asked")

@flow
def asks():
    return input()

@flow
def persists(what: str):
    makes(what)

@flow(persist_result=True)
def persists_itself():
    return lambda: 1

@flow
def loses(how: str, submit: bool = False):
    try:
        work(0)
        {
            "folder": lambda: shutil.rmtree(home),
            "file": lambda: (home / "registry.db").unlink(),
            "moved": lambda: home.rename(home.with_name("moved")),
            "replaced": lambda: (
                (home / "registry.db").unlink(), (home / "registry.db").write_bytes(b"")
            ),
            "overwritten": lambda: [path.write_bytes(b"x" * 9000) for path in home.glob("*db*")],
            "full": lambda: fill(home / "ballast"),
        }[how]()
        for number in range(2000):
            work.submit(number) if submit else work(number)
        print("all done")
    finally:
        print("cleaned up")

def fill(path):
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
"""
# In a file of its own: it takes as long to import pydantic as all else together.
_SECRETS = """
from prefectlite import flow
from pydantic import SecretStr

@flow(log_prints=True)
def guards(token: SecretStr, tokens: list[SecretStr] = [], number: int = 0):
    print(token, repr(token), [token], {"deep": tokens})
    if number == 1:
        raise ValueError(f"with {token!r} and {tokens}")
    return {"token": token, "tokens": tokens, "length": len(token.get_secret_value())}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "flows.py").write_text(_FLOWS)
    monkeypatch.chdir(folder)
    return folder


def _start(*arguments, prefix=(), env=None, **options):
    options = {"capture_output": True, "timeout": DEADLINE_SECONDS, **options}
    environment = {**os.environ, "PYTHONPATH": SOURCES, "LC_ALL": "C.UTF-8", **(env or {})}
    return subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-m", "prefectlite", *arguments],
        env={name: value for name, value in environment.items() if value is not None},
        check=False,
        **options,
    )


def _refusal(ended, exit_code):
    """Return the error and the hint of a command that ended as it should, in no more words."""
    said = ended.stderr.decode()
    assert ended.returncode == exit_code, said
    assert "internal error" not in said
    lines = [line for line in said.splitlines() if line.startswith(("error: ", "hint: "))]
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"], said
    return lines


# The file that holds the flow.


@pytest.mark.parametrize(
    ("source", "error", "hint"),
    [
        ("def f(:\n", "bad.py:1: ", "it is not valid Python"),
        ("x = 1\n", "there is no flow in bad.py", "decorate a function in it with @flow"),
        ("import prefect\n", "it needs 'prefect'", "change prefect to prefectlite"),
        ("import sys; sys.exit(0)\n", "it exits (0)", "if __name__ == '__main__':"),
        ("from flows import hello, fails\n", "there are 2 flows", "say which one, such as"),
    ],
)
def test_a_file_that_gives_no_flow_is_code_2(folder, source, error, hint):
    (folder / "bad.py").write_text(source)
    said = _refusal(_start("run", "bad.py"), 2)
    assert error in said[0]
    assert hint in said[1]


def test_a_file_that_raises_when_imported_shows_its_own_traceback(folder, home):
    (folder / "bad.py").write_text("def inner():\n    1 / 0\ninner()\n")
    ended = _start("run", "bad.py")
    said = ended.stderr.decode()
    assert ended.returncode == 2
    assert said.startswith(f'Traceback (most recent call last):\n  File "{folder}/bad.py", line 3')
    assert said.endswith("error: bad.py cannot be imported: ZeroDivisionError: division by zero\n")
    assert said.count('  File "') == 2
    assert not home.exists()


@pytest.mark.parametrize(
    ("name", "entrypoint"),
    [
        ("a:b/c.py", "a:b/c.py:hello"),
        ("a:b/c:d.py", "a:b/c:d.py:hello"),
        ("with space/a file.py", "with space/a file.py:hello"),
        ("käse.py", "käse.py:hello"),
        ("-dash.py", "./-dash.py:hello"),
    ],
)
def test_a_path_may_hold_anything(folder, name, entrypoint):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(_FLOWS)
    assert _start("run", entrypoint).stdout == b"hello world\n"


def test_a_path_with_a_leading_dash_needs_two_more(folder):
    (folder / "-dash.py").write_text(_FLOWS)
    ended = _start("run", "-dash.py:hello")
    assert ended.returncode == 2
    assert b"no such option" in ended.stderr
    assert _start("run", "--", "-dash.py:hello").returncode == 0


# A registry that cannot be used.


def _make_registry():
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    registry.create_flow_run(FlowRun(id=new_id(), name="n", flow_name="hello", state=Completed()))
    registry.close()


@pytest.fixture
def weak():
    """The prefix of a command whose file permissions hold for root too."""
    if not IS_ROOT:
        return []
    if not _LINUX:
        pytest.skip("root passes every permission, and only Linux can take that from it")
    # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER; see capabilities(7) and prctl(2).
    code = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None);"
        "assert not any(libc.prctl(24, one, 0, 0, 0) for one in (1, 2, 3));"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", code]


def _corrupt(home):
    with (home / "registry.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 32768)


def _no_registry(home):
    (home / "registry.db").write_bytes(b"no database, but a text of mine\n" * 100)


def _newer(home):
    with sqlite3.connect(home / "registry.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()


def _of_another_program(home):
    (home / "registry.db").unlink()
    with sqlite3.connect(home / "registry.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()


def _a_folder(home):
    (home / "registry.db").unlink()
    (home / "registry.db").mkdir()


def _a_loop(home):
    (home / "registry.db").unlink()
    (home / "registry.db").symlink_to("registry.db")


def _home_is_a_file(home):
    shutil.rmtree(home)
    home.write_text("mine")


@pytest.mark.parametrize(
    ("spoil", "error", "hint"),
    [
        (_corrupt, "is damaged", "move it away, or restore a backup"),
        (_no_registry, "is not a registry", "move it away, or set PREFECTLITE_HOME"),
        (_newer, "has schema 99; this version of prefectlite knows", "pip install --upgrade"),
        (_of_another_program, "is a database of another program", "set PREFECTLITE_HOME"),
        (_a_folder, "cannot be used", "set PREFECTLITE_HOME to another folder"),
        (_a_loop, "is a symbolic link to itself", ""),
        (_home_is_a_file, "cannot be used", "set PREFECTLITE_HOME to another folder"),
    ],
)
def test_a_registry_that_is_none_is_code_5_before_the_flow_begins(home, spoil, error, hint):
    _make_registry()
    spoil(home)
    before = home.read_bytes() if home.is_file() else None
    for command in (["run", "flows.py:hello"], ["flow-run", "ls"]):
        if spoil is _home_is_a_file and command[0] != "run":
            continue  # nothing is there, so there is nothing to list
        ended = _start(*command)
        assert ended.stdout == b""
        said = ended.stderr.decode()
        assert ended.returncode == 5, said
        assert error in said.splitlines()[0]
        assert hint in said
        assert "Traceback" not in said
    assert before is None or home.read_bytes() == before


@pytest.mark.parametrize("what", ["files", "folder and files", "folder"])
def test_a_read_only_registry_can_be_read_and_is_code_5_to_run(home, weak, what):
    _make_registry()
    if "files" in what:
        for path in home.iterdir():
            path.chmod(0o400)
    if "folder" in what:
        home.chmod(0o500)
    if what == "folder":
        (home / "registry.lock").chmod(0o400)
    before = (home / "registry.db").read_bytes()
    try:
        said = _refusal(_start("run", "flows.py:hello", prefix=weak), 5)
        listed = _start("flow-run", "ls", prefix=weak)
    finally:
        home.chmod(0o700)
    assert said[1].startswith("hint: check ")
    assert b"hello" in listed.stdout
    assert listed.returncode == 0
    assert (home / "registry.db").read_bytes() == before


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a file to another user")
def test_a_registry_of_another_user_is_code_5(home, weak):
    _make_registry()
    for path in (home, *home.iterdir()):
        os.chown(path, 65534, 65534)
    for command in (["run", "flows.py:hello"], ["flow-run", "ls"]):
        said = _refusal(_start(*command, prefix=weak), 5)
        assert "Permission denied" in said[0]
        assert said[1].startswith("hint: check the folder's owner")


def _with_mount(kind, options, folder):
    """Return the prefix of a command that sees a new filesystem at a folder, and what it needs."""
    if not (_LINUX and IS_ROOT and shutil.which("unshare") and shutil.which("mount")):
        pytest.skip("needs Linux, root, unshare(1) and mount(8)")
    folder.mkdir()
    script = f'mount -t {kind} {options} none "{folder}" && exec "$@"'
    prefix = ["unshare", "-m", "sh", "-c", script, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount a filesystem")
    return prefix


def test_a_filesystem_that_may_lose_data_is_refused_unless_it_is_allowed(tmp_path, home):
    prefix = _with_mount("ramfs", "", tmp_path / "mount")  # as little known to be safe as NFS
    env = {"PREFECTLITE_HOME": str(tmp_path / "mount")}
    said = _refusal(_start("run", "flows.py:hello", prefix=prefix, env=env), 5)
    assert "filesystem of type ramfs, which is not known to keep its locks" in said[0]
    assert "PREFECTLITE_ALLOW_NETWORK_FILESYSTEM=1" in said[1]
    env["PREFECTLITE_ALLOW_NETWORK_FILESYSTEM"] = "1"
    assert _start("run", "flows.py:hello", prefix=prefix, env=env).returncode == 0


@pytest.mark.parametrize("size_kb", [16, 64, 100, 120])
def test_a_disk_that_is_full_is_code_5(tmp_path, size_kb):
    prefix = _with_mount("tmpfs", f"-o size={size_kb}k", tmp_path / "mount")
    env = {"PREFECTLITE_HOME": str(tmp_path / "mount")}
    ended = _start("run", "flows.py:hello", prefix=prefix, env=env)
    said = _refusal(ended, 5)
    assert "cannot grow: the disk is full" in said[0]
    assert said[1].startswith("hint: free some space")


# A registry that fails in the middle of a run.


@pytest.mark.parametrize("submit", ["false", "true"], ids=["called", "submitted"])
@pytest.mark.parametrize(
    ("how", "error", "hint"),
    [
        ("folder", "was deleted while it was in use", "put it back, or run it again"),
        ("file", "was deleted while it was in use", "put it back, or run it again"),
        ("moved", "was deleted while it was in use", "put it back, or run it again"),
        ("replaced", "was replaced while it was in use", "put it back, or run it again"),
        ("overwritten", "is not a registry", "move it away"),
    ],
)
def test_a_registry_that_is_lost_in_mid_run_ends_it_with_code_5(how, error, hint, submit):
    ended = _start("run", "flows.py:loses", "-p", f"how={how}", "-p", f"submit={submit}")
    _check_lost(ended, error, hint)


@pytest.mark.parametrize("submit", ["false", "true"], ids=["called", "submitted"])
def test_a_disk_that_becomes_full_in_mid_run_ends_it_with_code_5(tmp_path, submit):
    prefix = _with_mount("tmpfs", "-o size=2m", tmp_path / "mount")
    env = {"PREFECTLITE_HOME": str(tmp_path / "mount")}
    arguments = ["run", "flows.py:loses", "-p", "how=full", "-p", f"submit={submit}"]
    ended = _start(*arguments, prefix=prefix, env=env)
    _check_lost(ended, "cannot grow: the disk is full", "free some space")


def _check_lost(ended, error, hint):
    said = _refusal(ended, 5)
    assert error in said[0]
    assert hint in said[1]
    assert ended.stdout == b"cleaned up\n"
    frames = [line for line in ended.stderr.decode().splitlines() if line.startswith('  File "')]
    assert all("/prefectlite/" not in line for line in frames), frames
    assert "sqlite3." not in ended.stderr.decode()


# Results, streams, environment.


@pytest.mark.parametrize(
    ("flow", "noun"),
    [
        ("persists -p what=lambda", "a function"),
        ("persists -p what=file", "a TextIOWrapper"),
        ("persists_itself", "a function"),
    ],
)
def test_a_result_that_cannot_be_pickled_is_a_failed_run(flow, noun):
    ended = _start("run", *f"flows.py:{flow}".split())
    error, _ = _refusal(ended, 1)
    assert f"the result, {noun}, cannot be pickled" in error


@pytest.mark.parametrize(
    ("redirection", "flow", "exit_code", "stdout"),
    [
        (">&-", "hello", 0, ""),
        ("2>&-", "hello", 0, "hello world\n"),
        ("2>&-", "fails", 1, ""),
        ("<&-", "hello", 0, "hello world\n"),
        ("<&- >&- 2>&-", "hello", 0, ""),
        ("<&- >&- 2>&-", "fails", 1, ""),
        ("<&-", "asks", 1, ""),
        (">&-", "hello --json", 0, ""),
        ("<&-", "hello --params -", 2, ""),
        (">/dev/full", "hello", 5, ""),
        (">/dev/full", "hello --json", 5, ""),
        (">/dev/full", "fails", 1, ""),
        ("2>/dev/full", "hello", 0, "hello world\n"),
        ("2>/dev/full", "fails", 1, ""),
        ("| true", "hello --json", 0, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_harms_no_run(home, redirection, flow, exit_code, stdout):
    script = f'"$@" {redirection}'
    ended = _start("run", *f"flows.py:{flow}".split(), prefix=["sh", "-c", script, "sh"])
    assert (ended.returncode, ended.stdout.decode()) == (exit_code, stdout)
    assert b"internal error" not in ended.stderr
    assert b"ResourceWarning" not in ended.stderr
    if exit_code != 2:
        (flow_run,) = open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs()
        assert flow_run.state.name == ("Failed" if exit_code == 1 else "Completed")


def test_without_a_home_there_is_an_answer_or_the_password_database_has_one(folder):
    env = {"HOME": None, "XDG_DATA_HOME": None, "PREFECTLITE_HOME": None}
    ended = _start("version", env=env)
    assert ended.returncode in (0, 2)
    assert b"Traceback" not in ended.stderr
    ended = _start("run", "flows.py:hello", env={"HOME": None, "PREFECTLITE_HOME": None})
    assert ended.returncode == 0  # XDG_DATA_HOME says where


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
@pytest.mark.parametrize("is_forced", [True, False], ids=["as it is", "as Python makes it"])
def test_a_parameter_beyond_ascii_survives_every_locale(home, locale, is_forced):
    forced = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} if is_forced else {}
    ended = _start("run", "flows.py:hello", "-p", "text=käse", env={"LC_ALL": locale, **forced})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout in ("hello käse\n".encode(), b"hello k\\udcc3\\udca4se\n")
    if not is_forced:
        assert ended.stdout == "hello käse\n".encode()
    listed = _start("flow-run", "ls", "--json", env={"LC_ALL": locale, **forced})
    assert listed.returncode == 0, listed.stderr


def test_a_huge_parameter_is_passed_whole_and_recorded_short(folder, home):
    # One argument is at most 128 KiB, to the kernel (execve(2), MAX_ARG_STRLEN).
    ended = _start("run", "flows.py:hello", "-p", "anything=" + "x" * 120_000)
    assert ended.returncode == 0
    text = '{"text": "' + "y" * 1_000_000 + '"}'
    ended = _start("run", "flows.py:hello", "--params", "-", input=text.encode())
    assert ended.stdout == b"hello " + b"y" * 1_000_000 + b"\n"
    listed = _start("flow-run", "ls", "--json").stdout
    assert b"<str of 1,000,000 characters: too large to record>" in listed
    assert (home / "registry.db").stat().st_size < 1_000_000


def test_a_secret_is_in_no_line_table_document_or_byte_of_the_registry(folder, home):
    secret, other = "hunter2-is-my-secret", "correct-horse-battery"
    (folder / "guarded.py").write_text(_SECRETS)
    given = ["-p", f"token={secret}", "-p", f'tokens=["{other}"]', "--name"]
    texts = []
    for name, more in {"good": [], "failed": ["-p", "number=1"], "bad": ["-p", "number=x"]}.items():
        ended = _start("run", "guarded.py:guards", *given, name, *more, "--json")
        texts += [ended.stdout, ended.stderr]
        for command in ("inspect", "logs"):
            texts.append(_start("flow-run", command, name).stdout)
            texts.append(_start("flow-run", command, name, "--json").stdout)
        assert b"**********" in texts[-3]
    texts += [_start("flow-run", "ls", "--json").stdout, _start("flow-run", "ls").stdout]
    texts += [_start("run", "guarded.py:guards", "-p", "tokens=" + secret + other).stderr]
    texts += [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert b'"length": 20' in texts[0]
    for text in texts:
        assert secret.encode() not in text
        assert other.encode() not in text
