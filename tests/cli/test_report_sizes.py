"""How much a report on a run reads and holds of what was logged."""

from prefectlite.outcomes import TRACEBACK_HEADING
from prefectlite.run_reports import read_reports
from prefectlite.states import Failed


def test_however_much_is_logged_a_report_stays_small(seeds, monkeypatch):
    monkeypatch.setattr("prefectlite.run_reports._ALL_CHARACTERS", 40)
    flow_run = seeds.flow_run(end=False)
    failed = seeds.task_run(flow_run, end=Failed("no"))
    seeds.log(flow_run, f"{TRACEBACK_HEADING}{'<' * 500}{'>' * 500}", task_run=failed, level=40)
    for text in ("a" * 15, "b" * 15, "c"):
        seeds.log(flow_run, text)
    seeds.end(flow_run)
    (report,) = read_reports(seeds.registry, flow_run.id)
    assert [line.message for line in report.own.lines] == ["a" * 4, "b" * 15, "c"]
    (task_report,) = report.task_runs
    assert [line.message for line in task_report.lines] == [">" * 20]
    assert len(task_report.traceback) < 30


def test_for_github_only_tracebacks_are_read(seeds, monkeypatch):
    flow_run = seeds.flow_run(end=False)
    seeds.log(flow_run, "much")
    seeds.log(flow_run, f"{TRACEBACK_HEADING}why", level=40)
    seeds.end(flow_run, Failed("no"))
    read, read_logs = [], seeds.registry.read_logs

    def spy(*arguments, **query):
        found = read_logs(*arguments, **query)
        read.extend(line.level for line in found)
        return found

    monkeypatch.setattr(seeds.registry, "read_logs", spy)
    (report,) = read_reports(seeds.registry, flow_run.id, with_lines=False)
    assert (report.own.lines, report.own.traceback, read) == ((), "why", [40])
