"""Create profiles, which are named sets of settings, and say which one is used.

``prefectlite profile``. What is in one is changed by ``prefectlite config``.
"""

from __future__ import annotations

import re
from operator import attrgetter
from typing import Annotated, NamedTuple

from prefectlite import console
from prefectlite.commands import Argument, Option
from prefectlite.errors import ConflictError, NotFoundError, UsageError
from prefectlite.names import near_names
from prefectlite.profiles import Profiles
from prefectlite.record_tables import Column, Listing, RecordTable, show_all
from prefectlite.setting_sources import (
    DEFAULT_PROFILE,
    PREFECTLITE_PROFILE,
    changing_profiles,
    masked_entry,
    read_profiles,
)
from prefectlite.setting_values import plain_text

# What TOML takes for a key without quotes, and no command for an option.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", re.ASCII)
_ACTIVE = "*"

_Json = Annotated[bool, Option("--json", description="Print JSON.")]
_Name = Annotated[str, Argument("The profile's name.", metavar="NAME", complete="profile")]


class _Listed(NamedTuple):
    """A profile as it is listed."""

    name: str
    is_active: bool
    setting_count: int

    def dict(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return self._asdict()


_PROFILES: RecordTable[_Listed] = RecordTable(
    columns=(
        Column("name", attrgetter("name"), is_cut=True),
        Column("active", attrgetter("is_active"), lambda one: _ACTIVE if one.is_active else ""),
        Column("settings", lambda one: one.setting_count),
    ),
    keep=("name", "active"),
    document=_Listed.dict,
    reference=attrgetter("name"),
)


def ls(listing: Listing) -> None:
    """List profiles; the active one has a star.

    Columns: name, active, settings.

    Examples:
        prefectlite profile ls
        prefectlite profile ls --json
    """
    profiles = read_profiles()
    active = _active(profiles)
    names = [*profiles.settings]
    if active == DEFAULT_PROFILE and active not in names:
        names.insert(0, active)
    elif active not in names:
        console.note(f"the active profile {active!r} is not there")
    listed = [_Listed(name, name == active, len(profiles.settings.get(name, ()))) for name in names]
    show_all(listed, _PROFILES, listing)


def create(
    name: _Name,
    *,
    source: Annotated[
        str | None,
        Option(
            "--from",
            description="Begin with the settings of this profile.",
            metavar="NAME",
            complete="profile",
        ),
    ] = None,
) -> None:
    """Create a profile.

    Examples:
        prefectlite profile create ci
        prefectlite profile create ci-debug --from ci
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a profile",
            hint="a name has letters, digits, _ and -, and does not begin with -",
        )
    with changing_profiles() as profiles:
        if name in profiles.settings:
            raise ConflictError(
                f"there is a profile {name!r} already",
                hint=f"to change it: prefectlite --profile {name} config set KEY=VALUE",
            )
        profiles.settings[name] = {} if source is None else {**_settings(profiles, source)}
    console.say(f"Created profile '{name}' in {console.escaped(str(profiles.path))}")
    console.say(f"Use it with: prefectlite profile use {name}")


def use(name: _Name) -> None:
    """Make a profile the active one.

    A process that runs keeps the profile that it began with: restart an agent to have it use another.

    Examples:
        prefectlite profile use ci
        prefectlite profile use default
    """
    with changing_profiles() as profiles:
        if name != DEFAULT_PROFILE:
            _settings(profiles, name)
        profiles.active = name
    console.say(f"Profile '{console.escaped(name)}' is active.")
    asked = PREFECTLITE_PROFILE.value()
    if asked and asked != name:
        console.note(f"PREFECTLITE_PROFILE={asked} is set in the environment, and comes first")


def inspect(
    name: Annotated[
        str | None,
        Argument(
            "The profile's name; the active one if not given.", metavar="NAME", complete="profile"
        ),
    ] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Show a profile and its settings, without secrets.

    Examples:
        prefectlite profile inspect
        prefectlite profile inspect ci --json
    """
    profiles = read_profiles()
    active = _active(profiles)
    name = active if name is None else name
    kept = {} if name == DEFAULT_PROFILE else _settings(profiles, name)
    values = {
        key: masked_entry(key, value) for key, value in profiles.settings.get(name, kept).items()
    }
    if as_json:
        console.out_json(
            {
                "name": name,
                "is_active": name == active,
                "path": str(profiles.path),
                "settings": values,
            }
        )
        return
    console.out_fields(
        {
            "Profile": name,
            "Active": "yes" if name == active else "no",
            "File": str(profiles.path),
        }
    )
    if values:
        console.out()
        rows = [[key, plain_text(value)] for key, value in values.items()]
        console.out_table(["NAME", "VALUE"], rows, cut=["VALUE"])


def delete(
    names: Annotated[list[str], Argument("Profiles' names.", metavar="NAME", complete="profile")],
) -> None:
    """Delete profiles with their settings. Nothing is deleted unless all of them can be.

    Examples:
        prefectlite profile delete ci
    """
    with changing_profiles() as profiles:
        for name in names:
            _settings(profiles, name)
            if name in {_active(profiles), profiles.active}:
                raise ConflictError(
                    f"the profile {name!r} is the active one",
                    hint="use another first: prefectlite profile use NAME",
                )
        for name in dict.fromkeys(names):
            del profiles.settings[name]
    for name in dict.fromkeys(names):
        console.say(f"Deleted profile '{console.escaped(name)}'")


def _active(profiles: Profiles) -> str:
    return PREFECTLITE_PROFILE.value() or profiles.active or DEFAULT_PROFILE


def _settings(profiles: Profiles, name: str) -> dict[str, object]:
    """Return the settings of a profile.

    Raises:
        NotFoundError: There is none of this name.
    """
    if name not in profiles.settings:
        near = near_names(name, profiles.settings)
        raise NotFoundError(
            f"there is no profile {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else "see: prefectlite profile ls",
        )
    return profiles.settings[name]


COMMANDS = (ls, create, use, inspect, delete)
