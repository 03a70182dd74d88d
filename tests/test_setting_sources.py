"""Where a setting's value comes from: the environment before the profile before the default."""

import os
import re
import sys

import pytest

from prefectlite import settings
from prefectlite.errors import SettingError
from prefectlite.setting_sources import (
    Reach,
    Setting,
    changing_profiles,
    find_setting,
    forget_profile,
    masked_entry,
    own_profile,
    read_profiles,
    settings_to_show,
    unknown_variables,
    use_profile,
)
from prefectlite.settings import (
    NO_COLOR,
    PREFECTLITE_DEBUG,
    PREFECTLITE_HOME,
    PREFECTLITE_LOGGING_LEVEL,
    PREFECTLITE_REGISTRY,
    PREFECTLITE_REGISTRY_LOCK_SECONDS,
    PREFECTLITE_UI_URL,
    child_environment,
)

_SETTABLE = {setting.name for setting in settings_to_show() if setting.reach is Reach.ANYWHERE}


# Which one counts.


def test_the_environment_comes_before_the_profile_before_the_default(write_profiles, monkeypatch):
    assert PREFECTLITE_LOGGING_LEVEL.value() == 20
    write_profiles('[profiles.default]\nPREFECTLITE_LOGGING_LEVEL = "ERROR"')
    assert PREFECTLITE_LOGGING_LEVEL.value() == 40
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "DEBUG")
    assert PREFECTLITE_LOGGING_LEVEL.value() == 10
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "")
    assert PREFECTLITE_LOGGING_LEVEL.value() == 40


def test_the_profile_is_what_is_asked_for_else_the_active_one_else_default(
    write_profiles, monkeypatch
):
    profiles = "\n".join(f'[profiles.{n}]\nPREFECTLITE_UI_URL = "{n}"' for n in ("a", "default"))
    write_profiles(profiles)
    assert PREFECTLITE_UI_URL.value() == "default"
    write_profiles(f'active = "a"\n{profiles}')
    assert PREFECTLITE_UI_URL.value() == "a"
    monkeypatch.setenv("PREFECTLITE_PROFILE", "default")
    forget_profile()
    assert PREFECTLITE_UI_URL.value() == "default"
    use_profile("a")
    assert PREFECTLITE_UI_URL.value() == "a"
    assert os.environ["PREFECTLITE_PROFILE"] == "a"


def test_the_profile_default_need_not_exist(write_profiles):
    write_profiles("")
    assert own_profile().name == "default"
    write_profiles('active = "default"\n[profiles.other]\nPREFECTLITE_DEBUG = true')
    assert PREFECTLITE_DEBUG.value() is False


@pytest.mark.parametrize("text", ["", '[profiles.staging]\nPREFECTLITE_DEBUG = "1"'])
def test_a_profile_that_is_not_there_is_an_error_that_names_the_file(
    write_profiles, profiles_path, text
):
    write_profiles(text)
    use_profile("stagin")
    with pytest.raises(SettingError, match="there is no profile 'stagin' in") as caught:
        PREFECTLITE_DEBUG.value()
    assert str(profiles_path) in str(caught.value)
    assert caught.value.hint == (
        "did you mean 'staging'?" if text else "see: prefectlite profile ls"
    )


def test_a_profile_has_a_name():
    with pytest.raises(SettingError, match="empty"):
        use_profile("")


def test_the_file_is_where_its_variable_says(profiles_path, tmp_path, monkeypatch):
    assert read_profiles().path == profiles_path
    monkeypatch.setenv("PREFECTLITE_PROFILES_PATH", str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text("[profiles.default]\nPREFECTLITE_DEBUG = true")
    assert PREFECTLITE_DEBUG.value() is True
    monkeypatch.delenv("PREFECTLITE_PROFILES_PATH")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert read_profiles().path == tmp_path / "me" / ".config" / "prefectlite" / "profiles.toml"


def test_where_nobody_is_at_home_there_are_no_profiles(monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "relative")
    assert own_profile().path is None
    assert PREFECTLITE_DEBUG.value() is False
    with pytest.raises(SettingError, match="no home folder") as caught:
        read_profiles()
    assert caught.value.hint == "set PREFECTLITE_PROFILES_PATH"


# What it costs.


def test_without_a_file_nothing_is_imported_to_read_one(start_python):
    program = """
        import sys
        from prefectlite.settings import PREFECTLITE_REGISTRY
        PREFECTLITE_REGISTRY.value()
        print(sorted({"prefectlite.profiles", "tomllib", "platformdirs"} & {*sys.modules}))
    """
    assert start_python(program).line() == "[]"


def test_the_file_is_read_once_in_a_process(write_profiles, profiles_path):
    write_profiles('[profiles.default]\nPREFECTLITE_UI_URL = "first"')
    opened = []
    hook = {"is_on": True}

    def note(event, arguments):
        if hook["is_on"] and event == "open" and str(arguments[0]) == str(profiles_path):
            opened.append(arguments[0])

    sys.addaudithook(note)  # for good: it is only told to be quiet
    for _ in range(10):
        assert PREFECTLITE_UI_URL.value() == "first"
        assert PREFECTLITE_LOGGING_LEVEL.value() == 20
    profiles_path.write_text("broken [")
    assert PREFECTLITE_UI_URL.value() == "first"
    hook["is_on"] = False
    assert len(opened) == 2  # and once by this test, to break it


def test_who_changes_the_file_sees_the_change(write_profiles):
    write_profiles("")
    assert PREFECTLITE_DEBUG.value() is False
    with changing_profiles() as profiles:
        profiles.settings["default"] = {"PREFECTLITE_DEBUG": "true"}
    assert PREFECTLITE_DEBUG.value() is True


# What may stand in a profile.


def test_every_setting_that_a_person_sets_can_stand_in_a_profile():
    names = {
        name
        for name, setting in vars(settings).items()
        if isinstance(setting, Setting) and name.startswith("PREFECTLITE_")
    }
    internal = {"RUN_TOKEN", "FLOW_RUN_ID", "RUN_FOLDER", "FLOW_TIMEOUT", "COMPLETE"}
    apart = {f"PREFECTLITE_{name}" for name in internal | {"PROFILE", "PROFILES_PATH"}}
    assert names - apart == _SETTABLE


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("PREFECTLITE_DEBUG", "true", True),
        ("PREFECTLITE_DEBUG", '"yes"', True),
        ("PREFECTLITE_DEBUG", "0", False),
        ("PREFECTLITE_REGISTRY_LOCK_SECONDS", "2", 2.0),
        ("PREFECTLITE_REGISTRY_LOCK_SECONDS", "0.25", 0.25),
        ("PREFECTLITE_REGISTRY_LOCK_SECONDS", '"1e3"', 1000.0),
        ("PREFECTLITE_LOGGING_LEVEL", '"warning"', 30),
        ("PREFECTLITE_UI_URL", '"http://ü"', "http://ü"),
        ("PREFECTLITE_UI_URL", '""', ""),
        ("PREFECTLITE_REGISTRY", '"sqlite:////rel.db"', "sqlite:////rel.db"),
    ],
)
def test_a_value_may_be_a_text_a_number_true_or_false(write_profiles, key, text, value):
    write_profiles(f"[profiles.default]\n{key} = {text}")
    assert getattr(settings, key).value() == value


@pytest.mark.parametrize(
    ("setting", "text", "reason"),
    [
        (PREFECTLITE_DEBUG, '"perhaps"', "expected true or false"),
        (PREFECTLITE_DEBUG, "2", "expected true or false"),
        (PREFECTLITE_DEBUG, "[true]", "expected a text, a number, true or false"),
        (PREFECTLITE_DEBUG, "{ a = 1 }", "expected a text, a number, true or false"),
        (PREFECTLITE_UI_URL, "2024-02-29", "expected a text, a number, true or false"),
        (PREFECTLITE_UI_URL, r'"\u0000"', "expected a text, a number, true or false"),
        (PREFECTLITE_REGISTRY_LOCK_SECONDS, "-1", "expected a number of seconds"),
        (PREFECTLITE_REGISTRY_LOCK_SECONDS, "nan", "expected a number of seconds"),
        (PREFECTLITE_LOGGING_LEVEL, "20", "expected one of DEBUG"),
        (PREFECTLITE_HOME, '"here"', "a path begins with / or ~"),
        (PREFECTLITE_REGISTRY, '"sqlite:///rel.db"', "the path begins with /: sqlite:////"),
        (PREFECTLITE_REGISTRY, '"sqlite:rel.db"', "the path begins with /: sqlite:////"),
        (PREFECTLITE_REGISTRY, '"postgres://h/db"', "no registry called 'postgres'"),
        (PREFECTLITE_HOME, '"~no-such-user-of-this-machine/x"', ""),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_its_profile(
    write_profiles, profiles_path, monkeypatch, setting, text, reason
):
    monkeypatch.delenv("PREFECTLITE_HOME")
    write_profiles(f"[profiles.default]\n{setting.name} = {text}")
    with pytest.raises(SettingError) as caught:
        setting.value()
    assert str(caught.value).startswith(f"{setting.name}=")
    assert f"(profile 'default' in {profiles_path}): " in str(caught.value)
    assert reason in str(caught.value)


def test_a_value_of_the_environment_that_makes_no_sense_is_said_to_be_from_there(monkeypatch):
    monkeypatch.setenv("PREFECTLITE_DEBUG", "perhaps")
    with pytest.raises(SettingError, match=r"^PREFECTLITE_DEBUG='perhaps' \(environment\): "):
        PREFECTLITE_DEBUG.value()


@pytest.mark.parametrize(
    ("key", "error", "hint"),
    [
        ("PREFECTLITE_LOGING_LEVEL", "no setting", "did you mean 'PREFECTLITE_LOGGING_LEVEL'?"),
        ("PREFECT_LOGGING_LEVEL", "no setting", "did you mean 'PREFECTLITE_LOGGING_LEVEL'?"),
        ("prefectlite_ui_url", "no setting", "did you mean 'PREFECTLITE_UI_URL'?"),
        ("HOME", "no setting", "did you mean 'PREFECTLITE_HOME'?"),
        ("PREFECTLITE_XYZZY", "no setting", "there are: NO_COLOR, PREFECTLITE_"),
        ("NO_COLOUR", "no setting", "did you mean 'NO_COLOR'?"),
        ("PREFECTLITE_PROFILE", "is set in the environment alone", "take it out"),
        ("PREFECTLITE_RUN_TOKEN", "is set by programs", "take it out"),
        ("NO_COLOR", "is set in the environment alone", "take it out"),
        ("TERM", "is set by programs", "take it out"),
    ],
)
def test_a_key_that_is_no_setting_is_an_error_of_every_setting(
    write_profiles, profiles_path, key, error, hint
):
    write_profiles(f'[profiles.default]\n{key} = "x"')
    with pytest.raises(SettingError, match=error) as caught:
        PREFECTLITE_DEBUG.value()
    assert f"(profile 'default' in {profiles_path})" in str(caught.value)
    assert caught.value.hint.startswith(hint)
    assert caught.value.hint.endswith(f"take it out with: prefectlite config unset {key}")
    assert re.search(r"[\w'] Else", caught.value.hint) is None
    assert own_profile().values == {key: "x"}  # for who mends it
    assert NO_COLOR.value() is False  # which no profile can have


def test_a_profile_that_is_not_used_may_have_any_key(write_profiles):
    write_profiles('[profiles.newer]\nPREFECTLITE_OF_TOMORROW = "x"')
    assert PREFECTLITE_DEBUG.value() is False


def test_prefects_names_mean_ours_in_any_case():
    for key in ("prefect_ui_url", "PREFECTLITE_UI_URL", " Prefectlite_Ui_Url "):
        assert find_setting(key) is PREFECTLITE_UI_URL
    for key in ("UI_URL", "PREFECTLITE_", "", "PREFECT_PROFILE"):
        with pytest.raises(SettingError):
            find_setting(key)


def test_a_variable_that_looks_like_a_setting_and_is_none_is_told(monkeypatch):
    assert unknown_variables() == []
    monkeypatch.setenv("PREFECTLITE_LOG_LEVEL", "x")
    monkeypatch.setenv("PREFECTLITE_RUN_TOKEN", "x")
    monkeypatch.setenv("PREFECT_API_URL", "x")  # Prefect's own
    (error,) = unknown_variables()
    assert str(error) == "there is no setting 'PREFECTLITE_LOG_LEVEL' (environment)"
    assert error.hint == "did you mean 'PREFECTLITE_LOGGING_LEVEL'?"


# Secrets, and what is started.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:p@ss/w:rd@host:1/db", "postgresql://me:**********@host:1/db"),
        ("postgresql://:secret@host/db", "postgresql://:**********@host/db"),
        (
            "postgresql://host/db?password=secret&x=1",
            "postgresql://host/db?password=**********&x=1",
        ),
        (
            "postgresql://u:a\nb@h?sslpassword=s",
            "postgresql://u:**********@h?sslpassword=**********",
        ),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("sqlite:////home/a:b@c.db", "sqlite:////home/a:b@c.db"),
        ("", ""),
    ],
)
def test_the_password_of_an_address_is_not_shown(monkeypatch, text, shown):
    assert PREFECTLITE_REGISTRY.masked(text) == shown
    assert masked_entry("UNKNOWN", text) == shown


def test_a_secret_is_not_shown_at_all(monkeypatch):
    monkeypatch.setattr(PREFECTLITE_LOGGING_LEVEL, "_is_secret", True)
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "s3cret")
    assert PREFECTLITE_LOGGING_LEVEL.masked("s3cret") == "**********"
    assert masked_entry("PREFECTLITE_LOGGING_LEVEL", "s3cret") == "**********"
    with pytest.raises(SettingError) as caught:
        PREFECTLITE_LOGGING_LEVEL.value()
    assert "s3cret" not in str(caught.value)


def test_what_is_started_may_be_given_another_profile():
    assert child_environment({})["PREFECTLITE_PROFILE"] == "default"
    assert child_environment({"PREFECTLITE_PROFILE": "c"})["PREFECTLITE_PROFILE"] == "c"


def test_a_process_keeps_its_profile_for_what_it_starts_though_another_becomes_active(
    write_profiles, profiles_path
):
    write_profiles('active = "a"\n[profiles.a]\n[profiles.b]')
    assert own_profile().name == "a"
    profiles_path.write_text('active = "b"\n[profiles.a]\n[profiles.b]')  # by another process
    assert child_environment({})["PREFECTLITE_PROFILE"] == "a"
