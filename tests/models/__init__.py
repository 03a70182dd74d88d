"""The registry and the agents against models of them: any orders of steps, by hypothesis.

::

    python -m tests.models                          # both, 100 examples each, a seed of its own
    python -m tests.models runs --examples 20000
    python -m tests.models agents --seed 7          # an earlier run again

``*_model.py`` are the specification: what a registry does with runs (``run_model``), with those that are
launched (``launch_model``), how runs end together (``ending_model``), which are taken next
(``queue_model``) and what a listing shows (``query_model``).

``runs``: three writers share one registry: two connections of this process, and another process, each of
which knows any snapshot of the past. After each step what is on record equals the model. ``agents``: two
or three agents, with the real code of agents, serve one registry; infrastructure is replaced at its
interface, time at ``clock``. At any call of the registry, or of the infrastructure, an agent may be killed,
the registry may fail, or somebody else may do something. Each run begins once, in the order of the
queues and never above a limit; and in the end nothing is lost.

How often each rule came to what is counted: what is never reached is a defect of the bench.
"""
