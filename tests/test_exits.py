"""What is said of a run whose processes are gone."""

import signal
from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite.clock import now
from prefectlite.exits import Exit, count_text, explained, final_state, killed_message
from prefectlite.names import new_id
from prefectlite.records import FlowRun, ProcessIdentity
from prefectlite.states import Cancelling, Paused, Pending, Running

SIGNALLED = Exit(reason="ended", signal=signal.SIGKILL)
HANG = "Flow run exceeded timeout of 1.0 seconds"


def a_process():
    return ProcessIdentity(
        token="t",
        hostname="h",
        machine_id=None,
        boot_id=None,
        pid_namespace=None,
        pid=7,
        start_ticks=1,
        lock_path=None,
    )


def a_run(state, **fields):
    return FlowRun(id=new_id(), name="n", flow_name="f", state=state, **fields)


def begun(state=None):
    return a_run(state or Running(), process=a_process(), infrastructure={"timeout_seconds": 2.5})


def said(flow_run, exit_, hang_message=None):
    state = final_state(flow_run, exit_, hang_message)
    return state.name, state.message


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"exit_code": 0}, "with exit code 0"),
        ({"exit_code": 3}, "with exit code 3"),
        ({"exit_code": 126}, "with exit code 126 (the command cannot be executed)"),
        ({"exit_code": 127}, "with exit code 127 (the command was not found)"),
        ({"exit_code": 128}, "with exit code 128"),
        (
            {"exit_code": 137},
            "with exit code 137 (SIGKILL: for want of memory, perhaps, or by someone's kill -9)",
        ),
        ({"exit_code": 139}, "with exit code 139 (SIGSEGV: a fault in C code)"),
        ({"exit_code": 141}, "with exit code 141 (SIGPIPE)"),
        ({"exit_code": 255}, "with exit code 255"),
        ({"signal": 9}, "by SIGKILL (for want of memory, perhaps, or by someone's kill -9)"),
        ({"signal": 11}, "by SIGSEGV (a fault in C code)"),
        ({"signal": 6}, "by SIGABRT (C code gave up)"),
        ({"signal": 15}, "by SIGTERM (someone told it to end)"),
        ({"signal": 1}, "by SIGHUP (its terminal was closed)"),
        ({"signal": 10}, "by SIGUSR1"),
        ({"signal": signal.SIGRTMIN + 1}, f"by signal {signal.SIGRTMIN + 1}"),
        ({}, "in a way that nobody saw"),
    ],
    ids=str,
)
def test_how_a_process_ended_is_said_with_what_that_mostly_means(given, text):
    assert explained(Exit(reason="ended", **given)) == text


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ended", "It ended by itself, as it was asked to."),
        ("terminated", "Terminated: it ended when it was told to."),
        ("killed", "Killed: it did not end within 30s."),
        ("timed_out", "It was over its time while it was being cancelled, and was ended."),
        ("not_started", "It had not been started."),
        ("lost", "Killed, as its supervisor was."),
    ],
)
def test_a_run_that_was_being_cancelled_is_cancelled_however_it_ended(reason, message):
    state = Cancelling()
    run = replace(begun(state), kill_at=state.timestamp + timedelta(seconds=30))
    assert said(run, Exit(reason=reason, signal=9)) == ("Cancelled", message)
    assert said(run, Exit(reason=reason, signal=9), HANG) == ("Cancelled", message)


@pytest.mark.parametrize("state", [Running(), Paused(), Pending()], ids=lambda state: state.name)
@pytest.mark.parametrize(
    ("reason", "name", "message"),
    [
        ("ended", "Crashed", "Its process ended by SIGKILL (for want of memory"),
        ("terminated", "Crashed", "Its process ended by SIGKILL (for want of memory"),
        ("killed", "Crashed", "Its process ended by SIGKILL (for want of memory"),
        ("timed_out", "TimedOut", "Flow run exceeded timeout of 2.5 seconds"),
        ("not_started", "Crashed", "It could not be started: why"),
        ("lost", "Crashed", "Its supervisor was killed, and its process with it."),
    ],
)
def test_a_run_that_nobody_cancelled_crashed_or_timed_out(state, reason, name, message):
    found = said(begun(state), replace(SIGNALLED, reason=reason, message="why"))
    assert found[0] == name
    assert found[1].startswith(message), found


def test_a_flow_that_did_not_heed_its_own_timeout_timed_out():
    for reason in ("ended", "killed", "lost"):
        found = said(begun(), replace(SIGNALLED, reason=reason), HANG)
        assert found == ("TimedOut", f"{HANG} and did not heed it; it was killed.")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"exit_code": 0}, "Its command ended with exit code 0, and had not run the flow."),
        ({"exit_code": 7}, "Its command ended with exit code 7, and had not run the flow."),
    ],
    ids=str,
)
def test_of_a_command_that_never_began_the_run_it_is_said_so(given, message):
    assert said(a_run(Pending()), Exit(reason="ended", **given)) == ("Crashed", message)


def test_where_nobody_knows_why_it_could_not_be_started_that_is_said():
    found = said(a_run(Pending()), Exit(reason="not_started"))
    assert found == ("Crashed", "It could not be started: nobody knows why")


@pytest.mark.parametrize(
    ("swept", "more"),
    [
        (0, ""),
        (1, " What it had left (1 process) was ended."),
        (3, " What it had left (3 processes) was ended."),
    ],
)
def test_what_a_cancelled_run_had_left_is_said(swept, more):
    told = said(begun(Cancelling()), Exit(reason="terminated", exit_code=0, swept=swept))[1]
    assert told == f"Terminated: it ended when it was told to.{more}"


@pytest.mark.parametrize(
    ("seconds", "processes", "message"),
    [
        (None, None, "Killed."),
        (None, 2, "Killed (2 processes)."),
        (30, None, "Killed: it did not end within 30s."),
        (0.25, 1, "Killed (1 process): it did not end within 0.2s."),
        (0, 1, "Killed (1 process): it did not end within 0ms."),
        (-5, None, "Killed: it did not end within 0ms."),
    ],
)
def test_what_is_said_of_a_run_that_was_killed(seconds, processes, message):
    state = replace(Cancelling(), timestamp=now())
    kill_at = None if seconds is None else state.timestamp + timedelta(seconds=seconds)
    assert killed_message(replace(begun(state), kill_at=kill_at), processes) == message


def test_numbers_of_processes_are_said_in_words():
    assert [count_text(number) for number in (0, 1, 2)] == [
        "0 processes",
        "1 process",
        "2 processes",
    ]
