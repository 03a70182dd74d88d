"""Flow runs in processes of their own, each with a supervisor that owns what descends from it.

The type ``process``. The supervisor is another session, so the run outlives who launched it. To end a
run is to tell its supervisor; what is told is proven to be that first, by the record of who it is.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from prefectlite.clock import monotonic
from prefectlite.courier_processes import reap
from prefectlite.errors import (
    InfrastructureError,
    InfrastructureNotAvailable,
    InfrastructureNotFound,
    UsageError,
)
from prefectlite.infrastructure import DEFAULT_TYPE, Infrastructure, Launched
from prefectlite.liveness import is_alive, machine_id, start_ticks
from prefectlite.names import near_names
from prefectlite.process_trees import send
from prefectlite.records import FlowRun, ProcessIdentity
from prefectlite.run_folders import RunFolder, run_folders
from prefectlite.settings import (
    PREFECTLITE_FLOW_RUN_ID,
    PREFECTLITE_HOME,
    PREFECTLITE_REGISTRY,
    PREFECTLITE_RUN_FOLDER,
    PREFECTLITE_RUN_TOKEN,
    child_environment,
)

#: What a run gets to end by itself, where nobody says otherwise; as in Prefect 2.8.
DEFAULT_GRACE_SECONDS = 30.0
# A supervisor takes some 40 ms to say who it is; on a machine that swaps, a hundred times that.
_START_SECONDS = 30.0
_LOOK_SECONDS = 0.002
# A run that is Cancelling on record ends without a signal; it gets one where it has not by then.
_HEED_SECONDS = 1.0
_SUPERVISOR = Path(__file__).parents[1] / "supervisor.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(Infrastructure):
    """How the process of a run is made.

    Attributes:
        command: What runs the flow, without a shell; with none given,
            ``python -m prefectlite.execute``. It finds the run's id as PREFECTLITE_FLOW_RUN_ID.
        environment: Variables to set, beside those of who launches the run.
        working_directory: Where it begins; None for where who launches it is.
        stream_output: Whether its output is also shown by who launches it, while that lives.
        grace_seconds: What it gets between SIGTERM and SIGKILL when it is over its time.
        timeout_seconds: What it may take at most, enforced from outside; None for any time.
    """

    type: ClassVar[str] = DEFAULT_TYPE

    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: str | None = None
    stream_output: bool = False
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    timeout_seconds: float | None = None

    def fields(self) -> dict[str, object]:
        """Return ``type`` and what is not as it would be anyway."""
        usual = Process()
        given = {name: getattr(self, name) for name in _CHECKS if name != "type"}
        changed = {name: value for name, value in given.items() if value != getattr(usual, name)}
        return {"type": self.type, **changed}

    def run(self, flow_run: FlowRun) -> Launched:
        """Start a run's supervisor, which starts the run; see ``Infrastructure``."""
        token = os.urandom(16).hex()
        try:
            folder = RunFolder.make(flow_run.id, token)
            try:
                return self._start(folder, flow_run.id, token)
            except BaseException:
                folder.remove()
                raise
        except OSError as error:
            raise InfrastructureError(
                f"flow run {flow_run.name!r} could not be started: {error}"
            ) from error

    def _start(self, folder: RunFolder, flow_run_id: str, token: str) -> Launched:
        ours = {
            PREFECTLITE_HOME.name: str(PREFECTLITE_HOME.value()),
            PREFECTLITE_REGISTRY.name: PREFECTLITE_REGISTRY.value(),
            PREFECTLITE_RUN_FOLDER.name: str(folder.path),
            PREFECTLITE_FLOW_RUN_ID.name: flow_run_id,
        }
        # A pipe is not a terminal: without this, what was printed would be lost with the process.
        environment = child_environment({"PYTHONUNBUFFERED": "1", **self.environment, **ours})
        environment.pop(PREFECTLITE_RUN_TOKEN.name, None)  # it descends from nobody any more
        folder.write(
            "spec.json",
            {
                "command": self._command(),
                "environment": environment,
                "working_directory": self.working_directory,
                "token": token,
                "machine_id": machine_id(),
                "registry": PREFECTLITE_REGISTRY.value(),
                "grace_seconds": self.grace_seconds,
                "timeout_seconds": self.timeout_seconds,
                "settle_command": [
                    *[sys.executable, "-P", "-m", "prefectlite.settling"],
                    str(folder.path),
                ],
                "is_streamed": self.stream_output,
            },
        )
        # Marked already here: what starts it may be killed before it is on record. What is wrong with
        # the environment of one run is then told by its supervisor, as is all else of its command.
        pid = self._spawn(folder, child_environment({PREFECTLITE_RUN_TOKEN.name: token}))
        return _when_begun(folder, pid)

    def _spawn(self, folder: RunFolder, environment: Mapping[str, str]) -> int:
        log = str(folder.path / "supervisor.log")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        if not self.stream_output:
            actions += [(os.POSIX_SPAWN_OPEN, number, log, flags, 0o600) for number in (1, 2)]
        reap(_started)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(_SUPERVISOR), str(folder.path)],
            environment,
            file_actions=actions,
            # Until it listens: a signal that comes before that must wait, not end it.
            setsigmask=signal.valid_signals(),
            setsid=True,  # or Ctrl-C would reach it, too, before it leaves our session itself
        )
        _started.add(pid)
        return pid

    def kill(
        self,
        infrastructure_pid: str,
        grace_seconds: float,
        *,
        supervisor: ProcessIdentity | None = None,
    ) -> None:
        """Tell a run's supervisor to end it; see ``Infrastructure``."""
        hostname, _, number = infrastructure_pid.rpartition(":")
        if hostname != os.uname().nodename:
            raise InfrastructureNotAvailable(
                f"{infrastructure_pid} is a process on another host",
                hint=f"an agent on {hostname or 'that host'} ends it, or who cancels it there",
            )
        # Who knows it from the record has also asked for the run's end there, which the run sees itself.
        heed_seconds = 0.0 if supervisor is None else _HEED_SECONDS
        supervisor = supervisor or _found(infrastructure_pid, number)
        with suppress(OSError):  # its folder is not there for us: it has a grace period of its own
            stop = {"grace_seconds": grace_seconds, "heed_seconds": heed_seconds}
            RunFolder.of(supervisor).write("stop.json", stop)
        # SIGCONT, because a stopped process handles no signal.
        if not send(supervisor, signal.SIGTERM, signal.SIGCONT):
            raise InfrastructureNotFound(f"{infrastructure_pid} is not there any more")

    def preview(self, flow_run_id: str) -> str:
        """Return the command as a shell would take it, with what it is started with."""
        hidden = [f"{name}=..." for name in self.environment]  # it may hold secrets
        own = f"{PREFECTLITE_FLOW_RUN_ID.name}={shlex.quote(flow_run_id)}"
        command = " ".join([*hidden, own, shlex.join(self._command())])
        folder = self.working_directory
        return command if folder is None else f"cd {shlex.quote(folder)} && {command}"

    def _command(self) -> list[str]:
        return [*self.command] or [sys.executable, "-P", "-m", "prefectlite.execute"]


#: Supervisors that this process has started, and that are not known to have ended.
_started: set[int] = set()


def _when_begun(folder: RunFolder, pid: int) -> Launched:
    """Wait until a supervisor has said who it is.

    Raises:
        InfrastructureError: It ends without having done so, or is not heard of in time.
    """
    deadline = monotonic() + _START_SECONDS
    while (supervisor := folder.supervisor()) is None:
        reap(_started)
        if pid not in _started or monotonic() >= deadline:
            if pid in _started:  # not waited for, so that its number is nobody else's
                os.kill(pid, signal.SIGKILL)
            exit_ = folder.exit()
            told = (exit_ and exit_.message) or folder.last_word()
            raise InfrastructureError(
                f"flow run {folder.flow_run_id} could not be started:"
                f" {told or 'its supervisor did not begin'}",
                hint=None if told else "is there room on the disk that PREFECTLITE_HOME is on?",
            )
        time.sleep(_LOOK_SECONDS)
    return Launched(f"{supervisor.hostname}:{supervisor.pid}", supervisor)


def _found(infrastructure_pid: str, number: str) -> ProcessIdentity:
    """Return the supervisor that an identifier of this host means.

    Raises:
        InfrastructureNotFound: There is no process of that PID.
        InfrastructureError: There is one, and it is not known to be a supervisor.
    """
    for folder in run_folders():
        supervisor = folder.supervisor()
        if supervisor is not None and str(supervisor.pid) == number and is_alive(supervisor):
            return supervisor
    if number.isdecimal() and start_ticks(int(number)) is not None:
        raise InfrastructureError(f"{infrastructure_pid} cannot be proven to be a run's process")
    raise InfrastructureNotFound(f"{infrastructure_pid} is not there any more")


def from_fields(fields: Mapping[str, object]) -> Process:
    """Return the process that these fields describe; see ``load_infrastructure``."""
    given: dict[str, Any] = {}
    for name, value in fields.items():
        check = _CHECKS.get(name)
        if check is None:
            raise _unknown(name)
        try:
            given[name] = check(value)
        except ValueError as error:
            # Without the value: an environment may hold secrets.
            raise UsageError(f"infrastructure: {name} must be {error}") from None
    given.pop("type", None)
    return Process(**given)


def _unknown(name: str) -> UsageError:
    near = near_names(name, _CHECKS)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(_CHECKS)}"
    return UsageError(f"infrastructure: there is no {name!r} for a process", hint=hint)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a text")
    return value


def _command(value: object) -> list[str]:
    expected = "a list of texts, or one as a shell reads it"
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError:
            raise ValueError(expected) from None
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(expected)
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        raise ValueError(expected)
    return [*value]


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("a table of texts")  # noqa: TRY004 - it becomes a UsageError
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError("a table whose names can be names of variables")
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"a table of texts ({name} is none: put it in quotes)")
    return {**value}


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - it becomes a UsageError
    return value


def _seconds(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:  # type: ignore[arg-type, operator] # a number
        raise ValueError("a number of seconds, at least 0")
    return value  # type: ignore[return-value] # a number


def _some_seconds(value: object) -> float:
    seconds = _seconds(value)
    if not seconds:
        raise ValueError("a number of seconds above 0")
    return seconds


_CHECKS: dict[str, Callable[[object], object]] = {
    "type": _text,
    "command": _command,
    "environment": _environment,
    "working_directory": _text,
    "stream_output": _yes_or_no,
    "grace_seconds": _seconds,
    "timeout_seconds": _some_seconds,
}
