"""The man pages say what the commands declare, and are right for every program that shows them."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from prefectlite import deployment_files, manual_topics, manuals
from prefectlite.command_tree import every_command
from prefectlite.commands import Group
from prefectlite.settings import PREFECTLITE_HOME
from prefectlite.states import STATE_NAMES, StateType

_ROOT = Path(__file__).parents[1]
_FOLDER = _ROOT / "man"
_ANEW = "write them anew: python -m prefectlite.manuals man"


@pytest.fixture(scope="module")
def pages():
    return manuals.pages()


def _plain(text):
    """Return a page as its words, without what is only for roff."""
    text = re.sub(r"\\f[BIR]|\\%|\\&", "", text)
    for escape, character in [(r"\-", "-"), (r"\(aq", "'"), (r"\~", " "), (r"\(dq", '"')]:
        text = text.replace(escape, character)
    return " ".join(text.split())


def _commands(found, words=()):
    if not isinstance(found, Group):
        yield words
        return
    for word, inner in found.items():
        yield from _commands(inner, (*words, word))


def test_the_files_are_what_the_commands_declare_today(pages):
    kept = {str(path.relative_to(_FOLDER)): path for path in _FOLDER.rglob("*.[157]")}
    assert sorted(kept) == sorted(pages), _ANEW
    for place, path in kept.items():
        assert path.read_text(encoding="ascii") == pages[place], f"{place}: {_ANEW}"


def test_every_command_is_on_the_page_of_its_first_word(pages):
    for words in _commands(every_command()):
        page = pages[f"man1/prefectlite-{words[0]}.1"]
        assert f'.SY "prefectlite {" ".join(words)}"'.replace("-", r"\-") in page
        assert f"prefectlite {' '.join(words)}" in _plain(page.partition(".SH EXAMPLES")[2])


def test_the_page_of_the_program_names_every_other_page(pages):
    program = _plain(pages["man1/prefectlite.1"])
    for place in {*pages} - {"man1/prefectlite.1"}:
        name, section = place.partition("/")[2].rsplit(".", 1)
        assert f"{name}({section})" in program


def test_a_page_names_no_page_that_is_not_there(pages):
    for text in pages.values():
        for name, section in re.findall(r"(prefectlite[a-z-]*)\((\d)\)", _plain(text)):
            assert f"man{section}/{name}.{section}" in pages


def test_no_page_says_anything_of_who_made_it(pages, home):
    shown = "".join(pages.values())
    for place in (str(home), str(PREFECTLITE_HOME.value()), str(_ROOT), str(Path.home())):
        assert place not in shown.replace(r"\-", "-")


def test_the_page_of_states_explains_every_one(pages):
    page = pages["man7/prefectlite-states.7"]
    assert {*manual_topics._MEANINGS} == {*STATE_NAMES}
    for type_ in StateType:
        assert f"\n.SS {type_}\n" in page
    for name in STATE_NAMES:
        assert f"\n\\fB{name}\\fR\n" in page


def test_the_page_of_a_deployments_file_explains_every_key():
    assert {*manual_topics._KEYS} == {*deployment_files._KEYS}


def test_the_examples_of_files_are_right(tmp_path, write_profiles, run_command):
    path = tmp_path / "nightly-deployment.toml"
    path.write_text("\n".join(manual_topics._DEPLOYMENT))
    assert deployment_files.read_toml(path)["infrastructure"]["grace_seconds"] == 60
    write_profiles("\n".join(manual_topics._PROFILES))
    assert run_command("config", "validate") == 0


@pytest.fixture
def run_command():
    from prefectlite import cli

    return lambda *words: cli.main(words)


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path, pages):
    old = tmp_path / "man1" / "prefectlite-gone.1"
    old.parent.mkdir()
    old.write_text("")
    other = tmp_path / "man1" / "other.1"
    other.write_text("")
    manuals.main(tmp_path)
    assert not old.exists()
    assert other.exists()
    assert len([*tmp_path.rglob("*.[157]")]) == len(pages) + 1


def test_the_wheel_puts_pages_where_man_finds_them():
    document = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    shared = document["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared["man"] == "share/man"
    for path in (path for path in _FOLDER.rglob("*") if path.is_file()):
        assert path.parent.name == f"man{path.suffix[1:]}"
        assert path.parent.parent == _FOLDER


@pytest.mark.needs("mandoc")
def test_mandoc_finds_nothing_to_say_of_any_page():
    files = sorted(map(str, _FOLDER.rglob("*.[157]")))
    ended = subprocess.run(
        ["mandoc", "-T", "lint", *files], capture_output=True, text=True, check=False
    )
    assert (ended.stdout + ended.stderr, ended.returncode) == ("", 0)


@pytest.mark.needs("groff")
def test_groff_warns_of_nothing_in_any_page():
    files = sorted(map(str, _FOLDER.rglob("*.[157]")))
    ended = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", *files], capture_output=True, text=True, check=False
    )
    assert (ended.stderr, ended.returncode) == ("", 0)
