"""The short forms of the models, and what keeps them honest; see the package."""

import re
from functools import partial
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]
DEADLINE_SECONDS = 250
#: What is said where it cannot be asked whether everything was reached.
TOO_FEW = "too few steps"


@pytest.fixture
def models(bench):
    """Run the models as a person does."""
    return partial(bench, "tests.models", "--no-shrink", seconds=DEADLINE_SECONDS)


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        ("runs", 12),
        ("agents", 12),
        pytest.param("runs", 400, marks=pytest.mark.long),
        pytest.param("agents", 200, marks=pytest.mark.long),
    ],
)
def test_the_registry_agrees_with_the_model(models, name, examples):
    done = models(name, "--examples", examples, "--seed", 6)
    assert done.returncode == 0
    assert re.match(rf"{name}: \d+ examples, \d\d\d+ steps\n", done.stdout)
    assert (TOO_FEW in done.stdout) == (examples == 12)


@pytest.mark.long
def test_the_registry_agrees_with_the_models_whatever_the_seed(models):
    done = models("--examples", 250)
    assert done.returncode == 0
    assert TOO_FEW not in done.stdout


#: The model of agents, with a rule that no step comes to.
BLIND = """
import sys
from tests.models import __main__ as program

program._ENOUGH_STEPS = 10
program._MODELS["agents"][1]["no_such_rule"] = ["done"]
sys.argv += ["agents", "--examples", "2", "--seed", "6", "--no-shrink"]
sys.exit(program.main())
"""


def test_a_rule_that_is_never_reached_is_told_and_exits_with_1(start_python):
    out = start_python(BLIND, cwd=SOURCES).end(1)
    assert "agents: the rule no_such_rule has never done what it is for\n" in out
    assert TOO_FEW not in out


def test_a_model_that_does_not_exist_is_a_usage_error(models):
    done = models("no-such")
    assert done.returncode == 2
    assert "no such model: no-such" in done.stderr
