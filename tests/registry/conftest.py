"""What the tests of every registry share: an opened one of each kind, and runs to put into it."""

import sqlite3
import textwrap
import threading
from pathlib import Path

import pytest

import prefectlite.registry
from prefectlite.clock import now
from prefectlite.names import new_id
from prefectlite.records import FlowRun, LogLine, TaskRun
from prefectlite.registry import open_registry
from prefectlite.states import Running

#: Where a registry of each kind can be made for one test.
ADDRESSES = {"sqlite": lambda folder: f"sqlite:///{folder / 'home' / 'registry.db'}"}
KINDS = sorted(
    path.stem
    for path in Path(prefectlite.registry.__file__).parent.glob("*.py")
    if path.stem != "__init__"
)

#: What a process of a test begins with: the registry of its first argument, and ways to make runs.
PRELUDE = """
import json, os, sys, threading, time
from prefectlite.clock import now
from prefectlite.errors import *
from prefectlite.names import new_id
from prefectlite.records import FlowRun, LogLine, TaskRun
from prefectlite.registry import open_registry
from prefectlite.states import *

def flow_run(state=None, **fields):
    fields = {"id": new_id(), "name": "n", "flow_name": "f", "state": state or Running(), **fields}
    return FlowRun(**fields)

def task_run(flow, state=None, **fields):
    fields = {"id": new_id(), "name": "n", "task_name": "t", "created_at": now(), **fields}
    return TaskRun(flow_run_id=flow.id, state=state or Running(), **fields)

def line(flow, message):
    return LogLine(flow.id, None, 20, "test", message, now())

def ready():
    print("ready", flush=True)
    sys.stdin.readline()
"""


class Store:
    """A registry, and the ways to come back to it."""

    def __init__(self, url):
        self.url = url
        self.registry = open_registry(url)

    def open_again(self):
        """Let go of the registry and open it anew, as the next process would."""
        self.registry.close()
        self.registry = open_registry(self.url)
        return self.registry

    def add_flow_run(self, state=None, **fields):
        """Put a flow run on record, Running if no state is given."""
        run = new_flow_run(state, **fields)
        self.registry.create_flow_run(run)
        return run

    def add_task_run(self, flow_run, state=None, **fields):
        """Put a task run of a Running flow run on record, Running if no state is given."""
        run = new_task_run(flow_run, state, **fields)
        self.registry.create_task_runs([run])
        return run

    def messages(self, flow_run, **options):
        """The messages that are on record for a flow run."""
        return [line.message for line in self.registry.read_logs(flow_run.id, **options)]


def new_flow_run(state=None, **fields):
    fields = {"id": new_id(), "name": "calm-otter", "flow_name": "my-flow", **fields}
    return FlowRun(state=state or Running(), **fields)


def new_task_run(flow_run, state=None, **fields):
    fields = {"id": new_id(), "name": "my_task-0", "task_name": "my_task", **fields}
    fields.setdefault("created_at", now())
    return TaskRun(flow_run_id=flow_run.id, state=state or Running(), **fields)


def new_line(flow_run, message, *, task_run=None):
    task_run_id = None if task_run is None else task_run.id
    return LogLine(flow_run.id, task_run_id, 20, "prefectlite.test", message, now())


@pytest.fixture(params=KINDS)
def kind(request):
    """Each kind of registry that there is."""
    return request.param


@pytest.fixture
def store(kind, tmp_path):
    """An empty registry."""
    store = Store(ADDRESSES[kind](tmp_path))
    yield store
    store.registry.close()


@pytest.fixture
def flow_run():
    """Make a flow run that is not on record."""
    return new_flow_run


@pytest.fixture
def task_run():
    """Make a task run that is not on record."""
    return new_task_run


@pytest.fixture
def line():
    """Make a log line that is not on record."""
    return new_line


@pytest.fixture
def start(start_python):
    """Start a process that begins with ``PRELUDE``."""

    def start_code(code, *arguments, **options):
        return start_python(PRELUDE + textwrap.dedent(code), *arguments, **options)

    return start_code


@pytest.fixture
def sqlite_path(tmp_path):
    """Where the file of a ``store`` of the kind sqlite is."""
    return tmp_path / "home" / "registry.db"


@pytest.fixture
def sql():
    """Do what no prefectlite would to a SQLite file, with a connection of the test's own."""

    def execute(path, *statements):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            return [connection.execute(statement).fetchall() for statement in statements][-1]
        finally:
            connection.close()

    return execute


@pytest.fixture
def check_integrity(sql):
    """Have SQLite itself look for damage in a file."""

    def check(path):
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]
        assert sql(path, "PRAGMA foreign_key_check") == []

    return check


@pytest.fixture
def in_threads():
    """Do work for each item in a thread of its own, and raise the first error of any."""

    def run(work, items):
        errors = []

        def guarded(item):
            try:
                work(item)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=guarded, args=(item,)) for item in items]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
            assert not thread.is_alive()
        if errors:
            raise errors[0]

    return run
