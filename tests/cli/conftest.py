"""How the tests of the command line run it, in this process and in another."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import prefectlite
from prefectlite import block_types, cli
from prefectlite.clock import from_microseconds, now
from prefectlite.names import new_id
from prefectlite.records import FlowRun, LogLine, TaskRun
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.states import Completed, Failed, Pending, Running

DEADLINE_SECONDS = 60
SOURCES = str(Path(prefectlite.__file__).parents[1])


@dataclass
class Ended:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    """Run a command line in this process; each argument is one word, or several in one string."""

    def run_command(line, *more):
        capsys.readouterr()
        exit_code = cli.main([*line.split(), *more])
        captured = capsys.readouterr()
        return Ended(exit_code, captured.out, captured.err)

    return run_command


@pytest.fixture
def start():
    """Run a command line in a process of its own; keyword arguments are subprocess.run's."""

    def start_command(*arguments, env=None, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        environment = {**os.environ, "PYTHONPATH": SOURCES, **(env or {})}
        return subprocess.run(
            [sys.executable, "-m", "prefectlite", *arguments],
            env={name: value for name, value in environment.items() if value is not None},
            timeout=DEADLINE_SECONDS,
            check=False,
            **options,
        )

    return start_command


#: A type of blocks of a person's own.
_BLOCKS = """
from typing import Annotated

from prefectlite.blocks import Block
from pydantic import BaseModel, Field, SecretBytes, SecretStr, field_validator

print("what a module prints is not data")

class Login(BaseModel):
    user: str = "me"
    password: SecretStr | None = None

class Warehouse(Block):
    '''Where things are.

    Attributes:
        host: The server's name, which is long
            enough to go on in a second line.
        login, raw: Two in ``one``.
        retries: This is not what is shown.
    '''

    host: str
    login: Login = Login()
    retries: int = Field(default=3, description="How often to try.")
    tags: list[Annotated[str, Field(min_length=1)]] | None = None
    tokens: dict[str, SecretStr] = {}
    raw: SecretBytes = SecretBytes(b"")
    other: Block | None = None

    @field_validator("login")
    def check(cls, login):
        if login.user == "root":
            raise ValueError(f"not with {login.password and login.password.get_secret_value()}")
        return login
"""


@pytest.fixture
def blocks_folder(flows_folder):
    """A current folder with ``my_blocks.py``, which has the type ``warehouse``; the type is forgotten."""
    block_types.load_built_in()  # these stay
    before = {**block_types.known}
    for type_, class_ in before.items():
        if not class_.__module__.startswith("prefectlite."):  # of a module of other tests
            del block_types.known[type_]
    (flows_folder / "my_blocks.py").write_text(_BLOCKS)
    yield flows_folder
    block_types.known.clear()
    block_types.known.update(before)


@pytest.fixture
def mine(blocks_folder, run):
    """A current folder whose type of blocks is registered."""
    assert run("block register -f my_blocks.py").exit_code == 0
    return blocks_folder


class Seeds:
    """Puts runs on record."""

    def __init__(self):
        self.registry = open_registry(PREFECTLITE_REGISTRY.value())

    def flow_run(self, name="gigantic-cockatoo", *, end=None, **fields):
        """A flow run that Completed, or took ``end``; with ``end=False`` it is still Running."""
        fields = {"id": new_id(), "flow_name": "my-flow", "state": Pending(), **fields}
        flow_run = FlowRun(name=name, **fields)
        self.registry.create_flow_run(flow_run)
        flow_run = self.registry.change_state(flow_run, Running())
        return flow_run if end is False else self.end(flow_run, end)

    def end(self, flow_run, state=None):
        return self.registry.change_state(flow_run, state or Completed())

    def task_run(self, flow_run, name="my_task-0", *, end=None, id_=None):
        moment = now()
        task_run = TaskRun(
            id=id_ or new_id(),
            name=name,
            task_name="my_task",
            flow_run_id=flow_run.id,
            state=Running(),
            created_at=moment,
            started_at=moment,
        )
        self.registry.create_task_runs([task_run])
        return self.registry.change_state(task_run, end or Completed())

    def log(self, flow_run, message, *, task_run=None, level=20, logger=None):
        kind = "flow_runs" if task_run is None else "task_runs"
        self.registry.add_log_line(
            LogLine(
                flow_run.id,
                task_run.id if task_run else None,
                level,
                logger or f"prefectlite.{kind}",
                message,
                from_microseconds(1_700_000_000_513_000),
            )
        )
        self.registry.flush_logs()


@pytest.fixture
def seeds():
    return Seeds()


@pytest.fixture
def filled(run, seeds, mine):
    """One record of each kind but agents."""
    flow_run = seeds.flow_run(end=False, tags=("a", "b"), parameters={"x": [1]})
    seeds.task_run(flow_run)
    seeds.end(flow_run, Failed("why"))
    for line in (
        "deployment build deployed_flows.py:etl -n nightly -q default --apply",
        "block create string note value=hi",
        "block create custom-webhook chat url=http://localhost:1/",
        "notification create --state Failed --block custom-webhook/chat",
        "profile create ci",
    ):
        ended = run(line)
        assert ended.exit_code == 0, ended.stderr
    return run
