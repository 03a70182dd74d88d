"""A clock that the tests turn: all of prefectlite takes the time from ``prefectlite.clock``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from unittest.mock import patch

from prefectlite import clock


class FakeClock:
    """What stands for ``datetime`` in ``prefectlite.clock`` while it is used with ``with``.

    Attributes:
        moment: The present time; it stays until somebody changes it.
    """

    def __init__(self) -> None:
        self.restart()
        self._patch = patch.object(clock, "datetime", self)

    def restart(self) -> None:
        """Begin anew, so that each example has the times that it had the last time."""
        self.moment = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)

    def now(self, zone: tzinfo) -> datetime:
        """Return the present time, as ``datetime.now`` does."""
        return self.moment.astimezone(zone)

    def monotonic(self) -> float:
        """Return the seconds of a clock that never steps back, as ``clock.monotonic`` does."""
        return self.moment.timestamp()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.moment += timedelta(seconds=seconds)

    def start(self) -> None:
        """Let prefectlite take the time from here."""
        self._patch.start()

    def stop(self) -> None:
        """Let prefectlite have the true time again."""
        self._patch.stop()
