"""prefectlite profile: ls, create, use, inspect, delete."""

import json
import tomllib

import pytest

_FLOW = """
import sys, time
from pathlib import Path
from prefectlite import flow

@flow
def waits(folder: str):
    Path(folder, "begun").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.01)
"""


@pytest.fixture
def path(profiles_path, write_profiles):
    """The file of profiles, with three of them; 'ci' is active."""
    write_profiles(
        'active = "ci"\n[profiles.ci]\nPREFECTLITE_LOGGING_LEVEL = "DEBUG"\n'
        'PREFECTLITE_TYPO = "postgresql://me:s3cret@host/db"\n[profiles.prod]\n[profiles."a b"]\n'
    )
    return profiles_path


def _names(path):
    return {*tomllib.loads(path.read_text())["profiles"]}


def _active(path):
    return tomllib.loads(path.read_text()).get("active")


def test_ls_without_a_file_shows_the_default_profile(run):
    assert [line.split() for line in run("profile ls").stdout.splitlines()] == [
        ["NAME", "ACTIVE", "SETTINGS"],
        ["default", "*", "0"],
    ]
    assert json.loads(run("profile ls --json").stdout) == [
        {"name": "default", "is_active": True, "setting_count": 0}
    ]


def test_ls_marks_the_active_one(run, path):
    lines = run("profile ls").stdout.splitlines()
    assert [line.split() for line in lines[1:3]] == [["ci", "*", "2"], ["prod", "-", "0"]]
    shown = json.loads(run("--profile prod profile ls --json").stdout)
    assert [each["name"] for each in shown if each["is_active"]] == ["prod"]


def test_ls_says_where_the_active_one_is_not_there(run, path):
    ended = run("--profile nope profile ls")
    assert ended.exit_code == 0
    assert len(ended.stdout.splitlines()) == 4
    assert "note: the active profile 'nope' is not there" in ended.stderr


def test_create_makes_an_empty_profile_or_a_copy(run, path):
    ended = run("profile create new")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr.startswith(f"Created profile 'new' in {path}\n")
    run("profile create copy --from ci")
    kept = tomllib.loads(path.read_text())["profiles"]
    assert kept["new"] == {}
    assert kept["copy"] == kept["ci"] != {}
    assert _active(path) == "ci"


def test_a_second_profile_of_a_name_exits_4(run, path):
    ended = run("profile create prod")
    assert (ended.exit_code, ended.stdout) == (4, "")
    assert ended.stderr.startswith("error: there is a profile 'prod' already\nhint: ")


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ü", "-x", "x" * 101, "\x1b[2J", "a\n"])
def test_a_name_that_toml_would_not_take_as_it_is_exits_2(run, path, name):
    ended = run("profile create", "--", name)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "\x1b" not in ended.stderr
    assert _names(path) == {"ci", "prod", "a b"}


@pytest.mark.parametrize(
    "line",
    ["inspect prode", "use prode", "delete prod prode", "create new --from prode"],
)
def test_what_is_not_there_exits_3_with_a_near_name_and_changes_nothing(run, path, line):
    before = path.read_text()
    ended = run("profile", *line.split())
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert ended.stderr.splitlines() == [
        "error: there is no profile 'prode'",
        "hint: did you mean 'prod'?",
    ]
    assert path.read_text() == before


def test_use_makes_a_profile_the_active_one(run, path, monkeypatch):
    ended = run("profile use prod")
    assert (ended.exit_code, ended.stderr) == (0, "Profile 'prod' is active.\n")
    assert _active(path) == "prod"
    assert json.loads(run("profile inspect --json").stdout)["name"] == "prod"
    assert run("profile use", "a b").exit_code == 0
    assert run("profile use default").exit_code == 0  # which need not exist
    assert run("flow-run ls").exit_code == 0
    monkeypatch.setenv("PREFECTLITE_PROFILE", "ci")
    assert "note: PREFECTLITE_PROFILE=ci is set" in run("profile use prod").stderr


def test_inspect_shows_a_profile_without_its_secrets(run, path):
    ended = run("profile inspect")
    assert ended.exit_code == 0
    assert ended.stdout.split() == [
        *("Profile", "ci", "Active", "yes", "File", str(path), "NAME", "VALUE"),
        *("PREFECTLITE_LOGGING_LEVEL", "DEBUG"),
        *("PREFECTLITE_TYPO", "postgresql://me:**********@host/db"),
    ]
    assert json.loads(run("profile inspect prod --json").stdout) == {
        "name": "prod",
        "is_active": False,
        "path": str(path),
        "settings": {},
    }
    assert run("profile inspect default").exit_code == 0


def test_delete_removes_profiles_with_their_settings(run, path):
    ended = run("profile delete prod", "a b", "prod")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == "Deleted profile 'prod'\nDeleted profile 'a b'\n"
    assert _names(path) == {"ci"}


@pytest.mark.parametrize("line", ["profile delete prod ci", "--profile prod profile delete prod"])
def test_the_active_profile_is_not_deleted(run, path, line):
    ended = run(line)
    assert (ended.exit_code, ended.stdout) == (4, "")
    assert "is the active one\nhint: use another first" in ended.stderr
    assert _names(path) == {"ci", "prod", "a b"}


@pytest.mark.parametrize("line", ["profile ls", "profile create x", "profile use default"])
def test_without_a_home_folder_it_is_said_what_to_set(run, monkeypatch, line):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "relative")
    ended = run(line)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[1] == "hint: set PREFECTLITE_PROFILES_PATH"
    assert run("config validate").exit_code == 0


def test_a_config_folder_that_cannot_be_written_exits_5(run, tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "config").write_text("not a folder")
    for line in ("profile create x", "config set PREFECTLITE_DEBUG=1"):
        ended = run(line)
        assert (ended.exit_code, ended.stdout) == (5, "")
        assert "hint: set PREFECTLITE_PROFILES_PATH" in ended.stderr
    assert run("flow-run ls").exit_code == 0


def test_a_run_ends_in_the_registry_it_began_in_whatever_becomes_of_profiles_meanwhile(
    start, tmp_path, until
):
    flow = tmp_path / "flows.py"
    flow.write_text(_FLOW)

    def command(*words, home=None):
        ended = start(*words, env={"PREFECTLITE_HOME": home and str(home)})
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.decode().strip()

    homes = [tmp_path / name for name in ("one", "two", "three")]
    for home in homes[:2]:
        command("profile", "create", home.name)
        command("--profile", home.name, "config", "set", f"PREFECTLITE_HOME={home}")
    command("profile", "use", "one")
    id_ = command("run", str(flow), "-p", f"folder={tmp_path}", "--detach")
    until((tmp_path / "begun").exists)
    command("profile", "use", "two")
    command("--profile", "one", "config", "set", f"PREFECTLITE_HOME={homes[2]}")
    (tmp_path / "go").touch()
    # Until its supervisor has had it put on record, and is done.
    until(lambda: not [*(homes[0] / "runs").iterdir()])
    kept = [json.loads(command("flow-run", "ls", "--json", home=home)) for home in homes]
    found = [[(run["id"], run["state"]["name"]) for run in runs] for runs in kept]
    assert found == [[(id_, "Completed")], [], []]
