"""Where the value of a setting comes from: the environment, the profile of this process, the default.

``settings`` says which settings there are, and is what programs import. The commands ``config`` and
``profile`` show and change profiles through here. The environment is read whenever a setting is asked
for, so that a test or a parent process can change it; the file of profiles once in a process, when
the first setting is asked for that it may have. Only a change asked for by a person writes anything.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from prefectlite import setting_values
from prefectlite.errors import SettingError
from prefectlite.names import near_names

if TYPE_CHECKING:
    from prefectlite.profiles import Profiles

T = TypeVar("T")

#: The profile that counts where none is named; it need not exist.
DEFAULT_PROFILE = "default"
ENVIRONMENT = "environment"
_OURS = "PREFECTLITE_"
_known: dict[str, Setting[Any]] = {}


class Reach(StrEnum):
    """Where a setting can be set, and who sees it."""

    ANYWHERE = "anywhere"
    #: By a person, but in the environment alone.
    ENVIRONMENT = "environment"
    #: By prefectlite or another program, in the environment; shown nowhere.
    INTERNAL = "internal"


class Setting(Generic[T]):
    """One setting.

    Attributes:
        name: The name of its environment variable, and of its key in a profile.
        description: What it does, one sentence.
        reach: Where it can be set.
    """

    def __init__(
        self,
        name: str,
        description: str,
        *,
        parse: Callable[[str], T],
        default: Callable[[], T],
        reach: Reach = Reach.ANYWHERE,
        is_secret: bool = False,
    ) -> None:
        self.name = name
        self.description = description
        self.reach = reach
        self._parse = parse
        self._default = default
        self._is_secret = is_secret
        _known[name] = self

    def value(self) -> T:
        """Return the setting as it is now.

        Raises:
            SettingError: The environment or the profile has a value that cannot be understood, or the
                profile cannot be read, or has a key that is no setting.
        """
        text = os.environ.get(self.name, "")
        if text:
            return self.read(text, origin=ENVIRONMENT)
        if self.reach is Reach.ANYWHERE:
            profile = checked_profile()
            given = profile.values.get(self.name, "")
            if given != "":
                return self.read_kept(given, origin=profile.origin)
        return self._default()

    def default(self) -> T:
        """Return what it is where nothing sets it."""
        return self._default()

    def in_environment(self) -> str:
        """Return what the environment has for it; empty where that has nothing."""
        return os.environ.get(self.name, "")

    def read(self, text: str, *, origin: str) -> T:
        """Return the value that a text means.

        Args:
            text: As it stands in the environment.
            origin: Where it was found, for the error.

        Raises:
            SettingError: It means nothing.
        """
        try:
            return self._parse(text)
        except (ValueError, RuntimeError) as error:  # the second: "~stranger" is nobody's home
            raise self._misread(text, origin, error) from error

    def read_kept(self, given: object, *, origin: str) -> T:
        """Return the value that is meant by what stands in a profile; as ``read``.

        Args:
            given: What TOML made of it.
            origin: Where it was found, for the error.
        """
        try:
            text = setting_values.kept_text(given)
            value = self.read(text, origin=origin)
            setting_values.check_kept(value, text)
        except ValueError as error:
            raise self._misread(given, origin, error) from error
        return value

    def masked(self, text: str) -> str:
        """Return a text of it without what is secret in that."""
        if self._is_secret and text:
            return setting_values.HIDDEN
        return setting_values.mask_passwords(text)

    def forget(self) -> None:
        """Take it out of the environment: what this process starts is not to have it."""
        os.environ.pop(self.name, None)

    def _misread(self, given: object, origin: str, error: Exception) -> SettingError:
        return SettingError(f"{self.name}={self.masked(str(given))!r} ({origin}): {error}")

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Profile(NamedTuple):
    """A profile as this process has read it.

    Attributes:
        name: Its name.
        path: The file that it stands in, or would; None where there is no folder for one.
        values: What is set, by the names of settings; nothing where the profile does not exist.
    """

    name: str
    path: Path | None
    values: Mapping[str, object]

    @property
    def origin(self) -> str:
        """Where its settings come from, in words."""
        return f"profile {self.name!r} in {self.path}"


@cache
def own_profile() -> Profile:
    """Return the profile of this process, whatever keys it has; it is read once.

    Raises:
        SettingError: The file cannot be read, or has no profile of the name that was asked for.
    """
    path = PREFECTLITE_PROFILES_PATH.value()
    asked = PREFECTLITE_PROFILE.value()
    settings: Mapping[str, Mapping[str, object]] = {}
    if path is not None and _may_exist(path):
        from prefectlite import profiles

        found = profiles.read(path)
        settings, asked = found.settings, asked or found.active or ""
    name = asked or DEFAULT_PROFILE
    if name not in settings and name != DEFAULT_PROFILE:
        near = near_names(name, settings)
        raise SettingError(
            f"there is no profile {name!r}" + (f" in {path}" if path else ""),
            hint=f"did you mean {near[0]!r}?" if near else "see: prefectlite profile ls",
        )
    return Profile(name, path, settings.get(name, {}))


@cache
def checked_profile() -> Profile:
    """Return the profile of this process, which sets nothing but what can be set; as ``own_profile``.

    Raises:
        SettingError: It has a key that is no setting, or none for a profile.
    """
    profile = own_profile()
    for key in profile.values:
        profile_setting(key, origin=profile.origin)
    return profile


def use_profile(name: str) -> None:
    """Have this process, and what it starts, use a profile.

    Raises:
        SettingError: The name is empty.
    """
    if not name:
        raise SettingError("the name of the profile is empty", hint="see: prefectlite profile ls")
    os.environ[PREFECTLITE_PROFILE.name] = name
    forget_profile()


def forget_profile() -> None:
    """Have the profile read again when it is needed next."""
    own_profile.cache_clear()
    checked_profile.cache_clear()


def read_profiles() -> Profiles:
    """Return what stands in the file of profiles, now; see ``profiles.read``."""
    from prefectlite import profiles

    return profiles.read(_profiles_path())


@contextmanager
def changing_profiles() -> Iterator[Profiles]:
    """Change the file of profiles; see ``profiles.changing``."""
    from prefectlite import profiles

    with profiles.changing(_profiles_path()) as found:
        yield found
    forget_profile()


def _profiles_path() -> Path:
    path = PREFECTLITE_PROFILES_PATH.value()
    if path is None:
        raise SettingError(
            "there is no home folder to keep profiles in", hint="set PREFECTLITE_PROFILES_PATH"
        )
    return path


def settings_to_show() -> list[Setting[Any]]:
    """Return the settings that people set, by name."""
    found = [setting for setting in _known.values() if setting.reach is not Reach.INTERNAL]
    return sorted(found, key=lambda setting: setting.name)


def find_setting(key: str) -> Setting[Any]:
    """Return the setting that a person means: in any case, and by Prefect's name for it.

    Raises:
        SettingError: There is none, or it is none for a profile.
    """
    name = key.strip().upper()
    return profile_setting(_OURS + name[8:] if name.startswith("PREFECT_") else name)


def profile_setting(key: str, *, origin: str = "") -> Setting[Any]:
    """Return the setting that a key of a profile names.

    Raises:
        SettingError: There is none of this name, or it is none for a profile.
    """
    setting = _known.get(key)
    if setting is not None and setting.reach is Reach.ANYWHERE:
        return setting
    if setting is None:
        error = _unknown(key)
    elif setting.reach is Reach.ENVIRONMENT:
        error = SettingError(f"{key} is set in the environment alone")
    else:
        error = SettingError(f"{key} is set by programs, not by people")
    if origin:
        hint = f"take it out with: prefectlite config unset {key}"
        if error.hint:
            hint = f"{error.hint}{'' if error.hint.endswith('?') else '.'} Else {hint}"
        error = SettingError(f"{error} ({origin})", hint=hint)
    raise error


def unknown_variables() -> list[SettingError]:
    """Return what is wrong with each variable of the environment that looks like a setting."""
    names = sorted(name for name in os.environ if name.startswith(_OURS) and name not in _known)
    errors = [_unknown(name) for name in names]
    return [SettingError(f"{error} ({ENVIRONMENT})", hint=error.hint) for error in errors]


def _unknown(key: str) -> SettingError:
    # By what tells them apart: nearly all of them begin alike.
    names = {setting.name.removeprefix(_OURS): setting.name for setting in settings_to_show()}
    near = near_names(re.sub("^PREFECT(LITE)?_", "", key.upper()), names)
    return SettingError(
        f"there is no setting {key!r}",
        hint=f"did you mean {names[near[0]]!r}?"
        if near
        else f"there are: {', '.join(names.values())}",
    )


def masked_entry(key: str, given: object) -> str | int | float:
    """Return what stands in a profile as it may be shown, whether or not the key is a setting."""
    if isinstance(given, int | float):
        return given
    text = setting_values.plain_text(given)
    setting = _known.get(key)
    return setting_values.mask_passwords(text) if setting is None else setting.masked(text)


def user_folder(variable: str, below_home: str, kind: str) -> Path | None:
    """Return our folder of some kind, by the XDG specification; None where there is no home.

    Args:
        variable: The one that names the folder of all programs.
        below_home: That folder, where nothing names it.
        kind: The function of platformdirs that knows it on other systems.
    """
    named = os.environ.get(variable, "")
    if os.name == "posix" and named.startswith("/"):
        return Path(named, "prefectlite")
    try:
        if sys.platform == "linux":  # without the cost of importing platformdirs
            home = os.environ.get("HOME") or Path("~").expanduser()
            folder = Path(home, below_home, "prefectlite")
        else:
            import platformdirs

            folder = Path(getattr(platformdirs, kind)("prefectlite", appauthor=False))
    except RuntimeError:
        return None
    # Older releases of platformdirs give "~/..." instead of an error.
    return folder if folder.is_absolute() else None


def _may_exist(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # who reads it says what is wrong
    return True


def _default_profiles_path() -> Path | None:
    folder = user_folder("XDG_CONFIG_HOME", ".config", "user_config_dir")
    return folder and folder / "profiles.toml"


PREFECTLITE_PROFILES_PATH: Setting[Path | None] = Setting(
    "PREFECTLITE_PROFILES_PATH",
    "The file of profiles.",
    parse=setting_values.path,
    default=_default_profiles_path,
    reach=Reach.ENVIRONMENT,
)
PREFECTLITE_PROFILE = Setting(
    "PREFECTLITE_PROFILE",
    "The profile to use, instead of the one that the file of profiles says.",
    parse=str,
    default=str,
    reach=Reach.ENVIRONMENT,
)
