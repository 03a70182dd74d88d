"""The folder of a launch: what is written to it, and what is read whatever its state."""

import json
import os
import stat
from dataclasses import replace

import pytest

from prefectlite.clock import from_microseconds
from prefectlite.errors import SettingError
from prefectlite.exits import Exit
from prefectlite.liveness import own_identity
from prefectlite.names import new_id
from prefectlite.run_folders import HANG_FILE, OutputLine, RunFolder, run_folders

SPEC = {"token": "0123456789abcdef", "machine_id": "m"}
SUPERVISOR = {"pid": 7, "hostname": "h", "start_ticks": 5, "boot_id": "b", "pid_namespace": "p"}
EXIT = {
    "reason": "killed",
    "ended_at": 1_700_000_000_000_000,
    "exit_code": None,
    "signal": 9,
    "message": "why",
    "swept": 2,
    "survivors": [[3, 30], [4, 0]],
    "lost_output_bytes": 5,
}
#: What a file is that was not written as ours are, or did not survive.
DAMAGED = {
    "empty": b"",
    "cut": b'{"token": "01',
    "zeros": bytes(100),
    "not text": b"\xff\xfe{}",
    "a list": b"[1]",
    "a number": b"7",
    "without what is needed": b"{}",
}


@pytest.fixture
def folder():
    return RunFolder.make(new_id(), SPEC["token"])


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_is_made_under_the_home_and_named_for_its_run_and_launch(home):
    id_ = new_id()
    folder = RunFolder.make(id_, SPEC["token"])
    assert folder.path == home / "runs" / f"{id_}.01234567"
    assert folder.flow_run_id == id_
    assert folder == RunFolder(folder.path)


def test_a_second_launch_has_a_folder_of_its_own_and_no_two_share_one(folder):
    RunFolder.make(folder.flow_run_id, "f" * 16)
    assert len([*run_folders(folder.flow_run_id)]) == 2
    with pytest.raises(FileExistsError):
        RunFolder.make(folder.flow_run_id, SPEC["token"])


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_can_read_what_is_in_a_folder(umask):
    before = os.umask(umask)
    try:
        folder = RunFolder.make(new_id(), SPEC["token"])
        folder.write("spec.json", SPEC)
    finally:
        os.umask(before)
    assert {mode(one) for one in (folder.path, *folder.path.parents[:2])} == {0o700}
    assert mode(folder.path / "spec.json") == 0o600
    assert json.loads((folder.path / "spec.json").read_text()) == SPEC


def test_a_file_is_replaced_whole_or_not_at_all(folder):
    folder.write("stop.json", {"grace_seconds": 1})
    with pytest.raises(TypeError):
        folder.write("stop.json", {"grace_seconds": 2, "what JSON cannot say": object()})
    assert json.loads((folder.path / "stop.json").read_text()) == {"grace_seconds": 1}
    with (folder.path / "stop.json").open() as reader:  # who reads it goes on with what it was
        folder.write("stop.json", {"grace_seconds": 3})
        assert json.load(reader) == {"grace_seconds": 1}
    assert json.loads((folder.path / "stop.json").read_text()) == {"grace_seconds": 3}


def test_who_supervises_is_read_of_what_both_sides_wrote(folder):
    assert folder.supervisor() is None
    assert folder.token() is None
    folder.write("spec.json", SPEC)
    assert folder.supervisor() is None
    assert folder.token() == SPEC["token"]
    folder.write("supervisor.json", SUPERVISOR)
    found = folder.supervisor()
    assert (found.token, found.machine_id) == (SPEC["token"], "m")
    assert {name: getattr(found, name) for name in SUPERVISOR} == SUPERVISOR
    assert found.lock_path == str(folder.path / "supervisor.lock")
    assert RunFolder.of(found) == folder


def test_where_it_is_not_linux_a_supervisor_is_known_by_less(folder):
    folder.write("spec.json", SPEC)
    folder.write("supervisor.json", {"pid": 7, "hostname": "h"})
    found = folder.supervisor()
    assert (found.boot_id, found.pid_namespace, found.start_ticks) == (None, None, None)


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", ["spec.json", "supervisor.json"])
def test_with_a_damaged_file_nobody_is_known_to_supervise(folder, name, data):
    folder.write("spec.json", SPEC)
    folder.write("supervisor.json", SUPERVISOR)
    (folder.path / name).write_bytes(data)
    assert folder.supervisor() is None
    assert folder.token() == (None if name == "spec.json" else SPEC["token"])


def test_an_exit_is_read_as_it_was_reported(folder):
    assert folder.exit() is None
    folder.write("exit.json", EXIT)
    assert folder.exit() == Exit(
        reason="killed",
        ended_at=from_microseconds(EXIT["ended_at"]),
        signal=9,
        message="why",
        swept=2,
        survivors=((3, 30), (4, 0)),
        lost_output_bytes=5,
    )


@pytest.mark.parametrize("name", EXIT)
def test_an_exit_that_lacks_something_is_none(folder, name):
    folder.write("exit.json", {key: value for key, value in EXIT.items() if key != name})
    assert folder.exit() is None


@pytest.mark.parametrize("changes", [{"ended_at": "now"}, {"ended_at": None}, {"survivors": None}])
def test_an_exit_that_says_what_it_cannot_mean_is_none(folder, changes):
    folder.write("exit.json", EXIT | changes)
    assert folder.exit() is None


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_exit_is_none(folder, data):
    (folder.path / "exit.json").write_bytes(data)
    assert folder.exit() is None


def test_what_is_only_half_written_under_another_name_is_not_read(folder):
    (folder.path / "exit.json.tmp").write_text(json.dumps(EXIT))
    assert folder.exit() is None


def an_output(text, *, at=1, stream="stdout"):
    return (json.dumps({"at": at, "stream": stream, "text": text}) + "\n").encode()


def texts(folder, start=0):
    lines, end = folder.output(start)
    return [line.text for line in lines], end


def write_output(folder, *parts):
    with (folder.path / "output.jsonl").open("ab") as file:
        file.writelines(parts)


def test_output_is_read_from_where_the_last_look_ended(folder):
    assert texts(folder) == ([], 0)
    one, two = an_output("one"), an_output("zwei ☃", at=2, stream="stderr")
    write_output(folder, one)
    assert texts(folder) == (["one"], len(one))
    write_output(folder, two)
    lines, end = folder.output(len(one))
    assert lines == [OutputLine(from_microseconds(2), "stderr", "zwei ☃")]
    assert end == len(one + two)
    assert texts(folder, end) == ([], end)
    assert texts(folder, end + 1) == ([], end + 1)


def test_a_line_that_is_not_whole_yet_is_left_for_the_next_time(folder):
    one, two = an_output("one"), an_output("two")
    write_output(folder, one, two[:-9])
    assert texts(folder) == (["one"], len(one))
    assert texts(folder, len(one)) == ([], len(one))
    write_output(folder, two[-9:])
    assert texts(folder, len(one)) == (["two"], len(one + two))


def test_a_damaged_line_is_left_out_and_the_rest_is_read(folder):
    damaged = [b"\n", b"{\n", b"7\n", b"[]\n", b"{}\n", bytes(9) + b"\n", b"\xff\n"]
    damaged += [an_output("no time", at=None), an_output("no time", at="x")]
    write_output(folder, an_output("one"), *damaged, an_output("two"))
    size = (folder.path / "output.jsonl").stat().st_size
    assert texts(folder) == (["one", "two"], size)


@pytest.mark.parametrize("character", ["x", "\0", "☃"])
def test_the_longest_lines_that_a_supervisor_keeps_are_read(folder, character):
    # It cuts them at a million bytes; what JSON makes of one of them takes up to six.
    lines = [an_output(character * 1_000_000) for _ in range(3)]
    write_output(folder, *lines)
    found, place = [], 0
    for _ in lines:
        some, place = texts(folder, place)
        found += some
    assert found == [character * 1_000_000] * 3
    assert place == sum(map(len, lines))


def test_all_of_a_long_output_is_read_a_piece_at_a_time(folder):
    lines = [an_output(f"{number:010000}") for number in range(1_000)]
    write_output(folder, *lines)
    found, place, looks = [], 0, 0
    while (look := texts(folder, place))[0]:
        found += look[0]
        place, looks = look[1], looks + 1
    assert found == [f"{number:010000}" for number in range(1_000)]
    assert looks > 1


def test_a_flow_that_heeds_its_timeout_leaves_no_report(folder):
    assert folder.hang_report() is None
    (folder.path / HANG_FILE).write_text("Flow run exceeded timeout of 1 seconds\n")
    assert folder.hang_report() is None


def test_a_flow_that_hung_leaves_what_to_say_and_its_stacks(folder):
    (folder.path / HANG_FILE).write_bytes(b"Over its time\nThread 1:\n  File \xff, line 1\n")
    assert folder.hang_report() == ("Over its time", "Thread 1:\n  File �, line 1\n")


def test_a_folder_says_when_the_supervisor_has_seen_the_hard_timeout_pass(folder):
    assert not folder.is_over_time()
    (folder.path / "timed_out").touch()
    assert folder.is_over_time()


def test_removing_a_folder_twice_is_nothing(folder):
    folder.write("spec.json", SPEC)
    (folder.path / "settle.log").touch()
    folder.remove()
    assert not folder.path.exists()
    folder.remove()
    assert [*run_folders()] == []


def test_the_folders_of_one_run_are_told_from_those_of_others(folder):
    other = RunFolder.make(new_id(), "f" * 16)
    assert [*run_folders(folder.flow_run_id)] == [folder]
    assert {*run_folders()} == {folder, other}
    assert [*run_folders(new_id())] == []


def test_of_a_home_that_is_not_there_no_folders_are_found_and_none_is_made(home):
    assert [*run_folders()] == []
    assert not home.exists()


def test_what_is_no_folder_of_ours_is_read_as_one_of_nobody(home):
    (home / "runs").mkdir(parents=True)
    (home / "runs" / "notes.txt").write_text("mine")
    (found,) = run_folders()
    assert (found.supervisor(), found.token(), found.exit()) == (None, None, None)
    assert found.output(0) == ([], 0)


def test_without_a_home_it_is_said_that_there_is_none(monkeypatch):
    for name in ("PREFECTLITE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECTLITE_HOME", "~nobody-of-that-name")
    with pytest.raises(SettingError):
        [*run_folders()]


def test_the_folder_of_an_identity_is_where_its_lock_is(folder):
    identity = replace(own_identity(), lock_path=str(folder.path / "supervisor.lock"))
    assert RunFolder.of(identity) == folder


def test_what_is_left_of_a_folder_that_was_being_removed_is_removed_by_who_looks_next(folder):
    left = folder.path.rename(folder.path.with_name(f"{folder.path.name}.gone"))
    assert [*run_folders()] == []
    assert not left.exists()


def test_a_folder_is_not_there_any_more_from_the_first_moment_of_its_removal(folder, monkeypatch):
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    folder.remove()
    assert [*run_folders()] == []
    folder.remove()  # by another process
