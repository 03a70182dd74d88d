"""Who takes part: each library in each way of using it that is compared, and how it is set up.

What a venv holds is asked of the venv's own Python. Nothing of the user's environment reaches a
contender but ``PATH``: not his settings, his home folder or his proxies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import prefectlite
from tests.benchmarks.measuring import SOURCES

PROGRAMS = Path(__file__).parent
#: What ``--peer`` names, and the distributions that are looked for.
PEERS = ("prefect", "dbos", "luigi")
OURS = "prefectlite"
_VERSIONS_CODE = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
# A venv's Python that says nothing for so long is broken.
_ANSWER_SECONDS = 30
# Of a list command; the same for everyone.
LISTED = 100

_NO_LIST = "Luigi keeps no list of runs."
_NO_PAUSE = "Luigi cannot pause a run or ask for anything."
_NO_CANCEL = "Luigi with its local scheduler has no way to cancel a run but a signal."
_OWN_SERVERS = (
    "Without a server each process starts one for itself, and what another process does reaches it"
    " by no way that Prefect promises."
)


class VenvError(Exception):
    """A folder is no venv, or its Python does not run."""


@dataclass(frozen=True, slots=True)
class Venv:
    """A venv's Python, and the versions of the peers that it has, by name."""

    python: Path
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Contender:
    """A library in one way of using it.

    Attributes:
        name: The key of its column.
        title: What stands above the column.
        python: The Python that runs its program.
        program: The program's file name.
        home: The folder that is its home and its current folder, from round to round.
        variables: What it needs in its environment.
        import_code: What imports what a program of a user needs.
        list_command: What lists ``LISTED`` runs; empty where there is no such thing.
        poll_seconds: Between two of its looks for a resume, by default.
        missing: Why it has no figure, by the name of the measure.
    """

    name: str
    title: str
    python: Path
    program: str
    home: Path
    variables: Mapping[str, str]
    import_code: str
    list_command: Sequence[str] = ()
    poll_seconds: float = 0.1
    missing: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Return the environment of its processes: with byte code, and without the user's own."""
        cache = Path(tempfile.gettempdir()) / f"prefectlite-benchmark-bytecode-{os.getuid()}"
        return {
            "PATH": f"{self.python.parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "DO_NOT_TRACK": "1",
            "PYTHONPYCACHEPREFIX": str(cache),
            **self.variables,
        }


def look_into(folder: Path) -> Venv:
    """Return what a venv has.

    Raises:
        VenvError: It is none, or its Python does not run.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        raise VenvError(f"{folder} is not a venv: there is no {python}")
    try:
        answer = subprocess.run(
            # Isolated: what the user's PYTHONPATH holds is not in the venv.
            [python, "-I", "-c", _VERSIONS_CODE, *PEERS],
            capture_output=True,
            check=True,
            text=True,
            timeout=_ANSWER_SECONDS,
        )
        return Venv(python.absolute(), json.loads(answer.stdout))
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise VenvError(f"{python} does not run: {last}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise VenvError(f"{python} does not run: {error}") from error


def ours(home: Path) -> Contender:
    """Return prefectlite, of this checkout and by this Python."""
    command = "import sys; from prefectlite.__main__ import main; sys.exit(main())"
    return Contender(
        name=OURS,
        title=f"prefectlite {prefectlite.__version__}",
        python=Path(sys.executable),
        program="prefectlite_work.py",
        home=home / OURS,
        variables={"PYTHONPATH": str(SOURCES), "PREFECTLITE_HOME": str(home / OURS)},
        import_code="from prefectlite import flow, task",
        # What pip writes for a console script.
        list_command=(sys.executable, "-c", command, "flow-run", "ls", "-n", str(LISTED)),
    )


def prefect(venv: Venv, home: Path, url: str | None) -> Contender:
    """Return Prefect with a server at that address, or with none running."""
    name = "prefect-server" if url else "prefect"
    how = "own server" if url else "none running"
    variables = {**PREFECT_VARIABLES, "PREFECT_HOME": str(home / name)}
    if url:
        variables["PREFECT_API_URL"] = url
    return Contender(
        name=name,
        title=f"Prefect {venv.versions['prefect']}, {how}",
        python=venv.python,
        program="prefect_work.py",
        home=home / name,
        variables=variables,
        import_code="from prefect import flow, task",
        list_command=_command(venv, "prefect", "flow-run", "ls", "--limit", str(LISTED)),
        poll_seconds=10,
        missing={} if url else dict.fromkeys(("resume", "resume-polling", "cancel"), _OWN_SERVERS),
    )


def dbos(venv: Venv, home: Path) -> Contender:
    """Return DBOS on SQLite."""
    url = f"sqlite:///{home / 'dbos' / 'dbos.sqlite'}"
    return Contender(
        name="dbos",
        title=f"DBOS {venv.versions['dbos']}, SQLite",
        python=venv.python,
        program="dbos_work.py",
        home=home / "dbos",
        variables={"DBOS_SYSTEM_DATABASE_URL": url},
        import_code="from dbos import DBOS",
        list_command=_command(
            venv, "dbos", "workflow", "list", "--sys-db-url", url, "--limit", str(LISTED)
        ),
        poll_seconds=1,
    )


def luigi(venv: Venv, home: Path) -> Contender:
    """Return Luigi with its local scheduler."""
    return Contender(
        name="luigi",
        title=f"Luigi {venv.versions['luigi']}",
        python=venv.python,
        program="luigi_work.py",
        home=home / "luigi",
        variables={},
        import_code="import luigi",
        missing={
            "list": _NO_LIST,
            "resume": _NO_PAUSE,
            "resume-polling": _NO_PAUSE,
            "cancel": _NO_CANCEL,
        },
    )


def _command(venv: Venv, name: str, *arguments: str) -> tuple[str, ...]:
    return (str(venv.python.parent / name), *arguments)


#: Prefect's settings, of its server and its clients: it tells nobody anything, and a runner looks
#: often for what is due, which nothing here times.
PREFECT_VARIABLES = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
}
