"""The only source of time: aware UTC, a monotonic clock for deadlines, durations as text.

Every module that needs the time takes it from here, so that a test can replace one name. Nothing
here blocks or imports anything but the standard library.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: Seconds since an unspecified start; never steps back. The clock of every deadline.
monotonic = time.monotonic


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
    """Return a duration in seconds as a person writes it: ``0.2s``, ``45s``, ``3m12s``, ``2h05m``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h"
