"""Real programs that share one home folder, a step at a time; ``__main__`` runs this under strace.

``python -m tests.power_loss.workload DISK STEP...``. It notes what each step is about to promise, and what
it has.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from prefectlite import flow
from prefectlite.blocks.system import Secret
from prefectlite.deployments import Deployment
from prefectlite.registry import open_registry
from prefectlite.run_filters import FlowRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.power_loss.flows import etl
from tests.power_loss.notes import note, state_of

_DEADLINE_SECONDS = 60
_FLOWS = "tests.power_loss.flows"


def _started(*arguments: str) -> subprocess.Popen[str]:
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    command = [sys.executable, "-m", "prefectlite", *arguments]
    return subprocess.Popen(command, stdout=pipe, stderr=null, text=True)


def _done(process: subprocess.Popen[str], *, exit_code: int = 0) -> str:
    out, _ = process.communicate(timeout=_DEADLINE_SECONDS)
    if process.returncode != exit_code:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}, not {exit_code}")
    return out


def _seen(run_id: str) -> None:
    """Note the state of a run that others can see: it is durable by then."""
    run = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True).find_flow_run(run_id)
    note("seen", id=run.id, state=state_of(run))


def _prefectlite(*arguments: str, exit_code: int = 0) -> str:
    return _done(_started(*arguments), exit_code=exit_code)


def begin(disk: Path) -> None:
    """Make a registry, by two programs at once."""
    both = [_started("run", f"{_FLOWS}:etl", "--quiet") for _ in range(2)]
    for process in both:
        _done(process)


def together(disk: Path) -> None:
    """Have three programs write at once."""
    for process in [_started("run", f"{_FLOWS}:etl", "--quiet") for _ in range(3)]:
        _done(process)


def checkpoint(disk: Path) -> None:
    """Write so much that the log moves into the file and begins anew, beside a program that lives long.

    Another writes at the same time, so that the checkpoint is not of what one program alone wrote.
    """
    for process in [_started("run", f"{_FLOWS}:{name}", "--quiet") for name in ("many", "etl")]:
        _done(process)
    _prefectlite("run", f"{_FLOWS}:etl", "--quiet")


def blocks(disk: Path) -> None:
    """Save, replace and delete blocks with a secret, in a flow that has committed before."""

    @flow
    def save_blocks() -> None:
        _save("key", "first")
        _save("key", "second " * 1_000)
        _save("old", "old")

    save_blocks()
    note("putting", what="block", name="old", value=None)
    _prefectlite("block", "delete", "secret/old")
    note("put", what="block", name="old", value=None)


def _save(name: str, value: str) -> None:
    note("putting", what="block", name=name, value=value)
    Secret(value=SecretStr(value)).save(name, overwrite=True)
    note("put", what="block", name=name, value=value)


def detached(disk: Path) -> None:
    """Run in the background, with a supervisor: to the end, killed, cancelled, and paused."""
    never = disk.parent / "never"
    whole, dead, long, paused = (
        _prefectlite("run", f"{_FLOWS}:{name}", "--detach", *options).strip()
        for name, *options in (
            ("etl",),
            ("killed",),
            ("hold", "-p", f"file={never}"),
            ("asking",),
        )
    )
    _prefectlite("flow-run", "wait", whole)
    _prefectlite("flow-run", "wait", dead, exit_code=1)
    _prefectlite("flow-run", "cancel", long, "--wait")
    _prefectlite("flow-run", "wait", paused, "--for", "paused")
    _seen(paused)
    _prefectlite("flow-run", "resume", paused)
    _seen(paused)
    _prefectlite("flow-run", "wait", paused)
    for run_id in (whole, dead, long, paused):
        _seen(run_id)


def deployed(disk: Path) -> None:
    """Have an agent launch a run of a deployment."""
    Deployment.build_from_flow(etl, "nightly", apply=True)
    run_id = _prefectlite("deployment", "run", "etl/nightly").strip()
    _seen(run_id)
    _prefectlite("agent", "start", "--run-once")
    _prefectlite("flow-run", "wait", run_id)
    _seen(run_id)


def backup(disk: Path) -> None:
    """Make a backup, and one in its place."""
    for number, options in enumerate(([], ["--force"])):
        note("putting", what="backup", name="registry.backup", value=number)
        _prefectlite("registry", "backup", str(disk / "registry.backup"), *options)
        note("put", what="backup", name="registry.backup", value=number)


def prune(disk: Path) -> None:
    """Delete runs and give their space back."""
    registry = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True)
    runs = registry.list_flow_runs(FlowRunFilter(flow_names=["many"]), limit=None)
    for run in runs:
        note("putting", what="flow_run", name=run.id, value=None)
    _prefectlite("registry", "prune", "--older-than", "0s", "--flow", "many", "--vacuum")
    for run in runs:
        note("put", what="flow_run", name=run.id, value=None)
    registry.close()


STEPS: dict[str, Callable[[Path], None]] = {
    step.__name__: step
    for step in (begin, together, checkpoint, blocks, detached, deployed, backup, prune)
}


def main() -> None:
    """Take the steps that the arguments name, while one flow goes on after the first of them."""
    disk, names = Path(sys.argv[1]), sys.argv[2:]
    release, holding = disk.parent / "release", None
    for name in names:
        note("step", name=name)
        STEPS[name](disk)
        if holding is None:
            holding = _started("run", f"{_FLOWS}:hold", "-p", f"file={release}", "--quiet")
    note("step", name="end")
    release.touch()
    if holding is not None:
        _done(holding)


if __name__ == "__main__":
    main()
