"""Show settings and where they come from, and change those of a profile.

``prefectlite config``. The profile is the one that is active, or that ``--profile`` names. These
commands also work where a setting is wrong or unknown, so that it can be mended with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, NamedTuple

from prefectlite import console
from prefectlite.commands import Argument, Option
from prefectlite.errors import NotFoundError, SettingError, UsageError
from prefectlite.setting_sources import (
    DEFAULT_PROFILE,
    ENVIRONMENT,
    Profile,
    Setting,
    changing_profiles,
    find_setting,
    own_profile,
    profile_setting,
    read_profiles,
    settings_to_show,
    unknown_variables,
)
from prefectlite.setting_values import plain_text

_PROFILE = "profile"
_DEFAULT = "default"


class _Shown(NamedTuple):
    """A setting as it is shown.

    Attributes:
        value: A text, a number, true or false; where it cannot be understood, what there is instead.
        source: ``environment``, ``profile`` or ``default``.
        problem: Why it cannot be understood; None where it can.
    """

    setting: Setting[Any]
    value: object
    source: str
    problem: SettingError | None


def view(
    *,
    show_defaults: Annotated[
        bool, Option("--show-defaults", description="Show also what nothing sets.")
    ] = False,
    show_sources: Annotated[
        bool, Option("--show-sources", description="Show where each value comes from.")
    ] = False,
    show_secrets: Annotated[
        bool, Option("--show-secrets", description="Show passwords and other secrets.")
    ] = False,
    as_json: Annotated[bool, Option("--json", description="Print a JSON list.")] = False,
) -> None:
    """Show the settings that the environment or the profile sets, and say which profile that is.

    Examples:
        prefectlite config view
        prefectlite config view --show-defaults --show-sources
        prefectlite --profile ci config view --json
    """
    profile = own_profile()
    found = [_shown(setting, profile) for setting in settings_to_show()]
    found = [each for each in found if show_defaults or each.source != _DEFAULT]
    values = [each.value if show_secrets else _masked(each) for each in found]
    if as_json:
        console.out_json(
            [
                {
                    "name": each.setting.name,
                    "value": value,
                    "source": each.source,
                    "profile": profile.name if each.source == _PROFILE else None,
                    "description": each.setting.description,
                }
                for each, value in zip(found, values, strict=True)
            ]
        )
    else:
        header = ["NAME", "VALUE", *(["SOURCE"] if show_sources else [])]
        rows = [
            [each.setting.name, plain_text(value), _source_text(each, profile)][: len(header)]
            for each, value in zip(found, values, strict=True)
        ]
        console.out_table(header, rows, cut=["VALUE"])
    console.note(
        f"the profile is {profile.name!r}" + (f", in {profile.path}" if profile.path else "")
    )
    problems = [*_key_problems(profile), *(each.problem for each in found if each.problem)]
    for text in dict.fromkeys(map(str, problems)):
        console.note(text)


def set(  # noqa: A001 - the command's name
    assignments: Annotated[
        list[str],
        Argument("Settings and what they are to be; case does not matter.", metavar="KEY=VALUE"),
    ],
) -> None:
    """Set settings in the profile. Nothing is set unless all of them can be.

    A path begins with / or ~, as it is used in any folder.

    Examples:
        prefectlite config set PREFECTLITE_LOGGING_LEVEL=DEBUG
        prefectlite --profile ci config set prefectlite_home=~/ci prefectlite_debug=true
    """
    wanted = dict(map(_assignment, assignments))
    profile = own_profile()
    with changing_profiles() as profiles:
        values = profiles.settings.setdefault(profile.name, {})
        values.update({setting.name: text for setting, text in wanted.items()})
    for setting, text in wanted.items():
        console.say(f"Set {setting.name} in {console.escaped(profile.origin)}")
        if setting.in_environment():
            console.note(f"{setting.name} is also set in the environment, which comes first")
        if setting.masked(text) != text:
            console.note(
                "a secret in a command can be seen by others while it runs, and later in the"
                f" shell's history; rather write it into {profile.path}"
            )


def unset(
    keys: Annotated[list[str], Argument("Settings that the profile has.", metavar="KEY")],
) -> None:
    """Take settings out of the profile. Nothing is taken out unless all of them can be.

    Examples:
        prefectlite config unset PREFECTLITE_LOGGING_LEVEL
    """
    profile = own_profile()
    with changing_profiles() as profiles:
        values = profiles.settings.get(profile.name, {})
        names = dict.fromkeys(_key(key, values, profile) for key in keys)
        for name in names:
            del values[name]
        if not values and profile.name == DEFAULT_PROFILE:
            profiles.settings.pop(DEFAULT_PROFILE, None)
    for name in names:
        console.say(f"Unset {console.escaped(name)} in {console.escaped(profile.origin)}")


def validate(
    *,
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list of what is wrong.")
    ] = False,
) -> int:
    """Check all profiles, and the environment. The exit code is 2 where something is wrong.

    Examples:
        prefectlite config validate
    """
    problems = [*_file_problems(), *_environment_problems()]
    if as_json:
        console.out_json([{"message": str(each), "hint": each.hint} for each in problems])
    for problem in problems:
        console.error(problem)
    if not problems:
        console.say("All profiles and the environment are right.")
    return SettingError.exit_code if problems else 0


def _shown(setting: Setting[Any], profile: Profile) -> _Shown:
    text = setting.in_environment()
    given = text or profile.values.get(setting.name, "")
    source = ENVIRONMENT if text else _DEFAULT if given == "" else _PROFILE
    try:
        if source == _DEFAULT:
            value = setting.default()
        elif text:
            value = setting.read(text, origin=ENVIRONMENT)
        else:
            value = setting.read_kept(given, origin=profile.origin)
    except SettingError as error:
        return _Shown(setting, None if source == _DEFAULT else str(given), source, error)
    if isinstance(value, Enum):
        value = value.name
    is_plain = value is None or isinstance(value, str | int | float)
    return _Shown(setting, value if is_plain else str(value), source, None)


def _masked(shown: _Shown) -> object:
    return shown.setting.masked(shown.value) if isinstance(shown.value, str) else shown.value


def _source_text(shown: _Shown, profile: Profile) -> str:
    return f"profile {profile.name!r}" if shown.source == _PROFILE else shown.source


def _assignment(text: str) -> tuple[Setting[Any], str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is not of the form KEY=VALUE")
    setting = find_setting(key)
    if not value:
        raise UsageError(
            f"{setting.name} is to be nothing",
            hint=f"to take it out: prefectlite config unset {setting.name}",
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the value of {setting.name} is not UTF-8") from error
    setting.read_kept(value, origin="argument")
    return setting, value


def _key(key: str, values: dict[str, object], profile: Profile) -> str:
    """Return the key of a profile that a person means, which may be one that is no setting."""
    if key in values:
        return key
    name = find_setting(key).name
    if name not in values:
        raise NotFoundError(
            f"{name} is not set in {profile.origin}", hint="see: prefectlite config view"
        )
    return name


def _file_problems() -> Iterator[SettingError]:
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
        yield from _key_problems(profile)
        yield from _value_problems(profile)


def _key_problems(profile: Profile) -> Iterator[SettingError]:
    for key in profile.values:
        try:
            profile_setting(key, origin=profile.origin)
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


def _environment_problems() -> Iterator[SettingError]:
    yield from unknown_variables()
    for setting in settings_to_show():
        text = setting.in_environment()
        if text:
            try:
                setting.read(text, origin=ENVIRONMENT)
            except SettingError as error:
                yield error


COMMANDS = (view, set, unset, validate)
