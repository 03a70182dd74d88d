"""What the texts of settings mean: numbers, paths, yes and no; and what of them must not be shown.

For ``settings``. Nothing here knows which settings there are, or where a text comes from.
"""

from __future__ import annotations

import re
from enum import Enum, IntEnum
from pathlib import Path

#: What is shown instead of a secret; as pydantic does, and ``json_values.MASK``.
HIDDEN = "**********"
_YES_NO = {"1": True, "true": True, "yes": True, "on": True}
_YES_NO |= {"0": False, "false": False, "no": False, "off": False}
# The longest wait that a setting can ask for; no clock or lock overflows at it.
_YEAR_SECONDS = 366 * 86_400
# A URL's password: up to its last @, because people seldom escape one; or in its query.
_PASSWORD = re.compile(r"(?<=://)([^:/?#@]*:).*(?=@)|([?&]\w*password=)[^&#]*", re.DOTALL)


class Level(IntEnum):
    """A level of log records, as in ``logging``."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


def yes_or_no(text: str) -> bool:
    """Return what a word for yes or no means; in any case."""
    try:
        return _YES_NO[text.lower()]
    except KeyError:
        raise ValueError("expected true or false") from None


def seconds(text: str) -> float:
    """Return a number of seconds."""
    number = float(text)
    if not 0 <= number <= _YEAR_SECONDS:
        raise ValueError("expected a number of seconds, from 0 to a year's")
    return number


def level(text: str) -> Level:
    """Return the level of this name; in any case."""
    try:
        return Level[text.upper()]
    except KeyError:
        raise ValueError(f"expected one of {', '.join(Level.__members__)}") from None


def path(text: str) -> Path:
    """Return an absolute path; ``~`` is the home folder."""
    return Path(text).expanduser().absolute()


def plain_text(value: object) -> str:
    """Return a value as a person would write it."""
    if isinstance(value, Enum):
        return str(value.name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.15g}"
    return "" if value is None else str(value)


def kept_text(given: object) -> str:
    """Return what stands in a profile, as TOML reads it, as it would stand in the environment."""
    text = plain_text(given)
    if not isinstance(given, str | int | float) or "\0" in text:
        raise ValueError("expected a text, a number, true or false")
    return text


def check_kept(value: object, text: str) -> None:
    """Refuse what would mean something else in another folder, since a profile is used in any."""
    if isinstance(value, Path) and not text.startswith(("/", "~")):
        raise ValueError("in a profile, a path begins with / or ~")
    if re.match(r"sqlite:/{0,3}[^/]", text):
        raise ValueError("in a profile, the path begins with /: sqlite:////home/me/registry.db")


def mask_passwords(text: str) -> str:
    """Return a text without the passwords of a URL."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}", text)
