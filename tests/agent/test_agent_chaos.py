"""Agents that share the work, and agents that are killed at any moment: nothing is lost or doubled."""

import os
import random
import signal
import subprocess
from collections import Counter

import pytest

from prefectlite.run_folders import run_folders

#: What becomes of a run, by its flow: what is cancelled does not heed; the supervisor of what is
#: lost is killed.
_ENDS = {"note": "Completed", "stubborn": "Cancelled", "wait": "Crashed"}


def check_each_began_once(site, runs, what):
    begun = Counter(site.begun())
    assert begun == Counter(run.id for run in runs), what
    site.check()


@pytest.mark.parametrize("count", [16, pytest.param(200, marks=pytest.mark.long)])
def test_of_two_agents_each_run_is_begun_by_exactly_one(site, count):
    runs = [site.add(queue="ab"[number % 2]) for number in range(count)]
    agents = [site.agent("-q", "a", "-q", "b", "--name", name) for name in ("one", "two")]
    site.until_state("Completed", *runs)
    for agent in agents:
        agent.ends(by=signal.SIGTERM)
    check_each_began_once(site, runs, [agent.text() for agent in agents])
    for run in runs:
        states = [name for name in site.history(run) if name != "Late"]
        assert states == ["Scheduled", "Pending", "Running", "Completed"]
    site.until_empty()


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.long)])
def test_agents_that_are_killed_at_any_moment_lose_and_double_nothing(site, rounds):
    seed = random.SystemRandom().randrange(10**6)
    print(f"the delays come from seed {seed}")
    chance = random.Random(seed)
    runs, untouched = [], []
    for number in range(rounds):
        new = [site.add(flow) for flow in ("note", "stubborn", "note", "wait")]
        runs += new
        untouched += [run for run in new if run.flow_name != "note"]
        agent = site.agent("--name", str(number)).says("takes runs from")
        # Launching these takes it about as long; then it sweeps, and cancels.
        with pytest.raises(subprocess.TimeoutExpired):
            agent.process.wait(chance.uniform(0, 0.3))
        untouched = touch(site, untouched)
        with pytest.raises(subprocess.TimeoutExpired):
            agent.process.wait(chance.uniform(0, 0.1))
        agent.ends(-signal.SIGKILL, by=signal.SIGKILL)
    agent = site.agent("--name", "last", is_hurried=True)
    site.until_begun(*untouched)
    assert touch(site, untouched) == []
    site.until_final(*runs)
    agent.ends(by=signal.SIGTERM)
    site.until_empty()
    ends = {run.name: (site.state(run), site.history(run)) for run in runs}
    for run in runs:
        assert site.state(run) == _ENDS[run.flow_name], (seed, ends, site.find(run).state)
    check_each_began_once(site, runs, (seed, ends))
    assert [agent.name for agent in site.tables.list_agents() if agent.name == "last"] == []
    left = [folder.path for folder in run_folders()]
    assert left == [], (seed, ends)


def touch(site, runs):
    """Cancel, or take the supervisor of, each run that has begun; return those that have not."""
    begun = set(site.begun())
    for run in runs:
        if run.id in begun and run.flow_name == "stubborn":
            site.ask(run)
        elif run.id in begun:
            os.kill(site.find(run).supervisor.pid, signal.SIGKILL)
    return [run for run in runs if run.id not in begun]
