"""How fast prefectlite is, beside the least that the same work can cost on the same machine.

::

    python -m tests.benchmarks                     # everything, a few minutes
    python -m tests.benchmarks task empty-flow     # some of it
    python -m tests.benchmarks --quick --json FILE

Each file with ``BENCHMARKS`` is one group. A benchmark never compares with a figure from another
run or machine: ours and the limit (SQLite alone with the same statements, Python alone) take turns
in one run. What a ratio cannot say has a target of its own. Nothing here fails on a slow machine;
``test_benchmarks.py`` counts what must not grow: transactions, statements, imports, threads.
"""
