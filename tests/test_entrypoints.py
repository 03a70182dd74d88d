"""Entrypoints: from ``module:flow`` or ``path.py:flow`` to the flow itself."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest

import prefectlite
from prefectlite.entrypoints import absolute, load_flow
from prefectlite.errors import EntrypointError

HELLO = """
from prefectlite import flow

@flow
def hello():
    return "hello"
"""
TWO = """
from prefectlite import flow, task

number = 1

class Thing: ...

def function(): ...

@task
def work(): ...

@flow
def one(): ...

@flow(name="The second")
def two(): ...
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current folder of the test's own; what it imports is forgotten when it ends."""
    folder = tmp_path / "flows"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name not in before and file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def write(name: str, source: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


def refusal(entrypoint: str) -> EntrypointError:
    with pytest.raises(EntrypointError) as caught:
        load_flow(entrypoint)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("entrypoint", ["flows_elsewhere.py:mine", "flows_elsewhere:mine"])
def test_a_flow_is_looked_for_in_the_folder_that_is_named(tmp_path, entrypoint):
    folder = tmp_path / "elsewhere"
    write(
        f"{folder}/flows_elsewhere.py",
        """
        from prefectlite import flow

        @flow
        def mine(): ...
        """,
    )
    assert load_flow(entrypoint, folder=folder).name == "mine"
    del sys.modules["flows_elsewhere"]
    sys.path.remove(str(folder))
    for other in (None, tmp_path):
        with pytest.raises(EntrypointError):
            load_flow(entrypoint, folder=other)


@pytest.mark.parametrize(
    ("entrypoint", "expected"),
    [
        ("f.py:g", "/a/f.py:g"),
        ("b/f.py", "/a/b/f.py"),
        ("/c/f.py:g", "/c/f.py:g"),
        ("module:g", "module:g"),
        ("package.module", "package.module"),
        ("c:d/f.py", "/a/c:d/f.py"),
    ],
)
def test_a_path_becomes_absolute_and_a_module_stays(entrypoint, expected):
    assert absolute(entrypoint, Path("/a")) == expected


@pytest.mark.parametrize(
    "entrypoint",
    [
        "hello.py",
        "hello.py:hello",
        "./hello.py",
        "hello",
        "hello:hello",
        "package/hello.py",
        "package.hello",
        "package.hello:hello",
        "a:b/hello.py",
        "a:b/hello.py:hello",
        "my-flow.py",
    ],
)
def test_a_flow_is_found_by_file_and_by_module(entrypoint):
    for name in ("hello.py", "package/hello.py", "a:b/hello.py", "my-flow.py"):
        write(name, HELLO)
    flow = load_flow(entrypoint)
    assert flow.name == "hello"
    assert flow.fn() == "hello"


def test_an_absolute_path_is_found_from_anywhere(tmp_path, monkeypatch):
    path = write("hello.py", HELLO).resolve()
    monkeypatch.chdir(tmp_path)
    assert load_flow(str(path)).name == "hello"


def test_a_file_is_a_module_of_its_own_name_and_not_main():
    write("named.py", HELLO + "print(__name__)\nassert __name__ == 'named'")
    flow = load_flow("named.py")
    assert flow.fn.__module__ == "named"
    assert sys.modules["named"].hello is flow


def test_a_file_is_loaded_once():
    write("once.py", HELLO)
    assert load_flow("once.py") is load_flow("./once.py:hello") is load_flow("once:hello")


def test_a_file_can_import_what_is_beside_it(folder):
    write("deep/helper_of_it.py", "value = 5")
    write("deep/main.py", HELLO + "import helper_of_it")
    assert load_flow("deep/main.py").name == "hello"
    assert sys.path[0] == str(folder / "deep")
    load_flow("deep.main")
    write("deep/other.py", HELLO)
    load_flow("deep/other.py")
    assert sys.path.count(str(folder / "deep")) == 1


@pytest.mark.parametrize(
    "name", ["json.py", "antigravity.py", "pytest.py", "__main__.py", "a.b.py"]
)
def test_a_file_never_takes_the_place_of_another_module(name):
    stem = name.removesuffix(".py")
    before = sys.modules.get(stem)
    write(name, HELLO)
    flow = load_flow(name)
    assert flow.name == "hello"
    assert flow.fn.__module__ != stem
    assert sys.modules.get(stem) is before
    assert load_flow(name) is flow


def test_a_running_script_can_load_itself():
    check = """
    if __name__ == "__main__":
        from prefectlite.entrypoints import load_flow
        assert load_flow("__main__.py") is not hello
        assert load_flow("__main__.py").name == "hello"
    """
    path = write("__main__.py", HELLO + textwrap.dedent(check))
    environment = {**os.environ, "PYTHONPATH": str(Path(prefectlite.__file__).parents[1])}
    subprocess.run([sys.executable, str(path)], check=True, timeout=60, env=environment)


def test_two_files_of_one_name_are_two_modules():
    write("a/same.py", HELLO)
    write("b/same.py", HELLO)
    assert load_flow("a/same.py") is not load_flow("b/same.py")


def test_what_a_file_defines_can_be_unpickled_by_a_worker_process(folder):
    write("picklable.py", HELLO + "class Thing: ...")
    script = """if True:
        import multiprocessing, pickle, sys
        from concurrent.futures import ProcessPoolExecutor
        from prefectlite.entrypoints import load_flow
        load_flow("deep/../picklable.py")
        thing = sys.modules["picklable"].Thing
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert pool.submit(repr, thing()).result(timeout=60)
    """
    (folder / "deep").mkdir()
    # A child started by spawn imports the main module again, so that must be a file.
    main = write("elsewhere/main.py", f"if __name__ == '__main__':\n    exec({script!r})")
    root = str(Path(prefectlite.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    subprocess.run([sys.executable, str(main)], check=True, timeout=120, env=environment)


def test_imported_flows_count_only_where_there_are_no_others():
    write("library.py", HELLO)
    write("user.py", "from library import hello\n" + HELLO.replace("hello", "mine"))
    write("front.py", "from library import hello")
    assert load_flow("user.py").name == "mine"
    assert load_flow("user.py:hello").name == "hello"
    assert load_flow("front").name == "hello"


def test_a_flow_with_two_names_is_one_flow():
    write("alias.py", HELLO + "main = hello")
    assert load_flow("alias.py").name == "hello"


@pytest.mark.parametrize("entrypoint", ["", ":", ":flow", "two.py:", "two:"])
def test_a_half_entrypoint_is_refused(entrypoint):
    write("two.py", TWO)
    error = refusal(entrypoint)
    assert "is not an entrypoint" in str(error)
    assert error.hint == "an entrypoint is module:flow or path.py:flow"


@pytest.mark.parametrize(
    ("entrypoint", "message", "hint"),
    [
        ("tow.py", "there is no file 'tow.py'", "did you mean two.py?"),
        ("no/such.py:x", "there is no file 'no/such.py'", "it was looked for in"),
        ("sub/", "'sub/' is a folder", "path.py:flow"),
        ("dir.py", "'dir.py' is a folder", "path.py:flow"),
        ("./script", "'./script' is not a Python file", "must end in .py"),
        ("a\0b.py", "cannot be read", None),
        ("loop.py", "cannot be read", None),
        ("my flow", "'my flow' is neither a module nor a Python file", "path.py:flow"),
        (".two", "'.two' is neither a module nor a Python file", "path.py:flow"),
        ("nowhere", "there is no module 'nowhere'", "it is not installed, nor in "),
        ("no.where:x", "there is no module 'no'", "it is not installed, nor in "),
        ("two.where", "there is no module 'two.where'", "it is not installed, nor in "),
        ("empty.py", "there is no flow in empty.py", "decorate a function in it with @flow"),
        ("two.py", "there are 2 flows in two.py: one, two", "such as two.py:one"),
        ("two", "there are 2 flows in two: one, two", "such as two:one"),
        ("two.py:tow", "there is no 'tow' in two.py", "did you mean two.py:two?"),
        ("two.py:the-second", "there is no 'the-second' in two.py", "did you mean two.py:two?"),
        ("two.py:zzzzzz", "there is no 'zzzzzz' in two.py", "its flows are: one, two"),
        ("empty.py:x", "there is no 'x' in empty.py", "no flow is defined in it"),
        ("two.py:work", "'work' in two.py is a task, not a flow", "call work() from a function"),
        ("two.py:function", "'function' in two.py is a plain function", "decorate function with"),
        ("two.py:Thing", "'Thing' in two.py is a class", "decorate a function"),
        ("two.py:number", "'number' in two.py is of type int", "decorate a function"),
        ("prefects.py:main", "'main' in prefects.py is a Flow of Prefect", "to prefectlite"),
    ],
)
def test_what_is_not_a_flow_is_refused_with_what_to_do(entrypoint, message, hint):
    write("two.py", TWO)
    write("empty.py", "")
    write("script", HELLO)
    write("sub/a.py", HELLO)
    write("dir.py/a.py", HELLO)
    write("prefects.py", "class Flow: __module__ = 'prefect.flows'\nmain = Flow()")
    Path("loop.py").symlink_to("loop.py")
    error = refusal(entrypoint)
    assert message in str(error)
    assert hint is None or hint in error.hint
    assert error.__cause__ is None


@pytest.mark.parametrize("entrypoint", ["bad.py", "bad", "outer.py", "outer:hello"])
def test_a_syntax_error_is_said_with_its_place(folder, entrypoint):
    write("bad.py", "x = 1\nif x\n    pass\n")
    write("outer.py", "import bad")
    error = refusal(entrypoint)
    assert str(error) == f"{folder / 'bad.py'}:2: expected ':': if x"
    assert error.__cause__ is None


@pytest.mark.parametrize("form", ["{}.py", "{}"])
@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("import numpy_of_old", "it needs 'numpy_of_old'", "is numpy_of_old installed"),
        ("import broken.deeper", "it needs 'broken.deeper'", "is broken installed"),
        ("from prefect.tasks import x", "it needs 'prefect", "change prefect to prefectlite"),
        ("from os import nothing", "ImportError: cannot import name 'nothing'", None),
        ("from . import sibling", "ImportError: attempted relative import", "package.module:flow"),
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero", None),
        ("eval('1 +')", "SyntaxError: invalid syntax", None),
        ("import sys\nsys.exit(3)", "it exits (3)", "if __name__ == '__main__':"),
        ("open('/no/such/file')", "FileNotFoundError", None),
    ],
)
def test_what_the_persons_code_raises_is_kept_with_its_own_frames(form, source, message, hint):
    path = write("broken.py", source).resolve()
    error = refusal(form.format("broken"))
    assert f"cannot be imported: {message}" in str(error)
    assert hint is None or hint in error.hint
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert frames[0].filename == str(path)
    assert "broken" not in sys.modules


def test_a_package_that_misses_its_own_module_is_the_persons_error():
    path = write("parcel/__init__.py", "import parcel.flows").resolve()
    error = refusal("parcel.flows")
    assert str(error) == "parcel.flows cannot be imported: it needs 'parcel.flows'"
    assert traceback.extract_tb(error.__cause__.__traceback__)[0].filename == str(path)


def test_an_interruption_while_importing_is_not_swallowed():
    write("slow.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_flow("slow.py")
    assert "slow" not in sys.modules


def test_a_deleted_current_folder_does_not_matter_for_a_module(tmp_path, monkeypatch):
    write("hello.py", HELLO)
    monkeypatch.syspath_prepend(Path.cwd())
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_flow("hello").name == "hello"
    assert None not in sys.path
