"""That each bug can still be planted, and that one which is not caught is told."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]
BUGS = [
    pytest.param(bug, id=f"{path.stem}: {bug['name']}")
    for path in sorted((Path(__file__).parent / "bugs").glob("*.toml"))
    for bug in tomllib.loads(path.read_text(encoding="utf-8"))["bug"]
]


@pytest.mark.parametrize("bug", BUGS)
def test_what_a_bug_replaces_is_there_once_and_its_tests_are_there(bug):
    assert (SOURCES / bug["file"]).read_text(encoding="utf-8").count(bug["old"]) == 1
    assert bug["new"] != bug["old"]
    assert bug["caught_by"]
    for test in bug["caught_by"]:
        path, _, function = test.partition("::")
        name = re.escape(function.partition("[")[0])
        assert re.search(
            rf"^def {name}\(", (SOURCES / path).read_text(encoding="utf-8"), re.MULTILINE
        ), test


@pytest.mark.long
def test_what_no_test_sees_is_told_and_exits_with_1(tmp_path):
    tree = tmp_path / "tree"
    (tree / "tests" / "planted" / "bugs").mkdir(parents=True)
    for name in ("__init__.py", "__main__.py", "planting.py"):
        copied = (SOURCES / "tests" / "planted" / name).read_text(encoding="utf-8")
        (tree / "tests" / "planted" / name).write_text(copied, encoding="utf-8")
    (tree / "product.py").write_text("def answer():\n    return 42\n")
    (tree / "test_product.py").write_text(
        "import product\ndef test_answer(): assert product.answer() == 42\ndef test_blind(): pass\n"
    )
    (tree / "tests" / "planted" / "bugs" / "own.toml").write_text(
        """
        [[bug]]
        name = "the answer is wrong"
        file = "product.py"
        old = "42"
        new = "41"
        caught_by = ["test_product.py::test_answer"]
        [[bug]]
        name = "nobody looks"
        file = "product.py"
        old = "42"
        new = "41"
        caught_by = ["test_product.py::test_answer", "test_product.py::test_blind"]
        [[bug]]
        name = "it is gone"
        file = "product.py"
        old = "43"
        new = "41"
        caught_by = ["test_product.py::test_answer"]
        """
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.planted", "-j", "1"],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    told = re.sub(r" \(\d+ s\)", "", done.stdout).splitlines()
    assert told == [
        "own: the answer is wrong: caught",
        "own: nobody looks: NOT CAUGHT: not seen by test_product.py::test_blind",
        "own: it is gone: NOT CAUGHT: product.py has the text that it replaces 0 times",
        "1 of 3 bugs were caught.",
    ]
