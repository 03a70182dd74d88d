"""prefectlite version."""

import json
import platform
import sqlite3

from prefectlite import __version__


def test_version_shows_what_a_bug_report_needs(run, home):
    shown = dict(line.split(maxsplit=1) for line in run("version").stdout.splitlines())
    assert shown == {
        "prefectlite": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "registry": f"sqlite:///{home / 'registry.db'}",
        "schema": "7",
    }


def test_version_as_json_has_the_same(run):
    shown = json.loads(run("version --json").stdout)
    assert list(shown) == ["prefectlite", "python", "sqlite", "registry", "schema"]
    assert shown["schema"] == 7


def test_version_works_where_the_registry_does_not(run, home):
    home.mkdir()
    (home / "registry.db").write_text("broken")
    assert run("version").exit_code == 0
