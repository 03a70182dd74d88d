import io
import logging
import os
import pty
import re
import sys

import pytest

from prefectlite import flow, get_run_logger, logs, task
from prefectlite.errors import MissingContextError
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

DEADLINE_SECONDS = 20
LINE = re.compile(r"\d\d:\d\d:\d\d\.\d\d\d \| (.{7}) \| (.*)")


def use_only_our_handlers(monkeypatch):
    """Log without pytest's handler: it fails where a record cannot be formatted or shown."""
    logs.set_up()
    own = logging.getLogger("prefectlite")
    ours = [handler for handler in own.handlers if type(handler).__module__ == logs.__name__]
    monkeypatch.setattr(own, "handlers", ours)


def lines(registry):
    """The lines on record of the only flow run, without those of the engine."""
    (run,) = registry.list_flow_runs()
    registry.flush_logs()
    found = registry.read_logs(run.id)
    return [line for line in found if not line.message.startswith(("Created flow", "Finished in"))]


def messages(registry):
    return [line.message for line in lines(registry)]


def shown(text):
    """The level and the rest of each console line; the time must be there, and is not compared."""
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(matches), text
    return [match.groups() for match in matches]


def test_the_console_shows_time_level_run_and_message_on_stderr(registry, capsys):
    @task
    def my_task():
        get_run_logger().error("from the task")

    @flow(log_prints=True)
    def my_flow():
        print("hello")
        get_run_logger().warning("from the flow")
        my_task()

    my_flow()
    (run,) = registry.list_flow_runs()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert shown(captured.err) == [
        ("INFO   ", f"prefectlite.engine - Created flow run '{run.name}' for flow 'my-flow'"),
        ("INFO   ", f"Flow run '{run.name}' - hello"),
        ("WARNING", f"Flow run '{run.name}' - from the flow"),
        ("ERROR  ", "Task run 'my_task-0' - from the task"),
        ("INFO   ", "Task run 'my_task-0' - Finished in state Completed()"),
        (
            "INFO   ",
            f"Flow run '{run.name}' - Finished in state Completed('All states completed.')",
        ),
    ]


def test_a_record_has_the_level_the_logger_and_the_run_it_was_made_in(registry):
    @task
    def logs_too():
        get_run_logger().critical("in the task")

    @flow
    def runs():
        get_run_logger().info("in the flow")
        logs_too()

    runs()
    (task_run,) = registry.list_task_runs()
    assert [
        (line.level, line.logger, line.task_run_id, line.message) for line in lines(registry)
    ] == [
        (20, "prefectlite.flow_runs", None, "in the flow"),
        (50, "prefectlite.task_runs", task_run.id, "in the task"),
    ]


def test_arguments_tracebacks_and_stacks_are_part_of_the_message(registry):
    @flow
    def runs():
        logger = get_run_logger()
        logger.info("%s is %d", "one", 1)
        logger.info("100%")
        logger.info({"a": 1})
        try:
            int("mine")
        except ValueError:
            logger.exception("failed %s", "here")
        logger.info("where", stack_info=True)
        logger.log(35, "between")

    runs()
    told = messages(registry)
    assert told[:3] == ["one is 1", "100%", "{'a': 1}"]
    assert told[3].startswith("failed here\nTraceback (most recent call last):")
    assert told[3].endswith("ValueError: invalid literal for int() with base 10: 'mine'")
    assert told[4].startswith("where\nStack (most recent call last):")
    assert lines(registry)[5].level == 35


def test_extra_fields_of_the_caller_reach_the_programs_own_handlers(registry):
    seen = []

    class Own(logging.Handler):
        def emit(self, record):
            seen.append((record.getMessage(), getattr(record, "customer", None)))

    handler = Own()
    logging.getLogger("prefectlite").addHandler(handler)
    try:

        @flow(log_prints=True)
        def runs():
            get_run_logger().info("hello", extra={"customer": 7})
            print("printed")

        runs()
    finally:
        logging.getLogger("prefectlite").removeHandler(handler)
    assert [pair for pair in seen if " " not in pair[0]] == [("hello", 7), ("printed", None)]
    assert any(text.startswith("Created flow run") for text, _ in seen)


def test_the_programs_own_handler_is_told_the_line_of_code_that_logged(registry, monkeypatch):
    seen = []
    own = logging.Handler()
    own.emit = seen.append
    monkeypatch.setattr(logging.getLogger("prefectlite.flow_runs"), "handlers", [own])

    @flow
    def runs():
        get_run_logger().info("hello")
        get_run_logger().log(30, "hello")
        get_run_logger().warning("hello", stacklevel=1)

    runs()
    places = [(one.pathname, one.funcName) for one in seen if one.msg == "hello"]
    assert places == [(__file__, "runs")] * 3
    assert messages(registry) == ["hello"] * 3


@pytest.mark.parametrize("owner", ["prefectlite", "prefectlite.flow_runs", "handler"])
def test_filters_of_the_program_are_asked(registry, capsys, monkeypatch, owner):
    use_only_our_handlers(monkeypatch)
    console = logging.getLogger("prefectlite").handlers[0]
    filtered = console if owner == "handler" else logging.getLogger(owner)
    monkeypatch.setattr(filtered, "filters", [lambda record: "secret" not in record.getMessage()])

    @flow(log_prints=True)
    def runs():
        print("secret")
        get_run_logger().info("also %s", "secret")
        get_run_logger().info("open")

    runs()
    # A logger's own filters are not asked for records that come from loggers below it.
    assert ("secret" in capsys.readouterr().err) == (owner == "prefectlite")
    assert ("secret" in messages(registry)) == (owner != "prefectlite.flow_runs")


def test_a_level_of_the_console_handler_leaves_the_registry_whole(registry, capsys, monkeypatch):
    use_only_our_handlers(monkeypatch)
    console = logging.getLogger("prefectlite").handlers[0]
    monkeypatch.setattr(console, "level", logging.ERROR)

    @flow
    def runs():
        get_run_logger().info("quiet")
        get_run_logger().error("loud")

    runs()
    ((level, rest),) = shown(capsys.readouterr().err)
    assert (level, rest.rpartition(" - ")[2]) == ("ERROR  ", "loud")
    assert messages(registry) == ["quiet", "loud"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (None, ["info", "warning", "error"]),
        ("debug", ["debug", "info", "warning", "error"]),
        ("WARNING", ["warning", "error"]),
        ("CRITICAL", []),
    ],
)
def test_the_setting_says_the_least_level_that_is_shown_and_recorded(
    registry, monkeypatch, capsys, level, expected
):
    if level is not None:
        monkeypatch.setenv("PREFECTLITE_LOGGING_LEVEL", level)

    @flow
    def runs():
        for name in ("debug", "info", "warning", "error"):
            getattr(get_run_logger(), name)(name)

    runs()
    assert messages(registry) == expected
    told = [rest.rpartition(" ")[2] for _, rest in shown(capsys.readouterr().err)]
    assert [word for word in told if word in ("debug", "info", "warning", "error")] == expected


def test_a_logger_outside_of_a_run_is_an_error_that_says_what_to_do(registry):
    with pytest.raises(MissingContextError) as caught:
        get_run_logger()
    assert "logging.getLogger" in caught.value.hint
    assert isinstance(caught.value, RuntimeError)


class Unprintable:
    def __str__(self):
        raise ValueError("broken")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "arguments", "told"),
    [
        ("%d apples", ["many"], "%d apples (cannot be formatted, at "),
        ("one %s", [1, 2], "one %s (cannot be formatted, at "),
        ("this %s", [Unprintable()], "this %s (cannot be formatted, at "),
        (Unprintable(), [], "Unprintable (cannot be formatted, at "),
    ],
)
def test_a_record_that_cannot_be_formatted_does_not_break_the_flow(
    registry, capsys, monkeypatch, message, arguments, told
):
    use_only_our_handlers(monkeypatch)

    @flow
    def runs():
        get_run_logger().info(message, *arguments)
        return "done"

    assert runs() == "done"
    (recorded,) = messages(registry)
    assert recorded.startswith(told)
    assert f"{__file__}:" in recorded
    assert recorded in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["nul \0 inside", "half \ud800 a pair", "é ☃ 𝄞", "x" * 100_000],
    ids=["nul", "surrogate", "unicode", "long"],
)
def test_any_text_can_be_logged(registry, monkeypatch, text):
    use_only_our_handlers(monkeypatch)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "utf-8"))

    @flow(log_prints=True)
    def runs():
        print(text)
        get_run_logger().info(text)

    runs()
    first, second = messages(registry)
    assert first == second
    assert first[:3] == text[:3]


def test_a_level_beyond_measure_holds_up_no_other_line(registry):
    @flow
    def runs():
        get_run_logger().log(10**30, "loud")
        get_run_logger().info("next")

    runs()
    assert messages(registry) == ["loud", "next"]


class Broken(io.StringIO):
    def write(self, text):
        raise RuntimeError("broken")


class Closed(io.StringIO):
    def write(self, text):
        raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize("stream", [Broken(), Closed(), None, object()])
def test_a_stderr_that_cannot_be_written_loses_the_console_and_nothing_else(
    registry, monkeypatch, stream
):
    monkeypatch.setattr(sys, "stderr", stream)

    @flow
    def runs():
        get_run_logger().warning("hello")
        return "done"

    assert runs() == "done"
    monkeypatch.undo()
    assert messages(registry) == ["hello"]


PROGRAM = """
    from prefectlite import flow, get_run_logger
    @flow(log_prints=True)
    def runs():
        print("snow \\u2603")
        get_run_logger().warning("hello")
        return 1
    assert runs() == 1
    """


def recorded_by_program():
    registry = open_registry(PREFECTLITE_REGISTRY.value())
    return messages(registry)


# Python itself ends with 120 where it cannot write the rest of stderr.
@pytest.mark.parametrize(
    ("stderr", "exit_code"), [("2>&-", 0), ("2>/dev/full", 120), (">&- 2>&-", 0)]
)
def test_a_program_without_a_usable_stderr_runs_and_records(start_script, stderr, exit_code):
    shell = ["sh", "-c", f'exec "$@" {stderr}', "sh"]
    start_script(PROGRAM, prefix=shell).end(exit_code)
    assert recorded_by_program() == ["snow ☃", "hello"]
    assert open_registry(PREFECTLITE_REGISTRY.value()).list_flow_runs()[0].state.is_completed()


def test_a_stderr_in_ascii_shows_escapes(start_script):
    program = start_script(PROGRAM, env={"PYTHONIOENCODING": "ascii:strict"})
    _, error = program.process.communicate(timeout=DEADLINE_SECONDS)
    assert program.process.returncode == 0
    assert "snow \\u2603" in error


def test_a_pipe_gets_no_colour(start_script):
    program = start_script(PROGRAM, env={"TERM": "xterm"})
    _, error = program.process.communicate(timeout=DEADLINE_SECONDS)
    assert "hello" in error
    assert "\x1b" not in error


@pytest.mark.parametrize(
    ("environment", "has_colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_a_terminal_gets_colour_where_it_is_wanted(start_script, environment, has_colour):
    ours, theirs = pty.openpty()
    program = start_script(PROGRAM, env=environment, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            read = os.read(ours, 10_000)
        except OSError:  # how a terminal on Linux says that nobody has it open any more
            break
        if not read:
            break
        text += read
    os.close(ours)
    program.process.communicate(timeout=DEADLINE_SECONDS)
    assert b"hello" in text
    assert (b"\x1b[33m" in text) is has_colour
    assert (b"\x1b[0m" in text) is has_colour
    (plain,) = [line for line in text.splitlines() if b"snow" in line]
    assert b"\x1b" not in plain
