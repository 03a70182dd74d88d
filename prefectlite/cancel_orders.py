"""What ``flow-run cancel`` does with the runs that it is given, and what it says about each.

``cli`` only; ``cancellation`` does the work. It is imported by a command that lists, too, so it
imports that only when there is something to cancel.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from prefectlite import console
from prefectlite.errors import InfrastructureError, PrefectLiteError
from prefectlite.records import FlowRun
from prefectlite.registry import Registry
from prefectlite.settings import PREFECTLITE_HOME, PREFECTLITE_REGISTRY, child_environment

#: What a run gets to end by itself, where nobody says otherwise; as in Prefect 2.8.
DEFAULT_GRACE_SECONDS = 30.0
# A run that heeds the request has ended by then, and nothing need go on in the background.
_MOMENT_SECONDS = 0.5


class Orders:
    """Cancels runs, one after the other, and goes on where one of them cannot be.

    Attributes:
        exit_code: That of the last one that could not be cancelled; 0 where all could.
    """

    def __init__(self, registry: Registry, *, grace_seconds: float, is_forced: bool) -> None:
        self.exit_code = 0
        self._registry = registry
        self._grace_seconds = grace_seconds
        self._is_forced = is_forced

    def carry_out(self, flow_runs: Sequence[FlowRun], *, wait: bool) -> list[FlowRun]:
        """Cancel the runs and return them as they are then.

        Args:
            wait: Return when they have ended; else leave those that take longer to a process in the
                background.
        """
        from prefectlite.cancellation import Enforcement, request_cancellation, wake

        asked = self._each(
            flow_runs,
            lambda run: request_cancellation(
                self._registry, run, grace_seconds=self._grace_seconds
            ),
        )
        begun = []
        for run in asked:
            if run.state.is_final() and run.process is None:  # nothing of it can go on
                self._tell(run)
            else:
                begun.append(run)
        if not self._is_forced:
            for run in begun:
                with suppress(PrefectLiteError):  # told when it is enforced
                    # First, so that a supervisor sees to it from here on, whatever becomes of us.
                    Enforcement(self._registry, run.id).advance()
                    wake(run)
        # Also what has just ended: a run of a deployment that it waited for may go on.
        done = self._each(begun, self._enforce if wait or self._is_forced else self._leave)
        now = {run.id: run for run in done}
        return [now.get(run.id, run) for run in asked]

    def _each(
        self, flow_runs: Sequence[FlowRun], do: Callable[[FlowRun], FlowRun]
    ) -> list[FlowRun]:
        done = []
        for flow_run in flow_runs:
            try:
                done.append(do(flow_run))
            except PrefectLiteError as error:
                console.error(error)
                self.exit_code = error.exit_code
        return done

    def _enforce(self, flow_run: FlowRun) -> FlowRun:
        from prefectlite.cancellation import enforce_cancellation, mark_cancelled

        try:
            if flow_run.supervisor is None and flow_run.process is not None:
                flow_run = self._wait_a_moment(flow_run)
                # Nobody else sees to its end, should this command be killed. Who leads a session has
                # no terminal to lose, and may be what was left to do it.
                if not flow_run.state.is_final() and os.getsid(0) != os.getpid():
                    self._hand_over(flow_run)
            flow_run = enforce_cancellation(self._registry, flow_run)
        except InfrastructureError as error:
            flow_run = self._registry.find_flow_run(flow_run.id)
            if flow_run.state.is_final():  # what does not end is a run that it waited for
                self._tell(flow_run)
                error.hint = error.hint or f"see: prefectlite flow-run ls --parent {flow_run.id}"
                raise
            if not self._is_forced:
                raise
            console.note(str(error))
            flow_run = mark_cancelled(self._registry, flow_run)
        self._tell(flow_run)
        return flow_run

    def _leave(self, flow_run: FlowRun) -> FlowRun:
        """Give a run a moment to end, and leave it to another process if it does not."""
        if flow_run.process is None and flow_run.launcher is None:  # there is nothing to wait for
            return self._enforce(flow_run)
        flow_run = self._wait_a_moment(flow_run)
        if not flow_run.state.is_final():
            self._hand_over(flow_run)
        self._tell(flow_run)
        return flow_run

    def _wait_a_moment(self, flow_run: FlowRun) -> FlowRun:
        from prefectlite.waiting import wait_for_flow_run

        return wait_for_flow_run(self._registry, flow_run.id, timeout_seconds=_MOMENT_SECONDS)

    def _hand_over(self, flow_run: FlowRun) -> None:
        """Have another process see to a run's end, which outlives this one."""
        import subprocess  # noqa: TID251 - the command goes on as another process, not a run

        # -P: a file of the current folder may have the name of a module that is needed.
        command = [sys.executable, "-P", "-m", "prefectlite", "flow-run", "cancel", flow_run.id]
        background = subprocess.Popen(
            [*command, "--wait", "--grace", f"{self._grace_seconds:f}"],
            env=child_environment(
                {
                    PREFECTLITE_HOME.name: str(PREFECTLITE_HOME.value()),
                    PREFECTLITE_REGISTRY.name: self._registry.url,
                }
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        background.returncode = 0  # it outlives this command, which does not wait for it

    def _tell(self, flow_run: FlowRun) -> None:
        state = flow_run.state
        why = f" {state.message}" if state.message else ""
        told = f"{state.name} flow run '{flow_run.name}' ({flow_run.id}).{why}"
        console.say(console.escaped(told))
