"""Play rounds by a seed and report what the rules find; see the package."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.crash.plans import Plan, draw, read_plan
from tests.crash.rounds import Outcome, finish, look, play
from tests.crash.site import Site

_EXAMPLE = """
examples:
  python -m tests.crash --rounds 200 --seed 7
  python -m tests.crash --rounds 1 --begin 12 --seed 7 --keep /tmp/crash   # round 12 alone
  python -m tests.crash --audit /tmp/crash                                 # what was kept
"""


def main() -> int:
    """Do what the arguments say, and return 1 where a rule is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash",
        description="Kill prefectlite's processes at random moments, and audit what is left.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=8, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="what is drawn (default: %(default)s)")
    parser.add_argument("--begin", type=int, default=0, help="the first round's number")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder, which is kept")
    parser.add_argument(
        "--plan", type=Path, metavar="FILE", help="play this round (JSON), no other"
    )
    parser.add_argument("--audit", type=Path, metavar="FOLDER", help="only audit what was kept")
    arguments = parser.parse_args()
    if arguments.audit is not None:
        if not (arguments.audit / "home" / "registry.db").exists():
            parser.error(f"nothing was kept in {arguments.audit}")
        return _report(look(Site(arguments.audit)))
    if arguments.keep is not None and arguments.keep.exists():
        parser.error(f"there is a {arguments.keep} already")
    if arguments.rounds < 1:
        parser.error("at least one round is played")
    numbers = range(arguments.begin, arguments.begin + arguments.rounds)
    plans, origin = [draw(arguments.seed, number) for number in numbers], f"seed {arguments.seed}"
    if arguments.plan is not None:
        try:
            plans, origin = [read_plan(arguments.plan)], f"plan {arguments.plan}"
        except (OSError, ValueError, TypeError, KeyError) as error:
            parser.error(f"{arguments.plan} is no plan: {error!r}")
    return _run(arguments.keep, origin, plans)


def _run(kept: Path | None, origin: str, plans: Sequence[Plan]) -> int:
    """Play the rounds in a new folder, end all that they started, and return the exit code."""
    folder = kept or Path(tempfile.mkdtemp(prefix="prefectlite-crash-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    site = Site(folder)
    has_evidence = True  # also where the bench itself fails
    try:
        found = _play(site, origin, plans)
        has_evidence = bool(found)
    except KeyboardInterrupt:
        has_evidence = False
        sys.stderr.write(f"interrupted; {origin}\n")
        return 130
    finally:
        site.close()
        if has_evidence:
            sys.stderr.write(f"kept for you to look at: {folder}\n")
        elif kept is None:
            shutil.rmtree(folder, ignore_errors=True)
    return _report(found)


def _play(site: Site, origin: str, plans: Sequence[Plan]) -> list[str]:
    """Play the rounds, tell of each, and return what was found; the first round to find stops it."""
    victims: Counter[str] = Counter()
    for plan in plans:
        began_at = time.monotonic()
        sys.stderr.write(f"round {plan.number} of {origin}: {plan}\n")
        outcome = play(site, plan)
        victims.update(outcome.victims)
        _tell(outcome, time.monotonic() - began_at)
        if outcome.found:
            break
    else:
        outcome = finish(site, plans[-1].number + 1)
    killed = ", ".join(f"{count} {kind}" for kind, count in victims.most_common()) or "nobody"
    sys.stdout.write(f"{origin}: {sum(victims.values())} killed: {killed}\n")
    return outcome.found


def _tell(outcome: Outcome, seconds: float) -> None:
    for told in outcome.kills:
        sys.stderr.write(f"  killed {told}\n")
    sys.stderr.write(f"  {len(outcome.found) or 'nothing'} found in {seconds:.1f} s\n")


def _report(found: list[str]) -> int:
    for one in found:
        sys.stdout.write(f"FOUND {one}\n")
    sys.stdout.write(f"{len(found)} found\n" if found else "every rule holds\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
