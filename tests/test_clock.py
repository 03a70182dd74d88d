"""Time: aware, exact to the microsecond, and as a person writes it."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from prefectlite.clock import (
    EPOCH,
    duration_from_text,
    duration_text,
    from_microseconds,
    moment_from_text,
    monotonic,
    now,
    past_from_text,
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
        (0, "0ms"),
        (0.0001, "0ms"),
        (0.0042, "4ms"),
        (0.0994, "99ms"),
        (0.0996, "0.1s"),
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


@pytest.fixture
def _in_india(monkeypatch):
    """A local time that is 5 hours and 30 minutes ahead of UTC."""
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_india")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-02-29", datetime(2024, 2, 28, 18, 30, tzinfo=UTC)),
        ("2024-02-29T21:31", datetime(2024, 2, 29, 16, 1, tzinfo=UTC)),
        ("2024-02-29 21:31:37.5", datetime(2024, 2, 29, 16, 1, 37, 500_000, UTC)),
        ("2024-02-29T21:31+01:00", datetime(2024, 2, 29, 20, 31, tzinfo=UTC)),
        ("2024-02-29T21:31Z", datetime(2024, 2, 29, 21, 31, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_a_person_writes_it_in_the_local_zone(text, expected):
    for read in (moment_from_text, past_from_text):
        assert read(text) == expected
        assert read(text).utcoffset() == timedelta(0)


def test_a_time_may_be_now_or_how_long_ago():
    before = now()
    assert before <= moment_from_text("now") <= past_from_text("now") <= now()
    assert past_from_text("2h30m") - (before - timedelta(hours=2.5)) < timedelta(minutes=1)
    assert past_from_text("0s") >= before


@pytest.mark.parametrize(
    "text", ["", " ", "x", "90", "tomorrow", "2023-02-29", "9999-12-31T23:59-10:00", "2h ago"]
)
def test_what_is_no_time_is_refused(text):
    for read in (moment_from_text, past_from_text):
        with pytest.raises(ValueError, match="is no time"):
            read(text)


def test_a_time_before_the_first_year_is_refused():
    with pytest.raises(ValueError, match="before the first year"):
        past_from_text("999999d")


def test_a_time_to_come_is_not_said_by_a_duration():
    with pytest.raises(ValueError, match="is no time"):
        moment_from_text("2h")
