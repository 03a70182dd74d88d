from dataclasses import dataclass, field

import pytest

from prefectlite import flow, quote, task, unmapped
from prefectlite.errors import (
    MappingLengthMismatch,
    MappingMissingIterable,
    UpstreamTaskError,
    UsageError,
)
from prefectlite.futures import TaskFuture
from prefectlite.inputs import allow_failure, find_futures, resolve, split_for_map
from prefectlite.states import Completed, Failed

pytestmark = pytest.mark.usefixtures("home")


@task
def number(x):
    return x


@task
def show(value, *more, **named):
    return (value, *more, named) if more or named else value


@dataclass(frozen=True)
class Point:
    x: object
    y: object = 0
    made: object = field(init=False, default=None)


@dataclass
class Checked:
    x: object

    def __post_init__(self):
        if isinstance(self.x, int):
            raise KeyError("no numbers please")


def shown(make):
    """Return what a task gets for the value that ``make`` builds around a future of 7."""

    @flow
    def calls():
        future = number.submit(7)
        direct, submitted = show(make(future)), show.submit(make(future)).result()
        assert direct == submitted
        return [submitted]

    return calls()[0]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda future: future, 7),
        (lambda future: [future, [future, 1]], [7, [7, 1]]),
        (lambda future: (1, (future,)), (1, (7,))),
        (lambda future: {future, 2}, {7, 2}),
        (lambda future: frozenset({future}), frozenset({7})),
        (lambda future: {"a": {"b": future}, 3: 4}, {"a": {"b": 7}, 3: 4}),
        (lambda future: Point(future, [future]), Point(7, [7])),
        (lambda future: [{"p": Point((future,))}], [{"p": Point((7,))}]),
        (lambda future: future.wait(), 7),
        (lambda future: [Completed(data=8), future], [8, 7]),
    ],
    ids=[
        "alone",
        "list",
        "tuple",
        "set",
        "frozenset",
        "dict",
        "dataclass",
        "deep",
        "state",
        "both",
    ],
)
def test_futures_and_states_are_found_however_deep_they_are(make, expected):
    assert shown(make) == expected


def test_futures_are_found_in_keywords_and_star_arguments():
    @flow
    def calls():
        future = number.submit(7)
        return show.submit(1, future, key=[future]).result()

    assert calls() == (1, 7, {"key": [7]})


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, (1,), {1}, Point(1), "text", object()])
def test_a_value_without_futures_is_passed_itself(value):
    @flow
    def calls():
        return (show(value) is value, show.submit(value).result() is value)

    assert calls() == (True, True)


def test_a_quoted_value_is_not_looked_into():
    @task
    def kinds(value):
        return [type(one) for one in value]

    @flow
    def calls():
        future = number.submit(7)
        return kinds(quote([future])), kinds.submit(quote([future])).result()

    assert calls() == ([TaskFuture], [TaskFuture])
    assert quote([1]).unquote() == [1]


def test_an_unmapped_value_in_submit_is_the_value():
    @flow
    def calls():
        return show.submit(unmapped([number.submit(1)])).result()

    assert calls() == [1]


def test_a_dataclass_that_refuses_the_result_fails_the_task():
    @flow
    def calls():
        state = show.submit(Checked(number.submit(7))).wait()
        assert "no numbers please" in state.message
        assert show(Checked(number.submit(7)), return_state=True).is_failed()
        return state.name

    assert calls() == "Failed"


def test_resolve_refuses_what_did_not_complete_unless_it_is_allowed():
    failed = Failed(data=ValueError("x"))
    with pytest.raises(UpstreamTaskError):
        resolve([failed])
    (error,) = resolve([allow_failure(failed)])
    assert isinstance(error, ValueError)
    deep = resolve(allow_failure({"a": [failed]}))
    assert isinstance(deep["a"][0], ValueError)


def test_find_futures_gives_them_in_order():
    @flow
    def calls():
        first, second = number.submit(1), number.submit(2)
        return find_futures([second, {"a": first}], quote(first), unmapped(first)) == [
            second,
            first,
            first,
        ]

    assert calls() is True


def mapped(*args, **kwargs):
    @flow
    def calls():
        return [[future.result() for future in show.map(*args, **kwargs)]]

    return calls()[0]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([1, 2], [1, 2]),
        ((1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        ((x for x in [4, 5]), [4, 5]),
        (iter([6]), [6]),
        ({"a": 1, "b": 2}, ["a", "b"]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([], []),
    ],
    ids=["list", "tuple", "range", "generator", "iterator", "dict", "nested", "empty"],
)
def test_map_walks_any_iterable_in_order(items, expected):
    assert mapped(items) == expected


def test_map_walks_several_in_step_and_passes_the_rest_whole():
    assert mapped([1, 2], "text", unmapped([0]), 5, None, k=(3, 4), b=b"x", w=unmapped("u")) == [
        (1, "text", [0], 5, None, {"k": 3, "b": b"x", "w": "u"}),
        (2, "text", [0], 5, None, {"k": 4, "b": b"x", "w": "u"}),
    ]


@pytest.mark.parametrize("args", [(), ("text",), (1, None), (unmapped([1]),), (b"x",)])
def test_map_without_an_iterable_is_refused(args):
    with pytest.raises(MappingMissingIterable) as caught:
        mapped(*args)
    assert caught.value.hint


def test_map_over_different_lengths_is_refused_and_says_which():
    with pytest.raises(MappingLengthMismatch, match="0: 2, other: 3") as caught:
        mapped([1, 2], other=[1, 2, 3])
    assert "unmapped" in caught.value.hint


def test_map_takes_a_list_of_futures_and_a_future_of_a_list():
    @flow
    def calls():
        of_futures = show.map([number.submit(1), number.submit(2), 3])
        of_list = show.map(number.submit([4, 5]))
        of_state = show.map(number([6], return_state=True))
        whole = show.map([7, 8], number.submit("whole"), unmapped(number.submit([9])))
        runs = (of_futures, of_list, of_state, whole)
        return [[future.result() for future in futures] for futures in runs]

    assert calls() == [
        [1, 2, 3],
        [4, 5],
        [6],
        [(7, "whole", [9], {}), (8, "whole", [9], {})],
    ]


def test_map_over_a_failed_list_says_so():
    @task
    def fails():
        raise ValueError("x")

    @flow
    def calls():
        with pytest.raises(UpstreamTaskError, match="fails-0"):
            show.map(fails.submit())
        return "done"

    assert calls() == "done"


def test_map_of_map_chains_item_by_item():
    @task
    def add(x, y):
        return x + y

    @flow
    def calls():
        first = add.map(range(20), 1)
        second = add.map(first, first)
        assert all(isinstance(one, TaskFuture) for one in second)
        return sum(future.result() for future in second)

    assert calls() == sum(2 * (x + 1) for x in range(20))


def test_split_for_map_gives_each_call_its_arguments():
    calls = split_for_map([[1, 2], unmapped("w")], {"k": (3, 4)})
    assert [(args[0], args[1].value, kwargs) for args, kwargs in calls] == [
        (1, "w", {"k": 3}),
        (2, "w", {"k": 4}),
    ]


def test_the_wrappers_show_what_they_hold():
    assert [repr(wrap(1)) for wrap in (unmapped, quote, allow_failure)] == [
        "unmapped(1)",
        "quote(1)",
        "allow_failure(1)",
    ]


def test_an_argument_that_contains_itself_is_a_usage_error_and_quote_helps():
    loop = []
    loop.append(loop)
    with pytest.raises(UsageError, match="contains itself"):
        find_futures(loop)
    with pytest.raises(UsageError, match="contains itself"):
        resolve(loop)
    assert resolve(quote(loop)) is loop
