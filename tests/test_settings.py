"""Settings: the environment's, else the default; and clear words where it makes no sense."""

import os
import pwd
import sys
from pathlib import Path

import pytest

from prefectlite import settings
from prefectlite.errors import SettingError
from prefectlite.settings import (
    NO_COLOR,
    PREFECTLITE_ALLOW_NETWORK_FILESYSTEM,
    PREFECTLITE_HOME,
    PREFECTLITE_LOGGING_LEVEL,
    PREFECTLITE_LOGGING_LOG_PRINTS,
    PREFECTLITE_REGISTRY,
    PREFECTLITE_REGISTRY_LOCK_SECONDS,
    Setting,
)

ALL = [each for each in vars(settings).values() if isinstance(each, Setting)]


def test_every_setting_has_a_default_and_says_what_it_does(monkeypatch):
    assert len(ALL) >= 8
    for setting in ALL:
        monkeypatch.delenv(setting.name, raising=False)
        setting.value()
        assert setting.description.endswith(".")


def test_a_setting_is_read_when_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "debug")
    assert PREFECTLITE_LOGGING_LEVEL.value() == 10
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "ERROR")
    assert PREFECTLITE_LOGGING_LEVEL.value() == 40
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "")
    assert PREFECTLITE_LOGGING_LEVEL.value() == 20


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("No", False)]
)
def test_yes_and_no_have_many_words(monkeypatch, text, value):
    monkeypatch.setenv("PREFECTLITE_LOGGING_LOG_PRINTS", text)
    assert PREFECTLITE_LOGGING_LOG_PRINTS.value() is value


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (PREFECTLITE_LOGGING_LOG_PRINTS, "perhaps"),
        (PREFECTLITE_ALLOW_NETWORK_FILESYSTEM, "2"),
        (PREFECTLITE_LOGGING_LEVEL, "loud"),
        (PREFECTLITE_REGISTRY_LOCK_SECONDS, "soon"),
        (PREFECTLITE_REGISTRY_LOCK_SECONDS, "-1"),
        (PREFECTLITE_REGISTRY_LOCK_SECONDS, "nan"),
        (PREFECTLITE_REGISTRY_LOCK_SECONDS, "inf"),
        (PREFECTLITE_REGISTRY_LOCK_SECONDS, "1e300"),
        (PREFECTLITE_HOME, "~no-such-user-of-this-machine/x"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_its_variable(monkeypatch, setting, text):
    monkeypatch.setenv(setting.name, text)
    with pytest.raises(SettingError) as caught:
        setting.value()
    assert f"{setting.name}={text!r}" in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_longest_wait_for_the_registry_is_one_that_a_lock_understands(monkeypatch):
    import threading

    monkeypatch.setenv("PREFECTLITE_REGISTRY_LOCK_SECONDS", str(366 * 86_400))
    assert threading.Lock().acquire(timeout=PREFECTLITE_REGISTRY_LOCK_SECONDS.value())


def test_the_home_folder_is_absolute_wherever_the_process_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECTLITE_HOME", "here/x")
    assert PREFECTLITE_HOME.value() == tmp_path / "here" / "x"
    monkeypatch.setenv("PREFECTLITE_HOME", "~/x")
    assert PREFECTLITE_HOME.value() == Path(os.environ["HOME"]) / "x"


def test_the_home_folder_is_below_the_users_data_unless_it_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("PREFECTLITE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert PREFECTLITE_HOME.value() == tmp_path / "data" / "prefectlite"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert PREFECTLITE_HOME.value().is_relative_to(tmp_path / "me")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # which the XDG specification says to ignore
    assert PREFECTLITE_HOME.value().is_relative_to(tmp_path / "me")


@pytest.mark.parametrize("home", [None, "relative"])
def test_without_any_home_folder_the_error_says_what_to_set(monkeypatch, home):
    def nobody(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("PREFECTLITE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(name)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(SettingError) as caught:
        PREFECTLITE_HOME.value()
    assert "PREFECTLITE_HOME" in caught.value.hint


@pytest.mark.parametrize("answer", ["~/Library/Application Support/prefectlite", RuntimeError()])
def test_on_another_system_platformdirs_says_where_home_is(monkeypatch, answer):
    import platformdirs

    def user_data_dir(*_, **__):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platformdirs, "user_data_dir", user_data_dir)
    monkeypatch.delenv("PREFECTLITE_HOME")
    monkeypatch.delenv("XDG_DATA_HOME")
    with pytest.raises(SettingError) as caught:  # as older releases say that there is none
        PREFECTLITE_HOME.value()
    assert "PREFECTLITE_HOME" in caught.value.hint
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda *_, **__: "/Users/me/prefectlite")
    assert PREFECTLITE_HOME.value() == Path("/Users/me/prefectlite")


def test_the_registry_is_a_file_in_the_home_folder_unless_it_is_named(monkeypatch, home):
    assert PREFECTLITE_REGISTRY.value() == f"sqlite:///{home}/registry.db"
    monkeypatch.setenv("PREFECTLITE_REGISTRY", "sqlite:///x")
    assert PREFECTLITE_REGISTRY.value() == "sqlite:///x"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("postgres://u:pw@h/db", "there is no registry called 'postgres'; there are: sqlite"),
        ("migrations:///x", "there is no registry called 'migrations'"),
        ("/home/me/registry.db", "expected a URL, such as sqlite:////"),
    ],
)
def test_an_address_that_no_registry_can_have_is_refused_without_its_password(
    monkeypatch, text, reason
):
    monkeypatch.setenv("PREFECTLITE_REGISTRY", text)
    with pytest.raises(SettingError) as caught:
        PREFECTLITE_REGISTRY.value()
    assert reason in str(caught.value)
    assert ":pw" not in str(caught.value)


def test_the_registry_of_another_distribution_can_be_named(monkeypatch):
    def entry_points(*, group, name):
        return ["one"] if (group, name) == ("prefectlite.registry", "memory") else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    monkeypatch.setenv("PREFECTLITE_REGISTRY", "memory:")
    assert PREFECTLITE_REGISTRY.value() == "memory:"


def test_any_value_of_no_color_turns_it_off(monkeypatch):
    assert NO_COLOR.value() is False
    monkeypatch.setenv("NO_COLOR", "0")
    assert NO_COLOR.value() is True


def test_the_names_of_prefect_are_the_same_objects():
    for name in ("HOME", "LOGGING_LEVEL", "LOGGING_LOG_PRINTS", "UI_URL"):
        ours = getattr(settings, f"PREFECTLITE_{name}")
        assert getattr(settings, f"PREFECT_{name}") is ours
        assert repr(ours) == f"<PREFECTLITE_{name}>"
