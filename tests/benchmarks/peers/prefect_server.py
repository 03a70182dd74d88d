"""Prefect's own server, on 127.0.0.1, for as long as it is measured."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.benchmarks.peers.programs import peak_bytes

_HOST = "127.0.0.1"
_START_SECONDS = 180
_END_SECONDS = 20
_LOOK_SECONDS = 0.2


class ServerError(Exception):
    """The server did not start."""


class Server:
    """A server that is running.

    Attributes:
        url: Its API.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.url = f"http://{_HOST}:{port}/api"
        self._process = process
        self._port = port

    def peak_bytes(self) -> int:
        """Return the sum of the most memory that it and its processes have had."""
        root = psutil.Process(self._process.pid)
        return sum(peak_bytes(each.pid) for each in (root, *root.children(recursive=True)))

    def wait(self, log: Path) -> None:
        """Wait until it answers.

        Raises:
            ServerError: It has ended, or does not answer in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
                raise ServerError(f"Prefect's server did not start:\n{said}")
            time.sleep(_LOOK_SECONDS)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=5)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def running(python: Path, environment: Mapping[str, str], home: Path) -> Iterator[Server]:
    """Start a server with its database in a folder, and stop it at the end."""
    port, log = _free_port(), home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", "prefect", "server", "start", "--host", _HOST, "--port", str(port)],
            env={**environment},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        server = Server(process, port)
        server.wait(log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own, so nobody else's
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
