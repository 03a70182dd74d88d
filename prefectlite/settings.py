"""Settings, and the only reader of the environment.

A setting is an object with a ``value()``: the environment's, else the default. Each is read when it
is asked for, so that a test or a parent process can change it; nothing here caches or writes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from prefectlite.errors import SettingError

T = TypeVar("T")

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_YES_NO = {"1": True, "true": True, "yes": True, "on": True}
_YES_NO |= {"0": False, "false": False, "no": False, "off": False}
# The longest wait that a setting can ask for; no clock or lock overflows at it.
_YEAR_SECONDS = 366 * 86_400


class Setting(Generic[T]):
    """One setting.

    Attributes:
        name: The name of its environment variable.
        description: What it does, one sentence.
    """

    def __init__(
        self, name: str, description: str, *, parse: Callable[[str], T], default: Callable[[], T]
    ) -> None:
        self.name = name
        self.description = description
        self._parse = parse
        self._default = default

    def value(self) -> T:
        """Return the setting as it is now.

        Raises:
            SettingError: The environment has a value that cannot be understood.
        """
        text = os.environ.get(self.name, "")
        if not text:
            return self._default()
        try:
            return self._parse(text)
        except (ValueError, RuntimeError) as error:  # the second: "~stranger" is nobody's home
            raise SettingError(f"{self.name}={text!r}: {error}") from error

    def forget(self) -> None:
        """Take it out of the environment: what this process starts is not to have it."""
        os.environ.pop(self.name, None)

    def __repr__(self) -> str:
        return f"<{self.name}>"


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with changes, for one that it starts."""
    return {**os.environ, **changes}


def add_run_token(token: str) -> None:
    """Mark what this process starts from now on as descending from it."""
    found = PREFECTLITE_RUN_TOKEN.value()
    os.environ[PREFECTLITE_RUN_TOKEN.name] = f"{found}:{token}" if found else token


def _yes_or_no(text: str) -> bool:
    try:
        return _YES_NO[text.lower()]
    except KeyError:
        raise ValueError("expected true or false") from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= _YEAR_SECONDS:
        raise ValueError("expected a number of seconds, from 0 to a year's")
    return seconds


def _level(text: str) -> int:
    try:
        return _LEVELS[text.upper()]
    except KeyError:
        raise ValueError(f"expected one of {', '.join(_LEVELS)}") from None


def _default_home() -> Path:
    # Without HOME, expanduser asks the password database; a user without an entry there has none.
    data = os.environ.get("XDG_DATA_HOME", "")
    if os.name == "posix" and data.startswith("/"):
        return Path(data) / "prefectlite"
    home = os.environ.get("HOME", "")
    if sys.platform == "linux" and home.startswith("/"):
        return Path(home) / ".local/share/prefectlite"  # without the cost of importing platformdirs
    import platformdirs

    try:
        folder = Path(platformdirs.user_data_dir("prefectlite", appauthor=False))
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():  # what older releases of platformdirs give instead of an error
        raise SettingError(
            "there is no home folder to keep the registry in", hint="set PREFECTLITE_HOME"
        )
    return folder


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


PREFECTLITE_HOME = Setting(
    "PREFECTLITE_HOME",
    "The folder of the registry and of stored results.",
    parse=_path,
    default=_default_home,
)


def _default_registry() -> str:
    return f"sqlite:///{PREFECTLITE_HOME.value() / 'registry.db'}"


PREFECTLITE_REGISTRY = Setting(
    "PREFECTLITE_REGISTRY",
    "The registry's address, such as sqlite:////home/me/registry.db.",
    parse=str,
    default=_default_registry,
)
PREFECTLITE_ALLOW_NETWORK_FILESYSTEM = Setting(
    "PREFECTLITE_ALLOW_NETWORK_FILESYSTEM",
    "Keep the registry on a filesystem that is not known to be safe for it; data can be lost.",
    parse=_yes_or_no,
    default=lambda: False,
)
PREFECTLITE_REGISTRY_LOCK_SECONDS = Setting(
    "PREFECTLITE_REGISTRY_LOCK_SECONDS",
    "How long a write waits for another process that is writing to the registry.",
    parse=_seconds,
    default=lambda: 30.0,
)
PREFECTLITE_LOGGING_LEVEL = Setting(
    "PREFECTLITE_LOGGING_LEVEL",
    "The least level that is shown and recorded: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
    parse=_level,
    default=lambda: _LEVELS["INFO"],
)
PREFECTLITE_LOGGING_LOG_PRINTS = Setting(
    "PREFECTLITE_LOGGING_LOG_PRINTS",
    "Whether print is a log record of the run, where neither task nor flow says so.",
    parse=_yes_or_no,
    default=lambda: False,
)
PREFECTLITE_UI_URL = Setting(
    "PREFECTLITE_UI_URL",
    "The address of the web interface, where there is one.",
    parse=str,
    default=lambda: "",
)
PREFECTLITE_DEBUG = Setting(
    "PREFECTLITE_DEBUG",
    "Whether an error of prefectlite's own comes with its traceback.",
    parse=_yes_or_no,
    default=lambda: False,
)
PREFECTLITE_RUN_TOKEN = Setting(
    "PREFECTLITE_RUN_TOKEN",
    "The tokens of the processes that this one descends from, outermost first, with colons between;"
    " set by prefectlite.",
    parse=str,
    default=str,
)
PREFECTLITE_FLOW_RUN_ID = Setting(
    "PREFECTLITE_FLOW_RUN_ID",
    "The flow run that a process was started for; set by prefectlite.",
    parse=str,
    default=str,
)
PREFECTLITE_RUN_FOLDER = Setting(
    "_PREFECTLITE_RUN_FOLDER",
    "The folder in which a supervisor and its run leave word for each other; set by prefectlite.",
    parse=str,
    default=str,
)
PREFECTLITE_FLOW_TIMEOUT: Setting[float | None] = Setting(
    "_PREFECTLITE_FLOW_TIMEOUT",
    "What a flow run may take, instead of its flow's own timeout; 0 is for any time. Set by prefectlite.",
    parse=float,
    default=lambda: None,
)
PREFECTLITE_COMPLETE = Setting(
    "_PREFECTLITE_COMPLETE",
    "What a shell wants to know to complete a command line; set by its completion script.",
    parse=str,
    default=str,
)
SYSTEMD_EXEC_PID = Setting(
    "SYSTEMD_EXEC_PID",
    "The PID of a service's main process; set by systemd (systemd.exec(5)).",
    parse=str,
    default=str,
)
NO_COLOR = Setting(
    "NO_COLOR",
    "Any value turns colour off (no-color.org).",
    parse=bool,
    default=lambda: False,
)
TERM = Setting("TERM", "The terminal's type; 'dumb' has no colour.", parse=str, default=str)

PREFECT_HOME = PREFECTLITE_HOME
PREFECT_LOGGING_LEVEL = PREFECTLITE_LOGGING_LEVEL
PREFECT_LOGGING_LOG_PRINTS = PREFECTLITE_LOGGING_LOG_PRINTS
PREFECT_UI_URL = PREFECTLITE_UI_URL
