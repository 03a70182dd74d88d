"""What a flow run is doing, on the last line of a terminal, while ``run`` waits for it.

Runs in a thread of its own and asks the registry a few times a second, so that it costs the run
nothing. It draws on stderr and goes away with the run.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from prefectlite.clock import duration_text
from prefectlite.errors import RegistryError
from prefectlite.flow_engine import FlowRequest
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

# A run that is shorter shows nothing, and does not pay for what draws.
_FIRST_SECONDS = 0.3
_INTERVAL_SECONDS = 0.2
_FAILURES = ("Failed", "TimedOut", "Crashed", "Cancelled", "NotReady")
_SUCCESSES = ("Completed", "Cached")


class Progress:
    """While it is entered, the last line of the terminal says what a flow run is doing."""

    def __init__(self, request: FlowRequest) -> None:
        self._request = request
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="prefectlite-progress", daemon=True)

    def __enter__(self) -> Progress:
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

    def _show(self) -> None:
        if self._has_ended.wait(_FIRST_SECONDS):
            return
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        console = Console(file=sys.stderr, soft_wrap=True, highlight=False)
        spinner = Spinner("dots", text=self._text())
        with Live(
            spinner,
            console=console,
            transient=True,
            refresh_per_second=1 / _INTERVAL_SECONDS,
            redirect_stdout=sys.stdout.isatty(),
        ):
            while not self._has_ended.wait(_INTERVAL_SECONDS):
                spinner.update(text=self._text())

    def _text(self) -> str:
        """Return such as ``flow run 'fair-owl': 3 running, 12 done, 1 failed (4s)``."""
        flow_run = self._request.flow_run
        if flow_run is None:
            return "starting"
        try:
            counts = open_registry(PREFECTLITE_REGISTRY.value()).count_task_runs(flow_run.id)
        except RegistryError:
            counts = {}
        done = sum(counts.pop(name, 0) for name in _SUCCESSES)
        failed = sum(counts.pop(name, 0) for name in _FAILURES)
        parts = [f"{number} {name.lower()}" for name, number in counts.items()]
        parts += [f"{done} done"] * bool(done) + [f"{failed} failed"] * bool(failed)
        told = ", ".join(parts) or "no task runs yet"
        return (
            f"flow run {flow_run.name!r}: {told} ({duration_text(flow_run.duration_seconds or 0)})"
        )
