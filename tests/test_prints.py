import asyncio
import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from prefectlite import flow, task
from prefectlite.run_filters import TaskRunFilter
from prefectlite.task_runners import SequentialTaskRunner

DEADLINE_SECONDS = 20
ENGINE = ("Created flow run", "Finished in state", "Encountered exception")


class Printed:
    """What was printed: on record, by the run's name, and to the terminal."""

    def __init__(self, registry, capsys):
        self._registry = registry
        self._capsys = capsys

    def on_record(self):
        found = []
        for run in reversed(self._registry.list_flow_runs(limit=None)):
            tasks = self._registry.list_task_runs(TaskRunFilter(flow_run_ids=[run.id]), limit=None)
            names = {task_run.id: task_run.name for task_run in tasks}
            found += [
                (names.get(line.task_run_id, run.flow_name), line.message)
                for line in self._registry.read_logs(run.id)
                if not line.message.startswith(ENGINE)
            ]
        return found

    def lines(self):
        return [message for _, message in self.on_record()]

    def stdout(self):
        return self._capsys.readouterr().out


@pytest.fixture
def printed(registry, capsys):
    return Printed(registry, capsys)


@pytest.mark.parametrize(
    ("setting", "of_flow", "of_task", "recorded"),
    [
        (None, None, None, []),
        ("true", None, None, ["flow", "task"]),
        ("true", False, None, []),
        ("false", True, None, ["flow", "task"]),
        (None, True, False, ["flow"]),
        (None, False, True, ["task"]),
        ("true", None, False, ["flow"]),
        ("true", False, True, ["task"]),
    ],
)
def test_prints_are_records_by_the_own_value_then_the_flows_then_the_setting(
    printed, monkeypatch, setting, of_flow, of_task, recorded
):
    if setting is not None:
        monkeypatch.setenv("PREFECTLITE_LOGGING_LOG_PRINTS", setting)

    @task(log_prints=of_task)
    def prints():
        print("task")

    @flow(log_prints=of_flow)
    def prints_too():
        print("flow")
        prints()

    prints_too()
    names = {"flow": "prints-too", "task": "prints-0"}
    assert printed.on_record() == [(names[word], word) for word in recorded]
    assert printed.stdout().split() == [word for word in names if word not in recorded]


def test_a_submitted_task_follows_the_same_rule(printed):
    @task
    def follows():
        print("recorded")

    @task(log_prints=False)
    def plain():
        print("plain")

    @flow(log_prints=True)
    def submits():
        follows.submit().wait()
        plain.submit().wait()

    submits()
    assert printed.on_record() == [("follows-0", "recorded")]
    assert printed.stdout() == "plain\n"


def test_a_subflow_follows_its_parent_unless_it_has_a_value_of_its_own(printed):
    @flow
    def follows():
        print("recorded")

    @flow(log_prints=False)
    def plain():
        print("plain")

    @flow(log_prints=True)
    def parent():
        follows()
        plain()

    parent()
    assert printed.on_record() == [("follows", "recorded")]
    assert printed.stdout() == "plain\n"


def test_a_print_in_any_function_that_the_run_calls_is_its_record(printed):
    def deep(depth):
        print(depth) if depth == 0 else deep(depth - 1)

    @task
    def calls():
        deep(3)
        list(map(print, ["by map"]))

    @flow(log_prints=True)
    def outer():
        deep(2)
        calls()
        deep(1)

    outer()
    assert printed.on_record() == [
        *[("outer", "0"), ("calls-0", "0"), ("calls-0", "by map"), ("outer", "0")]
    ]
    assert printed.stdout() == ""


def test_a_print_record_has_the_level_info(registry, printed):
    @flow(log_prints=True)
    def prints():
        print("hello")

    prints()
    (run,) = registry.list_flow_runs()
    assert [line.level for line in registry.read_logs(run.id) if line.message == "hello"] == [20]


def test_prints_outside_of_a_run_are_left_alone(printed):
    @flow(log_prints=True)
    def prints():
        print("inside")

    print("before")
    prints()
    print("after")
    assert printed.stdout() == "before\nafter\n"
    assert printed.lines() == ["inside"]


def test_sep_end_and_flush_are_those_of_print(printed):
    @flow(log_prints=True)
    def prints():
        print("a", 1, None, sep="-")
        print("a", "b", sep=None, end=None)
        print("x", end="!\n", flush=True)
        print()
        print("two\nlines")
        print("end of its own", end="\n\n")

    prints()
    assert printed.lines() == ["a-1-None", "a b", "x!", "", "two\nlines", "end of its own\n"]


def test_prints_that_make_one_line_are_one_record(printed):
    @flow(log_prints=True)
    def prints():
        print("one", end=" ", flush=True)
        print("two", end="")
        print(" three")
        print("next")

    prints()
    assert printed.lines() == ["one two three", "next"]


def test_a_line_that_was_not_ended_is_recorded_at_the_end_of_its_run(registry, printed):
    @task
    def begins():
        print("task's", end="")

    @flow(log_prints=True)
    def begins_too():
        print("flow's", end="")
        begins()

    begins_too()
    assert printed.on_record() == [("begins-0", "task's"), ("begins-too", "flow's")]
    (run,) = registry.list_flow_runs()
    registry.flush_logs()
    messages = [line.message for line in registry.read_logs(run.id)]
    assert messages[-2:] == ["flow's", "Finished in state Completed('All states completed.')"]


def test_a_line_that_was_not_ended_is_recorded_when_the_run_fails(printed):
    @flow(log_prints=True)
    def fails():
        print("begun", end="")
        raise ValueError

    fails(return_state=True)
    assert printed.lines() == ["begun"]


def test_a_carriage_return_begins_the_line_again(printed):
    @flow(log_prints=True)
    def progresses():
        for percent in range(0, 101, 50):
            print(f"\r{percent}%", end="", flush=True)
        print(" done")
        for percent in range(0, 101, 50):
            print(f"{percent}%", end="\r")
        print("dos\r\n", end="")

    progresses()
    assert printed.lines() == ["100% done", "dos"]


def test_a_print_to_any_other_file_is_left_alone(printed, tmp_path, capsys):
    kept = io.StringIO()

    @flow(log_prints=True)
    def prints():
        print("to stderr", file=sys.stderr)
        print("to memory", file=kept)
        with (tmp_path / "out.txt").open("w") as file:
            print("to a file", file=file)

    prints()
    assert printed.lines() == []
    assert kept.getvalue() == "to memory\n"
    assert (tmp_path / "out.txt").read_text() == "to a file\n"
    assert "to stderr\n" in capsys.readouterr().err


def test_a_print_to_stdout_by_name_is_a_record(printed):
    @flow(log_prints=True)
    def prints():
        print("hello", file=sys.stdout)
        print("hello", file=None)

    prints()
    assert printed.lines() == ["hello", "hello"]
    assert printed.stdout() == ""


def test_what_cannot_be_printed_raises_as_it_does_without_a_run(printed):
    class Broken:
        def __str__(self):
            raise ValueError("broken")

    @flow(log_prints=True)
    def prints():
        with pytest.raises(ValueError, match="broken"):
            print(Broken())
        with pytest.raises(TypeError):
            print("x", colour="red")
        print("went on")

    prints()
    assert printed.lines() == ["went on"]


class Printer(threading.Thread):
    def __init__(self, text):
        super().__init__()
        self.text = text

    def run(self):
        print(self.text)


def in_thread(text):
    thread = threading.Thread(target=print, args=(text,))
    thread.start()
    thread.join()


def in_subclass(text):
    printer = Printer(text)
    printer.start()
    printer.join()


def in_pool(text):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(print, text).result()


def in_timer(text):
    timer = threading.Timer(0, print, [text])
    timer.start()
    timer.join()


def in_thread_of_thread(text):
    thread = threading.Thread(target=in_thread, args=(text,))
    thread.start()
    thread.join()


def in_loop(text):
    asyncio.run(asyncio.to_thread(print, text))


@pytest.mark.parametrize(
    "start", [in_thread, in_subclass, in_pool, in_timer, in_thread_of_thread, in_loop]
)
def test_threads_that_a_run_starts_belong_to_it(printed, start):
    @task
    def prints():
        start("by the task's thread")

    @flow(log_prints=True, name="starts")
    def starts():
        start("by the flow's thread")
        prints()

    starts()
    assert printed.on_record() == [
        ("starts", "by the flow's thread"),
        ("prints-0", "by the task's thread"),
    ]
    assert printed.stdout() == ""


def test_threads_of_tasks_that_run_at_the_same_time_belong_each_to_its_own(printed):
    both = threading.Barrier(2)

    @task
    def prints(number):
        def in_step():
            both.wait(DEADLINE_SECONDS)
            print(f"thread {number}")
            both.wait(DEADLINE_SECONDS)

        thread = threading.Thread(target=in_step)
        thread.start()
        thread.join()

    @flow(log_prints=True)
    def maps():
        prints.map([0, 1])

    maps()
    assert sorted(printed.on_record()) == [("prints-0", "thread 0"), ("prints-1", "thread 1")]


def test_threads_that_no_run_has_started_belong_to_none(printed):
    asked, done = threading.Event(), threading.Event()

    def serve():
        asked.wait(DEADLINE_SECONDS)
        print("from outside")
        done.set()

    thread = threading.Thread(target=serve)
    thread.start()

    @flow(log_prints=True)
    def asks():
        asked.set()
        assert done.wait(DEADLINE_SECONDS)

    asks()
    thread.join()
    assert printed.lines() == []
    assert printed.stdout() == "from outside\n"


def test_lines_of_two_threads_are_not_mixed(printed):
    both = threading.Barrier(2)

    def spells(word):
        for letter in word:
            both.wait(DEADLINE_SECONDS)
            print(letter, end="")
        print()

    @flow(log_prints=True)
    def starts():
        threads = [threading.Thread(target=spells, args=(word,)) for word in ("abc", "xyz")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    starts()
    assert sorted(printed.lines()) == ["abc", "xyz"]


def test_between_two_items_of_a_generator_prints_are_its_callers(printed):
    @flow(log_prints=True)
    def items():
        print("in the flow")
        yield 1
        print("in the flow again")

    for item in items():
        print("at the caller", item)
    assert printed.lines() == ["in the flow", "in the flow again"]
    assert printed.stdout() == "at the caller 1\n"


def test_prints_of_coroutines_belong_each_to_its_own_run(printed):
    @task
    async def prints(number):
        await asyncio.sleep(0)
        print(number)
        await asyncio.sleep(0)
        print(number)

    @flow(log_prints=True)
    async def gathers():
        await asyncio.gather(prints(0), prints(1))
        print("all")

    asyncio.run(gathers())
    assert sorted(printed.on_record()) == [
        *[("gathers", "all"), ("prints-0", "0"), ("prints-0", "0")],
        *[("prints-1", "1"), ("prints-1", "1")],
    ]


def test_records_are_in_the_order_in_which_they_were_made(printed):
    turns = [threading.Event() for _ in range(40)]

    @task
    def prints(first):
        for number in range(first, len(turns), 4):
            assert turns[number].wait(DEADLINE_SECONDS)
            print(number)
            if number + 1 < len(turns):
                turns[number + 1].set()

    @flow(log_prints=True)
    def takes_turns():
        prints.map(range(4))
        turns[0].set()

    takes_turns()
    assert printed.lines() == [str(number) for number in range(40)]


def test_a_task_that_prints_in_a_plain_flow_is_recorded(printed):
    @task(log_prints=True)
    def prints():
        print("hello")

    @flow(task_runner=SequentialTaskRunner())
    def submits():
        prints.submit()

    submits()
    assert printed.lines() == ["hello"]


def test_print_stays_what_it_was_where_no_run_asks_for_records(home, start_python):
    code = """
        import builtins
        from prefectlite import flow
        before = print
        @flow
        def runs(): print("hello")
        runs()
        assert builtins.print is before
        """
    assert start_python(code).end() == "hello\n"


def test_a_program_that_a_run_starts_prints_to_the_terminal(registry, capfd):
    @flow(log_prints=True)
    def starts():
        subprocess.run(["echo", "by the program"], check=True)

    starts()
    assert capfd.readouterr().out == "by the program\n"
    (run,) = registry.list_flow_runs()
    assert not [line for line in registry.read_logs(run.id) if "program" in line.message]
