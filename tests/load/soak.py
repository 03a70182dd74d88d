"""Half an hour of everything at once: an agent, flows of all kinds, cancels, pauses, followers, prunes.

What they do is chosen at random, by the seed. Each run must end as it was meant to; and the agent, a
flow that goes on all the time and the files of the home folder must not grow.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random

from prefectlite.registry import open_registry
from prefectlite.run_filters import TaskRunFilter
from prefectlite.settings import PREFECTLITE_REGISTRY
from tests.benchmarks.measuring import DEADLINE_SECONDS, home
from tests.load.errands import Errands
from tests.load.gauges import Gauges
from tests.load.programs import (
    agent,
    deploy,
    left_of_runs,
    run_command,
    start_python,
)
from tests.load.trials import Load, Trial, wait_until

_FLOWS = """
import signal, threading
from prefectlite import flow, get_run_logger, pause_flow_run, task

signal.alarm(3600)  # whatever becomes of the load, nothing outlives it for long

@task(persist_result=True)
def double(number):
    get_run_logger().info("double %s", number)
    return 2 * number

@flow(log_prints=True, persist_result=True)
def short(count: int = 5):
    for number in range(count):
        print("number", double(number))
    return sum(future.result() for future in double.map(range(count)))

@flow
def below():
    return double(1)

@flow
def nested():
    below()
    return below()

@flow
def asks():
    pause_flow_run(timeout=600)
    double(1)

@flow
def waits():
    threading.Event().wait()

@flow
def fails():
    raise ValueError("as it must")
"""
#: Goes on as long as the soak does.
_STEADY = """
import threading
from prefectlite import flow, task

@task
def beat(number):
    return number

@flow(log_prints=True)
def steady():
    number = 0
    while True:
        print("beat", beat(number))
        number += 1
        threading.Event().wait(1)

steady()
"""
_AGENT_RUNS = 4
_SAMPLE_SECONDS, _QUICK_SAMPLE_SECONDS = 5.0, 0.5
_TELL_SECONDS = 60.0
# The pace of the load itself: so often it looks at each of its runs.
_TURN_SECONDS = 0.1
# What has ended for so long is pruned; so from then on, as much goes as comes.
_KEPT_SECONDS, _QUICK_KEPT_SECONDS = 180, 4
# A busy machine has other things to do, too.
_BEGIN_SECONDS, _QUICK_BEGIN_SECONDS = 1.0, 0.3


def soak(trial: Trial) -> None:
    """Do all of it for some minutes, and see that nothing grows and nothing is left."""
    seconds = trial.minutes * 60
    with ExitStack() as stack:
        folder = stack.enter_context(home())
        registry = open_registry(PREFECTLITE_REGISTRY.value())
        (folder / "soaked.py").write_text(_FLOWS, encoding="utf-8")
        deploy(folder / "soaked.py", "short", "nested", "asks", "waits", "fails")
        launcher = stack.enter_context(agent(registry, "--limit", str(_AGENT_RUNS)))
        steady = start_python(["-c", _STEADY], stdout=subprocess.DEVNULL)
        errands = Errands(trial, registry, folder / "soaked.py", Random(trial.seed))
        gauges = Gauges(folder, {"agent": launcher.pid, "flow": steady.pid})
        try:
            wait_until(
                lambda: registry.list_task_runs(TaskRunFilter(flow_names=["steady"]), limit=1),
                "the long flow at work",
                seconds=DEADLINE_SECONDS,
            )
            _go_on(trial, errands, gauges, seconds=seconds)
            errands.finish()
        finally:
            steady.send_signal(signal.SIGINT)
            exit_code = steady.wait(DEADLINE_SECONDS)
            errands.stop()
        trial.claim_equal("soak: exit code of the long flow", exit_code, -signal.SIGINT)
        errands.claim()
        gauges.claim(trial)
        _claim_nothing_left(trial, folder, launcher.pid)


def _go_on(trial: Trial, errands: Errands, gauges: Gauges, *, seconds: float) -> None:
    """Do something at random, again and again, and look at the gauges now and then."""
    every = _QUICK_SAMPLE_SECONDS if trial.scale.is_quick else _SAMPLE_SECONDS
    kept = _QUICK_KEPT_SECONDS if trial.scale.is_quick else _KEPT_SECONDS
    begin_every = _QUICK_BEGIN_SECONDS if trial.scale.is_quick else _BEGIN_SECONDS
    began = time.monotonic()
    gauges.read()
    sample_at = begin_at = prune_at = tell_at = began
    while (present := time.monotonic()) < began + seconds or not gauges.are_enough:
        errands.advance()
        if present >= begin_at:
            errands.begin()
            begin_at = present + begin_every
        if present >= sample_at:
            gauges.read()
            sample_at = present + every
        if present >= prune_at:
            errands.prune(kept)
            prune_at = present + kept / 3
        if present >= tell_at:
            trial.tell(f"  {(present - began) / 60:.0f} min: {errands}; {gauges}")
            tell_at = present + _TELL_SECONDS
        time.sleep(_TURN_SECONDS)


def _claim_nothing_left(trial: Trial, folder: Path, launcher: int) -> None:
    """Say whether what the runs have left behind is gone a moment after the last has ended."""
    left = left_of_runs(folder, launcher)
    trial.claim("soak: nothing left of the runs", not left, left[:5] or "")
    locks = [*(folder / "processes").glob("*")]
    trial.claim("soak: one lock, the agent's", len(locks) <= 1, len(locks))
    check = run_command("registry", "check", "--json")
    found = json.loads(check.stdout)
    trial.claim("soak: registry check", check.returncode == 0, found["faults"] or "")
    trial.claim_equal("soak: stored results of no run on record", found["other_results"], 0)


LOADS: dict[str, Load] = {"soak": soak}
