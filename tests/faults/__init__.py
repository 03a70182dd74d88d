"""What prefectlite does on a disk that is full or fails, at each of its writes.

::

    python -m tests.faults                       # every hundredth; about a minute
    python -m tests.faults --every 1             # all of them, some hours
    python -m tests.faults injected --only prune --every 1 --seed 7

A round gives a command a home folder with runs on record, and one fault: so many bytes are left on its
disk (``full-disk``), no file may become longer than so much, where a write stops short
(``short-writes``), or the N-th of its system calls on a file of the home fails, or all from the N-th on
(``injected``, by strace(1)). Then the fault is gone, and the round is audited: the exit code is a
documented one, with one line of error and a hint; no traceback, no hang; what the command said it had
done is on record; what was on record before is intact; and the next command works.

``scenarios`` are the commands and what each promises, ``places`` their folders, ``audits`` looks at what
is left, ``sweeps`` makes the rounds, ``tracing`` knows strace. Needs Linux, root and strace.
"""
