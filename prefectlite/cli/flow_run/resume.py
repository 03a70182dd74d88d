"""Flow runs that go on: ``prefectlite flow-run resume``."""

from __future__ import annotations

from typing import Annotated

from prefectlite.commands import Option
from prefectlite.listings import JsonListOption
from prefectlite.parameter_options import pairs, parameters_of
from prefectlite.run_orders import Change, change_each, resume_one
from prefectlite.selections import DryRunOption, FlowRunSelection
from prefectlite.states import StateType


def resume(
    selection: FlowRunSelection,
    *,
    run_input: Annotated[
        list[str] | None,
        Option(
            "--input",
            "-i",
            description="An answer to what it asks for: JSON, or else plain text; may be repeated.",
            metavar="KEY=VALUE",
            complete="run-input",
        ),
    ] = None,
    input_json: Annotated[
        str | None,
        Option(
            "--input-json",
            description="All answers as a JSON object, or @FILE, or - for stdin.",
            metavar="JSON",
            complete="json-file",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonListOption = False,
) -> int:
    """Let paused flow runs go on, with an answer to what they ask for.

    What a run asks for is shown by inspect. Of several, those that can be are resumed; of those that
    options describe, it is done with each that is paused.

    Examples:
        prefectlite flow-run resume gigantic-cockatoo
        prefectlite flow-run resume 3f2a9c1e --input approved=true --input comment="looks good"
        prefectlite flow-run resume --flow my-flow --dry-run
    """
    given = parameters_of(input_json, option="--input-json")
    texts = pairs("--input", run_input or [])
    change = Change(
        lambda registry, flow_run: resume_one(registry, flow_run, given, texts),
        types={StateType.PAUSED},
        done="Resumed",
    )
    return change_each(selection, change, dry_run=dry_run, as_json=as_json)


COMMANDS = (resume,)
