"""Does prefectlite still do what it promises when there is very much of everything?

::

    python -m tests.load                        # everything; the soak alone takes half an hour
    python -m tests.load lines launched         # some of it
    python -m tests.load soak --minutes 5 --seed 7
    python -m tests.load --quick --json FILE    # small sizes, about a minute

Each file with ``LOADS`` is one group. A load *claims* what must be so, whatever the machine: every
run, task run and log line is on record, once and in order; nothing is left over; memory, descriptors
and files do not grow. A claim that does not hold is an exit code of 1. How long it took is *shown*,
beside the least that it can take or a target, and fails nothing. What another benchmark measures
already is taken from ``tests.benchmarks``.
"""
