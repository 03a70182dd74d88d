"""What is left when prefectlite's own processes are killed: nothing acknowledged is lost or untrue.

::

    python -m tests.crash --rounds 200 --seed 7     # half an hour; CI does a few rounds of a fixed seed
    python -m tests.crash --begin 12 --rounds 1 --seed 7 --keep FOLDER     # one of them again
    python -m tests.crash --audit FOLDER            # look once more at what was kept

Each round starts real flows, agents and commands over one registry (``plans`` draws them from the
seed, ``actors`` are they), kills some with SIGKILL at moments of the same seed, has a command read the
registry, and compares it with a journal that the flows and the driver have written beside it. The
rules are in ``audit``, each a function that can be seen failing in ``test_audit.py`` or by the bugs of
``tests/planted/bugs/crash.toml``. A killed process cannot be timed to the microsecond: the seed
repeats who is started and when a kill is due, not where in its code the victim is then.
"""
