"""The file of profiles: what it may say, and that no change of it is lost or half done."""

import os
import socket
import stat
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefectlite import profiles
from prefectlite.errors import OutputError, SettingError
from prefectlite.locks import WriteGate
from prefectlite.profiles import Profiles, changing, read

_IS_ROOT = os.getuid() == 0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config" / "prefectlite" / "profiles.toml"


@pytest.fixture
def written(path):
    def write(content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# Reading.


def test_where_there_is_no_file_there_are_no_profiles(path, tmp_path):
    for place in (path, tmp_path / "file" / "profiles.toml"):
        (tmp_path / "file").write_text("not a folder")
        found = read(place)
        assert (found.path, found.active, found.settings, found.others) == (place, None, {}, {})


def test_profiles_are_read_as_a_person_writes_them(written):
    found = read(
        written(
            """
            active = 'ci' # the one
            profiles."two words".PREFECTLITE_DEBUG = true
            [profiles.ci]
            PREFECTLITE_LOGGING_LEVEL = "DEBUG"
            """
        )
    )
    assert found.active == "ci"
    assert found.settings == {
        "two words": {"PREFECTLITE_DEBUG": True},
        "ci": {"PREFECTLITE_LOGGING_LEVEL": "DEBUG"},
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('active = "ci"\n[profiles.ci]\nA = \n', "line 3"),
        ("[profiles.ci]\nA = 1\nA = 2\n", "line 3"),
        ("[profiles.ci]\n[profiles.ci]\n", "line 2"),
        ("a\0b", "line 1"),
        (b"# \xff\n", "line 1"),
        (b"# fine\n\n# \xff\xfe\n", "line 3"),
        ("A = " + "[" * 100_000, ""),
        ("#" * 2_000_000, "1000000 bytes"),
        ("active = 1", "'active'"),
        ("profiles = 1", "'profiles'"),
        ("[profiles]\nci = 1", "[profiles.ci]"),
        ("[[profiles]]", "'profiles'"),
    ],
    ids=range(12),
)
def test_what_is_no_file_of_profiles_is_an_error_that_says_where(written, content, reason):
    path = written(content)
    with pytest.raises(SettingError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert caught.value.hint == "mend it by hand, or set PREFECTLITE_PROFILES_PATH to another file"
    before = path.read_bytes()
    with pytest.raises(SettingError), changing(path):
        pass
    assert path.read_bytes() == before


def test_what_cannot_be_read_is_an_error_with_a_hint(path):
    path.mkdir(parents=True)
    with pytest.raises(SettingError, match="Is a directory") as caught:
        read(path)
    assert "PREFECTLITE_PROFILES_PATH" in caught.value.hint


@pytest.mark.skipif(_IS_ROOT, reason="root may read everything")
def test_what_may_not_be_read_is_an_error_with_a_hint(written):
    path = written("")
    path.chmod(0)
    with pytest.raises(SettingError, match="Permission denied"):
        read(path)


# Writing.


_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_plain = st.one_of(
    _names, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.dates()
)
_values = st.recursive(
    _plain, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_names, inner, max_size=2)
)


@given(
    st.none() | _names,
    st.dictionaries(_names, st.dictionaries(_names, _values, max_size=3), max_size=3),
    st.dictionaries(_names.filter(lambda n: n not in {"active", "profiles"}), _values, max_size=3),
)
def test_what_is_written_is_read_again_as_it_was(active, settings, others):
    document = {**others, "profiles": settings} | ({} if active is None else {"active": active})
    found = Profiles("anywhere", tomllib.loads(Profiles("anywhere", document).text()))
    assert (found.active, found.settings, found.others) == (active, settings, others)


def test_a_file_is_for_its_owner_alone_and_so_is_a_new_folder(path, written):
    with changing(path) as found:
        found.settings["ci"] = {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    written(path.read_bytes()).chmod(0o644)
    with changing(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {each.name for each in path.parent.iterdir()} == {"profiles.toml", "profiles.toml.lock"}


def test_where_the_change_fails_the_file_stays_as_it_was(written):
    path = written("[profiles.ci]\n")
    with pytest.raises(ZeroDivisionError), changing(path) as found:
        found.settings = {"x": {"y": 1 / 0}}
    assert path.read_text() == "[profiles.ci]\n"
    with changing(path) as found:  # the lock is free again
        found.active = "ci"
    assert read(path).active == "ci"


def test_what_is_not_understood_is_kept(written):
    path = written('future = [1, {a = 2024-02-29}]\n[tool.x]\ny = "z"\n[profiles.ci]\nNEW = [1]\n')
    before = tomllib.loads(path.read_text())
    with changing(path) as found:
        found.settings["other"] = {}
    assert tomllib.loads(path.read_text()) == {
        **before,
        "profiles": {**before["profiles"], "other": {}},
    }


def test_a_link_to_the_file_stays_a_link(tmp_path, path):
    real = tmp_path / "dotfiles" / "profiles.toml"
    real.parent.mkdir()
    path.parent.mkdir(parents=True)
    path.symlink_to(real)
    with changing(path) as found:
        found.active = "ci"
    assert path.is_symlink()
    assert read(real).active == "ci"


def test_what_a_killed_process_left_behind_is_no_obstacle(written):
    path = written("")
    path.with_name("profiles.toml.new").write_text("half a file, which was never")
    with changing(path) as found:
        found.active = "ci"
    assert read(path).active == "ci"
    assert not path.with_name("profiles.toml.new").exists()


@pytest.mark.parametrize("kind", ["a file in place of its folder", "a socket", "a folder"])
def test_what_cannot_be_written_is_an_error_with_a_hint(tmp_path, monkeypatch, kind):
    path = tmp_path / "folder" / "profiles.toml"
    if kind == "a file in place of its folder":
        path.parent.write_text("")
    elif kind == "a folder":
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        monkeypatch.chdir(path.parent)  # the name of a socket must be short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    with pytest.raises(OutputError) as caught, changing(path):
        pass
    assert str(path) in str(caught.value)
    assert "PREFECTLITE_PROFILES_PATH" in caught.value.hint
    assert not path.is_file()


def test_a_full_disk_is_an_error_and_leaves_the_file_as_it_was(written, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    path = written("[profiles.ci]\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"), changing(path) as found:
        found.settings.clear()
    assert path.read_text() == "[profiles.ci]\n"
    assert not path.with_name("profiles.toml.new").exists()


def test_who_holds_the_lock_for_too_long_is_named(path, monkeypatch):
    monkeypatch.setattr(profiles, "_LOCK_SECONDS", 0.05)
    with changing(path):
        pass
    gate = WriteGate(path.with_name("profiles.toml.lock"), timeout_seconds=1)
    gate.enter()
    with (
        pytest.raises(OutputError, match="being changed by another process") as caught,
        changing(path),
    ):
        pass
    assert f"ps -p {os.getpid()}" in caught.value.hint
    gate.close()


# Several at once.


_WRITER = """
import sys
from pathlib import Path
from prefectlite.profiles import changing
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    with changing(Path(sys.argv[1])) as profiles:
        profiles.settings[f"{sys.argv[2]}-{number}"] = {"PREFECTLITE_UI_URL": "x" * 500}
"""


def test_processes_that_change_the_file_at_once_lose_nothing_and_show_nothing_half_done(
    path, start_python
):
    writers = [start_python(_WRITER, path, name) for name in ("a", "b", "c")]
    for writer in writers:
        assert writer.line() == "ready"
    for writer in writers:
        writer.tell()
    seen = 0
    while any(writer.process.poll() is None for writer in writers):
        now = len(read(path).settings)  # a file that is half written would be none, or have less
        assert now >= seen
        seen = now
    for writer in writers:
        writer.end()
    names = {f"{name}-{number}" for name in ("a", "b", "c") for number in range(40)}
    assert {*read(path).settings} == names
