"""Own the processes of one run: start its engine, pass signals on, end what is left, say how it went.

Run as a file, ``python -I -S supervisor.py RUN_FOLDER``, with all signals blocked until it listens;
stdlib alone, and little of it: a run waits for it. It never touches the registry, nor signals what is
not proven to descend from it. One thread: PR_SET_PDEATHSIG ends with it (prctl(2)).

In the run's folder it reads spec.json and, when told to stop, stop.json; the engine makes stack_ready
once it writes its stacks on STACK_SIGNAL. It writes supervisor.json, output.jsonl (but what follows MARK
in a line of stderr; it is copied without that), timed_out before it ends a run for that, exit.json when
all processes are gone, settle.log; for life it holds a POSIX lock on supervisor.lock.
"""

# ruff: noqa: PTH100, PTH102, PTH105, PTH106, PTH110, PTH113, PTH115, PTH120, PTH123, PTH208 - pathlib takes a third of the time that all else needs

import ctypes
import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

STACK_SIGNAL = signal.SIGRTMIN + 5 if sys.platform == "linux" else signal.SIGQUIT
STACK_SECONDS = 0.5  # for the engine to write its stacks, before it is told to end
SWEEP_SECONDS = 2.0  # between SIGTERM and SIGKILL, for what outlived its engine
STORM_SECONDS, STORM_PROCESSES = 0.01, 64  # more new ones so soon after SIGTERM get no grace
KILL_SECONDS = 10.0  # what SIGKILL has not ended by then is uninterruptible, or another user's
DRAIN_SECONDS = 1.0  # to read on when all processes are gone: somebody else may hold a pipe
WRITE_ATTEMPTS = 300  # ten a second, for exit.json where the disk refuses it and the run has begun
SETTLE_SECONDS = 60  # for the settle command
READ_BYTES = 65_536  # at once; a reader of our stdout who is further behind makes the engine wait
MARK = b"\x1e"  # ASCII's record separator: from here to the line's end it is on record already
MAX_LINE_BYTES = 1_000_000  # longer lines are cut: one without end must not fill the memory
RESERVED_BYTES = 8_192  # on disk, for a file that must be written even when the disk is full
NOT_STARTED, ALREADY_SUPERVISED = 127, 126  # exit codes, like a shell's: not found, may not be run
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
_NEVER = float("inf")


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        if prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option} was refused")


def _publish(path: str, values: dict[str, object]) -> None:
    """Write a JSON file that appears whole or not at all; durable on return, safe to try again."""
    text = json.dumps(values).encode()
    descriptor = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT, 0o600)  # keeps what is reserved
    with open(descriptor, "wb", buffering=0) as file:
        if file.write(text) < len(text):
            raise OSError(f"no space left on device for {path}")
        file.truncate()
        os.fsync(descriptor)
    os.replace(f"{path}.tmp", path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


class Stream:
    """One output pipe of the engine: cut into lines, kept, and copied where that is wanted."""

    def __init__(self, name: str, source: int, copy: int, keep: Callable[..., None]) -> None:
        self._name, self._keep, self._source, self._copy = name, keep, source, copy  # -1: closed
        self._rest, self._behind = b"", bytearray()
        self._mark = MARK if name == "stderr" else b""

    def wanted(self, *, is_hurried: bool) -> dict[int, tuple[int, Callable[[], None]]]:
        """Return what to wait for, by descriptor; nothing once all of it is where it belongs."""
        wanted = {}
        # A slow reader slows the engine down, as it would without us; but it must not slow its end.
        if self._source >= 0 and (is_hurried or len(self._behind) < READ_BYTES):
            wanted[self._source] = (select.POLLIN, self._receive)
        if self._behind and self._copy >= 0:
            wanted[self._copy] = (select.POLLOUT, self._send)
        return wanted

    def _receive(self) -> None:
        data = os.read(self._source, READ_BYTES)
        if self._copy >= 0 and len(self._behind) < MAX_LINE_BYTES:
            self._behind += data.replace(self._mark, b"") if self._mark else data
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES - READ_BYTES:  # what comes next could make it too long
            lines.append(self._rest)
            self._rest = self._mark if self._mark in self._rest else b""
        self._keep_lines(lines)
        if not data:
            self.close()

    def _send(self) -> None:
        try:
            del self._behind[: os.write(self._copy, self._behind[: select.PIPE_BUF])]
        except OSError as error:
            if not isinstance(error, BlockingIOError):  # who read it is gone; the run is not
                self._copy = -1

    def close(self) -> None:
        """Let go of the pipe, and keep a last line that has no end; safe to call twice."""
        if self._source >= 0:
            os.close(self._source)
            self._source = -1
            self._keep_lines([self._rest] if self._rest else [])

    def _keep_lines(self, lines: list[bytes]) -> None:
        if self._mark:  # it may follow what a progress bar has left of its line
            parts = [line.partition(self._mark) for line in lines]
            lines = [text for text, mark, _ in parts if text or not mark]
        self._keep(self._name, [line.removesuffix(b"\r") for line in lines])


class Process:
    """A line of the process table: what /proc/PID/stat says (proc_pid_stat(5))."""

    def __init__(self, pid: int, name: str = "") -> None:
        fields = _read(f"/proc/{name or pid}/stat").rpartition(b")")[2].split()  # a name has any
        self.pid, self.is_zombie = pid, fields[0] in (b"Z", b"X")
        self.parent, self.group, self.key = int(fields[1]), int(fields[2]), (pid, int(fields[19]))


class Tree:
    """The engine and all that descends from this process: found, signalled, reaped and counted."""

    def __init__(self) -> None:
        self.pid, self.engine = os.getpid(), 0
        self.status: int | None = None  # the engine's, from wait(2); None: it is not reaped yet
        self.has_children = False  # without any there is no descendant: orphans become children
        self.swept = set[tuple[int, int]]()
        self.cgroup: str | None = None
        # With the /proc of another PID namespace, its numbers would be those of strangers.
        self._has_proc = os.path.realpath("/proc/self") == f"/proc/{self.pid}"
        # A session that we lead holds only what descends from us, and so do those made from it.
        self._owns_session = os.getsid(0) == self.pid

    def choose_cgroup(self) -> None:
        """Choose a control group for the engine, where there are any (cgroups(7), version 2)."""
        with suppress(OSError):
            own = _read("/proc/self/cgroup").decode().rpartition("0::")[2].strip().rstrip("/")
            for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                if ".." not in own and os.access(f"{root}{own}/cgroup.procs", os.W_OK):
                    self.cgroup = f"{root}{own}/prefectlite-{self.pid}-{time.monotonic_ns()}"

    def remove_cgroup(self) -> None:
        """Remove the control group, and those that were made inside of it."""
        for path, _, _ in os.walk(self.cgroup or "", topdown=False):
            with suppress(OSError):
                os.rmdir(path)

    def write_cgroup(self, name: str, text: bytes) -> None:
        """Write to a file of the control group, where there is one."""
        if self.cgroup:
            with suppress(OSError), open(f"{self.cgroup}/{name}", "wb", buffering=0) as file:
                file.write(text)

    def bind(self, directory: str | None) -> None:
        """Tie the calling process, which becomes the engine, to its supervisor and folder."""
        _prctl(_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.pid:
            os._exit(NOT_STARTED)
        os.chdir(directory or os.curdir)

    def tell_engine(self, *numbers: int) -> None:
        """Send signals to the engine, unless it has ended."""
        with suppress(PermissionError):  # it became another user's
            for number in numbers if self.engine and self.status is None else ():
                os.kill(self.engine, number)

    def reap(self) -> None:
        """Take note of every child that has ended."""
        with suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                self.status = child[1] if child[0] == self.engine else self.status
            return
        self.has_children = False

    def descendants(self) -> list[Process]:
        """Return, and count, every descendant that there is; more may be born meanwhile."""
        children: dict[int, list[Process]] = {}
        for name in filter(str.isdigit, os.listdir("/proc") if self._has_proc else ()):
            with suppress(OSError):
                process = Process(int(name))
                children.setdefault(process.parent, []).append(process)
        found = children.pop(self.pid, [])
        for process in found:  # it grows as it goes
            found += children.pop(process.pid, [])
        self.swept |= {one.key for one in found if not one.is_zombie and one.pid != self.engine}
        return found

    def terminate(self) -> int:
        """Send SIGTERM to each descendant not seen before; return how many those were."""
        known = set(self.swept)
        for process in self.descendants():
            if process.key not in known:
                self._send(process, signal.SIGTERM, signal.SIGCONT)
        return len(self.swept) - len(known)

    def kill(self) -> int:
        """Send SIGKILL to every descendant that there is; return how many were not seen before."""
        known = len(self.swept)
        found, groups = self.descendants(), set[int]()
        self.write_cgroup("cgroup.kill", b"1")
        if self.engine and self.status is None and not self._has_proc:
            with suppress(OSError):  # what left its group gets away
                os.killpg(self.engine, signal.SIGKILL)
        for process in found:
            # No fork escapes a signal to its group, as it can one to each process in turn (fork(2)).
            is_group = self._owns_session and process.group not in (0, 1, self.pid)
            if not is_group or process.group not in groups:
                groups.add(process.group)
                self._send(process, signal.SIGKILL, is_group=is_group)
        return len(self.swept) - known

    def _send(self, process: Process, *numbers: int, is_group: bool = False) -> None:
        handle = None
        with suppress(OSError, AttributeError):  # it is gone, or the kernel is older than 5.3
            handle = os.pidfd_open(process.pid)
        with suppress(OSError):  # gone, or another user's: that one is named as a survivor
            now = Process(process.pid)  # once more: by now the number may be a stranger's
            is_same = now.key == process.key and now.parent in (process.parent, self.pid)
            for number in numbers if is_same and now.group == process.group else ():
                if is_group:
                    os.killpg(now.group, number)
                elif handle is None:
                    os.kill(process.pid, number)
                else:
                    signal.pidfd_send_signal(handle, number)
        if handle is not None:
            os.close(handle)


def _spawn(
    command: list[str], environment: dict[str, str], outputs: list[int], bind: Callable[[], None]
) -> int:
    """Start a command in a process group of its own; OSError says why where it cannot be."""
    told, tell = os.pipe()  # its other end closes when the command is started
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())  # until they are its own
    if (pid := os.fork()) == 0:
        try:
            signal.set_wakeup_fd(-1)
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)
            bind()
            for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), *outputs)):
                os.dup2(source, target)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is wanted
        except (OSError, TypeError, ValueError, IndexError) as error:
            os.write(tell, f"cannot start {command}: {error}".encode(errors="replace")[-4096:])
        finally:
            os._exit(NOT_STARTED)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.close(tell)
    with open(told, "rb") as file:
        if message := file.read().decode(errors="replace"):
            os.waitpid(pid, 0)
            raise OSError(message)
    return pid


class Supervisor:
    """One run, from the start of its engine until the last of its processes is gone."""

    def __init__(self, folder: str, wakeup: int) -> None:
        self._folder, self._wakeup = folder, wakeup
        spec = json.loads(_read(f"{folder}/spec.json"))
        self._command: list[str] = spec["command"]
        self._environment: dict[str, str] = {**spec["environment"]}
        self._token = {"PREFECTLITE_RUN_TOKEN": spec["token"]}
        self._directory: str | None = spec.get("working_directory")
        self._grace_seconds = float(spec["grace_seconds"])
        self._timeout_seconds = float(spec.get("timeout_seconds") or _NEVER)
        self._is_streamed = spec.get("is_streamed") is True
        self._settle: list[str] | None = spec.get("settle_command")
        self._tree, self._streams, self._lost_bytes = Tree(), list[Stream](), 0
        self._hard_at = self._terminate_at = self._kill_at = _NEVER
        self._reason, self._message, self._survivors = "ended", "", list[tuple[int, int]]()

    def start(self) -> None:
        """Say who this is, then start the engine; OSError says why it could not be."""
        tree, pipes = self._tree, {"stdout": os.pipe(), "stderr": os.pipe()}
        tree.choose_cgroup()
        self._output = open(f"{self._folder}/output.jsonl", "ab", buffering=0)  # noqa: SIM115 - kept open
        identity = {"pid": tree.pid, "hostname": os.uname().nodename, "cgroup": tree.cgroup}
        if sys.platform == "linux":
            identity["start_ticks"] = Process(tree.pid, "self").key[1]
            identity["boot_id"] = _read("/proc/sys/kernel/random/boot_id").decode().strip()
            identity["pid_namespace"] = os.readlink("/proc/self/ns/pid")
        _publish(f"{self._folder}/supervisor.json", identity)
        self._started_at = time.time_ns() // 1000
        outputs, bind = [end for _, end in pipes.values()], lambda: tree.bind(self._directory)
        tree.engine = _spawn(self._command, self._environment | self._token, outputs, bind)
        tree.has_children = True
        try:  # only now that others know of it: else it would stay, should this process be killed
            os.mkdir(tree.cgroup or "")
            tree.write_cgroup("cgroup.procs", b"%d" % tree.engine)  # from here: it takes 15 ms
        except OSError:  # there is none, or there may be no more of them
            if tree.cgroup:
                tree.cgroup = None
                with suppress(OSError):
                    _publish(f"{self._folder}/supervisor.json", identity | {"cgroup": None})
        self._hard_at = time.monotonic() + self._timeout_seconds
        for number, (name, (source, target)) in enumerate(pipes.items(), start=1):
            os.close(target)
            copy = _own_output(number) if self._is_streamed else -1
            self._streams.append(Stream(name, source, copy, self._keep))

    def supervise(self, report: dict[str, object]) -> int:
        """Stay until every process is gone, and report on it; return the exit code to end with."""
        tree, streams = self._tree, self._streams
        try:
            while tree.status is None and not self._survivors:
                self._act(time.monotonic())
                self._turn(min(self._hard_at, self._terminate_at, self._kill_at))
            self._sweep()
        except Exception as error:  # noqa: BLE001 - no fault of ours may leave a process behind
            self._reason, self._message = "killed", f"the supervisor failed: {error!r}"
            self._kill()
        tree.remove_cgroup()
        until = time.monotonic() + DRAIN_SECONDS
        while any(one.wanted(is_hurried=True) for one in streams) and time.monotonic() < until:
            self._turn(until)
        for stream in streams:
            stream.close()
        code = -signal.SIGKILL if tree.status is None else os.waitstatus_to_exitcode(tree.status)
        if self._reason == "killed" and code != -signal.SIGKILL:
            self._reason = "terminated"  # it ended by itself just as its time was up
        if tree.status is not None:
            report |= {"exit_code": code} if code >= 0 else {"signal": -code}
        report |= {"reason": self._reason, "message": self._message or None}
        report |= {"survivors": self._survivors, "lost_output_bytes": self._lost_bytes}
        report |= {"swept": len(tree.swept - {*self._survivors}), "started_at": self._started_at}
        return code if code >= 0 else 128 - code

    def settle(self) -> None:
        """Run what tells the registry how the run ended; it is killed where it takes too long."""
        if self._settle:
            with suppress(OSError), open(f"{self._folder}/settle.log", "ab", buffering=0) as log:
                try:
                    pid = _spawn(self._settle, self._environment, [log.fileno()] * 2, lambda: None)
                    signal.signal(signal.SIGALRM, lambda *_: os.killpg(pid, signal.SIGKILL))
                    signal.alarm(SETTLE_SECONDS)
                    os.waitpid(pid, 0)
                except OSError as error:
                    log.write(f"{error}\n".encode(errors="replace"))

    def _turn(self, until: float) -> None:
        """Wait until then for a signal or for output, and handle what there is."""
        wanted = {self._wakeup: (select.POLLIN, self._hear)}
        for stream in self._streams:
            is_hurried = self._tree.status is not None or self._kill_at != _NEVER
            wanted |= stream.wanted(is_hurried=is_hurried)
        poller = select.poll()
        for descriptor, (event, _) in wanted.items():
            poller.register(descriptor, event)
        for descriptor, _ in poller.poll(min(max(0.0, until - time.monotonic()), 86_400.0) * 1000):
            wanted[descriptor][1]()
        self._tree.reap()

    def _keep(self, stream: str, lines: list[bytes]) -> None:
        """Write these lines to output.jsonl; all of them or, where the disk refuses that, none."""
        head = f'{{"at": {time.time_ns() // 1000}, "stream": "{stream}", "text": '
        texts = (json.dumps(line.decode("utf-8", "backslashreplace")) for line in lines)
        data = "".join(f"{head}{text}}}\n" for text in texts).encode()
        place = self._output.tell()
        with suppress(OSError):
            if self._output.write(data) == len(data):
                return
        self._lost_bytes += sum(len(line) + 1 for line in lines)
        with suppress(OSError):
            self._output.seek(self._output.truncate(place))

    def _hear(self) -> None:
        for number in os.read(self._wakeup, 4096):
            if number in (signal.SIGTERM, signal.SIGINT):
                grace, heed, now = self._grace_seconds, 0.0, time.monotonic()
                with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                    stop = json.loads(_read(f"{self._folder}/stop.json"))
                    grace, heed = float(stop["grace_seconds"]), float(stop.get("heed_seconds", 0))
                self._kill_at = min(self._kill_at, now + grace)
                if self._reason == "ended" and self._tree.status is None:
                    self._terminate_at = min(self._terminate_at, now + heed)
            elif number in (signal.SIGUSR1, signal.SIGUSR2):
                self._tree.tell_engine(number)

    def _act(self, now: float) -> None:
        if now >= self._hard_at:
            self._hard_at, begin_at = _NEVER, now
            if self._reason == "ended":
                self._reason = "timed_out"
                with suppress(OSError):  # the engine looks, to say why it ends
                    os.close(os.open(f"{self._folder}/timed_out", os.O_CREAT, 0o600))
                if os.path.exists(f"{self._folder}/stack_ready"):
                    self._tree.tell_engine(STACK_SIGNAL, signal.SIGCONT)
                    begin_at += STACK_SECONDS
                self._terminate_at = begin_at
            self._kill_at = min(self._kill_at, begin_at + self._grace_seconds)
        if now >= self._terminate_at:
            self._terminate_at = _NEVER
            self._reason = "terminated" if self._reason == "ended" else self._reason
            self._tree.tell_engine(signal.SIGTERM, signal.SIGCONT)
        if now >= self._kill_at:
            self._reason = "timed_out" if self._reason == "timed_out" else "killed"
            self._kill()

    def _sweep(self) -> None:
        """End what outlived the engine: told to first, then killed."""
        began_at = time.monotonic()
        if self._tree.has_children and not self._survivors:
            self._tree.terminate()
            self._wait(began_at + STORM_SECONDS)
            if self._tree.terminate() <= STORM_PROCESSES:
                self._wait(began_at + SWEEP_SECONDS)
            self._kill()

    def _wait(self, until: float) -> None:
        while self._tree.has_children and time.monotonic() < min(until, self._kill_at):
            self._turn(min(until, self._kill_at))

    def _kill(self) -> None:
        until, pause = time.monotonic() + KILL_SECONDS, 0.001
        while self._tree.has_children and time.monotonic() < until:
            # What forks gets no time to grow again; what cannot die does not keep us busy.
            pause = 0.001 if self._tree.kill() else min(pause * 2, 0.1)
            self._turn(time.monotonic() + pause)
        if self._tree.has_children:
            left = [one.key for one in self._tree.descendants() if not one.is_zombie]
            self._survivors = left[:STORM_PROCESSES] or [(self._tree.engine, 0)]
            self._message = f"SIGKILL did not end every process within {KILL_SECONDS:g} seconds"


def _own_output(number: int) -> int:
    """Return a descriptor of our stdout or stderr that does not block, where there can be one."""
    with suppress(OSError):  # a socket; and a file would lose its place in it
        if not os.path.isfile(f"/dev/fd/{number}"):
            return os.open(f"/dev/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return number


def _listen() -> int:
    """Return a descriptor that gives the number of each signal that comes, as a byte."""
    wakeup, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return wakeup


def main(folder: str) -> int:
    """Supervise the run of this folder; return the engine's exit code, or 128 + its signal."""
    os.closerange(3, 65_536)  # whatever came from who started us
    for _ in range(3):  # or else a standard stream that was closed would become a file of ours
        os.open(os.devnull, os.O_RDWR)
    wakeup, path, code, supervisor = _listen(), f"{folder}/exit.json", NOT_STARTED, None
    report = dict[str, object].fromkeys(("exit_code", "signal", "message", "started_at"))
    report |= {"reason": "not_started", "survivors": [], "swept": 0, "lost_output_bytes": 0}
    try:
        lock = os.open(f"{folder}/supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # for life: to close it is to let go
        except (BlockingIOError, PermissionError):
            return ALREADY_SUPERVISED  # and exit.json is the other one's
        with suppress(PermissionError):  # it leads a session already, or a group: job control's
            os.setsid()
        _prctl(_SET_CHILD_SUBREAPER, 1)
        with open(f"{path}.tmp", "wb") as file:
            file.write(b" " * RESERVED_BYTES)
        supervisor = Supervisor(folder, wakeup)
        supervisor.start()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        report["message"] = str(error) if isinstance(error, OSError) else f"spec.json: {error!r}"
    else:
        code = supervisor.supervise(report)
    report["ended_at"] = time.time_ns() // 1000
    for _ in range(WRITE_ATTEMPTS if os.path.exists(f"{folder}/supervisor.json") else 1):
        with suppress(OSError):
            _publish(path, report)
            break
        time.sleep(0.1)
    else:
        sys.stderr.write(f"cannot write {path}: {report['message'] or report['reason']}\n")
    if supervisor is not None:
        supervisor.settle()
    return code


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(sys.argv[1])))
