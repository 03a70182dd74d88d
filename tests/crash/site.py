"""The folder in which a bench happens: its registry, its flows, its journal, and how commands run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.journal import Fact, Journal
from tests.crash.processes import MARK, Process, end_all, marked

#: The checkout, which all that is started imports from.
SOURCES = Path(__file__).parents[2]
#: What a command may take on a busy machine before it counts as hung.
HANG_SECONDS = 90.0
_DAY_SECONDS = 86_400.0
_KILLED = -9
#: How commands may end here, as the table in the program's help says, or killed. Not with 2, wrong usage;
#: with 5 only if the bench has just killed the supervisor that was to start the run.
_EXIT_CODES = (0, 1, 3, 4, 124, 143, _KILLED)
_UNAVAILABLE, _NOT_STARTED = 5, "flow run {} could not be started"
_COMPLAINTS = ("internal error", "prefectlite: the last log lines are not on record")


class BenchOverError(Exception):
    """Nothing may be started any more."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended; ``code`` is negative where a signal ended it."""

    words: tuple[str, ...]
    code: int
    out: str
    error: str


class Site:
    """A folder for one bench, which is new, or was kept.

    Attributes:
        mark: What begins the mark of all that is started here.
        number: That of the round which is going on, and a part of the mark.
        kills: Whom the bench has killed in it, or was about to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.journal = Journal(folder / "journal.jsonl")
        self.number = -1
        self.kills: list[Fact] = []
        self._is_closed = False
        self._lock = threading.Lock()
        self._outputs: dict[int, Path] = {}
        self._deployed = set[str]()
        self._count = 0
        name = folder / "mark"
        if not name.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "out").mkdir()
            shutil.copy(Path(__file__).with_name("flows.py"), folder / "work.py")
            name.write_text(os.urandom(8).hex(), encoding="ascii")
        self.mark = name.read_text(encoding="ascii")

    @property
    def round_mark(self) -> str:
        """The mark of what this round has started."""
        return f"{self.mark}.{self.number}."

    def begin(self, number: int) -> None:
        """Begin a round."""
        self.number = number
        self.kills = []

    def about_to_kill(self, victim: Process) -> None:
        """Note a kill, on record before it is done: what is found later has a reason."""
        self.kills.append(Fact("killed", run=victim.flow_run_id, pid=victim.pid, text=victim.words))
        self.journal.note(self.kills[-1])

    def guarded(self, act: Callable[..., None], *args: object) -> None:
        """Act, in a thread: where the bench itself fails in it, that is found by the audit."""
        try:
            act(*args)
        except BenchOverError:
            return
        except Exception as error:
            self.journal.note(Fact("complained", text=f"the bench itself: {error!r}"))
            raise

    def processes(self) -> list[Process]:
        """Return the processes of this bench that live."""
        return marked(self.mark)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start Python with these arguments, in a process group of its own.

        Raises:
            BenchOverError: The bench is over.
        """
        with self._lock:
            self._count += 1
            out = self.folder / "out" / str(self._count)
            if self._is_closed:
                raise BenchOverError
            with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
                process = subprocess.Popen(
                    [sys.executable, *words],
                    cwd=self.folder,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    process_group=0,  # Ctrl-C is for the driver alone
                )
        process.args = [*words]
        self._outputs[process.pid] = out
        return process

    def finish(self, process: subprocess.Popen[bytes], *, run: str = "") -> Done:
        """Wait for the end of what ``start`` has started; what hangs is a fact, and is killed.

        Args:
            process: What was started.
            run: The name of the flow run that this very process runs; empty for none.
        """
        words = tuple(str(word) for word in process.args)  # type: ignore[union-attr] # start's list
        is_hung = False
        try:
            code = process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            is_hung = True
            process.kill()
            code = process.wait()
        out = self._outputs.pop(process.pid)
        error = out.with_suffix(".err")
        done = Done(words, code, _text(out), _text(error))
        out.unlink()
        error.unlink()
        told = f"{' '.join(words)} exited with {code}: {done.error.strip()[-2000:]}"
        if is_hung:
            self.journal.note(Fact("hung", text=told))
        elif not _is_documented(done, [kill for kill in self.kills if kill.pid != process.pid]):
            self.journal.note(Fact("complained", text=told))
        elif code == _KILLED and process.pid not in {kill.pid for kill in self.kills}:
            self.journal.note(Fact("was_killed", run=run, text=told))
        return done

    def command(self, *words: str) -> Done:
        """Run a command of prefectlite to its end."""
        return self.finish(self.start("-m", "prefectlite", *words))

    def deploy(self, flow: str) -> None:
        """Put the deployment of a flow on record, called ``bench``; once for all rounds."""
        if flow not in self._deployed:
            self._deployed.add(flow)
            words = ["deployment", "build", f"work.py:{flow}", "-n", "bench", "--apply", "-o", "-"]
            done = self.command(*words)
            if done.code != 0:
                raise RuntimeError(f"there is nothing to test: {done.error}")

    def make_old(self) -> None:
        """Have files that processes made for themselves seem to be of yesterday."""
        at = time.time() - _DAY_SECONDS
        for path in [*(self.home / "processes").glob("*"), *(self.home / "results").glob(".*")]:
            os.utime(path, (at, at))

    def close(self) -> None:
        """Start nothing more, and end all that is left."""
        with self._lock:
            self._is_closed = True
        end_all(self.mark)

    def _environment(self) -> dict[str, str]:
        ours = ("PREFECT", "_PREFECT", "COV_", "GITHUB_", "PYTHONWARNINGS")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        return {
            **kept,
            "PREFECTLITE_HOME": str(self.home),
            "PREFECTLITE_DEBUG": "1",
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "PYTHONPATH": str(SOURCES),
            "CRASH_JOURNAL": str(self.journal.path),
            MARK: self.round_mark,
        }


def _is_documented(done: Done, kills: Sequence[Fact]) -> bool:
    """Return whether a command ended in a way that its help names, and that fits."""
    if any(sign in done.error for sign in _COMPLAINTS):
        return False
    if done.code == _UNAVAILABLE:
        return any(_was_to_start(done, kill) for kill in kills)
    return done.code in _EXIT_CODES


def _was_to_start(done: Done, kill: Fact) -> bool:
    """Return whether somebody who was killed is the supervisor that a command could not start."""
    # The folder that a supervisor is given begins with the id of its run.
    run = kill.run or kill.text.partition("supervisor.py ")[2].partition(".")[0]
    if run:
        return _NOT_STARTED.format(run) in done.error
    # Before it executes its own program, it looks like the command.
    return kill.text.endswith(" ".join(done.words))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
