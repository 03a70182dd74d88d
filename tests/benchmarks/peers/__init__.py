"""How fast prefectlite is beside its peers, doing the same work on the same machine in one run.

::

    python3 -m venv /tmp/prefect && /tmp/prefect/bin/pip install prefect 'fastapi<0.140'
    python3 -m venv /tmp/dbos && /tmp/dbos/bin/pip install dbos
    python3 -m venv /tmp/luigi && /tmp/luigi/bin/pip install luigi
    python -m tests.benchmarks.peers --venv /tmp/prefect --venv /tmp/dbos --venv /tmp/luigi

A contender is a library in one way of using it: Prefect is two, with a server of its own and with
none running. Each has a program, ``<library>_work.py``, which its own Python runs; what they share is
in ``programs.py``. ``contenders`` says how each is set up, ``measures`` which work there is and how
it is timed, ``sheets`` prints it. Contenders take turns, round by round, and a ratio is of two
values of the same round.

What makes it fair: everyone has warm byte code, a warmed-up home folder that is kept from round to
round, no terminal, and no network but 127.0.0.1; nobody sends telemetry. Each is used in the way
that is fastest for it, which its program's docstring tells, together with what is on record when the
clock stops. A cell that cannot be measured truthfully stays empty, with the reason below the table.
"""
