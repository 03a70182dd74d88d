"""Bugs that a tired engineer might write, kept as data, and the tests that catch them.

A test for a fault is worth what it can catch. ``bugs/*.toml`` plants faults in the product, one small change
each, and names the tests that must fail with it. ``python -m tests.planted`` copies the tree, sees these tests
pass there, plants one bug after the other, and says which were caught. The default tests only look whether each
can still be planted, and whether each test of ``tests/faults`` is named by one.

Shape of a file: a list ``bug`` of tables with ``name`` (what is wrong with the product then), ``file``
(of the checkout), ``old`` (text that occurs in it exactly once), ``new`` (what stands there instead) and
``caught_by`` (pytest's ids of tests; each of them has to fail, for one of its parameters at least).
"""
