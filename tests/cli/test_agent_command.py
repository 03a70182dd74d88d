"""prefectlite agent: start, ls."""

import json
import os
import signal
import sqlite3
from datetime import datetime

import pytest

_AGENT = """
import os, sys
os.dup2(1, 2)  # so that what it says can be waited for
sys.argv = ["prefectlite", "agent", "start", *sys.argv[1:]]
from prefectlite.__main__ import main
sys.exit(main())
"""
_KEYS = {"id", "name", "work_queues", "concurrency_limit", "hostname", "pid", "started_at"}


@pytest.fixture
def agent(start_python):
    """Start an agent with these options, and wait until it has begun."""

    def begin(*words):
        started = start_python(_AGENT, *words)
        started.said = [started.line()]
        while "takes runs from" not in started.said[-1]:
            started.said.append(started.line())
        return started

    return begin


def stop(agent, number=signal.SIGTERM, exit_code=0):
    agent.process.send_signal(number)
    return agent.end(exit_code)


def test_ls_of_nothing_is_a_header_or_an_empty_list(run):
    ended = run("agent ls")
    assert ended.stdout.split() == ["NAME", "QUEUES", "LIMIT", "PROCESS", "STARTED"]
    assert json.loads(run("agent ls --json").stdout) == []


def test_ls_shows_the_agents_that_are_going_and_not_those_that_were_killed(run, agent, registry):
    one = agent("-q", "a", "-q", "b", "-q", "a", "--limit", "4", "--name", "one")
    killed = agent("--name", "killed")
    other = agent("--name", "other")
    killed.kill()
    host = os.uname().nodename
    header, *lines = run("agent ls").stdout.splitlines()
    assert header.split() == ["NAME", "QUEUES", "LIMIT", "PROCESS", "STARTED"]
    assert lines[0].split()[:5] == ["one", "a,", "b", "4", f"{host}:{one.pid}"]
    assert lines[1].split()[:4] == ["other", "default", "-", f"{host}:{other.pid}"]
    assert len(lines) == 2
    assert [each.name for each in registry.deployments.list_agents()] == ["one", "other"]
    first, second = json.loads(run("agent ls --json").stdout)
    assert set(first) == _KEYS
    assert (first["work_queues"], first["concurrency_limit"]) == (["a", "b"], 4)
    assert (second["concurrency_limit"], second["pid"]) == (None, other.pid)
    assert datetime.fromisoformat(first["started_at"]) <= datetime.fromisoformat(
        second["started_at"]
    )
    stop(one)
    assert [each["name"] for each in json.loads(run("agent ls --json").stdout)] == ["other"]
    stop(other)
    assert json.loads(run("agent ls --json").stdout) == []


def test_an_agent_of_no_name_has_that_of_its_host_and_serves_the_queue_default(run, agent):
    started = agent()
    (shown,) = json.loads(run("agent ls --json").stdout)
    assert (shown["name"], shown["work_queues"]) == (os.uname().nodename, ["default"])
    assert started.said[-1].endswith(f"Agent '{os.uname().nodename}' takes runs from: default")
    assert stop(started, signal.SIGINT, 130).endswith(
        "SIGINT: no more runs are taken; those that go on are left to go on\n"
    )


def test_a_queue_that_is_not_on_record_is_told_and_served(run, agent):
    run("work-queue create known")
    started = agent("-q", "known", "-q", "unknown")
    assert started.said[:-1] == [
        "note: there is no work queue 'unknown' yet; its runs are taken all the same; did you mean known?"
    ]
    stop(started)


def test_a_round_tells_of_a_queue_that_is_probably_misspelled(run):
    run("work-queue create slow")
    ended = run("agent start --run-once -q slwo")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr.endswith("; did you mean slow?\n")


def test_a_round_says_nothing_of_a_queue_that_is_not_on_record_and_is_not_listed(run):
    ended = run("agent start --run-once -q quite-another")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "", "")
    assert json.loads(run("agent ls --json").stdout) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "0"], "--limit"),
        (["--limit", "many"], "--limit"),
        (["--name", ""], "name"),
        (["--name", "a\nb"], "name"),
        (["--nonsense"], "--nonsense"),
        (["extra"], "extra"),
    ],
    ids=range(6),
)
def test_an_agent_that_cannot_be_right_is_not_started(run, words, message):
    ended = run("agent start --run-once", *words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert message in ended.stderr


@pytest.mark.parametrize("words", [[], ["--run-once"]], ids=["start", "once"])
def test_an_agent_with_the_registry_of_a_newer_prefectlite_exits_5(start, home, registry, words):
    registry.close()
    connection = sqlite3.connect(home / "registry.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    ended = start("agent", "start", *words)
    assert ended.returncode == 5
    assert b"has schema 99" in ended.stderr
    assert b"hint: upgrade it" in ended.stderr


@pytest.mark.parametrize("words", [[], ["--run-once"]], ids=["start", "once"])
def test_an_agent_that_cannot_open_its_registry_exits_5_without_a_traceback(start, home, words):
    home.write_text("in the way")
    ended = start("agent", "start", *words)
    assert ended.returncode == 5
    assert ended.stderr.startswith(b"error: ")
    assert b"Traceback" not in ended.stderr
