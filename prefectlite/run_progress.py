"""What a flow run is doing, on the last line of a terminal, while ``run`` waits for it.

A thread asks the registry a few times a second and draws on stderr. What anyone else writes to stdout
or stderr takes the place of the line, and the line comes back below; it is not drawn behind a line
that has no end yet, such as a prompt or a progress bar of the flow's own. It goes away with the run.
"""

from __future__ import annotations

import builtins
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from prefectlite import terminals
from prefectlite.clock import duration_text
from prefectlite.console import escaped
from prefectlite.errors import NotFoundError, RegistryError
from prefectlite.flow_engine import FlowRequest
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.terminals import ERASE
from prefectlite.text_tables import cut

# A run that is shorter shows nothing.
_FIRST_SECONDS = 0.3
_INTERVAL_SECONDS = 0.2
_FAILURES = ("Failed", "TimedOut", "Crashed", "Cancelled", "NotReady")
_SUCCESSES = ("Completed", "Cached")


class Progress:
    """While it is entered, the last line of the terminal says what a flow run is doing.

    It is for a stderr that is a terminal which can clear a line.
    """

    def __init__(self, request: FlowRequest) -> None:
        self._request = request
        self._terminal = sys.stderr
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="prefectlite-progress", daemon=True)
        # Reentrant, for a signal handler that prints.
        self._lock = threading.RLock()
        self._write: Callable[[str], object] = self._terminal.write
        self._drawn = ""
        self._is_line_open = False
        self._hooked: list[TextIO] = []
        self._input = builtins.input

    def __enter__(self) -> Progress:
        for stream in {id(stream): stream for stream in (sys.stdout, sys.stderr)}.values():
            if stream.isatty():
                self._hook(stream)
        builtins.input = self._ask
        _entered.append(self)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._has_ended.set()
        self._thread.join()
        self.let_go()
        self._erase()

    def let_go(self) -> None:
        """Leave the streams as they were; also where this is a child that the run has forked."""
        _entered.remove(self)
        builtins.input = self._input
        for stream in self._hooked:
            del stream.write

    def _hook(self, stream: TextIO) -> None:
        # On the object, because a log handler of the flow's may have kept it.
        write = stream.write

        def write_in_place(text: str) -> int:
            with self._lock:
                self._erase()
                self._is_line_open = self._is_line_open if not text else text[-1] != "\n"
                return write(text)

        stream.write = write_in_place  # type: ignore[method-assign] # undone by let_go
        self._hooked.append(stream)

    def _ask(self, *prompt: Any) -> str:  # noqa: ANN401 - input's own
        """Do what ``input`` does, without a line being drawn over the answer."""
        with self._lock:
            self._erase()
            self._is_line_open = True
        try:
            return self._input(*prompt)
        finally:
            self._is_line_open = False

    def _show(self) -> None:
        interval = _FIRST_SECONDS
        while not self._has_ended.wait(interval):
            interval = _INTERVAL_SECONDS
            try:
                self._draw(self._text())
            except (OSError, ValueError):  # the terminal is gone, or the flow has closed the stream
                return

    def _draw(self, text: str) -> None:
        shown = cut(text, terminals.columns(self._terminal) - 1, mark="")
        with self._lock:
            if (
                shown == self._drawn
                or self._is_line_open
                or not terminals.is_in_foreground(self._terminal)
            ):
                return
            self._write(f"{ERASE}{shown}")
            self._terminal.flush()
            self._drawn = shown

    def _erase(self) -> None:
        with self._lock:
            if not self._drawn:
                return
            self._drawn = ""
            try:
                self._write(ERASE)
                self._terminal.flush()
            except (OSError, ValueError):
                return

    def _text(self) -> str:
        """Return such as ``flow run 'fair-owl': 3 running, 12 done, 1 failed (4s)``."""
        flow_run = self._request.flow_run
        if flow_run is None:
            return "starting"
        try:
            registry = open_registry(PREFECTLITE_REGISTRY.value())
            counts = registry.count_task_runs(flow_run.id)
            state = registry.find_flow_run(flow_run.id).state
        except (RegistryError, NotFoundError):  # it was deleted meanwhile
            counts, state = {}, flow_run.state
        if state.is_paused():
            return f"flow run {escaped(flow_run.name)!r}: paused. {escaped(state.message or '')}"
        done = sum(counts.pop(name, 0) for name in _SUCCESSES)
        failed = sum(counts.pop(name, 0) for name in _FAILURES)
        parts = [f"{number} {name.lower()}" for name, number in counts.items()]
        parts += [f"{done} done"] * bool(done) + [f"{failed} failed"] * bool(failed)
        told = ", ".join(parts) or "no task runs yet"
        seconds = duration_text(flow_run.duration_seconds or 0)
        return f"flow run {escaped(flow_run.name)!r}: {told} ({seconds})"


_entered: list[Progress] = []


def _let_go_in_child() -> None:
    # Its lock may be held by a thread that the child does not have.
    while _entered:
        _entered[-1].let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
