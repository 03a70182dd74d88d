"""Settings: which there are, and what this process has for what it starts.

A setting has a ``value()``; ``setting_sources`` says where that comes from. Only these two modules read
the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prefectlite import plugins, setting_values
from prefectlite.errors import SettingError
from prefectlite.setting_sources import (
    PREFECTLITE_PROFILE,
    Reach,
    Setting,
    own_profile,
    user_folder,
)


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with changes, for one that it starts.

    That one has the profile of this process, whichever becomes the active one meanwhile.
    """
    return {**os.environ, PREFECTLITE_PROFILE.name: own_profile().name, **changes}


def variable(name: str) -> str | None:
    """Return what the environment has by a name that is no setting's; None where it has nothing."""
    return os.environ.get(name)


def add_run_token(token: str) -> None:
    """Mark what this process starts from now on as descending from it, and give it its profile."""
    os.environ[PREFECTLITE_PROFILE.name] = own_profile().name
    found = PREFECTLITE_RUN_TOKEN.value()
    os.environ[PREFECTLITE_RUN_TOKEN.name] = f"{found}:{token}" if found else token


def _default_home() -> Path:
    folder = user_folder("XDG_DATA_HOME", ".local/share", "user_data_dir")
    if folder is None:
        raise SettingError(
            "there is no home folder to keep the registry in", hint="set PREFECTLITE_HOME"
        )
    return folder


PREFECTLITE_HOME = Setting(
    "PREFECTLITE_HOME",
    "The folder of the registry and of stored results.",
    parse=setting_values.path,
    default=_default_home,
)


def _registry_url(text: str) -> str:
    scheme, separator, _ = text.partition(":")
    if not separator:
        raise ValueError("expected a URL, such as sqlite:////home/me/registry.db")
    if not plugins.exists("registry", scheme):
        known = ", ".join(plugins.names("registry"))
        raise ValueError(f"there is no registry called {scheme!r}; there are: {known}")
    return text


def _default_registry() -> str:
    return f"sqlite:///{PREFECTLITE_HOME.value() / 'registry.db'}"


PREFECTLITE_REGISTRY = Setting(
    "PREFECTLITE_REGISTRY",
    "The registry's address, such as sqlite:////home/me/registry.db.",
    parse=_registry_url,
    default=_default_registry,
)
PREFECTLITE_ALLOW_NETWORK_FILESYSTEM = Setting(
    "PREFECTLITE_ALLOW_NETWORK_FILESYSTEM",
    "Keep the registry on a filesystem that is not known to be safe for it; data can be lost.",
    parse=setting_values.yes_or_no,
    default=lambda: False,
)
PREFECTLITE_REGISTRY_LOCK_SECONDS = Setting(
    "PREFECTLITE_REGISTRY_LOCK_SECONDS",
    "How long a write waits for another process that is writing to the registry.",
    parse=setting_values.seconds,
    default=lambda: 30.0,
)
PREFECTLITE_LOGGING_LEVEL = Setting(
    "PREFECTLITE_LOGGING_LEVEL",
    "The least level that is shown and recorded: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
    parse=setting_values.level,
    default=lambda: setting_values.Level.INFO,
)
PREFECTLITE_LOGGING_LOG_PRINTS = Setting(
    "PREFECTLITE_LOGGING_LOG_PRINTS",
    "Whether print is a log record of the run, where neither task nor flow says so.",
    parse=setting_values.yes_or_no,
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
    parse=setting_values.yes_or_no,
    default=lambda: False,
)
PREFECTLITE_RUN_TOKEN = Setting(
    "PREFECTLITE_RUN_TOKEN",
    "The tokens of the processes that this one descends from, outermost first, with colons between;"
    " set by prefectlite.",
    parse=str,
    default=str,
    reach=Reach.INTERNAL,
)
PREFECTLITE_FLOW_RUN_ID = Setting(
    "PREFECTLITE_FLOW_RUN_ID",
    "The flow run that a process was started for; set by prefectlite.",
    parse=str,
    default=str,
    reach=Reach.INTERNAL,
)
PREFECTLITE_RUN_FOLDER = Setting(
    "_PREFECTLITE_RUN_FOLDER",
    "The folder in which a supervisor and its run leave word for each other; set by prefectlite.",
    parse=str,
    default=str,
    reach=Reach.INTERNAL,
)
PREFECTLITE_FLOW_TIMEOUT: Setting[float | None] = Setting(
    "_PREFECTLITE_FLOW_TIMEOUT",
    "What a flow run may take, instead of its flow's own timeout; 0 is for any time. Set by prefectlite.",
    parse=float,
    default=lambda: None,
    reach=Reach.INTERNAL,
)
SYSTEMD_EXEC_PID = Setting(
    "SYSTEMD_EXEC_PID",
    "The PID of a service's main process; set by systemd (systemd.exec(5)).",
    parse=str,
    default=str,
    reach=Reach.INTERNAL,
)
NO_COLOR = Setting(
    "NO_COLOR",
    "Any value turns colour off (no-color.org).",
    parse=bool,
    default=lambda: False,
    reach=Reach.ENVIRONMENT,
)
TERM = Setting(
    "TERM",
    "The terminal's type; 'dumb' has no colour.",
    parse=str,
    default=str,
    reach=Reach.INTERNAL,
)
GITHUB_ACTIONS = Setting(
    "GITHUB_ACTIONS",
    "'true' in a step of GitHub Actions; set by its runner.",
    parse=lambda text: text == "true",
    default=lambda: False,
    reach=Reach.INTERNAL,
)
GITHUB_STEP_SUMMARY = Setting(
    "GITHUB_STEP_SUMMARY",
    "The file that a step of GitHub Actions appends its summary to; set by its runner.",
    parse=str,
    default=str,
    reach=Reach.INTERNAL,
)
GITHUB_WORKSPACE = Setting(
    "GITHUB_WORKSPACE",
    "The folder that GitHub Actions has checked the code out to; set by its runner.",
    parse=str,
    default=str,
    reach=Reach.INTERNAL,
)

PREFECT_HOME = PREFECTLITE_HOME
PREFECT_LOGGING_LEVEL = PREFECTLITE_LOGGING_LEVEL
PREFECT_LOGGING_LOG_PRINTS = PREFECTLITE_LOGGING_LOG_PRINTS
PREFECT_UI_URL = PREFECTLITE_UI_URL
