"""A flow run as a JUnit XML file, which is what CI servers show test results from.

``cli.run`` writes it. There is no standard, but what Jenkins, GitLab and the like agree on: a
``testsuite`` for the flow run and one for each subflow run, in it a ``testcase`` for each task run.
Its names are those of flows and task runs, which are the same from one run to the next, so that a
server can follow them; those that change are properties. A flow run is a test case of its own only where
it failed by itself, or has no task run that could stand for it.
"""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path

from prefectlite.output_files import write_file
from prefectlite.records import FlowRun, LogLine, TaskRun
from prefectlite.run_reports import FlowRunReport, Outcome, RunReport

# What XML 1.0 cannot say, not even as a reference (Char, production 2).
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# A parser makes a space of a line's end in an attribute, and a line feed of a bare CR.
_TEXT_ESCAPES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord("\r"): "&#13;"}
_ATTRIBUTE_ESCAPES = _TEXT_ESCAPES | {ord('"'): "&quot;", ord("\n"): "&#10;", ord("\t"): "&#9;"}
_ELEMENTS = {Outcome.FAILED: "failure", Outcome.BROKEN: "error"}


def write_junit(path: Path, reports: Sequence[FlowRunReport]) -> None:
    """Write the file.

    Args:
        path: As ``output_path`` gave it.
        reports: The flow run's, and then those of its subflow runs.

    Raises:
        OutputError: It cannot be written.
    """
    write_file(path, _document(reports))


def _document(reports: Sequence[FlowRunReport]) -> Iterator[str]:
    cases = [case for report in reports for case in _cases(report)]
    attributes = {"name": reports[0].flow_run.flow_name, **_counts(cases)}
    attributes |= {"time": _seconds(reports[0].flow_run)}
    del attributes["skipped"]  # which only a suite may have
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f"<testsuites{_attributes(attributes)}>\n"
    for number, report in enumerate(reports):
        yield from _suite(number, report)
    yield "</testsuites>\n"


def _suite(number: int, report: FlowRunReport) -> Iterator[str]:
    flow_run, cases = report.flow_run, _cases(report)
    started_at = flow_run.started_at or flow_run.created_at
    attributes = {"name": flow_run.flow_name, **_counts(cases), "time": _seconds(flow_run)}
    attributes["timestamp"] = started_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    attributes["hostname"] = flow_run.process.hostname if flow_run.process else socket.gethostname()
    attributes["id"] = str(number)
    yield f"  <testsuite{_attributes(attributes)}>\n    <properties>\n"
    for name, value in _properties(flow_run).items():
        yield f"      <property{_attributes({'name': name, 'value': value})}/>\n"
    yield "    </properties>\n"
    for case in cases:
        yield from _case(flow_run, case)
    if not _is_own_case(report):
        yield from _system_out(report.own.lines, indent="    ")
    yield "  </testsuite>\n"


def _cases(report: FlowRunReport) -> list[RunReport]:
    return [*report.task_runs, *[report.own] * _is_own_case(report)]


def _is_own_case(report: FlowRunReport) -> bool:
    return report.fails_by_itself or not report.task_runs


def _counts(cases: Sequence[RunReport]) -> dict[str, str]:
    outcomes = [case.outcome for case in cases]
    counts = {
        "tests": len(cases),
        "failures": outcomes.count(Outcome.FAILED),
        "errors": outcomes.count(Outcome.BROKEN),
        "skipped": outcomes.count(Outcome.SKIPPED),
    }
    return {name: str(count) for name, count in counts.items()}


def _properties(flow_run: FlowRun) -> dict[str, str]:
    properties = {
        "id": flow_run.id,
        "name": flow_run.name,
        "state": flow_run.state.name,
        "state_message": flow_run.state.message,
        "parameters": json.dumps({**flow_run.parameters}, ensure_ascii=False),
        "tags": ", ".join(flow_run.tags),
        "parent_flow_run_id": flow_run.parent_flow_run_id,
    }
    return {name: value for name, value in properties.items() if value}


def _case(flow_run: FlowRun, report: RunReport) -> Iterator[str]:
    run = report.run
    name = run.flow_name if isinstance(run, FlowRun) else run.name
    attributes = {"name": name, "classname": flow_run.flow_name, "time": _seconds(run)}
    yield f"    <testcase{_attributes(attributes)}>\n"
    element = _ELEMENTS.get(report.outcome)
    if element is not None:
        about = _attributes({"message": report.message, "type": run.state.name})
        yield f"      <{element}{about}>{_text(report.traceback or report.message)}</{element}>\n"
    elif report.outcome is Outcome.SKIPPED:
        yield f"      <skipped{_attributes({'message': report.message})}/>\n"
    yield from _system_out(report.lines, indent="      ")
    yield "    </testcase>\n"


def _system_out(lines: Sequence[LogLine], *, indent: str) -> Iterator[str]:
    text = "".join(_line(line) for line in lines)
    if text:
        yield f"{indent}<system-out>{_text(text)}</system-out>\n"


def _line(line: LogLine) -> str:
    local = line.timestamp.astimezone()
    time = f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"
    return f"{time} | {logging.getLevelName(line.level):<7} | {line.message}\n"


def _seconds(run: FlowRun | TaskRun) -> str:
    return f"{max(0.0, run.duration_seconds or 0.0):.3f}"


def _attributes(attributes: Mapping[str, str]) -> str:
    return "".join(
        f' {name}="{_shown(value).translate(_ATTRIBUTE_ESCAPES)}"'
        for name, value in attributes.items()
    )


def _text(text: str) -> str:
    return _shown(text).translate(_TEXT_ESCAPES)


def _shown(text: str) -> str:
    """Return a text with what XML cannot say escaped as Python does it."""
    return _FORBIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)
