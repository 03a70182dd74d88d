"""What a registry does with runs: the specification, in as few words as Python allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prefectlite.records import FlowRun, Pause, ProcessIdentity, Run, StateChange, TaskRun
from prefectlite.states import State

FINAL = "COMPLETED FAILED CANCELLED CRASHED"
#: What may follow what, as the documentation says; after a final state nothing.
MAY_FOLLOW = {
    "SCHEDULED": "SCHEDULED PENDING RUNNING CANCELLING FAILED CANCELLED CRASHED",
    "PENDING": f"SCHEDULED PENDING RUNNING CANCELLING {FINAL}",
    "RUNNING": f"SCHEDULED PAUSED CANCELLING {FINAL}",
    "PAUSED": f"SCHEDULED RUNNING CANCELLING {FINAL}",
    "CANCELLING": "CANCELLED COMPLETED",
}


class Refused(Exception):  # noqa: N818 - an answer of the model, and no error of the test
    """The model says that something cannot be done: ``why``, and which state is in the way."""

    def __init__(self, why: str, current: State | None = None) -> None:
        super().__init__(why)
        self.why, self.current = why, current


class Runs:
    """All that is on record of runs. A method does all of what it says, or refuses and does nothing."""

    def __init__(self) -> None:
        self.by = ""  # who does the next thing: user@host:PID
        self.records: dict[str, FlowRun | TaskRun] = {}  # in the order of their creation
        self.history: dict[str, list[StateChange]] = {}
        self.pauses: dict[str, dict[int, Pause]] = {}  # by the version of the Paused state

    def get(self, id_: str) -> FlowRun | TaskRun:
        """Return a run; one that is not on record is gone."""
        if id_ not in self.records:
            raise Refused("gone")
        return self.records[id_]

    def create(self, *runs: FlowRun | TaskRun) -> None:
        """Put runs on record; task runs, only while their flow run is Running."""
        for run in runs:
            if isinstance(run, TaskRun) and self.get(run.flow_run_id).state.type != "RUNNING":
                raise Refused("not running", self.get(run.flow_run_id).state)
        for run in runs:
            self.records[run.id], self.pauses[run.id] = run, {}
            self.history[run.id] = [StateChange(1, run.state, self.by)]

    def check(self, seen: Run, state: State) -> Run:
        """Return a run as it is, if who saw it so may give it this state."""
        run = self.get(seen.id)
        follows = MAY_FOLLOW.get(run.state.type, "").split()
        if run.state_version != seen.state_version or state.type not in follows:
            raise Refused("conflict", run.state)
        if isinstance(run, TaskRun) and state.type == "RUNNING":
            flow_run = self.get(run.flow_run_id)
            if flow_run.state.type not in {"RUNNING", "PAUSED"}:
                raise Refused("not running", flow_run.state)
        return run

    def change(self, seen: Run, state: State, **others: object) -> Run:
        """Give a run its next state, and other fields with it."""
        run = self.check(seen, state)
        is_attempt = state.type == "RUNNING" and run.state.type != "PAUSED"
        self.records[run.id] = changed = replace(
            run,
            state=state,
            state_version=run.state_version + 1,
            run_count=run.run_count + is_attempt,
            started_at=run.started_at or (state.timestamp if is_attempt else None),
            ended_at=state.timestamp if state.type in FINAL else None,
            **others,
        )
        self.history[run.id].append(StateChange(changed.state_version, state, self.by))
        return changed

    def begin(self, seen: FlowRun, state: State, process: ProcessIdentity) -> FlowRun:
        """Let a process run a flow run: it says who it is with the state."""
        pid = seen.infrastructure_pid or f"{process.hostname}:{process.pid}"
        own = {"process": process, "supervisor": seen.supervisor, "infrastructure_pid": pid}
        return self.change(seen, state, **own)

    def pause(self, seen: FlowRun, state: State, pause: Pause, old: Pause | None) -> FlowRun:
        """Pause a flow run, once for each key; an old pause that is given up lets go of its key."""
        self.check(seen, state)
        given_up = old and old.state_version
        others = [one for version, one in self.pauses[seen.id].items() if version != given_up]
        if pause.key is not None and pause.key in {one.key for one in others}:
            raise Refused("key")
        if given_up in self.pauses[seen.id]:
            self._keep(seen.id, given_up, key=None)
        paused = self.change(seen, state)
        self.pauses[seen.id][paused.state_version] = pause
        self._keep(seen.id, paused.state_version, state_version=paused.state_version)
        return paused

    def resume(self, seen: FlowRun, state: State, answer: Mapping[str, object] | None) -> FlowRun:
        """Let a paused flow run go on, and keep the answer with its pause."""
        resumed = self.change(seen, state)
        if seen.state_version in self.pauses[seen.id]:
            self._keep(seen.id, seen.state_version, run_input=answer)
        return resumed

    def _keep(self, id_: str, version: int, **fields: object) -> None:
        self.pauses[id_][version] = replace(self.pauses[id_][version], **fields)

    def delete(self, id_: str) -> None:
        """Forget a run, its history and its pauses, and the task runs of a flow run."""
        for run in [*self.records.values()]:
            if run.id == id_ or (isinstance(run, TaskRun) and run.flow_run_id == id_):
                for kept in (self.records, self.history, self.pauses):
                    del kept[run.id]
