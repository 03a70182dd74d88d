"""What a block's fields are as JSON, and the way back: where secrets and other blocks stand is noted.

``blocks`` saves and loads with it. A value is taken as it is, and never as a serializer of the user's
would show it: one may reveal a secret. What comes from here, a tree, holds secrets as they are; it
must never be logged, shown, or part of an error.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pydantic
from pydantic_core import PydanticSerializationError, to_jsonable_python

from prefectlite.block_records import NestedBlock, Place, SecretPlace, place_text
from prefectlite.errors import UsageError

_SECRETS = {
    one.__name__: one for one in (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)
}
_LISTS = (list, tuple, deque)
_SETS = (set, frozenset)

#: Says of a value whether it is a block, and which: its type, and its name where it is on record.
Identify = Callable[[object], tuple[str, str | None] | None]
#: Returns the block that stands at a place, by what is known of it and what stands there.
Resolve = Callable[[NestedBlock, Any], object]


@dataclass(frozen=True, slots=True)
class Tree:
    """A value as JSON holds it, with its secrets in clear, some perhaps as bytes.

    Attributes:
        value: Dicts, lists, texts, numbers, booleans, None; bytes only where a secret is.
        secrets: Where secrets stand, seen from this value.
        blocks: Where blocks stand, an outer one before those in it, each with itself.
    """

    value: Any
    secrets: tuple[SecretPlace, ...] = ()
    blocks: tuple[tuple[NestedBlock, object], ...] = ()

    def text(self) -> str:
        """Return what is the same for the trees of equal values."""
        nested = [one for one, _ in self.blocks]
        return json.dumps([self.value, repr(self.secrets), repr(nested)], default=repr)

    def shares(self, name: str, other: Tree) -> bool:
        """Return whether two trees have one field in common; 10 is 10.0."""
        ours, theirs = self._part(name), other._part(name)
        return ours == theirs or ours.text() == theirs.text()  # of NaN only the text is the same

    def _part(self, name: str) -> Tree:
        secrets = tuple(one for one in self.secrets if one.place[0] == name)
        blocks = tuple(one for one in self.blocks if one[0].place[0] == name)
        return Tree(self.value.get(name), secrets, blocks)


def tree_of(value: object, identify: Identify) -> Tree:
    """Return the tree of a block, or of a value in one.

    Raises:
        UsageError: JSON cannot hold it, or it contains itself; the message says where.
    """
    try:
        return _Growing(identify).fields(value, ())
    except RecursionError:
        raise UsageError("the block is nested too deep to be kept") from None


def values_of(
    tree: Any,  # noqa: ANN401 - JSON
    secrets: Iterable[SecretPlace],
    blocks: Iterable[NestedBlock],
    resolve: Resolve,
) -> Any:  # noqa: ANN401 - JSON, with secrets and blocks
    """Return a tree's value with its secrets and blocks as objects again, to be validated.

    Args:
        tree: A tree's value.
        secrets: Where its secrets stand.
        blocks: Where its blocks stand, an outer one before those in it.
        resolve: Gives a block; what stands in one has been resolved before.
    """
    tree = _copy(tree)
    for secret in secrets:
        if secret.kind in _SECRETS:
            _change(tree, secret.place, _SECRETS[secret.kind])
    for block in reversed([*blocks]):

        def resolved(found: object, block: NestedBlock = block) -> object:
            return resolve(block, found)

        _change(tree, block.place, resolved)
    return tree


class _Growing:
    """One tree in the making; errors know where in it they are."""

    def __init__(self, identify: Identify) -> None:
        self._identify = identify
        self._path: list[int] = []

    def fields(self, value: Any, place: Place) -> Tree:  # noqa: ANN401 - any model
        """Return the tree of a model's fields."""
        config = type(value).model_config
        by_name = config.get("populate_by_name") or config.get("validate_by_name")
        keys = {
            name: name if by_name else _key(field, (*place, name))
            for name, field in type(value).model_fields.items()
        }
        # One that was made without validation may lack some.
        found = {keys[name]: value.__dict__[name] for name in keys if name in value.__dict__}
        return self._table(value, {**found, **(value.model_extra or {})}, place)

    def _any(self, value: Any, place: Place) -> Tree:  # noqa: ANN401 - told apart here
        if isinstance(value, enum.Enum):
            value = value.value
        if value is None or isinstance(value, bool | int | float | str):
            return Tree(_plain(value))
        if hasattr(type(value), "get_secret_value"):
            return self._secret(value, place)
        found = self._identify(value)
        if found is not None:
            return self._block(value, place, found)
        return self._compound(value, place)

    def _compound(self, value: Any, place: Place) -> Tree:  # noqa: ANN401 - told apart here
        if isinstance(value, pydantic.BaseModel):
            return self._model(value, place)
        if isinstance(value, Mapping):
            return self._table(value, value, place)
        if isinstance(value, _LISTS):
            return self._list(value, place)
        if isinstance(value, _SETS):
            return self._list(value, place, in_order=False)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value) if field.init]
            return self._table(value, {name: getattr(value, name) for name in names}, place)
        return Tree(_leaf(value, place))

    def _model(self, value: pydantic.BaseModel, place: Place) -> Tree:
        if isinstance(value, pydantic.RootModel):
            return self._any(value.root, place)
        return self.fields(value, place)

    def _table(self, owner: object, items: Mapping[Any, object], place: Place) -> Tree:
        trees: dict[str, Tree] = {}
        with self._inside(owner, place):
            for key, value in items.items():
                text = _key_text(key, place)
                if text in trees:
                    raise _unkept((*place, text), "the key is there twice, as JSON has it")
                trees[text] = self._any(value, (*place, text))
        return _joined({key: tree.value for key, tree in trees.items()}, trees.items())

    def _list(self, values: Iterable[object], place: Place, *, in_order: bool = True) -> Tree:
        with self._inside(values, place):
            trees = [self._any(one, (*place, index)) for index, one in enumerate(values)]
        if not in_order:  # a set has another one in the next process
            trees.sort(key=Tree.text)
        return _joined([tree.value for tree in trees], enumerate(trees))

    @contextmanager
    def _inside(self, value: object, place: Place) -> Iterator[None]:
        if id(value) in self._path:
            raise _unkept(place, "it contains itself")
        self._path.append(id(value))
        yield
        self._path.pop()

    def _secret(self, value: Any, place: Place) -> Tree:  # noqa: ANN401 - any class of secrets
        inner = value.get_secret_value()
        if not isinstance(inner, bytes):
            tree = self._any(inner, place)
            if tree.blocks:
                raise _unkept(place, "a secret cannot hold a block")
            inner = tree.value
        kind = type(value).__name__
        is_plain = _SECRETS.get(kind) is type(value)
        return Tree(inner, (SecretPlace((), kind if is_plain else ""),))

    def _block(self, value: object, place: Place, found: tuple[str, str | None]) -> Tree:
        type_, name = found
        own = (NestedBlock((), type_, name), value)
        if name is not None:
            return Tree(f"{type_}/{name}", (), (own,))
        tree = self.fields(value, place)
        return replace(tree, blocks=(own, *tree.blocks))


def _joined(value: object, trees: Iterable[tuple[str | int, Tree]]) -> Tree:
    """Return the tree of a table or list, whose places are seen from it."""
    secrets: list[SecretPlace] = []
    blocks: list[tuple[NestedBlock, object]] = []
    for step, tree in trees:
        secrets += [replace(one, place=(step, *one.place)) for one in tree.secrets]
        blocks += [(replace(one, place=(step, *one.place)), block) for one, block in tree.blocks]
    return Tree(value, tuple(secrets), tuple(blocks))


def _key(field: pydantic.fields.FieldInfo, place: Place) -> str:
    """Return what a field of a model is read from."""
    alias = field.validation_alias if field.validation_alias is not None else field.alias
    if isinstance(alias, pydantic.AliasChoices):
        texts = [one for one in alias.choices if isinstance(one, str)]
        alias = texts[0] if texts else alias.choices[0]
    if isinstance(alias, pydantic.AliasPath):
        raise _unkept(place, "its alias is a path")
    return place[-1] if alias is None else alias  # type: ignore[return-value] # the field's name is a text


def _key_text(key: object, place: Place) -> str:
    if isinstance(key, str) and not isinstance(key, enum.Enum):
        return str.__str__(key)
    if hasattr(type(key), "get_secret_value"):
        raise _unkept(place, "a secret cannot be a key")
    (text,) = _leaf({key: None}, place)
    return str(text)


def _plain(value: Any) -> object:  # noqa: ANN401 - told apart here
    """Return a scalar as one of Python's own types, whatever subclass it is of."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else value


def _leaf(value: object, place: Place) -> Any:  # noqa: ANN401 - JSON
    """Return what pydantic makes of a value that is neither a table nor a list."""
    try:
        leaf = _jsonable(value)
    except UnicodeDecodeError:
        raise _unkept(place, "bytes are kept only if they are UTF-8, or as SecretBytes") from None
    except (ValueError, TypeError, pydantic.PydanticUserError):  # which may show the value
        leaf = []
    if isinstance(leaf, list):  # also of any iterable, whose secrets would be lost
        raise _unkept(place, f"JSON cannot hold a {type(value).__name__}")
    return leaf


def _jsonable(value: object) -> Any:  # noqa: ANN401 - JSON
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        # A class may say itself how it is written.
        return pydantic.TypeAdapter(type(value)).dump_python(value, mode="json")


def _unkept(place: Place, told: str) -> UsageError:
    return UsageError(f"the block's {place_text(place) or 'value'!r} cannot be kept: {told}")


def _copy(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def _change(tree: Any, place: Place, change: Callable[[Any], object]) -> None:  # noqa: ANN401 - JSON
    for step in place[:-1]:
        tree = tree[step]
    tree[place[-1]] = change(tree[place[-1]])
