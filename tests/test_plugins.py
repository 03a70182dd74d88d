"""Implementations found by the name of their file, or by an entry point."""

import importlib.metadata

import pytest

from prefectlite.errors import SettingError
from prefectlite.plugins import exists, load


def test_a_file_of_a_kinds_package_is_found_by_its_name():
    assert load("registry", "sqlite").__name__ == "prefectlite.registry.sqlite"


@pytest.mark.parametrize(
    "name", ["nothing", "", "migrations", "__init__", "sqlite.x", "../x", "postgres+x"]
)
def test_what_names_no_implementation_is_an_error_of_the_settings(name):
    with pytest.raises(SettingError, match="there is no registry called") as caught:
        load("registry", name)
    assert caught.value.hint == "there are: sqlite"
    assert not exists("registry", name)


def test_another_distribution_offers_more_through_an_entry_point(monkeypatch):
    group = "prefectlite.registry"
    offered = importlib.metadata.EntryPoint("memory", "json:loads", group)

    def entry_points(**asked):
        return [offered] if asked == {"group": group, "name": "memory"} else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert load("registry", "memory")("[1]") == [1]
    assert exists("registry", "memory")


def test_an_implementation_that_lacks_a_library_says_which(tmp_path, monkeypatch):
    import prefectlite.registry

    (tmp_path / "needy.py").write_text("import a_library_that_is_not_installed")
    monkeypatch.setattr(
        prefectlite.registry, "__path__", [*prefectlite.registry.__path__, str(tmp_path)]
    )
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_installed"):
        load("registry", "needy")
