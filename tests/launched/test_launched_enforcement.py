"""Who cancels a launched run, what of it they can reach, and what goes with it."""

import os
import pty
import signal
import sys
from dataclasses import replace

import pytest

from prefectlite import cancellation
from prefectlite.cancel_orders import Orders
from prefectlite.cancellation import Enforcement, enforce_cancellation, request_cancellation
from prefectlite.cli import main
from prefectlite.errors import InfrastructureError, InfrastructureNotAvailable
from prefectlite.infrastructure.process import Process
from prefectlite.liveness import is_alive
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.run_filters import FlowRunFilter, TaskRunFilter
from prefectlite.states import Running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

#: Swallows whatever is raised in it, and answers when it is asked.
STUBBORN = """
@flow
def runs():
    tell("ready")
    while True:
        try:  # twice, since another interruption may come while the first is handled
            try:
                hear("ask")
                tell("answer")
                threading.Event().wait()
            except BaseException:
                tell("told")
        except BaseException:
            pass
"""


BY_ITSELF = "It ended by itself, as it was asked to."


@pytest.fixture
def other(registry):
    """Put another run on record that seems to run where a launched one does, and to be no process."""

    def create(launched, **changes):
        run = launched.run
        fields = {"id": new_id(), "name": "other", "process": None, **changes}
        registry.create_flow_run(replace(run, **fields))
        return registry.find_flow_run(fields["id"])

    return create


def is_untouched(launched):
    """Return whether nobody has told a run to end, now that it has answered."""
    launched.tell("ask").has("answer")
    return not (launched.folder / "told").exists() and launched.run.state.is_running()


# What can be reached of it.


def test_a_run_of_which_no_process_is_known_is_cancelled_and_says_so(registry, command):
    run = FlowRun(id=new_id(), name="n", flow_name="f", state=Running())
    registry.create_flow_run(run)
    _, error = command("flow-run", "cancel", run.id, "--wait").end()
    assert "could not be found out: its process was never recorded" in error
    assert registry.find_flow_run(run.id).state.name == "Cancelled"


def test_a_run_whose_infrastructure_cannot_be_built_stays_cancelling(
    registry, launched, command, other
):
    run = launched(STUBBORN).has()
    unknown = other(run, infrastructure={"type": "spaceship"}, infrastructure_pid="x:1")
    _, error = command("flow-run", "cancel", unknown.id, "--wait").end(5)
    assert "cannot be ended from here: there is no infrastructure called 'spaceship'" in error
    assert "hint: install here what its infrastructure needs" in error
    assert registry.find_flow_run(unknown.id).state.name == "Cancelling"
    assert is_untouched(run)


def test_a_run_of_another_host_is_left_to_it_and_can_only_be_marked(
    registry, launched, command, other
):
    run = launched(STUBBORN).has()
    away = replace(run.run.supervisor, hostname="away", boot_id="away", token="away")
    remote = other(run, supervisor=away, infrastructure_pid=f"away:{away.pid}")
    _, error = command("flow-run", "cancel", remote.id, "--wait").end(5)
    assert f"away:{away.pid} is a process on another host" in error
    assert registry.find_flow_run(remote.id).state.name == "Cancelling"
    _, error = command("flow-run", "cancel", remote.id, "--force").end()
    state = registry.find_flow_run(remote.id).state
    assert (state.name, state.message) == (
        "Cancelled",
        "Marked by hand; whether it still runs is not known.",
    )
    assert is_untouched(run)


def test_a_run_whose_process_is_not_proven_to_be_its_own_can_only_be_marked(
    registry, launched, other, monkeypatch
):
    monkeypatch.setattr(cancellation, "_SUPERVISOR_SECONDS", 0.0)
    run = launched(STUBBORN).has()
    supervisor = run.run.supervisor
    doubtful = replace(supervisor, token="other", start_ticks=supervisor.start_ticks + 1)
    assert is_alive(doubtful)  # its lock is held
    doubted = other(run, supervisor=doubtful)
    asked = request_cancellation(registry, doubted, grace_seconds=0)
    with pytest.raises(InfrastructureError, match="cannot be proven") as raised:
        enforce_cancellation(registry, asked)
    assert f"cancel --force {doubted.id}" in raised.value.hint
    assert registry.find_flow_run(doubted.id).state.name == "Cancelling"
    Orders(registry, grace_seconds=0, is_forced=True).carry_out([doubted], wait=True)
    assert registry.find_flow_run(doubted.id).state.message.startswith("Marked by hand")
    assert is_untouched(run)


def test_force_ends_what_can_be_reached(launched, command):
    run = launched(STUBBORN).has()
    command("flow-run", "cancel", run.id, "--force", "--grace", "0.5").end()
    assert run.gone().state.message == "Killed: it did not end within 0.5s."


def test_a_run_whose_supervisor_is_killed_while_it_is_cancelled_is_cancelled(launched, command):
    run = launched(STUBBORN).has()
    cancel = command("flow-run", "cancel", run.id, "--wait")
    command.until(run.is_cancelling, "Cancelling")
    run.kill(run.run.supervisor)
    cancel.end()
    state = run.gone().state
    assert (state.name, state.message) == ("Cancelled", "Killed, as its supervisor was.")


def test_after_another_error_it_is_tried_again(registry, launched, monkeypatch):
    run = launched(STUBBORN).has()
    asked = request_cancellation(registry, run.run, grace_seconds=0)
    with monkeypatch.context() as patch:

        def fails(*_, **__):
            raise InfrastructureError("just now")

        patch.setattr(Process, "kill", fails)
        with pytest.raises(InfrastructureError, match="just now"):
            enforce_cancellation(registry, asked)
    assert run.run.state.name == "Cancelling"
    assert enforce_cancellation(registry, asked).state.name == "Cancelled"
    run.gone()


# Who asks for it.


def test_two_who_cancel_at_once_agree(launched, command):
    run = launched(STUBBORN).has()
    arguments = ["flow-run", "cancel", run.id, "--wait", "--grace", "1"]
    both = [command(*arguments), command(*arguments)]
    for cancel in both:
        cancel.end()
    assert run.gone().state.message.startswith("Killed: it did not end within 1")


def test_the_sooner_of_two_ends_of_a_grace_period_holds(launched, command):
    run = launched(STUBBORN).has()
    first = command("flow-run", "cancel", run.id, "--wait", "--grace", "3600")
    run.has("told")
    command("flow-run", "cancel", run.id, "--wait", "--grace", "0.2").end()
    assert run.gone().state.message.startswith("Killed: it did not end within ")
    first.end()


def test_a_later_end_of_the_grace_period_does_not_hold(launched, command):
    run = launched(STUBBORN).has()
    first = command("flow-run", "cancel", run.id, "--wait", "--grace", "1.5")
    run.has("told")
    command("flow-run", "cancel", run.id, "--wait", "--grace", "3600").end()
    assert run.gone().state.message == "Killed: it did not end within 1.5s."
    first.end()


def test_what_ctrl_c_leaves_another_command_finishes_at_the_same_time(launched, command):
    run = launched(STUBBORN).has()
    first = command("flow-run", "cancel", run.id, "--wait", "--grace", "3")
    run.has("told")
    first.process.send_signal(signal.SIGINT)
    first.end(130)
    assert run.run.state.name == "Cancelling"
    assert run.run.kill_at is not None
    command("flow-run", "cancel", run.id, "--wait").end()
    assert run.gone().state.message == "Killed: it did not end within 3.0s."


def test_a_command_that_is_killed_while_it_waits_leaves_the_rest_to_the_supervisor(
    launched, command
):
    run = launched(STUBBORN).has()
    asked = command("flow-run", "cancel", run.id, "--wait", "--grace", "1.5")
    run.has("told")
    asked.process.kill()
    asked.end(-signal.SIGKILL)
    state, left = run.ended()
    assert (state.name, left) == ("Cancelled", set())
    assert state.message == "Killed: it did not end within 1.5s."


def test_a_request_that_nobody_enforces_is_enforced_by_the_run_itself(launched):
    # As where the command is killed right after it has put the request on record.
    run = launched(STUBBORN).has()
    request_cancellation(run.registry, run.run, grace_seconds=0.3)
    state, left = run.ended()
    assert (state.message, left) == ("Killed: it did not end within 0.3s.", set())


def test_a_command_that_does_not_wait_is_outlived_by_the_cancellation(launched, command):
    run = launched(STUBBORN).has()
    ours, theirs = pty.openpty()
    # A session with a terminal of its own, which is closed as soon as the command has ended.
    cancel = command(
        *["flow-run", "cancel", run.id, "--grace", "1.5"],
        prefix=["setsid", "--ctty", "--wait"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
    )
    os.close(theirs)
    assert cancel.process.wait(60) == 0
    assert run.run.state.name == "Cancelling"
    assert b"Cancelling flow run" in os.read(ours, 4096)
    os.close(ours)
    state, left = run.ended()
    assert (state.message, left) == ("Killed: it did not end within 1.5s.", set())
    run.gone()


# What goes with it.


def test_subflows_and_tasks_of_the_same_process_are_cancelled(registry, launched, command):
    code = """
@task
def waits():
    stay()

@flow
def inner():
    waits()

@flow
def runs():
    inner()
"""
    run = launched(code).has()
    command("flow-run", "cancel", run.id, "--wait").end()
    run.gone()
    runs = registry.list_flow_runs()
    assert [one.state.name for one in runs] == ["Cancelled", "Cancelled"]
    (task_run,) = registry.list_task_runs(TaskRunFilter(flow_run_ids=[runs[0].id]))
    assert task_run.state.name == "Cancelled"


def test_tasks_in_a_pool_of_processes_are_ended(registry, launched, command):
    code = """
from prefectlite.task_runners import ProcessPoolTaskRunner

@task
def waits(number):
    tell(f"began {number}")
    threading.Event().wait()

@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def runs():
    waits.map([1, 2])
    stay()
"""
    run = launched(code).has("began 1").has("began 2")
    command("flow-run", "cancel", run.id, "--wait").end()
    assert run.gone().state.name == "Cancelled"
    states = {
        one.state.name for one in registry.list_task_runs(TaskRunFilter(flow_run_ids=[run.id]))
    }
    assert states == {"Cancelled"}


DEPLOYS = """
from prefectlite.deployments import Deployment, run_deployment

@flow
def inner():
    tell("began")
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            if {heeds}:
                raise

def deploys():
    Deployment.build_from_flow(inner, "d", apply=True, work_queue_name="q")
    tell("ready")
    run_deployment("inner/d")

@flow
def between():
    deploys()

@flow
def runs():
    {call}()
"""


@pytest.fixture
def deployed(registry, launched, command):
    """Launch a run that waits for one of a deployment, which an agent then launches; return both."""

    def start(*, heeds, call="deploys"):
        outer = launched(DEPLOYS.format(heeds=heeds, call=call)).has()
        runs = command.until(
            lambda: registry.list_flow_runs(FlowRunFilter(flow_names=["inner"])), "a run of it"
        )
        command("agent", "start", "--run-once", "-q", "q").end()
        outer.has("began")
        return outer, type(outer)(registry, runs[0].id, outer.folder)

    return start


@pytest.mark.parametrize("call", ["deploys", "between"], ids=["flow", "subflow"])
@pytest.mark.parametrize("heeds", [True, False], ids=["heeds", "stubborn"])
def test_a_run_of_a_deployment_is_ended_with_the_flow_that_waits_for_it(
    deployed, command, heeds, call
):
    outer, inner = deployed(heeds=heeds, call=call)
    assert outer.run.supervisor != inner.run.supervisor
    grace = "30" if heeds else "1"
    command("flow-run", "cancel", outer.id, "--wait", "--grace", grace).end()
    assert outer.run.state.name == "Cancelled"
    assert outer.run.state.message == BY_ITSELF
    assert inner.run.state.name == "Cancelled"
    assert inner.run.state.message.startswith("Killed") == (not heeds)
    outer.gone()
    inner.gone()


@pytest.fixture
def ended_early(deployed, monkeypatch):
    """As ``deployed``, but the first run has ended when the second is asked to end."""
    outer, inner = deployed(heeds=False)
    find = cancellation._runs_elsewhere

    def find_late(registry, flow_run):
        outer.ended()
        return find(registry, flow_run)

    monkeypatch.setattr(cancellation, "_runs_elsewhere", find_late)
    return outer, inner


def test_a_run_of_a_deployment_is_waited_for_though_its_flow_ends_before_it_is_asked_to(
    registry, ended_early
):
    outer, inner = ended_early
    Orders(registry, grace_seconds=3, is_forced=False).carry_out([outer.run], wait=True)
    assert outer.run.state.message == BY_ITSELF
    assert inner.run.state.name == "Cancelled"


@pytest.fixture
def on_another_host(ended_early, monkeypatch):
    """As ``ended_early``, but the second run cannot be ended from here."""
    outer, inner = ended_early
    advance = Enforcement.advance_alone

    def unreachable(self, flow_run):
        if flow_run.id == inner.id:
            raise InfrastructureNotAvailable("it is on another host")
        return advance(self, flow_run)

    monkeypatch.setattr(Enforcement, "advance_alone", unreachable)
    return outer, inner


def test_who_deletes_such_a_flow_is_told_by_the_exit_code_that_the_run_goes_on(
    registry, on_another_host, capsys
):
    outer, inner = on_another_host
    code = main(["flow-run", "delete", "--force", outer.id])
    assert code == InfrastructureNotAvailable.exit_code
    assert "error: it is on another host" in capsys.readouterr().err
    assert [run.id for run in registry.list_flow_runs()] == [inner.id]


def test_where_such_a_run_cannot_be_ended_its_flow_is_told_of_all_the_same(
    registry, on_another_host, monkeypatch, capsys
):
    outer, inner = on_another_host
    for is_forced in (False, True):
        orders = Orders(registry, grace_seconds=3, is_forced=is_forced)
        if is_forced:  # its flow has ended now: as who asks while it ends
            monkeypatch.setattr(cancellation, "request_cancellation", lambda *_, **__: outer.run)
        orders.carry_out([outer.run], wait=True)
        told = capsys.readouterr().err.splitlines()
        assert told[0].startswith(f"Cancelled flow run '{outer.run.name}'")
        assert told[1:] == [
            "error: it is on another host",
            f"hint: see: prefectlite flow-run ls --parent {outer.id}",
        ]
        assert orders.exit_code == InfrastructureNotAvailable.exit_code
    assert inner.run.state.name == "Cancelling"


def test_who_waits_for_a_run_of_a_deployment_to_end_does_not_look_all_the_time(
    registry, deployed, monkeypatch
):
    outer, inner = deployed(heeds=False)
    asked = request_cancellation(registry, outer.run, grace_seconds=1.5)
    looks = []
    advance = Enforcement.advance

    def counted(self):
        looks.append(self)
        return advance(self)

    monkeypatch.setattr(Enforcement, "advance", counted)
    enforce_cancellation(registry, asked)
    assert inner.gone().state.name == "Cancelled"
    assert outer.gone().state.name == "Cancelled"
    assert len(looks) < 10
