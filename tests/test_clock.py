"""Time: aware, exact to the microsecond, and as a person writes it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from prefectlite.clock import (
    EPOCH,
    duration_from_text,
    duration_text,
    from_microseconds,
    monotonic,
    now,
    to_microseconds,
)


def test_now_is_aware_and_in_utc():
    assert now().tzinfo is UTC


def test_the_monotonic_clock_never_steps_back():
    readings = [monotonic() for _ in range(100)]
    assert readings == sorted(readings)


@given(some.datetimes(timezones=some.just(UTC)))
def test_a_moment_survives_as_microseconds(moment):
    assert from_microseconds(to_microseconds(moment)) == moment


def test_microseconds_count_from_the_epoch_in_any_time_zone():
    assert to_microseconds(EPOCH) == 0
    east = timezone(timedelta(hours=2))
    assert to_microseconds(datetime(1970, 1, 1, 2, 0, 0, 1, east)) == 1
    assert to_microseconds(datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)) == -1


def test_a_naive_time_is_refused():
    with pytest.raises(TypeError):
        to_microseconds(datetime(2024, 1, 1))  # noqa: DTZ001 - the fault


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (0.24, "0.2s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (45, "45s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (192, "3m12s"),
        (3599.6, "1h00m"),
        (7530, "2h05m"),
        (86_399.9, "1d00h"),
        (200_000, "2d07h"),
    ],
)
def test_a_duration_reads_as_a_person_writes_it(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5", 1.5),
        ("45s", 45),
        ("3m12s", 192),
        ("1.5h", 5400),
        ("1d2h3m4s", 93_784),
        ("2h05m", 7500),
    ],
)
def test_a_duration_is_read_as_a_person_writes_it(text, seconds):
    assert duration_from_text(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "x", "h", "-5", "1e5", "1..5s", "1m2h", "1h30", "5 s", "nan", "inf", "\u0661"]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="no duration"):
        duration_from_text(text)
