"""Copies of any Python value that JSON can hold: small, safe to show, and never failing.

The registry's record of parameters is made of these. A copy is for people and for running a flow
again with the same parameters; it is not a store of results. No secret may pass, and no value may
cost more than what is kept of it: a value that is too large is left before it is copied.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import sys
from collections import deque
from datetime import date, time, timedelta
from pathlib import PurePath

#: What stands for a secret, as pydantic writes it.
MASK = "**********"
#: The most that is kept of one value, in bytes of JSON: the registry is no store of data.
LIMIT_BYTES = 64 * 1024

_REPR_CHARACTERS = 200
_DEPTH = 100
# A value takes at least 2 bytes of JSON (itself and a separator), and at most 13 times what is
# counted for it: a float of 24 characters, or a character escaped as a pair of \uXXXX.
_LEAST_BYTES = 2
_MOST_TIMES = 13
_SEQUENCES = (list, tuple, set, frozenset, deque)
# By name, because importing their modules for this would cost every start.
_WRITTEN_AS_TEXT = frozenset({("uuid", "UUID"), ("decimal", "Decimal")})


def to_json_value(value: object) -> object:
    """Return a copy of the value that JSON can hold.

    Models become what ``model_dump(mode="json")`` gives, dataclasses dicts (without the fields that
    they leave out of their ``repr``), enums their values, sets and tuples lists, a timedelta its
    seconds, and times, paths, UUIDs, decimals, NaN and infinities text. A secret is masked.
    Anything else is its ``repr``, cut to 200 characters. What is larger than 64 KiB of JSON is a
    text that says so.
    """
    copier = _Copier()
    try:
        copy = copier.copy(value, 0)
        if copier.spent * _MOST_TIMES > LIMIT_BYTES and len(json.dumps(copy)) > LIMIT_BYTES:
            return _too_large(value)
    except _TooLargeError:
        return _too_large(value)
    except Exception:  # noqa: BLE001 - it ran code of the user's: an iterator, a property, a serializer
        return shown(value, _REPR_CHARACTERS)
    return copy


def json_or_text(text: str) -> object:
    """Return the value that a text is as JSON, and else the text; NaN and Infinity are texts."""
    try:
        value: object = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    return value


def _refuse_constant(name: str) -> object:
    # They are not JSON, though json.loads reads them.
    raise ValueError(name)


def shown(value: object, characters: int) -> str:
    """Return the value's ``repr``, cut; of a value whose ``repr`` fails, what it is."""
    if hasattr(type(value), "get_secret_value"):
        return MASK
    if isinstance(value, str | bytes | bytearray):
        value = value[: characters + 1]
    elif isinstance(value, list | tuple) and len(value) > characters:
        value = value[:characters]
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - it ran code of the user's: an iterator, a property, a serializer
        return f"<{type(value).__name__} without a repr>"
    return clean(text if len(text) <= characters else f"{text[: characters - 3]}...")


def clean(text: str) -> str:
    """Return the text with what UTF-8 cannot say escaped: halves of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


class _TooLargeError(Exception):
    pass


class _Copier:
    """One value's copy in the making.

    Attributes:
        spent: A lower bound of the bytes of JSON so far.
    """

    __slots__ = ("_path", "spent")

    def __init__(self) -> None:
        self.spent = 0
        self._path: set[int] = set()

    def copy(self, value: object, depth: int) -> object:
        """Copy one value, with all that is in it."""
        if isinstance(value, enum.Enum):
            value = value.value
        if value is None or isinstance(value, bool):
            self._spend(_LEAST_BYTES)
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int | float):
            return self._number(value)
        if id(value) in self._path:
            return self._text("<itself>")
        if depth == _DEPTH:
            return self._text("<too deeply nested to record>")
        self._path.add(id(value))
        copy = self._object(value, depth + 1)
        self._path.discard(id(value))
        return copy

    def _object(self, value: object, depth: int) -> object:
        if isinstance(value, dict):
            self._spend(len(value) * 2 * _LEAST_BYTES, keep=False)
            return {self._key(key): self.copy(one, depth) for key, one in value.items()}
        if isinstance(value, _SEQUENCES):
            self._spend(len(value) * _LEAST_BYTES, keep=False)
            return [self.copy(one, depth) for one in _in_order(value)]
        if isinstance(value, timedelta):
            return self._number(value.total_seconds())
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value) if field.repr]
            return {self._key(name): self.copy(getattr(value, name), depth) for name in names}
        pydantic = sys.modules.get("pydantic")
        if pydantic is not None and isinstance(value, pydantic.BaseModel):
            return self.copy(value.model_dump(mode="json"), depth)
        return self._text(_text_of(value) or shown(value, _REPR_CHARACTERS))

    def _spend(self, count: int, *, keep: bool = True) -> None:
        if self.spent + count > LIMIT_BYTES:
            raise _TooLargeError
        if keep:
            self.spent += count

    def _text(self, text: str) -> str:
        self._spend(len(text) + _LEAST_BYTES)
        return clean(str.__str__(text))

    def _key(self, key: object) -> str:
        if isinstance(key, enum.Enum):
            key = key.value
        if isinstance(key, str):
            return self._text(key)
        is_scalar = key is None or isinstance(key, bool | int | float)
        return self._text(str(key) if is_scalar else _text_of(key) or shown(key, _REPR_CHARACTERS))

    def _number(self, value: int | float) -> int | float | str:
        if isinstance(value, float):
            self._spend(_LEAST_BYTES)
            return float(value) if math.isfinite(value) else str(float(value))
        # Four bits and more make a digit; Python refuses to write more than 4,300 digits.
        digits = value.bit_length() // 4
        self._spend(max(digits, _LEAST_BYTES))
        return int(value) if digits < _REPR_CHARACTERS else f"<int of {value.bit_length()} bits>"


def _in_order(value: object) -> list[object]:
    if isinstance(value, set | frozenset):
        try:
            return sorted(value)
        except Exception:  # noqa: BLE001 - values that cannot be compared, or that compare by code of the user's
            return [*value]
    return value  # type: ignore[return-value] # one of the ordered _SEQUENCES


def _text_of(value: object) -> str | None:
    """Return the text of a value that is written as text; None where its ``repr`` must do."""
    if isinstance(value, date | time):
        return value.isoformat()
    kind = type(value)
    if isinstance(value, PurePath) or (kind.__module__, kind.__qualname__) in _WRITTEN_AS_TEXT:
        return str(value)
    return None


def _too_large(value: object) -> str:
    kind = type(value).__name__
    try:
        size = f"{len(value):,}"  # type: ignore[arg-type] # what has no length is said without
    except Exception:  # noqa: BLE001 - it ran code of the user's: an iterator, a property, a serializer
        return f"<{kind}: too large to record>"
    unit = "characters" if isinstance(value, str) else "items"
    return f"<{kind} of {size} {unit}: too large to record>"
