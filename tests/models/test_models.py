"""The short forms of the models, and what keeps them honest; see the package."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]
DEADLINE_SECONDS = 250


def models(*arguments):
    """Run the models as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "tests.models", "--no-shrink", *arguments],
        cwd=SOURCES,
        env=dict(os.environ),
        timeout=DEADLINE_SECONDS,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        ("runs", 12),
        ("agents", 12),
        pytest.param("runs", 400, marks=pytest.mark.long),
        pytest.param("agents", 200, marks=pytest.mark.long),
    ],
)
def test_the_registry_agrees_with_the_model(name, examples):
    done = models(name, "--examples", str(examples), "--seed", "6")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(rf"{name}: \d+ examples, \d\d\d+ steps\n", done.stdout)


@pytest.mark.long
def test_the_registry_agrees_with_the_models_whatever_the_seed():
    done = models("--examples", "250")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_model_that_does_not_exist_is_a_usage_error():
    done = models("no-such")
    assert done.returncode == 2
    assert "no such model: no-such" in done.stderr
