"""What is wrong with the settings of a person: in the file of profiles, and in the environment.

``config validate`` and ``doctor`` show it. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefectlite.errors import SettingError
from prefectlite.setting_sources import (
    ENVIRONMENT,
    Profile,
    own_profile,
    profile_setting,
    read_profiles,
    settings_to_show,
    unknown_variables,
)


def file_problems() -> Iterator[SettingError]:
    """Yield what is wrong in the file of profiles."""
    try:
        path = own_profile().path
    except SettingError as error:  # of the file, or of the name of the profile
        yield error
    else:
        if path is None:
            return
    try:
        profiles = read_profiles()
    except SettingError:
        return
    for key in profiles.others:
        yield SettingError(
            f"{profiles.path}: there is no key {key!r}",
            hint="a setting stands below the name of a profile: [profiles.NAME]",
        )
    for name, values in profiles.settings.items():
        profile = Profile(name, profiles.path, values)
        yield from key_problems(profile)
        yield from _value_problems(profile)


def key_problems(profile: Profile) -> Iterator[SettingError]:
    """Yield which keys of a profile are no settings, or none for a profile."""
    for key in profile.values:
        try:
            profile_setting(key, origin=profile.origin)
        except SettingError as error:
            yield error


def environment_problems() -> Iterator[SettingError]:
    """Yield what is wrong with the settings that the environment has."""
    yield from unknown_variables()
    for setting in settings_to_show():
        text = setting.in_environment()
        if text:
            try:
                setting.read(text, origin=ENVIRONMENT)
            except SettingError as error:
                yield error


def _value_problems(profile: Profile) -> Iterator[SettingError]:
    for setting in settings_to_show():
        given = profile.values.get(setting.name, "")
        if given != "":
            try:
                setting.read_kept(given, origin=profile.origin)
            except SettingError as error:
                yield error
