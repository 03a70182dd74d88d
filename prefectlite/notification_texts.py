"""What a notification says: the usual text, and templates that a person writes.

A template is a format text whose fields stand for texts, and cannot reach into them. Nothing here reads
the registry: a text is made from what a notification has of its run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from string import Formatter

from prefectlite.clock import duration_text
from prefectlite.errors import UsageError
from prefectlite.names import near_names, new_id
from prefectlite.notification_records import NotificationRule
from prefectlite.records import FlowRun, iso_text
from prefectlite.states import STATE_NAMES, State, StateType

# Those that Prefect 2.8 has, too, have its names.
_FIELDS: dict[str, Callable[[FlowRun], str]] = {
    "flow_run_name": lambda run: run.name,
    "flow_run_id": lambda run: run.id,
    "flow_name": lambda run: run.flow_name,
    "flow_run_state_name": lambda run: run.state.name,
    "flow_run_state_type": lambda run: run.state.type.value,
    "flow_run_state_message": lambda run: run.state.message or "",
    "flow_run_state_timestamp": lambda run: iso_text(run.state.timestamp) or "",
    "flow_run_parameters": lambda run: json.dumps(dict(run.parameters), ensure_ascii=False),
    "flow_run_tags": lambda run: ", ".join(run.tags),
    "resume_command": lambda run: f"prefectlite flow-run resume {run.id}",
    "cancel_command": lambda run: f"prefectlite flow-run cancel {run.id}",
}
#: The names of the fields of a template.
FIELD_NAMES = tuple(_FIELDS)


def check_template(template: str) -> None:
    """See that a template can be filled in.

    Raises:
        UsageError: It says nothing, or has a field that there is not; the hint has the nearest.
    """
    if not template.strip():
        raise UsageError("the template is empty")
    try:
        parts = [*Formatter().parse(template)]
    except ValueError as error:
        raise UsageError(
            f"the template cannot be read: {error}",
            hint="a brace that is text is written twice: {{",
        ) from error
    for _, name, format_spec, conversion in parts:
        if name is None:
            continue
        if name not in _FIELDS:
            raise _unknown(name)
        if format_spec or conversion:
            raise UsageError(
                f"the template wants {name} in a format of its own", hint=f"write {{{name}}}"
            )


def _unknown(name: str) -> UsageError:
    near = near_names(name, _FIELDS)
    hint = f"did you mean {{{near[0]}}}?" if near else f"there are: {', '.join(_FIELDS)}"
    return UsageError(f"the template has a field {{{name}}}, which is none", hint=hint)


def example(rule: NotificationRule) -> FlowRun:
    """Return a run that never was, in the first state of a rule, to show what its messages look like."""
    told = f"This is a test of the notification rule {rule.id}. Nothing has happened."
    state_name = rule.states[0] if rule.states else "Failed"
    state = State(STATE_NAMES.get(state_name, StateType.FAILED), state_name, told)
    name, tags = "no-flow-run", rule.tags[:1]
    return FlowRun(id=new_id(), name=name, flow_name="no-flow", tags=tags, state=state)


def subject(flow_run: FlowRun) -> str:
    """Return what a message about a run's state is about, in one line."""
    return f"{flow_run.name}: {flow_run.state.name}"


def body(flow_run: FlowRun, template: str | None) -> str:
    """Return what a message about a run's state says.

    Args:
        flow_run: The run, with the state that is told.
        template: One that ``check_template`` has seen; None for the usual text.
    """
    if template is not None:
        return template.format(**{name: text(flow_run) for name, text in _FIELDS.items()})
    state = flow_run.state
    lines = [f"Flow run {flow_run.name!r} of flow {flow_run.flow_name!r} is {state.name}."]
    if state.message:
        lines.append(state.message)
    lines.append(f"ID: {flow_run.id}")
    lines.append(f"Time: {state.timestamp:%Y-%m-%d %H:%M:%S} UTC")
    if state.is_final() and flow_run.duration_seconds is not None:
        lines.append(f"Duration: {duration_text(flow_run.duration_seconds)}")
    if state.is_paused():
        lines.append(f"Resume it with: {_FIELDS['resume_command'](flow_run)}")
        lines.append(f"Cancel it with: {_FIELDS['cancel_command'](flow_run)}")
    return "\n".join(lines)
