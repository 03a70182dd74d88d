"""prefectlite config: view, set, unset, validate; and --profile before a command."""

import json
import os
import subprocess
import sys
import tomllib

import pytest

_SECRET = "postgresql://me:s3cret@host/db"


@pytest.fixture
def kept(profiles_path):
    """What the file of profiles has."""
    return lambda: tomllib.loads(profiles_path.read_text())["profiles"]


def _rows(ended):
    return [line.split(maxsplit=2) for line in ended.stdout.splitlines()[1:]]


# view.


def test_view_shows_what_is_set_and_not_the_defaults(run, write_profiles, home):
    assert _rows(run("config view")) == [["PREFECTLITE_HOME", str(home)]]
    write_profiles(
        '[profiles.default]\nPREFECTLITE_DEBUG = false\nPREFECTLITE_LOGGING_LEVEL = "error"'
    )
    assert _rows(run("config view")) == [
        ["PREFECTLITE_DEBUG", "false"],
        ["PREFECTLITE_HOME", str(home)],
        ["PREFECTLITE_LOGGING_LEVEL", "ERROR"],
    ]


def test_view_shows_defaults_and_sources_where_that_is_asked(
    run, write_profiles, profiles_path, home
):
    write_profiles('active = "ci"\n[profiles.ci]\nPREFECTLITE_REGISTRY_LOCK_SECONDS = 2.50')
    ended = run("config view --show-defaults --show-sources")
    assert ended.stdout.splitlines()[0].split() == ["NAME", "VALUE", "SOURCE"]
    rows = {row[0]: row[1:] for row in _rows(ended)}
    assert rows["PREFECTLITE_HOME"] == [str(home), "environment"]
    assert rows["PREFECTLITE_REGISTRY"] == [f"sqlite:///{home}/registry.db", "default"]
    assert rows["PREFECTLITE_REGISTRY_LOCK_SECONDS"] == ["2.5", "profile 'ci'"]
    assert rows["PREFECTLITE_LOGGING_LEVEL"] == ["INFO", "default"]
    assert rows["NO_COLOR"] == ["false", "default"]
    assert not {"PREFECTLITE_RUN_TOKEN", "TERM"} & {*rows}
    assert ended.stderr == f"note: the profile is 'ci', in {profiles_path}\n"


def test_view_as_json_has_values_of_their_types(run, write_profiles, home):
    write_profiles(
        "[profiles.default]\nPREFECTLITE_REGISTRY_LOCK_SECONDS = 2\nPREFECTLITE_DEBUG = 'on'"
    )
    shown = json.loads(run("config view --json --show-defaults").stdout)
    for each in shown:
        assert list(each) == ["name", "value", "source", "profile", "description"]
    by_name = {each["name"]: (each["value"], each["source"], each["profile"]) for each in shown}
    assert by_name["PREFECTLITE_REGISTRY_LOCK_SECONDS"] == (2.0, "profile", "default")
    assert by_name["PREFECTLITE_DEBUG"] == (True, "profile", "default")
    assert by_name["PREFECTLITE_LOGGING_LEVEL"] == ("INFO", "default", None)
    assert by_name["PREFECTLITE_HOME"] == (str(home), "environment", None)
    assert len(json.loads(run("config view --json").stdout)) == 3


@pytest.mark.parametrize("is_in_profile", [False, True])
def test_view_shows_no_password_unless_it_is_asked_for(
    run, write_profiles, monkeypatch, is_in_profile
):
    if is_in_profile:
        write_profiles(f'[profiles.default]\nPREFECTLITE_REGISTRY = "{_SECRET}"')
    else:
        monkeypatch.setenv("PREFECTLITE_REGISTRY", _SECRET)
    for line in ("config view", "config view --json", "profile inspect", "profile inspect --json"):
        assert "s3cret" not in "".join(map(str, vars(run(line)).values())), line
    assert "postgresql://me:**********@host/db" in run("config view").stdout
    assert _SECRET in run("config view --show-secrets").stdout
    assert _SECRET in run("config view --show-secrets --json").stdout


def test_view_shows_what_is_wrong_as_it_is_and_says_so(run, write_profiles, monkeypatch):
    write_profiles('[profiles.default]\nPREFECTLITE_DEBUG = "perhaps"\nPREFECTLITE_FOO = 1')
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "loud")
    monkeypatch.delenv("PREFECTLITE_HOME")
    ended = run("config view --show-defaults")
    assert ended.exit_code == 0
    rows = {row[0]: row[1:] for row in _rows(ended)}
    assert rows["PREFECTLITE_DEBUG"] == ["perhaps"]
    assert rows["PREFECTLITE_LOGGING_LEVEL"] == ["loud"]
    assert rows["PREFECTLITE_REGISTRY"] == ["-"]
    assert ended.stderr.count("note: ") == 4  # with that of the profile
    for words in ("PREFECTLITE_FOO", "'perhaps' (profile 'default'", "'loud' (environment)"):
        assert words in ended.stderr


def test_view_without_profiles_imports_nothing_heavy(start):
    program = (
        "import sys; sys.argv = ['prefectlite', 'config', 'view']; from prefectlite.__main__"
        " import main; main(); print(*sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    heavy = {"typer", "pydantic", "rich", "psutil", "asyncio", "logging", "sqlite3", "tomllib"}
    assert not heavy & {*ended.stderr.split()}


# set and unset.


def test_set_writes_into_the_active_profile(run, kept, profiles_path):
    ended = run("config set prefect_logging_level=debug PREFECTLITE_UI_URL=http://x?a=b")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr.splitlines() == [
        f"Set {name} in profile 'default' in {profiles_path}"
        for name in ("PREFECTLITE_LOGGING_LEVEL", "PREFECTLITE_UI_URL")
    ]
    assert kept() == {
        "default": {
            "PREFECTLITE_LOGGING_LEVEL": "debug",
            "PREFECTLITE_UI_URL": "http://x?a=b",
        }
    }
    assert [row[1] for row in _rows(run("config view"))][1:] == ["DEBUG", "http://x?a=b"]
    run("profile create ci")
    run("--profile ci config set PREFECTLITE_DEBUG=1 PREFECTLITE_DEBUG=0")
    assert kept()["ci"] == {"PREFECTLITE_DEBUG": "0"}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("PREFECTLITE_LOGING_LEVEL=DEBUG", "did you mean 'PREFECTLITE_LOGGING_LEVEL'?"),
        ("PREFECT_API_URL=x", "there is no setting 'PREFECTLITE_API_URL'"),
        ("PREFECTLITE_LOGGING_LEVEL", "KEY=VALUE"),
        ("PREFECTLITE_LOGGING_LEVEL=", "prefectlite config unset PREFECTLITE_LOGGING_LEVEL"),
        ("PREFECTLITE_LOGGING_LEVEL=loud", "expected one of DEBUG"),
        ("PREFECTLITE_REGISTRY_LOCK_SECONDS=9e99", "a year"),
        ("PREFECTLITE_HOME=here", "begins with / or ~"),
        ("PREFECTLITE_UI_URL=\udcff", "not UTF-8"),
        ("PREFECTLITE_REGISTRY=postgres://u:pw@h/db", "there are: sqlite"),
        ("PREFECTLITE_REGISTRY=sqlite:///rel.db", "begins with /"),
        ("PREFECTLITE_PROFILE=ci", "set in the environment alone"),
        ("NO_COLOR=1", "set in the environment alone"),
        ("PREFECTLITE_RUN_TOKEN=x", "set by programs"),
        ("TERM=dumb", "set by programs"),
        ("=x", "there is no setting ''"),
        ("\x1b[2J=x", "there is no setting"),
    ],
    ids=range(16),
)
def test_what_cannot_be_set_exits_2_and_sets_nothing(run, profiles_path, argument, words):
    ended = run("config set PREFECTLITE_DEBUG=1", argument)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert words in ended.stderr
    assert "\x1b" not in ended.stderr
    assert not profiles_path.exists()


def test_set_says_what_comes_first_and_who_can_see_a_secret(run, monkeypatch):
    monkeypatch.setenv("PREFECTLITE_DEBUG", "1")
    assert "note: PREFECTLITE_DEBUG is also set" in run("config set PREFECTLITE_DEBUG=0").stderr
    ended = run("config set PREFECTLITE_UI_URL=https://me:s3cret@host/")
    assert ended.exit_code == 0
    assert "note: a secret" in ended.stderr
    assert "s3cret" not in ended.stderr


def test_unset_takes_out_settings_and_what_is_none(run, write_profiles, kept):
    write_profiles(
        '[profiles.default]\nPREFECTLITE_DEBUG = true\nPREFECTLITE_TYPO = 1\n"two words" = 2\n'
        'PREFECTLITE_UI_URL = "x"'
    )
    assert run("flow-run ls").exit_code == 2
    ended = run("config unset PREFECTLITE_TYPO", "two words", "prefect_debug", "PREFECTLITE_DEBUG")
    assert ended.exit_code == 0
    assert ended.stderr.count("Unset ") == 3
    assert kept() == {"default": {"PREFECTLITE_UI_URL": "x"}}
    assert run("flow-run ls").exit_code == 0


def test_nothing_is_unset_unless_all_of_it_can_be(run, write_profiles, kept):
    write_profiles("[profiles.default]\nPREFECTLITE_DEBUG = true")
    before = kept()
    ended = run("config unset PREFECTLITE_DEBUG PREFECTLITE_UI_URL")
    assert ended.exit_code == 3
    assert "PREFECTLITE_UI_URL is not set in profile 'default'" in ended.stderr
    assert run("config unset PREFECTLITE_DEBUG PREFECTLITE_DEBUGG").exit_code == 2
    assert kept() == before


# validate.


def test_validate_says_that_all_is_right(run, write_profiles):
    for text in ("", '[profiles.ci]\nPREFECTLITE_DEBUG = ""\nPREFECTLITE_HOME = "~/x"'):
        write_profiles(text)
        ended = run("config validate")
        assert (ended.exit_code, ended.stdout) == (0, "")
        assert ended.stderr == "All profiles and the environment are right.\n"
        assert json.loads(run("config validate --json").stdout) == []


def test_validate_tells_all_that_is_wrong_in_every_profile_and_the_environment(
    run, write_profiles, profiles_path, monkeypatch
):
    write_profiles(
        'activ = "x"\n'
        "[profiles.one]\nPREFECTLITE_DEBUG = 2\nPREFECTLITE_TYPO = 1\n"
        '[profiles.two]\nPREFECTLITE_HOME = "here"\nNO_COLOR = true\n'
    )
    monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", "loud")
    monkeypatch.setenv("PREFECTLITE_LOG_PRINTS", "true")
    ended = run("config validate")
    assert (ended.exit_code, ended.stdout) == (2, "")
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 7
    for error, words in zip(
        errors,
        [
            "there is no key 'activ'",
            "there is no setting 'PREFECTLITE_TYPO' (profile 'one' in ",
            "PREFECTLITE_DEBUG='2' (profile 'one' in ",
            "NO_COLOR is set in the environment alone (profile 'two' in ",
            "PREFECTLITE_HOME='here' (profile 'two' in ",
            "there is no setting 'PREFECTLITE_LOG_PRINTS' (environment)",
            "PREFECTLITE_LOGGING_LEVEL='loud' (environment)",
        ],
        strict=True,
    ):
        assert words in error
    assert "hint: did you mean 'PREFECTLITE_LOGGING_LOG_PRINTS'?" in ended.stderr
    ended = run("config validate --json")
    assert ended.exit_code == 2
    problems = json.loads(ended.stdout)
    assert [problem["message"] for problem in problems] == [line[7:] for line in errors]


@pytest.mark.parametrize("line", ["view", "validate", "set PREFECTLITE_DEBUG=1"])
def test_a_profile_that_is_not_there_is_said_so(run, write_profiles, line):
    write_profiles('active = "gone"\n[profiles.one]\n')
    ended = run("config", *line.split())
    assert ended.exit_code == 2
    assert "there is no profile 'gone'" in ended.stderr


# Every command.


@pytest.mark.parametrize(
    "line",
    [
        "flow-run ls",
        "version",
        "config view",
        "config validate",
        "config set PREFECTLITE_DEBUG=1",
        "config unset PREFECTLITE_DEBUG",
        "profile ls",
        "profile inspect",
        "profile use default",
        "profile create ci",
        "profile delete ci",
    ],
)
def test_a_broken_file_exits_2_and_is_named_with_the_line(run, write_profiles, profiles_path, line):
    write_profiles("[profiles.default]\nPREFECTLITE_DEBUG = \n")
    ended = run(line)
    assert (ended.exit_code, ended.stdout) == (2, "")
    error, hint = ended.stderr.splitlines()
    assert str(profiles_path) in error
    assert "line 2" in error
    assert hint.startswith("hint: mend it by hand")
    assert profiles_path.read_text() == "[profiles.default]\nPREFECTLITE_DEBUG = \n"


def test_what_needs_no_setting_works_with_a_broken_file(run, write_profiles):
    write_profiles("broken [")
    for line in ("--version", "--help", "flow-run --help"):
        assert run(line).exit_code == 0


def test_an_unknown_key_stops_every_command_but_those_that_mend_it(
    run, write_profiles, monkeypatch
):
    write_profiles(
        '[profiles.default]\nPREFECTLITE_TYPO = 1\n[profiles.other]\nPREFECTLITE_UI_URL="x"'
    )
    for line in ("flow-run ls", "version", "work-queue ls"):
        ended = run(line)
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert "there is no setting 'PREFECTLITE_TYPO'" in ended.stderr
    for line in ("config view", "profile ls", "profile inspect", "config set PREFECTLITE_DEBUG=0"):
        assert run(line).exit_code == 0
    assert run("--profile other flow-run ls").exit_code == 0


def test_a_command_is_stopped_though_the_environment_has_all_that_it_needs(
    run, write_profiles, monkeypatch
):
    monkeypatch.setenv("PREFECTLITE_REGISTRY", "sqlite:////nowhere/registry.db")
    assert run("version").exit_code == 0
    write_profiles("[profiles.default]\nPREFECTLITE_TYPO = 1")
    assert run("version").exit_code == 2


def test_the_profile_of_a_command_reaches_what_it_starts(start, write_profiles, tmp_path):
    write_profiles('[profiles.loud]\nPREFECTLITE_LOGGING_LEVEL = "DEBUG"')
    flow = tmp_path / "flows.py"
    flow.write_text(
        "import subprocess, sys\n"
        "from prefectlite import flow\n"
        "@flow\n"
        "def f():\n"
        "    subprocess.run([sys.executable, '-m', 'prefectlite', 'config', 'view'], check=True)\n"
    )
    ended = start("--profile", "loud", "run", str(flow))
    assert ended.returncode == 0, ended.stderr
    rows = dict(line.split() for line in ended.stdout.decode().splitlines())
    assert (rows["PREFECTLITE_LOGGING_LEVEL"], rows["PREFECTLITE_PROFILE"]) == ("DEBUG", "loud")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--profile", "nope"], "there is no profile 'nope'"),
        (["--profile", ""], "the name of the profile is empty"),
        (["--profile", "\x1b[2J"], "there is no profile"),
        (["--profile"], "--profile"),
    ],
)
def test_a_profile_that_cannot_be_used_exits_2(run, words, told):
    ended = run("", *words, *(["flow-run", "ls"] if len(words) > 1 else []))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert "\x1b" not in ended.stderr
