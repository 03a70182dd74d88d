"""Every example of every command's help can be run as it stands, where what it names is there."""

import io
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefectlite.command_tree import every_command
from prefectlite.commands import Group, documentation

DEADLINE_SECONDS = 60
#: What only a shell understands.
_SHELL = frozenset("|&;<>$`")


def _examples(found, words=()):
    if isinstance(found, Group):
        for word, inner in found.items():
            yield from _examples(inner, (*words, word))
        return
    for example in documentation(found).examples:
        yield pytest.param(" ".join(words), example, id=example)


def _without(*lines):
    """Return what deletes things that the examples make."""

    def prepare(place):
        for line in lines:
            place.run(line)

    return prepare


def _ended(place):
    place.add_runs()


def _running(place):
    place.add_runs(is_ended=False)


def _paused(place):
    place.add_paused_runs()


def _creating_a_block(place):
    place.run("block delete secret/api-key slack-webhook/default process/big-box")
    place.monkeypatch.setattr(sys, "stdin", io.StringIO("hush\n"))


def _setting_a_block(place):
    place.monkeypatch.setattr(sys, "stdin", io.StringIO("hush\n"))


def _building(place):
    Path("nightly-deployment.toml").unlink()


#: What is done before the examples of a command are run; where nothing stands here, flow runs that have
#: ended are put on record.
_BEFORE = {
    "block create": _creating_a_block,
    "block set": _setting_a_block,
    "deployment build": _building,
    "flow-run cancel": _running,
    "flow-run pause": _running,
    "flow-run resume": _paused,
    "profile create": _without("profile delete ci"),
    "work-queue create": _without("work-queue delete slow"),
}
#: Also before one example, beside what stands above.
_BEFORE_ONE = {
    "prefectlite flow-run wait 3f2a9c1e --for running --timeout 60s": _running,
    "prefectlite profile create ci-debug --from ci": _ended,
}


def _prepare(place, command, example):
    (_BEFORE_ONE.get(example) or _BEFORE.get(command) or _ended)(place)


@pytest.mark.parametrize(("command", "example"), [*_examples(every_command())])
def test_an_example_can_be_run_as_it_stands(command, example, place, run, request):
    _prepare(place, command, example)
    if command == "agent start" and "--run-once" not in example:
        exit_code, said = _until_told_to_end(example)
    elif _SHELL & {*example}:
        ended = request.getfixturevalue("in_shell")(example)
        exit_code, said = ended.returncode, ended.stderr
    else:
        if "--watch" in example and command == "deployment run":
            request.getfixturevalue("agent")()
        if command == "notification test":
            _tell(place, request.getfixturevalue("inbox"))
        ended = run("", *shlex.split(example)[1:])
        exit_code, said = ended.exit_code, ended.stderr
        if "--detach" in example:
            assert run(f"flow-run wait {ended.stdout.strip()}").exit_code == 0
    assert exit_code == 0, said
    assert "Traceback" not in said
    assert "error:" not in said


def _tell(place, address):
    """Have the rule tell a server that is there."""
    place.run(f"block create custom-webhook chat url={address}")
    place.run("notification delete 3f2a")
    rule = place.rule("custom-webhook/chat")
    place.registry.notifications.create_rule(rule)


def _until_told_to_end(example):
    """Run what goes on until it is told to end, tell it so once it has begun, and return its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prefectlite", *shlex.split(example)[1:]],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = process.stderr.readline()
        while " takes runs from" not in said and (line := process.stderr.readline()):
            said += line
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=DEADLINE_SECONDS)[1]
    finally:
        process.kill()
    return process.returncode, said
