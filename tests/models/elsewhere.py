"""A registry in another process: ``python -m tests.models.elsewhere`` does what it is told.

Both sides speak pickle over the pipe, one request after the other. The other process also holds the
locks that say of made-up processes that they live: a process cannot see its own.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path

from prefectlite.errors import PrefectLiteError
from prefectlite.registry import open_registry
from tests.models.clocks import FakeClock

_SOURCES = Path(__file__).parents[2]


class OtherProcess:
    """The other process, as long as this one lives.

    Args:
        clock: What time it is there, too.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.models.elsewhere"],
            cwd=_SOURCES,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid

    def registry(self, url: str) -> Remote:
        """Return the registry at a URL, as the other process has it open."""
        return Remote(lambda *call: self._ask("call", url, *call))

    def hold(self, path: str) -> None:
        """Lock a file there, which is made."""
        self._ask("hold", path)

    def let_go(self, path: str) -> None:
        """Unlock it."""
        self._ask("let_go", path)

    def end(self) -> None:
        """End it, and wait for that."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, *request: object) -> object:
        pickle.dump((self._clock.moment, request), self._process.stdin)
        self._process.stdin.flush()
        is_error, answer = pickle.load(self._process.stdout)
        if is_error:
            raise answer
        return answer


class Remote:
    """A registry, a part of one, or a method of these, in the other process."""

    def __init__(self, call: Callable[..., object], *path: str) -> None:
        self._call, self._path = call, path

    def __getattr__(self, name: str) -> Remote:
        return Remote(self._call, *self._path, name)

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._call(self._path, args, kwargs)


class _Worker:
    """What the other process does."""

    def __init__(self) -> None:
        self._locks: dict[str, int] = {}

    def call(self, url: str, path: tuple[str, ...], args: tuple, kwargs: dict) -> object:
        """Call what a path of names leads to in a registry."""
        return reduce(getattr, path, open_registry(url))(*args, **kwargs)

    def hold(self, path: str) -> None:
        """Lock a file."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._locks[path] = descriptor

    def let_go(self, path: str) -> None:
        """Unlock it."""
        os.close(self._locks.pop(path))


def _main() -> None:
    worker, clock = _Worker(), FakeClock()
    clock.start()
    while True:
        try:
            clock.moment, (what, *arguments) = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = False, getattr(worker, what)(*arguments)
        except PrefectLiteError as error:
            answer = True, error
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main()
