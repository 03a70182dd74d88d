"""How the tests of notifications have some delivered: by real couriers, to a real server.

At the end of a test nothing that it has started is left: whatever has its home in the environment is
killed.
"""

import json
import os
import signal
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import prefectlite
from prefectlite import courier_processes
from prefectlite.blocks.notifications import CustomWebhook
from prefectlite.names import new_id
from prefectlite.notification_records import NotificationRule
from prefectlite.records import FlowRun
from prefectlite.states import Running

SOURCES = str(Path(prefectlite.__file__).parents[1])
DEADLINE_SECONDS = 40
#: A part of every address, of which no trace may be left.
SECRET = "hush-hush-9f31"


class Inbox:
    """A web server that keeps what it is sent, and answers when and how it is told."""

    def __init__(self):
        self.bodies = []
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        self.held = 0
        self.on_request = lambda: None
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.held += 1
                inbox.on_request()
                inbox.open.wait(DEADLINE_SECONDS * 2)
                inbox.held -= 1
                inbox.bodies.append(json.loads(body))
                try:
                    self.send_response(inbox.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:  # who asked has gone
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self._handler = Handler
        self._server = None
        self.port = 0
        self.start()

    def start(self):
        """Listen, at the same port as before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """Listen no more: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def block(self, name="inbox", **fields):
        """Put a block on record that sends to this server; return its reference."""
        CustomWebhook(
            url=f"http://127.0.0.1:{self.port}/hook?token={{{{token}}}}",
            json_data={"subject": "{{subject}}", "body": "{{body}}"},
            secrets={"token": SECRET},
            **{"timeout_seconds": 60.0, **fields},
        ).save(name)
        return f"custom-webhook/{name}"

    def subjects(self):
        """Return the subjects of what it has answered."""
        return [body["subject"] for body in self.bodies]


@pytest.fixture
def inbox():
    inbox = Inbox()
    yield inbox
    inbox.open.set()
    inbox.stop()


@pytest.fixture
def tables(registry):
    return registry.notifications


@pytest.fixture
def add_rule(tables):
    """Put a rule on record for these states."""

    def add(block, *states, **fields):
        rule = NotificationRule(id=new_id(), states=states, block=block, **fields)
        tables.create_rule(rule)
        return rule

    return add


@pytest.fixture
def add_run(registry):
    """Put a run on record, Running if no state is given."""

    def add(state=None, **fields):
        fields = {"id": new_id(), "name": "calm-otter", "flow_name": "etl", **fields}
        flow_run = FlowRun(state=state or Running(), **fields)
        registry.create_flow_run(flow_run)
        return flow_run

    return add


@pytest.fixture
def no_couriers(monkeypatch):
    """Start no courier in the background of this process; a list of what was to be started."""
    calls = []
    monkeypatch.setattr(courier_processes, "start_courier", calls.append)
    monkeypatch.setattr("prefectlite.couriers.start_courier", calls.append)
    return calls


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path, monkeypatch, home, until, with_token):
    """Let what is started find the package; at the end, end what is left of it."""
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    yield
    courier_processes._couriers.begin_anew()
    while found := {*with_token(f"PREFECTLITE_HOME={home}\0")}:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        until(
            lambda pids=found: pids.isdisjoint(with_token(str(home))), "the end of what was killed"
        )
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:  # couriers that this process has started
            pass
    except ChildProcessError:
        pass


@pytest.fixture
def couriers(home, with_token):
    """Return the PIDs of the couriers of this test that are at work."""

    def find():
        found = []
        for pid in with_token(f"PREFECTLITE_HOME={home}\0"):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"prefectlite.couriers" in words:
                found.append(pid)
        return found

    return find


@pytest.fixture
def command(start_command, tmp_path):
    """Start a command of prefectlite in a folder with flows."""
    return partial(start_command, cwd=tmp_path)


class Site:
    """All of the above at once."""

    def __init__(self, folder, fixture):
        self.folder = folder
        for name in ("registry", "inbox", "add_rule", "add_run", "until", "command", "couriers"):
            setattr(self, name, fixture(name))
        self.tables = self.registry.notifications

    def ends(self, *words, **options):
        """Let a command come to its end; return what it said on stdout and stderr."""
        return self.command(*words, **options).communicate(timeout=DEADLINE_SECONDS)

    def until_held(self, count=1):
        """Wait until the inbox has so many requests, which it does not answer yet."""
        self.until(lambda: self.inbox.held >= count, f"{count} requests")

    def until_subjects(self, *subjects):
        """Wait until the inbox has these subjects, in any order, and no other."""
        inbox = self.inbox
        self.until(lambda: len(inbox.bodies) >= len(subjects), subjects, told=inbox.subjects)
        assert sorted(inbox.subjects()) == sorted(subjects)

    def until_told(self, rule, count):
        """Wait until so many notifications of a rule were delivered."""
        self.until(lambda: self.tables.find_rule(rule.id).delivered_count == count, f"{count} told")


@pytest.fixture
def site(request, tmp_path):
    return Site(tmp_path, request.getfixturevalue)
