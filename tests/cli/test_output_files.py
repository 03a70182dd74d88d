"""A file that a command is told to write is no file of the registry, and is whole or as it was."""

import os
import stat

import pytest

from prefectlite import output_files
from prefectlite.output_files import part_of, write_file

OWN = ["registry.db", "registry.db-wal", "registry.lock", "a-link"]


@pytest.fixture
def own(seeds, home):
    """Where a registry is, which has a run; returns what its files hold."""
    seeds.flow_run(name="gigantic-cockatoo")
    (home / "a-link").symlink_to("registry.db")
    return lambda: {name: (home / name).read_bytes() for name in OWN[:3]}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(
    "line",
    [
        "run prefectlite.examples.hello --junit",
        "run prefectlite.examples.hello --events",
        "flow-run inspect gigantic-cockatoo --svg",
    ],
)
def test_no_file_of_the_registry_is_written(run, own, home, line, name):
    before = own()
    done = run(line, str(home / name))
    assert done.exit_code == 2
    assert "is a file of the registry itself" in done.stderr
    assert own() == before


def test_earlier_events_stay_until_there_is_a_flow_to_run(run, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("of an earlier run, and longer than one line of the next one\n" * 1_000)
    before = path.read_text()
    assert run("run no_such_file.py:flow --events", str(path)).exit_code != 0
    assert path.read_text() == before
    assert run("run prefectlite.examples.hello --events", str(path)).exit_code == 0
    assert "earlier" not in path.read_text()
    assert path.read_text().startswith('{"event"')


def test_a_link_that_waits_under_the_name_of_the_part_is_not_followed(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    for name in (f".prefectlite-{os.getpid()}.part", ".prefectlite-known.part"):
        (tmp_path / name).symlink_to(precious)
    write_file(tmp_path / "one", ["text"])
    assert ((tmp_path / "one").read_text(), precious.read_text()) == ("text", "kept")
    assert part_of(precious) != part_of(precious)
    monkeypatch.setattr(output_files, "part_of", lambda path: tmp_path / ".prefectlite-known.part")
    with pytest.raises(output_files.OutputError, match="exists"):
        write_file(tmp_path / "two", ["text"])
    assert precious.read_text() == "kept"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o660])
def test_who_may_read_an_earlier_file_may_read_the_new_one_and_nobody_else(tmp_path, mode):
    path = tmp_path / "one"
    path.write_text("old")
    path.chmod(mode)
    write_file(path, ["new"])
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", mode)
