"""The README's tour: every command that it shows is run, in its order, in one folder, by bash."""

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import prefectlite

_ROOT = Path(prefectlite.__file__).parents[1]
_README = Path(__file__).parents[1] / "README.md"
_DEADLINE_SECONDS = 120
#: What a command reads that asks for something.
_STDIN = "a secret\n"
_BLOCK = re.compile(r"(?:`(?P<file>[\w.-]+)`:\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)```\n", re.DOTALL)
# What is another one each time, or on each machine.
_VARIES = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"\b[0-9a-f]{8}\b", "ID"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "MOMENT"),
    (r"\d\d:\d\d:\d\d\.\d{3}", "TIME"),
    (r"\b\d\.\d{6}$", "SECONDS"),
    (r"\S+:\d{2,}$", "HOST:PID"),
    (r"^Wrote /.*/(?=\.local)", "Wrote HOME/"),
]


def _blocks(kind):
    text = _README.read_text(encoding="utf-8")
    return [found for found in _BLOCK.finditer(text) if found["kind"] == kind]


def _steps():
    """Return each command that is shown, with the lines that are shown below it."""
    steps = []
    for block in _blocks("console"):
        for line in block["text"].splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line)
    return steps


def _same(lines):
    for pattern, name in _VARIES:
        lines = [re.sub(pattern, name, line.rstrip()) for line in lines]
    return lines


@pytest.fixture
def chat_url():
    """The address of a service that takes every message."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_): ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_command_that_the_readme_shows_works_and_says_what_is_shown(tmp_path, home, chat_url):
    for block in _blocks("python"):
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["text"], encoding="utf-8")
    program = tmp_path / "bin" / "prefectlite"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m prefectlite "$@"\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(_ROOT),
        "PREFECTLITE_HOME": str(home),
        "HOME": str(tmp_path / "user"),
        "LC_ALL": "C.UTF-8",
        "CHAT_URL": chat_url,
    }
    steps = _steps()
    assert len(steps) > 30
    for command, shown in steps:
        ended = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=tmp_path,
            env=environment,
            input=_STDIN,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_DEADLINE_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, (command, ended.stdout)
        if shown:
            assert sorted(_same(ended.stdout.splitlines())) == sorted(_same(shown)), command
