"""The tree of errors: drawn as it is, complete, and fit to travel between processes."""

import inspect
import pickle
import re

import pytest

from prefectlite import errors
from prefectlite.errors import (
    AmbiguousReferenceError,
    FlowRunNotRunningError,
    MissingContextError,
    NotFoundError,
    ParameterTypeError,
    PrefectLiteError,
    StateConflictError,
)
from prefectlite.states import Cancelled, Cancelling, Completed

TREE = [
    each
    for each in vars(errors).values()
    if inspect.isclass(each) and issubclass(each, PrefectLiteError)
]
ODD = {
    AmbiguousReferenceError: lambda: AmbiguousReferenceError("x", ["1", "2"]),
    StateConflictError: lambda: StateConflictError(
        "flow run 'x'", current=Cancelled(), proposed=Completed()
    ),
    FlowRunNotRunningError: lambda: FlowRunNotRunningError("id", current=Cancelling()),
}


def one_of_each():
    return [
        ODD[kind]() if kind in ODD else kind("what happened", hint="what to do") for kind in TREE
    ]


def test_the_drawing_shows_every_error_under_its_parent():
    parents = {}
    for line in errors.__doc__.splitlines():
        names = re.findall(r"\b[A-Z][A-Za-z]+(?:Error|Run|Result|Iterable|Mismatch)\b", line)
        if line.startswith("    ") and names:
            depth = line.index(names[0])
            parents[depth] = names[-1]
            above = max((each for each in parents if each < depth), default=None)
            for name in names:
                if name not in {"RuntimeError", "TypeError"} and above is not None:
                    drawn = getattr(errors, parents[above])
                    assert drawn in getattr(errors, name).__bases__, name
            parents = {at: name for at, name in parents.items() if at <= depth}
    drawn = set(re.findall(r"\w+", errors.__doc__))
    assert {kind.__name__ for kind in TREE} <= drawn


def test_every_error_has_words_an_exit_code_of_the_table_and_a_docstring():
    for error in one_of_each():
        assert str(error)
        assert error.exit_code in {1, 2, 3, 4, 5, 141}
        assert type(error).__doc__
        assert error.hint is None or error.hint


def test_every_error_survives_the_way_between_processes():
    for error in one_of_each():
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert copy.hint == error.hint
        assert vars(copy) == vars(error)


def test_the_exit_code_says_what_kind_of_error_it_is():
    assert ParameterTypeError("x").exit_code == 2
    assert NotFoundError("x").exit_code == 3
    assert StateConflictError("x", current=Cancelled(), proposed=Completed()).exit_code == 4
    registry = [each for each in TREE if issubclass(each, errors.RegistryError)]
    assert len(registry) == 8
    assert {each.exit_code for each in registry} == {5}


def test_what_python_code_catches_by_a_built_in_name_it_still_catches():
    with pytest.raises(RuntimeError):
        raise MissingContextError("x")
    with pytest.raises(TypeError):
        raise ParameterTypeError("x")


def test_a_conflict_says_what_the_run_is_and_cannot_become():
    error = StateConflictError("flow run 'x'", current=Cancelled(), proposed=Completed())
    assert str(error) == "flow run 'x' is Cancelled; it cannot become Completed"
