"""How long to wait before an attempt."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from prefectlite.errors import UsageError

RetryDelay = float | Sequence[float] | Callable[[int], Sequence[float]]


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Return a ``retry_delay_seconds`` that doubles: the factor, twice it, four times it, ...

    Args:
        backoff_factor: Seconds before the first retry.
    """
    return lambda retries: [backoff_factor * 2**retry for retry in range(retries)]


def checked_delay(delay: RetryDelay, retries: int) -> float | tuple[float, ...]:
    """Return a ``retry_delay_seconds`` as a number, or a number for each retry.

    A function is called once, with the number of retries (Prefect 2.8 behaviour).

    Raises:
        UsageError: It is, or holds, no number of seconds of at least 0.
    """
    value = delay(retries) if callable(delay) else delay
    seconds = tuple(value) if isinstance(value, Sequence) else (value,)
    for one in seconds:
        given: object = one
        if isinstance(given, bool) or not isinstance(given, int | float) or not _is_time(given):
            raise UsageError(f"retry_delay_seconds={one!r} is not a number of at least 0")
    return seconds if isinstance(value, Sequence) else float(seconds[0])


def _is_time(seconds: float) -> bool:
    return 0 <= seconds < math.inf


def check_jitter(factor: object) -> None:
    """Refuse a ``retry_jitter_factor`` that is none.

    Raises:
        UsageError: It is not a number of at least 0.
    """
    if factor is None:
        return
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not _is_time(factor):
        raise UsageError(f"retry_jitter_factor={factor!r} is not a number of at least 0")


def delay_before(
    retry: int, delay: float | Sequence[float], jitter_factor: float | None = None
) -> float:
    """Return the seconds to wait before a retry.

    Args:
        retry: 1 for the first.
        delay: The same for each, or one for each; the last serves for those that follow.
        jitter_factor: Stretch the delay by up to this share of it, so that runs which failed
            together do not come back together; 1.0 can double it. None is as it stands.
    """
    if isinstance(delay, Sequence):
        seconds = float(delay[min(retry, len(delay)) - 1]) if delay else 0.0
    else:
        seconds = float(delay)
    if jitter_factor:
        seconds *= 1 + jitter_factor * random.random()  # noqa: S311 - not for secrets
    return seconds
