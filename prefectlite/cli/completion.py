"""Have your shell complete commands, options, and the names of what is on record.

``prefectlite completion``. It writes one file for a shell, and never the files that a shell reads at its
start: what has to stand in these, it says.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from prefectlite import console
from prefectlite.commands import Argument
from prefectlite.completion_scripts import FILE_NAMES, Shell, script
from prefectlite.errors import OutputError, SettingError, UsageError
from prefectlite.output_files import write_file
from prefectlite.settings import variable

_ShellArgument = Annotated[
    Shell | None,
    Argument("The shell; that of SHELL, or the one that asks, if not given.", metavar="SHELL"),
]
# Where bash-completion is, by its version and the system: what loads files by the names of commands.
_BASH_COMPLETION = (
    "/usr/share/bash-completion/bash_completion",
    "/usr/local/share/bash-completion/bash_completion",
    "/opt/homebrew/etc/profile.d/bash_completion.sh",
    "/usr/local/etc/profile.d/bash_completion.sh",
    "/opt/local/share/bash-completion/bash_completion",
)


def show(shell: _ShellArgument = None) -> None:
    """Print the script by which a shell completes commands.

    Examples:
        prefectlite completion show bash
        prefectlite completion show fish
    """
    console.out(script(shell or _own_shell()).removesuffix("\n"))


def install(shell: _ShellArgument = None) -> None:
    """Write the script where a shell looks for it, for this user alone.

    It is safe to do again, as after an upgrade. No other file is changed; what a shell needs beside it
    is said. A new shell then completes.

    Examples:
        prefectlite completion install bash
        prefectlite completion install zsh
    """
    shell = shell or _own_shell()
    path = _place(shell)
    is_new = _write(path, script(shell))
    place = console.escaped(str(path))
    console.say(f"{'Wrote' if is_new else 'Up to date:'} {place}")
    if shell is Shell.BASH and not any(Path(file).exists() for file in _BASH_COMPLETION):
        console.say(
            "bash reads it by itself where the package bash-completion is installed; else add this"
            f" line to ~/.bashrc:\n\n    . {console.escaped(_word(path))}\n"
        )
    if shell is Shell.ZSH and not _is_in_zshrc(path.parent):
        folder = console.escaped(_word(path.parent))
        console.say(
            "zsh finds it once these lines are in .zshrc, before any other line that calls compinit:"
            f"\n\n    fpath=({folder} $fpath)\n    autoload -Uz compinit && compinit\n"
        )
    console.say(f"Start a new {shell} to have it.")


def _own_shell() -> Shell:
    """Return the person's shell.

    Raises:
        UsageError: Nothing says which it is.
    """
    for name in (variable("SHELL") or "", _parent_program()):
        with suppress(ValueError):
            return Shell(Path(name).name.removeprefix("-"))
    raise UsageError(
        "which shell?", hint=f"say one of: {', '.join(Shell)}; see: prefectlite completion -h"
    )


def _parent_program() -> str:
    try:
        return Path(f"/proc/{os.getppid()}/comm").read_text("utf-8", "replace").strip()
    except OSError:  # no such file system here
        return ""


def _place(shell: Shell) -> Path:
    """Return the file in which a shell looks for how to complete our command.

    As bash-completion's README, fish's "completions" and, where zsh has no place for a user, what
    others have settled on; by the XDG specification.
    """
    name = FILE_NAMES[shell]
    if shell is Shell.FISH:
        return _folder("XDG_CONFIG_HOME", ".config") / "fish/completions" / name
    data = _folder("XDG_DATA_HOME", ".local/share")
    if shell is Shell.ZSH:
        return data / "zsh/site-functions" / name
    named = (variable("BASH_COMPLETION_USER_DIR") or "").partition(":")[0]
    return (
        (Path(named) if named.startswith("/") else data / "bash-completion") / "completions" / name
    )


def _folder(name: str, below_home: str) -> Path:
    named = variable(name) or ""
    return Path(named) if named.startswith("/") else _home() / below_home


def _home() -> Path:
    try:
        home = Path("~").expanduser()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        raise SettingError(
            "there is no home folder to keep it in",
            hint="print it, and keep it where your shell looks: prefectlite completion show",
        )
    return home


def _write(path: Path, text: str) -> bool:
    """Write a file as one step, unless it is as it should be; return whether it was not.

    Raises:
        OutputError: It cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link into a folder of such files stays one
    try:
        if path.is_file() and path.read_bytes() == text.encode():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, [text])
    except (OSError, OutputError) as error:
        raise OutputError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}",
            hint="print it, and keep it where your shell looks: prefectlite completion show",
        ) from error
    return True


def _is_in_zshrc(folder: Path) -> bool:
    """Return whether the file that zsh reads at its start names a folder."""
    with suppress(SettingError, OSError):
        home = _home()
        lines = Path(variable("ZDOTDIR") or home, ".zshrc").read_text("utf-8", "replace")
        names = {str(folder)}
        if folder.is_relative_to(home):
            below = folder.relative_to(home)
            names |= {f"~/{below}", f"$HOME/{below}", f"${{HOME}}/{below}"}
        return any(name in lines for name in names)
    return False


def _word(path: Path) -> str:
    """Return a path as a shell takes it."""
    from shlex import quote

    return quote(str(path))


COMMANDS = (install, show)
