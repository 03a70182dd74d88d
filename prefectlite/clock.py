"""The only source of time: aware UTC, a monotonic clock for deadlines, durations as text.

Every module that needs the time takes it from here, so that a test can replace one name. Nothing
here blocks or imports anything but the standard library.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = f"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?"
_UNIT_SECONDS = (86_400, 3_600, 60, 1, 0.001)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# From here on, a duration of three digits says nothing more than one of two.
_ONE_DECIMAL_SECONDS = 9.95
# Below, one decimal of a second would say nothing.
_LEAST_TENTH_SECONDS = 0.0995

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first is Linux's own

#: Seconds since an unspecified start; never steps back. The clock of every deadline.
monotonic = time.monotonic


def since_boot() -> float:
    """Return the seconds since the machine was started: what start times of processes count in."""
    return time.clock_gettime(_BOOT_CLOCK)


def now() -> datetime:
    """Return the present time, aware, in UTC."""
    return datetime.now(UTC)


def to_microseconds(moment: datetime) -> int:
    """Return an aware time as whole microseconds since the Unix epoch."""
    return (moment - EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """Return the aware UTC time of a number of microseconds since the Unix epoch."""
    return EPOCH + timedelta(microseconds=microseconds)


def duration_text(seconds: float) -> str:
    """Return a duration in seconds as a person writes it: ``4ms``, ``0.2s``, ``45s``, ``3m12s``, ``2h05m``."""
    if seconds < _LEAST_TENTH_SECONDS:
        return f"{round(seconds * 1000)}ms"
    if seconds < _ONE_DECIMAL_SECONDS:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}m{rest:02d}s"
    days, hours = divmod(hours, 24)
    if not days:
        return f"{hours}h{minutes:02d}m"
    return f"{days}d{hours:02d}h"


def duration_from_text(text: str) -> float:
    """Return the seconds of a duration as a person writes it: ``90``, ``45s``, ``3m12s``, ``1.5h``.

    Raises:
        ValueError: It is no duration.
    """
    if re.fullmatch(_NUMBER, text):
        text += "s"
    found = re.fullmatch(_DURATION, text)
    if found is None or not text:
        raise ValueError(f"{text!r} is no duration, such as 90, 45s, 3m12s, 2h or 1d")
    return sum(
        float(count) * seconds
        for count, seconds in zip(found.groups(), _UNIT_SECONDS, strict=True)
        if count is not None
    )


def moment_from_text(text: str) -> datetime:
    """Return a time as a person writes it: ``2024-02-29T21:31``, ``2024-02-29`` or ``now``.

    It is local, unless it names its zone; a day is its first moment.

    Raises:
        ValueError: It is no time.
    """
    if text == "now":
        return now()
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        example = "such as 2024-02-29, 2024-02-29T21:31, 2024-02-29T21:31+01:00 or now"
        raise ValueError(f"{text!r} is no time, {example}") from None


def past_from_text(text: str) -> datetime:
    """Return a time as a person writes it, who may also say how long ago it is: ``2h`` or ``1d12h``.

    Raises:
        ValueError: It is neither.
    """
    if not text or not re.fullmatch(_DURATION, text):
        try:
            return moment_from_text(text)
        except ValueError as error:
            raise ValueError(f"{error}, nor how long ago, such as 90s, 2h or 3d") from None
    try:
        return now() - timedelta(seconds=duration_from_text(text))
    except OverflowError:
        raise ValueError(f"{text!r} ago is before the first year") from None
