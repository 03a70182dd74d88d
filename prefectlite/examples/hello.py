"""Say hello: the smallest flow with a task.

::

    prefectlite run prefectlite.examples.hello -p name=you
"""

from __future__ import annotations

from prefectlite import flow, task


@task
def greet(name: str) -> str:
    """Return a greeting."""
    return f"hello, {name}"


@flow(log_prints=True)
def hello(name: str = "world") -> str:
    """Greet somebody, and say so in the log."""
    greeting = greet(name)
    print(greeting)
    return greeting


if __name__ == "__main__":
    hello()
