"""``prefectlite completion``: the scripts, and where they are put."""

import os
import tomllib
from pathlib import Path

import pytest

from prefectlite.cli import completion
from prefectlite.completion_scripts import FILE_NAMES, Shell, script

_ROOT = Path(__file__).parents[2]
_PLACES = {
    Shell.BASH: ".local/share/bash-completion/completions/prefectlite",
    Shell.ZSH: ".local/share/zsh/site-functions/_prefectlite",
    Shell.FISH: ".config/fish/completions/prefectlite.fish",
}


@pytest.fixture(autouse=True)
def person(tmp_path, monkeypatch):
    """A home folder, and a shell that is nobody's."""
    folder = tmp_path / "a person"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in (
        "XDG_DATA_HOME",
        "XDG_CONFIG_HOME",
        "BASH_COMPLETION_USER_DIR",
        "ZDOTDIR",
        "SHELL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(completion, "_parent_program", lambda: "cron")
    return folder


@pytest.mark.parametrize("shell", [*Shell])
def test_show_prints_the_script_and_nothing_else(run, shell):
    ended = run(f"completion show {shell}")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, script(shell), "")


@pytest.mark.parametrize("shell", [*Shell])
def test_install_writes_it_where_the_shell_looks_and_says_where(run, person, shell):
    path = person / _PLACES[shell]
    ended = run(f"completion install {shell}")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert f"Wrote {path}\n" in ended.stderr
    assert path.read_text() == script(shell)
    assert [file for file in person.rglob("*") if file.is_file()] == [path]


def test_to_install_it_again_changes_nothing_and_after_an_upgrade_the_file(run, person):
    path = person / _PLACES[Shell.FISH]
    run("completion install fish")
    before = path.stat()
    assert f"Up to date: {path}" in run("completion install fish").stderr
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    path.write_text("older")
    assert f"Wrote {path}" in run("completion install fish").stderr
    assert path.read_text() == script(Shell.FISH)


def test_the_shell_is_the_persons_where_none_is_named(run, monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert run("completion show").stdout == script(Shell.FISH)
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    monkeypatch.setattr(completion, "_parent_program", lambda: "-zsh")
    assert run("completion show").stdout == script(Shell.ZSH)


def test_a_shell_that_nothing_names_is_asked_for(run):
    ended = run("completion install")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: which shell?\nhint: say one of: bash, zsh, fish")


def test_a_shell_that_there_is_no_script_for_is_a_usage_error_with_the_choices(run):
    ended = run("completion install tcsh")
    assert ended.exit_code == 2
    assert "'tcsh' is none of bash, zsh, fish" in ended.stderr


def test_the_parents_program_is_read_from_the_kernel(monkeypatch):
    monkeypatch.undo()
    assert completion._parent_program() == Path(f"/proc/{os.getppid()}/comm").read_text().strip()


@pytest.mark.parametrize(
    ("variable", "shell", "place"),
    [
        ("XDG_DATA_HOME", Shell.BASH, "bash-completion/completions/prefectlite"),
        ("BASH_COMPLETION_USER_DIR", Shell.BASH, "completions/prefectlite"),
        ("XDG_DATA_HOME", Shell.ZSH, "zsh/site-functions/_prefectlite"),
        ("XDG_CONFIG_HOME", Shell.FISH, "fish/completions/prefectlite.fish"),
    ],
)
def test_a_folder_that_the_environment_names_is_used(
    run, tmp_path, monkeypatch, variable, shell, place
):
    monkeypatch.setenv(variable, str(tmp_path / "named"))
    assert run(f"completion install {shell}").exit_code == 0
    assert (tmp_path / "named" / place).is_file()


def test_a_relative_folder_in_the_environment_is_none(run, person, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    run("completion install fish")
    assert (person / _PLACES[Shell.FISH]).is_file()


def test_zsh_is_told_what_its_file_needs_until_that_stands_there(run, person):
    folder = (person / _PLACES[Shell.ZSH]).parent
    told = run("completion install zsh").stderr
    assert f"    fpath=('{folder}' $fpath)\n    autoload -Uz compinit && compinit\n" in told
    assert not (person / ".zshrc").exists()
    for line in (f"fpath=('{folder}' $fpath)", "fpath+=~/.local/share/zsh/site-functions"):
        (person / ".zshrc").write_text(f"{line}\n")
        assert "fpath" not in run("completion install zsh").stderr
        assert (person / ".zshrc").read_text() == f"{line}\n"


def test_bash_without_its_package_is_told_the_line_to_add(run, person, monkeypatch):
    monkeypatch.setattr(completion, "_BASH_COMPLETION", (str(person / "none"),))
    told = run("completion install bash").stderr
    assert f"\n    . '{person / _PLACES[Shell.BASH]}'\n" in told
    monkeypatch.setattr(completion, "_BASH_COMPLETION", ("/bin/sh",))
    assert ".bashrc" not in run("completion install bash").stderr


def test_a_link_to_a_file_elsewhere_stays_one(run, person, tmp_path):
    path = person / _PLACES[Shell.FISH]
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "dotfile")
    run("completion install fish")
    assert path.is_symlink()
    assert (tmp_path / "dotfile").read_text() == script(Shell.FISH)


def test_a_home_that_cannot_be_written_exits_5_with_a_hint(run, person):
    (person / ".config").write_text("a file, where a folder should be")
    ended = run("completion install fish")
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert ended.stderr.startswith(f"error: {person / _PLACES[Shell.FISH]} cannot be written: ")
    assert "hint: print it" in ended.stderr


def test_no_home_is_an_error_with_a_hint(run, monkeypatch):
    def fail(_):
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "expanduser", fail)
    ended = run("completion install fish")
    assert ended.exit_code == 2
    assert "hint: print it" in ended.stderr


def test_the_wheel_puts_the_scripts_where_systems_look():
    """Each file of ``completions/`` is in the table of pyproject.toml, under the shell's name for it."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    places = {
        Shell.BASH: "share/bash-completion/completions",
        Shell.ZSH: "share/zsh/site-functions",
        Shell.FISH: "share/fish/vendor_completions.d",
    }
    wanted = {f"{place}/{FILE_NAMES[shell]}" for shell, place in places.items()}
    found = {kept: place for kept, place in shared.items() if kept.startswith("completions/")}
    assert {*found.values()} == wanted
    assert {Path(kept).name for kept in found} == {
        file.name for file in (_ROOT / "completions").iterdir()
    }
