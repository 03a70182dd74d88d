"""What is shown of a run that ended before it began, by a clock that was set back meanwhile."""

from dataclasses import replace
from datetime import timedelta

import pytest

from prefectlite import flow
from prefectlite.clock import now
from prefectlite.names import new_id
from prefectlite.records import FlowRun
from prefectlite.run_filters import Order
from prefectlite.states import Completed, Running
from prefectlite.timelines import read_timeline


@pytest.fixture
def set_back(registry):
    """A run that ended an hour before it began, by the clock."""
    moment = now()
    run = FlowRun(
        id=new_id(),
        name="set-back",
        flow_name="etl",
        state=replace(Running(), timestamp=moment),
        run_count=1,
        created_at=moment,
        started_at=moment,
    )
    registry.create_flow_run(run)
    end = replace(Completed(), timestamp=moment - timedelta(hours=1))
    return registry.change_state(run, end)


def test_no_duration_is_negative(registry, set_back):
    assert set_back.duration_seconds == 0
    (summary,) = registry.list_flows()
    assert summary.mean_seconds == 0
    timeline = read_timeline(registry, set_back, limit=10)
    assert timeline.seconds > 0
    for row in timeline.rows:
        assert all(0 <= span.begin <= span.end <= timeline.seconds for span in row.spans)


def test_a_run_that_ended_before_it_began_is_sorted_as_the_shortest(registry, set_back):
    flow(name="longer")(lambda: None)()
    shortest = registry.list_flow_runs(order=Order("duration", is_descending=False))
    assert [run.flow_name for run in shortest] == ["etl", "longer"]


def test_the_history_of_a_run_is_in_the_order_of_its_states(registry, set_back):
    history = registry.state_history(set_back)
    assert [change.state.name for change in history] == ["Running", "Completed"]
    assert history[0].state.timestamp > history[1].state.timestamp
