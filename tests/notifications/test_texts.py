"""What notifications say, and which templates are refused."""

from dataclasses import replace
from string import Formatter

import pytest

from prefectlite.clock import from_microseconds
from prefectlite.errors import UsageError
from prefectlite.notification_texts import FIELD_NAMES, body, check_template, subject
from prefectlite.records import FlowRun
from prefectlite.states import Failed, Paused, Running

ID = "3f2a8f1e-0c1b-4a3e-9a53-1f6b9a1c2d3e"
AT = from_microseconds(1_700_000_000_000_000)


def run_in(state, **fields):
    state = replace(state, timestamp=AT)
    return FlowRun(id=ID, name="calm-otter", flow_name="etl", state=state, **fields)


def test_the_usual_text_says_what_became_of_which_run_and_why():
    flow_run = run_in(Failed("ValueError: no"), started_at=AT, ended_at=AT)
    assert subject(flow_run) == "calm-otter: Failed"
    assert body(flow_run, None).splitlines() == [
        "Flow run 'calm-otter' of flow 'etl' is Failed.",
        "ValueError: no",
        f"ID: {ID}",
        "Time: 2023-11-14 22:13:20 UTC",
        "Duration: 0ms",
    ]


def test_the_text_of_a_paused_run_says_how_to_go_on():
    assert body(run_in(Paused()), None).splitlines()[-2:] == [
        f"Resume it with: prefectlite flow-run resume {ID}",
        f"Cancel it with: prefectlite flow-run cancel {ID}",
    ]
    assert "resume" not in body(run_in(Running()), None)


def test_a_template_can_say_everything():
    template = "\n".join(f"{name}={{{name}}}" for name in FIELD_NAMES)
    check_template(template)
    flow_run = run_in(Failed(), parameters={"é": [1, "{x}"]}, tags=("a", "b"))
    assert body(flow_run, template).splitlines() == [
        "flow_run_name=calm-otter",
        f"flow_run_id={ID}",
        "flow_name=etl",
        "flow_run_state_name=Failed",
        "flow_run_state_type=FAILED",
        "flow_run_state_message=",
        "flow_run_state_timestamp=2023-11-14T22:13:20.000000+00:00",
        'flow_run_parameters={"é": [1, "{x}"]}',
        "flow_run_tags=a, b",
        f"resume_command=prefectlite flow-run resume {ID}",
        f"cancel_command=prefectlite flow-run cancel {ID}",
    ]


@pytest.mark.parametrize(
    ("template", "hint"),
    [
        ("{flow_run_nam}", "did you mean {flow_run_name}?"),
        ("{state}", "there are: "),
        ("{flow_run_name.__class__}", "did you mean {flow_run_name}?"),
        ("{flow_run_name[0]}", "did you mean {flow_run_name}?"),
        ("{flow_run_name!r}", "write {flow_run_name}"),
        ("{flow_run_name:>1000000000}", "write {flow_run_name}"),
        ("{flow_run_name:{flow_name}}", "write {flow_run_name}"),
        ("{}", "there are: "),
        ("{0}", "there are: "),
        ("{flow_name", "a brace that is text is written twice: {{"),
        ("}", "a brace that is text is written twice: {{"),
        ("", None),
        (" \n", None),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused(template, hint):
    with pytest.raises(UsageError) as caught:
        check_template(template)
    assert (caught.value.hint or "").startswith(hint or "")


def test_braces_that_are_text_stay():
    template = '{{"run": "{flow_run_name}"}}'
    check_template(template)
    assert body(run_in(Running()), template) == '{"run": "calm-otter"}'
    assert [name for _, name, _, _ in Formatter().parse(template) if name] == ["flow_run_name"]
