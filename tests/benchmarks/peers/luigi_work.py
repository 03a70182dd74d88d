"""The work, done by Luigi with its local scheduler: run by the Python of a venv that has it.

A flow is one ``build`` with one worker, which is faster for tasks that do nothing than more of them,
each of which would be a forked process. A task in turn requires the one before it; mapped tasks are
all required by one. Each has a file of its own as its target, which is the whole record when the
clock stops: that there is such a file says that the task was once done. There are no runs, states,
times, parameters or log lines on record, and nothing can be listed, paused or cancelled.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import luigi
from programs import main, peak_bytes, seconds_each, tell


class Nothing(luigi.Task):
    """Make an empty file."""

    folder = luigi.Parameter()
    number = luigi.IntParameter()

    def output(self) -> luigi.LocalTarget:
        """Return the file."""
        return luigi.LocalTarget(f"{self.folder}/{self.number}")

    def run(self) -> None:
        """Make it, as plainly as can be."""
        Path(self.output().path).touch()


class Next(Nothing):
    """Come after the task with the number before."""

    def requires(self) -> list[luigi.Task]:
        """Return that, if there is one."""
        return [Next(self.folder, self.number - 1)] if self.number else []


class All(luigi.WrapperTask):
    """Require so many tasks."""

    folder = luigi.Parameter()
    count = luigi.IntParameter()

    def requires(self) -> list[luigi.Task]:
        """Return them."""
        return [Nothing(self.folder, number) for number in range(self.count)]


def build(task: luigi.Task) -> None:
    """Do a task and what it requires."""
    if not luigi.build([task], local_scheduler=True, workers=1, log_level="ERROR"):
        raise AssertionError(f"{task} was not done")


def costs(tasks: str, flows: str, mapped: str) -> None:
    """Tell what each of so many tasks, flows and mapped tasks takes in a process that is warm."""
    with TemporaryDirectory(dir=".") as one, TemporaryDirectory(dir=".") as two:
        build(Nothing(two, int(flows)))
        numbers = range(int(flows))
        tell(flow=seconds_each(len(numbers), lambda: [build(Nothing(two, n)) for n in numbers]))
        tell(task=seconds_each(int(tasks), lambda: build(Next(one, int(tasks) - 1))))
    with TemporaryDirectory(dir=".") as folder:
        tell(mapped=seconds_each(int(mapped), lambda: build(All(folder, int(mapped)))))


def first() -> None:
    """Do one task; the driver times the whole process."""
    with TemporaryDirectory(dir=".") as folder:
        build(Nothing(folder, 0))
        tell(peak=peak_bytes(), server=0)


if __name__ == "__main__":
    main({work.__name__: work for work in (costs, first)})
