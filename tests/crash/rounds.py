"""A round: start, kill, let a command read, compare; and the end, when agents finish what is left."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tests.crash import records
from tests.crash.actors import Actors
from tests.crash.audit import ALWAYS, AT_REST, WHEN_PRUNED, Evidence, Rule, findings
from tests.crash.journal import Fact
from tests.crash.plans import Kill, Plan
from tests.crash.processes import Process, end_all, kill
from tests.crash.site import Done, Site

_LOOK_SECONDS = 0.01
#: For what goes on by itself, such as a flow that nobody waits for, before it is cancelled.
_END_SECONDS = 2.5
#: For what is told to end, and for what sees to it, on a busy machine.
_REST_SECONDS = 60.0
_TIMES = 30
_OWNERS = ("engine", "supervisor")
_EVERYTHING, _ANYBODY = "everything", "anybody"
#: How long a victim of the wanted kind, or another sign, is waited for.
_PATIENCE_SECONDS, _LONG_PATIENCE_SECONDS = 1.0, 20.0
_GOING_ON = [f"--state={state}" for state in ("running", "paused", "cancelling", "pending")]


@dataclass(slots=True)
class Outcome:
    """What came of a round.

    Attributes:
        kills: A sentence for each process that was killed.
        victims: The kind of each.
        found: What the rules have found.
    """

    kills: list[str] = field(default_factory=list)
    victims: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)


class Killer(threading.Thread):
    """Kills by the plan, from its start until it is stopped.

    Attributes:
        awaits_sign: Whether it waits, or will, for something else than its victim.
    """

    def __init__(self, site: Site, plan: Plan, outcome: Outcome) -> None:
        super().__init__(daemon=True)
        self._site = site
        self._plan = plan
        self._outcome = outcome
        self._began_at = time.monotonic()
        self._is_stopped = threading.Event()
        self.awaits_sign = any(planned.when for planned in plan.kills)

    def run(self) -> None:
        """Do the kills, one after the other."""
        try:
            self._site.guarded(self._kill_all)
        finally:
            self.awaits_sign = False

    def _kill_all(self) -> None:
        left = [*self._plan.kills]
        while left:
            planned = left.pop(0)
            self._is_stopped.wait(self._began_at + planned.at - time.monotonic())
            self._await(planned)
            if not self._is_stopped.wait(planned.linger):
                self._kill(planned)
            self.awaits_sign = any(other.when for other in left)

    def stop(self) -> None:
        """Kill nobody more."""
        self._is_stopped.set()
        self.join()

    def _await(self, planned: Kill) -> None:
        patience = _LONG_PATIENCE_SECONDS if planned.when else _PATIENCE_SECONDS
        until = time.monotonic() + patience
        while not (self._is_due(planned) or time.monotonic() > until):
            if self._is_stopped.wait(_LOOK_SECONDS):
                return

    def _is_due(self, planned: Kill) -> bool:
        if planned.when.isupper():
            return records.is_any(self._site.home, planned.when)
        return bool(self._victims(planned, planned.when or planned.kind))

    def _victims(self, planned: Kill, kinds: str) -> list[Process]:
        """Return who could be killed now: one of each kind, or everything."""
        there = [one for one in self._site.processes() if one.kind != "courier"]
        if kinds == _EVERYTHING:
            return there
        chosen = []
        for kind in kinds.split("+"):
            those = [one for one in there if kind in (_ANYBODY, one.kind, *one.words.split())]
            chosen += [those[int(planned.pick * len(those))]] if those else []
        return chosen

    def _kill(self, planned: Kill) -> None:
        victims = self._victims(planned, planned.kind)
        for victim in victims or ([] if planned.when else self._victims(planned, _ANYBODY)):
            self._site.about_to_kill(victim)
            if kill(victim, self._site.round_mark):
                seconds = time.monotonic() - self._began_at
                told = f"{victim.kind} {victim.pid} after {seconds:.3f} s: {victim.words}"
                self._outcome.kills.append(f"{told} {victim.flow_run_id}".rstrip())
                self._outcome.victims.append(victim.kind)


def play(site: Site, plan: Plan) -> Outcome:
    """Play a round, and leave nothing of it running."""
    outcome = Outcome()
    site.begin(plan.number)
    for start in plan.starts:
        if start.how == "deployed":
            site.deploy(start.flow)
    actors, killer = Actors(site, plan), Killer(site, plan, outcome)
    actors.begin()
    killer.start()
    actors.join()
    _until_no_engine(site, killer)
    killer.stop()
    found = _compared(site, ALWAYS)
    actors.dismiss()
    _end_what_goes_on(site)
    actors.finish()
    found += _compared_at_rest(site)
    outcome.found = [*dict.fromkeys(found)]  # what is wrong stays so from one look to the next
    end_all(site.mark)
    return outcome


def finish(site: Site, number: int) -> Outcome:
    """Let agents launch all that still waits, and compare for the last time."""
    site.begin(number)
    for _ in range(_TIMES):
        site.command("agent", "start", "--run-once")
        _until_no_engine(site)
        _end_what_goes_on(site)
        if all(run.is_final for run in records.read(site.home).flow_runs.values()):
            break
    outcome = Outcome(found=[*dict.fromkeys(_compared_at_rest(site, is_over=True))])
    end_all(site.mark)
    return outcome


def look(site: Site) -> list[str]:
    """Compare what is there, at rest."""
    evidence = _evidence(site)
    return findings(evidence, (*AT_REST, *WHEN_PRUNED))


def _until_no_engine(site: Site, killer: Killer | None = None) -> None:
    """Wait until no run goes on; for some seconds, or until nothing is waited for to kill one."""
    deadline = time.monotonic() + _END_SECONDS
    while _is_any_engine(site, killer):
        if time.monotonic() > deadline and not (killer and killer.awaits_sign):
            return
        time.sleep(_LOOK_SECONDS)


def _is_any_engine(site: Site, killer: Killer | None) -> bool:
    """Return whether a run goes on, or will for sure while somebody waits for that to kill one."""
    kinds = {one.kind for one in site.processes()}
    is_coming = killer is not None and killer.awaits_sign and "agent" in kinds
    return not kinds.isdisjoint(_OWNERS) or (is_coming and records.is_any(site.home, "SCHEDULED"))


def _end_what_goes_on(site: Site) -> Done:
    return site.command("flow-run", "cancel", *_GOING_ON, "--wait", "--grace", "1")


def _compared(site: Site, rules: tuple[Rule, ...]) -> list[str]:
    """Have a command read, and compare; what is found once may have changed since it was read."""
    seen: list[set[str]] = []
    for _ in range(2):
        site.command("flow-run", "ls", "--limit", "3")
        seen.append({*findings(_evidence(site), rules)})
        if not seen[-1]:
            break
    return sorted(set.intersection(*seen))


def _compared_at_rest(site: Site, *, is_over: bool = False) -> list[str]:
    """Wait until nothing but what may be left is, have a command read, and compare; then prune."""
    deadline = time.monotonic() + _REST_SECONDS
    while time.monotonic() < deadline and any(one.kind != "child" for one in site.processes()):
        time.sleep(_LOOK_SECONDS)
    site.command("flow-run", "ls", "--limit", "3")
    site.command("agent", "ls")
    evidence = _evidence(site, is_over=is_over)
    seen = {fact.run for fact in evidence.of("seen")}
    for run in evidence.records.flow_runs.values():
        if run.is_final and run.id not in seen:
            version = run.history[-1].version
            site.journal.note(Fact("seen", run=run.id, types=[run.type], attempt=version))
    found = findings(evidence, AT_REST)
    site.make_old()
    site.command("registry", "prune", "--older-than", "999d")
    return found + findings(_evidence(site), WHEN_PRUNED)


def _evidence(site: Site, *, is_over: bool = False) -> Evidence:
    # The processes last: what is on record as going on was started before.
    read = records.read(site.home)
    return Evidence(site.journal.facts(), read, site.processes(), site.home, is_over)
