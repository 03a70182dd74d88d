"""The journal: what was acknowledged, in a file that prefectlite knows nothing of.

Flows write their facts themselves (``flows.note``), the driver writes those of commands. A line is one
JSON object, and one write.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was acknowledged.

    Attributes:
        fact: What it is: ``flow_began``, ``task_returned``, ``created``, ...
        run: The flow run, by its id or name; empty where it is not about one.
        task: The task run's id; empty where it is not about one.
        attempt: Which attempt it was, from 1; 0 where it is not about one.
        types: The state types of which the run must have, or have had, one.
        pid: Who wrote it.
        text: What a person is to be told.
    """

    fact: str
    run: str = ""
    task: str = ""
    attempt: int = 0
    types: Sequence[str] = ()
    pid: int = 0
    text: str = ""


class Journal:
    """The file; safe to write to from many processes and threads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, fact: Fact) -> None:
        """Add a fact."""
        line = json.dumps({name: value for name, value in asdict(fact).items() if value}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def facts(self) -> list[Fact]:
        """Return all facts, in their order."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [Fact(**json.loads(line)) for line in lines]
