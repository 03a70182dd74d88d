"""Put prefectlite under load, by name, and report what did not hold; see the package."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path
from random import SystemRandom
from time import monotonic

from tests.benchmarks.measuring import Scale
from tests.benchmarks.report import document, table
from tests.load import full, launched, lines, mapped, soak, writers
from tests.load.trials import Load, Trial

_LOADS: dict[str, Load] = {
    name: load
    for group in (writers, mapped, lines, launched, full, soak)
    for name, load in group.LOADS.items()
}
_MINUTES, _QUICK_MINUTES = 30.0, 0.3
_SEEDS = 1_000_000


def main() -> int:
    """Do what the arguments name, print what was found, and return 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.load",
        description="Put prefectlite under load, and see whether what it promises still holds.",
        epilog="example: python -m tests.load lines soak --minutes 5 --seed 7 --json load.json",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of: {', '.join(_LOADS)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: about a minute in all")
    parser.add_argument("--seed", type=int, help="repeat what was chosen at random; default: any")
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"how long the soak lasts; default: {_MINUTES:g}, with --quick {_QUICK_MINUTES:g}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there, too")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in _LOADS]
    if unknown:
        parser.error(f"no such load: {', '.join(unknown)}")
    seed = SystemRandom().randrange(_SEEDS) if arguments.seed is None else arguments.seed
    minutes = arguments.minutes or (_QUICK_MINUTES if arguments.quick else _MINUTES)
    trial = Trial(Scale(arguments.quick), seed, minutes)
    trial.tell(f"seed {seed}")
    for name in arguments.names or _LOADS:
        trial.tell(f"{name} ...")
        began = monotonic()
        try:
            _LOADS[name](trial)
        except Exception as error:  # the next load is another matter
            traceback.print_exc()
            trial.claim_equal(f"{name}: what stopped it", repr(error), None)
        trial.tell(f"  {monotonic() - began:.0f} s")
    sys.stdout.write(_report(trial))
    if arguments.json:
        claims = [{"name": one.name, "holds": one.holds, "told": one.told} for one in trial.claims]
        found = {"seed": seed, "claims": claims, **document(trial.rows)}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if all(claim.holds for claim in trial.claims) else 1


def _report(trial: Trial) -> str:
    claims = [
        f"{'holds ' if claim.holds else 'BROKEN'}  {claim.name}"
        + (f": {claim.told}" if claim.told else "")
        for claim in trial.claims
    ]
    broken = sum(not claim.holds for claim in trial.claims)
    told = f"{broken} of {len(claims)} claims do not hold" if broken else "every claim holds"
    return "\n".join([table(trial.rows), *claims, "", f"seed {trial.seed}: {told}", ""])


if __name__ == "__main__":
    sys.exit(main())
