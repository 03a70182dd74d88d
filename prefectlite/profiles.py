"""The file of profiles, which are named sets of settings: its form, and how it is read and changed.

A TOML file, which a person may write too::

    active = "ci"

    [profiles.ci]
    PREFECTLITE_LOGGING_LEVEL = "DEBUG"

``settings`` reads it, at most once in a process, and the commands that show and change profiles do.
What a setting may be is not known here. It must never be imported where there is no such file: to
read TOML takes a moment that a command without a profile has no use for.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prefectlite.errors import OutputError, RegistryLockTimeoutError, SettingError
from prefectlite.locks import WriteGate

# A change takes milliseconds; who holds the lock for longer is stopped.
_LOCK_SECONDS = 10.0
# More than any person writes; of a device such as /dev/zero there is no end.
_MOST_BYTES = 1_000_000
_HEAD = """\
# Settings of prefectlite, by profile. To show and change them: prefectlite config, prefectlite profile.
# Comments other than this one are lost when these commands change the file.

"""
_ELSEWHERE = "or set PREFECTLITE_PROFILES_PATH to another file"


class Profiles:
    """What stands in the file.

    Attributes:
        path: The file; it need not exist.
        active: The name of the profile that counts where none is asked for; None where nothing says.
        settings: The settings of each profile, by its name; values are what TOML made of them.
        others: Keys that mean nothing here, and are kept when the file is written.
    """

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self.others = {**document}
        self.active: str | None = self.others.pop("active", None)
        self.settings: dict[str, dict[str, object]] = self.others.pop("profiles", {})
        if not isinstance(self.active, str | None):
            raise self._malformed("'active' must be the name of a profile, in quotes")
        if not isinstance(self.settings, dict):
            raise self._malformed("'profiles' must be a table")
        for name, values in self.settings.items():
            if not isinstance(values, dict):
                raise self._malformed(f"{name!r} must be a table: [profiles.{name}]")

    def text(self) -> str:
        """Return the text of the file."""
        import tomli_w

        active = {} if self.active is None else {"active": self.active}
        return _HEAD + tomli_w.dumps({**active, **self.others, "profiles": self.settings})

    def _malformed(self, what: str) -> SettingError:
        return SettingError(f"{self.path}: {what}", hint=f"mend it by hand, {_ELSEWHERE}")


def read(path: Path) -> Profiles:
    """Return what stands in the file; nothing where there is none.

    Raises:
        SettingError: It cannot be read, or is no file of profiles; the error names the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        content = b""
    except OSError as error:
        raise SettingError(
            f"the profiles in {path} cannot be read: {error.strerror or error}",
            hint=f"make it a file that you can read, {_ELSEWHERE}",
        ) from error
    try:
        return Profiles(path, _document(content))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reason = f"it is not UTF-8 (at line {line})"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise SettingError(
        f"the profiles in {path} cannot be understood: {reason}",
        hint=f"mend it by hand, {_ELSEWHERE}",
    )


def _document(content: bytes) -> dict[str, Any]:
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES} bytes")
    return tomllib.loads(content.decode())


@contextmanager
def changing(path: Path) -> Iterator[Profiles]:
    """Read the file, and write it with what the block makes of it, as one step.

    Two processes that change it at once wait for each other, and who reads it meanwhile sees it as it
    was or as it will be. It becomes readable for its owner alone. Where the block raises, nothing is
    written.

    Raises:
        SettingError: As ``read``.
        OutputError: It cannot be written.
    """
    # A link, into a folder where a person keeps such files, stays one.
    path = Path(os.path.realpath(path))
    try:
        _check_replaceable(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        gate = WriteGate(path.with_name(f"{path.name}.lock"), timeout_seconds=_LOCK_SECONDS)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        try:
            gate.enter()
        except RegistryLockTimeoutError as error:
            raise OutputError(
                f"{path} is being changed by another process", hint=error.hint
            ) from error
        profiles = read(path)
        yield profiles
        _write(path, profiles.text())
    finally:
        gate.close()


def _check_replaceable(path: Path) -> None:
    if path.exists() and not path.is_file():  # /dev/null, say
        raise OSError("it is not a file")


def _write(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)  # of a process that was killed; nobody else is here
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor, for its mode
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the profiles cannot be written to {path}: {error.strerror or error}",
        hint="set PREFECTLITE_PROFILES_PATH to a file in a folder that you can write to",
    )
