"""Show settings and where they come from, and change those of a profile.

``prefectlite config``. The profile is the one that is active, or that ``--profile`` names. These
commands also work where a setting is wrong or unknown, so that it can be mended with them.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

from prefectlite import console
from prefectlite.commands import Argument, Option
from prefectlite.errors import NotFoundError, SettingError, UsageError
from prefectlite.record_tables import Column, Listing, RecordTable, show_all
from prefectlite.setting_problems import environment_problems, file_problems, key_problems
from prefectlite.setting_sources import (
    DEFAULT_PROFILE,
    ENVIRONMENT,
    Profile,
    Setting,
    changing_profiles,
    find_setting,
    own_profile,
    settings_to_show,
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


class _Viewed(NamedTuple):
    """A setting as it is listed; the value may be hidden."""

    shown: _Shown
    value: object
    profile: Profile

    @property
    def name(self) -> str:
        """The name of the setting."""
        return self.shown.setting.name

    @property
    def source(self) -> str:
        """Where the value comes from, with the name of the profile."""
        is_of_profile = self.shown.source == _PROFILE
        return f"profile {self.profile.name!r}" if is_of_profile else self.shown.source

    def dict(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return {
            "name": self.name,
            "value": self.value,
            "source": self.shown.source,
            "profile": self.profile.name if self.shown.source == _PROFILE else None,
            "description": self.shown.setting.description,
        }


_SETTINGS: RecordTable[_Viewed] = RecordTable(
    columns=(
        Column("name", attrgetter("name")),
        Column("value", attrgetter("value"), lambda viewed: plain_text(viewed.value), is_cut=True),
        Column("source", attrgetter("source"), is_default=False),
        Column(
            "description", attrgetter("shown.setting.description"), is_default=False, is_cut=True
        ),
    ),
    keep=("name", "value"),
    document=_Viewed.dict,
    reference=attrgetter("name"),
)


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
    listing: Listing,
) -> None:
    """Show the settings that the environment or the profile sets, and say which profile that is.

    Columns: name, value, source, description.

    Examples:
        prefectlite config view
        prefectlite config view --show-defaults --show-sources
        prefectlite --profile ci config view --json
    """
    profile = own_profile()
    found = [_shown(setting, profile) for setting in settings_to_show()]
    found = [each for each in found if show_defaults or each.source != _DEFAULT]
    viewed = [
        _Viewed(each, each.value if show_secrets else _masked(each), profile) for each in found
    ]
    if show_sources and listing.columns is None and listing.actual_form() in {"table", "csv"}:
        listing = replace(listing, columns="+source")
    show_all(viewed, _SETTINGS, listing)
    console.note(
        f"the profile is {profile.name!r}" + (f", in {profile.path}" if profile.path else "")
    )
    problems = [*key_problems(profile), *(each.problem for each in found if each.problem)]
    for text in dict.fromkeys(map(str, problems)):
        console.note(text)


def set(  # noqa: A001 - the command's name
    assignments: Annotated[
        list[str],
        Argument(
            "Settings and what they are to be; case does not matter.",
            metavar="KEY=VALUE",
            complete="assignment",
        ),
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
    keys: Annotated[
        list[str], Argument("Settings that the profile has.", metavar="KEY", complete="setting")
    ],
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
    problems = [*file_problems(), *environment_problems()]
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


COMMANDS = (view, set, unset, validate)
