"""What every test gets: a home folder of its own, whatever the person's environment says."""

import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from tempfile import TemporaryFile

import pytest

import prefectlite
from prefectlite.registry import open_registry
from prefectlite.setting_sources import PREFECTLITE_PROFILE, forget_profile
from prefectlite.settings import PREFECTLITE_HOME, PREFECTLITE_REGISTRY

_OURS = ("PREFECTLITE_", "_PREFECTLITE_", "PREFECT_")
#: How long a test waits for another process before it gives up on it.
DEADLINE_SECONDS = 60
#: How long a bench has to end what it has started, when it is told to.
_CLEAN_SECONDS = 45
#: How long it waits for a condition: less than what bounds the lives of the processes it is about,
#: or the end of one would always come.
_UNTIL_SECONDS = 40
_SOURCES = str(Path(prefectlite.__file__).parents[1])
_CHECKOUT = Path(__file__).parents[1]
# What changes how Python writes would hide a fault in how we do, or be one that is not ours.
_PYTHON = ("PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONUTF8")
# Where these tests run in GitHub Actions, what they run is not to annotate them.
_GITHUB = ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE")
_TERMINAL = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "LC_ALL", "LC_CTYPE", "LANG")


#: A disk in memory, which Linux has, and how much room there must be on it.
_MEMORY, _ROOM_BYTES = Path("/dev/shm"), 2 << 30


def pytest_configure(config):
    """Keep the files of the default suite in memory: a tenth of its time was waits for the disk.

    The tests that are marked ``long`` write to a real one.
    """
    _hear_signals()
    if config.option.markexpr == "not long" and _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK):
        disk = os.statvfs(_MEMORY)
        if disk.f_bavail * disk.f_frsize >= _ROOM_BYTES and not disk.f_flag & os.ST_NOEXEC:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def _hear_signals():
    """Let what tests start be interrupted, though these tests may run in the background, or by nohup.

    There signals are ignored, and whatever a process starts that ignores them does so, too (exec(3p)).
    """
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # a program that is executed has no handler
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Let ``-n auto`` be more workers than there are cores: the tests wait half of their time."""
    return (os.cpu_count() or 1) * 3 // 2


def pytest_runtest_setup(item):
    """Skip a test that needs a program which is not here."""
    for program in (name for mark in item.iter_markers("needs") for name in mark.args):
        if shutil.which(program) is None:
            pytest.skip(f"NOT TESTED: {program} is not installed")


#: Why a test may be skipped where nothing else may be: a container has neither another user nor this.
_MAY_BE_SKIPPED = (
    "root may read anything",
    "root may read everything",
    "there is no /etc/machine-id",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Let a skipped test fail where all must be there that tests need: with NO_SKIPS, as in CI."""
    report = yield
    if report.skipped and "NO_SKIPS" in os.environ and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2]
        if not reason.endswith(_MAY_BE_SKIPPED):
            report.outcome, report.longrepr = "failed", f"NO_SKIPS is set. {reason}"
    return report


@pytest.fixture(autouse=True)
def _no_real_home(tmp_path, monkeypatch):
    """Keep every test, and what it starts, away from the person's own files and settings."""
    for name in list(os.environ):
        if name.startswith(_OURS) or name in _TERMINAL + _PYTHON + _GITHUB:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user" / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user" / "config"))
    monkeypatch.setenv("PREFECTLITE_HOME", str(tmp_path / "home"))
    forget_profile()
    yield
    PREFECTLITE_PROFILE.forget()  # which a command line sets with --profile
    forget_profile()
    sqlite = sys.modules.get("prefectlite.registry.sqlite")
    if sqlite is not None:
        sqlite._close_all()


@pytest.fixture
def home(tmp_path):
    """The folder that PREFECTLITE_HOME names; it does not exist yet."""
    return tmp_path / "home"


@pytest.fixture
def registry(home):
    """The registry that the flows of this test are recorded in."""
    return open_registry(PREFECTLITE_REGISTRY.value())


@pytest.fixture
def profiles_path(tmp_path):
    """The file of profiles; its folder exists."""
    path = tmp_path / "user" / "config" / "prefectlite" / "profiles.toml"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def write_profiles(profiles_path):
    """Write the file of profiles, as a person does who then starts a new process."""

    def write(text):
        profiles_path.write_text(text, encoding="utf-8")
        forget_profile()

    return write


#: Flows that deployments are made of.
_FLOWS = """
from pydantic import SecretStr
from prefectlite import flow

@flow(name="the flow", version="7")
def etl(day: str = "today", n: int = 1):
    '''Extract.

    And load.
    '''

@flow
def strict(number: int): ...

@flow
def secret(password: SecretStr): ...

@flow(validate_parameters=False)
def lax(number: int): ...

same = etl
"""


@pytest.fixture
def flows_folder(tmp_path, monkeypatch):
    """A current folder with flows; what a test imports is forgotten when it ends."""
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "deployed_flows.py").write_text(_FLOWS)
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name not in before and file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


class Started:
    """A process that runs a test's own Python code, and says when it is ready."""

    def __init__(self, program, arguments, options):
        environment = {**os.environ, "PYTHONPATH": _SOURCES, **options.pop("env", {})}
        prefix = options.pop("prefix", [])  # a command that starts another, such as unshare(1)
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-W", "error", *program, *map(str, arguments)],
            text=True,
            env=environment,
            **{**pipes, **options},
        )
        self.pid = self.process.pid

    def line(self):
        """Wait for one line of its stdout and return it; it must then wait for ``tell``."""
        descriptor, line = self.process.stdout.fileno(), b""
        while not line.endswith(b"\n"):  # by bytes: select knows nothing of lines in a buffer
            readable, _, _ = select.select([descriptor], [], [], DEADLINE_SECONDS)
            assert readable, "the process said nothing"
            byte = os.read(descriptor, 1)
            assert byte, f"the process ended: {self.process.communicate()[1]}"
            line += byte
        return line[:-1].decode()

    def tell(self, text="go"):
        """Send it one line."""
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def end(self, exit_code=0):
        """Wait until it ends, with this exit code, and return the rest of its stdout."""
        out, error = self.process.communicate(timeout=DEADLINE_SECONDS)
        assert self.process.returncode == exit_code, error
        return out

    def kill(self):
        """End it as a power cut would, and wait until it is gone."""
        self.process.kill()
        return self.process.communicate(timeout=DEADLINE_SECONDS)[0]


@pytest.fixture
def start_python():
    """Start Python code in another process; what still runs at the end of the test is killed."""
    started = []

    def start(code, *arguments, **options):
        started.append(Started(["-c", textwrap.dedent(code)], arguments, options))
        return started[-1]

    yield start
    _end(started)


@pytest.fixture
def start_script(tmp_path):
    """Start Python code that is kept in a file, as ``python my_flow.py``."""
    started = []

    def start(code, *arguments, **options):
        path = tmp_path / "my_flow.py"
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        started.append(Started([str(path)], arguments, options))
        return started[-1]

    yield start
    _end(started)


def _end(started):
    for one in started:
        if any(pipe and not pipe.closed for pipe in (one.process.stdout, one.process.stderr)):
            one.kill()


@pytest.fixture
def start_command():
    """Start a command of prefectlite; options are Popen's, and ``prefix`` starts it.

    What still runs at the end of the test is killed.
    """
    started = []

    def start(*words, **options):
        options = {"stdin": subprocess.DEVNULL, **options}
        started.append(Started(["-m", "prefectlite"], words, options).process)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_command(start_command):
    """Run a command to its end, with this exit code; return its stdout."""

    def run(*words, exit_code=0, **options):
        process = start_command(*words, **options)
        out, error = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == exit_code, error
        return out

    return run


@pytest.fixture
def bench():
    """Run ``python -m MODULE WORD...`` from the checkout to its end; what it said is shown on failure.

    One that takes longer is interrupted, as by Ctrl-C, and so ends what it has started; then it is
    killed.
    """

    def run(module, *words, seconds=DEADLINE_SECONDS):
        # Files, not pipes: who is left by one that is killed would keep those open.
        with TemporaryFile("w+") as out, TemporaryFile("w+") as error:
            command = [sys.executable, "-m", module, *map(str, words)]
            process = subprocess.Popen(
                command, cwd=_CHECKOUT, stdin=subprocess.DEVNULL, stdout=out, stderr=error
            )
            is_late = _interrupted(process, seconds)
            out.seek(0)
            error.seek(0)
            done = subprocess.CompletedProcess(
                command, process.returncode, out.read(), error.read()
            )
        print(done.stdout)
        print(done.stderr, file=sys.stderr)
        assert not is_late, f"{module} did not end within {seconds} s"
        return done

    return run


def _interrupted(process, seconds):
    """Wait for the end of a process; return whether it had to be interrupted for that."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_CLEAN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return True
    except BaseException:  # the tests themselves are
        process.send_signal(signal.SIGINT)
        raise
    return False


@pytest.fixture
def until():
    """Wait until a condition holds, and return what it gave; ``told`` says more if it never does."""

    def wait(condition, what="", *, told=lambda: "", seconds=_UNTIL_SECONDS):
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not in time: {what} {told()}"
            time.sleep(0.005)
        return value

    return wait


@pytest.fixture
def stop_process(until):
    """Stop a process, and wait until it is.

    Not while it writes to the registry: nobody else can write while that is stopped.
    """

    def stop(pid):
        stat = Path(f"/proc/{pid}/stat")
        with (PREFECTLITE_HOME.value() / "registry.lock").open("rb") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            os.kill(pid, signal.SIGSTOP)
            until(lambda: stat.read_text().rpartition(") ")[2][0] == "T", "a stopped process")

    return stop


@pytest.fixture
def with_token():
    """Return the PIDs of the other processes that have a text in their environment."""

    def find(token):
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:  # a zombie has no environment
                    if token.encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
                except OSError:  # it has ended, or nobody may look
                    continue
        return found

    return find


@pytest.fixture
def without_cgroups():
    """What starts a command that finds no control groups; nothing, where that is not allowed.

    Only root needs it, and may do it: for others there are none to write to.
    """
    script = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
    prefix = ["unshare", "--mount", "/bin/sh", "-c", script, "sh"]
    try:
        done = subprocess.run([*prefix, "true"], check=False, capture_output=True, timeout=20)
    except FileNotFoundError:
        return []
    return prefix if done.returncode == 0 else []
