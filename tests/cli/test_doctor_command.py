"""prefectlite doctor: every check has its line, none can stop the others, and nothing is changed."""

import json
import os

import pytest

from prefectlite import home_checks, machine_checks, registry_checks
from prefectlite.cli import doctor as command
from prefectlite.findings import Finding, Status

_MODULES = (home_checks, machine_checks, registry_checks)


def names(folder):
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checks(monkeypatch):
    """Have doctor make these checks instead."""

    def use(**found):
        monkeypatch.setattr(command, "_checks", lambda: found)

    return use


def test_every_check_that_there_is_is_made():
    written = {
        function
        for module in _MODULES
        for name, function in vars(module).items()
        if name.startswith("check_")
    }
    assert {*command._checks().values()} == written


def test_nothing_of_a_healthy_place_is_an_error(run, seeds, home):
    seeds.flow_run()
    before = sorted(names(home))
    ended = run("doctor --json")
    found = {one["check"]: one for one in json.loads(ended.stdout)}
    assert [*found] == [*command._checks()]
    assert ended.exit_code == 0
    assert {"error"}.isdisjoint(one["status"] for one in found.values())
    assert sorted(names(home)) == before


def test_a_place_where_nothing_is_yet_stays_so(run, home):
    ended = run("doctor")
    assert ended.exit_code == 0
    assert ended.stderr.startswith("errors: 0, warnings: ")
    assert not home.exists()


def test_each_check_is_a_line_and_its_fix_another(run, checks):
    checks(
        one=lambda: Finding(Status.OK, "fine"),
        two=lambda: Finding(Status.WARNING, "bad\n\x1b[31m", "mend it"),
        three=lambda: Finding(Status.SKIPPED, "not here"),
    )
    ended = run("doctor")
    assert ended.stdout.splitlines() == [
        "ok       one: fine",
        r"warning  two: bad\n\x1b[31m",
        "         fix: mend it",
        "skipped  three: not here",
    ]
    assert (ended.exit_code, ended.stderr) == (0, "errors: 0, warnings: 1\n")


def test_json_is_a_list_of_check_status_message_and_fix(run, checks):
    checks(one=lambda: Finding(Status.ERROR, "bad", "mend it"))
    ended = run("doctor --json")
    assert ended.exit_code == 5
    assert json.loads(ended.stdout) == [
        {"check": "one", "status": "error", "message": "bad", "fix": "mend it"}
    ]


def test_a_check_that_fails_is_an_error_that_names_it_and_the_others_go_on(run, checks):
    checks(one=lambda: 1 / 0, two=lambda: Finding(Status.OK, "fine"))
    ended = run("doctor")
    assert ended.exit_code == 5
    assert "error    one: the check itself failed: ZeroDivisionError" in ended.stdout
    assert "ok       two: fine" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_a_registry_that_is_broken_is_an_error_with_a_fix(run, home):
    home.mkdir(mode=0o700)
    (home / "registry.db").write_bytes(os.urandom(8_192))
    (home / "registry.db").chmod(0o600)
    ended = run("doctor --json")
    found = {one["check"]: one for one in json.loads(ended.stdout)}
    assert ended.exit_code == 5
    assert [name for name, one in found.items() if one["status"] == "error"] == ["registry"]
    assert found["registry"]["fix"]


def test_without_a_home_it_says_so(run, monkeypatch):
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "PREFECTLITE_HOME"):
        monkeypatch.delenv(name)

    def nobody(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(machine_checks.Path, "expanduser", nobody)
    ended = run("doctor --json")
    found = {one["check"]: one for one in json.loads(ended.stdout)}
    assert ended.exit_code == 5
    assert found["home folder"]["status"] == found["registry"]["status"] == "error"
    assert "the check itself failed" not in ended.stdout


def test_settings_that_are_wrong_do_not_keep_it_from_its_work(run, write_profiles):
    write_profiles("[profiles.default]\nPREFECTLITE_NONSENSE = '1'\n")
    ended = run("doctor --json")
    found = {one["check"]: one for one in json.loads(ended.stdout)}
    assert (ended.exit_code, found["settings"]["status"]) == (5, "error")
    assert len(found) == len(command._checks())


def test_what_it_imports_is_not_heavy(start_python):
    program = "import sys; from prefectlite.cli import main; main(['doctor']); print(*sys.modules)"
    heavy = {"pydantic", "rich", "psutil", "asyncio", "logging", "platformdirs"}
    assert heavy.isdisjoint(start_python(program).end().split())
