"""Run the models by name, and say what was reached; see the package."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from prefectlite.settings import PREFECTLITE_HOME
from tests.models import agent_machine, run_logs, run_machine, run_queries, run_queues
from tests.models.clocks import FakeClock
from tests.models.counts import Counts
from tests.models.elsewhere import OtherProcess

_MODELS: Mapping[str, tuple[type[RuleBasedStateMachine], Mapping[str, Sequence[str]]]] = {
    "runs": (
        run_machine.RunMachine,
        {
            **run_machine.OUTCOMES,
            **run_queues.OUTCOMES,
            **run_queries.OUTCOMES,
            **run_logs.OUTCOMES,
        },
    ),
    "agents": (agent_machine.AgentMachine, agent_machine.OUTCOMES),
}
_EXAMPLES, _STEPS = 100, 40
# The rarest of what is to be reached comes in every 400th step: in so many it is not reached by
# chance once in 100,000 runs. The long forms in CI take more.
_ENOUGH_STEPS = 5_000
_MEMORY = Path("/dev/shm")


def main() -> int:
    """Do what the arguments say, print what was reached, and return 1 where a model disagrees."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.models",
        description="The registry and the agents against models of them.",
        epilog="example: python -m tests.models runs --examples 20000 --seed 7",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of: {', '.join(_MODELS)}; default: all"
    )
    parser.add_argument("--examples", type=int, default=_EXAMPLES, help="of each; default 100")
    parser.add_argument("--steps", type=int, default=_STEPS, help="of an example; default 40")
    parser.add_argument("--seed", type=int, help="repeat the run that said this number")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for fewer steps")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in _MODELS]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}")
    number = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    sys.stderr.write(f"the seed is {number}\n")
    phases = [Phase.generate] if arguments.no_shrink else [Phase.generate, Phase.shrink]
    chosen = settings(
        max_examples=arguments.examples,
        stateful_step_count=arguments.steps,
        phases=phases,
        database=None,
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
    passed = [_run(name, number, chosen) for name in arguments.names or _MODELS]
    return 0 if all(passed) else 1


def _run(name: str, number: int, chosen: settings) -> bool:
    """Run one model, and return whether nothing is wrong."""
    sys.stderr.write(f"trying {name} ...\n")
    machine, outcomes = _MODELS[name]
    machine.counts = counts = Counts(outcomes)
    machine.clock = clock = FakeClock()
    machine.other = other = OtherProcess(clock)
    clock.start()
    try:
        run_state_machine_as_test(seed(number)(machine), settings=chosen)
    except Exception:  # whatever it is, it is what was found
        traceback.print_exc(file=sys.stdout)
        sys.stdout.write(f"{name}: found with --seed {number}\n")
        return False
    finally:
        clock.stop()
        other.end()
    sys.stdout.write(f"{name}: {counts.table()}")
    if counts.steps < _ENOUGH_STEPS:
        sys.stdout.write(f"{name}: these are too few steps to say what is never reached\n")
        return True
    never = counts.never()
    for rule in never:
        sys.stdout.write(f"{name}: the rule {rule} has never done what it is for\n")
    return not never


if __name__ == "__main__":
    memory = _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="models-", dir=memory) as folder:
        tempfile.tempdir = folder
        os.environ[PREFECTLITE_HOME.name] = folder
        sys.exit(main())
