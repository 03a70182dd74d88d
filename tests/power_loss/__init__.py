"""Whether anything that was promised is lost, or anything is corrupt, after a power cut at any moment.

::

    python -m tests.power_loss                          # 400 cuts, about two minutes
    python -m tests.power_loss --seed 7 --cuts 5000
    python -m tests.power_loss --synchronous off        # proves that the bench finds what is wrong

strace(1) watches every file operation of a real workload (``workload``: several programs at once, a new
registry, checkpoints, blocks, results, supervised runs, backups, prune), which also notes what it was
told, such as "this run is Completed", in the same order (``traced/``). ``traces`` makes a list of
operations of it. ``disks`` replays that up to a moment, and makes a disk of what may be left then: what
was synced, and any part of the rest, in any order, torn or not. ``audits`` opens that disk with
prefectlite, on a machine that was started anew, and compares it with what had been noted before.

The disk is as unkind as POSIX allows, and more so than those of today: a new file, a new name and a
new size are lost unless they were synced each by its own fsync, writes to one file are reordered, and
in place of what is lost there may be zeros or rubbish.
"""
