"""That each bug can still be planted, that each test for a fault has one, and that what is not caught is told."""

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
#: Tests for faults that catch no bug of the product, each with the reason.
CATCH_NONE = {
    "tests/faults/test_sweeps.py::test_a_sweep_that_does_not_exist_is_a_usage_error": (
        "it is about the command line of the bench"
    ),
}


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


def test_each_test_for_a_fault_catches_a_bug_or_is_said_to_catch_none():
    catching = {test.partition("[")[0] for bug in BUGS for test in bug.values[0]["caught_by"]}
    tests = {
        f"{path.relative_to(SOURCES)}::{name}"
        for path in (SOURCES / "tests" / "faults").glob("test_*.py")
        for name in re.findall(
            r"^(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert tests - catching == CATCH_NONE.keys()


@pytest.mark.long
def test_what_no_test_sees_or_fails_without_a_bug_is_told_and_exits_with_1(tmp_path):
    tree = tmp_path / "tree"
    (tree / "tests" / "planted" / "bugs").mkdir(parents=True)
    for name in ("__init__.py", "__main__.py", "planting.py"):
        copied = (SOURCES / "tests" / "planted" / name).read_text(encoding="utf-8")
        (tree / "tests" / "planted" / name).write_text(copied, encoding="utf-8")
    (tree / "product.py").write_text("def answer():\n    return 42\n")
    (tree / "test_product.py").write_text(
        "import product\ndef test_answer(): assert product.answer() == 42\ndef test_blind(): pass\n"
        "def test_broken(): assert product.answer() == 40\n"
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
        [[bug]]
        name = "its test fails anyway"
        file = "product.py"
        old = "42"
        new = "41"
        caught_by = ["test_product.py::test_answer", "test_product.py::test_broken"]
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
        "FAILS WITHOUT ANY BUG: test_product.py::test_broken",
        "without any bug, 1 of the tests that are to catch one failed",
        "own: the answer is wrong: caught",
        "own: nobody looks: NOT CAUGHT: not seen by test_product.py::test_blind",
        "own: it is gone: NOT CAUGHT: product.py has the text that it replaces 0 times",
        "own: its test fails anyway: NOT CAUGHT: without it, too, there fails test_product.py::test_broken",
        "1 of 4 bugs were caught.",
    ]
