"""Those who act in a round, each in a thread of its own: they run commands, and note what these said.

A command that the bench has killed has acknowledged nothing, and is not followed by another one.
"""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Callable, Sequence

from tests.crash.journal import Fact
from tests.crash.plans import Plan, Start
from tests.crash.records import tree_of
from tests.crash.site import Done, Site

#: What a command that exits so has said of the run.
_ENDS = {
    0: ("COMPLETED",),
    1: ("FAILED", "CRASHED"),
    143: ("CANCELLED",),
}
_GRACE_SECONDS = "3"
_WAIT_SECONDS = "5"
_CRON_SECONDS, _READ_SECONDS = 0.5, 0.2
_READS = (
    ("flow-run", "ls", "--limit", "5"),
    ("task-run", "ls", "--limit", "5", "--json"),
    ("agent", "ls"),
    ("work-queue", "ls"),
)


class Actors:
    """All who act in a round.

    Args:
        site: Where.
        plan: What they do.
    """

    def __init__(self, site: Site, plan: Plan) -> None:
        self._site = site
        self._plan = plan
        self._are_done = threading.Event()
        self._acting: list[threading.Thread] = []
        self._attending: list[threading.Thread] = []
        self._agent: subprocess.Popen[bytes] | None = None
        self._engines: list[tuple[Start, subprocess.Popen[bytes]]] = []

    def begin(self) -> None:
        """Start them."""
        if self._plan.agent == "serving":
            name = f"agent-{self._plan.number}"
            self._agent = self._site.start("-m", "prefectlite", "agent", "start", "--name", name)
        elif self._plan.agent == "once":
            self._attending.append(self._thread(self._launch_as_cron))
        self._attending.append(self._thread(self._read))
        for start in self._plan.starts:
            self._acting.append(self._thread(self._act, start))
        if self._plan.eraser != "none":
            self._acting.append(self._thread(self._erase))

    def join(self) -> None:
        """Wait until each has done what it does; agents and programs go on."""
        for thread in self._acting:
            thread.join()

    def dismiss(self) -> None:
        """Tell the agent to end, and wait until nobody does anything but the programs."""
        self._are_done.set()
        for thread in self._attending:
            thread.join()
        if self._agent is not None:
            self._agent.terminate()
            self._site.finish(self._agent)

    def finish(self) -> None:
        """Wait for the end of the programs that ran a flow themselves, and note what they said."""
        for start, process in self._engines:
            done = self._site.finish(process, run=start.name)
            if start.how == "foreground" and done.code in _ENDS:
                self._note("ended", start.name, types=_ENDS[done.code])

    def _thread(self, act: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=self._site.guarded, args=(act, *args), daemon=True)
        thread.start()
        return thread

    def _note(self, fact: str, run: str, *, types: Sequence[str] = (), text: str = "") -> None:
        self._site.journal.note(Fact(fact, run=run, types=types, text=text))

    def _act(self, start: Start) -> None:
        if self._begun(start):
            self._are_done.wait(start.after)
            _THENS[start.then](self, start.name)

    def _begun(self, start: Start) -> bool:
        """Start a run, and return whether there is one as far as can be known."""
        name, entrypoint = start.name, f"work.py:{start.flow}"
        if start.how == "program":
            self._engines.append((start, self._site.start("work.py", start.flow, name)))
            return True
        if start.how == "foreground":
            words = ["-m", "prefectlite", "run", entrypoint, "--name", name]
            self._engines.append((start, self._site.start(*words)))
            return True
        if start.how == "detached":
            done = self._site.command("run", entrypoint, "--name", name, "--detach")
        else:
            done = self._site.command("deployment", "run", f"{start.flow}/bench", "--name", name)
        if done.code == 0:
            self._note("created", done.out.strip())
            self._note("created", name)
        return done.code == 0

    def _wait(self, name: str) -> None:
        done = self._flow_run("wait", name, "--timeout", _WAIT_SECONDS)
        if done.code in _ENDS:
            self._note("ended", name, types=_ENDS[done.code])

    def _cancel(self, name: str) -> None:
        done = self._flow_run("cancel", name, "--wait", "--grace", _GRACE_SECONDS)
        if done.code == 0:
            self._note("ended", name, types=("CANCELLED", "COMPLETED"))
            tree = tree_of(self._site.home, name)
            for process in self._site.processes():
                if process.kind in ("child", "worker") and tree.has(process):
                    told = f"{process.pid} ({process.words}) lives on after: {done.error.strip()}"
                    self._note("survived", name, text=told)

    def _pause(self, name: str) -> None:
        if self._flow_run("pause", name).code == 0:
            self._note("had", name, types=("PAUSED",))
            self._resume_now(name)

    def _resume(self, name: str) -> None:
        if self._flow_run("wait", name, "--for", "paused", "--timeout", _WAIT_SECONDS).code == 0:
            self._resume_now(name)

    def _resume_now(self, name: str) -> None:
        if self._flow_run("resume", name).code == 0:
            self._note("resumed", name)

    def _leave(self, name: str) -> None:
        """Do nothing with it."""

    def _flow_run(self, *words: str) -> Done:
        return self._site.command("flow-run", *words)

    def _erase(self) -> None:
        """Run a flow, and delete its runs; from then on they may be gone."""
        name = f"r{self._plan.number}-fleeting"
        self._site.command("run", "work.py:fleeting", "--name", name)
        if self._plan.eraser == "delete":
            done = self._flow_run("delete", name)
            if done.code == 0:
                self._note("deleted", name)
        else:
            self._site.command("registry", "prune", "--flow", "fleeting", "--older-than", "0s")

    def _launch_as_cron(self) -> None:
        while not self._are_done.wait(_CRON_SECONDS):
            self._site.command("agent", "start", "--run-once")

    def _read(self) -> None:
        for words in itertools.cycle(_READS):
            if self._are_done.wait(_READ_SECONDS):
                return
            self._site.command(*words)


_THENS: dict[str, Callable[[Actors, str], None]] = {
    "wait": Actors._wait,
    "cancel": Actors._cancel,
    "pause": Actors._pause,
    "resume": Actors._resume,
    "leave": Actors._leave,
}
