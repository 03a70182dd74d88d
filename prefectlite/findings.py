"""What a check of ``doctor`` finds out: whether something is as it should be, and else how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How something is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        message: One line.
        fix: What to do, one line; None where nothing needs to be done.
    """

    status: Status
    message: str
    fix: str | None = None


def ok(message: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(Status.OK, message)


def warning(message: str, fix: str) -> Finding:
    """Return that something may do harm, or does a little."""
    return Finding(Status.WARNING, message, fix)


def error(message: str, fix: str) -> Finding:
    """Return that something does not work."""
    return Finding(Status.ERROR, message, fix)


def skipped(message: str) -> Finding:
    """Return why something was not looked at."""
    return Finding(Status.SKIPPED, message)
