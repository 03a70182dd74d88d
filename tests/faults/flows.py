"""The flows that are run on a disk with a fault; they leave something of each kind on it."""

from prefectlite import flow, task

_LINE = "x" * 3000


@task(persist_result=True, task_run_name="double-{number}")
def double(number: int) -> int:
    """Return twice a number."""
    return 2 * number


@flow(flow_run_name="inner")
def inner() -> int:
    """Run a task in a subflow."""
    return double(3)


@flow(log_prints=True, persist_result=True)
def work(count: int = 2) -> int:
    """Run some tasks and a subflow, and print much."""
    total = 0
    for number in range(count):
        total += double(number)
        print(number, _LINE)
    return total + inner()
