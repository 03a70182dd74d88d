"""What GitHub Actions shows of a flow run: annotations, and a summary of the step.

``cli.run`` calls it where ``GITHUB_ACTIONS`` is ``true``. Annotations are workflow commands
(``::error ...``) on a line of their own. The runner reads both streams of a step for them
(actions/runner, ScriptHandler), so they go to stderr: stdout is the flow's own. No log groups are
made: they do not nest, and would tear apart what runs side by side. Neither may fail a run.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import punctuation

from prefectlite import console
from prefectlite.clock import duration_text
from prefectlite.records import FlowRun, TaskRun
from prefectlite.run_reports import FlowRunReport, Outcome, RunReport
from prefectlite.settings import GITHUB_STEP_SUMMARY, GITHUB_WORKSPACE

# The runner makes annotations of so many errors of a step, and leaves out the message of one that is
# longer (actions/runner, ExecutionContext).
_MOST_ANNOTATIONS = 10
_MESSAGE_CHARACTERS = 4_000
# GitHub refuses the whole summary of a step above the first. The second is about 1,000 task runs, and
# leaves room for the other runs of a step that runs several.
_STEP_BYTES = 1024 * 1024
_SUMMARY_BYTES = 128 * 1024
_CELL_CHARACTERS = 300
_COLUMNS = "| Task run | State | Duration | Message |\n|---|---|---:|---|\n"
_FRAME = re.compile(r'^[\s|+-]*File "(.+)", line ([0-9]+)', re.MULTILINE)
_LIBRARIES = ("site-packages", "dist-packages")
_ORDER = (Outcome.FAILED, Outcome.BROKEN, Outcome.SKIPPED, Outcome.PASSED)
# As numbers, since in GitHub's Markdown no structure is made of those.
_ENTITIES = {ord(character): f"&#{ord(character)};" for character in punctuation}


def tell_github(reports: Sequence[FlowRunReport]) -> None:
    """Annotate what failed, and append to the step's summary.

    Args:
        reports: The flow run's, and then those of its subflow runs.
    """
    for command in error_commands(reports):
        console.say(command)
    path = GITHUB_STEP_SUMMARY.value()
    if path:
        try:
            _append(path, reports)
        except OSError as error:
            console.note(f"the step summary cannot be written: {error.strerror or error}")


def error_commands(reports: Sequence[FlowRunReport]) -> Iterator[str]:
    """Yield a workflow command for each failure, for as many as GitHub shows."""
    failures = [failure for report in reports for failure in report.failures()]
    is_cut = len(failures) > _MOST_ANNOTATIONS
    for failure in failures[: _MOST_ANNOTATIONS - is_cut]:
        state = failure.run.state
        properties = {"title": f"{failure.noun} {failure.run.name!r} is {state.name}"}
        place = _place(failure.traceback)
        if place is not None:
            properties = {"file": place[0], "line": place[1], **properties}
        yield _command(properties, _told(failure))
    if is_cut:
        left = len(failures) - _MOST_ANNOTATIONS + 1
        hint = f"prefectlite task-run ls --flow-run {reports[0].flow_run.id[:8]}"
        yield _command({"title": f"{left} more runs have failed"}, f"See: {hint}")


def _command(properties: dict[str, str], message: str) -> str:
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::error {given}::{_data(message)}"


def _told(failure: RunReport) -> str:
    """Return a failure in words, cut in the middle, since both ends of a traceback matter."""
    text = failure.message
    if failure.traceback:
        text = f"{text}\n\n{failure.traceback}"
    if len(text) > _MESSAGE_CHARACTERS:
        half = _MESSAGE_CHARACTERS // 2
        text = f"{text[:half]}\n...\n{text[-half:]}"
    return text


def _data(text: str) -> str:
    """Return a text as the message of a workflow command, on one line that acts on no terminal."""
    lines = text.replace("%", "%25").replace("\r\n", "\n").split("\n")
    return "%0A".join(console.escaped(line) for line in lines)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _place(traceback: str) -> tuple[str, str] | None:
    """Return the file and line of the innermost frame of the user's own code; None where there is none.

    The file is relative to the workspace, where it is below it, as GitHub's files are.
    """
    libraries = Path(sysconfig.get_path("stdlib"))
    frames = [
        (path, line)
        for path, line in _FRAME.findall(traceback)
        if not path.startswith("<") and not Path(path).is_relative_to(libraries)
    ]
    own = [frame for frame in frames if not any(name in frame[0] for name in _LIBRARIES)]
    workspace = GITHUB_WORKSPACE.value()
    if workspace:
        folder = os.path.realpath(workspace)
        for path, line in reversed(own):
            real = Path(os.path.realpath(path))
            if real.is_relative_to(folder):
                return str(real.relative_to(folder)), line
    return own[-1] if own else None


def _append(path: str, reports: Sequence[FlowRunReport]) -> None:
    """Append the summary in one write, as far as there is room for it."""
    with Path(path).open("ab") as file:
        room = min(_SUMMARY_BYTES, _STEP_BYTES - file.tell())
        file.write(summary(reports, room=room).encode())


def summary(reports: Sequence[FlowRunReport], *, room: int) -> str:
    """Return the summary of a run as Markdown, cut where there is no room for more.

    Args:
        reports: The flow run's, and then those of its subflow runs.
        room: How many bytes of UTF-8 it may have.
    """
    parts: list[str] = []
    rest = "\nThere is more than is shown here; see `prefectlite flow-run inspect`.\n"
    left = room - len(rest)
    for part in _parts(reports):
        left -= len(part.encode())
        if left < 0:
            return "".join([*parts, rest]) if parts else ""
        parts.append(part)
    return "".join(parts)


def _parts(reports: Sequence[FlowRunReport]) -> Iterator[str]:
    for number, report in enumerate(reports):
        flow_run = report.flow_run
        what = "Subflow run" if number else "Flow run"
        yield (
            f"\n### {what} {_cell(flow_run.name)} of {_cell(flow_run.flow_name)}:"
            f" {_cell(flow_run.state.name)}\n\n"
        )
        yield f"{_duration(flow_run)}, `{flow_run.id}`"
        yield f": {_cell(flow_run.state.message)}\n\n" if flow_run.state.message else "\n\n"
        task_runs = sorted(report.task_runs, key=lambda one: _ORDER.index(one.outcome))
        for row, one in enumerate(task_runs):
            run = one.run
            cells = [run.name, run.state.name, _duration(run), run.state.message or ""]
            line = f"| {' | '.join(_cell(text) for text in cells)} |\n"
            yield line if row else _COLUMNS + line


def _duration(run: FlowRun | TaskRun) -> str:
    seconds = run.duration_seconds
    return "not begun" if seconds is None else duration_text(seconds)


def _cell(text: str) -> str:
    """Return a text as one line of Markdown in which nothing means anything."""
    line = " ".join(text.split())
    if len(line) > _CELL_CHARACTERS:
        line = f"{line[:_CELL_CHARACTERS]}..."
    return console.escaped(line).translate(_ENTITIES)
