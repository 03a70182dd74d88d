"""How the tests of completion ask what may stand at the cursor."""

from dataclasses import replace
from pathlib import Path

import pytest

from prefectlite import completion
from prefectlite.clock import EPOCH
from prefectlite.deployment_records import Deployment
from prefectlite.names import new_id
from prefectlite.records import FlowRun, Pause, TaskRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Completed, Paused, Pending, Running


@pytest.fixture
def ask(capfdbinary):
    """Return the lines of the answer to words; the last of them is under the cursor."""

    def ask_for(*words, shell="fish"):
        capfdbinary.readouterr()
        assert completion.answer([shell, "--", *words]) == 0
        captured = capfdbinary.readouterr()
        assert captured.err == b""
        return captured.out.decode("utf-8", "surrogateescape").splitlines()

    return ask_for


@pytest.fixture
def offered(ask):
    """Return what is offered for words, with what is said beside each, in its order."""

    def offers(*words):
        kind, *lines = ask(*words)
        assert kind == "words"
        return dict(line.split("\t") for line in lines)

    return offers


class Record:
    """Puts on record what a shell may offer."""

    def __init__(self):
        self.registry = open_registry(PREFECTLITE_REGISTRY.value())

    def flow_run(self, name, *states, **fields):
        """A flow run that was Pending, Running and then took these states."""
        fields = {"id": new_id(), "flow_name": "my-flow", "state": Pending(), **fields}
        flow_run = FlowRun(name=name, **fields)
        self.registry.create_flow_run(flow_run)
        for state in (Running(), *states):
            flow_run = self.registry.change_state(flow_run, state)
        return flow_run

    def completed(self, name, **fields):
        return self.flow_run(name, Completed(), **fields)

    def paused(self, name, *, asks_for):
        flow_run = self.flow_run(name)
        schema = {"properties": {key: {"type": type_} for key, type_ in asks_for.items()}}
        pause = Pause(input_schema=schema)
        return self.registry.pauses.pause_flow_run(flow_run, Paused(), pause)

    def deployment(self, name="nightly", **fields):
        fields = {"flow_name": "etl", "entrypoint": "my_flows.py:etl", **fields}
        fields = {"id": new_id(), "working_directory": str(Path.cwd()), **fields}
        return self.registry.deployments.save_deployment(Deployment(name=name, **fields))

    def task_run(self, flow_run, name):
        task_run = TaskRun(
            id=new_id(),
            name=name,
            task_name="my_task",
            flow_run_id=flow_run.id,
            state=Running(),
            created_at=EPOCH,
        )
        self.registry.create_task_runs([replace(task_run, started_at=EPOCH)])
        return task_run


@pytest.fixture
def record():
    return Record()
