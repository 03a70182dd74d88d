"""Which process is this? Known without asking the kernel, which costs as much as half a log line.

What belongs to one process (a connection, a thread, lines that wait) is compared with ``here.pid``
before it is used, so that a forked child takes nothing for its own that is its parent's.
"""

from __future__ import annotations

import os


class _Here:
    """This process.

    Attributes:
        pid: Its id, also in a child that ``os.fork`` has just made.
    """

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Ask the kernel again."""
        self.pid = os.getpid()


here = _Here()
