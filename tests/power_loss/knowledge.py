"""What programs had been promised by a moment, from their notes; ``audits`` compares a disk with it.

A flow run's state is durable once it is acknowledged; that of a task run, once a flow run's is that was
begun to be saved after it. What was being changed may be as it was before or after.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

#: A version of a run's state with its type and its name.
State = tuple[int, str, str]


@dataclass(slots=True)
class Knowledge:
    """What had been promised.

    Attributes:
        step: The step that the workload was at.
        durable: By the ids of runs, the states that must be on record.
        parents: By the ids of task runs, their flow runs.
        may_be: By kind and name, every value that a block or a backup may have, or ``flow_run`` for a
            run that was deleted; None means that it is not there.
        at_backup: By the number of a backup, the flow runs' states that it must have.
    """

    step: str = ""
    durable: dict[str, list[State]] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    may_be: dict[tuple[str, str], set[str | int | None]] = field(default_factory=dict)
    at_backup: dict[int, dict[str, State]] = field(default_factory=dict)
    _place: int = 0
    _begun: dict[str, int] = field(default_factory=dict)
    _waiting: list[tuple[int, str, State]] = field(default_factory=list)

    def learn(self, note: bytes) -> None:
        """Take the next note."""
        self._place += 1
        values = json.loads(note)
        match values["told"]:
            case "step":
                self.step = values["name"]
            case "saving":
                self._begun[values["key"]] = self._place
            case "saved":
                self._saved(values)
            case "seen":
                self.durable.setdefault(values["id"], []).append(_state(values))
            case "putting":
                self._may_be(values).add(values["value"])
                if values["what"] == "backup":
                    newest = {id_: states[-1] for id_, states in self.durable.items()}
                    self.at_backup[values["value"]] = newest
            case "put":
                self._may_be(values).intersection_update({values["value"]})

    def is_deleted(self, run_id: str) -> bool:
        """Return whether a run may be gone, with its flow run or by itself."""
        owner = self.parents.get(run_id, run_id)
        return None in self.may_be.get(("flow_run", owner), ())

    def _saved(self, values: dict[str, Any]) -> None:
        id_, state = values["id"], _state(values)
        if values["parent"] is not None:
            self.parents[id_] = values["parent"]
            self._waiting.append((self._place, id_, state))
            return
        begun = self._begun.pop(values["key"])
        for place, task_run_id, earlier in self._waiting:
            if place < begun:
                self.durable.setdefault(task_run_id, []).append(earlier)
        self._waiting = [each for each in self._waiting if each[0] >= begun]
        self.durable.setdefault(id_, []).append(state)

    def _may_be(self, values: dict[str, Any]) -> set[str | int | None]:
        # A run that is to be deleted is there before, and a block or a backup is not.
        before = "there" if values["what"] == "flow_run" else None
        return self.may_be.setdefault((values["what"], values["name"]), {before})


def _state(values: dict[str, Any]) -> State:
    version, type_, name = values["state"]
    return version, type_, name
